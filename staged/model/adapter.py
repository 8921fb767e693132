"""LoRA weights as files of PEFT: `adapter_config.json` and `adapter_model.safetensors`.

Modules have upstream's names in them, so that PEFT puts such an adapter onto upstream's own class.
Tensors are called `base_model.model.<module>.lora_A.weight` and `.lora_B.weight`; ranks and alphas
that differ between modules stand in `rank_pattern` and `alpha_pattern` (regular expressions for
ends of names). What PEFT knows beyond plain LoRA on linear layers is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from staged.jobs.files import whole_folder, write_json
from staged.model.adapter_config import CONFIG, AdapterConfig, config_fields
from staged.model.finite import all_finite
from staged.model.keys import from_upstream_key, to_upstream_key
from staged.model.lora import LowRank, add_lora, lora_layers
from staged.model.safetensors_writer import require_written, write_safetensors
from staged.model.stored_weights import load_tensors
from staged.model.weights import check_weights, listed

WEIGHTS = "adapter_model.safetensors"

_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])(?:\.default)?\.weight")


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What an adapter's folder holds.

    Attributes:
        folder: Where it was read from.
        base: What its configuration says that it was trained on; empty for nothing.
        low_ranks: By name of the layer, ours.
        tensors: By name of the parameter, ours: `<layer>.lora_a` and `<layer>.lora_b`.
    """

    folder: Path
    base: str
    low_ranks: Mapping[str, LowRank]
    tensors: Mapping[str, Tensor]


