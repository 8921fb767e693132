"""Our checkpoints as generators: the loop of `staged generate` over a batch of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from eval.generation.generator import Drawn, Failed, Outcome
from eval.generation.samples import Sample
from eval.generation.settings import ModelSettings
from staged.backends.bagel import BagelPlayer, BagelSettings
from staged.loops.casting import Casting, open_engine
from staged.loops.events import Event
from staged.loops.staged import StagedLoop
from staged.model.finite import NotFiniteError
from staged.model.flows import FlowSettings
from staged.model.weights_hash import weights_hash
from staged.sequence import step_text
from staged.settings import to_dict
from staged.shapes.miniature import understood
from staged.trajectory import Sketch, Stop, Trajectory

_SAID_BETTER = (
    *("checkpoint", "device"),
    *("num_flow_steps", "guidance_scale", "image_guidance_scale", "timestep_shift"),
)
"""Settings that decide nothing, or that weights and flow say better."""


class Model:
    """A loaded checkpoint with a cast and limits.

    Args:
        settings: Which, and how it draws.

    Raises:
        ValueError: there is no such checkpoint, or a setting is out of range.
    """

    alone = False

    def __init__(self, settings: ModelSettings) -> None:
        """Load the weights."""
        self._engine = open_engine(
            settings.checkpoint, device=settings.device, dtype=settings.dtype
        )
        # What was loaded, where the settings leave it open.
        dtype = str(next(self._engine.model.parameters()).dtype).removeprefix("torch.")
        loaded: dict[str, Any] = {"dtype": dtype, "device": str(self._engine.device)}
        self.settings = replace(settings, **loaded)
        self.flows = self._engine.flows.each(lambda flow: _flow(flow, settings))
        self._casting = Casting(
            planner=settings.planner, inspector=settings.inspector, sketcher=settings.sketcher
        )
        self._policy = self._casting.policy(settings.policy())

    @property
    def name(self) -> str:
        """Checkpoint and mode."""
        return f"{self.settings.checkpoint}, {self.settings.mode}"

    @cached_property
    def weights(self) -> str:
        """SHA-256 (hex) of the model's and the autoencoder's tensors."""
        return weights_hash((self._engine.model, self._engine.autoencoder))

    def identity(self) -> Mapping[str, Any]:
        """Settings and flow, resolved, and weights."""
        names = ModelSettings.__dataclass_fields__.keys() - _SAID_BETTER
        settings = {k: v for k, v in to_dict(self.settings).items() if k in names}
        return {**settings, **self.flows.facts(), "weights": self.weights}

    def understood(self, prompts: Sequence[str]) -> list[str]:
        """Say prompts as the model is to read them.

        Raises:
            ValueError: One of them is beyond a miniature.
        """
        return understood(self._engine.sizes, prompts)

    def draw(self, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Outcome]]:
        """Draw a batch; a trajectory's last picture is its image, as a user would get it."""
        prompts, seeds = [s.prompt for s in samples], [s.seed for s in samples]
        for sample, trajectory in zip(samples, self.run(prompts, seeds), strict=True):
            yield sample, _outcome(trajectory)

    def run(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        on_event: Callable[[Event], None] | None = None,
    ) -> list[Trajectory]:
        """Take prompts to their end, side by side.

        Args:
            prompts: Any number, all at once.
            seeds: One for each.
            on_event: Told of everything as it happens.

        Returns:
            Trajectories, whose cost in `provenance` has the tokens of their texts.

        Raises:
            ValueError: One of the prompts is beyond a miniature.
        """
        # A new player a batch: what an earlier batch has read was read in other company, and
        # would differ in the last digits from what another process reads for itself.
        settings = self.settings
        writing = BagelSettings(
            flows=self.flows,
            temperature=settings.temperature,
            max_text_tokens=settings.max_text_tokens,
        )
        cast = self._casting.cast(BagelPlayer(self._engine, writing), settings.checkpoint)
        loop = StagedLoop(cast, self._policy, batch_size=max(len(prompts), 1))
        said = self.understood(prompts)
        return [self._with_text_tokens(t) for t in loop.run(said, seeds, on_event)]

    def _with_text_tokens(self, trajectory: Trajectory) -> Trajectory:
        """Note what the texts cost: tokens without their markers."""
        encode = self._engine.tokenizer.encode
        texts = [step for step in trajectory.steps if not isinstance(step, Sketch | Stop)]
        tokens = sum(len(encode(step_text(step))) for step in texts)
        cost = {**trajectory.provenance.get("cost", {}), "text_tokens": tokens}
        return replace(trajectory, provenance={**trajectory.provenance, "cost": cost})


def _outcome(trajectory: Trajectory) -> Outcome:
    provenance = trajectory.provenance
    reason = str(provenance.get("failure", ""))
    detail = str(provenance.get("failure_detail", ""))
    cost = provenance["cost"]
    # What broke off is less than was meant, and is there; numbers that are none are a failure,
    # whatever was drawn before them.
    if trajectory.last_sketch is None or reason == NotFiniteError.reason:
        # The same seeds would fail the same way again.
        return Failed(reason=reason or "no sketch", detail=detail, final=True, cost=cost)
    # A sketch and a stop are no news beside the image.
    steps = trajectory if len(trajectory.steps) > 2 else None
    pixels = trajectory.last_sketch.image.array()
    return Drawn(pixels=pixels, cost=cost, note=reason, trajectory=steps)


def _flow(flow: FlowSettings, settings: ModelSettings) -> FlowSettings:
    """The checkpoint's defaults with what the settings change."""
    guidance = replace(
        flow.guidance,
        **_given(text_scale=settings.guidance_scale, image_scale=settings.image_guidance_scale),
    )
    changes = _given(num_flow_steps=settings.num_flow_steps, timestep_shift=settings.timestep_shift)
    return replace(flow, guidance=guidance, **changes)


def _given(**values: float | None) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
