"""Write the state of a run from all of its ranks into one folder that appears whole.

A `StorageWriter` of torch.distributed.checkpoint, which says who writes which part of what. Parts
lie in safetensors files (its own writers pickle, or hold every byte twice), named as its
`HuggingFaceStorageReader` reads them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from staged.jobs.files import sweep, sync, whole_folder
from staged.model.safetensors_writer import write_safetensors

OFFSETS = "DCP_SHARDING_INFO"
"""Key of a file's metadata under which `HuggingFaceStorageReader` looks for where parts begin."""


def file_name(number: int, world_size: int) -> str:
    """What the file of a rank is called."""
    if world_size == 1:
        return "state.safetensors"
    return f"state-{number + 1:05d}-of-{world_size:05d}.safetensors"


class StateWriter(StorageWriter):
    """Of one state; within a context, so that nothing half stays where it fails."""

    def __init__(
        self,
        target: Path,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, str],
        num_kept: int,
        best: int | None = None,
    ) -> None:
        """Take this rank's parts.

        Args:
            target: Folder of the state, in one that only states lie in.
            tensors: By name, on the CPU; nobody may change them meanwhile.
            facts: For the metadata of every file.
            num_kept: Newest states to keep, this one included.
            best: Step whose state is kept besides.
        """
        super().__init__()
        self._target, self._tensors, self._facts = target, tensors, facts
        self._num_kept, self._best = num_kept, best
        self._whole = ExitStack()

    def __enter__(self) -> StateWriter:
        self._whole.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._whole.__exit__(*error)

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Make the folder, on rank 0, and tell everyone the name of its file."""
        # Who writes here holds the run's lock: whatever half is there, nobody will finish it.
        sweep(self._target.parent, str.isdecimal, everyones=True)
        fresh = self._whole.enter_context(whole_folder(self._target, everyones=True))
        return [
            replace(plan, storage_data=str(fresh / file_name(number, len(plans))))
            for number, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's file to the disk."""
        tensors, offsets, results = {}, {}, []
        for item in plan.items:
            assert item.tensor_data is not None
            name, chunk = item.index.fqn, item.tensor_data.chunk
            # A matrix of fewer rows than ranks leaves some of them none.
            if math.prod(chunk.sizes):
                tensors[name] = self._tensors[name]
                offsets[name] = {"saved_offsets": list(chunk.offsets)}
            results.append(WriteResult(item.index, self._tensors[name].nbytes, None))
        path = Path(plan.storage_data)
        write_safetensors(path, tensors, metadata={**self._facts, OFFSETS: json.dumps(offsets)})
        sync(path)
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Give the folder its name, on rank 0, and drop older states."""
        self._whole.close()
        drop_old(self._target.parent, self._num_kept, self._best)

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Nothing: a writer writes once."""

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing: the folder is made once the plan stands."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leave it as it is."""
        return plan

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """It is given where it is to write, never an id."""
        return False


def drop_old(folder: Path, num_kept: int, best: int | None) -> None:
    """Remove states from a folder of them.

    Args:
        folder: That they lie in.
        num_kept: Newest ones that stay.
        best: Step whose state stays besides.
    """
    for old in steps_in(folder)[:-num_kept]:
        if old != best:
            shutil.rmtree(folder / f"{old:08d}")


def steps_in(folder: Path) -> list[int]:
    """Steps whose states lie in a folder, in order."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
