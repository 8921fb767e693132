"""Load and save BAGEL checkpoints in the published layout; see `checkpoint_folders`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from staged.jobs.files import whole_folder
from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.model.checkpoint_folders import CheckpointFolders, Facts, folders_of, look
from staged.model.codec import ImageCodec
from staged.model.config import AutoencoderConfig, BagelConfig
from staged.model.config_files import read_config, write_config
from staged.model.division import Division, Undivided
from staged.model.fitted_config import autoencoder_structure, fit_to_weights
from staged.model.flows import Flows, read_flows, write_flows
from staged.model.keys import from_upstream_key, to_upstream_key
from staged.model.named_tensors import (
    FROZEN_TABLES,
    check_stored,
    stored_tensors,
    table_sides,
    upstream_shapes,
)
from staged.model.positions import sincos_table
from staged.model.quantizations import Quantization
from staged.model.quantized import (
    QuantizedLinear,
    quantize_experts,
    quantized_layers,
    refuse_quantized,
    require_undivided,
)
from staged.model.safetensors_writer import require_written, write_safetensors
from staged.model.stored_weights import AUTOENCODER, WEIGHTS, StoredWeights, as_published
from staged.model.tokenizer import BagelTokenizer
from staged.model.weights import check_finite_weights, check_names, check_real, check_weights

__all__ = [
    "FROZEN_TABLES",
    "CheckpointFolders",
    "Facts",
    "LoadedBagel",
    "folders_of",
    "load",
    "load_autoencoder",
    "load_tokenizer",
    "look",
    "save",
    "save_autoencoder",
]

_TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


@dataclass(frozen=True, kw_only=True)
class LoadedBagel:
    """Everything a checkpoint folder holds.

    Attributes:
        model: The unified model, in evaluation mode.
        autoencoder: The VAE, in evaluation mode.
        tokenizer: The folder's tokenizer, or None where it has none.
        config: Dimensions, corrected by what the weights show.
        folder: Where it was read from.
        flows: How its pictures are drawn.
    """

    model: Bagel
    autoencoder: Autoencoder
    tokenizer: BagelTokenizer | None
    config: BagelConfig
    folder: Path
    flows: Flows

    @property
    def codec(self) -> ImageCodec:
        """The autoencoder with the sizes in which the model reads images."""
        return ImageCodec(self.autoencoder, self.config)


def load(
    source: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    config: BagelConfig | None = None,
    autoencoder_folder: str | Path | None = None,
    revision: str | None = None,
    division: Division | None = None,
    quantization: Quantization = "none",
) -> LoadedBagel:
    """Read a checkpoint, tensor by tensor: memory stays at the model plus one tensor.

    Args:
        source: A folder, or a Hub id such as ``ByteDance-Seed/BAGEL-7B-MoT``; ``HF_HUB_OFFLINE``
            is respected.
        device: Where the weights go.
        dtype: Type of the model's weights in memory, from the first tensor on; the autoencoder,
            whose rounding would show in every picture, stays in float32.
        config: Dimensions; read from the folder when not given.
        autoencoder_folder: Where ``ae.safetensors`` lies, if not beside the weights: models that
            share one need not each carry it.
        revision: Hub revision.
        division: Of the model among processes; each reads its rows of every tensor alone.
        quantization: To what weights of the experts are rounded, each as it is read, from the
            precision in which it is stored. Not with a division.

    Returns:
        Model, autoencoder, tokenizer and configuration.

    Raises:
        ValueError: The source is missing or no safetensors checkpoint, or its tensors do not fit
            the configuration (one error that lists them all), or they cannot be rounded so, or
            not with a division.
    """
    require_undivided(quantization, division)
    found = folders_of(source, autoencoder_folder=autoencoder_folder, revision=revision)
    folder = found.weights
    weights = StoredWeights.find(folder)
    if config is None:
        found.require()
        config = read_config(folder)
    autoencoder = load_autoencoder(found.autoencoder, config.autoencoder, device=device)
    config = fit_to_weights(config, autoencoder.config, weights.shapes)
    # Nothing is allocated, or drawn at random, for the file to replace.
    with torch.device("meta"):
        model = Bagel(config)
    check_stored(weights, model)
    division = division or Undivided()
    # The type first: on meta it costs nothing, and float32 afterwards would have been twice the
    # memory of bfloat16, on the device, for a moment.
    model.to(dtype)
    quantize_experts(model, quantization)
    division.apply(model)
    _allocate(model, device)
    targets = stored_tensors(model)
    named = {upstream: targets[from_upstream_key(upstream)] for upstream in weights.shapes}
    _copy(weights, named, str(folder), division, quantized=_quantized(model))
    for table, side in table_sides(config).items():
        if to_upstream_key(table) not in weights.shapes:
            targets[table].copy_(sincos_table(config.transformer.hidden_size, side))
    return LoadedBagel(
        model=model.eval(),
        autoencoder=autoencoder,
        tokenizer=load_tokenizer(folder, config.transformer.vocab_size),
        config=config,
        folder=folder,
        flows=read_flows(folder),
    )


def load_autoencoder(
    folder: str | Path,
    config: AutoencoderConfig,
    *,
    device: str | torch.device = "cpu",
) -> Autoencoder:
    """Read ``ae.safetensors``; its structure is taken from the weights.

    Args:
        folder: Checkpoint folder.
        config: Only its scaling and shift factors count: the weights show the rest.
        device: Where the weights go.

    Returns:
        The autoencoder, in float32 and evaluation mode.

    Raises:
        ValueError: The file is missing or damaged, or is no FLUX autoencoder.
    """
    path = Path(folder) / AUTOENCODER
    weights = StoredWeights.of_autoencoder(path)
    config = autoencoder_structure(weights.shapes, config, path)
    with torch.device("meta"):
        autoencoder = Autoencoder(config)
    expected = upstream_shapes(autoencoder)
    check_names(str(path), weights.shapes, expected)
    check_real(str(path), weights.types)
    _allocate(autoencoder.float(), device)
    targets = stored_tensors(autoencoder)
    _copy(weights, {name: targets[name] for name in weights.shapes}, str(path), Undivided())
    return autoencoder.eval()


def _allocate(module: nn.Module, device: str | torch.device) -> None:
    """Give a module on the meta device memory, as `to_empty` does.

    That asks `empty_like` of meta tensors, whose first call imports sympy: half a second, most of
    what it takes to load a small model.
    """

    def empty(tensor: Tensor) -> Tensor:
        if type(tensor) in (Tensor, nn.Parameter):
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        return torch.empty_like(tensor, device=device)  # of several ranks

    module._apply(empty)


def save(
    folder: str | Path,
    *,
    model: Bagel,
    autoencoder: Autoencoder,
    tokenizer: BagelTokenizer | None = None,
    flows: Flows | None = None,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a complete checkpoint that ``load`` and other BAGEL tools read.

    Everything is written beside ``folder`` and takes its place only when it is whole, on the disk
    and read back as what was to be written, so an interrupted save leaves the earlier checkpoint.

    Args:
        folder: Where the checkpoint shall stand; one that stands there is replaced.
        model: Source of the configuration and, without ``weights``, of the weights, which must not
            have been rounded.
        autoencoder: Written whole.
        tokenizer: Its files are written when given.
        flows: How its pictures are drawn; written when given.
        weights: Other values for the model's tensors under our names (an average, say).
        dtype: Stored type of real tensors; None keeps each tensor's own.

    Returns:
        ``folder`` as a path.

    Raises:
        ValueError: ``weights`` lacks a tensor, has one too many, or one of another shape or that
            is not finite; or the model's were rounded.
        OSError: It cannot be written, or comes back from the disk as something else.
    """
    refuse_quantized(model, "saved")
    folder = Path(folder)
    source = stored_tensors(model) | dict(weights or {})
    named = {name: to_upstream_key(name) for name in source}
    expected = upstream_shapes(model)
    check_weights(
        "the checkpoint to save", {named[name]: source[name] for name in source}, expected
    )
    config = dataclasses.replace(model.config, autoencoder=autoencoder.config)
    with whole_folder(folder) as fresh:
        write_config(config, fresh)
        tensors = {named[name]: source[name] for name in sorted(source)}
        write_safetensors(fresh / WEIGHTS[0], tensors, dtype)
        require_written(fresh / WEIGHTS[0], tensors, dtype)
        save_autoencoder(fresh, autoencoder, dtype)
        if tokenizer is not None:
            tokenizer.save_pretrained(fresh)
        if flows is not None:
            write_flows(flows, fresh)
    return folder


