"""Settings of `staged data refine`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from data_pipelines.job_settings import AskingJobSettings
from data_pipelines.refine.genref import SUBSETS
from staged.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """One source of triples."""

    path: Path
    """Folder of tars (`genref`), file of JSON lines, or data set of ours."""
    format: Literal["genref", "json-lines", "trajectories"]
    """`genref`: WebDataset tars as GenRef has them; `json-lines`: any fields; `trajectories`: what
    our own pipelines refused and mended."""
    fields: dict[str, str] = field(default_factory=dict)
    """Of JSON lines: part of a triple (prompt, good, bad, reflection, subset) -> where a line has
    it, with dots between keys; parts that are not named are under their own names."""
    subsets: tuple[str, ...] = SUBSETS
    """Of GenRef: which to take."""
    most: int | None = None
    """Triples to take at most, from the first on; null for all."""

    def __post_init__(self) -> None:
        """Check that every setting is of this format.

        Raises:
            ValueError: one is not, or a subset is unknown.
        """
        if self.most is not None:
            check_range(self, "most", minimum=1)
        if self.fields and self.format != "json-lines":
            raise ValueError(f"fields are for json-lines, and {self.path} is {self.format}")
        if set(self.subsets) != set(SUBSETS) and self.format != "genref":
            raise ValueError(f"subsets are GenRef's, and {self.path} is {self.format}")
        unknown = set(self.subsets) - set(SUBSETS)
        if unknown or not self.subsets:
            raise ValueError(
                f"subsets: {', '.join(sorted(unknown)) or 'none'}; GenRef has {', '.join(SUBSETS)}"
            )


@dataclass(frozen=True, kw_only=True)
class RefineSettings(AskingJobSettings):
    """A data set of images that are explained, or corrected into better ones."""

    title: str = "refine"
    """Name of the data set."""
    sources: tuple[ImportSettings, ...] = ()
    """Where triples come from; more may be added at the end later."""
    count: int | None = None
    """Triples in all; null takes what the sources have, and is then filled in."""
    aligned: float = 0.333
    """Share of samples in which an image that fits is explained; in the others one that does not is
    corrected. 5,000 of 15,000 in the published data set."""
    explain_mended: float = 0.0
    """Share of corrected samples in which the better image is explained as well."""
    plan: Literal["none", "prompt"] = "none"
    """Whether the prompt stands before the first image as a plan too, for a model that always
    plans."""

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_range(self, "aligned", "explain_mended", minimum=0, maximum=1)
        if self.count is not None:
            check_range(self, "count", minimum=1)

    @property
    def num_units(self) -> int:
        """Triples, each of which becomes one trajectory."""
        assert self.count is not None, "filled in when the job begins"
        return self.count

    @property
    def deciding(self) -> dict[str, Any]:
        """What decides the samples, as plain data."""
        data = super().deciding
        # A list that grows at its end grows the data set; a prompt that has changed is found out.
        del data["count"], data["sources"]
        return data
