"""`staged eval tune-guidance`: find how strongly a checkpoint wants to be guided, and keep it.

A first sketch, an edit and a refinement are tuned apart, on scenes of the training split: what is
chosen here is afterwards measured on the other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from eval.skills.judge import Judged
from eval.skills.options import add_probing, open_probed
from eval.skills.probes import Manner, Probe, probes
from eval.tables import show
from staged.command_line import Parser, add_out_folder, console, count
from staged.jobs.progress import Progress

if TYPE_CHECKING:  # what imports torch is imported when the command runs
    from staged.model.flows import FlowKind, FlowSettings

_EXAMPLE = """examples:
  staged eval tune-guidance --checkpoint runs/staged/checkpoint --manner stage --out out/guidance
  staged eval tune-guidance --checkpoint miniature:base --text 1 2 4 --image 1 --out out/guidance

Every pair of a text scale and an image scale draws the same probes with the same noise. The best
goes into flow.yaml of the output folder, and with --keep into the checkpoint's folder too, where
every command finds it."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What one way to guide did.

    Attributes:
        flow: The way.
        right: Share of pictures that are right.
        kept: Share of things that stayed where they should; None where there were none.
    """

    flow: FlowSettings
    right: float
    kept: float | None

    def __str__(self) -> str:
        """A line for the table."""
        guidance = self.flow.guidance
        return (
            f"text {guidance.text_scale:<4g} image {guidance.image_scale:<4g} "
            f"right {self.right:.2f}  kept {show(self.kept, digits=2)}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0.

    Raises:
        ValueError: There is no such checkpoint, or none of its own to keep the result in.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    if options.keep and not Path(options.checkpoint).is_dir():
        raise ValueError(f"--keep needs a checkpoint's folder; {options.checkpoint} is none")
    manner: Manner = options.manner
    from eval.skills.ask import ask
    from staged.model.flows import FLOWS, write_flows

    engine, _ = open_probed(options)
    # Building probes takes seconds, and a checkpoint that is not there is told before.
    asked = _asked(options, manner)
    steps = options.flow_steps
    flows = engine.flows.each(
        lambda flow: flow.otherwise(num_flow_steps=steps or flow.num_flow_steps)
    )
    ways = {drawn: list(_ways(drawn, flows.of(drawn), options)) for drawn in asked}
    progress = Progress("pictures", sum(len(asked[drawn]) * len(ways[drawn]) for drawn in asked))
    figures: dict[str, float | None] = {}
    chosen = engine.flows
    for drawn, questions in asked.items():
        tried: list[Tried] = []
        for way in ways[drawn]:
            outcomes = ask(
                engine,
                questions,
                batch_size=options.batch_size,
                progress=progress,
                flows=replace(flows, **{drawn: way}),
            )
            tried.append(_count(way, outcomes))
        best = max(tried, key=lambda one: (one.right, one.kept or 0.0))
        print(f"{drawn}: {len(questions)} probes each")
        for one in tried:
            print(f"  {one}{'  <- best' if one is best else ''}")
        kept = chosen.of(drawn).otherwise(guidance=best.flow.guidance)
        chosen = replace(chosen, **{drawn: kept})
        figures |= {f"{drawn}/right": best.right, f"{drawn}/kept": best.kept}
    options.out.mkdir(parents=True, exist_ok=True)
    for folder in (options.out, *([Path(options.checkpoint)] if options.keep else [])):
        write_flows(chosen, folder)
        print(f"wrote {folder / FLOWS}")
    console().figures(figures)
    return 0


def _asked(options: argparse.Namespace, manner: Manner) -> dict[FlowKind, list[Probe]]:
    """The pictures to draw, by kind. A base is never asked to correct."""
    asked: dict[FlowKind, list[Probe]] = {}
    for probe in probes(
        num_per_skill=options.num_per_skill,
        split="train",
        manner=manner,
        seed=options.seed,
    ):
        drawn = _drawn(probe)
        if drawn is not None and drawn in options.tune:
            asked.setdefault(drawn, []).append(probe)
    if not asked:
        raise ValueError(
            f"--tune {' '.join(options.tune)}: nothing to draw; refinements come up with "
            "--manner stage alone"
        )
    return asked


def _drawn(probe: Probe) -> FlowKind | None:
    if probe.move != "sketch":
        return None
    if not probe.edits and probe.skill == "draw":
        return "first"
    return "refinement" if probe.skill.startswith("correct") else "edit"


def _ways(
    drawn: FlowKind, flow: FlowSettings, options: argparse.Namespace
) -> Iterator[FlowSettings]:
    images = [1.0] if drawn == "first" else options.image  # a first sketch has no image before it
    for text, image in product(options.text, images):
        yield flow.otherwise(guidance=replace(flow.guidance, text_scale=text, image_scale=image))


def _count(flow: FlowSettings, outcomes: Sequence[Judged]) -> Tried:
    kept = [stayed for outcome in outcomes for stayed in outcome.kept]
    return Tried(
        flow=flow,
        right=sum(outcome.right for outcome in outcomes) / len(outcomes),
        kept=sum(kept) / len(kept) if kept else None,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval tune-guidance",
        description="Find a miniature's guidance for first sketches, edits and refinements.",
        figures=True,
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add_out_folder(parser, words="folder for flow.yaml")
    add_probing(parser, num_per_skill=24, first_seed=1)
    add(
        "--tune",
        nargs="+",
        choices=("first", "edit", "refinement"),
        default=["first", "edit", "refinement"],
        help="kinds of pictures; default: all",
    )
    for name, scales in (("--text", [1.0, 1.5, 2.0, 2.5, 4.0]), ("--image", [1.0, 1.5, 2.0])):
        shown = " ".join(f"{scale:g}" for scale in scales)
        words = f"scales to try; default: {shown}"
        add(name, type=_scale, nargs="+", metavar="SCALE", default=scales, help=words)
    add("--flow-steps", type=count, help="of the trials; default: the checkpoint's")
    add("--keep", action="store_true", help="write flow.yaml into the checkpoint's folder too")
    return parser


def _scale(text: str) -> float:
    from staged.model.flows import Guidance

    try:
        return Guidance(text_scale=float(text)).text_scale
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
