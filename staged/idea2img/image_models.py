"""From settings to the image model that is explored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from staged.backends.deciding import decisive
from staged.backends.idea2img.painter import GeneratorModel, IdeaImageModel
from staged.idea2img.settings import Idea2ImgSettings
from staged.settings import to_dict

if TYPE_CHECKING:  # it brings torch
    from staged.generate.settings import ModelSettings
    from staged.idea2img.checkpoint_model import CheckpointModel


def open_image_model(settings: Idea2ImgSettings) -> IdeaImageModel:
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


def check_image_model(settings: Idea2ImgSettings) -> None:
    """Look at a checkpoint of ours without loading it; others are looked at when they are opened.

    Raises:
        ValueError: There is no such checkpoint, or the language model does not know its world.
    """
    if settings.model is not None:
        _checkpoint(settings, settings.model)


def _checkpoint(settings: Idea2ImgSettings, model: ModelSettings) -> CheckpointModel:
    from staged.idea2img.checkpoint_model import CheckpointModel

    opened = CheckpointModel(model)
    if settings.miniature_lmm and not opened.expectation:
        raise ValueError(
            "lmm: the miniature world's language model knows shapes only, and "
            f"{model.checkpoint} draws more; name the model that writes and looks (lmm.model, "
            "lmm.base_url)"
        )
    return opened


def settled(settings: Idea2ImgSettings, begun: Idea2ImgSettings | None) -> Idea2ImgSettings:
    """Say what `auto` stands for where pictures are drawn; a folder keeps its precision.

    Args:
        settings: As they were asked for.
        begun: Those that the folder was begun with.

    Raises:
        ValueError: There is no such device.
    """
    changed: dict[str, Any] = {}
    for name in ("model", "pipeline", "editor"):
        section = getattr(settings, name)
        before = getattr(begun, name, None)
        if section is not None:
            from staged.devices import settle

            changed[name] = settle(section, begun=before.dtype if before else None)
    return replace(settings, **changed)
