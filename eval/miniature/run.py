"""An evaluation from nothing to its files: draw what is missing, score all, write."""

from __future__ import annotations

from pathlib import Path

from eval.miniature.line import SampleScore
from eval.miniature.report import result_of
from eval.miniature.score import score
from eval.miniature.settings import MiniatureSettings, samples
from eval.miniature.store import RESULT, SAMPLES, BatchStore
from eval.results import BenchmarkResult
from staged.jobs.files import write_whole
from staged.jobs.rank import Rank
from staged.strict_json import dumps

_ALONE = Rank()


def draw_missing(
    settings: MiniatureSettings,
    folder: Path,
    *,
    batch_size: int | None = None,
    threads: int = 0,
    rank: Rank = _ALONE,
) -> int:
    """Draw what a folder lacks; see `eval.miniature.draw.draw`.

    Args:
        settings: Who draws what.
        folder: Where to.
        batch_size: Images side by side; None for as many as memory has room for.
        threads: Of torch; 0 leaves its own choice.
        rank: Which batches are this process's.

    Returns:
        Samples drawn now.
    """
    import torch

    from eval.miniature.draw import draw

    if threads:
        torch.set_num_threads(threads)
    store = BatchStore(folder)
    return draw(settings, samples(settings), store, batch_size=batch_size, rank=rank)


def score_all(settings: MiniatureSettings, folder: Path) -> BenchmarkResult:
    """Score every sample, drawn or not, and write its lines and the result.

    Args:
        settings: Which samples there should be.
        folder: Of what was drawn.

    Raises:
        ValueError: nothing was drawn there, or it is damaged.
    """
    store = BatchStore(folder)
    scored: tuple[SampleScore, ...] = score(samples(settings), store.trajectories())
    result = result_of(store.record(), scored)
    lines = "".join(dumps(item.as_dict()) + "\n" for item in scored)
    write_whole(folder / SAMPLES, lines.encode())
    result.write(folder / RESULT)
    return result
