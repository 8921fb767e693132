"""Where each tensor of a checkpoint lies on the disk, whoever wrote it.

Trainers wrap models, and their wrappers' names come to stand before the published ones; some split
files and some leave no index; some store what can be computed. What the published names say is
found under all of that, and what they do not say keeps its own name, by which it is then refused.
Only safetensors is read: other formats can run code when opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from staged import strict_json
from staged.model.keys import from_upstream_key, to_upstream_key
from staged.model.weights import listed

__all__ = ["AUTOENCODER", "WEIGHTS", "StoredWeights", "as_published"]

WEIGHTS = ("ema.safetensors", "model.safetensors")
AUTOENCODER = "ae.safetensors"

_UNSAFE_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".distcp")
_MAX_INDEX_BYTES = 1 << 24
_PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
_WRAPPERS = frozenset(
    ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
)
"""What torch.compile, FSDP and their like put between the parts of a name."""
_PREFIXES = ("module.", "base_model.model.", "model.", "ema_model.", "ema.", "bagel.")
"""What DDP, PEFT and trainers' own classes put before a name."""
_COMPUTED = re.compile(r"(.*\.)?(rotary_emb\.inv_freq|embeddings\.position_ids)")
"""Buffers of other implementations that follow from the configuration."""
_UNMERGED = re.compile(r".*\.(lora_[AB]|lora_embedding_[AB]|base_layer)\..*")


@dataclass(frozen=True, kw_only=True)
class StoredWeights:
    """The tensors of a checkpoint, by their published names; the data stays on the disk.

    Attributes:
        place: What was read, for messages.
        files: Where each lies.
        names: What each is called there.
        shapes: As published, however it is stored.
        types: Stored types, by safetensors' names.
    """

    place: str
    files: Mapping[str, Path]
    names: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]

    @classmethod
    def find(cls, folder: Path) -> StoredWeights:
        """Look for the weights of a model in a folder.

        In this order: averaged ones in one file or with an index, then others, then files of parts
        without an index, then a lone file of any name.

        Raises:
            ValueError: There are none, some are damaged, or what they are called is ambiguous.
        """
        # Where upstream trained, both lie side by side; the averaged ones are what it publishes.
        for name in WEIGHTS:
            if (folder / name).is_file():
                return cls._named(str(folder), _header(folder / name))
            if (folder / f"{name}.index.json").is_file():
                return cls._of_index(folder / f"{name}.index.json")
        others = sorted(path for path in folder.glob("*.safetensors") if path.name != AUTOENCODER)
        parts = [path for path in others if _PART.fullmatch(path.name)]
        if parts:
            return cls._of_parts(folder, parts)
        if len(others) == 1:
            return cls._named(str(folder), _header(others[0]))
        raise ValueError(_none_there(folder, others))

    @classmethod
    def of_autoencoder(cls, path: Path) -> StoredWeights:
        """Read the header of a file as it stands."""
        stored = _header(path)
        return cls(
            place=str(path),
            files={name: tensor.file for name, tensor in stored.items()},
            names={name: name for name in stored},
            shapes={name: tensor.shape for name, tensor in stored.items()},
            types={name: tensor.type for name, tensor in stored.items()},
        )

    @property
    def num_bytes(self) -> int:
        """Of the files that they lie in."""
        return sum(path.stat().st_size for path in set(self.files.values()))

    @contextmanager
    def reader(self) -> Iterator[Callable[[str], Tensor]]:
        """Open what is needed, one file at a time.

        Yields:
            Reads a tensor by its published name, in the shape in which it is published.
        """
        opened: dict[Path, object] = {}

        def read(key: str) -> Tensor:
            path = self.files[key]
            if path not in opened:
                opened.clear()
                opened[path] = safe_open(path, framework="pt")
            tensor: Tensor = opened[path].get_tensor(self.names[key])  # type: ignore[attr-defined]
            return as_published(key, tensor)

        try:
            yield read
        finally:
            opened.clear()

    @classmethod
    def _of_index(cls, path: Path) -> StoredWeights:
        listed_there = _read_index(path)
        stored: dict[str, _Stored] = {}
        for name in sorted(set(listed_there.values())):
            stored |= _header(path.parent / name)
        said = {key: path.parent / name for key, name in listed_there.items()}
        if said != {key: tensor.file for key, tensor in stored.items()}:
            stray = sorted(
                key
                for key in said.keys() | stored
                if key not in said or key not in stored or said[key] != stored[key].file
            )
            raise ValueError(f"{path} and its shards disagree on {listed(stray)}")
        return cls._named(str(path.parent), stored)

    @classmethod
    def _of_parts(cls, folder: Path, parts: list[Path]) -> StoredWeights:
        """Read files of parts that no index binds together, if their numbers say they are all."""
        matches = [match for path in parts if (match := _PART.fullmatch(path.name))]
        groups = {(match["stem"], match["count"]) for match in matches}
        if len(groups) > 1:
            raise ValueError(
                f"{folder} holds parts of several sets of weights, and no index: "
                f"{listed(path.name for path in parts)}; keep one of them"
            )
        [(stem, count)] = groups
        there = {int(match["number"]) for match in matches}
        if missing := sorted(set(range(1, int(count) + 1)) - there):
            raise ValueError(
                f"{folder} lacks {len(missing)} of {int(count)} parts of {stem}: number "
                f"{listed(map(str, missing))}"
            )
        stored: dict[str, _Stored] = {}
        for path in parts:
            header = _header(path)
            if both := sorted(stored.keys() & header.keys()):
                raise ValueError(f"{folder} has {listed(both)} in several parts")
            stored |= header
        return cls._named(str(folder), stored)

    @classmethod
    def _named(cls, place: str, stored: Mapping[str, _Stored]) -> StoredWeights:
        """Find the published names."""
        names: dict[str, str] = {}
        unmerged = []
        for name in stored:
            published = _published(name)
            if _COMPUTED.fullmatch(name) and not _is_published(published):
                continue
            if _UNMERGED.fullmatch(name):
                unmerged.append(name)
            if published in names:
                raise ValueError(
                    f"{place} has {names[published]} and {name}, which are one tensor of the "
                    f"model, {published}; keep one of them"
                )
            names[published] = name
        if unmerged:
            raise ValueError(
                f"{place} holds a model with a LoRA that is not merged into it "
                f"({len(unmerged)} tensors, such as {min(unmerged)}); merge it with the tool that "
                "wrote it, or save model and LoRA apart"
            )
        return cls(
            place=place,
            files={key: stored[name].file for key, name in names.items()},
            names=names,
            shapes={key: _published_shape(key, stored[name].shape) for key, name in names.items()},
            types={key: stored[name].type for key, name in names.items()},
        )


