"""How fast this machine does what the demo consists of, found out by doing a little of each."""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from staged.cli.demo.sizes import PROMPTS, Sizes
from staged.cli.demo.stages import TRAIN_CONFIG, build_data
from staged.jobs.progress import rate
from staged.ranges import check_range
from staged.settings import load

_NUM_PROMPTS = 24
_NUM_IMAGES = 16
_TIMES = 2


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds of each thing, with as many threads as are fastest here.

    Attributes:
        prompt_s: Of a prompt of the data set.
        image_s: Of encoding an image.
        step_s: Of a training step.
        picture_s: Of drawing a picture at once, among others.
        train_threads: Of torch, in training.
        draw_threads: Of torch, in drawing: of little use where another process keeps a core busy.
    """

    prompt_s: float
    image_s: float
    step_s: float
    picture_s: float
    train_threads: int
    draw_threads: int

    def __post_init__(self) -> None:
        """Check ranges."""
        times = ("prompt_s", "image_s", "step_s", "picture_s")
        check_range(self, *times, minimum=0, above=True)
        check_range(self, "train_threads", "draw_threads", minimum=1)

    def in_words(self) -> str:
        """Say it in a line."""
        threads = (
            f"{self.train_threads} for training and {self.draw_threads} for drawing"
            if self.train_threads != self.draw_threads
            else str(self.draw_threads)
        )
        return (
            f"this machine does {rate(1 / self.step_s, 'training steps/s')}, encodes "
            f"{rate(1 / self.image_s, 'images/s')}, draws {rate(1 / self.picture_s, 'pictures/s')};"
            f" threads: {threads}"
        )


def measure(base: str) -> Speed:
    """Build a few trajectories, encode some images, train some steps, draw some pictures.

    What it does is thrown away.

    Args:
        base: Model that would be trained.

    Raises:
        ValueError: It cannot be trained or drawn with.
    """
    from train.job import Trainer
    from train.samples import draw_sheet
    from train.settings import Log, Subset, TrainSettings

    # One thread, too: threads that wait for one another are slower than one alone where another
    # process keeps a core busy.
    counts = sorted({1, torch.get_num_threads()})
    with (
        threads(),
        tempfile.TemporaryDirectory() as scratch,
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),  # progress of what is thrown away
    ):
        folder = Path(scratch)
        build_data(folder / "first", Sizes(data=("prompts.count=4",)))  # what it imports, loads
        began = time.monotonic()
        build_data(folder / "data", Sizes(data=(f"prompts.count={_NUM_PROMPTS}",)))
        prompt_s = (time.monotonic() - began) / _NUM_PROMPTS
        trainer = Trainer(
            replace(
                load(TrainSettings, TRAIN_CONFIG, ("num_workers=0",)),
                init=base,
                data=(Subset(path=str(folder / "data")),),
                out=folder / "training",
            )
        )
        codec = trainer.codec
        side = codec.sizes.latent_max
        images = [np.full((side, side, 3), shade, np.uint8) for shade in range(_NUM_IMAGES)]
        packs, each = trainer.packs.from_step(0), trainer.settings.packs_per_step
        log = Log(sample_prompts=PROMPTS[:4] * 2)
        encode_s, _ = _fastest(lambda: codec.to_latents_each(images), counts)
        step_s, train_threads = _fastest(lambda: trainer.train_step(*islice(packs, each)), counts)
        sheet_s, draw_threads = _fastest(
            lambda: draw_sheet(
                trainer.model,
                codec,
                trainer.tokenizer,
                trainer.loaded.flows.first,
                log,
                folder / "sheet.png",
            ),
            counts,
        )
    return Speed(
        prompt_s=prompt_s,
        image_s=encode_s / len(images),
        step_s=step_s,
        picture_s=sheet_s / len(log.sample_prompts),
        train_threads=train_threads,
        draw_threads=draw_threads,
    )


@contextlib.contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Let torch compute with so many threads, and afterwards with as many as before.

    Args:
        count: None leaves the choice to the block.
    """
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _fastest(act: Callable[[], object], counts: list[int]) -> tuple[float, int]:
    """Seconds of an act with the number of threads that is best for it, and that number."""
    seconds: dict[int, float] = {}
    for count in counts:
        torch.set_num_threads(count)
        act()  # the first time prepares kernels and fills caches
        taken = []
        for _ in range(_TIMES):
            began = time.monotonic()
            act()
            taken.append(time.monotonic() - began)
        seconds[count] = sum(taken) / len(taken)
    best = min(seconds, key=lambda count: seconds[count])
    return seconds[best], best
