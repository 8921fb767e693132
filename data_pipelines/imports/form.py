"""What a form is: how a row of somebody else's data set becomes trajectories of ours."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any, Final, Protocol

from data_pipelines.rows import SourceRow
from staged import protocol
from staged.tables import ParquetFile
from staged.trajectory import Answer, ImageRef, Sketch, Step, Stop, Thought, Trajectory

_TAGS: Final = re.compile(r"</?think>")
_NUMBERED: Final = re.compile(r"(.+)_([0-9]{1,3})")


class Form(Protocol):
    """Reads the rows of one schema.

    Attributes:
        counting: Columns of a parquet file that `parts` needs; none where a row is one sample.
    """

    counting: Sequence[str]

    def columns(self, file: ParquetFile) -> Sequence[str]:
        """Choose the columns that are needed.

        Raises:
            ValueError: The file lacks one.
        """
        ...

    def parts(self, row: SourceRow) -> int:
        """Count the samples that a row makes; one at least.

        Raises:
            BadRowError: It cannot be read.
        """
        ...

    def trajectory(self, row: SourceRow, part: int, dice: random.Random) -> Trajectory:
        """Make one of a row's samples; its images are not decoded yet.

        Args:
            row: As it was read.
            part: Which of its samples.
            dice: Of this sample alone.

        Raises:
            BadRowError: The row does not hold what it must.
            ValueError: It does, and is no trajectory all the same.
        """
        ...


class OneSample:
    """What forms have in common whose rows make one sample each."""

    counting: Sequence[str] = ()

    def parts(self, row: SourceRow) -> int:
        """One."""
        return 1


def drawn(image: bytes, *before: Step) -> tuple[Step, ...]:
    """Steps to an image that is a target and no context: the stop is not learned."""
    return (*before, Sketch(image=ImageRef(png=image)), Stop(loss=False))


def answered(text: str, *before: Step) -> tuple[Step, ...]:
    """Steps to an answer."""
    return (*before, Answer(text=text), Stop(loss=False))


def thought(text: str, said: str = "") -> Thought:
    """A thought in its tags, with what is said after it; tags that stand in it are left out."""
    return Thought(text=f"{within_tags(text)}\n{said}".rstrip())


def within_tags(text: str) -> str:
    """Put a thought between the tags of BAGEL's thinking mode."""
    return f"<think>{_TAGS.sub('', text).strip()}</think>"


def numbered(names: Sequence[str], *stems: str) -> dict[int, str]:
    """Find fields such as `image_0` and `image_1`: number -> name, in the order of the numbers.

    Args:
        names: All there are.
        stems: What stands before the number, in whichever spelling.
    """
    found: dict[int, str] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match and match[1] in stems:
            found[int(match[2])] = name
    return dict(sorted(found.items()))


def refs(images: Sequence[bytes]) -> tuple[ImageRef, ...]:
    """Images as a trajectory has them, without names."""
    return tuple(ImageRef(png=image) for image in images)


def as_list(value: Any) -> list[Any]:
    """A list as it is, nothing as an empty one, and anything else as a list of itself."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def check_texts(trajectory: Trajectory, row: SourceRow) -> None:
    """Require that every text may stand in a sequence: it ends nothing, and begins no tag of ours.

    Raises:
        BadRowError: One may not.
    """
    texts = [("prompt", trajectory.prompt), ("system", trajectory.system)]
    for name, text in texts:
        try:
            if text is not None:
                protocol.check_text(text)
        except ValueError as error:
            raise row.bad(f"bad {name}", str(error)) from None
    for number, step in enumerate(trajectory.steps):
        if isinstance(step, Sketch | Stop):
            continue
        try:
            protocol.write(step)
        except ValueError as error:
            raise row.bad("bad text", f"step {number}: {error}") from None
