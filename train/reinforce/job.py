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
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
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
from staged.model.bagel import Bagel
from staged.model.lora import lora_layers
from staged.model.open import base_of, is_stored_as
from staged.model.recompute import set_recompute
from staged.shapes.miniature import understood
from train.attention import attention_of
from train.ema import WeightAverage, averaged
from train.export import write_result
from train.interrupts import Interrupts
from train.lora import draw_lora, trained_parameters
from train.memory import bytes_to_write, kept_bytes, require_memory
from train.num_ranks import require_ranks
from train.opening import open_to_train
from train.optimizer import learning_rate, make_optimizers
from train.parts import keep_frozen_narrow
from train.ranks import Ranks
from train.reinforce.iteration_packs import iteration_packs
from train.reinforce.probe import PolicyProbe
from train.reinforce.record import RewardRecord, figures_of, in_words
from train.reinforce.rollouts import draw, flows_of, is_written, read, starts_of, write
from train.reinforce.run_folder import ReinforceFolder, begun, facts_of
from train.reinforce.scorer import open_grader
from train.reinforce.settings import ReinforceSettings
from train.reinforce.sharing import dealt, drop_parts, put_part, take_parts, whole_policy
from train.reinforce.step import PolicyObjective, PolicyStep
from train.reinforce.watch import collapse, unrated_in_words, warnings_of
from train.run_lock import alone_together, require_nobody_in
from train.run_log import RunLog
from train.run_model import ADAPTER, CHECKPOINT
from train.sharding import Shards, make_mesh, num_shards, shard
from train.state import RunState
from train.stream import packs_each
from train.trackers import open_trackers, require_trackers


