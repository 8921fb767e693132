"""How BAGEL plays its roles; read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from staged import protocol
from staged.engine.text_sampling import MAX_TEMPERATURE, TextSampling
from staged.model.flows import Flows
from staged.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class BagelSettings:
    """How BAGEL writes and draws.

    Attributes:
        flows: Steps, grid and guidance of first sketches, edits and refinements.
        size: Height and width of a sketch in pixels; None takes those of the input image or, with
            none, the largest square.
        vision_only: Read images as ViT copies alone, as the published model does to understand;
            otherwise as VAE copies too.
        max_text_tokens: Tokens of a text block at most.
        temperature: Of text; 0 takes the likeliest token.
        retry_temperature: Of text once an attempt has failed.
        top_p: Nucleus of text.
        choice_temperature: Of what comes next, a text, a picture or the end, where the model may
            choose; 0 takes the likeliest.
        preview_every: Flow steps between previews; 0 makes none.
        max_cached_tokens: Tokens whose keys and values are held at any time, over all
            trajectories, in whole pages, with room for what is being written; what trajectories
            share counts once. A step that needs more than that for itself fails. None is what
            memory has room for once a player begins, at most `MAX_CACHED_TOKENS`.
    """

    flows: Flows = field(default_factory=Flows)
    size: tuple[int, int] | None = None
    vision_only: bool = False
    max_text_tokens: int = protocol.MAX_TEXT_TOKENS
    temperature: float = TextSampling.temperature
    retry_temperature: float = 0.7
    top_p: float = 0.95
    choice_temperature: float = 0.0
    preview_every: int = 0
    max_cached_tokens: int | None = None

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: a value is out of range.
        """
        TextSampling(
            max_tokens=self.max_text_tokens, temperature=self.temperature, top_p=self.top_p
        )
        # Not 0: every attempt would fail alike.
        check_range(self, "retry_temperature", minimum=0, maximum=MAX_TEMPERATURE, above=True)
        check_range(self, "choice_temperature", minimum=0, maximum=MAX_TEMPERATURE)
        check_range(self, "preview_every", minimum=0)
        check_range(self, "max_cached_tokens", minimum=1)
