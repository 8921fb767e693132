"""Who draws the images of a job: settings of an image editor, and how it is opened."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

from data_pipelines.services import PricedEditor
from staged.backends.deciding import decisive
from staged.backends.diffusers.settings import DiffusersSettings
from staged.backends.generators.editing_service import EditingService
from staged.backends.generators.settings import EditingServiceSettings
from staged.ranges import check_range
from staged.roles import ImageEditor, LatentEditor
from staged.settings import to_dict
from staged.shapes.players.editor import NO_MISTAKES, EditorMistakes, ShapesEditor
from staged.shapes.world.scene import CANVAS_PX

_SIDE_PX = 1024
"""Kontext, like most editors, was trained at one megapixel."""


@dataclass(frozen=True, kw_only=True)
class DrawingSettings:
    """How images are drawn."""

    width: int | None = None
    """Of every image, in pixels; null: the miniature world's canvas, or 1024 for an editor."""
    height: int | None = None
    """Of every image, in pixels; null as for the width."""
    foresight: bool | None = None
    """Tell the miniature world's editor what the prompt asks for later, so that it leaves room;
    others would draw it at once. Null: yes, there."""
    usd_per_image: float = 0.0
    """Price of one image, for the ledger and the budget."""
    editor: DiffusersSettings | None = None
    """A diffusers pipeline that draws; without one and without a service the miniature world's
    editor does."""
    service: EditingServiceSettings | None = None
    """A service that draws, with OpenAI's images API, in place of a pipeline."""
    mistakes: EditorMistakes = field(default_factory=EditorMistakes)
    """How often the miniature world's editor gets it wrong by itself."""

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is None:
                continue
            if value < 1:
                raise ValueError(f"{name} is {value}; expected at least 1")
            if self.miniature and value != CANVAS_PX:
                raise ValueError(
                    f"{name} is {value}: the miniature world's canvas is {CANVAS_PX} x "
                    f"{CANVAS_PX}; for other sizes name an editor"
                )
            if self.editor and self.editor.pipeline == "FluxKontextPipeline" and value % 16:
                raise ValueError(
                    f"{name} is {value}; FLUX.1 Kontext draws multiples of 16, such as "
                    f"{max(round(value / 16), 1) * 16}"
                )
        check_range(self, "usd_per_image", minimum=0)
        if self.editor is not None and self.service is not None:
            raise ValueError(
                f"service: {self.model} draws; leave out the pipeline (editor) or the service"
            )
        if not self.miniature and self.foresight:
            raise ValueError(
                f"foresight is for the miniature world's editor: {self.model} would draw at "
                "once what comes later; its prompts say which places stay empty"
            )
        if not self.miniature and self.mistakes not in (EditorMistakes(), NO_MISTAKES):
            raise ValueError(
                "mistakes are the miniature world's editor's; leave them out where another one "
                f"draws ({self.model})"
            )

    @property
    def miniature(self) -> bool:
        """Whether the miniature world's editor draws."""
        return self.editor is None and self.service is None

    @property
    def model(self) -> str:
        """Who draws instead of it; empty where nobody does."""
        chosen = self.editor or self.service
        return "" if chosen is None else chosen.model

    @property
    def carries_latents(self) -> bool:
        """Whether pictures are edited as the latents that they were decoded from."""
        return self.editor is not None and self.editor.carry_latents

    @property
    def num_flow_steps(self) -> int:
        """Steps of the sampler, where they are known."""
        return 0 if self.editor is None else self.editor.num_inference_steps

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the images, as plain data."""
        data = to_dict(self)
        for name in ("editor", "service"):
            data[name] = data[name] and decisive(data[name])
        return data

    def with_defaults(self) -> "DrawingSettings":
        """Fill in what is null, by whose world it is."""
        side = CANVAS_PX if self.miniature else _SIDE_PX
        return replace(
            self,
            width=self.width or side,
            height=self.height or side,
            foresight=self.miniature if self.foresight is None else self.foresight,
        )

    def settled(self, *, begun: "DrawingSettings | None") -> "DrawingSettings":
        """Say what `auto` stands for where a pipeline draws; what was begun keeps its precision.

        Args:
            begun: What the job's folder says, if it was begun.

        Raises:
            ValueError: There is no such device.
        """
        if self.editor is None:
            return self
        from staged.devices import settle  # torch is loaded only where it draws

        earlier = begun.editor.dtype if begun is not None and begun.editor else None
        return replace(self, editor=settle(self.editor, begun=earlier))


def open_editor(drawing: DrawingSettings) -> ImageEditor:
    """Load who draws; a diffusers pipeline may take minutes."""
    if drawing.service is not None:
        return EditingService(drawing.service)
    if drawing.editor is None:
        return ShapesEditor(mistakes=drawing.mistakes)
    # diffusers and torch load only where they draw.
    from staged.backends.diffusers.editor import DiffusersEditor

    return DiffusersEditor(drawing.editor)


def priced(editor: ImageEditor, drawing: DrawingSettings) -> PricedEditor:
    """An editor with the sizes and the price that the settings say."""
    assert drawing.width is not None and drawing.height is not None
    assert isinstance(editor, LatentEditor) or not drawing.carries_latents
    return PricedEditor(
        editor=editor,
        deciding=decisive(to_dict(drawing.editor or drawing.service or drawing.mistakes)),
        width=drawing.width,
        height=drawing.height,
        usd_per_image=drawing.usd_per_image,
        in_thread=not isinstance(editor, ShapesEditor),
        latents=cast(LatentEditor, editor) if drawing.carries_latents else None,
    )
