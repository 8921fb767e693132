"""A run of reinforcement: rollouts in, better rollouts out.

    settings.yaml              what decides all of it
    rollouts/00001/            shards: what the first iteration drew, with its grades
    state/00000001/            weights, moments and the policy that draws, after it
    log.jsonl                  figures of every iteration
    checkpoint/ (or adapter/)  the policy that draws, at the end

State of a run is an iteration number and its tensors; an iteration that was killed is drawn and
learned from again, to the same bits, or learned from again where it was drawn.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from staged import settings as job_settings
from staged.allocator import keep_freed_memory
from staged.command_line import outputs
from staged.devices import settle
from staged.engine.engine import Engine
from staged.generate.requests import read_prompts
from staged.jobs.files import write_whole
from staged.loops.rollout import step_seed
from staged.model.open import base_of, is_stored_as
from staged.model.recompute import set_recompute
from staged.shapes.miniature import understood
from train.ema import WeightAverage, averaged
from train.examples import Examples
from train.export import write_result
from train.job import ADAPTER, CHECKPOINT
from train.lora import trained_parameters
from train.memory import bytes_to_write, kept_bytes, require_memory
from train.opening import open_to_train
from train.optimizer import learning_rate, make_optimizers
from train.packing import MAX_FILLER
from train.parts import keep_frozen_narrow
from train.plan import PackPlan
from train.randomness import SampleRandom
from train.ranks import Ranks
from train.reinforce.packing import RewardedPack, build_rewarded_pack
from train.reinforce.probe import PolicyProbe
from train.reinforce.record import RewardRecord, figures_of
from train.reinforce.rollouts import draw, flows_of, is_written, read, starts_of, write
from train.reinforce.scorer import open_grader
from train.reinforce.settings import ReinforceSettings
from train.reinforce.step import PolicyObjective, PolicyStep
from train.reinforce.watch import collapse, unrated_in_words, warnings_of
from train.run_folder import alone_in
from train.run_log import RunLog
from train.settings import Subset
from train.state import RunState
from train.trackers import open_trackers, require_trackers

SETTINGS, ROLLOUTS = "settings.yaml", "rollouts"
_PROMPTS = "prompts.sha256"
_FREE = (
    *("out", "prompts", "iterations", "device", "num_threads", "pack_tokens"),
    *("keep_checkpoints", "keep_rollouts", "trackers", "probe", "collapse"),
)
"""What may differ between the parts of a run; of the prompts it is asked whether they are the same.

