"""Load and save BAGEL checkpoints in the published layout.

A folder holds ``config.json``, ``llm_config.json``, ``vit_config.json``, ``ema.safetensors`` (or
whatever else `staged.model.stored_weights` finds), ``ae.safetensors`` and the tokenizer's files.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from staged import proxies
from staged.jobs.files import whole_folder
from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.model.codec import ImageCodec
from staged.model.config import AutoencoderConfig, BagelConfig
from staged.model.config_files import CONFIG_FILES, read_config, write_config
from staged.model.division import Division, Undivided
from staged.model.flows import Flows, read_flows, write_flows
from staged.model.keys import autoencoder_keys, from_upstream_key, to_upstream_key
from staged.model.positions import sincos_table
from staged.model.quantizations import Quantization
from staged.model.quantized import (
    QuantizedLinear,
    quantize_experts,
    quantized_layers,
    refuse_quantized,
    require_undivided,
)
from staged.model.safetensors_writer import write_safetensors
from staged.model.stored_weights import AUTOENCODER, WEIGHTS, StoredWeights, as_published
from staged.model.tokenizer import BagelTokenizer
from staged.model.weights import check_finite_weights, check_names, check_weights

__all__ = [
    "CheckpointFolders",
    "Facts",
    "LoadedBagel",
    "check_stored",
    "folders_of",
    "from_upstream_key",
    "load",
    "load_autoencoder",
    "load_tokenizer",
    "look",
    "save",
    "save_autoencoder",
    "table_sides",
    "to_upstream_key",
    "upstream_shapes",
]

FROZEN_TABLES = ("latent_positions", "vision_positions")

_HUB_FILES = ("*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.model", "*.jinja")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
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


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a checkpoint says of itself before its weights are read.

    Attributes:
        config: Dimensions, corrected by what the headers of the weights show.
        flows: How its pictures are drawn.
    """

    config: BagelConfig
    flows: Flows


@dataclass(frozen=True, kw_only=True)
class CheckpointFolders:
    """Where the parts of a checkpoint lie.

    Attributes:
        weights: Of the model.
        autoencoder: ``ae.safetensors``, if not beside the weights: models that share one need not
            each carry it.
        rest: Configuration, tokenizer and ways of drawing, if not beside the weights.
    """

    weights: Path
    autoencoder: Path
    rest: Path

    def require(self) -> None:
        """Require the small files to be there, which many a trainer does not copy.

        Raises:
            ValueError: Some are missing; names them.
        """
        needed = {self.rest / name for name in CONFIG_FILES} | {self.autoencoder / AUTOENCODER}
        if missing := sorted(str(path) for path in needed if not path.is_file()):
            raise ValueError(
                f"{self.weights} holds weights, but {', '.join(missing)} missing: take what is "
                "missing from the checkpoint that they were trained from (staged export "
                f"{self.weights} --like CHECKPOINT --out FOLDER)"
            )

    def look(self) -> Facts:
        """Read what needs no weights.

        Raises:
            ValueError: See ``load``; names and shapes of the tensors are not compared here.
        """
        shapes = StoredWeights.find(self.weights).shapes
        self.require()
        config = read_config(self.rest)
        path = self.autoencoder / AUTOENCODER
        stored = StoredWeights.of_autoencoder(path).shapes
        structure = _autoencoder_structure(stored, config.autoencoder, path)
        return Facts(config=_fit_to_weights(config, structure, shapes), flows=read_flows(self.rest))


def folders_of(
    source: str | Path, *, autoencoder_folder: str | Path | None = None, revision: str | None = None
) -> CheckpointFolders:
    """Find a checkpoint; from the Hub, all of it is fetched. See ``load``."""
    folder = _resolve(source, revision)
    autoencoder = folder if autoencoder_folder is None else Path(autoencoder_folder)
    return CheckpointFolders(weights=folder, autoencoder=autoencoder, rest=folder)


