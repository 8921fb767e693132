"""Checkpoints by what a user calls them: a folder, a repository on the Hub, or `miniature:NAME`.

A folder may hold a LoRA alone (`staged.model.adapter`); it then says itself which checkpoint it
belongs to.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from staged.model import checkpoint
from staged.model.adapter import Adapter, put_adapter, read_adapter, read_base
from staged.model.adapter_config import CONFIG
from staged.model.checkpoint import CheckpointFolders, Facts, LoadedBagel
from staged.model.codec import ImageCodec
from staged.model.division import Division
from staged.model.keys import to_upstream_key
from staged.model.quantizations import Quantization
from staged.model.quantized import require_quantization, require_undivided
from staged.model.safetensors_writer import DTYPES
from staged.model.stored_weights import StoredWeights
from staged.model.tokenizer import BagelTokenizer

_NAMED = {"miniature": "staged.shapes.miniature"}
"""What stands before a colon: the module that knows the rest, by `open_named` and its like.

By name, for a model knows no world that it was trained in; that world's packages know models.
"""


def open_checkpoint(
    source: str,
    *,
    seed: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    lora: str | Path | None = None,
    lora_dtype: torch.dtype | None = None,
    division: Division | None = None,
    quantization: Quantization = "none",
) -> LoadedBagel:
    """Load a checkpoint.

    Args:
        source: `miniature:base`, `miniature:staged`, `miniature:fresh`, a folder, or a Hub id; or
            the folder of a LoRA, which stands for itself upon its base.
        seed: Of `miniature:fresh`.
        device: Where the weights go.
        dtype: Of the model, as it is read; the autoencoder is in float32.
        lora: Folder of a LoRA to put upon the checkpoint, beside its weights.
        lora_dtype: Of the LoRA; None is that of the model.
        division: Of the model among processes.
        quantization: To what weights of the experts are rounded, as they are read; a LoRA is not,
            and stands beside them. Not with a division.

    Raises:
        ValueError: There is no such checkpoint, the LoRA does not fit it, or its weights cannot be
            rounded so, or not on this device, in this precision or with a division.
    """
    # Here, as a LoRA puts the division off, and what is made rather than read knows none.
    require_undivided(quantization, division)
    require_quantization(quantization, torch.device(device), dtype)
    base, lora = _parted(source, lora)
    # Before the weights are read: what is wrong with it is told at once.
    adapter = None if lora is None else read_adapter(lora)
    module, name = _named(base)
    # What an adapter is put upon must be whole: it may be merged into its weights.
    early = division if adapter is None else None
    if module is None:
        loaded = checkpoint.load(
            base, device=device, dtype=dtype, division=early, quantization=quantization
        )
    else:
        loaded = module.open_named(
            name,
            seed=seed,
            device=device,
            dtype=dtype,
            division=early,
            quantization=quantization,
        )
    if adapter is not None:
        put_adapter(loaded.model, adapter, dtype=lora_dtype)
        if division is not None:
            division.apply(loaded.model)
        loaded = replace(loaded, flows=loaded.flows.for_other_weights())
    return loaded


def look_at_checkpoint(source: str, *, lora: str | Path | None = None) -> Facts:
    """Read what a checkpoint says of itself, without its weights; see `open_checkpoint`.

    Raises:
        ValueError: There is no such checkpoint.
    """
    base, lora = _parted(source, lora)
    if lora is not None:
        read_base(lora)
    module, name = _named(base)
    facts: Facts = checkpoint.look(base) if module is None else module.look_at_named(name)
    return facts if lora is None else replace(facts, flows=facts.flows.for_other_weights())


def open_codec(source: str, *, seed: int = 0) -> tuple[ImageCodec, BagelTokenizer]:
    """Read what turns pictures and texts into tokens, without the model's weights.

    Raises:
        ValueError: There is no such checkpoint, or it has no tokenizer.
    """
    base = base_of(source)
    if _named(base)[0] is not None:  # they are small, and may be made rather than read
        loaded = open_checkpoint(base, seed=seed)
        codec, tokenizer = loaded.codec, loaded.tokenizer
    else:
        folders, _ = find_checkpoint(base)
        facts = folders.look()
        autoencoder = checkpoint.load_autoencoder(folders.autoencoder, facts.config.autoencoder)
        codec = ImageCodec(autoencoder, facts.config)
        words = facts.config.transformer.vocab_size
        tokenizer = checkpoint.load_tokenizer(folders.rest, words)
    if tokenizer is None:
        raise ValueError(f"{source} has no tokenizer; add its tokenizer files")
    return codec, tokenizer


def find_checkpoint(
    source: str, *, lora: str | Path | None = None
) -> tuple[CheckpointFolders, Adapter | None]:
    """Find where a checkpoint's files lie, and read the LoRA upon it; see `open_checkpoint`.

    Raises:
        ValueError: There is no such checkpoint, or it has no files.
    """
    base, lora = _parted(source, lora)
    adapter = None if lora is None else read_adapter(lora)
    module, name = _named(base)
    if module is None:
        return checkpoint.folders_of(base), adapter
    folders: CheckpointFolders = module.folders_named(name)
    return folders, adapter


def is_stored_as(source: str, dtype: torch.dtype) -> bool:
    """Whether a checkpoint's weights, without any LoRA upon them, lie on the disk in a type.

    Tables of positions, which are computed and never trained, may be in another.
    """
    base, lora = _parted(source, None)
    if lora is not None or base == "miniature:fresh":
        return False
    folders, _ = find_checkpoint(base)
    types = dict(StoredWeights.find(folders.weights).types)
    for table in checkpoint.FROZEN_TABLES:
        types.pop(to_upstream_key(table), None)
    return set(types.values()) == {DTYPES[dtype]}


def base_of(source: str) -> str:
    """The checkpoint itself, or, of the folder of a LoRA, the one that it belongs to."""
    return _parted(source, None)[0]


def _parted(source: str, lora: str | Path | None) -> tuple[str, str | Path | None]:
    """The checkpoint with weights of its own, and the LoRA upon it."""
    if not (Path(source) / CONFIG).is_file():
        return source, lora
    if lora is not None:
        raise ValueError(
            f"{source} is itself a LoRA; name the checkpoint that {lora} belongs to, or one LoRA"
        )
    base = read_base(source)
    if not base or (Path(base) / CONFIG).is_file():
        raise ValueError(
            f"{source} is a LoRA that does not say which checkpoint it belongs to; name that, and "
            "this as the LoRA"
        )
    if _named(base)[0] is None and not Path(base).is_dir() and Path(base).parts[:-2]:
        raise ValueError(
            f"{source} is a LoRA upon {base}, which is not here; name the checkpoint where it is "
            "now, and this as the LoRA"
        )
    return base, source


def _named(source: str) -> tuple[Any, str]:
    """The module that knows a checkpoint, and its name there; None for a folder or a Hub id."""
    scheme, colon, name = source.partition(":")
    if not colon or scheme not in _NAMED:
        return None, source
    return importlib.import_module(_NAMED[scheme]), name