def save_autoencoder(
    folder: str | Path, autoencoder: Autoencoder, dtype: torch.dtype | None = None
) -> None:
    """Write ``ae.safetensors`` alone into ``folder``, which must exist; not atomic on its own.

    Args:
        folder: Checkpoint folder.
        autoencoder: Source of the weights; its scaling and shift factors are not in the file.
        dtype: Stored type; None keeps each tensor's own.
    """
    tensors = stored_tensors(autoencoder)
    check_finite_weights("the autoencoder to save", tensors)
    write_safetensors(Path(folder) / AUTOENCODER, tensors, dtype)
    require_written(Path(folder) / AUTOENCODER, tensors, dtype)


def _quantized(model: Bagel) -> dict[str, QuantizedLinear]:
    """The layers that round what they are given, by upstream's name of their weight."""
    found = {}
    for name, layer in quantized_layers(model):
        assert isinstance(layer, QuantizedLinear)
        found[to_upstream_key(f"{name}.weight")] = layer
    return found


def _copy(
    weights: StoredWeights,
    targets: Mapping[str, Tensor],
    place: str,
    division: Division,
    *,
    quantized: Mapping[str, QuantizedLinear] | None = None,
) -> None:
    """Fill every target from the file, one tensor in memory at a time."""
    quantized = quantized or {}
    here: dict[str, Tensor] = {}
    by_file: dict[Path, list[str]] = {}
    for key, path in weights.files.items():
        by_file.setdefault(path, []).append(key)
    for path, keys in by_file.items():
        with safe_open(path, framework="pt") as file:
            for key in keys:
                here[key], rows = division.rows_here(targets[key])
                if here[key].numel():
                    name = weights.names[key]
                    whole = rows == slice(None)
                    stored = file.get_tensor(name) if whole else file.get_slice(name)[rows]
                    stored = as_published(key, stored).reshape(here[key].shape)
                    if key in quantized:
                        quantized[key].take(stored)
                        here[key] = quantized[key].weight_scale  # by which a row that is not finite
                    else:
                        here[key].copy_(stored)
    # In the type that they have now: a narrower one may have made infinities of numbers.
    check_finite_weights(place, here)


def load_tokenizer(folder: Path, vocab_size: int) -> BagelTokenizer | None:
    """Read a folder's tokenizer, or None where it has none.

    Raises:
        ValueError: It uses more ids than there are words in the model.
    """
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    tokenizer = BagelTokenizer.load(folder)
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{folder}: its tokenizer uses {tokenizer.vocab_size} ids, the model has {vocab_size}"
        )
    return tokenizer