def as_published(key: str, tensor: Tensor) -> Tensor:
    """A stored tensor as it is published: an embedding of patches as a matrix, not a convolution.

    Args:
        key: Published name.
        tensor: As stored.
    """
    if key == _PATCHES and tensor.ndim == 4:
        return tensor.permute(0, 2, 3, 1).flatten(1)  # channels last, as patches are flattened
    return tensor


_PATCHES = to_upstream_key("vision.patch_embedding.weight")


def _published_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if key == _PATCHES and len(shape) == 4:
        return (shape[0], shape[1] * shape[2] * shape[3])
    return shape


def _published(name: str) -> str:
    """The published name in one that wrappers have lengthened; itself where there is none."""
    found = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    while not _is_published(found):
        prefix = next((prefix for prefix in _PREFIXES if found.startswith(prefix)), None)
        if prefix is None:
            return name
        found = found.removeprefix(prefix)
    return found


def _is_published(name: str) -> bool:
    try:
        from_upstream_key(name)
    except ValueError:
        return False
    return True


def _none_there(folder: Path, others: list[Path]) -> str:
    if others:
        return (
            f"{folder} has several files of weights, none of them {' or '.join(WEIGHTS)}: "
            f"{listed(path.name for path in others)}; give the right one that name"
        )
    unsafe = sorted(path.name for path in folder.iterdir() if path.suffix in _UNSAFE_SUFFIXES)
    if unsafe:
        return (
            f"{folder} has weights only as {listed(unsafe)}; such files can run code when "
            f"opened and are not read. Convert them to {WEIGHTS[0]}"
        )
    if (folder / "checkpoint").is_dir():
        return f"{folder} is the folder of a run; its checkpoint is {folder / 'checkpoint'}"
    if (folder / "adapter").is_dir():
        return f"{folder} is the folder of a run; its LoRA is {folder / 'adapter'}"
    if (folder / "state").is_dir():
        return (
            f"{folder} is the folder of a run that has not ended; `staged train` with its settings "
            "and --export writes the checkpoint of its newest state"
        )
    return f"{folder} has neither {' nor '.join(WEIGHTS)} nor an index of shards"


def _read_index(path: Path) -> dict[str, str]:
    index = strict_json.read(path, max_bytes=_MAX_INDEX_BYTES)
    try:
        pairs = dict(index["weight_map"].items())
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not an index of shards: {error!r}") from error
    for name in pairs.values():
        # A shard lies beside its index; a path could lead anywhere.
        if (
            not isinstance(name, str)
            or Path(name).name != name
            or not name.endswith(".safetensors")
        ):
            raise ValueError(f"{path} names {name!r}, which is no safetensors file beside it")
    return pairs


class _Stored(NamedTuple):
    """Where a tensor lies, and what its file's header says of it."""

    file: Path
    shape: tuple[int, ...]
    type: str


def load_tensors(path: Path, *, missing: str = "") -> dict[str, Tensor]:
    """Read all tensors of a file.

    Args:
        path: Of safetensors.
        missing: Said after "PATH is missing" where it is.

    Raises:
        ValueError: It is missing or damaged.
    """
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing{missing}") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable safetensors file: {error}") from error


def _header(path: Path) -> dict[str, _Stored]:
    """What a file holds, by the names that stand there."""
    try:
        with safe_open(path, framework="pt") as file:
            found = {}
            for key in file.keys():  # noqa: SIM118
                tensor = file.get_slice(key)
                found[key] = _Stored(path, tuple(tensor.get_shape()), tensor.get_dtype())
            return found
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no readable safetensors file: {error}") from error
