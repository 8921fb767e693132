"""A run that asks for kernels that repeat has them for its steps, and leaves nothing behind."""

import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from training import ALL_KINDS, assert_same, build, made

from staged.model.varlen import installed_kernel
from train.determinism import deterministic_kernels
from train.job import Trainer

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def test_steps_are_taken_by_kernels_that_repeat_and_learn_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    world = build(tmp_path, [kind(0) for kind in ALL_KINDS])
    results, seen = [], []
    for wanted in (False, True):
        settings = world.settings(tmp_path / str(wanted), num_steps=3, deterministic=wanted)
        trainer = Trainer(settings)
        assert (WORKSPACE in os.environ) == wanted, "cuBLAS looks once, when it is first used"
        real = trainer.train_step

        def train_step(*packs: Any, real: Any = real) -> dict[str, float]:
            seen.append(torch.are_deterministic_algorithms_enabled())
            found: dict[str, float] = real(*packs)
            return found

        monkeypatch.setattr(trainer, "train_step", train_step)
        trainer.run()
        assert not torch.are_deterministic_algorithms_enabled()
        results.append(made(settings.out))
    assert seen == [False] * 3 + [True] * 3
    assert_same(*results)


def test_a_workspace_that_was_chosen_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKSPACE, ":16:8")
    world = build(tmp_path, [kind(0) for kind in ALL_KINDS])
    Trainer(world.settings(tmp_path / "run", deterministic=True))
    assert os.environ[WORKSPACE] == ":16:8"


def test_a_step_that_fails_leaves_kernels_as_they_were() -> None:
    with pytest.raises(ValueError, match="nan"), deterministic_kernels(True):
        assert torch.are_deterministic_algorithms_enabled()
        raise ValueError("nan")
    assert not torch.are_deterministic_algorithms_enabled()


def test_flash_attention_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its gradients are sums in an order of their own, unless it is asked."""
    told: list[tuple[Any, ...]] = []

    def flash(*arguments: Any, causal: bool, deterministic: bool) -> torch.Tensor:
        told.append((len(arguments), causal, deterministic))
        return torch.zeros(())

    package = ModuleType("flash_attn")
    package.__spec__ = ModuleSpec("flash_attn", None)
    package.flash_attn_varlen_func = flash  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    rows, ends = torch.zeros(4, 1, 8), torch.tensor([0, 4], dtype=torch.int32)
    for wanted in (True, False):
        with deterministic_kernels(wanted):
            installed_kernel()(rows, rows, rows, ends, ends, 4, 4, wanted)
    assert told == [(7, True, True), (7, False, False)]
