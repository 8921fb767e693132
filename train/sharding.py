"""FSDP2 and HSDP: each rank keeps a part of every tensor; a layer is whole while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from staged.model.bagel import Bagel
from staged.model.transformer import Layer
from staged.model.vision import VisionBlock
from train.ranks import Ranks
from train.settings import ParallelSettings

SHARD, REPLICATE = "shard", "replicate"
"""Names of the mesh's axes: along the first a tensor is cut, along the second it is copied."""


def make_mesh(ranks: Ranks, settings: ParallelSettings, device: torch.device) -> DeviceMesh | None:
    """How a run's ranks stand to one another; None for one that is alone.

    Ranks that follow one another share a copy of the model, so that with as many copies as
    machines all shards of one lie on one machine. They divide so: `require_ranks` was asked.
    """
    if ranks.world_size == 1:
        return None
    sizes: tuple[int, ...] = (settings.replicas, ranks.world_size // settings.replicas)
    names: tuple[str, ...] = (REPLICATE, SHARD)
    if settings.replicas == 1:
        sizes, names = sizes[1:], names[1:]
    return init_device_mesh(device.type, sizes, mesh_dim_names=names)


def shard(
    root: nn.Module, mesh: DeviceMesh, dtype: torch.dtype, settings: ParallelSettings
) -> None:
    """Cut a module's tensors among the ranks; its parameters are `DTensor`s from then on.

    Layers and the tower's blocks are gathered one at a time, the rest (embeddings, heads,
    connectors) for the whole of a pass. Gradients are summed, not averaged: losses are divided by
    counts over all ranks.

    Args:
        root: Whose call is a forward pass; every rank has to make it equally often.
        mesh: Of `make_mesh`.
        dtype: Of forward and backward. What is kept, and the sums of gradients, are float32.
        settings: Whether layers stay gathered between forward and backward.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # times are to stay float32; `Learner` casts what is to be cast
    )
    for module in list(root.modules()):
        if isinstance(module, Layer | VisionBlock):
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=settings.reshard)
    fully_shard(root, mesh=mesh, mp_policy=policy)
    for module in root.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other


@dataclass(frozen=True)
class Shards:
    """What loading has to know of a model that is to be sharded; a `Division`.

    Attributes:
        prepare: Makes of a model what is to be trained, and shards it, before it has memory.
    """

    prepare: Callable[[Bagel], None]

    def apply(self, model: Bagel) -> None:
        """Prepare the model."""
        self.prepare(model)

    def rows_here(self, tensor: Tensor) -> tuple[Tensor, slice]:
        """This rank's rows, and which they are; of a plain tensor all."""
        if not isinstance(tensor, DTensor):
            return tensor, slice(None)
        shape, start = compute_local_shape_and_global_offset(
            tensor.shape, tensor.device_mesh, tensor.placements
        )
        return local(tensor), slice(start[0], start[0] + shape[0])


def sum_over_replicas(root: nn.Module, now: bool) -> None:
    """Whether the next backward pass adds up gradients over copies of the model.

    Within a copy they are added up in every pass, so that none is ever kept whole; between copies,
    often between machines, the last of a step's passes is soon enough.
    """
    if isinstance(root, FSDPModule):
        root.set_requires_all_reduce(now)


@contextmanager
def gathered_root(root: nn.Module) -> Iterator[None]:
    """Let parts of `root` be called, and not itself: what belongs to no layer is whole meanwhile.

    All ranks must make the same calls; a training step must have been made before.
    """
    with resharded(root):
        if isinstance(root, FSDPModule):
            root.unshard()
        yield


@contextmanager
def resharded(root: nn.Module) -> Iterator[None]:
    """Leave nothing of a model gathered after a block.

    Without a backward pass, which gives back what it gathered, a later forward pass would compute
    with the weights of this one.
    """
    try:
        yield
    finally:
        for module in root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def num_shards(mesh: DeviceMesh | None) -> int:
    """Into how many parts a tensor is cut."""
    return 1 if mesh is None else mesh[SHARD].size()


def zeros_by_rows(like: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros of another width, whose rows lie where those of a tensor lie.

    Args:
        like: (r, ...), perhaps cut among ranks.
        shape: (r, columns) of the result.
        dtype: Of it.
    """
    mine = local(like)
    zeros = torch.zeros(len(mine), *shape[1:], dtype=dtype, device=mine.device)
    if not isinstance(like, DTensor):
        return zeros
    return DTensor.from_local(
        zeros,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=torch.Size(shape),
        stride=(shape[1], 1),
    )


def shard_group(tensor: Tensor) -> dist.ProcessGroup | None:
    """The ranks among which a tensor is cut; None where it is plain."""
    return tensor.device_mesh.get_group(SHARD) if isinstance(tensor, DTensor) else None


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory; of a plain one, all of it."""
    if isinstance(tensor, DTensor):
        tensor = tensor.to_local()
    return tensor.detach()


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; all ranks must ask for it at the same point."""
    if isinstance(tensor, DTensor):
        with torch.no_grad():
            tensor = tensor.full_tensor()
    return tensor.detach()
