"""Resumable state of a run: weights, moments and average at a step, written whole or not at all.

Everything else (data order, dropout, times, noise, learning rate) is a function of the step.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from staged.jobs.files import sweep, whole_folder
from staged.model.weights import check_weights
from train.ema import WeightAverage
from train.optimizer import Optimizers

_FILE = "state.safetensors"
NUM_KEPT = 2


class RunState:
    """The folder `<out>/state`, holding one folder for each kept step."""

    def __init__(self, out: Path) -> None:
        """Name the folder; nothing is touched."""
        self.folder = out / "state"

    def save(
        self,
        step: int,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizers,
        average: WeightAverage | None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        """Write the state after `step` optimizer steps and drop older ones but one.

        Args:
            step: Of the run.
            parameters: By name.
            optimizer: AdamW over them.
            average: Of them.
            facts: What else is to be known of the run; see `facts`.

        Raises:
            OSError: It cannot be written; the earlier states are as they were.
        """
        tensors = {f"weights.{name}": p.detach().cpu() for name, p in parameters.items()}
        for name, parameter in parameters.items():
            for key, value in optimizer.state_of(parameter).items():
                tensors[f"optimizer.{key}.{name}"] = value.detach().cpu()
        if average is not None:
            tensors |= {f"average.{name}": t.cpu() for name, t in average.tensors.items()}
        target = self.folder / f"{step:08d}"
        try:
            # Who writes here holds the run's lock: whatever half is there, nobody will finish it.
            sweep(self.folder, str.isdecimal, everyones=True)
            with whole_folder(target, everyones=True) as fresh:
                save_file(tensors, fresh / _FILE, metadata={"step": str(step), **(facts or {})})
        except (SafetensorError, OSError) as error:
            size = sum(t.numel() * t.element_size() for t in tensors.values())
            raise OSError(
                f"cannot write the state of step {step} ({size / 2**20:.0f} MiB) to {target}: "
                f"{error}. Earlier states are kept; free some space and give the same command"
            ) from error
        for old in self.steps()[:-NUM_KEPT]:
            shutil.rmtree(self.folder / f"{old:08d}")

    def load(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: Optimizers,
        average: WeightAverage | None,
    ) -> int:
        """Take up the newest state.

        Returns:
            Steps done; 0 when there is no state.

        Raises:
            ValueError: The state is damaged or belongs to another model.
        """
        steps = self.steps()
        if not steps:
            return 0
        path = self.folder / f"{steps[-1]:08d}" / _FILE
        try:
            stored = load_file(path)
            check_weights(str(path), stored, _expected(parameters, optimizer, average))
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(stored[f"weights.{name}"])
                    # Copies: what was loaded is a view of the file, which will be removed.
                    optimizer.set_state(
                        parameter,
                        {
                            key: stored[f"optimizer.{key}.{name}"].to(parameter.device, copy=True)
                            for key in optimizer.shapes_of(parameter)
                        },
                    )
                    if average is not None:
                        average.tensors[name].copy_(stored[f"average.{name}"])
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(
                f"{path} is damaged or of another model ({error}); remove its folder to continue "
                "from an older state or from the start, or choose another `out`"
            ) from error
        return steps[-1]

    def facts(self) -> dict[str, str]:
        """What was said of the run with its newest state; nothing when there is no state.

        Raises:
            ValueError: The state is damaged.
        """
        steps = self.steps()
        if not steps:
            return {}
        path = self.folder / f"{steps[-1]:08d}" / _FILE
        try:
            with safe_open(path, framework="pt") as file:
                return dict(file.metadata() or {})
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove its folder") from error

    def steps(self) -> list[int]:
        """Steps whose states are kept, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal())


def _expected(
    parameters: Mapping[str, nn.Parameter], optimizer: Optimizers, average: WeightAverage | None
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a state."""
    expected: dict[str, tuple[int, ...]] = {}
    for name, parameter in parameters.items():
        shape = tuple(parameter.shape)
        expected[f"weights.{name}"] = shape
        for key, kept in optimizer.shapes_of(parameter).items():
            expected[f"optimizer.{key}.{name}"] = kept
        if average is not None:
            expected[f"average.{name}"] = shape
    return expected
