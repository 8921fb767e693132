"""Settings of `staged idea2img`; read without torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any, Final

from staged import settings, strict_json
from staged.backends.deciding import decisive
from staged.backends.diffusers.settings import DiffusersSettings
from staged.backends.generators.settings import EndpointSettings, PipelineSettings
from staged.backends.lmm.settings import LmmSettings
from staged.command_line import MAX_SEED
from staged.generate.settings import ModelSettings
from staged.jobs.budget import Budget
from staged.loops.idea2img.policy import IdeaPolicy
from staged.ranges import check_range
from staged.shapes.players.misbehaviour import SHAPES_LMM, Misbehaviour

DEFAULT_CHECKPOINT: Final = "miniature:base"
_SERVICES: Final = ("lmm", "model", "pipeline", "endpoint", "editor")


@dataclass(frozen=True, kw_only=True)
class Idea2ImgSettings:
    """Who explores which image model, and how.

    One of `model`, `pipeline` and `endpoint` is the image model; without any of them it is the
    miniature world's.
    """

    seed: int = 0
    """Of everything that is drawn at random, with the number of the exploration."""
    explorations: int = 1
    """Of each idea, with seeds that count up."""
    policy: IdeaPolicy = field(default_factory=IdeaPolicy)
    """How many prompts and rounds, and how pictures are judged."""
    model: ModelSettings | None = None
    """A checkpoint of ours; it edits too, as BAGEL does."""
    pipeline: PipelineSettings | None = None
    """A text-to-image pipeline of diffusers."""
    endpoint: EndpointSettings | None = None
    """A service with the images API of OpenAI."""
    editor: DiffusersSettings | None = None
    """A pipeline of diffusers that draws onto pictures, beside `pipeline` or `endpoint`."""
    lmm: LmmSettings | None = None
    """The language model that sees; null asks the miniature world's, in this process."""
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    """How the miniature world's language model lets us down."""
    budget: Budget = field(default_factory=Budget)
    """What all ideas of a folder may cost together."""
    concurrency: int = 4
    """Ideas explored at a time; does not change the result."""

    def __post_init__(self) -> None:
        """Check ranges, choose the image model, and keep the worlds apart.

        Raises:
            ValueError: A value is out of range, or values contradict one another.
        """
        check_range(self, "seed", minimum=0, maximum=MAX_SEED)
        check_range(self, "explorations", "concurrency", minimum=1)
        named = [name for name in ("model", "pipeline", "endpoint") if getattr(self, name)]
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)}: an exploration has one image model; name one")
        if not named:
            model = ModelSettings(checkpoint=DEFAULT_CHECKPOINT)
            object.__setattr__(self, "model", model)  # frozen from here on
        if self.editor is not None and self.model is not None:
            raise ValueError("editor: a checkpoint of ours edits by itself; leave the editor out")
        if self.model is not None and self.model.lmm is not None:
            raise ValueError(
                "model.lmm: its answers inside a drawing are not in this job's ledger, and would "
                "be paid for again after a kill; let the model play its roles by itself"
            )
        if self.miniature_lmm and self.pipeline is not None:
            raise ValueError(
                "lmm: the miniature world's language model knows shapes only, and "
                f"{self.pipeline.model} draws more; name the model that writes and looks "
                "(lmm.model, lmm.base_url)"
            )
        if not self.miniature_lmm and self.misbehaviour != Misbehaviour():
            raise ValueError(
                "misbehaviour is the miniature world's language model's; leave it out where "
                "another one is asked"
            )

    @property
    def miniature_lmm(self) -> bool:
        """Whether the language model is the miniature world's."""
        return self.lmm is None or self.lmm.model == SHAPES_LMM

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides an exploration beside its idea, as plain data."""
        data = settings.to_dict(replace(self, budget=Budget(), concurrency=1, explorations=1))
        services = {name: decisive(data[name]) for name in _SERVICES if data[name]}
        return {**data, **services}

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides an exploration beside its idea."""
        return hashlib.sha256(strict_json.dumps(self.deciding).encode()).hexdigest()
