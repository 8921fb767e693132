"""The demo from start to end, telling what it does and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from staged.cli.demo.clock import Clock
from staged.command_line import Parser, add_out_folder, console, count, exit_codes, outputs
from staged.jobs.progress import duration

if TYPE_CHECKING:
    from staged.cli.demo.pace import Pacing
    from staged.cli.demo.stages import FineTuned
    from staged.report import Curve

PACE = "pace.json"
"""What was measured and decided."""
MINUTES = 8
"""Of ten that are promised: machines become busy."""

_DESCRIPTION = """Run the whole method in miniature, on any machine, with no network: build a data
set, fine-tune a model on it, draw in stages, score the pictures, write a report. The miniature
world has 12 shapes in 10 colours on 48 x 48 pixels; everything else is the real thing."""


def main(argv: list[str]) -> int:
    """Run the command; returns 0."""
    options = _parser().parse_args(argv)
    out = options.out or outputs.folder(Path("out/demo-quick" if options.quick else "out/demo"))
    # What follows needs torch; `--help` does not.
    from staged.cli.demo import page, stages
    from staged.cli.demo.pace import Pacing
    from staged.cli.demo.speed import threads
    from staged.devices import AUTO, choose_arithmetic
    from staged.generate.role_choice import open_engine

    for checkpoint in (options.base, options.staged):
        open_engine(checkpoint)  # a missing one is told now, not after minutes
    clock = Clock(out / "seconds.json")
    print(_DESCRIPTION)
    print(choose_arithmetic(AUTO, AUTO).words)

    pacing = Pacing(out / PACE, lambda: 60.0 * options.minutes - clock.spent())
    if not options.quick:
        with clock.part("Measure this machine", _WHY["measure"]):
            pacing.measure(options.base)
    with clock.part("Build a data set", _WHY["data"]):
        manifest = stages.build_data(out / "data", pacing.sizes("num_prompts"))
        samples = manifest.acceptance["samples"]
        print("  " + ", ".join(f"{number} {outcome}" for outcome, number in samples.items()))
    with clock.part("Fine-tune the base model on it", _WHY["train"]), threads():
        own, curve = _fine_tune(options.base, out, pacing)
    with clock.part("Draw in stages", _WHY["draw"]), threads(pacing.draw_threads):
        drawn = stages.draw(options.staged, out / "drawn", pacing.sizes("num_per_task"))
    with clock.part("Score", _WHY["score"]), threads(pacing.draw_threads):
        scored = {
            page.BASE: (options.base, "one-shot"),
            page.OWN: (str(own.checkpoint), "staged"),
            page.SHIPPED: (options.staged, "staged"),
        }
        scores = stages.score_all(scored, out / "scores", pacing.sizes("num_per_task"))
        print(page.scores_in_words(scores))

    report = page.build(
        manifest=manifest,
        examples=stages.examples(out / "data", 6),
        curve=curve,
        drawn=drawn,
        scores=scores,
        seconds=clock.seconds,
        quick=options.quick,
    ).write(out / "report.html")
    console().figures(
        {
            "report": str(report),
            "scores": {score.label: score.result.figures() for score in scores},
            "seconds": clock.seconds,
        }
    )
    total = duration(sum(clock.seconds.values()))
    print(f"\nDone; it took {total}. Open {report} in a browser.\n\nTo go on:")
    print(_NEXT.format(out=out, staged=options.staged))
    return exit_codes.OK


def _fine_tune(base: str, out: Path, pacing: Pacing) -> tuple[FineTuned, Curve]:
    """Train on the data set that was built; returns what came of it, and its losses."""
    from staged.cli.demo import page, stages

    sizes = pacing.sizes("num_steps")
    length = pacing.length()
    if length:
        print(f"   {length}")
    own = stages.fine_tune(base, out / "data", out / "training", sizes)
    length += pacing.trained(own.num_steps, own.step_s)
    curve = page.training_curve(out / "training" / "log.jsonl", length)
    print("  " + page.falling(curve))
    return own, curve


_WHY = {
    "measure": "A few trajectories, training steps and pictures show how much of each fits into\n"
    "   the time. They are thrown away.",
    "data": "The method learns from trajectories: a scene graph is cut into increments, each\n"
    "   becomes an instruction and a picture, and a judge keeps the steps that are right.\n"
    "   Deliberate mistakes are put in, to teach inspection and refinement.",
    "train": "A real BAGEL, only small: text by cross entropy, pictures by flow matching, packed\n"
    "   into one sequence. A few minutes show the loss fall; they do not make a good model.",
    "draw": "The shipped model was trained the same way for longer. It plans, sketches, inspects,\n"
    "   refines and stops by its own tokens.",
    "score": "Prompts that training never showed. A detector looks at the pixels alone, by\n"
    "   GenEval's rules; every way of drawing gets the same prompts and the same noise.",
}

_NEXT = """  staged generate "a photo of a blue ring above a red heart" --checkpoint {staged}
  staged eval miniature --checkpoint {staged} --mode staged --num-per-task 100 --out out/staged
  staged report {out}/data --limit 50 --out {out}/data.html"""


def _parser() -> Parser:
    parser = Parser(
        prog="staged demo",
        figures=True,
        description=_DESCRIPTION,
        epilog="example: staged demo --out out/demo\n\n"
        "The same command goes on where it was interrupted.",
    )
    add = parser.add_argument
    add_out_folder(parser, required=False, words="folder for everything (default: out/demo)")
    add(
        "--minutes",
        type=count,
        default=MINUTES,
        metavar="N",
        help="how long it may take: the fine-tune is sized by it (default: %(default)s)",
    )
    add("--quick", action="store_true", help="do very little of each: a check, not a show")
    add("--base", default="miniature:base", help="model to start from (default: %(default)s)")
    add("--staged", default="miniature:staged", help="model that draws (default: %(default)s)")
    return parser
