"""Which settings of a service decide what comes back, so that work can go on with others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NOT_DECIDING = frozenset(
    (
        "api_key_env",
        "timeout_s",
        "max_attempts",
        "backoff_s",
        "max_backoff_s",
        "concurrency",
        "requests_per_minute",
        "tokens_per_minute",
        "batch",
        "tokens_per_image",
        "device",
        "offload",
    )
)
"""Settings of services that change neither what is asked for nor what comes back."""
_LATER = {"carry_latents": False}
"""Settings that there were not always, with the value that leaves everything as it was: work that
was begun before goes on."""


def decisive(service: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a service's settings, as plain data, what does not decide what comes back."""
    return {
        name: value
        for name, value in service.items()
        if name not in NOT_DECIDING and not (name in _LATER and value == _LATER[name])
    }
