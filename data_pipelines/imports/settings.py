"""Settings of `staged data import`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from data_pipelines.imports.conversations import Turns
from data_pipelines.job_settings import JobSettings
from staged.ranges import check_range

FormName = Literal[
    "bagel-t2i", "bagel-edit", "conversations", "rows", "thinkmorph", "umm-reflection", "zebra-cot"
]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One data set of others."""

    path: Path
    """A parquet file or a folder of them; of `conversations` and `rows` also a file of JSON lines
    or of one JSON list."""
    format: FormName
    """`bagel-t2i`, `bagel-edit`: BAGEL's parquet files; `conversations`: LLaVA, ShareGPT, BAGEL's
    understanding data; `zebra-cot`, `thinkmorph`, `umm-reflection`: as they are on Hugging Face;
    `rows`: anything else, by `fields`."""
    fields: dict[str, str] = field(default_factory=dict)
    """Of `rows`: part of a sample (prompt, image, inputs, answer, thought, system, task) -> where a
    row has it, with dots between keys; parts that are not named are under their own names."""
    images: Path | None = None
    """Folder below which images lie that are named by paths; that of `path` by default."""
    turns: Turns = "each"
    """Of `conversations`: `each` makes a sample of each answer, with what was said before it in its
    prompt; `first` one of the first answer."""
    licence: str | None = None
    """Terms that the data carry; they are in every sample and on the card."""
    most: int | None = None
    """Samples to take at most, from the first on; null for all."""

    def __post_init__(self) -> None:
        """Check that every setting is of this format.

        Raises:
            ValueError: One is not.
        """
        if self.most is not None:
            check_range(self, "most", minimum=1)
        if self.fields and self.format != "rows":
            raise ValueError(f"fields are for rows, and {self.path} is {self.format}")
        if self.turns != "each" and self.format != "conversations":
            raise ValueError(f"turns are of conversations, and {self.path} is {self.format}")


FORMS = get_args(FormName)


@dataclass(frozen=True, kw_only=True)
class ImportJobSettings(JobSettings):
    """Data sets of others as trajectories."""

    title: str = "import"
    """Name of the data set."""
    sources: tuple[Source, ...] = ()
    """Data sets, one after another."""
    concurrency: int = 4
    """Samples whose images are decoded at a time; does not change the result."""
    count: int | None = None
    """Samples in all; found and filled in when the job begins."""

    @property
    def num_units(self) -> int:
        """Samples that the sources make, if all can be read."""
        assert self.count is not None, "filled in when the job begins"
        return self.count

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        data = super().deciding
        for source in data["sources"]:
            del source["path"], source["images"]  # what lies there is compared in the end
        return data
