"""The demo from start to end, telling what it does and why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from staged.command_line import Parser, console, exit_codes, outputs
from staged.jobs.files import read_json, write_json
from staged.jobs.progress import duration

_DESCRIPTION = """Run the whole method in miniature, on any machine, with no network: build a data
set, fine-tune a model on it, draw in stages, score the pictures, write a report. The miniature
world has 12 shapes in 10 colours on 48 x 48 pixels; everything else is the real thing."""


def main(argv: list[str]) -> int:
    """Run the command; returns 0."""
    options = _parser().parse_args(argv)
    out = options.out or outputs.folder(Path("out/demo-quick" if options.quick else "out/demo"))
    # What follows needs torch; `--help` does not.
    from staged.cli.demo import page, stages
    from staged.cli.demo.sizes import FULL, QUICK
    from staged.devices import AUTO, choose_arithmetic
    from staged.generate.role_choice import open_engine

    sizes = QUICK if options.quick else FULL
    for checkpoint in (options.base, options.staged):
        open_engine(checkpoint)  # a missing one is told now, not after minutes
    clock = Clock(out / "seconds.json")
    print(_DESCRIPTION)
    print(choose_arithmetic(AUTO, AUTO).words)

    with clock.part("Build a data set", _WHY["data"]):
        manifest = stages.build_data(out / "data", sizes)
        samples = manifest.acceptance["samples"]
        print("  " + ", ".join(f"{number} {outcome}" for outcome, number in samples.items()))
    with clock.part("Fine-tune the base model on it", _WHY["train"]):
        own = stages.fine_tune(options.base, out / "data", out / "training", sizes)
        curve = page.training_curve(out / "training" / "log.jsonl")
        print("  " + page.falling(curve))
    with clock.part("Draw in stages", _WHY["draw"]):
        drawn = stages.draw(options.staged, out / "drawn", sizes)
    with clock.part("Score", _WHY["score"]):
        scores = stages.score_all(
            {
                page.BASE: (options.base, "one-shot"),
                page.OWN: (str(own), "staged"),
                page.SHIPPED: (options.staged, "staged"),
            },
            out / "scores",
            sizes,
        )
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


class Clock:
    """Announces parts and takes their time.

    Attributes:
        seconds: Part to its time, earlier runs in the same folder included.
    """

    def __init__(self, path: Path) -> None:
        """Begin with no part.

        Args:
            path: File that keeps the times of all runs.
        """
        self.seconds: dict[str, float] = {}
        self._path = path
        kept = read_json(path) if path.is_file() else {}
        times = kept.items() if isinstance(kept, dict) else ()
        self._before = {part: float(s) for part, s in times if isinstance(s, int | float)}

    @contextmanager
    def part(self, title: str, why: str) -> Iterator[None]:
        """Frame one part; its number, title and reason stand above what it prints."""
        print(f"\n{len(self.seconds) + 1}. {title}\n   {why}", flush=True)
        began = time.monotonic()
        yield
        now = time.monotonic() - began
        before = self._before.get(title, 0.0)
        self.seconds[title] = before + now
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self._path, self._before | self.seconds)
        in_all = f", {duration(before + now)} with earlier runs" if before else ""
        print(f"   ({duration(now)}{in_all})", flush=True)


_WHY = {
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
    add(
        "--out",
        type=outputs.out_folder,
        metavar="FOLDER",
        help="folder for everything (default: out/demo)",
    )
    add("--quick", action="store_true", help="do very little of each: a check, not a show")
    add("--base", default="miniature:base", help="model to start from (default: %(default)s)")
    add("--staged", default="miniature:staged", help="model that draws (default: %(default)s)")
    return parser
