"""Detectors as verifiers: the share of what the prompt asks for that is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from eval.geneval.detector import ObjectDetector
from eval.geneval.prompt import GenEvalPrompt
from eval.geneval.scoring import judge
from staged.roles import Rated, Rating
from staged.shapes.language.asked import read_request
from staged.shapes.language.phrases import GrammarError
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import satisfied

MINIATURE = "miniature"
"""The miniature world's detector, by the name that `staged eval detect` gives it."""


class MiniatureVerifier:
    """The miniature world's detector; it reads the prompt itself."""

    name = MINIATURE

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        """Rate each by the share of things and relations that are there."""
        return [self._rate(picture) for picture in pictures]

    def _rate(self, picture: Rated) -> Rating:
        try:
            spec = read_request(picture.prompt).spec
            return Rating(value=satisfied(spec, detect(picture.pixels)).share)
        except GrammarError:
            return Rating(value=None, reason="not a prompt of the miniature world")
        except ValueError as error:
            return Rating(value=None, reason=str(error))


class GenEvalVerifier:
    """A detector by GenEval's rules: the share of a prompt's clauses that hold.

    Args:
        detector: Who looks.
        prompts: Of the benchmark, by text: a clause is nothing that a sentence says by itself.
    """

    def __init__(self, detector: ObjectDetector, prompts: Mapping[str, GenEvalPrompt]) -> None:
        """Keep the parts."""
        self._detector, self._prompts = detector, prompts

    @property
    def name(self) -> str:
        """Detector and weights."""
        return self._detector.name

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        """Rate each."""
        return [self._rate(picture) for picture in pictures]

    def _rate(self, picture: Rated) -> Rating:
        prompt = self._prompts.get(picture.prompt)
        if prompt is None:
            return Rating(value=None, reason="not a prompt of GenEval's file")
        try:
            found = self._detector.detect(picture.pixels, prompt)
        except ValueError as error:
            return Rating(value=None, reason=str(error))
        score = judge(prompt, found)
        if score.correct is None:
            return Rating(value=None, reason=score.reason)
        num_clauses = len(prompt.include) + len(prompt.exclude)
        return Rating(value=1 - score.num_failed / num_clauses)
