"""A checkpoint with roles and limits: looked at first, loaded when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from staged.backends.bagel import BagelPlayer, BagelSettings
from staged.devices import settle
from staged.engine.engine import Engine
from staged.generate.role_choice import RoleChoice, open_engine
from staged.generate.settings import DrawSettings
from staged.loops.staged import StagedLoop
from staged.model.codec import ImageSizes
from staged.model.open import look_at_checkpoint
from staged.model.weights_hash import weights_hash
from staged.shapes.expectation import expectation
from staged.shapes.miniature import is_miniature, understood
from staged.trajectory import ImageRef, Trajectory


class DrawingModel:
    """What draws.

    Args:
        settings: Which checkpoint, and how.
        seed: Of `miniature:fresh`.

    Attributes:
        settings: The same, with device and precision settled.
        flows: How its pictures are drawn.

    Raises:
        ValueError: there is no such checkpoint, a setting is out of range, or it is beyond the
            model. No weights have been read then.
    """

    def __init__(self, settings: DrawSettings, *, seed: int = 0) -> None:
        """Check everything that needs no weights."""
        facts = look_at_checkpoint(settings.checkpoint)
        self._sizes, self._seed = ImageSizes.of(facts.config), seed
        self.flows = facts.flows.each(settings.flow)
        if settings.size is not None:
            facts.config.check_picture(*settings.size)
        self._choice = RoleChoice(
            planner=settings.planner, inspector=settings.inspector, sketcher=settings.sketcher
        )
        self._choice.check_world(self._sizes, settings.checkpoint)
        self._policy = self._choice.policy(settings.policy())
        if settings.sketcher != "scripted":
            self._policy.check_cost(self.flows.num_flow_steps)
        self._playing = BagelSettings(
            flows=self.flows,
            size=settings.size,
            vision_only=settings.vision_only,
            temperature=settings.temperature,
            max_text_tokens=settings.max_text_tokens,
        )
        self._asked = settings
        self.settings = settle(settings, tell=lambda _: None)

    def settle(self, begun: str | None) -> None:
        """Settle the precision for work that goes on in a folder, and say what it is.

        Args:
            begun: The precision in which it was begun; see `staged.devices.settle`.
        """
        self.settings = settle(self._asked, begun=begun)

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width in pixels of the largest picture that it will draw, about."""
        return self.settings.size or (self._sizes.latent_max, self._sizes.latent_max)

    @property
    def expectation(self) -> str:
        """What whoever looks at a miniature's pictures must know; empty of any other model."""
        return expectation(self.settings.checkpoint) if is_miniature(self._sizes) else ""

    @cached_property
    def engine(self) -> Engine:
        """The loaded model."""
        settings = self.settings
        return open_engine(
            settings.checkpoint, device=settings.device, dtype=settings.dtype, seed=self._seed
        )

    @cached_property
    def weights(self) -> str:
        """SHA-256 (hex) of the model's and the autoencoder's tensors."""
        return weights_hash((self.engine.model, self.engine.codec.autoencoder))

    def decides(self) -> dict[str, Any]:
        """What decides a picture beside its prompt, by name, as plain data."""
        return {**self.settings.decides(), **self.flows.facts(), "weights": self.weights}

    def understood(self, prompts: Sequence[str], *, onto_images: bool = False) -> list[str]:
        """Say prompts as the model is to read them; see `staged.shapes.miniature.understood`.

        Raises:
            ValueError: One of them is beyond a miniature.
        """
        answering = self.settings.mode == "answer"
        return understood(self._sizes, prompts, answering=answering, onto_images=onto_images)

    def start(self, prompt: str, inputs: Sequence[ImageRef] = ()) -> Trajectory:
        """What a trajectory begins with, in words that the model reads."""
        return Trajectory(prompt=prompt, inputs=tuple(inputs), system=self._asked.system)

    def loop(self, batch_size: int) -> StagedLoop:
        """A loop whose player has read nothing yet.

        Args:
            batch_size: Trajectories that advance together, at most; it changes none of them.
        """
        roles = self._choice.roles(
            BagelPlayer(self.engine, self._playing), self.settings.checkpoint
        )
        return StagedLoop(roles, self._policy, batch_size=batch_size)
