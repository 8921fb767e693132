"""How full packs are, and how long ranks wait for the fullest, by how samples are put into them.

    python benchmarks/packing.py
    python benchmarks/packing.py --lengths CACHE/0123456789abcdef.npz --pack-tokens 4800

Against a pack that is filled until the next sample does not fit. Without lengths: trajectories of
three to five images of 512 x 512 (1,024 latent tokens and as many patches each), 33,000 tokens a
pack. No clock: shares of tokens, alike on every machine. One JSON line a way.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from train.plan import PackPlan


def main() -> int:
    """Pack one epoch both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=Path, help="a table in the cache of a run")
    parser.add_argument("--pack-tokens", type=int, default=33_000)
    parser.add_argument("--ranks", type=int, default=8)
    arguments = parser.parse_args()
    lengths = _made_up() if arguments.lengths is None else np.load(arguments.lengths)["lengths"]
    most = arguments.pack_tokens
    plan = PackPlan(lengths, np.ones(len(lengths)), pack_tokens=most, seed=0)
    packs: list[list[tuple[int, int]]] = []
    while not packs or packs[-1][0][1] == 0:  # epoch 0
        packs.append(plan.pack(len(packs)))
    order = np.random.default_rng(0).permutation(lengths).tolist()
    ways: dict[str, list[int]] = {
        "one pack at a time": list(_one_at_a_time(order, most)),
        "as training does": [sum(int(lengths[i]) for i, _ in pack) for pack in packs[:-1]],
    }
    for way, tokens in ways.items():
        of_ranks = np.array(tokens[: len(tokens) // arguments.ranks * arguments.ranks])
        slowest = of_ranks.reshape(-1, arguments.ranks).max(axis=1)
        line = {
            "way": way,
            "packs": len(tokens),
            "fill": round(float(np.mean(tokens)) / most, 3),
            f"of the fullest of {arguments.ranks} ranks": round(
                float(of_ranks.mean() / slowest.mean()), 3
            ),
        }
        print(json.dumps(line))
    return 0


def _one_at_a_time(lengths: Iterable[int], most: int) -> Iterable[int]:
    tokens = 0
    for length in lengths:
        if tokens + length > most:
            yield tokens
            tokens = 0
        tokens += length
    yield tokens


def _made_up() -> NDArray[np.int64]:
    rng = np.random.default_rng(0)
    images = rng.integers(3, 6, 20_000)
    return np.asarray(images * 2048 + rng.integers(200, 900, 20_000), np.int64)


if __name__ == "__main__":
    sys.exit(main())
