"""Resumable state of a run: weights, moments and average at a step, written whole or not at all.

Everything else (data order, dropout, times, noise, learning rate) is a function of the step. A
state is of the run, not of its processes: any number of ranks takes up what any other number left.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_tensors
from torch.distributed.checkpoint.state_dict_saver import save as save_tensors

from staged.model.weights import check_finite_weights, check_names
from train.ema import WeightAverage
from train.optimizer import Optimizers
from train.ranks import Ranks
from train.sharding import local
from train.state_writer import StateWriter, drop_old, file_name, steps_in

# Which is meant, where one process is all there are.
warnings.filterwarnings("ignore", message="torch.distributed is disabled")

NUM_KEPT = 2


class RunState:
    """The folder `<out>/state`, holding one folder for each kept step."""

    def __init__(self, out: Path, ranks: Ranks | None = None, *, num_kept: int = NUM_KEPT) -> None:
        """Name the folder; nothing is touched.

        Args:
            out: The run's folder.
            ranks: That share the run; each holds its part of the tensors.
            num_kept: Newest states that are kept.
        """
        self.folder, self._ranks, self._num_kept = out / "state", ranks or Ranks(), num_kept
        self._saving: Future[None] | None = None

    def save(
        self,
        step: int,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizers,
        average: WeightAverage | None,
        facts: Mapping[str, str] | None = None,
        best: int | None = None,
    ) -> None:
        """Take a copy of the state after `step` optimizer steps, and write it while work goes on.

        Older states are dropped once it is there. All ranks must call it at the same point.

        Args:
            step: Of the run.
            parameters: By name.
            optimizer: Over them.
            average: Of them.
            facts: What else is to be known of the run; see `facts`.
            best: Step whose state is kept however old it is.

        Raises:
            OSError: As `finish`, of the state before.
        """
        self.finish()
        tensors = {f"weights.{name}": p.detach() for name, p in parameters.items()}
        for name, parameter in parameters.items():
            for key, value in optimizer.state_of(parameter).items():
                tensors[f"optimizer.{key}.{name}"] = value
        if average is not None:
            tensors |= {f"average.{name}": t for name, t in average.tensors.items()}
        copies = {name: local(t).to("cpu", copy=True) for name, t in tensors.items()}
        facts = {"step": str(step), "world_size": str(self._ranks.world_size), **(facts or {})}
        self._saving = Future()
        # Of the daemon kind: a run that ends badly does not wait for a disk or for lost ranks.
        threading.Thread(
            target=self._write, args=(self._saving, step, tensors, copies, facts, best), daemon=True
        ).start()

    def check(self) -> None:
        """Raise what went wrong with the state being written, if that is known by now.

        Raises:
            OSError: It cannot be written; the earlier states are as they were.
        """
        if self._saving is not None and self._saving.done():
            self.finish()

    def finish(self) -> None:
        """Wait until the state being written is there.

        Raises:
            OSError: It cannot be written; the earlier states are as they were.
        """
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()

    @contextmanager
    def written(self) -> Iterator[None]:
        """Let no state get lost that is being written when a block ends, be it by an error."""
        try:
            yield
        except Exception:
            with suppress(Exception):  # the first error is the one to tell
                self.finish()
            raise
        self.finish()

    def load(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizers | None,
        average: WeightAverage | None,
        step: int | None = None,
    ) -> int:
        """Take up the newest state, or that of a step; all ranks must call it at the same point.

        Args:
            parameters: By name.
            optimizer: Over them; None where its moments are not wanted.
            average: Of them.
            step: Of the state; None for the newest.

        Returns:
            Steps done; 0 when there is no state.

        Raises:
            ValueError: The state is damaged or belongs to another model, or a run that goes on has
                dropped it meanwhile.
        """
        if step is None:
            step = self._ranks.first(lambda: max(self.steps(), default=0))
        if not step:
            return 0
        folder = self.folder / f"{step:08d}"
        moments = {}
        if optimizer is not None:
            moments = {name: optimizer.empty_state(p) for name, p in parameters.items()}
        tensors = {f"weights.{name}": p.detach() for name, p in parameters.items()}
        for name, state in moments.items():
            tensors |= {f"optimizer.{key}.{name}": tensor for key, tensor in state.items()}
        if average is not None:
            tensors |= {f"average.{name}": t for name, t in average.tensors.items()}
        try:
            _check(folder, tensors, moments=optimizer is not None)
            load_tensors(
                tensors,
                storage_reader=HuggingFaceStorageReader(str(folder)),
                process_group=self._ranks.group,
            )
            check_finite_weights(str(folder), {name: local(t) for name, t in tensors.items()})
        except (SafetensorError, OSError, ValueError, CheckpointException) as error:
            if not folder.is_dir():
                raise ValueError(
                    f"{folder} is gone: the run goes on, and has newer states; give the same "
                    "command again"
                ) from error
            raise ValueError(
                f"{folder} is damaged or of another model ({_first_cause(error)}); remove it to "
                "continue from an older state or from the start, or choose another `out`"
            ) from error
        if optimizer is not None:
            for name, parameter in parameters.items():
                optimizer.set_state(parameter, moments[name])
        return step

    def facts(self) -> dict[str, str]:
        """What was said of the run with its newest state; nothing when there is no state.

        Raises:
            ValueError: The state is damaged.
        """
        steps = self.steps()
        if not steps:
            return {}
        folder = self.folder / f"{steps[-1]:08d}"
        try:
            with safe_open(min(folder.glob("*.safetensors")), framework="pt") as file:
                return dict(file.metadata() or {})
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(f"{folder} is damaged ({error}); remove it") from error

    def keep_best(self, best: int | None) -> None:
        """Drop what only an earlier best has kept; all ranks must call it at the same point.

        Args:
            best: As in `save`.
        """
        self.finish()
        self._ranks.first(lambda: drop_old(self.folder, self._num_kept, best))

    def steps(self) -> list[int]:
        """Steps whose states are kept, in order."""
        return steps_in(self.folder)

    def require_any(self) -> None:
        """Require a run to have something to export.

        Raises:
            ValueError: It has no state yet: its checkpoint would be `init` under another name.
        """
        if not self.steps():
            raise ValueError(
                f"{self.folder.parent} holds no state of a run, so there is nothing to export; "
                "give the same command without --export or --export-best, or correct `out`"
            )

    def _write(
        self,
        saving: Future[None],
        step: int,
        tensors: Mapping[str, Tensor],
        copies: Mapping[str, Tensor],
        facts: Mapping[str, str],
        best: int | None,
    ) -> None:
        target = self.folder / f"{step:08d}"
        try:
            with StateWriter(target, copies, facts, self._num_kept, best) as writer:
                save_tensors(
                    dict(tensors),
                    storage_writer=writer,
                    process_group=self._ranks.background_group,
                )
            saving.set_result(None)
        except CheckpointException as error:
            size = sum(tensor.nbytes for tensor in copies.values())
            said = OSError(
                f"cannot write the state of step {step} ({size / 2**20:.0f} MiB) to {target}: "
                f"{_first_cause(error)}. Earlier states are kept; free some space and give the "
                "same command"
            )
            said.__cause__ = error
            saving.set_exception(said)
        except BaseException as error:
            saving.set_exception(error)


def _check(folder: Path, expected: Mapping[str, Tensor], *, moments: bool) -> None:
    """Require the files of a state to be all there, with every tensor whole and in its shape.

    Args:
        folder: Of the state.
        expected: Tensors by name.
        moments: Whether those of the optimizer are among them.

    Raises:
        ValueError: They are not; says what is wrong.
        SafetensorError: A file is cut off.
        OSError: There is none.
    """
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if names != [file_name(number, len(names)) for number in range(len(names))]:
        raise ValueError(f"it has files {', '.join(names)}, and not all of one state")
    found = {
        name: entry
        for name, entry in HuggingFaceStorageReader(str(folder))
        .read_metadata()
        .state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
        and (moments or not name.startswith("optimizer."))
    }
    check_names(
        str(folder),
        {name: tuple(entry.size) for name, entry in found.items()},
        {name: tuple(tensor.shape) for name, tensor in expected.items()},
    )
    for name, entry in found.items():
        there = sum(math.prod(chunk.sizes) for chunk in entry.chunks)
        if there != math.prod(entry.size):
            raise ValueError(f"{name} has {there} numbers of {math.prod(entry.size)}")


def _first_cause(error: BaseException) -> str:
    if not isinstance(error, CheckpointException):
        return str(error)
    rank, (cause, _) = min(error.failures.items())
    where = f"rank {rank}: " if rank else ""
    return f"{where}{cause or type(cause).__name__}"
