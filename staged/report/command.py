"""`staged report`: show saved trajectories as one web page."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from staged.command_line import Parser, add_out_file, count, exit_codes
from staged.report.drawn import drawn_report
from staged.report.figures import Curve
from staged.report.page import Report
from staged.report.sections import Notes, Trajectories
from staged.shards import read_shards
from staged.shards.folder import INDEX
from staged.trajectory import Trajectory
from staged.trajectory_folder import TRAJECTORY, load_trajectory

_EXAMPLE = """example:
  staged report out/example --out out/example/report.html
  staged report data/plan_sketch --limit 20 --log runs/first/log.jsonl"""


def main(argv: list[str]) -> int:
    """Run the command; returns 0."""
    parser = Parser(
        prog="staged report",
        description="Show trajectories as one web page that needs no network.",
        epilog=_EXAMPLE,
    )
    add = parser.add_argument
    add("paths", nargs="+", type=Path, help="results of `staged generate`, or folders of shards")
    add_out_file(parser, "out/report.html", words="page to write")
    add("--title", default="Trajectories", help="heading of the page")
    add("--limit", type=count, default=100, help="trajectories of each path (default: %(default)s)")
    add("--fold", action="store_true", help="show prompts and last images, open the rest on click")
    add("--log", type=Path, metavar="FILE", help="a training run's log.jsonl, shown as a curve")
    options = parser.parse_args(argv)
    found = {path: load_all(path, options.limit) for path in options.paths}
    sources = Notes(title="Sources", paragraphs=[str(path) for path in options.paths])
    losses = {"mse": "image loss", "ce": "text loss"}
    curves = [] if options.log is None else [Curve.from_log(options.log, losses)]
    trajectories = [one for several in found.values() for one in several]
    if len(trajectories) == 1 and not options.fold:
        report = drawn_report(trajectories, title=options.title)
        report = replace(report, sections=[*report.sections, *curves, sources])
    else:
        several = [_shown(path, shown, folded=options.fold) for path, shown in found.items()]
        report = Report(title=options.title, sections=[*curves, *several, sources])
    print(report.write(options.out))
    return exit_codes.OK


def _shown(path: Path, trajectories: Sequence[Trajectory], *, folded: bool) -> Trajectories:
    complete = sum(trajectory.complete for trajectory in trajectories)
    return Trajectories(
        title=path.name,
        trajectories=trajectories,
        intro=f"{len(trajectories)} shown, {complete} of them complete.",
        folded=folded,
    )


def load_all(path: Path, limit: int) -> list[Trajectory]:
    """Read the first trajectories under a path.

    Args:
        path: A folder of shards; or a `trajectory.json`, a folder that holds one, or a folder of
            such folders.
        limit: Most trajectories.

    Raises:
        ValueError: there is none, or one is damaged.
    """
    if (path / INDEX).is_file():
        shown = [sample.trajectory for sample in islice(read_shards(path), limit)]
        if not shown:
            raise ValueError(f"{path} is a data set without samples")
        return shown
    if path.is_file() or (path / TRAJECTORY).is_file():
        return [load_trajectory(path)]
    found = sorted(path.glob(f"*/{TRAJECTORY}"))[:limit]
    if not found:
        raise ValueError(f"{path} holds neither {TRAJECTORY} nor folders with one, nor {INDEX}")
    return [load_trajectory(file) for file in found]
