"""Drawing samples: the loop of `staged generate` over many prompts, batch by batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import PurePosixPath
from typing import Any

from eval.generation.model import CheckpointGenerator
from eval.generation.samples import BenchmarkSample
from eval.miniature.candidates import keyed
from eval.miniature.explored import EXPLORER, draw_explored
from eval.miniature.rewrites import digest, read_rewrites
from eval.miniature.settings import MiniatureSample, MiniatureSettings
from eval.miniature.store import BatchStore, Record
from eval.results import versions
from eval.search.best_of import BestOf
from eval.search.verifiers.opening import open_verifier
from staged.devices import settle
from staged.generate.admission import MAX_BATCH_SIZE
from staged.generate.answers import player_answers
from staged.jobs.ledger import unit_key
from staged.jobs.progress import Progress
from staged.jobs.rank import Rank
from staged.jobs.units import units
from staged.loops.events import Event, Failed, Stopped
from staged.trajectory import Trajectory

_ALL = Rank()
_EXPLORED = "explored"
"""Folder of the explorations, a job for each batch; it stays, with every answer and picture."""


def draw(
    settings: MiniatureSettings,
    samples: Sequence[MiniatureSample],
    store: BatchStore,
    *,
    batch_size: int | None,
    rank: Rank = _ALL,
    tell: Callable[[str], Any] = print,
) -> int:
    """Draw what the store does not hold yet.

    Args:
        settings: Who draws, how.
        samples: What.
        store: Where to.
        batch_size: Images that are drawn side by side, at most, and kept together; None keeps
            `MAX_BATCH_SIZE` together and draws as many at a time as memory has room for. No picture
            depends on it.
        rank: Which batches are this process's.
        tell: Told where and in which precision, in a line.

    Returns:
        Samples drawn now.

    Raises:
        ValueError: There is no such checkpoint, or the store holds pictures of another.
    """
    # By key, so that a batch is the same in whatever order the tasks are listed.
    ordered = sorted(samples, key=lambda sample: sample.key)
    batches = rank.share(units(ordered, batch_size or MAX_BATCH_SIZE))
    settings = settle(settings, begun=store.begun_dtype(), tell=tell)
    with ExitStack() as stack:
        log = stack.enter_context(player_answers(settings, store.folder, rank=rank))
        asked = [sample.prompt.text for sample in ordered]
        rewrites = read_rewrites(settings.rewrites, asked) if settings.rewrites else {}
        model = CheckpointGenerator(settings, batch_size=batch_size, log=log, rewrites=rewrites)
        search, chooser = None, EXPLORER if settings.explore else ""
        if settings.search is not None:
            verifier = stack.enter_context(
                open_verifier(settings.search.verifier, folder=store.folder, rank=rank)
            )
            together = batch_size or MAX_BATCH_SIZE
            search = BestOf(model, verifier, settings.search, batch=together)
            chooser = verifier.name
        store.claim(
            Record(
                settings=settings,
                flow=model.flows.facts(),
                weights=model.weights,
                versions=versions(),
                verifier=chooser,
                rewritten=digest(rewrites) if rewrites else "",
            )
        )
        there = store.trajectories()
        ours = sum(map(len, batches))
        missing = [[sample for sample in batch if sample.key not in there] for batch in batches]
        drawn = sum(map(len, missing))
        progress = Progress(rank.label("images"), ours, unit="images/s", done=ours - drawn)
        for batch in filter(None, missing):
            began = time.monotonic()
            if settings.explore is not None:
                # More images of a prompt cut batches anew: other samples are another job.
                job = unit_key([sample.key for sample in batch])[:16]
                folder = store.folder / _EXPLORED / job
                drawn_now = draw_explored(settings, batch, folder, progress.advance)
            elif search is not None:
                drawn_now = _searched(search, batch, progress)
            else:
                drawn_now = _drawn(model, batch, progress)
            store.add(list(drawn_now), name=batch[0].key, seconds=time.monotonic() - began)
    return drawn


def _drawn(
    model: CheckpointGenerator, batch: Sequence[MiniatureSample], progress: Progress
) -> Iterator[tuple[str, Trajectory]]:
    def advance(event: Event) -> None:
        if isinstance(event, Stopped | Failed):
            progress.advance()

    finished = model.run([s.prompt.text for s in batch], [s.seed for s in batch], advance)
    yield from zip((sample.key for sample in batch), finished, strict=True)


def _searched(
    search: BestOf, batch: Sequence[MiniatureSample], progress: Progress
) -> Iterator[tuple[str, Trajectory]]:
    asked = [
        BenchmarkSample(
            prompt_key=sample.key,
            prompt=sample.prompt.text,
            image=0,
            number=number,
            seed=sample.seed,
            path=PurePosixPath(sample.key),
        )
        for number, sample in enumerate(batch)
    ]
    for sample, found in search.search(asked):
        yield from keyed(sample.prompt_key, found)
        progress.advance()
