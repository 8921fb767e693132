"""A fine-tune run: packs in, a checkpoint in the published layout out."""

from __future__ import annotations

import copy
import json
import math
import os
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.tensorboard import SummaryWriter

from staged.allocator import keep_freed_memory
from staged.command_line import outputs
from staged.jobs.progress import Progress, rate
from staged.model import checkpoint
from staged.model.bagel import Inputs
from staged.model.codec import ImageCodec
from staged.model.finite import NotFiniteError
from staged.model.loss import TokenLosses
from staged.model.open import open_checkpoint
from staged.model.recompute import set_recompute
from train.ema import WeightAverage, averaged
from train.examples import Examples
from train.interrupts import Interrupts
from train.memory import kept_bytes, require_memory
from train.objective import Objective, Supervised, mean_losses, task_means, task_sums
from train.optimizer import learning_rate, make_optimizers
from train.packing import MAX_FILLER, Pack
from train.parts import freeze
from train.plan import PackPlan
from train.run_folder import alone_in, claim, claim_data, cut_log, settled
from train.settings import TrainSettings
from train.state import NUM_KEPT, RunState
from train.stream import StepPacks, explaining_dead_workers
from train.throughput import Throughput

CHECKPOINT = "checkpoint"
"""Folder of the finished model within a run's folder."""


