"""From settings to the image model that is explored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from staged.backends.deciding import decisive
from staged.backends.idea2img.painter import GeneratorModel, IdeaImageModel
from staged.settings import to_dict

if TYPE_CHECKING:  # the last brings torch
    from staged.backends.diffusers.settings import DiffusersSettings
    from staged.backends.generators.settings import EndpointSettings, PipelineSettings
    from staged.generate.settings import ModelSettings
    from staged.idea2img.checkpoint_model import CheckpointModel


class NamesImageModel(Protocol):
    """Settings that name an image model: one of the first three, and perhaps an editor beside."""

    @property
    def model(self) -> ModelSettings | None:
        """A checkpoint of ours."""
        ...

    @property
    def pipeline(self) -> PipelineSettings | None:
        """A pipeline of diffusers."""
        ...

    @property
    def endpoint(self) -> EndpointSettings | None:
        """A service."""
        ...

    @property
    def editor(self) -> DiffusersSettings | None:
        """Who draws onto pictures."""
        ...

    @property
    def miniature_lmm(self) -> bool:
        """Whether the miniature world's language model looks at the pictures."""
        ...


S = TypeVar("S", bound=NamesImageModel)


def open_image_model(settings: NamesImageModel) -> IdeaImageModel:
    """Open what the settings name; torch loads only where it draws.

    Args:
        settings: Settled; see `settled`.

    Raises:
        ValueError: They cannot be followed.
    """
    if settings.model is not None:
        return _checkpoint(settings, settings.model)
    editor, editing = None, None
    if settings.editor is not None:
        from staged.backends.diffusers.editor import DiffusersEditor

        editor = DiffusersEditor(settings.editor)
        editing = decisive(to_dict(settings.editor))
    if settings.pipeline is not None:
        from staged.backends.generators.pipeline import Pipeline

        return GeneratorModel(Pipeline(settings.pipeline), editor, editing=editing)
    from staged.backends.generators.endpoint import Endpoint

    assert settings.endpoint is not None
    endpoint = Endpoint(settings.endpoint)
    at_once = settings.endpoint.concurrency
    return GeneratorModel(endpoint, editor, editing=editing, at_once=at_once)


def check_image_model(settings: NamesImageModel) -> None:
    """Look at a checkpoint of ours without loading it; others are looked at when they are opened.

    Raises:
        ValueError: There is no such checkpoint, or the language model does not know its world.
    """
    if settings.model is not None:
        _checkpoint(settings, settings.model)


def _checkpoint(settings: NamesImageModel, model: ModelSettings) -> CheckpointModel:
    from staged.idea2img.checkpoint_model import CheckpointModel

    opened = CheckpointModel(model)
    if settings.miniature_lmm and not opened.expectation:
        raise ValueError(
            "lmm: the miniature world's language model knows shapes only, and "
            f"{model.checkpoint} draws more; name the model that writes and looks (lmm.model, "
            "lmm.base_url)"
        )
    return opened


def settled(settings: S, begun: S | None) -> S:
    """Say what `auto` stands for where pictures are drawn; a folder keeps its precision.

    Args:
        settings: As they were asked for.
        begun: Those that the folder was begun with.

    Raises:
        ValueError: There is no such device.
    """
    given: Any = settings  # a dataclass, which no protocol can ask for
    changed: dict[str, Any] = {}
    for name in ("model", "pipeline", "editor"):
        section = getattr(settings, name, None)
        before = getattr(begun, name, None)
        if section is not None:
            from staged.devices import settle

            changed[name] = settle(section, begun=before.dtype if before else None)
    found: S = replace(given, **changed)
    return found
