"""Scorers: a reward's formula on what its networks say."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from eval.clip import ClipEmbedder
from eval.looks import look
from eval.pictures import Picture
from eval.rewards.aesthetic import AestheticHead
from eval.rewards.kinds import KINDS, VQA_QUESTION, RewardKind
from eval.vqa.question import Answerer, VqaAnswer, VqaQuestion, spellings
from staged.model.finite import NotFiniteError
from staged.roles import Pixels


@dataclass(frozen=True, kw_only=True)
class RewardScore:
    """What an image got.

    Attributes:
        value: The score; None where there is none.
        at_most: What it can be at most, where a server left tokens out.
        truncated: Whether only the beginning of the prompt was read.
        reason: Why there is none.
        detail: What is known of that.
    """

    value: float | None
    at_most: float | None = None
    truncated: bool = False
    reason: str = ""
    detail: str = ""


class Scorer(Protocol):
    """Scores images with their prompts."""

    kind: RewardKind
    """Which reward it gives."""
    name: str
    """Models and weights, as a result's variant says them."""

    def score(self, pictures: Sequence[Picture], keep: Callable[[int, RewardScore], None]) -> None:
        """Score all, in any order.

        Args:
            pictures: Whose files exist.
            keep: Called once for each with its index, as soon as the score is there.
        """
        ...


class PixelScorer:
    """Scores one decoded image after the other.

    Args:
        kind: Which reward it gives.
        name: Models and weights.
        formula: Score of (h, w, 3) uint8 RGB and a prompt.
        truncates: Whether only the beginning of a prompt is read.
    """

    def __init__(
        self,
        kind: RewardKind,
        name: str,
        formula: Callable[[Pixels, str], float],
        truncates: Callable[[str], bool],
    ) -> None:
        """Keep the parts."""
        self.kind, self.name, self.formula, self.truncates = kind, name, formula, truncates

    def score(self, pictures: Sequence[Picture], keep: Callable[[int, RewardScore], None]) -> None:
        """Score all in order; see `Scorer`."""
        for index, picture in enumerate(pictures):
            value, why_not = look(picture.path, partial(self._score, prompt=picture.prompt))
            if why_not:
                keep(index, RewardScore(value=None, **why_not))
            else:
                keep(index, RewardScore(value=value, truncated=self.truncates(picture.prompt)))

    def _score(self, pixels: Pixels, prompt: str) -> float:
        value = self.formula(pixels, prompt)
        if not math.isfinite(value):
            raise NotFiniteError("score is")
        return value


class VqaScorer:
    """Asks a vision-language model whether the image shows the prompt.

    Args:
        answerer: Who answers.
        question: What is asked, with `{prompt}` in it.

    Raises:
        ValueError: the question does not name the prompt.
    """

    kind = KINDS["vqascore"]

    def __init__(self, answerer: Answerer, question: str = VQA_QUESTION) -> None:
        """Keep the parts."""
        if "{prompt}" not in question:
            raise ValueError(f"question {question!r}; expected one with {{prompt}} in it")
        self.answerer, self.question = answerer, question
        self.name = f"{answerer.name}, asked {question}"

    def score(self, pictures: Sequence[Picture], keep: Callable[[int, RewardScore], None]) -> None:
        """Score all; see `Scorer`."""
        accepted = spellings("yes")
        questions = [
            # Not `format`: a prompt may hold braces, and so may the question.
            VqaQuestion(
                image=picture.path,
                text=self.question.replace("{prompt}", picture.prompt),
                accepted=accepted,
            )
            for picture in pictures
        ]

        def keep_answer(index: int, answer: VqaAnswer) -> None:
            score = RewardScore(
                value=answer.probability,
                at_most=answer.at_most,
                reason=answer.reason,
                detail=answer.detail,
            )
            keep(index, score)

        self.answerer.answer(questions, keep_answer)


def clip_score(clip: ClipEmbedder) -> PixelScorer:
    """CLIPScore, max(100 cos, 0) (Hessel et al. 2021, in the scale of later work)."""

    def formula(pixels: Pixels, prompt: str) -> float:
        return max(100 * clip.cosine(pixels, prompt), 0.0)

    return PixelScorer(KINDS["clipscore"], clip.name, formula, clip.truncates)


def pick_score(clip: ClipEmbedder) -> PixelScorer:
    """PickScore, the cosine times the model's own scale (Kirstain et al. 2023)."""
    scale = clip.logit_scale

    def formula(pixels: Pixels, prompt: str) -> float:
        return scale * clip.cosine(pixels, prompt)

    return PixelScorer(KINDS["pickscore"], clip.name, formula, clip.truncates)


def hps(clip: ClipEmbedder) -> PixelScorer:
    """HPS v2.1, the cosine (Wu et al. 2023)."""
    return PixelScorer(KINDS["hps"], clip.name, clip.cosine, clip.truncates)


def aesthetic(clip: ClipEmbedder, head: AestheticHead) -> PixelScorer:
    """LAION's aesthetic predictor v2 on the unit embedding of the image.

    Raises:
        ValueError: the head was trained on embeddings of another width.
    """
    width, dim = head.layers[0].in_features, clip.model.config.projection_dim
    if width != dim:
        raise ValueError(
            f"the aesthetic head reads embeddings of {width} numbers and CLIP gives {dim}; it "
            "belongs to CLIP ViT-L/14, --weights clip=openai/clip-vit-large-patch14"
        )
    head = head.to(clip.device)

    @torch.inference_mode()
    def formula(pixels: Pixels, prompt: str) -> float:
        return float(head(clip.image(pixels)))

    return PixelScorer(
        KINDS["aesthetic"], f"{clip.name}; {head.name}", formula, lambda prompt: False
    )
