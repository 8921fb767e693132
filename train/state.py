"""Resumable state of a run: weights, moments and average at a step, written whole or not at all.

Everything else (data order, dropout, times, noise, learning rate) is a function of the step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from train.ema import WeightAverage

_FILE = "state.safetensors"
_KEEP = 2


class RunState:
    """The folder `<out>/state`, holding one folder for each kept step."""

    def __init__(self, out: Path) -> None:
        """Name the folder; nothing is touched."""
        self.folder = out / "state"

    def save(
        self,
        step: int,
        parameters: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
    ) -> None:
        """Write the state after `step` optimizer steps and drop older ones but one."""
        tensors = {f"weights.{name}": p.detach().cpu() for name, p in parameters.items()}
        for name, parameter in parameters.items():
            for key, value in optimizer.state[parameter].items():
                tensors[f"optimizer.{key}.{name}"] = value.detach().cpu()
        if average is not None:
            tensors |= {f"average.{name}": t.cpu() for name, t in average.tensors.items()}
        target = self.folder / f"{step:08d}"
        partial = self.folder / f".{step:08d}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file(tensors, partial / _FILE, metadata={"step": str(step)})
        with (partial / _FILE).open("rb") as file:
            os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        for old in self._steps()[:-_KEEP]:
            shutil.rmtree(self.folder / f"{old:08d}")

    def load(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
    ) -> int:
        """Take up the newest state.

        Returns:
            Steps done; 0 when there is no state.

        Raises:
            ValueError: The state is damaged or belongs to another model.
        """
        steps = self._steps()
        if not steps:
            return 0
        path = self.folder / f"{steps[-1]:08d}" / _FILE
        try:
            stored = load_file(path)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(stored[f"weights.{name}"])
                    # AdamW keeps its step count on the CPU unless fused on the device.
                    optimizer.state[parameter] = {
                        key: stored[f"optimizer.{key}.{name}"].to(parameter.device)
                        for key in ("step", "exp_avg", "exp_avg_sq")
                    }
                    if average is not None:
                        average.tensors[name].copy_(stored[f"average.{name}"])
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise ValueError(
                f"{path} does not fit this run ({error}); remove that folder to continue from an "
                "older state, or choose another `out`"
            ) from error
        return steps[-1]

    def _steps(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdecimal())
