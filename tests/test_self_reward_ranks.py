"""Training of the optimiser on two processes, as accelerate starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from train.self_reward import miniature

CONFIG = "configs/self_reward/miniature.yaml"


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    school = tmp_path / "out/school"
    amounts = {"num_ideas": 4, "num_lessons": 2, "num_pictured": 2, "num_prompts": 1,
               "num_held_out": 1}  # fmt: skip
    miniature.write_world(school, **amounts, num_suite=0, seed=0)
    miniature.write_vlm(school / "vlm", seed=0, hidden_size=64, num_layers=1)
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
              "-m"]  # fmt: skip
    root = Path(__file__).resolve().parents[1]
    losses = []
    for number, started in enumerate(([], launch)):
        words = [*started, "train.self_reward", "sft", str(root / CONFIG), f"out=out/{number}",
                 "sft.epochs=2", "sft.batch_size=12", "sft.micro_batch_size=3"]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        log = json.loads((tmp_path / f"out/{number}/sft/training.json").read_text())
        losses.append([one["loss"] for one in log if "loss" in one])
    assert len(losses[0]) >= 4
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
