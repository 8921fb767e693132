"""The model of a run as it is trained, and the checkpoint that is made of it."""

from __future__ import annotations

from pathlib import Path

import torch

from staged.model.bagel import Bagel
from staged.model.lora import lora_layers
from staged.model.open import base_of, is_stored_as
from staged.model.recompute import set_recompute
from train.attention import attention_of
from train.ema import WeightAverage
from train.export import write_result
from train.float8 import float8_problem, use_float8
from train.lora import draw_lora, trained_parameters
from train.objective import Objective
from train.opening import open_to_train
from train.parts import keep_frozen_narrow
from train.ranks import Ranks
from train.settings import TrainSettings
from train.sharding import Shards, make_mesh, shard

CHECKPOINT, ADAPTER, BEST = "checkpoint", "adapter", "best"
"""Folders of what a run's folder ends up with: the finished model, or the LoRA that it trained; and
either of these where the validation loss was least, or the score best."""


class RunModel:
    """A run's model, or one rank's part of it, on one device, without data or an optimizer.

    Attributes:
        settings: Of the run, with nothing `auto`.
        ranks: Its processes.
        device: Where it lies.
        dtype: In which a step computes.
        mesh: How it is cut among ranks; None where one has all of it.
        loaded: What `init` holds, with the model as it is trained.
        tokenizer: Of it.
        model: That of `loaded`.
        objective: What a step calls.
        parameters: That are trained, by name.
        average: Of them; None until `begin_average`, or where there shall be none.
    """

    def __init__(self, settings: TrainSettings, ranks: Ranks) -> None:
        """Load `init`, and make of it what is trained.

        Args:
            settings: Of the run, with nothing `auto`.
            ranks: Its processes.

        Raises:
            ValueError: There is no such checkpoint, or it does not fit the settings.
        """
        self.settings, self.ranks = settings, ranks
        self.device = torch.device(settings.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        self.mesh = make_mesh(ranks, settings.parallel, self.device)
        shards = Shards(self._prepare)
        self.loaded, self.tokenizer = open_to_train(settings, self.device, self.dtype, shards)
        self.model = self.loaded.model.train()
        if self._new_lora:
            draw_lora(self.model, settings.seed, shards.rows_here)
        self.parameters = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        self.average: WeightAverage | None = None

    def begin_average(self) -> None:
        """Begin an average of what is trained, if the settings want one."""
        if decay := self.settings.optimizer.ema_decay:
            self.average = WeightAverage(self.parameters, decay)

    def write(self, folder: Path) -> Path:
        """Write the model as it stands, averaged weights first; all ranks must call it.

        In the published layout, or where a LoRA was trained that alone.

        Args:
            folder: Replaced when the new one is whole.

        Returns:
            The folder.
        """
        settings = self.settings
        base = None if settings.lora is None else base_of(settings.init)
        return write_result(folder, self.loaded, self.parameters, self.average, self.ranks, base)

    def _prepare(self, model: Bagel) -> None:
        """Make of a model what a step calls, and give this rank its part of it."""
        settings = self.settings
        self._new_lora = settings.lora is not None and not lora_layers(model)
        trained_parameters(model, settings)
        if settings.freeze and is_stored_as(settings.init, self.dtype):
            keep_frozen_narrow(model, self.dtype)  # and exported as it came, bit by bit
        if settings.matmuls != "as_dtype":
            self._use_float8(model)
        if settings.compile:
            model.compile_experts()
        set_recompute(model, settings.activation_checkpointing)
        self.objective = Objective(
            model,
            max_logits_mib=settings.max_logits_mib,
            attend_to=attention_of(
                *(settings, model.config.transformer, self.device, self.dtype, self.ranks)
            ),
        )
        if self.mesh is not None:
            shard(self.objective, self.mesh, self.dtype, settings.parallel)

    def _use_float8(self, model: Bagel) -> None:
        emulate, decoder = self.settings.matmuls == "float8_emulated", model.config.transformer
        said = use_float8(model, emulate=emulate)
        problem = float8_problem(
            *(decoder.hidden_size, decoder.intermediate_size, self.device, self.dtype),
            emulate=emulate,
        )
        if problem:
            raise ValueError(f"matmuls={self.settings.matmuls} computes wrongly here: {problem}")
        if self.ranks.is_first:
            print(said)


def result_of(settings: TrainSettings, *, best: bool = False) -> Path:
    """Where a run leaves its result, of its last step or of its best."""
    if best:
        return settings.out / BEST
    return settings.out / (CHECKPOINT if settings.lora is None else ADAPTER)
