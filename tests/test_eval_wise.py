import json
from collections import Counter

import pytest

from eval.__main__ import main as staged_eval
from eval.results import BenchmarkResult
from eval.wise.judgements import image_score
from eval.wise.versions import CATEGORIES, NUM_PROMPTS, VERSIONS

BAGEL_COT = dict(zip(CATEGORIES, (0.76, 0.69, 0.75, 0.65, 0.75, 0.58), strict=True))
LEADERBOARD = dict(zip(CATEGORIES, (0.78, 0.6333, 0.5667, 0.3750, 0.55, 0.5083), strict=True))


def judged(tmp_path, records, version="legacy", *arguments):
    """Run the command on records; return its exit code and result file."""
    path, out = tmp_path / "judged.jsonl", tmp_path / "wise.json"
    path.write_text("\n".join(json.dumps(record) for record in records))
    code = staged_eval(
        ["wise", "--judgements", str(path), "--version", version, "--out", str(out), *arguments]
    )
    return code, json.loads(out.read_text())


def with_means(means, version):
    """Give every image its category's mean."""
    category = VERSIONS[version].category
    return [{"prompt_id": i, "score": means[category(i)]} for i in range(1, NUM_PROMPTS + 1)]


def bits(means, version):
    """Give as many images of each category a 1 as its mean says."""
    category = VERSIONS[version].category
    ids = range(1, NUM_PROMPTS + 1)
    left = {name: round(means[name] * n) for name, n in Counter(map(category, ids)).items()}
    records = []
    for prompt_id in ids:
        score = int(left[category(prompt_id)] > 0)
        left[category(prompt_id)] -= score
        records.append({"prompt_id": prompt_id, "score": score})
    return records


@pytest.mark.parametrize(
    ("version", "sizes"),
    [("legacy", (400, 167, 133, 100, 100, 100)), ("verified", (400, 120, 120, 120, 120, 120))],
)
def test_categories_have_their_sizes_and_weights_sum_to_one(version, sizes):
    found = Counter(map(VERSIONS[version].category, range(1, NUM_PROMPTS + 1)))
    assert tuple(found[name] for name in CATEGORIES) == sizes
    for weighting in ("official", "bagel"):
        assert sum(VERSIONS[version].weights(weighting).values()) == pytest.approx(1)
    assert VERSIONS[version].category(400) == "culture"
    assert VERSIONS[version].category(401) == "time"


@pytest.mark.parametrize(("weighting", "overall"), [("official", 0.717), ("bagel", 0.697)])
def test_bagels_legacy_row_is_reproduced(tmp_path, weighting, overall):
    records = with_means(BAGEL_COT, "legacy")
    code, result = judged(tmp_path, records, "legacy", "--weighting", weighting)
    assert code == 0
    assert result["overall"] == pytest.approx(overall, abs=5e-4)
    assert result["categories"] == pytest.approx(BAGEL_COT)
    assert (result["n"], result["unscored"]) == (1000, 0)


def test_the_verified_leaderboard_row_is_reproduced(tmp_path):
    code, result = judged(tmp_path, bits(LEADERBOARD, "verified"), "verified")
    assert code == 0
    assert round(result["overall"], 4) == 0.6280
    assert result["categories"] == pytest.approx(LEADERBOARD, abs=5e-5)
    assert result["interval"][0] < 0.6280 < result["interval"][1]
    # With all images scored the weights are shares, so the overall is the plain mean of bits.
    assert result["overall"] == pytest.approx(628 / 1000)


def test_aspects_make_the_image_score():
    assert image_score(2, 2, 2) == 1.0
    assert image_score(2, 0, 0) == pytest.approx(0.7)
    assert image_score(1, 1, 0) == pytest.approx(0.45)
    assert image_score(0, 0, 1) == pytest.approx(0.05)


def test_aspects_are_read_from_lines_of_the_reference(tmp_path):
    records = [
        {"prompt_id": i, "Subcategory": "x", "consistency": 1.0, "realism": 2.0,
         "aesthetic_quality": 1}
        for i in range(1, NUM_PROMPTS + 1)
    ]  # fmt: skip
    code, result = judged(tmp_path, records)
    assert code == 0
    assert result["overall"] == pytest.approx(0.6)


@pytest.mark.parametrize(
    "broken",
    [
        {"score": None},
        {},
        {"score": "1"},
        {"score": 2},
        {"score": True},
        {"consistency": 9.9, "realism": 9.9, "aesthetic_quality": 9.9},
        {"consistency": 2, "realism": 2, "aesthetic_quality": 999},
        {"consistency": 2, "realism": 2},
    ],
)
def test_what_was_not_understood_is_unscored_and_fails_the_run(tmp_path, capsys, broken):
    records = with_means(BAGEL_COT, "legacy")
    records[0] = {"prompt_id": 1} | broken
    code, result = judged(tmp_path, records)
    assert code == 1
    assert "1 samples are unscored" in capsys.readouterr().err
    assert (result["n"], result["unscored"]) == (999, 1)
    assert result["categories"]["culture"] == pytest.approx(0.76)
    code, result = judged(tmp_path, records, "legacy", "--allow-unscored")
    assert code == 0
    assert result["estimates"]["culture"]["unscored"] == 1


def test_images_without_a_judgement_are_unscored(tmp_path, capsys):
    code, result = judged(tmp_path, with_means(BAGEL_COT, "legacy")[:700])
    assert code == 1
    assert "unscored: 300, no judgement" in capsys.readouterr().out
    # Whole categories are missing, so there is no overall score at all.
    assert result["overall"] is None
    assert result["categories"]["biology"] is None
    assert result["categories"]["space"] == pytest.approx(0.75)


def test_fractions_of_the_verified_version_are_pointed_out(tmp_path, capsys):
    code, result = judged(tmp_path, with_means(LEADERBOARD, "verified"), "verified")
    assert code == 0
    assert round(result["overall"], 4) == 0.6280
    assert "1000 scores are neither 0 nor 1" in capsys.readouterr().out
    assert result["variant"]["scores"] == "fractions"


@pytest.mark.parametrize(
    ("version", "lines", "message"),
    [
        ("legacy", ['{"prompt_id": 1, "score": 1}', "{"], ":2: not valid JSON"),
        ("legacy", ["[1]"], ":1: expected an object"),
        ("legacy", ['{"score": 1}'], ":1.prompt_id: None"),
        ("legacy", ['{"prompt_id": 1001, "score": 1}'], "expected 1 to 1000"),
        ("legacy", ['{"prompt_id": "1", "score": 1}'], "expected 1 to 1000"),
        ("legacy", ['{"prompt_id": 7, "score": 1}'] * 2, ":2: prompt_id 7 stands at "),
        ("verified", ['{"prompt_id": 7, "consistency": 1}'], "judged in the legacy version"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, version, lines, message):
    path = tmp_path / "judged.jsonl"
    path.write_text("\n".join(lines))
    arguments = ["wise", "--judgements", str(path), "--version", version]
    with pytest.raises(ValueError, match=message) as caught:
        staged_eval([*arguments, "--out", str(tmp_path / "o.json")])
    assert str(caught.value).startswith(str(path))


def test_results_are_equal_whatever_the_order_of_lines(tmp_path):
    records = bits(LEADERBOARD, "verified")
    _, first = judged(tmp_path, records, "verified")
    written = (tmp_path / "wise.json").read_bytes()
    judged(tmp_path, records[::-1], "verified")
    assert (tmp_path / "wise.json").read_bytes() == written
    assert BenchmarkResult.read(tmp_path / "wise.json").overall.value == first["overall"]
