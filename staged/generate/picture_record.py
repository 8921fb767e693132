"""How a picture came about, kept in the picture itself, so that the file alone restores its run.

JSON in a text chunk of the PNG: the prompt, the steps up to the picture, the seed, settings, the
checkpoint's name and the hash of its weights. Images, also the picture, are known there by the
hash of their pixels. It comes from anywhere, so reading it is strict, and it has no say in which
files are opened, which weights are loaded, or who is asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Self

from staged import images, strict_json
from staged.generate.settings import DrawSettings
from staged.png_text import png_text, with_png_text
from staged.settings import to_dict
from staged.trajectory import ImageRef, Sketch, Step, Trajectory

KEYWORD: Final = "staged"
FORMAT: Final = "staged-picture/1"
MAX_RECORD_BYTES: Final = 2**20
_MAX_CHARS: Final = MAX_RECORD_BYTES // 4
"""Of a record that is written, so that it can be read in any script."""
_APART: Final = ("checkpoint", "lora", "device", "lmm", "lmm_budget_usd")
"""Settings that say where things are on one machine, or who is asked and paid."""
_CARRIED: Final = frozenset(f.name for f in fields(DrawSettings)) - {*_APART}


@dataclass(frozen=True, kw_only=True)
class PictureRecord:
    """How a picture came about.

    Attributes:
        trajectory: Up to the picture, which is its last step. Images have names alone, which
            `pixels_name` gives them.
        seed: Of the trajectory.
        settings: How it was drawn, as plain data.
        checkpoint: Name of the model: a shipped miniature, or the last part of any other's name.
        weights: SHA-256 (hex) of the model's tensors.
        id: The trajectory's name on the server that drew it.
    """

    trajectory: Trajectory
    seed: int
    settings: Mapping[str, Any]
    checkpoint: str
    weights: str | None = None
    id: str | None = None

    def to_json(self) -> str:
        """Serialise; see `from_json`."""
        optional = {"weights": self.weights, "id": self.id}
        return strict_json.dumps(
            {
                "format": FORMAT,
                "trajectory": self.trajectory.to_dict(),
                "seed": self.seed,
                "settings": dict(self.settings),
                "checkpoint": self.checkpoint,
                **{name: value for name, value in optional.items() if value is not None},
            }
        )

    @classmethod
    def from_json(cls, text: str) -> PictureRecord:
        """Read strictly what anybody may have written.

        Raises:
            ValueError: It is not what `to_json` writes; says where.
        """
        data = strict_json.record(
            strict_json.loads(text, place="record", max_bytes=MAX_RECORD_BYTES),
            "record",
            {"format": str, "trajectory": dict, "seed": int, "settings": dict, "checkpoint": str},
            {"weights": str, "id": str},
        )
        if data["format"] != FORMAT:
            raise ValueError(f"record.format: {data['format']!r:.40} is not {FORMAT!r}")
        if not 0 <= data["seed"] <= strict_json.MAX_INT:
            raise ValueError(f"record.seed: {data['seed']} is out of range")
        unknown = sorted(data["settings"].keys() - _CARRIED)
        if unknown:
            raise ValueError(f"record.settings: {unknown[0]!r:.80} is none that a picture carries")
        trajectory = Trajectory.from_dict(data["trajectory"])
        if not trajectory.steps or not isinstance(trajectory.steps[-1], Sketch):
            raise ValueError("record.trajectory: its last step is no picture")
        return cls(
            trajectory=replace(trajectory, provenance={}),
            seed=data["seed"],
            settings=strict_json.checked(data["settings"], "record.settings"),
            checkpoint=data["checkpoint"],
            weights=data.get("weights"),
            id=data.get("id"),
        )


@dataclass(frozen=True, kw_only=True)
class PictureOrigin:
    """What the pictures of a run have in common; see `PictureRecord` for the fields."""

    settings: Mapping[str, Any]
    checkpoint: str
    seed: int
    weights: str | None = None
    id: str | None = None

    @classmethod
    def of(cls, settings: DrawSettings, *, seed: int, weights: str | None = None) -> Self:
        """Take of settings what a picture carries.

        Args:
            settings: Resolved.
            seed: Of the trajectory.
            weights: SHA-256 (hex) of the model's tensors.
        """
        return cls(
            settings=carried(settings),
            checkpoint=public_name(settings.checkpoint),
            seed=seed,
            weights=weights,
        )

    def put_into(self, trajectory: Trajectory) -> Trajectory:
        """Let every sketch of a trajectory carry how it came about; others than PNG stay.

        Args:
            trajectory: Its images are loaded.
        """
        named = trajectory.with_images(
            [replace(ref, name=pixels_name(ref)) for ref in trajectory.images]
        )
        named = replace(named, task=None, scene_graph=None, provenance={})
        steps: list[Step] = []
        for place, step in enumerate(trajectory.steps):
            if isinstance(step, Sketch):
                upto = replace(named, steps=named.steps[: place + 1])
                png = self.put_into_picture(step.image, upto)
                step = replace(step, image=replace(step.image, png=png))
            steps.append(step)
        return replace(trajectory, steps=tuple(steps))

    def put_into_picture(self, image: ImageRef, upto: Trajectory) -> bytes:
        """Let one picture carry how it came about.

        Args:
            image: The picture, loaded.
            upto: The steps up to it, images named as `pixels_name` does.
        """
        png = image.loaded
        if images.probe(png)[0] != "png":
            return png
        text = PictureRecord(trajectory=upto, **vars(self)).to_json()
        # Beyond what would be read again; some thousand long steps.
        return with_png_text(png, KEYWORD, text) if len(text) < _MAX_CHARS else png


def read_record(path: Path) -> tuple[PictureRecord, ImageRef]:
    """Read a picture and what it carries.

    Raises:
        ValueError: See `record_in`. Names the file.
    """
    image = ImageRef(png=images.read_file(path))
    try:
        return record_in(image), image
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def record_in(image: ImageRef) -> PictureRecord:
    """Read what a picture carries.

    Raises:
        ValueError: It is no picture, carries nothing, or something else; or its pixels are not
            those that it speaks of.
    """
    found = pixels_name(image)
    text = png_text(image.png or b"", KEYWORD, max_bytes=MAX_RECORD_BYTES)
    if text is None:
        raise ValueError(
            "it does not say how it was drawn: staged writes that into its own PNGs, and programs "
            "that convert or shrink a picture leave it out"
        )
    record = PictureRecord.from_json(text)
    if record.trajectory.images[-1].name != found:
        raise ValueError("it was changed since it was drawn: its pixels are others")
    return record


def pixels_name(image: ImageRef) -> str:
    """Name an image by its pixels: 64 hexadecimal digits and `.png`, however it is encoded."""
    pixels = image.array()
    digest = hashlib.sha256(f"{pixels.shape[0]} {pixels.shape[1]} ".encode())
    digest.update(pixels.tobytes())
    return f"{digest.hexdigest()}.png"


def carried(settings: DrawSettings) -> dict[str, Any]:
    """Settings that a picture carries, as plain data."""
    plain = to_dict(settings)
    return {name: plain[name] for name in sorted(_CARRIED)}


def public_name(checkpoint: str) -> str:
    """A checkpoint's name without the folders that it lies in on this machine."""
    if checkpoint.startswith("miniature:"):
        return checkpoint
    return Path(checkpoint).name[:200] or "checkpoint"
