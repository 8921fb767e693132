"""A fine-tune run: packs in, a checkpoint in the published layout out."""

from __future__ import annotations

import copy
import json
import math
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.tensorboard import SummaryWriter

from staged.engine.engine import Engine
from staged.model import checkpoint
from staged.model.attention import PackedAttention
from staged.model.bagel import Bagel, Inputs
from staged.model.loss import token_losses
from staged.settings import fingerprint, save_resolved
from staged.shapes.miniature import open_checkpoint
from train.ema import WeightAverage
from train.examples import Examples
from train.packing import Pack, build_pack
from train.plan import PackPlan
from train.progress import Progress
from train.settings import Optimizer, TrainSettings
from train.state import RunState

CHECKPOINT = "checkpoint"
"""Folder of the finished model within a run's folder."""


class Objective(nn.Module):
    """The model with its losses, so that one functional call covers both."""

    def __init__(self, model: Bagel) -> None:
        """Wrap `model`."""
        super().__init__()
        self.model = model

    def forward(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """Weighted sum of cross entropies and sum of velocity errors of a pack."""
        hidden = self.model(pack.layout, pack.inputs, PackedAttention(pack.layout))
        losses = token_losses(self.model, hidden, pack.layout, pack.target)
        return losses.ce_sum(pack.layout), losses.mse_sum()


class Trainer:
    """One run on one device."""

    def __init__(self, settings: TrainSettings) -> None:
        """Load the model and the data, and take up the newest state."""
        self.settings = settings
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        self.device = choose_device(settings.device)
        self.dtype = getattr(torch, settings.dtype)
        _claim(settings)
        self.loaded = open_checkpoint(settings.init, seed=settings.seed, device=self.device)
        self.model = self.loaded.model.train()
        if settings.compile:
            self.model.compile_experts()
        self.objective = Objective(self.model)
        # The autoencoder is frozen: its working copy may be narrow, what is exported is not.
        eyes = copy.deepcopy(self.loaded.autoencoder).to(self.dtype)
        self.engine = Engine(self.model, eyes, self.loaded.tokenizer)
        self.parameters = dict(self.model.named_parameters())
        self.examples = Examples(
            settings.data, self.engine, settings.cache or settings.out / "cache"
        )
        self.plan = PackPlan(
            self.examples.lengths,
            self.examples.repeats,
            pack_tokens=settings.pack_tokens,
            seed=settings.seed,
        )
        self.optimizer = make_optimizer(self.parameters, settings.optimizer)
        decay = settings.optimizer.ema_decay
        self.average = WeightAverage(self.parameters, decay) if decay else None
        self.state = RunState(settings.out)
        self.step = self.state.load(self.parameters, self.optimizer, self.average)

    def run(self) -> Path:
        """Train to the end and write the checkpoint.

        Returns:
            The checkpoint's folder.
        """
        settings, log = self.settings, self.settings.log
        _truncate(settings.out / "log.jsonl", self.step)
        progress = Progress("step", settings.num_steps, done=self.step)
        tokens_since = 0
        with (
            SummaryWriter(settings.out / "tensorboard", purge_step=self.step) as board,
            (settings.out / "log.jsonl").open("a", encoding="utf-8") as lines,
            ThreadPoolExecutor(1) as worker,
        ):
            ahead = self._build_ahead(worker, self.step)
            mark = progress.clock()
            while self.step < settings.num_steps:
                pack = ahead.result()
                ahead = self._build_ahead(worker, self.step + 1)
                record = self.train_step(pack)
                tokens_since += pack.layout.num_tokens
                self.step += 1
                if self.step % log.every_steps == 0 or self.step == settings.num_steps:
                    now = progress.clock()
                    record["tokens_per_s"] = tokens_since / max(now - mark, 1e-9)
                    mark, tokens_since = now, 0
                    lines.write(json.dumps({"step": self.step, **record}) + "\n")
                    lines.flush()
                    for name, value in record.items():
                        board.add_scalar(name, value, self.step)
                progress.advance(
                    note=f"mse {record['mse']:.4f}  ce {record['ce']:.4f}  "
                    f"{record.get('tokens_per_s', 0):.0f} tokens/s"
                )
                if log.sample_every_steps and self.step % log.sample_every_steps == 0:
                    self.sample(board)
                if self.step % settings.checkpoint_every_steps == 0:
                    self.state.save(self.step, self.parameters, self.optimizer, self.average)
            ahead.cancel()
        return self.export()

    def train_step(self, pack: Pack) -> dict[str, float]:
        """One optimizer step.

        Returns:
            Losses (nats and squared error a number), gradient norm and learning rate.

        Raises:
            ValueError: The loss is not finite; the weights are as before the step.
        """
        settings = self.settings
        pack = pack.to(self.device)
        cast = {f"model.{n}": p.to(self.dtype) for n, p in self.parameters.items()}
        cast |= {f"model.{n}": b.to(self.dtype) for n, b in self.model.named_buffers()}
        inputs = Inputs(
            pack.inputs.latents.to(self.dtype),
            pack.inputs.timesteps,
            pack.inputs.patches.to(self.dtype),
        )
        pack = Pack(pack.layout, inputs, pack.target, pack.tasks)
        ce_sum, mse_sum = functional_call(self.objective, cast, (pack,))
        # Sums over the counts of the whole step: with several packs or ranks these are totals.
        ce = ce_sum / pack.layout.ce_weights.sum().clamp(min=1e-9)
        mse = mse_sum / max(len(pack.layout.velocity_rows), 1)
        loss = settings.ce_weight * ce + mse
        if not torch.isfinite(loss):
            raise ValueError(
                f"loss is {float(loss)} at step {self.step} (ce {float(ce)}, mse {float(mse)}); "
                f"the pack holds samples {self.plan.pack(self.step)[:8]}…: lower optimizer.lr, "
                "or try dtype=float32"
            )
        loss.backward()
        norm = nn.utils.clip_grad_norm_(
            self.parameters.values(), settings.optimizer.max_grad_norm
        )
        lr = learning_rate(self.step, settings.num_steps, settings.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.parameters.values(), self.step)
        return {
            "loss": float(loss),
            "ce": float(ce),
            "mse": float(mse),
            "grad_norm": float(norm),
            "lr": lr,
        }

    def sample(self, board: SummaryWriter) -> None:
        """Draw the fixed prompts with the averaged weights."""
        from train.samples import draw_sheet

        path = self.settings.out / "samples" / f"{self.step:08d}.png"
        with averaged(self.parameters, self.average):
            sheet = draw_sheet(self.engine, self.settings.log, path)
        board.add_image("samples", sheet, self.step, dataformats="HWC")

    def export(self) -> Path:
        """Write the finished model, averaged weights first, in the published layout."""
        folder = self.settings.out / CHECKPOINT
        checkpoint.save(
            folder,
            model=self.model,
            autoencoder=self.loaded.autoencoder,
            tokenizer=self.loaded.tokenizer,
            weights=self.average.tensors if self.average is not None else None,
        )
        return folder

    def _build_ahead(self, worker: ThreadPoolExecutor, step: int) -> Future[Pack]:
        settings = self.settings
        samples = [sample for sample, _ in self.plan.pack(step)]
        return worker.submit(
            build_pack,
            self.examples,
            samples,
            special=self.engine.special,
            dropout=settings.dropout,
            timestep_shift=settings.timestep_shift,
            seed=settings.seed,
            step=step,
        )


class averaged:  # noqa: N801 - reads as a phrase: `with averaged(...)`
    """Swap averaged weights in for a while."""

    def __init__(self, parameters: dict[str, nn.Parameter], average: WeightAverage | None) -> None:
        """Name both sides; without an average nothing is swapped."""
        self._pairs = [] if average is None else [
            (parameter, average.tensors[name]) for name, parameter in parameters.items()
        ]

    def __enter__(self) -> None:
        self._swap()

    def __exit__(self, *_: object) -> None:
        self._swap()

    def _swap(self) -> None:
        for parameter, tensor in self._pairs:
            held = parameter.data.clone()
            parameter.data.copy_(tensor)
            tensor.copy_(held)


def make_optimizer(parameters: dict[str, nn.Parameter], settings: Optimizer) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    decayed = [p for p in parameters.values() if p.ndim >= 2]
    plain = [p for p in parameters.values() if p.ndim < 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=settings.betas, eps=settings.eps, fused=True
    )


def learning_rate(step: int, num_steps: int, settings: Optimizer) -> float:
    """The rate of step number `step`, counted from 0: linear warm-up, then cosine or constant."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(num_steps - settings.warmup_steps, 1)
    cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    return settings.lr * (settings.min_lr_ratio + (1 - settings.min_lr_ratio) * cosine)


def choose_device(name: str) -> torch.device:
    """`auto` is the first CUDA device, or the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r}: {error}") from error


def _claim(settings: TrainSettings) -> None:
    """Take the run's folder, or refuse one that belongs to other settings."""
    path = settings.out / "fingerprint"
    mine = fingerprint(settings)
    if path.is_file() and path.read_text().strip() != mine:
        raise ValueError(
            f"{settings.out} holds a run with other settings (see its settings.yaml); "
            "choose another `out`, or remove it to start over"
        )
    settings.out.mkdir(parents=True, exist_ok=True)
    save_resolved(settings, settings.out / "settings.yaml")
    path.write_text(mine + "\n")


def _truncate(path: Path, step: int) -> None:
    """Drop log lines after `step`: they will be written again, alike."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            break  # the line a kill cut off
    path.write_text("".join(kept), encoding="utf-8")


