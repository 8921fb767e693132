"""Prompts that the miniature cannot know are refused with what it knows; all others are read."""

from pathlib import Path

import numpy as np
import pytest

from eval.__main__ import main as staged_eval
from staged.cli import main
from staged.model.codec import ImageSizes
from staged.model.open import look_at_checkpoint
from staged.shapes.language.asked import QUESTION, in_its_words
from staged.shapes.language.prompts import write_prompt
from staged.shapes.language.sentences import sample_any_spec
from staged.shapes.miniature import is_miniature, understood
from staged.shapes.tasks import TASKS, sample_prompt

UNKNOWN = [
    "a photo of a cat",
    "фото красного круга",
    "星の写真",
    "",
    " . ",
    "a photo of a crimson circle",
    "a photo of a star the colour of a cat",
    "nine stars and a ring",
    "a star " * 1000,
]


@pytest.mark.parametrize("prompt", UNKNOWN)
def test_an_unknown_prompt_is_refused_with_what_is_known(prompt: str) -> None:
    with pytest.raises(ValueError, match=r"circle.*red.*a photo of a red circle above") as refused:
        in_its_words(["a photo of a star", prompt])
    assert repr(prompt)[:50].rstrip("'") in str(refused.value) and len(str(refused.value)) < 800


def test_of_many_unknown_prompts_the_first_is_named_and_the_rest_counted() -> None:
    with pytest.raises(ValueError, match=r"'a dog' and 2 more of 5 prompts"):
        in_its_words(["a star", "a dog", "a cat", "two stars", "?"])


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a star", "a photo of a star"),
        ("two stars", "a photo of two stars"),
        ("A Photo of  a red STAR.", "a photo of a red star"),
        ("picture of an arrow the color of snow", "a photo of an arrow the colour of snow"),
        ("as many rings as a car has wheels", "a photo of as many rings as a car has wheels"),
        ("add a red star", "add a red star"),
    ],
)  # fmt: skip
def test_what_people_write_is_said_as_the_miniature_was_taught(prompt: str, words: str) -> None:
    assert in_its_words([prompt]) == [words]


def test_every_prompt_of_the_tasks_and_of_the_grammar_is_read_as_it_stands() -> None:
    rng = np.random.default_rng(0)
    prompts = [
        sample_prompt(task, rng, split).text
        for task in TASKS
        for split in ("train", "test")
        for _ in range(20)
    ]
    specs = (sample_any_spec(rng) for _ in range(200))
    prompts += [write_prompt(spec) for spec in specs if spec.num_shapes <= 9]
    assert in_its_words(prompts) == prompts
    assert in_its_words([p.removeprefix("a photo of ") for p in prompts]) == prompts


def test_edits_need_an_image_unless_they_add_and_questions_are_one() -> None:
    edits = ["change the red star to blue", "make the red star blue", "remove the ring"]
    assert in_its_words(edits, onto_images=True) == edits
    for edit in edits:
        with pytest.raises(ValueError, match="cannot draw"):
            in_its_words([edit])
    assert in_its_words(["Describe the picture."], answering=True) == [QUESTION]
    with pytest.raises(ValueError, match=f"how many.*one question, '{QUESTION}'"):
        in_its_words(["how many cats are there?"], answering=True)


def test_a_model_of_another_world_reads_prompts_as_they_are() -> None:
    small = ImageSizes.of(look_at_checkpoint("miniature:fresh").config)
    assert is_miniature(small)
    with pytest.raises(ValueError, match="a cat"):
        understood(small, ["a cat"])
    large = ImageSizes()
    assert not is_miniature(large) and understood(large, ["A cat."]) == ["A cat."]


def test_generate_refuses_one_before_it_draws(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    fresh = ["--checkpoint", "miniature:fresh", "--out", str(out)]
    assert main(["generate", "a photo of a cat", *fresh]) == 1
    assert "the miniature cannot draw 'a photo of a cat'" in capsys.readouterr().err
    assert not out.exists()
    assert main(["generate", "A star", *fresh, "--mode", "one-shot", "--flow-steps", "1"]) == 0
    assert "'A star' is read as 'a photo of a star'" in capsys.readouterr().out


def test_a_benchmark_that_the_miniature_cannot_know_is_refused_before_it_draws(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(
        '{"tag": "single_object", "include": [{"class": "bench", "count": 1}], '
        '"prompt": "a photo of a bench"}\n'
    )
    out = tmp_path / "images"
    argv = ["generate", "--benchmark", "geneval", "--prompts", str(data), "--out", str(out)]
    with pytest.raises(ValueError, match="the miniature cannot draw 'a photo of a bench'"):
        staged_eval([*argv, "--generator", "model", "checkpoint=miniature:fresh"])
    assert not out.exists()
