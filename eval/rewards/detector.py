"""The miniature world's detector as a reward: whether a picture shows what its prompt wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eval.pictures import Picture
from eval.rewards.kinds import KINDS
from eval.rewards.scorers import RewardScore
from staged import images
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.wishes import read_vision
from staged.shapes.sight.detect import detect
from staged.shapes.sight.wishes import fulfilled


class DetectorScorer:
    """Looks at pixels alone; it needs no weights.

    What a prompt leaves open may be anything: an idea such as "something red next to a star" is
    shown by whatever is definite and fits it.
    """

    kind = KINDS["detector"]
    name = "the miniature world's detector"

    def score(self, pictures: Sequence[Picture], keep: Callable[[int, RewardScore], None]) -> None:
        """Score all in order; see `eval.rewards.scorers.Scorer`."""
        for index, picture in enumerate(pictures):
            keep(index, _score(picture))


def _score(picture: Picture) -> RewardScore:
    try:
        vision = read_vision(picture.prompt)
    except GrammarError as error:
        reason = "not a prompt of the miniature world"
        return RewardScore(value=None, reason=reason, detail=str(error)[:500])
    try:
        found = fulfilled(vision, detect(images.decode_file(picture.path)))
    except ValueError as error:  # no picture, or one of another size
        return RewardScore(value=None, reason="broken image", detail=str(error)[:500])
    return RewardScore(value=float(found.correct))
