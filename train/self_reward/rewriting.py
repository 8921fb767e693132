"""The likeliest rewrites of prompts, each kept as soon as it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from staged.jobs.ledger import Ledger, unit_key
from train.self_reward.asking import Questions, read_rewrite
from train.self_reward.vlm import Asked


class LikeliestWriter(Protocol):
    """Whoever writes the likeliest answer."""

    @property
    def digest(self) -> str:
        """What decides its answers beside the question."""
        ...

    def likeliest(self, asked: Asked, *, num_beams: int, max_new_tokens: int) -> str | None:
        """Search for the likeliest answer; None if it was cut off."""
        ...


def kept_rewrites(
    ledger: Ledger,
    writer: LikeliestWriter,
    wording: Questions,
    prompts: Sequence[str],
    *,
    num_beams: int,
    max_new_tokens: int,
    done: Callable[[], None] = lambda: None,
) -> list[str | None]:
    """Write the likeliest rewrite of each prompt, or take what was written before.

    Args:
        ledger: Keeps them.
        writer: Writes.
        wording: How it is asked.
        prompts: As a person wrote them.
        num_beams: Of the search.
        max_new_tokens: Of a rewrite, at most.
        done: Told of each.

    Returns:
        In order; None for one that is empty, or was cut off.
    """

    async def one(prompt: str) -> str | None:
        asked = Asked(question=wording.rewrite(prompt))
        key = unit_key(writer.digest, asked.question, "likeliest", num_beams, max_new_tokens)
        async with ledger.claim(key):
            if kept := ledger.answers(key):
                return _text(kept[-1].data["text"])
            with ledger.admitted("requests"):
                text = await asyncio.to_thread(
                    writer.likeliest, asked, num_beams=num_beams, max_new_tokens=max_new_tokens
                )
            data = {"text": text}
            await ledger.record(key, "requests", "rewrite", paid=True, usd=0.0, data=data)
            return _text(text)

    async def every() -> list[str | None]:
        written = []
        for prompt in prompts:  # a model on one device writes one after the other
            written.append(await one(prompt))
            done()
        return written

    return asyncio.run(every())


def _text(answer: str | None) -> str | None:
    return None if answer is None else read_rewrite(answer)
