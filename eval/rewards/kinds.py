"""The rewards there are: their scales, and where their weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from eval.vqa.options import JUDGE

CLIP_L = "openai/clip-vit-large-patch14"
VQA_QUESTION = 'Does this image show "{prompt}"? Answer with yes or no.'
"""What VQAScore asks, in our words; another question is another variant."""
CLIP_H_TOKENIZER = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@dataclass(frozen=True, kw_only=True)
class RewardKind:
    """One reward.

    Attributes:
        name: As options and results have it.
        help: What it is, in a line.
        bounds: Least and greatest score; None where the weights decide.
        weights: Folder or Hub id by default; None where the published file must be converted, or
            where there are none.
    """

    name: str
    help: str
    bounds: tuple[float, float] | None
    weights: str | None


KINDS = {
    kind.name: kind
    for kind in (
        RewardKind(
            name="clipscore",
            help="100 times the cosine of CLIP, at least 0",
            bounds=(0.0, 100.0),
            weights=CLIP_L,
        ),
        RewardKind(
            name="pickscore",
            help="the scaled cosine of a CLIP-H fine-tuned on people's picks",
            bounds=None,
            weights="yuvalkirstain/PickScore_v1",
        ),
        RewardKind(
            name="aesthetic",
            help="LAION's aesthetic predictor v2, about 1 to 10; it does not read the prompt",
            bounds=None,
            weights=None,
        ),
        RewardKind(
            name="hps",
            help="HPS v2.1, the cosine of a CLIP-H fine-tuned on people's choices",
            bounds=(-1.0, 1.0),
            weights=None,
        ),
        RewardKind(
            name="vqascore",
            help="probability that a vision-language model says yes to the prompt",
            bounds=(0.0, 1.0),
            weights=JUDGE,
        ),
        RewardKind(
            name="detector",
            help="1 where the miniature world's detector finds what is asked for, else 0",
            bounds=(0.0, 1.0),
            weights=None,
        ),
    )
}
"""By name."""

WEIGHTS: Mapping[str, str | None] = {
    "clip": CLIP_L,
    **{name: kind.weights for name, kind in KINDS.items() if name not in ("clipscore", "detector")},
}
"""Folder or Hub id of each reward's weights by default; `clip` is for clipscore and aesthetic."""


def weights_of(name: str, given: Mapping[str, str | None]) -> str:
    """Return where weights are.

    Args:
        name: A key of `WEIGHTS`.
        given: Where they are said to be; what is absent or None is as `WEIGHTS` says.

    Raises:
        ValueError: nobody says it; the published file must be converted first.
    """
    source = given.get(name) or WEIGHTS[name]
    if source is None:
        raise ValueError(
            f"{name} needs weights: a folder that `staged eval convert-reward {name}` makes of its "
            f"published checkpoint (--weights {name}=FOLDER)"
        )
    return source
