"""Loading among ranks: each takes its own part of the file, and none ever holds the model."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rank_processes import run_ranks
from tiny import CONFIG, tokenizer
from training import SLOW

from staged.model import checkpoint
from staged.model.autoencoder import Autoencoder
from staged.model.bagel import Bagel
from staged.model.open import open_checkpoint
from train.objective import Objective
from train.ranks import Ranks
from train.settings import ParallelSettings
from train.sharding import Shards, local, make_mesh, shard

RANKS = 4
MIB = 2**20
pytestmark = [
    SLOW,
    pytest.mark.skipif(
        not Path("/proc/self/status").is_file(), reason="memory is told by /proc of Linux"
    ),
]


def own_mib() -> float:
    """Of this process alone: pages of a mapped file are everyone's."""
    [line] = [
        line for line in Path("/proc/self/status").read_text().split("\n") if "RssAnon" in line
    ]
    return int(line.split()[1]) / 1024


def load(ranks: Ranks, folder: str) -> tuple[float, float]:
    """MiB that loading took beyond what was there before, at most and in the end."""
    mesh = make_mesh(ranks, ParallelSettings(), torch.device("cpu"))
    assert mesh is not None

    def prepare(model: Bagel) -> None:
        shard(Objective(model), mesh, torch.bfloat16, ParallelSettings())

    before, most, done = own_mib(), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            most[0] = max(most[0], own_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    loaded = open_checkpoint(folder, dtype=torch.float32, division=Shards(prepare))
    done.set()
    watcher.join()
    kept = sum(local(p).nbytes for p in loaded.model.parameters()) / MIB
    return max(most[0], own_mib()) - before, kept


def test_four_ranks_take_their_shards_and_no_more(tmp_path: Path) -> None:
    decoder = replace(
        CONFIG.transformer,
        hidden_size=1024,
        intermediate_size=2816,
        num_layers=8,
        num_heads=8,
        head_dim=128,
    )
    with torch.device("meta"):
        model = Bagel(replace(CONFIG, transformer=decoder)).to(torch.bfloat16)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(0.5)
    checkpoint.save(
        tmp_path / "init",
        model=model,
        autoencoder=Autoencoder(CONFIG.autoencoder),
        tokenizer=tokenizer(),
    )
    [weights] = [p for p in (tmp_path / "init").glob("*.safetensors") if p.stat().st_size > 9 * MIB]
    size = weights.stat().st_size / MIB
    assert size > 300
    outcomes = run_ranks(tmp_path / "said", RANKS, load, str(tmp_path / "init"))
    taken, kept = (sum(one["returned"][n] for one in outcomes if one) for n in (0, 1))
    assert kept == pytest.approx(2 * size, rel=0.05)  # float32 masters of a bfloat16 file
    assert taken < kept + size, "some rank held what is another's"
