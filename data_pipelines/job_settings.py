"""What every job that builds a data set has among its settings."""

from __future__ import annotations

from typing import Any, Protocol

from staged.jobs.budget import Budget


class JobSettings(Protocol):
    """Settings of one pipeline: a frozen dataclass, as `staged.settings` reads them."""

    @property
    def title(self) -> str:
        """Name of the data set."""
        ...

    @property
    def num_units(self) -> int:
        """Prompts, or whatever becomes one trajectory each."""
        ...

    @property
    def budget(self) -> Budget:
        """What the job may spend."""
        ...

    @property
    def concurrency(self) -> int:
        """Units in the making at a time; does not change the result."""
        ...

    @property
    def samples_per_shard(self) -> int:
        """Most samples of a shard."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decides the samples: how many, how fast and for how much do not."""
        ...

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        ...
