import json
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from eval import downloads
from eval.__main__ import main as staged_eval
from eval.downloads import PinnedFile, sha256_of
from eval.geneval.detections import parse_line, read_detections
from eval.geneval.folders import image_path, read_folders, write_folders
from eval.geneval.names import CLASSES, TASKS
from eval.geneval.prompt import parse_prompt
from eval.geneval.prompts import PINNED, load_prompts, parse_prompts
from eval.geneval.scoring import ImageScore, judge, kept, relations, to_color
from eval.geneval.summary import ANY_CORRECT, is_complete, summarise
from eval.results import BenchmarkResult
from staged.roles import Detection

GOLDEN = Path(__file__).parent / "golden" / "geneval_cases.jsonl"


def prompt(tag="single_object", text="a photo of a cat", include=None, exclude=None):
    record = {"tag": tag, "include": include or [{"class": "cat", "count": 1}], "prompt": text}
    return parse_prompt(record | ({"exclude": exclude} if exclude else {}), "test")


def found(name="cat", score=0.95, box=(0, 0, 10, 10), color=None):
    return Detection(class_name=name, box=box, score=score, color=color)


def line(detections, metadata=None, **more):
    metadata = metadata or prompt().as_dict()
    return json.dumps({"metadata": metadata, "detections": detections, **more})


def seen(label="cat", score=0.95, **more):
    return {"label": label, "box": [0, 0, 10, 10], "score": score, **more}


def test_all_golden_cases_have_the_reference_verdict_and_reason():
    lines = list(read_detections(GOLDEN))
    assert len(lines) == 400
    for case in lines:
        expected = ImageScore(correct=case.record["correct"], reason=case.record["reason"])
        assert case.verdict() == expected, case.place


def test_counting_asks_for_surer_detections():
    threes = [found(score=s) for s in (0.95, 0.91, 0.9, 0.5)]
    two = [{"class": "cat", "count": 2}]
    fewer = [{"class": "cat", "count": 3}]
    assert judge(prompt("counting", include=two, exclude=fewer), threes).correct
    other = judge(prompt("two_object", include=two, exclude=fewer), threes)
    assert other.reason == "expected cat<3, found 4"


def test_a_score_on_the_threshold_does_not_count():
    assert kept([found(score=0.3)], "position") == {}
    assert kept([found(score=0.9)], "counting") == {}


def test_at_most_sixteen_of_a_class_are_kept_best_first_and_equal_scores_reversed():
    many = [found(score=0.5, box=(i, 0, i + 1, 1)) for i in range(20)]
    many.append(found(score=0.6, box=(99, 0, 100, 1)))
    best = kept(many, "colors")["cat"]
    assert [d.box[0] for d in best] == [99, *range(19, 4, -1)]


def test_only_the_best_scored_objects_are_looked_at_for_color():
    red_cat = prompt("colors", include=[{"class": "cat", "count": 1, "color": "red"}])
    best_is_blue = [found(score=0.8, color="red"), found(score=0.9, color="blue")]
    assert judge(red_cat, best_is_blue).reason == "expected red cat>=1, found 0 red; and 1 blue"
    assert to_color(red_cat, best_is_blue) == [best_is_blue[1]]
    # A color that nobody will ask for may be missing; one that is asked for may not.
    assert judge(red_cat, [found(score=0.8), found(score=0.9, color="red")]).correct
    missing = judge(red_cat, [found(score=0.8, color="red"), found(score=0.9)])
    assert missing.correct is None
    assert missing.reason.startswith("unscored")


@pytest.mark.parametrize(
    ("a", "expected"),
    [
        ((0, 50, 10, 60), ("left of",)),
        ((100, 50, 110, 60), ("right of",)),
        ((50, 0, 60, 10), ("above",)),
        ((50, 100, 60, 110), ("below",)),
        ((0, 0, 10, 10), ("left of", "above")),
        ((50, 50, 60, 60), ()),
        # 4 px off, sizes 10 and 10: 2 px are taken off, and 2/4 is not above a half.
        ((54, 50, 64, 60), ()),
        ((55, 50, 65, 60), ("right of",)),
        # Corners may come in any order.
        ((110, 60, 100, 50), ("right of",)),
    ],
)
def test_relations_are_measured_against_the_whole_offset(a, expected):
    assert relations(a, (50, 50, 60, 60)) == expected


def test_relations_must_hold_for_every_pair():
    record = [
        {"class": "dog", "count": 1},
        {"class": "cat", "count": 2, "position": ["left of", 0]},
    ]
    dog = found("dog", box=(50, 0, 60, 10))
    left, right = found(box=(0, 0, 10, 10)), found(box=(100, 0, 110, 10), score=0.9)
    asked = prompt("position", include=record)
    assert judge(asked, [dog, left, left]).correct
    assert judge(asked, [dog, left, right]).reason == (
        "expected cat left of target, found right of target"
    )


