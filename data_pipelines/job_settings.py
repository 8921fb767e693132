"""What every job that builds a data set has among its settings."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_pipelines.drawing import DrawingSettings
from data_pipelines.prompts import Prompts
from staged import strict_json
from staged.backends.deciding import decisive
from staged.backends.lmm.settings import LmmSettings
from staged.command_line import MAX_SEED
from staged.jobs.budget import Budget
from staged.ranges import check_range
from staged.settings import to_dict
from staged.shapes.players.misbehaviour import SHAPES_LMM, Misbehaviour


@dataclass(frozen=True, kw_only=True)
class JobSettings(ABC):
    """Settings that all jobs share; each adds its own."""

    title: str
    """Name of the data set."""
    seed: int = 0
    """Decides all that is left to chance."""
    concurrency: int = 16
    """Samples in the making at a time; does not change the result."""
    samples_per_shard: int = 1000
    """Most samples of a shard."""

    def __post_init__(self) -> None:
        """Check ranges."""
        check_range(self, "seed", minimum=0, maximum=MAX_SEED)
        check_range(self, "concurrency", "samples_per_shard", minimum=1)

    @property
    @abstractmethod
    def num_units(self) -> int:
        """Prompts, or whatever becomes one trajectory each."""

    @property
    def limits(self) -> Budget:
        """What the job may spend."""
        return Budget()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the samples: how many, how fast and for how much do not."""
        return hashlib.sha256(strict_json.dumps(self.deciding).encode()).hexdigest()

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        return to_dict(replace(self, concurrency=1))


@dataclass(frozen=True, kw_only=True)
class AskingJobSettings(JobSettings):
    """Settings of pipelines that ask a language model."""

    lmm: LmmSettings | None = None
    """The language model that reads, writes and judges; null asks the miniature world's, in this
    process."""
    wording: dict[str, Path] = field(default_factory=dict)
    """Kind of request -> file of yours that takes the place of our words: `version: …`, an empty
    line, and what the language model is told."""
    words: dict[str, str] | None = None
    """Version of the words of each kind of request. Found and kept when the job begins, so that a
    job never goes on in others."""
    misbehaviour: Misbehaviour = field(default_factory=Misbehaviour)
    """How the miniature world's language model lets us down."""
    budget: Budget = field(default_factory=Budget)
    """What the job may spend."""

    def __post_init__(self) -> None:
        """Check also that nothing of the miniature world's model is said of another."""
        super().__post_init__()
        if not self.asks_miniature and self.misbehaviour != Misbehaviour():
            assert self.lmm is not None
            raise ValueError(
                "misbehaviour is the miniature world's language model's; leave it out where "
                f"another one is asked ({self.lmm.model})"
            )

    @property
    def asks_miniature(self) -> bool:
        """Whether the language model is the miniature world's, which knows shapes only."""
        return self.lmm is None or self.lmm.model == SHAPES_LMM

    @property
    def limits(self) -> Budget:
        """What the job may spend."""
        return self.budget

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        data = super().deciding
        del data["wording"]  # `words` says what is in the files
        data["budget"] = to_dict(Budget())
        data["lmm"] = data["lmm"] and decisive(data["lmm"])
        return data


@dataclass(frozen=True, kw_only=True)
class DrawnJobSettings(AskingJobSettings):
    """Settings of pipelines that draw what prompts ask for."""

    prompts: Prompts = field(default_factory=Prompts)
    """What is asked for."""
    drawing: DrawingSettings = field(default_factory=DrawingSettings)
    """Who draws, and how."""

    def __post_init__(self) -> None:
        """Check also that language model, editor and prompts are all of one world.

        What is null is filled in, so that the saved settings say what was used.
        """
        super().__post_init__()
        drawing = self.drawing
        if self.asks_miniature and not drawing.miniature:
            raise ValueError(
                f"lmm: the miniature world's language model knows shapes only, and {drawing.model} "
                "draws; name the model that reads, plans and judges (lmm.model, lmm.base_url)"
            )
        if self.lmm is not None and not self.asks_miniature:
            if drawing.miniature:
                raise ValueError(
                    f"drawing.editor: {self.lmm.model} plans, and the miniature world's editor "
                    "draws shapes only; name an editor (drawing.editor.model) or a service "
                    "(drawing.service.model)"
                )
            if self.prompts.file is None:
                raise ValueError(
                    "prompts.file: sampled prompts are for the miniature world; give a file of "
                    "prompts for another language model"
                )
        # Frozen from here on: these are defaults that hang on another section.
        object.__setattr__(self, "drawing", drawing.with_defaults())

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        data = super().deciding
        del data["prompts"]["count"]
        return data | {"drawing": self.drawing.deciding}
