"""What a language model that plays a role has answered, kept beside what is drawn with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from staged.backends.lmm.attempts import AttemptLog
from staged.backends.lmm.kept import kept_answers
from staged.generate.settings import DrawSettings
from staged.jobs.rank import Rank

_ALONE = Rank()


@contextmanager
def player_answers(
    settings: DrawSettings, folder: Path, *, rank: Rank = _ALONE
) -> Iterator[AttemptLog | None]:
    """Open the answers of the language model that plays a role; None where none does.

    Args:
        settings: Who plays, and for how much money.
        folder: Of what is drawn; the answers are in `lmm.attempts` in it.
        rank: Which of the processes that share the work this is.

    Raises:
        ValueError: answers are damaged.
        OSError: they cannot be read or written.
    """
    if settings.lmm is None:
        yield None
        return
    with kept_answers(folder / "lmm", usd=settings.lmm_budget_usd, rank=rank) as log:
        yield log
