"""`staged eval compare A.json B.json …`: runs side by side, and how sure their differences are.

Runs are paired prompt by prompt, so what makes a prompt hard for both does not blur the
difference. A published number came without samples and without an interval: the difference to it
has only the run's own uncertainty. Results of different variants are refused, because such numbers
differ without any difference between the models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.published import PARTS, Published, fitting, named
from eval.results import OVERALL, BenchmarkResult
from eval.statistics import METHOD, Estimate, minus_constant, paired_difference, weighted_mean
from eval.tables import FORMATS, show, show_interval
from staged.command_line import Parser, UsageError, add_out_file, console, outputs

EXIT_OK = 0
_DIGITS = 3


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much higher one run is than something else.

    Attributes:
        run: The one.
        reference: The other run, or the published system.
        estimates: By part, and `overall`; parts that the reference lacks are absent.
        notes: What of the variant differs, and what could not be paired.
    """

    run: str
    reference: str
    estimates: dict[str, Estimate]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.run} - {self.reference}"

    def figures(self) -> dict[str, Any]:
        """What `--json` tells of it."""
        estimates = {name: estimate.as_dict() for name, estimate in self.estimates.items()}
        return {"run": self.run, "reference": self.reference, **estimates}


def compare(
    run: BenchmarkResult, reference: BenchmarkResult, *, across_variants: bool = False
) -> Difference:
    """Pair two runs.

    Args:
        run: The one whose gain is estimated.
        reference: The other.
        across_variants: Accept results of different variants of one benchmark; the notes say what
            differs.

    Raises:
        ValueError: other benchmarks, parts, weights or bounds, or, unless it is accepted,
            other variants.
    """
    if run.benchmark != reference.benchmark:
        raise ValueError(
            f"{run.run} is of {run.benchmark} and {reference.run} of {reference.benchmark}; "
            "compare results of one benchmark"
        )
    differing = _differing(run.variant, reference.variant)
    if differing and not across_variants:
        raise ValueError(
            f"{run.run} and {reference.run} are of different variants ({'; '.join(differing)}), "
            "so their scores differ whatever the models do; --across-variants compares them anyway"
        )
    if dict(run.weights) != dict(reference.weights):
        raise ValueError(
            f"{run.run} has the parts and weights {dict(run.weights)}, {reference.run} "
            f"{dict(reference.weights)}; only equal ones have comparable overall scores"
        )
    if run.bounds != reference.bounds:
        raise ValueError(
            f"scores of {run.run} lie within {run.bounds}, those of {reference.run} within "
            f"{reference.bounds}; compare scores of one scale"
        )
    parts = {
        part: paired_difference(
            reference.observations(part), run.observations(part), bounds=run.bounds
        )
        for part in run.samples
    }
    overall = weighted_mean([(run.weights[part], parts[part]) for part in parts])
    notes = [f"differs in {text}" for text in differing]
    if overall.unpaired:
        notes.append(f"{overall.unpaired} prompts have scores on one side only and are left out")
    if overall.unscored:
        notes.append(f"{overall.unscored} samples of the two runs are unscored")
    return Difference(
        run=run.run,
        reference=reference.run,
        estimates={OVERALL: overall, **parts},
        notes=tuple(notes),
    )