class Trainer:
    """One run on one device."""

    def __init__(self, settings: TrainSettings) -> None:
        """Load the model and the data, and take up the newest state.

        Raises:
            ValueError: Settings, data or state do not fit one another; the message says which.
            OSError: The run's folder cannot be written.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("WORLD_SIZE is above 1, but training runs on one process; start one")
        keep_freed_memory()
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        self.state = RunState(settings.out)
        resuming = bool(self.state.steps())
        self.settings = settings = settled(settings, resuming=resuming)
        self.device = torch.device(settings.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        # Before the weights are read: a folder of another run is told at once.
        claim(settings, resuming=resuming)
        self.loaded = open_checkpoint(settings.init, seed=settings.seed, device=self.device)
        if self.loaded.tokenizer is None:
            raise ValueError(f"init {settings.init} has no tokenizer; add its tokenizer files")
        self.model = self.loaded.model.train()
        if settings.compile:
            self.model.compile_experts()
        set_recompute(self.model, settings.activation_checkpointing)
        self.objective = Objective(self.model, max_logits_mib=settings.max_logits_mib)
        # The autoencoder is frozen: its working copy may be narrow, what is exported is not.
        autoencoder = copy.deepcopy(self.loaded.autoencoder).to(self.dtype)
        self.codec = ImageCodec(autoencoder, self.loaded.config)
        self.tokenizer = self.loaded.tokenizer
        self.parameters = freeze(self.model, settings.freeze)
        decay = settings.optimizer.ema_decay
        self.optimizer = make_optimizers(self.parameters, settings.optimizer, self.dtype)
        kept = kept_bytes(
            self.model, self.parameters, self.optimizer, averaged=decay > 0, dtype=self.dtype
        )
        require_memory(kept, self.device)
        if not resuming:  # afterwards they take the place of what is there
            outputs.folder(settings.out, need_bytes=self._bytes_to_write())
        self.examples = Examples(
            settings.data,
            self.codec,
            self.tokenizer,
            settings.cache or settings.out / "cache",
            noised_copies=settings.noised_copies,
        )
        claim_data(settings.out, self.examples.fingerprint, resuming=resuming)
        self.plan = PackPlan(
            self.examples.lengths,
            self.examples.repeats,
            pack_tokens=settings.pack_tokens,
            reserve=MAX_FILLER,
            seed=settings.seed,
            name=self.examples.name,
        )
        self.packs = StepPacks(self.examples, self.plan, self.examples.special, settings)
        self.average = WeightAverage(self.parameters, decay) if decay else None
        self.step = self.state.load(self.parameters, self.optimizer, self.average)

    def run(self) -> Path:
        """Train to the end, or as long as the settings allow, and write the checkpoint.

        Ctrl-C and SIGTERM save the state of the step they fall into before they act.

        Returns:
            The checkpoint's folder.
        """
        with alone_in(self.settings.out):
            if self.step < self.settings.num_steps:
                self._train()
            return self.export()

    def _train(self) -> None:
        settings, log = self.settings, self.settings.log
        cut_log(settings.out / "log.jsonl", self.step)
        progress = Progress("step", settings.num_steps, done=self.step)
        throughput = Throughput()
        deadline = time.monotonic() + 60 * (settings.max_minutes or math.inf)
        with (
            # What an earlier part logged beyond its last state will be logged again.
            SummaryWriter(settings.out / "tensorboard", purge_step=self.step + 1) as board,
            (settings.out / "log.jsonl").open("a", encoding="utf-8") as lines,
            Interrupts() as interrupts,
            explaining_dead_workers(),
        ):
            packs = self.packs.from_step(self.step)
            while self.step < settings.num_steps:
                asked = time.monotonic()
                step = list(islice(packs, settings.packs_per_step))
                waited_s = time.monotonic() - asked
                record = self.train_step(*step)
                throughput.add(sum(pack.layout.num_tokens for pack in step), waited_s)
                self.step += 1
                last = self.step == settings.num_steps
                if last or self.step % log.every_steps == 0:
                    record["tokens_per_s"] = throughput.tokens_per_s
                    record["data_wait"] = throughput.data_wait
                    # Ahead of the state: `cut_log` can drop what is beyond one, and add nothing.
                    lines.write(json.dumps({"step": self.step, **record}) + "\n")
                    lines.flush()
                    for name, value in record.items():
                        board.add_scalar(name, value, self.step)
                progress.advance(
                    note=f"mse {record['mse']:.4f}  ce {record['ce']:.4f}  "
                    f"{rate(throughput.tokens_per_s, 'tokens/s')}"
                )
                if log.sample_prompts and _due(self.step, log.sample_every_steps):
                    self.sample(board)
                stop = interrupts.received is not None
                late = time.monotonic() >= deadline
                if stop or late or last or self.step % settings.checkpoint_every_steps == 0:
                    self.state.save(self.step, self.parameters, self.optimizer, self.average)
                if stop:
                    print(
                        f"step {self.step} of {settings.num_steps} is saved in {settings.out}; "
                        "the same command continues from there",
                        file=sys.stderr,
                    )
                    interrupts.leave()
                if late and not last:
                    progress.close()
                    print(
                        f"stopped after {self.step} of {settings.num_steps} steps: max_minutes is "
                        f"{settings.max_minutes:g}; the same command goes on",
                        file=sys.stderr,
                    )
                    return

    def train_step(self, *packs: Pack) -> dict[str, float]:
        """One optimizer step over one or more packs, one after the other.

        Returns:
            Losses (nats and squared error a number), also by task, gradient norm and learning
            rate.

        Raises:
            ValueError: A loss or the gradient is not finite; the weights are as before the step.
        """
        settings = self.settings
        supervised = Supervised.of(packs)
        record = dict.fromkeys(("loss", "ce", "mse"), 0.0)
        by_task = []
        for place, pack in enumerate(packs):
            pack = pack.to(self.device)
            losses = self._forward(pack)
            ce, mse = mean_losses(losses, pack, supervised)
            loss = settings.ce_weight * ce + mse
            for name, share in (("loss", loss), ("ce", ce), ("mse", mse)):
                record[name] += share.detach().item()
            detail = f" (ce {record['ce']}, mse {record['mse']})"
            self._require_finite("loss", record["loss"], [place], detail)
            loss.backward()
            by_task.append(task_sums(losses, pack))
        norm = nn.utils.clip_grad_norm_(
            self.parameters.values(), settings.optimizer.max_grad_norm
        ).item()
        # A finite loss can have an infinite gradient, and moments would keep it for good.
        self._require_finite("gradient norm", norm, range(len(packs)))
        lr = learning_rate(self.step, settings.num_steps, settings.optimizer)
        self.optimizer.step(lr)
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.update(self.parameters.values(), self.step)
        return record | {"grad_norm": norm, "lr": lr} | task_means(by_task)

    def sample(self, board: SummaryWriter) -> None:
        """Draw the fixed prompts with the averaged weights."""
        # A run that draws nothing needs no engine; nothing else of training does.
        from train.samples import draw_sheet

        path = self.settings.out / "samples" / f"{self.step:08d}.png"
        try:
            with averaged(self.parameters, self.average):
                sheet = draw_sheet(
                    self.model,
                    self.codec,
                    self.tokenizer,
                    self.loaded.flows.first,
                    self.settings.log,
                    path,
                )
        except NotFiniteError as error:  # the losses are watched; a picture is only looked at
            print(f"step {self.step}: no sample pictures: {error}", file=sys.stderr)
            return
        board.add_image("samples", sheet, self.step, dataformats="HWC")

    def export(self) -> Path:
        """Write the model as it stands, averaged weights first, in the published layout.

        Raises:
            ValueError: Nothing has been trained yet: it would be `init` under another name.
        """
        if not self.step:
            raise ValueError(
                f"{self.settings.out} holds no state of a run, so there is nothing to export; "
                "give the same command without --export"
            )
        return checkpoint.save(
            self.settings.out / CHECKPOINT,
            model=self.model,
            autoencoder=self.loaded.autoencoder,
            tokenizer=self.loaded.tokenizer,
            flows=self.loaded.flows,
            weights=self._averaged_weights(),
        )

    def _averaged_weights(self) -> dict[str, Tensor] | None:
        """Weights to export in place of the model's own; what is frozen has no average."""
        if self.average is None:
            return None
        return {**dict(self.model.named_parameters()), **self.average.tensors}

    def _bytes_to_write(self) -> int:
        """Of the states that are kept, the one that is being written, and the checkpoint."""
        copies = 3 + (1 if self.settings.optimizer.ema_decay else 0)  # weights, moments, average
        trained = sum(parameter.numel() for parameter in self.parameters.values())
        exported = sum(parameter.numel() for parameter in self.model.parameters())
        due = math.ceil(self.settings.num_steps / self.settings.checkpoint_every_steps)
        return 4 * (trained * min(NUM_KEPT + 1, due) * copies + exported)

    def _forward(self, pack: Pack) -> TokenLosses:
        """Forward in the working dtype; gradients flow back to the float32 parameters."""
        # Not autocast: it chooses a type for each operation, and generation, which runs in one type
        # throughout, would then compute something else. Gradients of the casts arrive in float32.
        cast = {f"model.{n}": p.to(self.dtype) for n, p in self.model.named_parameters()}
        cast |= {f"model.{n}": b.to(self.dtype) for n, b in self.model.named_buffers()}
        inputs = Inputs(
            pack.inputs.latents.to(self.dtype),
            # Times are narrowed only as sinusoids; see `Bagel.embed`.
            pack.inputs.timesteps,
            pack.inputs.patches.to(self.dtype),
        )
        pack = Pack(pack.layout, inputs, pack.target, pack.tasks)
        losses: TokenLosses = functional_call(self.objective, cast, (pack,))
        return losses

    def _require_finite(
        self, what: str, value: float, places: Iterable[int], detail: str = ""
    ) -> None:
        """Name the samples of those of the step's packs that a number comes from."""
        if not math.isfinite(value):
            self.optimizer.zero_grad()
            first = self.step * self.settings.packs_per_step
            samples = [
                self.examples.name(sample)
                for place in places
                for sample, _ in self.plan.pack(first + place)
            ]
            more = f" and {len(samples) - 4} more" if len(samples) > 4 else ""
            raise ValueError(
                f"the {what} is {value} at step {self.step}{detail}; the pack holds "
                f"{', '.join(samples[:4])}{more}. Look at these samples; or start another `out` "
                "with a lower optimizer.lr or dtype=float32"
            )


def _due(step: int, every_steps: int) -> bool:
    return every_steps > 0 and step % every_steps == 0
