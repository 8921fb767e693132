"""One row, and what is asked of it: texts, lists, images, each by where it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from staged import images
from staged.data_urls import from_base64
from staged.tables import BadRowError


@dataclass(frozen=True)
class SourceRow:
    """A record of a data set.

    A field is named by keys and places in lists with dots between them, such as `images.0.file`; a
    key that has dots itself is found as a whole.

    Attributes:
        data: As JSON or a parquet file has it; bytes too.
        place: File and row, for messages.
        folder: Images that are named by paths lie below it.
    """

    data: Any
    place: str
    folder: Path

    def value(self, field: str) -> Any:
        """What stands at a field; None where nothing does."""
        if isinstance(self.data, Mapping) and field in self.data:
            return self.data[field]
        found = self.data
        for part in field.split("."):
            if isinstance(found, Mapping):
                found = found.get(part)
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                return None
        return found

    def text(self, field: str, part: str = "", *, hint: str = "") -> str:
        """A text that is there and says something, without spaces around it.

        Args:
            field: Where.
            part: What it is for, for the reason; the field's name by default.
            hint: The way out, for the message.

        Raises:
            BadRowError: There is none.
        """
        value = self.value(field)
        if not isinstance(value, str) or not value.strip():
            shown = "" if value is None else f" but {value!r:.60}"
            raise self.bad(f"missing {part or field}", f"no text at {field!r}{shown}{hint}")
        return value.strip()

    def maybe_text(self, field: str) -> str | None:
        """A text, if one is there.

        Raises:
            BadRowError: Something else is there.
        """
        return None if self.value(field) in (None, "") else self.text(field)

    def items(self, field: str) -> list[Any]:
        """A list.

        Raises:
            BadRowError: There is none.
        """
        value = self.value(field)
        if not isinstance(value, list):
            raise self.bad(f"missing {field}", f"no list at {field!r} but {value!r:.60}")
        return value

    def image(self, field: str, part: str = "") -> bytes:
        """The encoded bytes of an image; nothing is decoded.

        Raises:
            BadRowError: There is none, or it cannot be read.
        """
        return self.image_of(self.value(field), part or field)

    def image_of(self, value: Any, part: str) -> bytes:
        """The encoded bytes of an image, of whatever stands for one.

        Args:
            value: Bytes; a path below the folder; a data URL; or a record of `bytes` and `path`, as
                Hugging Face's data sets have them.
            part: What it is for, for messages.

        Raises:
            BadRowError: It is none of these, or cannot be read.
        """
        if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:
            value = value.get("bytes") or value.get("path")
        try:
            if isinstance(value, bytes) and value:
                if len(value) > images.MAX_IMAGE_BYTES:
                    raise ValueError(f"{len(value)} bytes exceed {images.MAX_IMAGE_BYTES}")
                return value
            if not isinstance(value, str) or not value:
                raise self.bad("missing image", f"{part}: {value!r:.60} is no path")
            return from_base64(value) if value.startswith("data:") else self._file(value)
        except BadRowError:
            raise
        except ValueError as error:
            raise self.bad("bad image", f"{part}: {error}") from None

    def bad(self, reason: str, detail: str) -> BadRowError:
        """Say what is wrong with this row."""
        return BadRowError(reason, self.place, detail)

    def _file(self, name: str) -> bytes:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()):
            raise ValueError(f"{name!r:.200} leads out of {self.folder}")
        return images.read_file(path)


class SourceRows(Protocol):
    """Rows in a fixed order; those that follow one another are read fastest."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __getitem__(self, number: int) -> SourceRow:
        """Read one.

        Raises:
            BadRowError: It cannot be read; the others can.
            ValueError: The file is damaged; names it.
        """
        ...