def look(source: str | Path, *, autoencoder_folder: str | Path | None = None) -> Facts:
    """Read what needs no weights, so that a wrong request is told before minutes of loading.

    Args:
        source: See ``load``; from the Hub, the whole checkpoint is fetched.
        autoencoder_folder: See ``load``.

    Raises:
        ValueError: See ``load``; names and shapes of the tensors are not compared here.
    """
    return folders_of(source, autoencoder_folder=autoencoder_folder).look()


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
    config = _fit_to_weights(config, autoencoder.config, weights.shapes)
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
    model.to_empty(device=device)
    targets = _tensors(model)
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
    config = _autoencoder_structure(weights.shapes, config, path)
    with torch.device("meta"):
        autoencoder = Autoencoder(config)
    expected = upstream_shapes(autoencoder)
    check_names(str(path), weights.shapes, expected)
    autoencoder.float().to_empty(device=device)
    targets = _tensors(autoencoder)
    ours = {upstream: name for name, upstream in _upstream_names(autoencoder).items()}
    named = {upstream: targets[ours[upstream]] for upstream in weights.shapes}
    _copy(weights, named, str(path), Undivided())
    return autoencoder.eval()


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

    Everything is written beside ``folder`` and takes its place only when it is whole and on the
    disk, so an interrupted save leaves the earlier checkpoint.

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
    """
    refuse_quantized(model, "saved")
    folder = Path(folder)
    source = _tensors(model) | dict(weights or {})
    named = {name: to_upstream_key(name) for name in source}
    expected = upstream_shapes(model)
    check_weights(
        "the checkpoint to save", {named[name]: source[name] for name in source}, expected
    )
    config = dataclasses.replace(model.config, autoencoder=autoencoder.config)
    with whole_folder(folder) as fresh:
        write_config(config, fresh)
        write_safetensors(
            fresh / WEIGHTS[0], {named[name]: source[name] for name in sorted(source)}, dtype
        )
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
    expected = upstream_shapes(autoencoder)
    tensors = _tensors(autoencoder)
    check_finite_weights("the autoencoder to save", tensors)
    write_safetensors(
        Path(folder) / AUTOENCODER,
        {
            upstream: tensors[name].reshape(expected[upstream])
            for name, upstream in _upstream_names(autoencoder).items()
        },
        dtype,
    )


def upstream_shapes(module: Bagel | Autoencoder) -> dict[str, tuple[int, ...]]:
    """Upstream's name and shape of every tensor of a module, which may be on the meta device."""
    shapes = {}
    names = _upstream_names(module)
    for name, tensor in _tensors(module).items():
        upstream, shape = names[name], tuple(tensor.shape)
        # FLUX stores the attention's projections as 1 x 1 convolutions, diffusers as linears.
        if ".attn_1." in upstream and len(shape) == 2:
            shape = (*shape, 1, 1)
        shapes[upstream] = shape
    return shapes


def check_stored(weights: StoredWeights, model: Bagel) -> dict[str, tuple[int, ...]]:
    """Require stored tensors to be those of a model, save the tables that can be computed.

    Args:
        weights: What is there.
        model: May be on meta.

    Returns:
        Upstream's name and shape of every tensor of the model.

    Raises:
        ValueError: One error that lists all that are missing, unexpected or of another shape.
    """
    expected = upstream_shapes(model)
    optional = {to_upstream_key(table) for table in FROZEN_TABLES}
    check_names(weights.place, weights.shapes, expected, optional=optional)
    return expected


def _upstream_names(module: Bagel | Autoencoder) -> dict[str, str]:
    if isinstance(module, Bagel):
        return {name: to_upstream_key(name) for name in _tensors(module)}
    config = module.config
    modules = autoencoder_keys(len(config.multipliers), config.num_blocks)
    names = {}
    for name in _tensors(module):
        path, _, leaf = name.rpartition(".")
        names[name] = f"{modules[path]}.{leaf}"
    return names


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and the frozen tables, which are checkpointed even if they are plain buffers."""
    tables = {name: b for name, b in module.named_buffers() if name in FROZEN_TABLES}
    return {name: p.detach() for name, p in module.named_parameters()} | tables


def _quantized(model: Bagel) -> dict[str, QuantizedLinear]:
    """The layers that round what they are given, by upstream's name of their weight."""
    found = {}
    for name, layer in quantized_layers(model):
        assert isinstance(layer, QuantizedLinear)
        found[to_upstream_key(f"{name}.weight")] = layer
    return found


def table_sides(config: BagelConfig) -> dict[str, int]:
    """Sides of the frozen tables, in tokens, by our name."""
    return {
        "latent_positions": config.max_latent_size,
        "vision_positions": config.vit_max_patches_per_side,
    }


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


def _fit_to_weights(
    config: BagelConfig,
    autoencoder: AutoencoderConfig,
    shapes: Mapping[str, tuple[int, ...]],
) -> BagelConfig:
    """Trust the weights over the configuration where they show a size.

    Published configurations are known to carry table sizes that their weights do not have.
    """
    changes: dict[str, Any] = {"autoencoder": autoencoder}
    sides = {"latent_positions": "max_latent_size", "vision_positions": "vit_max_patches_per_side"}
    for table, field in sides.items():
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


def _square_side(cells: int, key: str) -> int:
    side = math.isqrt(cells)
    if side * side != cells:
        raise ValueError(f"{key} covers {cells} cells, which is not a square grid")
    return side


def _autoencoder_structure(
    shapes: Mapping[str, tuple[int, ...]], config: AutoencoderConfig, path: Path
) -> AutoencoderConfig:
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


def _resolve(source: str | Path, revision: str | None) -> Path:
    folder = Path(source)
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_ID.fullmatch(str(source)):
        raise ValueError(f"{source} is neither a checkpoint folder nor a Hub id (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        path = snapshot_download(str(source), revision=revision, allow_patterns=list(_HUB_FILES))
    except (OSError, ValueError) as error:  # the Hub's errors are among these
        said = " ".join(str(error).split()) + proxies.blamed("https://huggingface.co")
        raise ValueError(
            f"{source} is no folder here and did not come from the Hub: {said}"
        ) from error
    return Path(path)


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
