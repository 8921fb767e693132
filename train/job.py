"""A fine-tune run: packs in, a checkpoint in the published layout out."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from staged.allocator import keep_freed_memory
from staged.command_line import outputs
from staged.device_memory import peak_gib
from staged.model.finite import NotFiniteError
from staged.model.work import train_flops
from train.determinism import deterministic_kernels, prepare_determinism
from train.ema import averaged
from train.examples import Examples
from train.float8 import require_float8
from train.interrupts import Interrupts
from train.interval import IntervalMeans
from train.learner import Learner
from train.memory import bytes_to_write, kept_bytes, require_memory
from train.num_ranks import require_ranks
from train.opening import codec_to_train
from train.optimizer import make_optimizers
from train.packing import Pack
from train.parts import PARTS
from train.profiles import TraceRequests, profile_folder, profiled, watched_memory
from train.ranks import Ranks
from train.run_folder import (
    claim,
    require_one_run,
    require_own,
    require_own_data,
    require_shared_folder,
    settled,
)
from train.run_lock import alone_together, require_nobody_in
from train.run_log import RunLog, Silence
from train.run_model import result_of
from train.scoring import Scoring
from train.settings import Subset, TrainSettings
from train.sharding import (
    gathered_root,
    num_shards,
    resharded,
)
from train.state import RunState
from train.step_end import StepEnd
from train.stream import StepPacks, explaining_dead_workers, packs_each
from train.throughput import Throughput, rate_of_device
from train.trackers import open_trackers, require_trackers
from train.validation import HeldOut


class Trainer(Learner):
    """One run, or one rank's part of it, on one device."""

    def __init__(self, settings: TrainSettings, ranks: Ranks | None = None) -> None:
        """Load the model and the data, and take up the newest state.

        Args:
            settings: Of the run.
            ranks: Its processes; without any, this one is alone.

        Raises:
            ValueError: Settings, data or state do not fit one another; the message says which.
            OSError: The run's folder cannot be written.
        """
        ranks = ranks or Ranks()
        keep_freed_memory()
        if settings.deterministic:
            prepare_determinism()
        if settings.num_threads:
            torch.set_num_threads(settings.num_threads)
        self.state = RunState(settings.out, ranks, num_kept=settings.keep_checkpoints)
        resuming = ranks.first(lambda: bool(self.state.steps()))
        settings = settled(settings, ranks, resuming=resuming)
        require_float8(settings, torch.device(settings.device), getattr(torch, settings.dtype))
        require_ranks(settings, ranks.world_size)
        # Before the weights are read: a folder of another run is told at once.
        ranks.first(lambda: require_nobody_in(settings.out))
        ranks.first(lambda: require_trackers(settings))
        ranks.first(lambda: require_own(settings, resuming=resuming))
        require_one_run(settings, ranks)
        require_shared_folder(settings.out, ranks)  # before hours of encoding
        super().__init__(settings, ranks)
        # The autoencoder is frozen: its working copy may be narrow, what is exported is not.
        loaded = self.loaded
        self.codec = codec_to_train(loaded.autoencoder, loaded.config, self.dtype, self.device)
        self.optimizer = make_optimizers(self.parameters, settings.optimizer, self.dtype)
        kept = kept_bytes(
            self.model,
            self.parameters,
            self.optimizer,
            averaged=settings.optimizer.ema_decay > 0,
            dtype=self.dtype,
            shards=num_shards(self.mesh),
        )
        require_memory(kept, self.device, settings)
        if not resuming:  # afterwards they take the place of what is there
            ranks.first(self._require_room)
        self.examples = self._open_examples(settings.data, settings.noised_copies)
        fingerprint = self.examples.fingerprint
        ranks.first(lambda: require_own_data(settings.out, fingerprint, resuming=resuming))
        ranks.require_same("the data (or tokenizer, or autoencoder)", fingerprint)
        self.packs = StepPacks.of(self.examples, settings)
        self.plan = self.packs.plan
        self.begin_average()
        self.held_out = self._open_held_out()
        self.step = self.state.load(self.parameters, self.optimizer, self.average)
        facts = ranks.first(self.state.facts)
        self.interval = IntervalMeans()
        self.interval.resume(facts.get("log"))
        self.scoring: Scoring | None = None
        self.score: float | None = None
        """Of this step's weights, once it is known."""
        if self.held_out is not None:
            self.held_out.resume(facts.get("best"), kept=ranks.first(self.state.steps))
            self._open_scoring(self.held_out)

    def run(self) -> Path:
        """Train to the end, or as long as the settings allow, and write the checkpoint.

        Ctrl-C and SIGTERM save the state of the step they fall into before they act.

        Returns:
            The checkpoint's folder.

        Raises:
            ValueError: Another process trains there, or has since this one looked.
        """
        with alone_together(self.settings.out, self.ranks):
            # Only now: a run that cannot begin leaves nothing that would speak for it.
            self.ranks.first(self._claim)
            # Of a run at its end the score, or only its line of the log, may be missing.
            if self.step < self.settings.num_steps or self.scoring is not None:
                self._train()
            folder = self.write(result_of(self.settings))
            if self.best_step is not None:
                # The last that is done with a run: its weights are those of that step then.
                self.state.load(self.parameters, self.optimizer, self.average, self.best_step)
                self.write(result_of(self.settings, best=True))
            return folder

    def _claim(self) -> None:
        out = self.settings.out
        if (newest := max(self.state.steps(), default=0)) > self.step:
            raise ValueError(
                f"another process has taken the run in {out} to step {newest}; the same command "
                "goes on from there"
            )
        claim(self.settings, self.examples.fingerprint)

    def _train(self) -> None:
        settings, ranks = self.settings, self.ranks
        deadline = time.monotonic() + 60 * (settings.max_minutes or math.inf)
        rate = rate_of_device(self.device, self.dtype)
        peak = None if rate is None else ranks.world_size * rate
        history = settings.log.memory_history
        with (
            self.state.written(),
            self._open_log() as shown,
            Interrupts(told=ranks.is_first) as interrupts,
            TraceRequests() as requests,
            explaining_dead_workers(),
            deterministic_kernels(settings.deterministic),
            watched_memory(settings.out, ranks.number, self.device, history=history),
        ):
            packs = self.packs.from_step(self.step, ranks.rank)
            if not self.step and self.held_out is not None:
                shown.record(0, self.validate())
            if self.scoring is not None:
                self.scoring.begin(self.step)
                if self.score is not None:  # a kill may have come before it was logged
                    shown.record_once(self.step, {"validation/score": self.score})
            if self._unscored() and (stop := self._grade(shown, interrupts)):
                self._leave(stop, shown, interrupts)
            throughput, trace = Throughput(), False
            while self.step < settings.num_steps:
                trace |= self.step + 1 in settings.log.profile_steps
                record = self._timed_step(packs, throughput, trace=trace)
                self.step += 1
                self.state.check()
                mine = StepEnd(
                    stop=interrupts.received or 0,
                    late=time.monotonic() >= deadline,
                    trace=requests.taken(),
                    tokens_per_s=throughput.tokens_per_s,
                    flops_per_s=throughput.flops_per_s,
                    data_wait=throughput.data_wait,
                    step_s=throughput.step_s,
                    memory_gib=peak_gib(self.device),
                )
                end = StepEnd.of_all(ranks.gather(mine))
                trace = end.trace
                if trace and self.step < settings.num_steps:
                    folder = profile_folder(settings.out)
                    shown.say(f"\nstep {self.step + 1} is traced, as asked, into {folder}")
                with throughput.aside():
                    self._after_step(record | end.figures(peak), end, shown)
                    ends = end.stop or (end.late and self.step < settings.num_steps)
                    if self._unscored() and not ends:  # else the next part asks for it
                        end = replace(end, stop=self._grade(shown, interrupts))
                if end.stop:
                    self._leave(end.stop, shown, interrupts)
                if ends:
                    shown.end_line()
                    shown.say(
                        f"stopped after {self.step} of {settings.num_steps} steps: max_minutes is "
                        f"{settings.max_minutes:g}; the same command goes on"
                    )
                    return

    def _leave(self, stop: int, shown: Silence, interrupts: Interrupts) -> None:
        """End as a signal asks, once what is due is on the disk."""
        self.state.finish()
        done = f"step {self.step} of {self.settings.num_steps}"
        if self.step:
            done += f" is saved in {self.settings.out}; the same command continues from there"
        else:
            done += ": nothing is done yet"
        shown.say(done)
        interrupts.leave(stop)

    def _timed_step(
        self, packs: Iterator[Pack], throughput: Throughput, *, trace: bool
    ) -> dict[str, float]:
        """Take the next step, traced where that is wanted, and note how long it took."""
        settings, ranks, number = self.settings, self.ranks, self.step + 1
        asked = time.monotonic()
        step = list(islice(packs, packs_each(settings.packs_per_step, ranks.world_size)))
        waited_s = time.monotonic() - asked
        with profiled(
            trace,
            settings.out,
            number,
            ranks.number,
            self.device,
            history=settings.log.memory_history,
        ):
            record = self.train_step(*step)
        frozen = PARTS if settings.lora is not None else settings.freeze
        throughput.add(
            sum(pack.layout.num_tokens for pack in step),
            waited_s,
            sum(train_flops(self.loaded.config, pack.layout, frozen) for pack in step),
        )
        return record

    def _after_step(self, record: dict[str, float], end: StepEnd, shown: Silence) -> None:
        """What is due after a step: figures, validation, pictures, its state."""
        settings, log = self.settings, self.settings.log
        last = self.step == settings.num_steps
        self.interval.add(record)
        figures = self.interval.take() if last or _due(self.step, log.every_steps) else {}
        due = last or _due(self.step, settings.checkpoint_every_steps)
        self.score = None
        if self._measured():
            figures |= self.validate()
            due |= self.best_step == self.step or self.scoring is not None
        if figures:
            # Ahead of the state: `cut_log` can drop what is beyond, and add nothing.
            shown.record(self.step, figures)
        shown.advance(record)
        if log.sample_prompts and _due(self.step, log.sample_every_steps):
            self.sample(shown)
        if end.stop or end.late or due:
            self._save()

    def _open_log(self) -> Silence:
        if not self.ranks.is_first:
            return Silence()
        return RunLog(
            self.settings.out,
            step=self.step,
            num_steps=self.settings.num_steps,
            trackers=open_trackers(self.settings, self.step),
        )

    def _save(self) -> None:
        facts = {"log": self.interval.state()}
        if self.held_out is not None:
            facts |= self.held_out.facts()
        self.state.save(
            self.step,
            self.parameters,
            self.optimizer,
            self.average,
            facts,
            best=self.best_step,
        )

    def _open_examples(self, subsets: Sequence[Subset], noised_copies: int) -> Examples:
        """Open data; the first rank measures and encodes what is new, the others find it."""
        settings = self.settings

        def read() -> Examples:
            return Examples(
                subsets,
                self.codec,
                self.tokenizer,
                settings.cache_folder,
                noised_copies=noised_copies,
                streaming=settings.streaming,
            )

        return self.ranks.first_opens(read)

    def _open_held_out(self) -> HeldOut | None:
        validation = self.settings.validation
        if validation is None:
            return None
        subsets = [Subset(path=path) for path in validation.data]
        examples = self._open_examples(subsets, validation.noised_copies)
        return HeldOut(self.settings, examples, self.ranks, trained=self.examples)

    @property
    def best_step(self) -> int | None:
        """The step with the least validation loss so far, if its state is kept."""
        return None if self.held_out is None else self.held_out.best_kept

    def validate(self) -> dict[str, float]:
        """Measure the held-out data with the averaged weights; see `HeldOut.measure`.

        Raises:
            ValueError: A sample cannot be read.
        """
        assert self.held_out is not None
        # What was gathered is given back first: nothing of the averaged weights stays behind.
        with averaged(self.parameters, self.average), resharded(self.objective):
            figures = self.held_out.measure(self._forward, self.device)
        if self.scoring is None:
            self.held_out.compare(self.step, figures["validation/loss"])
        return figures

    def _measured(self) -> bool:
        """Whether the held-out data are measured at this step."""
        last = self.step == self.settings.num_steps
        return self.held_out is not None and (last or self.held_out.due(self.step))

    def _unscored(self) -> bool:
        """Whether a command is yet to grade this step's weights."""
        return self.scoring is not None and self.score is None and self._measured()

    def _grade(self, shown: Silence, interrupts: Interrupts) -> int:
        """Let the command grade the averaged weights, whose state is on the disk by then.

        A score that cannot be had is told, and the run goes on without it.

        Returns:
            Number of a signal that came meanwhile to any rank, or 0.

        Raises:
            ScorerError: There is none before the first step.
        """
        assert self.scoring is not None
        self.state.finish()
        self._take_score(self.scoring.grade(self.step, self.write, interrupts))
        if self.score is not None:
            shown.record_once(self.step, {"validation/score": self.score})
            self.state.keep_best(self.best_step)
        return max(self.ranks.gather(interrupts.received or 0))

    def _open_scoring(self, held_out: HeldOut) -> None:
        validation = self.settings.validation
        if validation is not None and validation.scorer is not None:
            self.scoring = Scoring(
                validation.scorer, self.settings.out, self.ranks, held_out.fingerprint
            )
            self._take_score(self.scoring.known(self.step))

    def _take_score(self, score: float | None) -> None:
        assert self.held_out is not None and self.settings.validation is not None
        scorer = self.settings.validation.scorer
        self.score = score
        if score is not None and scorer is not None:
            self.held_out.compare(self.step, -score if scorer.larger_is_better else score)

    def sample(self, shown: Silence) -> None:
        """Draw the fixed prompts with the averaged weights; all ranks draw, one shows."""
        # A run that draws nothing needs no engine; nothing else of training does.
        from train.samples import draw_sheet, draw_trajectories

        log, flows = self.settings.log, self.loaded.flows
        path = self.settings.out / "samples" / f"{self.step:08d}.png"
        kept = path if self.ranks.is_first else None
        model = (self.model, self.codec, self.tokenizer)
        try:
            with averaged(self.parameters, self.average), gathered_root(self.objective):
                if log.sample_mode == "staged":
                    sheet = draw_trajectories(*model, flows.for_other_weights(), log, kept)
                else:
                    sheet = draw_sheet(*model, flows.first, log, kept)
        except NotFiniteError as error:  # the losses are watched; a picture is only looked at
            shown.say(f"step {self.step}: no sample pictures: {error}")
            return
        shown.picture(self.step, sheet)

    def _require_room(self) -> None:
        need = bytes_to_write(self.settings, self.model, self.parameters, self.optimizer)
        outputs.folder(self.settings.out, need_bytes=need)


def _due(step: int, every_steps: int) -> bool:
    return every_steps > 0 and step % every_steps == 0