class Reinforcer:
    """One run, or one rank's part of it, on one device.

    Attributes:
        iteration: Iterations done.
        stopped: Why it gave up before its last one; empty where it did not.
    """

    def __init__(self, settings: ReinforceSettings, ranks: Ranks | None = None) -> None:
        """Load the model, and take up the newest state.

        Args:
            settings: Of the run.
            ranks: Its processes; without any, this one is alone.

        Raises:
            ValueError: Settings, prompts or state do not fit one another; the message says which.
            OSError: The run's folder cannot be written.
        """
        self.ranks = ranks = ranks or Ranks()
        keep_freed_memory()
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        self.state = RunState(settings.out, ranks, num_kept=settings.keep_checkpoints)
        found: list[int] = ranks.first(self.state.steps)
        resuming = bool(found)
        prompts = read_prompts(settings.prompts)
        self.settings = settings = self._settled(settings, prompts, resuming=resuming)
        self._folder = ReinforceFolder(settings, prompts, self.state, found)
        ranks.first(self._folder.require_own)
        ranks.first(lambda: require_nobody_in(settings.out))
        training = settings.training()
        self.device = torch.device(settings.device)
        self.dtype: torch.dtype = getattr(torch, settings.dtype)
        require_ranks(training, ranks.world_size)
        self.mesh = make_mesh(ranks, settings.parallel, self.device)
        shards = Shards(self._prepare)
        self.loaded, self.tokenizer = open_to_train(training, self.device, self.dtype, shards)
        self.codec = self.loaded.codec
        self._prompts = understood(self.codec.sizes, prompts)
        # One rank grades for all: whoever rates may be a large model.
        self._grader = open_grader(settings.reward) if ranks.is_first else None
        if self._grader is not None:
            self._grader.require(self._prompts)
        flows = self.loaded.flows.for_other_weights()
        drawn = settings.rollouts
        drawn.policy().check_cost(flows_of(flows, drawn).num_evaluations)
        model = self.loaded.model.train()
        if self._new_lora:
            draw_lora(model, settings.seed, shards.rows_here)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        optimizer = settings.optimizer
        self.optimizer = make_optimizers(self.parameters, optimizer, self.dtype)
        kept = kept_bytes(
            *(model, self.parameters, self.optimizer),
            averaged=True,
            dtype=self.dtype,
            shards=num_shards(self.mesh),
        )
        if self.mesh is not None:
            # Each rank holds all of it while it draws, when there are no gradients.
            whole = sum(p.nbytes for p in model.parameters())
            kept["whole policy, to draw"] = max(0, whole - kept["gradients"])
        require_memory(kept, self.device, training, needs_average=True)
        if not resuming:
            need = bytes_to_write(training, model, self.parameters, self.optimizer)
            ranks.first(lambda: str(outputs.folder(settings.out, need_bytes=need)))
        self.drawing = WeightAverage(self.parameters, optimizer.ema_decay)
        self.iteration = self.state.load(self.parameters, self.optimizer, self.drawing)
        self._facts: dict[str, Any] = ranks.first(lambda: facts_of(self.state))
        self._engine = self._engine_of(model) if self.mesh is None else None
        self._step = PolicyStep(
            objective=self._objective,
            parameters=self.parameters,
            drawing=self.drawing,
            optimizer=self.optimizer,
            dtype=self.dtype,
            images=settings.images,
            texts=settings.texts,
            max_grad_norm=optimizer.max_grad_norm,
            ranks=ranks,
        )
        self._probe = self._open_probe()
        # Of a run that gave up, too: it does not train on where the same command comes again.
        self.stopped = collapse(self._facts["rewards"], settings.collapse)

    def _settled(
        self, settings: ReinforceSettings, prompts: Sequence[str], *, resuming: bool
    ) -> ReinforceSettings:
        """Say what `auto` stands for; the first rank does it for all."""
        before = begun(settings.out) if self.ranks.is_first and resuming else None
        dtype = self.ranks.first(
            lambda: settle(settings, begun=before.dtype if before else None).dtype
        )
        settings = settle(replace(settings, dtype=dtype), tell=lambda words: None)
        self.ranks.first(lambda: require_trackers(settings.training()))
        chosen = job_settings.to_dict(settings)
        for key in ("device", "num_threads"):
            del chosen[key]
        told = json.dumps([chosen, list(prompts)], default=str)
        self.ranks.require_same(
            "the settings or prompts", hashlib.sha256(told.encode()).hexdigest()[:16]
        )
        return settings

    def _prepare(self, model: Bagel) -> None:
        """Make of a model what a step calls, and give this rank its part of it."""
        settings = self.settings
        self._new_lora = settings.lora is not None and not lora_layers(model)
        training = settings.training()
        trained_parameters(model, training)
        if settings.freeze and is_stored_as(settings.init, self.dtype):
            keep_frozen_narrow(model, self.dtype)
        set_recompute(model, settings.activation_checkpointing)
        self._objective = PolicyObjective(
            model,
            max_logits_mib=settings.max_logits_mib,
            attend_to=attention_of(
                *(training, model.config.transformer, self.device, self.dtype, self.ranks)
            ),
        )
        if self.mesh is not None:
            shard(self._objective, self.mesh, self.dtype, settings.parallel)

    @contextmanager
    def _drawing_engine(self) -> Iterator[Engine]:
        """An engine of the policy that draws; all ranks open and leave it together."""
        with averaged(self.parameters, self.drawing):
            if self._engine is not None:
                yield self._engine
                return
            with whole_policy(self.loaded.model, self.settings.training()) as model:
                yield self._engine_of(model)

    def _engine_of(self, model: Bagel) -> Engine:
        flows = self.loaded.flows.for_other_weights()
        return Engine(model, self.codec, self.tokenizer, flows=flows)

    def run(self) -> Path:
        """Go on to the last iteration, unless the policy collapses, and write the result.

        Ctrl-C and SIGTERM are obeyed once what is being drawn is kept, or what is being learned is
        in a state.

        Returns:
            Its folder.

        Raises:
            ValueError: Another process is in the run's folder, or was since this one looked.
        """
        settings, first = self.settings, self.ranks.is_first
        with alone_together(settings.out, self.ranks):
            self.ranks.first(self._folder.claim)
            with (
                self._open_log() if first else nullcontext() as log,
                Interrupts(told=first, after="what it draws or learns") as self._interrupts,
            ):
                if not self.iteration:
                    self._look(log, 0, {})
                while self.iteration < settings.iterations and not self.stopped:
                    self._advance(log)
                    self._obey(f"iteration {self.iteration} of {settings.iterations} is saved")
            lora = settings.lora is not None
            return write_result(
                settings.out / (ADAPTER if lora else CHECKPOINT),
                self.loaded,
                self.parameters,
                self.drawing,
                self.ranks,
                base_of(settings.init) if lora else None,
            )

    def _open_log(self) -> RunLog:
        return RunLog(
            self.settings.out,
            step=self.iteration,
            num_steps=self.settings.iterations,
            trackers=open_trackers(self.settings.training(), self.iteration),
        )

    def _advance(self, log: RunLog | None) -> None:
        """One iteration, and its state."""
        settings, number = self.settings, self.iteration + 1
        folder = self._folder.rollouts(number)
        began = time.monotonic()
        self._draw(folder, number)
        self._obey(f"the rollouts of iteration {number} are kept")
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
        if log is not None:
            for words in warnings_of(figures, self._facts["one_shot"], sum(compared)):
                print(f"iteration {number}: {words}", file=sys.stderr)
        facts = {name: json.dumps(value) for name, value in self._facts.items()}
        self.state.save(number, self.parameters, self.optimizer, self.drawing, facts)
        self.state.finish()
        if log is not None:
            self._folder.drop_old()
        self.stopped = collapse(self._facts["rewards"], settings.collapse)

    def _obey(self, done: str) -> None:
        """Leave if a signal has come to any rank, and say from where the command goes on."""
        if stop := max(self.ranks.gather(self._interrupts.received or 0)):
            if self.ranks.is_first:
                words = f"{done} in {self.settings.out}; the same command goes on from there"
                print(words, file=sys.stderr)
            self._interrupts.leave(stop)

    def _draw(self, folder: Path, number: int) -> None:
        """Draw and grade, unless that was done before the run was killed."""
        if self.ranks.first(lambda: is_written(folder)):
            self.ranks.first(lambda: drop_parts(folder))  # of a run killed before it could
            return
        settings, ranks = self.settings, self.ranks
        starts = starts_of(self._prompts, number, settings.rollouts, settings.seed)
        group_size, alone = settings.rollouts.group_size, ranks.world_size == 1
        mine = dealt(starts, group_size, ranks.rank)
        with self._drawing_engine() as engine:
            ended = draw(
                engine,
                settings.rollouts,
                mine,
                f"{settings.init}, iteration {number - 1}",
                f"iteration {number}: rollouts" if ranks.is_first else None,
            )
        if not alone:
            put_part(folder, ranks.rank, mine, ended)
            ranks.meet()  # one may draw for hours after another that had fewer, or none

        def graded() -> None:
            assert self._grader is not None
            all_ended = ended
            if not alone:
                all_ended = take_parts(folder, starts, group_size, ranks.world_size)
            grades = write(folder, starts, all_ended, self._grader, settings.credit)
            if words := unrated_in_words(grades):
                print(f"iteration {number}: {words}", file=sys.stderr)
            drop_parts(folder)

        ranks.first(graded)

    def _learn(self, folder: Path, number: int) -> dict[str, float]:
        """Take an iteration's optimizer steps; returns means over them."""
        settings = self.settings
        lr = learning_rate(number - 1, settings.iterations, settings.optimizer)
        steps: list[dict[str, float]] = []
        waiting = iteration_packs(
            *(folder, number, settings, self.codec, self.tokenizer, self.ranks),
            in_step=self.mesh is not None,
        )
        each = packs_each(settings.packs_per_step, self.ranks.world_size)
        while packs := list(islice(waiting, each)):
            steps.append(self._step.take(packs, lr))
        means = {
            name: sum(step[name] for step in steps) / len(steps) for name in (steps or [{}])[0]
        }
        return means | {"lr": lr, "num_optimizer_steps": len(steps)}

    def _look(self, log: RunLog | None, number: int, figures: dict[str, float]) -> None:
        """Probe the policy if that is due, record the figures, and tell them in a line."""
        probe = self._probe
        if probe is not None and probe.due(number, self.settings.iterations):
            with self._drawing_engine() as engine:

                def measured() -> dict[str, float]:
                    assert self._grader is not None
                    return probe.measure(engine, self._grader, number)

                figures |= self.ranks.first(measured)
            if not number:
                self._facts["one_shot"] = figures.get("probe/one_shot")
        if figures and log is not None:
            log.record(number, figures)
            print(
                f"iteration {number} of {self.settings.iterations}: {in_words(figures)}", flush=True
            )

    def _open_probe(self) -> PolicyProbe | None:
        probe = self.settings.probe
        if probe is None:
            return None
        prompts = understood(self.codec.sizes, read_prompts(probe.prompts)[: probe.max_prompts])
        if self._grader is not None:
            self._grader.require(prompts)
        return PolicyProbe(prompts, probe.every_iterations, self.settings.rollouts)