def test_overall_is_the_mean_of_tasks_by_hand():
    # single: 3 of 4 images and both prompts at least once; counting: 1 of 4 and one of two.
    tags = ["single_object"] * 4 + ["counting"] * 4
    texts = ["a", "a", "b", "b", "c", "c", "d", "d"]
    right = [True, True, True, False, True, False, False, False]
    result = summarise(
        [
            (prompt(tag, text), ImageScore(correct=value, reason=""))
            for tag, text, value in zip(tags, texts, right, strict=True)
        ],
        variant={},
    )
    assert result.estimates["single_object"].value == 0.75
    assert result.estimates["counting"].value == 0.25
    assert result.overall.value == 0.5
    assert result.also[ANY_CORRECT].value == 0.75
    assert (result.overall.n, result.overall.num_clusters) == (8, 4)
    assert not is_complete(result)


def test_images_that_never_arrived_are_unscored_and_not_wrong():
    prompts = [prompt(text="a"), prompt(text="b")]
    right = ImageScore(correct=True, reason="")
    result = summarise([(prompts[0], right)] * 3, expected=prompts, variant={})
    assert result.overall.value == 1.0
    assert (result.overall.n, result.overall.unscored) == (3, 5)
    assert result.also[ANY_CORRECT].unscored == 1
    with pytest.raises(ValueError, match="5 images; expected 4"):
        summarise([(prompts[0], right)] * 5, expected=prompts, variant={})
    with pytest.raises(ValueError, match="not in the prompt file"):
        summarise([(prompt(text="z"), right)], expected=prompts, variant={})


def test_the_command_adds_verdicts_and_prints_tasks(tmp_path, capsys):
    out, result_path = tmp_path / "out.jsonl", tmp_path / "result.json"
    arguments = ["geneval", "--detections", str(GOLDEN), "--out", str(out)]
    assert staged_eval([*arguments, "--result", str(result_path)]) == 0
    expected = [json.loads(text) for text in GOLDEN.read_text().splitlines()]
    assert [json.loads(text) for text in out.read_text().splitlines()] == expected
    printed = capsys.readouterr().out
    by_task = {
        task: [case["correct"] for case in expected if case["metadata"]["tag"] == task]
        for task in TASKS
    }
    overall = sum(sum(values) / len(values) for values in by_task.values()) / 6
    assert f"{overall:.4f}" in next(t for t in printed.splitlines() if t.startswith("overall"))
    result = BenchmarkResult.read(result_path)
    assert tuple(result.samples) == TASKS
    assert result.overall.value == pytest.approx(overall)
    assert is_complete(result)


def test_shuffled_input_leaves_the_same_result_file(tmp_path):
    lines = GOLDEN.read_text().splitlines()
    random.Random(5).shuffle(lines)
    files = []
    for name, text in (("a", GOLDEN.read_text()), ("b", "\n".join(lines))):
        path, result = tmp_path / name, tmp_path / f"{name}.json"
        path.write_text(text)
        staged_eval(
            ["geneval", "--detections", str(path), "--out", str(tmp_path / "o"),
             "--result", str(result), "--name", "run"]
        )  # fmt: skip
        files.append(result.read_bytes())
    assert files[0] == files[1]


def test_a_failed_detection_fails_the_run_unless_allowed(tmp_path, capsys):
    path, out = tmp_path / "found.jsonl", tmp_path / "out.jsonl"
    path.write_text(line([seen()]) + "\n" + line(None, error="out of memory") + "\n")
    arguments = ["geneval", "--detections", str(path), "--out", str(out)]
    assert staged_eval(arguments) == 1
    assert "1 samples are unscored" in capsys.readouterr().err
    assert staged_eval([*arguments, "--allow-unscored"]) == 0
    failed = json.loads(out.read_text().splitlines()[1])
    assert failed["correct"] is None
    assert failed["reason"] == "unscored: out of memory"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ('{"detections": []}', "missing key 'metadata'"),
        ('{"metadata": {}, "detections": []}', "metadata: missing key"),
        (json.dumps({"metadata": prompt().as_dict()}), "missing key 'detections'"),
        (json.dumps({"metadata": prompt().as_dict(), "detection": []}), "'detection' meant"),
        (line([{"label": "cat", "score": 1}]), "missing key 'box'"),
        (line([seen(score=1.5)]), "score: 1.5"),
        (line([seen(color="mauve")]), "'mauve'; expected one of red"),
        (line([seen() | {"box": [1, 2, 3]}]), "expected \\[x1, y1, x2, y2\\]"),
        (line([seen("mouse")]), "GenEval calls it 'computer mouse'"),
        (line([], prompt().as_dict() | {"tag": "color"}), "expected one of single_object"),
        (line([], prompt().as_dict() | {"include": []}), "empty"),
        (line([seen(score=math.nan)]), "not valid JSON"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, text, message):
    path = tmp_path / "found.jsonl"
    path.write_text(line([]) + "\n" + text + "\n")
    with pytest.raises(ValueError, match=message) as caught:
        list(read_detections(path))
    assert str(caught.value).startswith(f"{path}:2")


