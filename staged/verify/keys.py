"""Compare every name and shape of a full-size model with the published ones, without weights."""

from collections.abc import Mapping
from pathlib import Path

import torch

from staged import strict_json
from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.model.config_files import read_config
from staged.model.named_tensors import upstream_shapes

__all__ = ["verify_keys"]

_MAX_BYTES = 1 << 24


def verify_keys(keys: str | Path, config: str | Path) -> bool:
    """Build a model on the meta device and compare its names and shapes.

    Args:
        keys: JSON file: `model` and `ae`, each mapping a tensor's name to its shape.
        config: Folder with the published configuration files.

    Returns:
        Whether all names and shapes agree.

    Raises:
        ValueError: A file is missing or malformed.
    """
    expected = _read(Path(keys))
    sizes = read_config(config)
    with torch.device("meta"):
        found = {
            "model": upstream_shapes(Bagel(sizes)),
            "ae": upstream_shapes(Autoencoder(sizes.autoencoder)),
        }
    agreed = [_agree(part, found[part], expected[part]) for part in ("model", "ae")]
    return all(agreed)


def _agree(
    part: str,
    found: Mapping[str, tuple[int, ...]],
    expected: Mapping[str, tuple[int, ...]],
) -> bool:
    differing = [
        key for key in sorted(found.keys() | expected.keys()) if found.get(key) != expected.get(key)
    ]
    for key in differing:
        print(f"{part}: {key} is {_shape(found.get(key))}, expected {_shape(expected.get(key))}")
    agreeing = len(expected.keys() - set(differing))
    print(f"{part}: {agreeing} of {len(expected)} names and shapes agree")
    return not differing


def _shape(shape: tuple[int, ...] | None) -> str:
    return "absent" if shape is None else str(list(shape))


def _read(path: Path) -> dict[str, dict[str, tuple[int, ...]]]:
    document = strict_json.read(path, max_bytes=_MAX_BYTES, missing="")
    try:
        return {
            part: {key: tuple(shape) for key, shape in document[part].items()}
            for part in ("model", "ae")
        }
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}; expected `model` and `ae`") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path} does not list names and shapes: {error}") from error
