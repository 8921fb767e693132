"""Rewards of `staged eval rewards` as verifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from eval.pictures import Picture
from eval.rewards.scorers import RewardScore, Scorer
from staged import images
from staged.roles import Rated, Rating


class RewardVerifier:
    """A reward's scorer, which reads files: candidates lie in a folder as long as it looks.

    Args:
        scorer: Who scores.
    """

    def __init__(self, scorer: Scorer) -> None:
        """Keep it."""
        self._scorer = scorer

    @property
    def name(self) -> str:
        """Models and weights, as the reward's result says them."""
        return self._scorer.name

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        """Rate each by its score."""
        scores: dict[int, RewardScore] = {}
        with TemporaryDirectory(prefix="staged-verify-") as folder:
            files = []
            for number, picture in enumerate(pictures):
                path = Path(folder) / f"{number}.png"
                path.write_bytes(images.encode_png(picture.pixels))
                files.append(Picture(name=path.name, path=path, prompt=picture.prompt))
            self._scorer.score(files, scores.__setitem__)
        return [
            Rating(value=score.value, reason=f"{score.reason}: {score.detail}".strip(": "))
            for score in (scores[number] for number in range(len(pictures)))
        ]