@pytest.mark.parametrize("target", [0, 1, -1, True, "0"])
def test_a_relation_needs_an_earlier_clause(target):
    include = [{"class": "cat", "count": 1, "position": ["above", target]}]
    with pytest.raises(ValueError, match="earlier"):
        prompt("position", include=include)


def test_other_worlds_may_have_other_classes():
    record = prompt(include=[{"class": "red circle", "count": 1}]).as_dict()
    case = parse_line(line([seen("red circle")], record).encode(), "x:1")
    assert case.verdict().correct


def test_the_reference_folders_are_written_and_read(tmp_path):
    prompts = [
        prompt(text="a"),
        prompt("position", "b", [
            {"class": "dog", "count": 1},
            {"class": "cat", "count": 1, "position": ["above", 0]},
        ], [{"class": "cat", "count": 2}]),
    ]  # fmt: skip
    write_folders(tmp_path, prompts)
    image_path(tmp_path, 0, 3).write_bytes(b"png")
    (tmp_path / "00001" / "samples" / "0001.png").write_bytes(b"png")
    (tmp_path / "00001" / "grid.png").write_bytes(b"png")
    folders = list(read_folders(tmp_path))
    assert [folder.prompt for folder in folders] == prompts
    assert [[index for index, _ in folder.images] for folder in folders] == [[3], [1]]
    write_folders(tmp_path, prompts)
    with pytest.raises(ValueError, match="another prompt"):
        write_folders(tmp_path, prompts[::-1])


def test_folders_without_a_record_or_with_a_number_twice_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no folders"):
        list(read_folders(tmp_path))
    write_folders(tmp_path, [prompt()])
    (tmp_path / "00000" / "samples" / "1.png").write_bytes(b"")
    (tmp_path / "00000" / "samples" / "01.png").write_bytes(b"")
    with pytest.raises(ValueError, match="twice"):
        list(read_folders(tmp_path))
    (tmp_path / "00000" / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match=r"no metadata\.jsonl"):
        list(read_folders(tmp_path))


def test_a_local_prompt_file_always_works_and_says_what_it_is(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps(prompt().as_dict()) + "\n")
    loaded = load_prompts(path)
    assert loaded.prompts == (prompt(),)
    assert loaded.variant.startswith("custom:")
    # A folder of images made from the file has the same prompts, whatever the writing.
    write_folders(tmp_path / "images", loaded.prompts)
    assert load_prompts(tmp_path / "images").variant == loaded.variant
    twice = path.read_bytes() * 2
    with pytest.raises(ValueError, match=r"x:2: .* stands at x:1 already"):
        parse_prompts(twice, "x")


def test_a_fetched_file_must_have_the_pinned_content(tmp_path, monkeypatch):
    monkeypatch.setenv("STAGED_CACHE", str(tmp_path))
    content = json.dumps(prompt().as_dict()).encode()
    pinned = PinnedFile(url="http://127.0.0.1:9/prompts.jsonl", sha256=sha256_of(content))
    monkeypatch.setitem(PINNED, "short", pinned)
    with pytest.raises(ValueError, match="give its path"):
        load_prompts("short")
    cached = tmp_path / f"{pinned.sha256}-prompts.jsonl"
    cached.write_bytes(content)
    assert load_prompts("short").variant == "short"
    # What was changed in the cache is not used.
    cached.write_bytes(content + b"\n")
    with pytest.raises(ValueError, match="give its path"):
        downloads.fetch(pinned)


def test_a_result_file_that_was_changed_is_refused(tmp_path):
    result = summarise([(prompt(), ImageScore(correct=False, reason=""))] * 2, variant={})
    path = tmp_path / "r.json"
    result.write(path)
    assert BenchmarkResult.read(path).estimates == result.estimates
    path.write_text(path.read_text().replace("[0.0,0.0]", "[0.0,1.0]"))
    with pytest.raises(ValueError, match="changed after it was written"):
        BenchmarkResult.read(path)


def test_scoring_needs_no_torch(tmp_path):
    code = (
        "import sys; from eval.__main__ import main; "
        f"code = main(['geneval', '--detections', {str(GOLDEN)!r}, '--out', {str(tmp_path / 'o')!r}"
        "]); print('torch' in sys.modules, code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "False 0"


def test_class_names_are_cocos_in_their_order():
    assert len(set(CLASSES)) == 80
    assert [CLASSES.index(n) for n in ("person", "computer mouse", "toothbrush")] == [0, 64, 79]
