import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from eval.__main__ import main as staged_eval
from eval.compare import against, compare
from eval.geneval.names import TASKS
from eval.published import PARTS, PUBLISHED, fitting
from eval.results import OVERALL, BenchmarkResult
from eval.wise.versions import CATEGORIES, VERSIONS

VARIANT = {"mode": "official", "prompts": "short"}


def run(name, accuracy, seed=0, *, num_prompts=60, tasks=TASKS, **variant):
    """A GenEval result whose prompts are as hard in every run of this function."""
    ease = np.random.default_rng(99).random((len(tasks), num_prompts, 1))
    drawn = np.random.default_rng(seed).random((len(tasks), num_prompts, 4))
    right = drawn * 0.4 + ease * 0.6 < accuracy
    return BenchmarkResult(
        benchmark="geneval",
        variant=VARIANT | variant,
        run=name,
        samples={
            task: {
                f"{task} {i}": tuple(map(float, images)) for i, images in enumerate(right[index])
            }
            for index, task in enumerate(tasks)
        },
        weights=dict.fromkeys(tasks, 1 / len(tasks)),
    )


def written(tmp_path, *results):
    paths = []
    for index, result in enumerate(results):
        paths.append(str(tmp_path / f"{index}.json"))
        result.write(tmp_path / f"{index}.json")
    return paths


def test_a_difference_is_that_of_the_overall_scores_and_narrower_for_the_pairing():
    base, better = run("base", 0.5, 1), run("better", 0.6, 2)
    gain = compare(better, base).estimates[OVERALL]
    assert gain.value == pytest.approx(better.overall.value - base.overall.value)
    assert gain.low > 0
    unpaired = sum((r.overall.high - r.overall.low) ** 2 for r in (base, better)) ** 0.5
    assert gain.high - gain.low < 0.8 * unpaired


def test_the_order_of_runs_turns_the_difference_around():
    base, better = run("base", 0.5, 1), run("better", 0.6, 2)
    forth, back = compare(better, base).estimates, compare(base, better).estimates
    for name, estimate in forth.items():
        assert back[name].value == pytest.approx(-estimate.value)
        assert (back[name].low, back[name].high) == pytest.approx((-estimate.high, -estimate.low))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (run("b", 0.5, prompts="long"), "prompts: long, short"),
        (replace(run("b", 0.5), benchmark="miniature"), "of one benchmark"),
        (run("b", 0.5, tasks=TASKS[:3]), "weights"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(ValueError, match=message):
        compare(other, run("a", 0.5))


def test_other_variants_are_compared_only_when_asked_and_named_then():
    difference = compare(run("b", 0.5, prompts="long"), run("a", 0.5), across_variants=True)
    assert difference.notes == ("differs in prompts: long, short",)


def test_a_published_number_is_subtracted_and_has_no_interval_of_its_own():
    ours = run("ours", 0.9)
    row = next(row for row in PUBLISHED if row.name == "BAGEL-7B staged")
    difference = against(ours, row)
    overall = difference.estimates[OVERALL]
    assert overall.value == pytest.approx(ours.overall.value - 0.83)
    assert overall.high - overall.low == pytest.approx(ours.overall.high - ours.overall.low)
    assert difference.estimates["position"].value == pytest.approx(
        ours.estimates["position"].value - 0.72
    )
    assert difference.notes == (f"source: {row.source}",)


def test_a_published_overall_is_not_compared_with_a_part_of_the_benchmark():
    row = next(row for row in PUBLISHED if row.name == "FLUX.1-dev")
    difference = against(run("ours", 0.9, tasks=TASKS[:2], prompts="as detected"), row)
    assert set(difference.estimates) == set(TASKS[:2])
    assert "lacks parts" in " ".join(difference.notes)
    assert "prompts: as detected, short" in " ".join(difference.notes)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.benchmark} {row.name}")
def test_published_overalls_follow_from_their_parts(row):
    assert row.source
    parts = {name: value for name, value in row.scores.items() if name != OVERALL}
    if OVERALL not in row.scores:  # of ablations, some tasks are given
        assert set(parts) < set(PARTS[row.benchmark])
        return
    if not parts:
        return
    assert set(parts) == set(PARTS[row.benchmark])
    if row.benchmark == "wise":
        version = VERSIONS[row.variant["version"]]
        weights = version.weights(row.variant["weighting"])
    else:
        weights = dict.fromkeys(TASKS, 1 / 6)
    overall = sum(weights[name] * value for name, value in parts.items())
    # Parts and overall were rounded apart.
    half_digit = 1e-4 if row.variant.get("version") == "verified" else 0.006
    assert overall == pytest.approx(row.scores[OVERALL], abs=half_digit)


def test_published_names_are_unique_where_they_are_looked_up():
    for benchmark, variant in (
        ("geneval", {}), ("wise", {"version": "legacy"}), ("wise", {"version": "verified"}),
    ):  # fmt: skip
        names = [row.name for row in fitting(benchmark, variant)]
        assert len(set(names)) == len(names) > 0


def test_the_versions_of_wise_are_not_mixed():
    legacy = {row.name for row in fitting("wise", {"version": "legacy"})}
    assert legacy == {"BAGEL-7B", "BAGEL-7B staged"}
    assert tuple(PARTS["wise"]) == CATEGORIES


def test_the_command_writes_every_format(tmp_path, capsys):
    base, better = run("base_run", 0.5, 1), run("better_run", 0.6, 2)
    paths = written(tmp_path, base, better)
    arguments = ["compare", *paths, "--published", "BAGEL-7B"]
    assert staged_eval(arguments) == 0
    text = capsys.readouterr().out
    gain = compare(better, base).estimates[OVERALL]
    expected = f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    assert expected in text
    assert "BAGEL-7B (published)" in text
    assert "source: arXiv 2604.04746" in text

    assert staged_eval([*arguments, "--format", "markdown"]) == 0
    assert f"| better_run - base_run | {expected} |" in capsys.readouterr().out

    assert staged_eval([*arguments, "--format", "latex", "--out", str(tmp_path / "t.tex")]) == 0
    latex = (tmp_path / "t.tex").read_text()
    assert rf"better\_run - base\_run & {expected} &" in latex
    assert latex.count(r"\begin{tabular}{lrrrrrrr}") == 2

    assert staged_eval([*arguments, "--format", "csv", "--out", str(tmp_path / "t.csv")]) == 0
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    row = next(r for r in rows if (r["run"], r["minus"], r["part"]) == (
        "better_run", "base_run", "overall"))  # fmt: skip
    assert float(row["low"]) == gain.low
    assert len(rows) == 2 * 7 + 7 + 7 + 2 * 7


def test_runs_of_one_name_are_told_apart_by_their_files(tmp_path, capsys):
    paths = written(tmp_path, run("same", 0.5, 1), run("same", 0.6, 2))
    assert staged_eval(["compare", *paths]) == 0
    assert f"same ({paths[1]}) - same ({paths[0]})" in capsys.readouterr().out


def test_mistakes_on_the_command_line_name_the_way_out(tmp_path):
    paths = written(tmp_path, run("a", 0.5))
    with pytest.raises(ValueError, match="one result alone"):
        staged_eval(["compare", *paths])
    with pytest.raises(ValueError, match=r"did you mean 'FLUX\.1-dev'"):
        staged_eval(["compare", *paths, "--published", "FLUX.1-dv"])
    (tmp_path / "x.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(ValueError, match="format 'other'"):
        staged_eval(["compare", paths[0], str(tmp_path / "x.json")])
