"""`staged eval skills`: ask a checkpoint for one step at a time, and count what it can do."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from eval.results import BenchmarkResult, versions
from eval.skills.judge import Judged
from eval.skills.options import add_probing, open_probed
from eval.skills.probes import Manner, Probe, probes
from eval.statistics import Observation, mean
from eval.tables import show
from staged.command_line import Parser, add_out_folder, console
from staged.jobs.progress import Progress

VERSION = "1"
RESULT = "result.json"
_share = partial(show, digits=2)
_EXAMPLE = """examples:
  staged eval skills --checkpoint miniature:base --manner request --out out/skills_base
  staged eval skills --checkpoint miniature:staged --manner stage --out out/skills_staged

Each skill is tested by one step between right pictures, so that "cannot draw", "cannot keep",
"cannot see" and "cannot compose" are told apart. With --manner stage the model is also asked for
inspections and corrections."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0.

    Raises:
        ValueError: There is no such checkpoint.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    manner: Manner = options.manner
    from eval.skills.ask import ask
    from staged.model.weights_hash import weights_hash

    engine, chosen = open_probed(options)
    # Building probes takes seconds, and a checkpoint that is not there is told before.
    asked = list(
        probes(
            num_per_skill=options.num_per_skill,
            split=options.split,
            manner=manner,
            seed=options.seed,
        )
    )
    weights = weights_hash((engine.model, engine.codec.autoencoder))
    progress = Progress("probes", len(asked))
    outcomes = ask(engine, asked, batch_size=options.batch_size, progress=progress)
    result = _result(
        asked,
        outcomes,
        run=options.checkpoint,
        variant={"version": VERSION, "split": options.split, "manner": manner},
        provenance={
            "weights_sha256": weights,
            "device": str(chosen.device),
            "dtype": chosen.dtype_name,
            "quantization": options.quantization,
            "versions": versions(),
        },
    )
    result.write(options.out / RESULT)
    print(f"{options.checkpoint}, edits by {manner}, {options.split} scenes")
    print(_table(result))
    console().figures(result.figures())
    print(f"wrote {options.out / RESULT}")
    return 0


def _result(
    asked: Sequence[Probe],
    outcomes: Sequence[Judged],
    *,
    run: str,
    variant: dict[str, str],
    provenance: dict[str, Any],
) -> BenchmarkResult:
    parts: dict[str, dict[str, tuple[float | None, ...]]] = {}
    done, kept = defaultdict(list), defaultdict(list)
    for probe, outcome in zip(asked, outcomes, strict=True):
        clusters = parts.setdefault(probe.skill, {})
        clusters[probe.cluster] = (*clusters.get(probe.cluster, ()), float(outcome.right))
        if probe.edits:
            observed = Observation(cluster=probe.cluster, value=float(outcome.done))
            done[probe.skill].append(observed)
        for stayed in outcome.kept:
            observed = Observation(cluster=probe.cluster, value=float(stayed))
            kept[probe.skill].append(observed)
            kept["all"].append(observed)
    return BenchmarkResult(
        benchmark="skills",
        variant=variant,
        samples=parts,
        weights=dict.fromkeys(parts, 1 / len(parts)),
        run=run,
        also={
            **{f"done/{skill}": mean(found) for skill, found in done.items()},
            **{f"kept/{skill}": mean(found) for skill, found in kept.items()},
        },
        provenance=provenance,
    )


def _table(result: BenchmarkResult) -> str:
    lines = [f"{'':24}{'right':>7}  {'95% interval':16}{'done':>6}{'kept':>6}{'probes':>8}"]
    for name, estimate in result.estimates.items():
        also = [result.also.get(f"{what}/{name}") for what in ("done", "kept")]
        shown = "".join(f"{_share(a.value if a else None):>6}" for a in also)
        low, high = _share(estimate.low), _share(estimate.high)
        lines.append(
            f"{name:24}{_share(estimate.value):>7}  {f'{low} to {high}':16}{shown}{estimate.n:>8}"
        )
    return "\n".join(lines)


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval skills",
        description="Test what a miniature can do, skill by skill, one step at a time.",
        figures=True,
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add_out_folder(parser, words="folder for the result")
    add_probing(parser, num_per_skill=40, first_seed=0)
    add(
        "--split",
        choices=("train", "test"),
        default="test",
        help="combinations that training shows, or does not; default: %(default)s",
    )
    return parser
