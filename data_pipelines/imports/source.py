"""The samples of data sets of others, numbered through."""

from __future__ import annotations

import hashlib
import random
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace

from data_pipelines.imports.bagel import BagelEditing, BagelTextToImage
from data_pipelines.imports.conversations import Conversations
from data_pipelines.imports.form import Form, check_texts
from data_pipelines.imports.interleaved import ThinkMorph, ZebraCot
from data_pipelines.imports.mapped import MappedRows
from data_pipelines.imports.reflection import UmmReflection
from data_pipelines.imports.settings import Source
from data_pipelines.rows import JsonRows, ParquetRows, SourceRow, SourceRows
from staged.jobs.progress import Progress
from staged.tables import BadRowError
from staged.trajectory import Trajectory

_JSON = ("conversations", "rows")


class Samples:
    """All samples of all sources; those that follow one another are read fastest.

    Args:
        sources: One after another.
        seed: Decides which of several captions is taken.

    Raises:
        ValueError: A file is damaged, or not of its format; names it.
        OSError: A file cannot be read.
    """

    def __init__(self, sources: Sequence[Source], seed: int) -> None:
        """Open the sources and count."""
        self._parts = [_Part(source, seed, number) for number, source in enumerate(sources)]
        self._ends: list[int] = []
        for part in self._parts:
            self._ends.append((self._ends[-1] if self._ends else 0) + len(part))

    def __len__(self) -> int:
        """Return how many there are in all."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, number: int) -> Trajectory:
        """Read one; its images are not decoded, and have no names.

        Raises:
            BadRowError: It is none; the others may be.
            ValueError: A file is damaged.
        """
        place = bisect_right(self._ends, number)
        return self._parts[place].sample(number - (self._ends[place - 1] if place else 0))


class _Part:
    """The samples of one source."""

    def __init__(self, source: Source, seed: int, number: int) -> None:
        self._source, self._seed = source, f"{seed}/{number}"
        self._form = _form(source)
        self._rows = _rows(source, self._form)
        self._starts = array("q")
        """Number of the first sample of each row; empty where each row has one."""
        samples = len(self._rows)
        if self._form.counting:
            samples = 0
            for row in self._counted():
                self._starts.append(samples)
                samples += self._count(row)
        self._samples = samples if source.most is None else min(samples, source.most)

    def __len__(self) -> int:
        return self._samples

    def sample(self, number: int) -> Trajectory:
        place, part = number, 0
        if self._starts:
            place = bisect_right(self._starts, number) - 1
            part = number - self._starts[place]
        row = self._rows[place]
        digest = hashlib.sha256(f"{self._seed}/{number}".encode()).digest()
        try:
            found = self._form.trajectory(row, part, random.Random(digest))
        except BadRowError:
            raise
        except ValueError as error:
            raise row.bad("bad trajectory", str(error)) from None
        check_texts(found, row)
        facts = {
            **found.provenance,
            "source": row.place.removeprefix(f"{self._source.path.parent}/"),
            "format": self._source.format,
            **({} if self._source.licence is None else {"licence": self._source.licence}),
        }
        return replace(found, provenance=facts)

    def _counted(self) -> Iterable[SourceRow | BadRowError]:
        if isinstance(self._rows, ParquetRows):
            return self._rows.scan(self._form.counting)
        return _all(self._rows, f"counting {self._source.path}")

    def _count(self, row: SourceRow | BadRowError) -> int:
        """Count a row's samples; one that cannot be read is one, and says so when it is read."""
        if isinstance(row, BadRowError):
            return 1
        try:
            return self._form.parts(row)
        except BadRowError:
            return 1


def _all(rows: SourceRows, label: str) -> Iterable[SourceRow | BadRowError]:
    progress = Progress(label, len(rows), unit="rows/s")
    for number in range(len(rows)):
        try:
            yield rows[number]
        except BadRowError as error:
            yield error
        progress.advance()
    progress.close()


def _form(source: Source) -> Form:
    match source.format:
        case "bagel-t2i":
            return BagelTextToImage()
        case "bagel-edit":
            return BagelEditing()
        case "conversations":
            return Conversations(source.turns)
        case "rows":
            return MappedRows(source.fields)
        case "thinkmorph":
            return ThinkMorph()
        case "umm-reflection":
            return UmmReflection()
        case "zebra-cot":
            return ZebraCot()


def _rows(source: Source, form: Form) -> SourceRows:
    path = source.path
    is_parquet = path.is_dir() or path.suffix == ".parquet"
    if source.format in _JSON and not is_parquet:
        return JsonRows(path, source.images)
    return ParquetRows(path, form.columns, source.images)
