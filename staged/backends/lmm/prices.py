"""What attempts at a language model's requests take: tokens and money, before and after."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from staged.backends.lmm.request import LmmRequest
from staged.backends.lmm.settings import LmmSettings
from staged.backends.lmm.wire import wire_schema

_TOKENS_PER_IMAGE = 1000
_TOKENS_OF_FORM = 1000
"""Room for what an endpoint writes around texts, and for instructions in place of a schema."""


def most_usd(settings: LmmSettings, request: LmmRequest[Any], price: float) -> float:
    """The most that an attempt can cost, in US dollars.

    No text has more tokens than bytes, and no answer more than are allowed.

    Args:
        settings: With the prices.
        request: What would be asked.
        price: What a token costs this way, as a share of its price.
    """
    if not (settings.usd_per_million_input_tokens or settings.usd_per_million_output_tokens):
        return 0.0  # most jobs of a server of one's own: nothing to be added up
    read = sum(len(text.encode()) for text in (request.instructions, *_texts(request)))
    answer: type[BaseModel] = request.answer
    read += _schema_bytes(answer)
    read += _num_pictures(request) * settings.tokens_per_image
    written = settings.max_output_tokens if request.top_logprobs is None else 1
    return usd_of(settings, read + _TOKENS_OF_FORM, written, price)


def usd_of(settings: LmmSettings, input_tokens: int, output_tokens: int, price: float) -> float:
    """What tokens cost in US dollars, at a share of their price; see `most_usd`."""
    return (
        price
        * (
            input_tokens * settings.usd_per_million_input_tokens
            + output_tokens * settings.usd_per_million_output_tokens
        )
        / 1e6
    )


def likely_tokens(settings: LmmSettings, request: LmmRequest[Any]) -> int:
    """Guess an attempt's tokens before they are counted: four characters make one."""
    chars = len(request.instructions) + sum(map(len, _texts(request)))
    answered = 1 if request.top_logprobs else settings.max_output_tokens // 4
    return chars // 4 + _num_pictures(request) * _TOKENS_PER_IMAGE + answered


@lru_cache(maxsize=256)
def _schema_bytes(answer: type[BaseModel]) -> int:
    return len(json.dumps(wire_schema(answer)).encode())


def _texts(request: LmmRequest[Any]) -> list[str]:
    return [part for part in request.content if isinstance(part, str)]


def _num_pictures(request: LmmRequest[Any]) -> int:
    return sum(isinstance(part, bytes) for part in request.content)
