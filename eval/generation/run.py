"""Drawing what a folder lacks: unit by unit, each image kept as soon as it is there."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.generation.samples import BenchmarkSample
from eval.generation.store import Store
from staged.backends.generators.generator import Generator, NoImage
from staged.jobs.progress import Progress
from staged.jobs.rank import Rank
from staged.jobs.units import units


@dataclass(frozen=True, kw_only=True)
class Done:
    """What a process did with its share.

    Attributes:
        drawn: Images drawn now.
        there: Images that were there.
        failures: Samples without an image, now or in an earlier run, by reason.
        examples: The detail of one failure of each reason.
        usd: What was spent now.
        unscored: Samples without an image, of all processes; None as long as others are at work.
    """

    drawn: int
    there: int
    failures: Counter[str]
    examples: Mapping[str, str]
    usd: float
    unscored: int | None

    def figures(self) -> dict[str, float | None]:
        """What `--json` tells."""
        return {
            "drawn": self.drawn,
            "there": self.there,
            "failed": self.failures.total(),
            "unscored": self.unscored,
            "usd": self.usd,
        }


def generate(
    samples: Sequence[BenchmarkSample],
    generator: Generator[BenchmarkSample],
    store: Store,
    *,
    batch: int,
    rank: Rank,
) -> Done:
    """Draw the samples of this process that the store lacks.

    Args:
        samples: Of all processes, as `Benchmark.samples` lists them.
        generator: Who draws.
        store: Where to, claimed.
        batch: Images drawn side by side; 1 for a generator that draws each alone.
        rank: Which share is this process's.

    Raises:
        ValueError: the generator is of no use, or the store's images are not what they should be.
        OSError: a file cannot be read or written.
    """
    mine = rank.share(_batches(samples, batch))
    ours = [sample for unit in mine for sample in unit]
    store.sweep(ours)
    settled = store.settled(ours)
    there = sum("sha256" in line for line in settled.values())
    failed = [line for line in settled.values() if "sha256" not in line]
    failures = Counter(line["reason"] for line in failed)
    examples = {line["reason"]: line.get("detail", "") for line in failed}
    left = [unit for unit in mine if any(str(sample.path) not in settled for sample in unit)]
    if generator.alone:
        left = [tuple(itertools.chain.from_iterable(left))] if left else []
    progress = Progress(rank.label("images"), len(ours), done=len(settled))
    drawn, usd, began = 0, 0.0, time.monotonic()
    for unit in left:
        # The whole unit again, even where a part of it is there: the others' last digits hang on
        # it. What is there stays as it is.
        for sample, outcome in generator.draw(unit):
            if str(sample.path) in settled:
                continue
            store.keep(sample, outcome, seconds=time.monotonic() - began)
            usd += outcome.cost.get("usd", 0.0)
            if isinstance(outcome, NoImage):
                failures[outcome.reason] += 1
                examples.setdefault(outcome.reason, outcome.detail)
            else:
                drawn += 1
            progress.advance(note=f"{failures.total()} without an image" if failures else "")
    lines = store.finish(samples)
    unscored = None if lines is None else sum("sha256" not in line for line in lines)
    return Done(
        drawn=drawn,
        there=there,
        failures=failures,
        examples=examples,
        usd=usd,
        unscored=unscored,
    )


def _batches(samples: Sequence[BenchmarkSample], size: int) -> list[tuple[BenchmarkSample, ...]]:
    """Cut into units, each of images with one number, so that asking for more changes none.

    By seed, so that a prompt has the same company wherever it stands in its file.
    """
    ordered = sorted(samples, key=lambda sample: (sample.image, sample.seed, str(sample.path)))
    return [
        unit
        for _, those in itertools.groupby(ordered, key=lambda sample: sample.image)
        for unit in units(list(those), size)
    ]
