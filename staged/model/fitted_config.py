"""Sizes of a model that its weights show: trusted over its configuration files.

Published configurations are known to carry table sizes that their weights do not have.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from staged.model.config import AutoencoderConfig, BagelConfig
from staged.model.keys import to_upstream_key
from staged.model.named_tensors import FROZEN_TABLES


def fit_to_weights(
    config: BagelConfig,
    autoencoder: AutoencoderConfig,
    shapes: Mapping[str, tuple[int, ...]],
) -> BagelConfig:
    """Take sizes from the weights where they show them.

    Args:
        config: As the files have it.
        autoencoder: As `autoencoder_structure` has it.
        shapes: Of stored tensors, by upstream's name.

    Raises:
        ValueError: A shape that no such model can have; names the tensor.
    """
    changes: dict[str, Any] = {"autoencoder": autoencoder}
    for table, field in FROZEN_TABLES.items():
        shape = shapes.get(to_upstream_key(table))
        if shape is not None:
            changes[field] = _square_side(shape[0], to_upstream_key(table))
    latent_in = to_upstream_key("latent_in.weight")
    if latent_in in shapes:
        area, rest = divmod(shapes[latent_in][-1], autoencoder.latent_channels)
        if rest:
            raise ValueError(
                f"{latent_in} takes {shapes[latent_in][-1]} numbers a token, which the "
                f"autoencoder's {autoencoder.latent_channels} latent channels do not divide"
            )
        changes["latent_patch_size"] = _square_side(area, latent_in)
    learned = to_upstream_key("vision.position_embedding.weight")
    if learned in shapes:
        side = _square_side(shapes[learned][0], learned)
        changes["vision"] = dataclasses.replace(config.vision, positions_per_side=side)
    return dataclasses.replace(config, **changes)


def autoencoder_structure(
    shapes: Mapping[str, tuple[int, ...]], config: AutoencoderConfig, path: Path
) -> AutoencoderConfig:
    """Take from stored shapes all of an autoencoder's dimensions but its factors.

    Args:
        shapes: Of stored tensors, by FLUX's name.
        config: Its scaling and shift factors count alone.
        path: Where they are stored, for messages.

    Raises:
        ValueError: They are no FLUX autoencoder's.
    """
    try:
        channels = shapes["encoder.conv_in.weight"][0]
        widths: list[int] = []
        while (key := f"encoder.down.{len(widths)}.block.0.conv1.weight") in shapes:
            widths.append(shapes[key][0])
        num_blocks = 0
        while f"encoder.down.0.block.{num_blocks}.conv1.weight" in shapes:
            num_blocks += 1
        return dataclasses.replace(
            config,
            channels=channels,
            multipliers=tuple(width // channels for width in widths),
            num_blocks=num_blocks,
            latent_channels=shapes["decoder.conv_in.weight"][1],
        )
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is no FLUX autoencoder: {error!r} is missing or empty") from error


def _square_side(cells: int, key: str) -> int:
    side = math.isqrt(cells)
    if side * side != cells:
        raise ValueError(f"{key} covers {cells} cells, which is not a square grid")
    return side
