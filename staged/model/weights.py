"""Weights that others wrote: used whole, in their shapes, as numbers, or refused by name.

A library that finds a tensor missing draws it at random and goes on; one that finds too many drops
them. Either way something else runs than was asked for, and says so in a log at most.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from staged.first_line import first_line
from staged.model.finite import all_finite

__all__ = [
    "check_finite_weights",
    "check_names",
    "check_real",
    "check_weights",
    "listed",
    "load_pretrained",
]

Shapes = Mapping[str, tuple[int, ...]]

_REAL = re.compile(r"B?F[0-9]+(_.*)?")
"""Of the format's types, those of real numbers."""
_MAX_LISTED = 12  # names of each kind that an error message spells out


def check_weights(
    place: str, found: Mapping[str, Tensor], expected: Shapes, *, optional: Collection[str] = ()
) -> None:
    """Require tensors to be exactly those that are expected, and finite; see `check_names`."""
    shapes = {name: tuple(tensor.shape) for name, tensor in found.items()}
    check_names(place, shapes, expected, optional=optional)
    check_finite_weights(place, found)


def check_names(
    place: str, found: Shapes, expected: Shapes, *, optional: Collection[str] = ()
) -> None:
    """Require names and shapes to be those that are expected.

    Args:
        place: Where they were found, for the message.
        found: Name to shape.
        expected: Name to shape.
        optional: Names of `expected` that need not be found.

    Raises:
        ValueError: One error that lists all that are missing, unexpected or of another shape.
    """
    shared = sorted(expected.keys() & found.keys())
    _refuse(
        place,
        missing=expected.keys() - found.keys() - set(optional),
        unexpected=found.keys() - expected.keys(),
        reshaped=[
            f"{name} {list(found[name])}, expected {list(expected[name])}"
            for name in shared
            if tuple(found[name]) != tuple(expected[name])
        ],
    )


def check_real(place: str, types: Mapping[str, str]) -> None:
    """Require weights to be stored as real numbers, of whatever width.

    Integers are numbers that something multiplied; without it they would pass for weights.

    Args:
        place: Where they were found, for the message.
        types: Name to stored type, by safetensors' names.

    Raises:
        ValueError: One error that lists all that are not.
    """
    whole = sorted(f"{name} ({of})" for name, of in types.items() if not _REAL.fullmatch(of))
    if whole:
        raise ValueError(
            f"{place} holds weights that were rounded to integers, {len(whole)} of them: "
            f"{listed(whole)}. Their scales are not read; take the checkpoint as it was before, "
            "which --quantization rounds as it is read"
        )


def check_finite_weights(place: str, tensors: Mapping[str, Tensor]) -> None:
    """Require every number of every tensor to be finite.

    Each is passed over once, on its device; a device is waited for once.

    Raises:
        ValueError: Names those that hold NaN or infinities.
    """
    flags: dict[torch.device, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        flags.setdefault(tensor.device, {})[name] = all_finite(tensor)
    bad: list[str] = []
    for on_device in flags.values():
        good = torch.stack(list(on_device.values())).tolist()
        bad += [name for name, finite in zip(on_device, good, strict=True) if not finite]
    _refuse(place, not_finite=bad)


def load_pretrained(
    kind: Any, source: str | Path, *, what: str, computed: str = r"(?!)", **arguments: Any
) -> Any:
    """Load a model of transformers or diffusers from safetensors, all of it or not at all.

    Weights that the model's configuration ties to others need not be in the file.

    Args:
        kind: The class, with `from_pretrained`.
        source: Folder or Hub id.
        what: What it is, for messages: `CLIP model`.
        computed: Pattern of names that the model computes itself, and that may be missing or be
            left over.
        arguments: For `from_pretrained`.

    Raises:
        ValueError: There is no such model in safetensors (pickled weights can run code, and are
            not read), or tensors are missing, unexpected, of another shape or not finite.
    """
    try:
        model, report = kind.from_pretrained(
            str(source),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, with the others, instead of raised first
            **arguments,
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{source}: no {what} there that can be read; weights are read from safetensors "
            f"only, since pickled ones can run code: {first_line(error)}"
        ) from None
    place = str(Path(str(source)) / arguments.get("subfolder", ""))
    ours = re.compile(computed)
    tensors = tensors_of(model)
    # What is still on the meta device has no numbers, whatever the report says.
    missing = {*report["missing_keys"], *(n for n, tensor in tensors.items() if tensor.is_meta)}
    _refuse(
        place,
        missing=[name for name in missing if not ours.search(name)],
        unexpected=[name for name in report["unexpected_keys"] if not ours.search(name)],
        reshaped=[
            f"{name} {list(found)}, expected {list(expected)}"
            for name, found, expected in report["mismatched_keys"]
        ],
        unread=map(str, report.get("error_msgs", ())),
    )
    check_finite_weights(place, tensors)
    return model


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Name the parameters and buffers of a module, ties once."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def listed(names: Iterable[str]) -> str:
    """Spell out the first names, and count the others."""
    names = list(names)
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return ", ".join(names[:_MAX_LISTED]) + more


def _refuse(
    place: str,
    *,
    missing: Iterable[str] = (),
    unexpected: Iterable[str] = (),
    reshaped: Iterable[str] = (),
    not_finite: Iterable[str] = (),
    unread: Iterable[str] = (),
) -> None:
    """Raise one error over everything that is wrong with the weights of a place, if anything is."""
    kinds = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": reshaped,
        "not finite (NaN or infinite)": not_finite,
        "not read": unread,
    }
    named = {kind: sorted(names) for kind, names in kinds.items()}
    problems = [f"{len(names)} {kind}: {listed(names)}" for kind, names in named.items() if names]
    if problems:
        raise ValueError(
            f"{place} does not hold the weights of this model; tensors " + "; ".join(problems)
        )
