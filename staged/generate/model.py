"""A checkpoint with roles and limits: looked at first, loaded when it is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import torch

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.backends.lmm.attempts import AttemptLog
from staged.backends.reading import ContextReader
from staged.devices import settle
from staged.engine.cache import PAGE_SIZE
from staged.engine.decoding import SLOTS
from staged.engine.engine import Engine
from staged.engine.memory import Footprint
from staged.generate.admission import (
    MAX_BATCH_SIZE,
    Admission,
    admit,
    require_weights,
    room_for_caches,
)
from staged.generate.lengths import Lengths
from staged.generate.role_choice import RoleChoice, open_engine
from staged.generate.settings import OF_WEIGHTS, DrawSettings
from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.loops.staged import StagedLoop
from staged.model.checkpoint_folders import Facts
from staged.model.codec import ImageSizes
from staged.model.open import look_at_checkpoint
from staged.model.quantized import require_quantization
from staged.model.weights_hash import weights_hash
from staged.shapes.expectation import expectation
from staged.shapes.miniature import is_miniature, understood
from staged.shapes.players.misbehaviour import SHAPES_LMM
from staged.trajectory import ImageRef, Trajectory

if TYPE_CHECKING:
    from staged.backends.lmm.asker import Asker


class DrawingModel:
    """What draws.

    Args:
        settings: Which checkpoint, and how.
        seed: Of `miniature:fresh`.
        preview_every: Flow steps between previews of a sketch; 0 makes none.
        most_together: Trajectories that `admission` lets in, at most.
        weights_of: Another whose weights, and what was read with them, it draws with; see `like`.
        log: Where a language model's answers are kept; in memory when None.

    Attributes:
        settings: The same, with device and precision settled.
        flows: How its pictures are drawn.
        log: As given; it may be set until the first loop is made.

    Raises:
        ValueError: there is no such checkpoint, a setting is out of range, or it is beyond the
            model. No weights have been read then.
    """

    _facts: Facts

    def __init__(
        self,
        settings: DrawSettings,
        *,
        seed: int = 0,
        preview_every: int = 0,
        most_together: int = MAX_BATCH_SIZE,
        weights_of: Self | None = None,
        log: AttemptLog | None = None,
    ) -> None:
        """Check everything that needs no weights."""
        facts = (
            weights_of._facts
            if weights_of
            else look_at_checkpoint(settings.checkpoint, lora=settings.lora)
        )
        self._facts, self._weights_of, self._config = facts, weights_of, facts.config
        self._most_together = most_together
        self._sizes, self._seed = ImageSizes.of(facts.config), seed
        self.flows = facts.flows.each(settings.flow)
        if settings.size is not None:
            facts.config.check_picture(*settings.size)
        self._choice = RoleChoice(
            planner=settings.planner,
            inspector=settings.inspector,
            sketcher=settings.sketcher,
            max_redraws=settings.redraws,
        )
        self._choice.check_world(self._sizes, settings.checkpoint)
        self._policy = self._choice.policy(settings.policy())
        if settings.sketcher != "scripted":
            self._policy.check_cost(self.flows.num_evaluations * (1 + settings.redraws))
        self._playing = BagelSettings(
            flows=self.flows,
            size=settings.size,
            vision_only=settings.vision_only,
            temperature=settings.temperature,
            max_text_tokens=settings.max_text_tokens,
            preview_every=preview_every,
        )
        self._asked, self.log = settings, log
        self._check_lmm()
        self.settings = settle(settings, tell=lambda _: None)
        self._require_quantization()

    def _check_lmm(self) -> None:
        lmm = self._asked.lmm
        if lmm is not None and lmm.model == SHAPES_LMM and not is_miniature(self._sizes):
            raise ValueError(
                f"lmm: {SHAPES_LMM} knows the miniature world's shapes alone, and "
                f"{self._asked.checkpoint} draws other pictures; name another language model"
            )

    def settle(self, begun: str | None) -> None:
        """Settle the precision for work that goes on in a folder, and say what it is.

        Args:
            begun: The precision in which it was begun; see `staged.devices.settle`.

        Raises:
            ValueError: Weights cannot be rounded so in that one.
        """
        self.settings = settle(self._asked, begun=begun)
        self._require_quantization()

    def _require_quantization(self) -> None:
        computing = self._footprint
        require_quantization(self.settings.quantization, computing.device, computing.dtype)

    def like(self, settings: DrawSettings) -> Self:
        """The same weights, and what was read with them, under other settings.

        Args:
            settings: Those `OF_WEIGHTS` are this one's, whatever they say.

        Raises:
            ValueError: A setting is out of range, or beyond the model.
        """
        ours = self.settings
        return type(self)(
            replace(settings, **{name: getattr(ours, name) for name in OF_WEIGHTS}),
            seed=self._seed,
            preview_every=self._playing.preview_every,
            weights_of=self._weights_of or self,
            log=self.log,
        )

    @property
    def sizes(self) -> ImageSizes:
        """Of images that the model reads and draws."""
        return self._sizes

    @property
    def policy(self) -> Policy:
        """Mode and limits of its loop."""
        return self._policy

    @cached_property
    def roles(self) -> Roles:
        """Who plays in its loop; what they have read is shared by all that are `like` it."""
        reader = (self._weights_of or self)._reader
        player = BagelPlayer(self.engine, self._playing, reader=reader)
        return self._choice.roles(player, self.settings.checkpoint, self._asker)

    @cached_property
    def admission(self) -> Admission:
        """How many trajectories come in together where `roles` play; see `admit` for errors."""
        return self.admit(most=self._most_together)

    def num_cached_tokens(self) -> int:
        """Tokens of cache that are held for `roles`."""
        origin = self._weights_of or self
        reader = origin.__dict__.get("_reader")  # to ask is no reason to load weights
        return 0 if reader is None else reader.num_tokens

    @cached_property
    def _reader(self) -> ContextReader:
        return ContextReader(self.engine, max_tokens=self.admission.max_cached_tokens)

    @property
    def largest(self) -> tuple[int, int]:
        """Height and width in pixels of the largest picture that it will draw, about."""
        return self.settings.size or (self._sizes.latent_max, self._sizes.latent_max)

    @property
    def expectation(self) -> str:
        """What whoever looks at a miniature's pictures must know; empty of any other model."""
        return expectation(self.settings.checkpoint) if is_miniature(self._sizes) else ""

    @cached_property
    def _asker(self) -> Asker | None:
        lmm, log = self._asked.lmm, self.log
        if lmm is None:
            return None
        from staged.backends.lmm.asker import Asker
        from staged.shapes.players.lmm import client_of

        return Asker(lambda: client_of(lmm, log=log), lmm.model)

    @cached_property
    def engine(self) -> Engine:
        """The loaded model."""
        if self._weights_of is not None:
            return self._weights_of.engine
        settings = self.settings
        # First: what is free without the weights says what there is beside them.
        require_weights(self._footprint, settings.checkpoint)
        assert self._room is not None
        return open_engine(
            settings.checkpoint,
            device=settings.device,
            dtype=settings.dtype,
            seed=self._seed,
            lora=settings.lora,
            quantization=settings.quantization,
        )

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count what texts take, markers left out."""
        return [len(self.engine.tokenizer.encode(text)) for text in texts]

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

    def heard(self, prompt: str, *, onto_images: bool = False) -> str:
        """Say a prompt as the model is to read it, whatever it is.

        A miniature refuses what it cannot know, for the sake of whoever asks. Whoever finds out
        what an image model makes of any words, by exploring or by rewriting, asks here.
        """
        try:
            [said] = self.understood([prompt], onto_images=onto_images)
        except ValueError:
            return prompt
        return said

    def start(self, prompt: str, inputs: Sequence[ImageRef] = ()) -> Trajectory:
        """What a trajectory begins with, in words that the model reads."""
        return Trajectory(prompt=prompt, inputs=tuple(inputs), system=self._asked.system)

    def admit(
        self, batch_size: int | None = None, *, num_inputs: int = 0, most: int = MAX_BATCH_SIZE
    ) -> Admission:
        """Say how many trajectories its memory lets in; see `staged.generate.admission.admit`.

        Args:
            batch_size: Trajectories asked for; None for as many as fit.
            num_inputs: Images that each begins with.
            most: Trajectories that come in by themselves, at most.

        Raises:
            ValueError: The model does not fit its device, or so many trajectories do not.
        """
        footprint = self._footprint
        require_weights(footprint, self.settings.checkpoint)
        scripted = self.settings.sketcher == "scripted"
        text = self._playing.max_text_tokens + 2
        lengths = Lengths.of(
            self._policy,
            image=footprint.image_tokens,
            text=text,
            sketch_cost=1 if scripted else self.flows.num_evaluations,
            num_inputs=num_inputs,
            guides_by_images=footprint.num_branches == 3,
        )
        kind = footprint.device.type
        return admit(
            batch_size,
            footprint,
            lengths,
            room=self._room,
            num_writing=SLOTS.get(kind, SLOTS["cuda"]),
            text=text,
            page_size=PAGE_SIZE.get(kind, PAGE_SIZE["cuda"]),
            most=most,
        )

    @property
    def _footprint(self) -> Footprint:
        return Footprint(
            config=self._config,
            sizes=self._sizes,
            dtype=getattr(torch, self.settings.dtype),
            device=torch.device(self.settings.device),
            num_branches=self.flows.num_branches(has_images=True),
            quantization=self.settings.quantization,
        )

    @cached_property
    def _room(self) -> int:
        """Bytes beside the weights, as it was before they came."""
        origin = self._weights_of
        return room_for_caches(self._footprint) if origin is None else origin._room

    def loop(
        self, batch_size: int | None = None, *, num_inputs: int = 0, most: int = MAX_BATCH_SIZE
    ) -> StagedLoop:
        """A loop whose player has read nothing yet.

        Args:
            batch_size: Trajectories that advance together, at most; None for as many as memory has
                room for. It changes none of them.
            num_inputs: Images that each begins with.
            most: Trajectories that come in by themselves, at most.

        Raises:
            ValueError: As `admit`.
        """
        admitted = self.admit(batch_size, num_inputs=num_inputs, most=most)
        playing = replace(self._playing, max_cached_tokens=admitted.max_cached_tokens)
        player = BagelPlayer(self.engine, playing)
        roles = self._choice.roles(player, self.settings.drawn_by, self._asker)
        return StagedLoop(roles, self._policy, batch_size=admitted.batch_size)
