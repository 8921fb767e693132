"""A published configuration file, read key by key: what is not understood is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from staged import strict_json
from staged.settings.kinds import nearest

__all__ = ["MAX_DIMENSION", "Section"]

MAX_DIMENSION = 1 << 24
"""No size in a config exceeds this; a larger one is a damaged file."""
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Section:
    """One JSON object with typed access; every error names the file and the key."""

    place: str
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Section:
        """Read a file.

        Raises:
            ValueError: It is missing, or holds no JSON object.
        """
        missing = "; a checkpoint folder needs it"
        try:
            # Strictly: of a key given twice one would replace the other.
            document = strict_json.read_object(path, max_bytes=_MAX_JSON_BYTES, missing=missing)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
        return cls(place=str(path), values=document)

    def section(self, key: str) -> Section:
        """An object within it.

        Raises:
            ValueError: There is none.
        """
        value = self._get(key, None)
        if not isinstance(value, dict):
            raise ValueError(f"{self.place}: {key} is {value!r}; expected an object")
        return Section(place=f"{self.place}: {key}", values=value)

    def integer(self, key: str, default: int | None = None) -> int:
        """A size, from 1; without a default it must be there.

        Raises:
            ValueError: It is missing, or none.
        """
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{self.place}: {key} is {value!r}; expected an integer")
        if not 1 <= value <= MAX_DIMENSION:
            raise ValueError(f"{self.place}: {key} is {value}; expected 1 to {MAX_DIMENSION}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number; without a default it must be there.

        Raises:
            ValueError: It is missing, or none.
        """
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{self.place}: {key} is {value!r}; expected a number")
        return float(value)

    def integers(self, key: str, default: Sequence[int]) -> tuple[int, ...]:
        """A list, of what is checked elsewhere.

        Raises:
            ValueError: It is none.
        """
        value = self._get(key, default)
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError(f"{self.place}: {key} is {value!r}; expected a list of integers")
        return tuple(value)

    def expect(self, **expected: object) -> None:
        """Require keys to say what is built, where they say anything.

        Raises:
            ValueError: One says something else.
        """
        for key, value in expected.items():
            found = self.values.get(key, value)
            if found != value:
                raise ValueError(
                    f"{self.place}: {key} is {found!r}, but only {value!r} is built here"
                )

    def expect_each(self, key: str, value: object) -> None:
        """Require every item of a list to be this, where there is one.

        Raises:
            ValueError: An item is something else.
        """
        for found in self.values.get(key) or ():
            if found != value:
                raise ValueError(f"{self.place}: {key} has {found!r}, but only {value!r} is built")

    def only(self, *known: str) -> None:
        """Require that no other keys stand here.

        Raises:
            ValueError: One does; names what is near.
        """
        for key in self.values:
            if key not in known:
                raise ValueError(
                    f"{self.place}: {key} is not supported{nearest(key, known)}; what it asks for "
                    "would be passed over"
                )

    def _get(self, key: str, default: object) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise ValueError(f"{self.place}: {key} is missing")
        return value