def against(run: BenchmarkResult, published: Published) -> Difference:
    """Compare a run with a published number; the interval is the run's alone."""
    known = {key: run.variant.get(key, "unknown") for key in published.variant}
    notes = [f"differs in {text}" for text in _differing(known, published.variant)]
    if run.overall.unscored:
        notes.append(f"{run.overall.unscored} samples of {run.run} are unscored")
    complete = set(run.samples) == set(PARTS[published.benchmark])
    if not complete:
        notes.append(f"{run.run} lacks parts, so its overall score is another")
    return Difference(
        run=run.run,
        reference=published.name,
        estimates={
            name: minus_constant(estimate, published.scores[name])
            for name, estimate in run.estimates.items()
            if name in published.scores and (complete or name != OVERALL)
        },
        notes=(*notes, f"source: {published.source}"),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval compare`.

    Args:
        argv: Arguments after `staged eval compare`; the process's own when None.

    Raises:
        ValueError: a file is no result, or the results cannot be compared or share no score.
        OSError: a file cannot be read or written.
    """
    arguments = _parser().parse_args(argv)
    results = [BenchmarkResult.read(path) for path in arguments.results]
    results = named_apart(results, arguments.results)
    first = results[0]
    published = _chosen(first, arguments.published)
    if len(results) < 2 and not published:
        raise UsageError("one result alone; give another, or --published NAME (or all)")
    differences = [
        compare(run, first, across_variants=arguments.across_variants) for run in results[1:]
    ] + [against(run, row) for row in published for run in results]
    if not any(e.num_clusters for difference in differences for e in difference.estimates.values()):
        raise ValueError(
            f"nothing to compare with {first.run}: no prompt has scores in both of two results"
        )
    console().figures(
        {
            "results": [result.figures() for result in results],
            "differences": [difference.figures() for difference in differences],
        }
    )
    outputs.show(render(results, published, differences, arguments.format), arguments.out)
    return EXIT_OK


def render(
    results: Sequence[BenchmarkResult],
    published: Sequence[Published],
    differences: Sequence[Difference],
    style: str,
) -> str:
    """Write scores and differences as a document.

    Args:
        results: The runs, of the same parts.
        published: What they are compared with.
        differences: Between them.
        style: `text`, `markdown` or `latex`: two tables and notes. `csv`: one table with a line
            for each number and its interval.
    """
    if style == "csv":
        return _long_table(results, published, differences)
    names = list(results[0].estimates)
    scores = [
        [run.run, *(_cell(run.estimates.get(name), signed=False) for name in names)]
        for run in results
    ] + [
        [f"{row.name} (published)", *(show(row.scores.get(name), digits=2) for name in names)]
        for row in published
    ]
    gains = [
        [one.name, *(_cell(one.estimates.get(name), signed=True) for name in names)]
        for one in differences
    ]
    blocks = [
        _table(style, ["score", *names], scores),
        _table(style, ["difference", *names], gains),
    ]
    variant = ", ".join(f"{key} {value}" for key, value in results[0].variant.items())
    notes = [f"{results[0].benchmark}: {variant}", f"intervals: {METHOD}"]
    notes += [f"{one.name}: {note}" for one in differences for note in one.notes]
    comment = {"text": "", "markdown": "- ", "latex": "% "}[style]
    return "\n\n".join([*blocks, "\n".join(comment + note for note in notes)])


def _table(style: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a line for each run, as papers do; on a terminal, which is narrow, for each part."""
    if style == "text":
        header, *rows = [list(column) for column in zip(header, *rows, strict=True)]
    return FORMATS[style](header, rows)


def _long_table(
    results: Sequence[BenchmarkResult],
    published: Sequence[Published],
    differences: Sequence[Difference],
) -> str:
    header = ["run", "minus", "part", "value", "low", "high", "n", "prompts", "unscored"]
    rows = [
        _long_row(run.run, "", name, estimate)
        for run in results
        for name, estimate in run.estimates.items()
    ]
    rows += [
        [row.name, "", name, repr(value), *[""] * 5]
        for row in published
        for name, value in row.scores.items()
    ]
    rows += [
        _long_row(difference.run, difference.reference, name, estimate)
        for difference in differences
        for name, estimate in difference.estimates.items()
    ]
    return FORMATS["csv"](header, rows)


def _long_row(run: str, reference: str, name: str, estimate: Estimate) -> list[str]:
    ends = (estimate.value, estimate.low, estimate.high)
    counts = (estimate.n, estimate.num_clusters, estimate.unscored)
    return [
        run,
        reference,
        name,
        *("" if end is None else repr(end) for end in ends),
        *map(str, counts),
    ]


def _cell(estimate: Estimate | None, *, signed: bool) -> str:
    if estimate is None:
        return "-"
    value = show(estimate.value, signed=signed, digits=_DIGITS)
    return f"{value} {show_interval(estimate, signed=signed, digits=_DIGITS)}".rstrip()


def _differing(a: Mapping[str, str], b: Mapping[str, str]) -> list[str]:
    keys = sorted({*a, *b})
    return [
        f"{key}: {a.get(key, 'unknown')}, {b.get(key, 'unknown')}"
        for key in keys
        if a.get(key) != b.get(key)
    ]


def named_apart(results: Sequence[BenchmarkResult], paths: Sequence[Path]) -> list[BenchmarkResult]:
    """Add the file to names of runs that are not unique."""
    names = [result.run for result in results]
    return [
        result
        if result.run and names.count(result.run) == 1
        else replace(result, run=f"{result.run} ({path})".strip())
        for result, path in zip(results, paths, strict=True)
    ]


def _chosen(result: BenchmarkResult, names: Sequence[str]) -> list[Published]:
    if list(names) == ["all"]:
        return fitting(result.benchmark, result.variant)
    return [named(name, result.benchmark, result.variant) for name in names]


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval compare",
        description="Compare results of one benchmark: each with the first, paired by prompt.",
        figures=True,
        epilog="example: staged eval compare base.json staged.json --published BAGEL-7B\n"
        "         staged eval compare base.json staged.json --format latex --out table.tex",
    )
    add = parser.add_argument
    add(
        "results",
        type=Path,
        nargs="+",
        metavar="RESULT.json",
        help="the first is what the others are compared with",
    )
    add(
        "--published",
        nargs="+",
        default=[],
        metavar="NAME",
        help="published systems to compare with; `all` takes all of the benchmark",
    )
    add("--format", choices=list(FORMATS), default="text", help="(default: %(default)s)")
    add_out_file(parser, required=False, words="write there instead of to the terminal")
    add(
        "--across-variants",
        action="store_true",
        help="compare although prompts, judge, weighting or the like differ",
    )
    return parser
