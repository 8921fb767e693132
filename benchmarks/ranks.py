"""What several ranks bring on one CPU: a process of N threads against N ranks of one thread each.

    python benchmarks/ranks.py

Trains the miniature on rendered scenes by the real commands, in turns, and reads from their logs
how many tokens a second they learned from over their last steps. The same packs, the same steps;
one JSON line a round, then one with medians. Exit code 0, or 1 where the losses of two ways differ
by more than rounding.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from benchmarks.parts.miniature import scene_trajectory
from staged.settings import save_resolved
from staged.shards import ShardWriter
from train.settings import Log, OptimizerSettings, Subset, TrainSettings

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Measure both ways, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=os.cpu_count() or 1, help="and threads")
    parser.add_argument("--steps", type=int, default=24, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="of both ways")
    options = parser.parse_args()
    rates: dict[str, list[float]] = {"threads": [], "ranks": []}
    losses: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _write_data(folder / "data")
        for number in range(options.rounds):
            for way in rates:
                rate, losses[way] = _train(folder, f"{way}{number}", way, options)
                rates[way].append(rate)
                print(json.dumps({"round": number, "way": way, "tokens_per_s": rate}), flush=True)
    medians = {way: round(median(found)) for way, found in rates.items()}
    print(
        json.dumps(
            {
                "cores": os.cpu_count(),
                "ranks": options.ranks,
                "tokens_per_s": medians,
                "ranks_over_threads": round(medians["ranks"] / medians["threads"], 2),
                "losses": losses,
            }
        )
    )
    return 0 if abs(losses["ranks"] - losses["threads"]) < 1e-3 * losses["threads"] else 1


def _write_data(folder: Path) -> None:
    rng = np.random.default_rng(0)
    with ShardWriter(folder, title="scenes", max_samples=256) as writer:
        for number in range(256):
            writer.write(f"{number:05d}", scene_trajectory(rng))


def _train(folder: Path, name: str, way: str, options: argparse.Namespace) -> tuple[float, float]:
    """Tokens a second over the last half of a run's steps, and the last loss."""
    job = TrainSettings(
        init="miniature:base",
        data=(Subset(path=str(folder / "data")),),
        out=folder / name,
        cache=folder / "cache",
        num_steps=options.steps,
        pack_tokens=2000,
        packs_per_step=2 * options.ranks,
        dtype="float32",
        device="cpu",
        num_threads=options.ranks if way == "threads" else 1,
        num_workers=0,
        checkpoint_every_steps=options.steps,
        optimizer=OptimizerSettings(lr=1e-4, warmup_steps=4),
        log=Log(every_steps=1, sample_every_steps=0),
    )
    save_resolved(job, folder / "job.yaml")
    launcher = [sys.executable]
    if way == "ranks":
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(options.ranks)]
    subprocess.run(
        [*launcher, "-m", "train", str(folder / "job.yaml"), "--quiet"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    lines = (job.out / "log.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    # The window of the rate is longer than the run, so it holds the first steps, which are slow.
    return median(line["tokens_per_s"] for line in records[len(records) // 2 :]), records[-1][
        "loss"
    ]


if __name__ == "__main__":
    sys.exit(main())
