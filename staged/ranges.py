"""Ranges of numbers in settings: one check, so that NaN and infinity pass nowhere.

A comparison with NaN is false, so `value < 0` lets it through; and what comes by a command line
rather than by YAML was read by `float`, which takes "nan" and "inf".
"""

import dataclasses
import math
from collections.abc import Collection, Mapping
from typing import Any, get_args

__all__ = ["check_choices", "check_finite", "check_range", "check_rates", "check_weights"]


def check_range(
    settings: object,
    *names: str,
    minimum: float,
    maximum: float = math.inf,
    above: bool = False,
    below: bool = False,
) -> None:
    """Require finite numbers from `minimum` to `maximum`, either end left out if so said.

    Args:
        settings: What holds the fields; one that is None is passed over.
        names: The fields; every number of one that is a tuple counts.
        minimum: Least value.
        maximum: Greatest value.
        above: Leave the minimum out.
        below: Leave the maximum out.

    Raises:
        ValueError: A field is out of range; names it and its value.
    """
    for name in names:
        field = getattr(settings, name)
        for value in field if isinstance(field, tuple) else (field,):
            if value is None:
                continue
            fits_low = value > minimum if above else value >= minimum
            fits_high = value < maximum if below else value <= maximum
            if not (fits_low and fits_high and math.isfinite(value)):
                wanted = f"more than {minimum}" if above else f"{minimum} or more"
                if maximum < math.inf:
                    wanted += f", {'below' if below else 'at most'} {maximum}"
                raise ValueError(f"{name} is {field}; give {wanted}")


def check_choices(settings: object, **kinds: Any) -> None:
    """Require each field to be one of the values of a `Literal`.

    Args:
        settings: What holds the fields.
        kinds: The `Literal` of each, by name.

    Raises:
        ValueError: A field is none of them; names it and them.
    """
    for name, kind in kinds.items():
        if getattr(settings, name) not in get_args(kind):
            expected = ", ".join(get_args(kind))
            raise ValueError(f"{name} is {getattr(settings, name)!r}; give one of {expected}")


def check_rates(settings: object, *names: str) -> None:
    """Require rates from 0 to 1 of what excludes one another, so of at most 1 in all.

    Args:
        settings: What holds the fields.
        names: The fields.

    Raises:
        ValueError: A rate, or their sum, is out of range.
    """
    check_range(settings, *names, minimum=0, maximum=1)
    total = math.fsum(getattr(settings, name) for name in names)
    if total > 1 + 1e-9:
        raise ValueError(f"the rates sum to {total:g}; expected at most 1")


def check_weights(what: str, weights: Mapping[str, float], names: Collection[str]) -> None:
    """Require weights of things that there are, none below 0, and one above at least.

    Args:
        what: Name of the field.
        weights: By name of the thing.
        names: What things there are.

    Raises:
        ValueError: They are none such; names the field.
    """
    unknown = sorted(set(weights) - set(names))
    if unknown:
        raise ValueError(f"{what}: no such {', '.join(unknown)}; there are {', '.join(names)}")
    if any(not weight >= 0 for weight in weights.values()):
        raise ValueError(f"{what}: weights must be 0 or more, got {dict(weights)}")
    if not any(weights.values()):
        raise ValueError(f"{what}: every weight is 0; give at least one some")


def check_finite(settings: Any) -> None:
    """Require every float among the fields of a dataclass to be finite, in tuples and dicts too.

    Raises:
        ValueError: NaN or an infinity; names the field.
    """
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        held = value.values() if isinstance(value, dict) else value
        for number in held if isinstance(value, dict | tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise ValueError(f"{item.name} is {value}; give a finite number")
