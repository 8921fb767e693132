"""Images of a job: drawn once and paid for once, whoever wants them, in whichever run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from staged.jobs.ledger import Ledger


@dataclass(frozen=True, kw_only=True)
class KeptImage:
    """What came of drawing.

    Attributes:
        png: Encoded bytes; None where nothing was drawn.
        beside: What else is needed to draw onto it, if anything is.
        usd: What it cost.
        data: What else is known of it, as plain JSON.
        final: Whether it is never tried again; what is not final is, in a later round.
    """

    png: bytes | None
    beside: bytes | None = None
    usd: float = 0.0
    data: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    final: bool = True


async def draw_once(
    ledger: Ledger, key: str, *, usd: float, draw: Callable[[], Awaitable[KeptImage]]
) -> KeptImage:
    """Draw, or take what any process of the job has drawn before.

    Args:
        ledger: Of the job.
        key: SHA-256 (hex) of everything that decides the image.
        usd: Its price, as far as it is known before.
        draw: Called at most once, with the key claimed; what it raises is passed on, and counts as
            nothing.

    Raises:
        BudgetError: The job's budget does not allow another image.
    """
    kept = _kept(ledger, key)
    if kept is not None:
        return kept
    async with ledger.claim(key):
        # Another process may have drawn it until now.
        kept = _kept(ledger, key)
        if kept is not None:
            return kept
        with ledger.admitted("images", usd=usd):
            drawn = await draw()
        if drawn.png is None and not drawn.usd:
            ledger.withdraw("images")
        await ledger.record(
            key,
            "images",
            "images",
            paid=drawn.final,
            usd=drawn.usd,
            reserved_usd=usd,
            data=drawn.data,
            blob=drawn.png,
            beside=drawn.beside,
        )
        return drawn


def _kept(ledger: Ledger, key: str) -> KeptImage | None:
    """Return the end of a request; None where there is none, or its image was lost since."""
    answers = ledger.answers(key)
    if not answers:
        return None
    last = next((one for one in reversed(answers) if one.sha256), answers[-1])
    png, beside = (
        ledger.find_blob(digest) if digest else None for digest in (last.sha256, last.beside)
    )
    if (last.sha256 and png is None) or (last.beside and beside is None):
        return None
    return KeptImage(png=png, beside=beside, usd=last.usd, data=last.data, final=last.paid)