Rollouts do not depend on `pack_tokens`, and one that is too long for it must not end a run for
good.
"""


class Reinforcer:
    """One run, in one process on one device.

    Attributes:
        iteration: Iterations done.
        stopped: Why it gave up before its last one; empty where it did not.
    """

    def __init__(self, settings: ReinforceSettings) -> None:
        """Load the model, and take up the newest state.

        Raises:
            ValueError: Settings, prompts or state do not fit one another; the message says which.
            OSError: The run's folder cannot be written.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(
                "WORLD_SIZE is above 1, but reinforcement runs in one process: start one; for the "
                "full-size model, of a LoRA"
            )
        keep_freed_memory()
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        self.state = RunState(settings.out, num_kept=settings.keep_checkpoints)
        resuming, path = bool(self.state.steps()), settings.out / SETTINGS
        begun = job_settings.load(ReinforceSettings, path) if path.is_file() else None
        settings = settle(settings, begun=begun.dtype if begun and resuming else None)
        self.settings, training = settings, settings.training()
        require_trackers(training)
        prompts = read_prompts(settings.prompts)
        _claim(settings, begun, prompts, resuming=resuming)
        self._grader = open_grader(settings.reward)
        self.device = torch.device(settings.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        self.loaded, self.tokenizer = open_to_train(training, self.device, self.dtype)
        self.codec = self.loaded.codec
        self._prompts = understood(self.codec.sizes, prompts)
        self._grader.require(self._prompts)
        flows = self.loaded.flows.for_other_weights()
        drawn = settings.rollouts
        drawn.policy().check_cost(flows_of(flows, drawn).num_evaluations)
        model = self.loaded.model.train()
        self.parameters = trained_parameters(model, training)
        if settings.freeze and is_stored_as(settings.init, self.dtype):
            keep_frozen_narrow(model, self.dtype)
        set_recompute(model, settings.activation_checkpointing)
        optimizer = settings.optimizer
        self.optimizer = make_optimizers(self.parameters, optimizer, self.dtype)
        kept = kept_bytes(model, self.parameters, self.optimizer, averaged=True, dtype=self.dtype)
        require_memory(kept, self.device, needs_average=True)
        if not resuming:
            need = bytes_to_write(training, model, self.parameters, self.optimizer)
            outputs.folder(settings.out, need_bytes=need)
        self.drawing = WeightAverage(self.parameters, optimizer.ema_decay)
        self.iteration = self.state.load(self.parameters, self.optimizer, self.drawing)
        self._facts = _facts_of(self.state)
        # Alone: a part of a run that is resumed may find otherwise what images can share.
        self._engine = Engine(model, self.codec, self.tokenizer, flows=flows, shares_calls=False)
        self._step = PolicyStep(
            objective=PolicyObjective(model, max_logits_mib=settings.max_logits_mib),
            parameters=self.parameters,
            old=self.drawing.tensors,
            optimizer=self.optimizer,
            dtype=self.dtype,
            images=settings.images,
            texts=settings.texts,
            max_grad_norm=optimizer.max_grad_norm,
        )
        self._probe = self._open_probe()
        # Of a run that gave up, too: it does not train on where the same command comes again.
        self.stopped = collapse(self._facts["rewards"], settings.collapse)

    def run(self) -> Path:
        """Go on to the last iteration, unless the policy collapses, and write the result.

        Returns:
            Its folder.
        """
        settings = self.settings
        with (
            alone_in(settings.out),
            RunLog(
                settings.out,
                step=self.iteration,
                num_steps=settings.iterations,
                trackers=open_trackers(settings.training(), self.iteration),
            ) as log,
        ):
            if not self.iteration:
                self._look(log, 0, {})
            while self.iteration < settings.iterations and not self.stopped:
                self._advance(log)
            lora = settings.lora is not None
            return write_result(
                settings.out,
                ADAPTER if lora else CHECKPOINT,
                self.loaded,
                self.parameters,
                self.drawing,
                Ranks(),
                base_of(settings.init) if lora else None,
            )

    def _advance(self, log: RunLog) -> None:
        """One iteration, and its state."""
        settings, number = self.settings, self.iteration + 1
        folder = settings.out / ROLLOUTS / f"{number:05d}"
        began = time.monotonic()
        self._draw(folder, number)
        drawn_s = time.monotonic() - began
        rollouts = [(one, RewardRecord.of(one)) for one in read(folder)]
        figures = figures_of([(one, record.grades) for one, record in rollouts])
        compared = [bool(a) for _, record in rollouts for a in record.advantages.values()]
        figures["compared"] = sum(compared) / max(len(compared), 1)
        figures |= self._learn(folder, number)
        self.drawing.update(self.parameters.values(), number - 1)
        figures |= {"drawn_s": drawn_s, "learned_s": time.monotonic() - began - drawn_s}
        self.iteration = number
        if "reward" in figures:
            self._facts["rewards"] = [*self._facts["rewards"], figures["reward"]]
        self._look(log, number, figures)
        for words in warnings_of(figures, self._facts["one_shot"], sum(compared)):
            print(f"iteration {number}: {words}", file=sys.stderr)
        facts = {name: json.dumps(value) for name, value in self._facts.items()}
        self.state.save(number, self.parameters, self.optimizer, self.drawing, facts)
        self.state.finish()
        _drop_old(settings.out / ROLLOUTS, settings.keep_rollouts)
        self.stopped = collapse(self._facts["rewards"], settings.collapse)

    def _draw(self, folder: Path, number: int) -> None:
        """Draw and grade, unless that was done before the run was killed."""
        if is_written(folder):
            return
        settings = self.settings
        starts = starts_of(self._prompts, number, settings.rollouts, settings.seed)
        with averaged(self.parameters, self.drawing):
            ended = draw(
                self._engine,
                settings.rollouts,
                starts,
                f"{settings.init}, iteration {number - 1}",
                f"iteration {number}: rollouts",
            )
        grades = write(folder, starts, ended, self._grader, settings.credit)
        if words := unrated_in_words(grades):
            print(f"iteration {number}: {words}", file=sys.stderr)

    def _learn(self, folder: Path, number: int) -> dict[str, float]:
        """Take an iteration's optimizer steps; returns means over them."""
        settings = self.settings
        lr = learning_rate(number - 1, settings.iterations, settings.optimizer)
        steps: list[dict[str, float]] = []
        waiting = self._packs(folder, number)
        while packs := list(islice(waiting, settings.packs_per_step)):
            steps.append(self._step.take(packs, lr))
        means = {
            name: sum(step[name] for step in steps) / len(steps) for name in (steps or [{}])[0]
        }
        return means | {"lr": lr, "num_optimizer_steps": len(steps)}

    def _packs(self, folder: Path, number: int) -> Iterator[RewardedPack]:
        settings, training = self.settings, self.settings.training()
        examples = Examples(
            [Subset(path=str(folder))],
            self.codec,
            self.tokenizer,
            folder / "cache",
            noised_copies=settings.images.noised_copies,
        )
        seed = step_seed(settings.seed, f"{number}/packs", 0)
        plan = PackPlan(
            examples.lengths,
            examples.repeats,
            pack_tokens=settings.pack_tokens,
            reserve=MAX_FILLER,
            seed=seed,
            name=examples.name,
        )
        pack = 0
        while (chosen := plan.pack(pack))[0][1] < settings.epochs:
            samples = [sample for sample, _ in chosen]
            randoms = [SampleRandom(seed, pack, place) for place in range(len(samples))]
            yield build_rewarded_pack(
                examples, samples, randoms, training, settings.credit.max_advantage
            )
            pack += 1

    def _look(self, log: RunLog, number: int, figures: dict[str, float]) -> None:
        """Probe the policy if that is due, record the figures, and tell them in a line."""
        if self._probe is not None and self._probe.due(number, self.settings.iterations):
            with averaged(self.parameters, self.drawing):
                figures |= self._probe.measure(self._engine, self._grader, number)
            if not number:
                self._facts["one_shot"] = figures.get("probe/one_shot")
        if figures:
            log.record(number, figures)
            print(f"iteration {number} of {self.settings.iterations}: {_line(figures)}", flush=True)

    def _open_probe(self) -> PolicyProbe | None:
        probe = self.settings.probe
        if probe is None:
            return None
        prompts = understood(self.codec.sizes, read_prompts(probe.prompts)[: probe.max_prompts])
        self._grader.require(prompts)
        return PolicyProbe(prompts, probe.every_iterations, self.settings.rollouts)


def _facts_of(state: RunState) -> dict[str, Any]:
    """What a state says of the iterations before it.

    Raises:
        ValueError: It is damaged.
    """
    said = state.facts()
    try:
        rewards = [float(one) for one in json.loads(said.get("rewards", "[]"))]
        one_shot = json.loads(said.get("one_shot", "null"))
        known = [*rewards, *([] if one_shot is None else [float(one_shot)])]
    except (ValueError, TypeError) as error:
        raise ValueError(f"the newest state in {state.folder} is damaged ({error})") from None
    if not all(map(math.isfinite, known)):
        raise ValueError(f"the newest state in {state.folder} is damaged: a reward is not finite")
    return {"rewards": rewards, "one_shot": one_shot}


def _claim(
    settings: ReinforceSettings,
    begun: ReinforceSettings | None,
    prompts: Sequence[str],
    *,
    resuming: bool,
) -> None:
    """Take the folder for a run with these settings and prompts, and record them.

    Args:
        settings: Of this run.
        begun: Of the one that is there.
        prompts: Of this run.
        resuming: A state of an earlier part is there, and binds; otherwise what was drawn for
            another run is removed, and all but what the first iteration drew.

    Raises:
        ValueError: The earlier part had others; names each.
    """
    out, path = settings.out, settings.out / _PROMPTS
    outputs.folder(out, need_bytes=0).mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256("\n".join(prompts).encode()).hexdigest()
    changed = job_settings.changes(_binding(begun), _binding(settings)) if begun else []
    if path.is_file() and path.read_text().strip() != digest:
        changed = [*changed, f"the prompts of {settings.prompts} are not those that it began with"]
    if changed and resuming:
        raise ValueError(
            f"{out} holds a run with other settings: {'; '.join(changed)}. Continue it with its "
            f"own, choose another `out`, or remove {out / 'state'} to start over"
        )
    with nullcontext() if resuming else alone_in(out):
        if changed:
            shutil.rmtree(out / ROLLOUTS, ignore_errors=True)
        if not resuming:
            # Without a state no weights are there that could have drawn those of later iterations.
            for folder in _iterations(out / ROLLOUTS):
                if int(folder.name) > 1:
                    shutil.rmtree(folder)
        job_settings.save_resolved(settings, out / SETTINGS)
        write_whole(path, (digest + "\n").encode())


def _binding(settings: ReinforceSettings) -> dict[str, Any]:
    """What a run that goes on must share, as plain data."""
    chosen = job_settings.to_dict(settings)
    for key in _FREE:
        del chosen[key]
    del chosen["rollouts"]["batch_size"]
    return chosen


def _drop_old(rollouts: Path, num_kept: int) -> None:
    """Remove all but the newest iterations' rollouts."""
    for folder in _iterations(rollouts)[:-num_kept]:
        shutil.rmtree(folder)


def _iterations(rollouts: Path) -> list[Path]:
    """Folders of iterations that were drawn, in order."""
    return sorted(path for path in rollouts.glob("*") if path.name.isdecimal())


_SHOWN: Sequence[str] = (
    *("reward", "right", "unrated", "harm", "num_sketches", "failed"),
    *("text_nats", "image_shift", "text_kl"),
    *("probe/reward", "probe/right", "probe/one_shot"),
)


def _line(figures: dict[str, float]) -> str:
    shown = [(name, figures[name]) for name in _SHOWN if name in figures]
    return "  ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in shown)
