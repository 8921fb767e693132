"""What a model of random weights chooses and writes, given to it from outside.

Its own texts would be noise that no step parses from. Everything is computed as if it chose, and
then something else is taken: so times are a model's, and trajectories have steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from unittest.mock import patch

from torch import Tensor

from staged import protocol
from staged.backends.bagel import BagelPlayer
from staged.engine.decoding import Decoder
from staged.roles import RoleError, StepRequest
from staged.trajectory import Inspection, Move, Plan, Refinement, TextStep, Verdict

_VERDICTS: Final[tuple[Verdict, Verdict]] = ("accept", "revise")
_PLAN: Final = Plan(
    instruction="draw a red circle above a blue star",
    description="a red circle above a blue star",
)
_REFINEMENT: Final = Refinement(instruction="move the red circle above the blue star")
_CRITIQUE: Final = "there is a red circle and a blue star"


@contextmanager
def dictated() -> Iterator[None]:
    """Have all models plan, sketch, inspect, and refine what about every other sketch shows."""
    choose, chosen = Decoder._choose, BagelPlayer._chosen

    def chosen_token(decoder: Decoder, row: Any, likeliest: int, logits: Tensor) -> int:
        choose(decoder, row, likeliest, logits)
        said = decoder._tokenizer.encode(_text(row.sampling.begins, row.sampling.seed))
        written = len(row.written.ids)
        return said[written] if written < len(said) else decoder._special.text_end

    def chosen_moves(
        player: BagelPlayer, request: StepRequest, scores: Sequence[float]
    ) -> tuple[Move, ...] | RoleError:
        own = chosen(player, request, scores)
        if isinstance(own, RoleError):
            return own
        wanted: tuple[Move, ...] = ("plan", "sketch", "stop")
        return next(((move,) for move in wanted if move in request.moves), own)

    with (
        patch.object(Decoder, "_choose", chosen_token),
        patch.object(BagelPlayer, "_chosen", chosen_moves),
    ):
        yield


def _text(begins: Sequence[str], seed: int) -> str:
    inspection = Inspection(target="sketch", verdict=_VERDICTS[seed % 2], critique=_CRITIQUE)
    steps: tuple[TextStep, ...] = (_PLAN, inspection, _REFINEMENT)
    texts = (protocol.write(step) for step in steps)
    return next(text for text in texts if text.startswith(tuple(begins)))
