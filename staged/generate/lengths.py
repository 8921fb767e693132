"""How long a trajectory becomes in tokens of cache, from what it may do; read without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from staged.loops.policy import Policy

_USUAL_TEXT: Final = 100
"""Tokens of a text. The published runs write 800 in a trajectory of 2.6 sketches."""
_USUAL_ROUNDS: Final = 3
_TEXTS_A_ROUND: Final = 3  # a plan, and what was said of it and of the sketch


@dataclass(frozen=True, kw_only=True)
class Lengths:
    """Tokens whose keys and values are kept for one trajectory.

    Attributes:
        shortest: None is shorter, unless it fails.
        usual: What most need at most.
        longest: Its limits allow no more.
    """

    shortest: int
    usual: int
    longest: int

    @classmethod
    def of(
        cls,
        policy: Policy,
        *,
        image: int,
        text: int,
        sketch_cost: int,
        num_inputs: int = 0,
        guides_by_images: bool = True,
    ) -> Self:
        """Count what stands in the sequence whenever something follows it.

        Args:
            policy: Mode and limits.
            image: Tokens of an image.
            text: Of a text at most, markers included; the prompt is taken for one.
            sketch_cost: Network evaluations of a sketch.
            num_inputs: Images that it begins with.
            guides_by_images: Whether its texts are also read without its images.
        """
        begin = num_inputs * image
        usual_text = min(text, _USUAL_TEXT)
        # Read once more where images stand before or among them.
        readings = 2 if guides_by_images and (num_inputs or policy.mode == "staged") else 1
        if policy.mode != "staged":
            texts = 1 + policy.think
            return cls(
                shortest=begin + 2 * texts,
                usual=begin + texts * usual_text * readings,
                longest=begin + texts * text * readings,
            )
        refined = policy.max_refinements
        # A plan and its inspections and corrections, which bring another plan; those of the sketch.
        texts = 1 + policy.max_rounds * (3 + 5 * refined)
        sketches = min(policy.max_rounds * (1 + refined), policy.max_flow_steps // sketch_cost)
        usual_rounds = min(policy.max_rounds, _USUAL_ROUNDS)
        usual_texts = min(1 + usual_rounds * _TEXTS_A_ROUND, texts)
        return cls(
            # The prompt and a sketch, after which it is asked whether to stop.
            shortest=begin + 2 + image,
            usual=begin + min(usual_rounds, sketches) * image + usual_texts * usual_text * readings,
            longest=begin + sketches * image + texts * text * readings,
        )
