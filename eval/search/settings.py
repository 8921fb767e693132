"""How is searched; read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from staged.backends.lmm.settings import LmmSettings
from staged.ranges import check_range

MAX_CANDIDATES = 256
"""Of one picture; a trajectory's provenance must hold what became of each."""

VerifierKind = Literal[
    "detector", "clipscore", "pickscore", "aesthetic", "hps", "vqascore", "inspector", "lmm"
]


@dataclass(frozen=True, kw_only=True)
class VerifierSettings:
    """Who rates candidates."""

    kind: VerifierKind = "detector"
    """`detector` finds what the prompt asks for, as GenEval and the miniature do; a reward of
    `staged eval rewards`; `inspector` is a checkpoint asked for its own inspection; `lmm` is a
    language model that gives a grade."""
    weights: str | None = None
    """Of the reward, the detector's Mask2Former, or the inspector's checkpoint: folder or Hub id.
    Null takes what `staged eval rewards` and `staged eval detect` take; `miniature` is the
    miniature world's detector, for its shapes in a prompt file of GenEval's form."""
    clip: str | None = None
    """CLIP that tells a detector's colours, or that `aesthetic` stands on; null as above."""
    golden: Path | None = None
    """Images for the detector's self-test; without them its name says that it had none."""
    device: str = "auto"
    """Torch device; `auto` is a GPU, one a process under torchrun, or the CPU."""
    lmm: LmmSettings | None = None
    """For `lmm`, and for `vqascore` through a server: where the language model is."""
    top_logprobs: int = 20
    """For `vqascore` through a server: tokens that it names for each answer."""
    budget_usd: float | None = None
    """Most money for the language model over all runs of a folder; null for no limit."""

    def __post_init__(self) -> None:
        """Check that the parts fit.

        Raises:
            ValueError: they do not.
        """
        if self.kind not in get_args(VerifierKind):
            raise ValueError(
                f"kind is {self.kind!r}; give one of {', '.join(get_args(VerifierKind))}"
            )
        check_range(self, "top_logprobs", minimum=1, maximum=1000)
        check_range(self, "budget_usd", minimum=0)
        if self.kind == "lmm" and self.lmm is None:
            raise ValueError("kind lmm: lmm.model is missing; name the language model")
        if self.lmm is not None and self.kind not in ("lmm", "vqascore"):
            raise ValueError(f"lmm is for the kinds lmm and vqascore, and kind is {self.kind}")
        if self.kind == "inspector" and self.weights is None:
            raise ValueError(
                "kind inspector: weights is missing; name the checkpoint that inspects"
            )


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How many candidates are drawn for a picture, and who chooses."""

    verifier: VerifierSettings = VerifierSettings()
    """Who chooses."""
    candidates: int | None = None
    """Of each picture; null draws as many as `total_flow_steps` pays for."""
    total_flow_steps: int | None = None
    """Network evaluations of all candidates of a picture: another one is begun as long as what
    one has cost on average is left."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: one is out of range, or both or none of the numbers are given.
        """
        check_range(self, "candidates", minimum=1, maximum=MAX_CANDIDATES)
        check_range(self, "total_flow_steps", minimum=1)
        if (self.candidates is None) == (self.total_flow_steps is None):
            raise ValueError(
                f"candidates {self.candidates}, total_flow_steps {self.total_flow_steps}: give one "
                "of the two"
            )

    def decides(self, verifier: str) -> dict[str, Any]:
        """What decides which picture is kept, by name, as plain data.

        Args:
            verifier: Its name, which tells models and weights.
        """
        return {
            "verifier": verifier,
            "candidates": self.candidates,
            "total_flow_steps": self.total_flow_steps,
        }

    @property
    def words(self) -> str:
        """How is searched, to stand after the name of who draws."""
        if self.candidates is not None:
            return f"best of {self.candidates} by {self.verifier.kind}"
        return f"best within {self.total_flow_steps} flow steps by {self.verifier.kind}"