def read_adapter(folder: str | Path) -> Adapter:
    """Read a LoRA that we or PEFT wrote.

    Args:
        folder: With both files.

    Raises:
        ValueError: One is missing or damaged, a tensor is not finite or belongs to no linear layer
            of the decoder, or the configuration asks for more than plain LoRA; by name.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder with a LoRA; it holds {CONFIG} and {WEIGHTS}")
    config = AdapterConfig.read(folder)
    stored = load_tensors(folder / WEIGHTS, missing="; only safetensors is read")
    halves: dict[str, dict[str, Tensor]] = {}
    strange = []
    for key, tensor in stored.items():
        match = _TENSOR.fullmatch(key.removeprefix(_PREFIX))
        module = None if match is None else _our_module(match["module"])
        if match is None or module is None or not _is_matrix(tensor):
            strange.append(key)
            continue
        halves.setdefault(module, {})[match["half"]] = tensor
    if strange:
        raise ValueError(
            f"{folder / WEIGHTS}: {len(strange)} tensors are no LoRA of a linear layer of BAGEL's: "
            f"{listed(sorted(strange))}"
        )
    low_ranks, tensors = {}, {}
    for module, pair in halves.items():
        low_ranks[module] = _low_rank(folder, config, module, pair)
        tensors[f"{module}.lora_a"], tensors[f"{module}.lora_b"] = pair["A"], pair["B"]
    if not tensors:
        raise ValueError(f"{folder / WEIGHTS} holds no tensors")
    if bad := [name for name, tensor in tensors.items() if not bool(all_finite(tensor))]:
        raise ValueError(f"{folder / WEIGHTS}: NaN or infinite numbers in {listed(bad)}")
    return Adapter(folder=folder, base=config.base, low_ranks=low_ranks, tensors=tensors)


def _is_matrix(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and tensor.is_floating_point()


def read_base(folder: str | Path) -> str:
    """What a LoRA says that it was trained on; empty for nothing.

    Raises:
        ValueError: Its configuration is missing or damaged, or is of more than plain LoRA.
    """
    return AdapterConfig.read(Path(folder)).base


def write_adapter(
    folder: str | Path,
    model: nn.Module,
    *,
    base: str,
    weights: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write the additions of a model; the folder appears whole, in place of one that is there.

    Args:
        folder: To write.
        model: With additions.
        base: What they were trained on: folder, Hub id or name of a miniature.
        weights: Other values for them under our names (an average, say).

    Returns:
        `folder` as a path.

    Raises:
        ValueError: The model has none, or `weights` are not theirs or not finite.
        OSError: It cannot be written, or comes back from the disk as something else.
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError("the model has no LoRA to write")
    own = {
        f"{name}.{half}": getattr(layer, half).detach()
        for name, layer in layers.items()
        for half in ("lora_a", "lora_b")
    }
    tensors = own if weights is None else dict(weights)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    check_weights("the LoRA to write", tensors, shapes)
    low_ranks = {_upstream_module(name): layer.low_rank for name, layer in layers.items()}
    named = {
        f"{_PREFIX}{_upstream_module(name)}.lora_{half.upper()}.weight": tensors[
            f"{name}.lora_{half}"
        ]
        for name in sorted(layers)
        for half in ("a", "b")
    }
    with whole_folder(Path(folder)) as fresh:
        write_json(fresh / CONFIG, config_fields(low_ranks, base))
        write_safetensors(fresh / WEIGHTS, named)
        require_written(fresh / WEIGHTS, named)
    return Path(folder)


@torch.no_grad()
def put_adapter(model: nn.Module, adapter: Adapter, *, dtype: torch.dtype | None = None) -> None:
    """Put an adapter onto the model that it was made for, unmerged.

    Args:
        model: Its layers get additions.
        adapter: To put there.
        dtype: Of the additions; None is that of the model.

    Raises:
        ValueError: The model lacks a layer, or has one of another size; names what does not fit.
    """
    check_adapter(model, adapter)
    dtype = dtype or next(model.parameters()).dtype  # not of layers, whose weights may be bytes
    for name, low_rank in adapter.low_ranks.items():
        add_lora(model, {name: low_rank}, dtype=dtype)
    made = lora_layers(model)
    for name in adapter.low_ranks:
        made[name].lora_a.copy_(adapter.tensors[f"{name}.lora_a"])
        made[name].lora_b.copy_(adapter.tensors[f"{name}.lora_b"])


def check_adapter(model: nn.Module, adapter: Adapter) -> None:
    """Require a model, which may be on meta, to have the layers that an adapter is for.

    Raises:
        ValueError: It lacks some, or has some of another size; names them all.
    """
    found = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    missing = sorted(name for name in adapter.low_ranks if name not in found)
    reshaped = []
    for name in sorted(adapter.low_ranks.keys() & found.keys()):
        a, b = adapter.tensors[f"{name}.lora_a"], adapter.tensors[f"{name}.lora_b"]
        shape = [b.shape[0], a.shape[1]]
        if shape != list(found[name].weight.shape):
            reshaped.append(f"{name} {shape}, the model's is {list(found[name].weight.shape)}")
    if missing or reshaped:
        problems = [f"{len(missing)} missing in the model: {listed(missing)}"] * bool(missing)
        problems += [f"{len(reshaped)} of another size: {listed(reshaped)}"] * bool(reshaped)
        raise ValueError(
            f"{adapter.folder} is no LoRA for this model (it says that it is for "
            f"{adapter.base or 'nothing known'}); layers {'; '.join(problems)}"
        )


def _upstream_module(name: str) -> str:
    return to_upstream_key(f"{name}.weight").removesuffix(".weight")


def _our_module(upstream: str) -> str | None:
    try:
        return from_upstream_key(f"{upstream}.weight").removesuffix(".weight")
    except ValueError:
        return None


def _low_rank(
    folder: Path, config: AdapterConfig, module: str, pair: Mapping[str, Tensor]
) -> LowRank:
    """Rank and scale of a module: by the tensors, which the configuration must bear out."""
    upstream = _upstream_module(module)
    if missing := [half for half in "AB" if half not in pair]:
        raise ValueError(f"{folder / WEIGHTS} has no lora_{missing[0]} for {upstream}")
    rank = len(pair["A"])
    if pair["B"].shape[1] != rank:
        raise ValueError(
            f"{folder / WEIGHTS}: {upstream} has {rank} rows in A and {pair['B'].shape[1]} columns "
            "in B"
        )
    return config.low_rank(upstream, rank)
