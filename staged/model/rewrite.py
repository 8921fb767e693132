"""A checkpoint written anew in the published layout, tensor by tensor.

Whoever wrote it, whatever its tensors were called and however they were split; with a LoRA merged
into it; in another precision. At no time is more than a tensor in memory, so a laptop does it with
the 29 GB of BAGEL-7B.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from staged.jobs.files import whole_folder
from staged.jobs.progress import Progress
from staged.model.adapter import Adapter, check_adapter
from staged.model.bagel import Bagel
from staged.model.checkpoint import load_autoencoder, load_tokenizer, save_autoencoder
from staged.model.checkpoint_folders import CheckpointFolders
from staged.model.config import BagelConfig
from staged.model.config_files import write_config
from staged.model.finite import all_finite
from staged.model.flows import write_flows
from staged.model.keys import from_upstream_key, to_upstream_key
from staged.model.lora import merged
from staged.model.named_tensors import check_stored, table_sides
from staged.model.positions import sincos_table
from staged.model.safetensors_writer import DTYPES, require_written, write_safetensors
from staged.model.stored_weights import WEIGHTS, StoredWeights

_BY_NAME = {name: dtype for dtype, name in DTYPES.items()}


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """What was written.

    Attributes:
        folder: The checkpoint.
        num_tensors: Of the model.
        num_bytes: Of them.
        num_merged: Weights to which a LoRA was added.
        num_renamed: Tensors that were called otherwise where they came from.
        computed: Tables of positions that were missing there.
    """

    folder: Path
    num_tensors: int
    num_bytes: int
    num_merged: int
    num_renamed: int
    computed: tuple[str, ...]


def rewrite(
    source: CheckpointFolders,
    folder: str | Path,
    *,
    adapter: Adapter | None = None,
    dtype: torch.dtype | None = None,
) -> Rewritten:
    """Write a checkpoint that ``load`` and other BAGEL tools read, and read it back.

    The folder appears when it is whole and every tensor in it is, bit by bit, what it is to be.

    Args:
        source: Where weights and the rest lie.
        folder: Where it shall stand; one that stands there is replaced.
        adapter: LoRA to merge into the weights.
        dtype: Stored type; None keeps each tensor's own.

    Raises:
        ValueError: What is there is no BAGEL's (by names), the LoRA does not fit it, or a number
            is not finite.
        OSError: It cannot be written, or comes back from the disk as something else.
    """
    facts = source.look()
    work = _Work(StoredWeights.find(source.weights), facts.config, adapter, dtype)
    autoencoder = load_autoencoder(source.autoencoder, facts.config.autoencoder)
    tokenizer = load_tokenizer(source.rest, facts.config.transformer.vocab_size)
    progress = Progress("writing and reading back", 2 * len(work.shapes), unit="tensors/s")
    with whole_folder(Path(folder)) as fresh:
        write_config(facts.config, fresh)
        with work.weights.reader() as read:

            def data(key: str) -> Tensor:
                progress.advance()
                return work.made(key, read)

            write_safetensors(fresh / WEIGHTS[0], work.shapes, read=data)
            require_written(fresh / WEIGHTS[0], work.shapes, read=data)
        save_autoencoder(fresh, autoencoder)
        if tokenizer is not None:
            tokenizer.save_pretrained(fresh)
        flows = facts.flows if adapter is None else facts.flows.for_other_weights()
        write_flows(flows, fresh)
    return Rewritten(
        folder=Path(folder),
        num_tensors=len(work.shapes),
        num_bytes=sum(tensor.nbytes for tensor in work.shapes.values()),
        num_merged=0 if adapter is None else len(adapter.low_ranks),
        num_renamed=sum(key != name for key, name in work.weights.names.items()),
        computed=tuple(sorted(work.tables)),
    )


class _Work:
    """The tensors to be stored.

    Attributes:
        weights: Where they come from.
        shapes: Each on meta, by upstream's name, in order.
        tables: Sides of those that are computed.
    """

    def __init__(
        self,
        weights: StoredWeights,
        config: BagelConfig,
        adapter: Adapter | None,
        dtype: torch.dtype | None,
    ) -> None:
        self.weights, self._adapter, self._dtype = weights, adapter, dtype
        self._width = config.transformer.hidden_size
        with torch.device("meta"):
            model = Bagel(config)
        expected = check_stored(weights, model)
        if adapter is not None:
            check_adapter(model, adapter)
        sides = {to_upstream_key(table): side for table, side in table_sides(config).items()}
        self.tables = {key: side for key, side in sides.items() if key not in weights.shapes}
        types = {key: self._type(key) for key in weights.shapes}
        most = max(set(types.values()), key=[*types.values()].count)
        self.shapes = {
            key: torch.empty(expected[key], dtype=types.get(key, most), device="meta")
            for key in sorted(expected, key=from_upstream_key)
        }

    def made(self, key: str, read: Callable[[str], Tensor]) -> Tensor:
        """A tensor as it is to be stored."""
        computed = key in self.tables
        tensor = sincos_table(self._width, self.tables[key]) if computed else read(key)
        layer, _, leaf = from_upstream_key(key).rpartition(".")
        if self._adapter is not None and leaf == "weight" and layer in self._adapter.low_ranks:
            a, b = (self._adapter.tensors[f"{layer}.lora_{half}"] for half in "ab")
            tensor = merged(tensor, a, b, self._adapter.low_ranks[layer].scale)
        tensor = tensor.to(self.shapes[key].dtype)
        # In the type that it will have: a narrower one may have made infinities of numbers.
        if not bool(all_finite(tensor)):
            raise ValueError(
                f"{self.weights.place}: {key} as {tensor.dtype} has NaN or infinite numbers"
            )
        return tensor

    def _type(self, key: str) -> torch.dtype:
        if self._dtype is not None:
            return self._dtype
        stored = _BY_NAME.get(self.weights.types[key])
        if stored is None:
            raise ValueError(
                f"{self.weights.place}: {key} is stored as {self.weights.types[key]}, which is not "
                "written; say which type to store instead (--dtype)"
            )
        return stored
