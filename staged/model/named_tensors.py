"""The tensors of a module as they are published: which are stored, their names, their shapes."""

from typing import Final

from torch import Tensor, nn

from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.model.config import BagelConfig
from staged.model.keys import to_upstream_key
from staged.model.stored_weights import StoredWeights
from staged.model.weights import check_names, check_real

FROZEN_TABLES: Final = {
    "latent_positions": "max_latent_size",
    "vision_positions": "vit_max_patches_per_side",
}
"""Tables that can be computed, by our name, with the setting that says their side in tokens."""


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and the frozen tables, which are checkpointed even if they are plain buffers."""
    tables = {name: b for name, b in module.named_buffers() if name in FROZEN_TABLES}
    return {name: p.detach() for name, p in module.named_parameters()} | tables


def upstream_shapes(module: Bagel | Autoencoder) -> dict[str, tuple[int, ...]]:
    """Upstream's name and shape of every tensor of a module, which may be on the meta device."""
    named = to_upstream_key if isinstance(module, Bagel) else str
    return {named(name): tuple(tensor.shape) for name, tensor in stored_tensors(module).items()}


def check_stored(weights: StoredWeights, model: Bagel) -> dict[str, tuple[int, ...]]:
    """Require stored tensors to be those of a model, save the tables that can be computed.

    Args:
        weights: What is there.
        model: May be on meta.

    Returns:
        Upstream's name and shape of every tensor of the model.

    Raises:
        ValueError: One error that lists all that are missing, unexpected or of another shape, or
            else all that are no real numbers.
    """
    expected = upstream_shapes(model)
    optional = {to_upstream_key(table) for table in FROZEN_TABLES}
    check_names(weights.place, weights.shapes, expected, optional=optional)
    check_real(weights.place, weights.types)
    return expected


def table_sides(config: BagelConfig) -> dict[str, int]:
    """Sides of the frozen tables, in tokens, by our name."""
    return {table: getattr(config, side) for table, side in FROZEN_TABLES.items()}
