"""As many trajectories advance together as memory has room for, and no result depends on it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from test_engine_memory import GIB, footprint

from staged.command_line import exit_codes
from staged.engine.memory import Footprint
from staged.generate import admission
from staged.generate.admission import Admission, admit, require_weights
from staged.generate.command import main
from staged.generate.lengths import Lengths
from staged.generate.model import DrawingModel
from staged.generate.settings import DrawSettings
from staged.loops.policy import Policy

IMAGE = footprint().image_tokens
PROMPTS = ["a photo of a ring", "a photo of a red circle above a blue star", "a photo of a heart"]


def lengths(policy: Policy, num_inputs: int = 0) -> Lengths:
    return Lengths.of(policy, image=IMAGE, text=514, sketch_cost=49, num_inputs=num_inputs)


def on(gib: int, policy: Policy, batch_size: int | None = None, num_inputs: int = 0) -> Admission:
    """Admission to the full size model on a GPU of so many GiB."""
    made = footprint()
    room = made.promised(gib * GIB) - made.weights
    told = lengths(policy, num_inputs)
    return admit(batch_size, made, told, room=room, num_writing=16, text=514, page_size=256)


def test_a_staged_trajectory_keeps_its_prompt_texts_and_sketches() -> None:
    told = lengths(Policy())
    assert told.shortest == 2 + IMAGE
    # The prompt, and in each of 6 rounds a plan, 12 of its corrections, an inspection, ...; twice:
    # guidance reads all texts without images too. 300 flow steps pay for 6 sketches.
    assert told.longest == 6 * IMAGE + 2 * (1 + 6 * 13) * 514
    assert told.shortest < told.usual < told.longest
    short = lengths(Policy(max_rounds=1, max_refinements=0))
    assert short.longest == IMAGE + 2 * (1 + 3) * 514


def test_one_shot_and_an_answer_keep_what_was_given() -> None:
    assert lengths(Policy(mode="one-shot")).longest == 514
    assert lengths(Policy(mode="one-shot", think=True)).longest == 2 * 514
    assert lengths(Policy(mode="one-shot"), num_inputs=2).longest == 2 * IMAGE + 2 * 514
    assert lengths(Policy(mode="answer"), num_inputs=1).shortest == IMAGE + 2


def test_the_full_size_model_lets_in_what_fits() -> None:
    assert on(79, Policy(mode="one-shot")).batch_size == 64
    assert 8 <= on(79, Policy()).batch_size < on(139, Policy()).batch_size <= 64
    assert on(39, Policy()).batch_size < on(79, Policy()).batch_size
    assert on(39, Policy(max_rounds=2, max_refinements=1)).batch_size >= 1
    # All of what is promised together is less than there is.
    made = footprint()
    for policy in (Policy(), Policy(mode="one-shot")):
        tokens = on(79, policy).max_cached_tokens
        longest = lengths(policy).longest
        assert made.weights + tokens * made.token + made.working(longest) < 79 * GIB


def test_more_than_fit_is_refused_and_said_what_does() -> None:
    assert on(79, Policy(), 32).batch_size == 32
    with pytest.raises(ValueError) as error:
        on(79, Policy(), 500)
    said = str(error.value)
    assert said.startswith("batch size 500: cuda has 45 GiB free beside the weights, ")
    assert "each takes at least 0.5 GiB of cache" in said
    fits = on(79, Policy()).batch_size
    assert said.endswith(f"fit at the shortest and {fits} with room to grow, which `auto` takes")
    [most] = [int(word) for word in said.split() if word.isdigit() and 64 < int(word) < 500]
    assert on(79, Policy(), most).batch_size == most
    with pytest.raises(ValueError):
        on(79, Policy(), most + 1)


def test_where_not_even_one_fits_that_is_said() -> None:
    with pytest.raises(ValueError, match=r"no trajectory fits: cuda has .* draw smaller pictures"):
        on(35, Policy(mode="one-shot"), num_inputs=3)


def test_a_model_that_its_device_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "memory_of", lambda device: 24 * GIB)
    with pytest.raises(ValueError) as error:
        require_weights(footprint(), "weights/BAGEL-7B-MoT")
    assert str(error.value) == (
        "weights/BAGEL-7B-MoT takes 28 GiB of weights and 4.5 GiB for what it computes at a time, "
        "and cuda has 24: choose a device with more memory, quantization int8 takes a byte for "
        "each of most"
    )
    monkeypatch.setattr(admission, "memory_of", lambda device: 40 * GIB)
    require_weights(footprint(), "it")


# --- with a real model --------------------------------------------------------------------------


def settings() -> DrawSettings:
    return DrawSettings(
        checkpoint="miniature:staged",
        num_flow_steps=3,
        max_rounds=1,
        max_refinements=1,
        max_attempts=1,
        max_text_tokens=96,
        dtype="float32",
        device="cpu",
    )


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Pretend that a CPU has room for so many trajectories at their usual length."""

    def pretend(usual: float) -> None:
        made = DrawingModel(settings())
        told, print_ = lengths_of(made), made._footprint
        # Each begins some pages for itself, and has room for a text while it writes.
        tokens = int(usual * (told.usual + 6 * 32 + 98 + 32)) + told.longest - told.usual
        needed = print_.weights + tokens * print_.token + print_.working(told.longest)
        monkeypatch.setattr(admission, "free_memory", lambda device: int(needed / 0.8) + 1)

    return pretend


def lengths_of(model: DrawingModel) -> Lengths:
    made: Footprint = model._footprint
    return Lengths.of(
        model._policy,
        image=made.image_tokens,
        text=98,
        sketch_cost=model.flows.num_evaluations,
        guides_by_images=made.num_branches == 3,
    )


def test_pictures_are_the_same_however_little_memory_there_is(
    scarce: Callable[[float], None],
) -> None:
    plenty = DrawingModel(settings()).loop()
    assert plenty.batch_size == 64
    expected = plenty.run(PROMPTS, range(3))
    assert all(trajectory.complete for trajectory in expected)
    scarce(1.2)
    little = DrawingModel(settings())
    assert little.admit().batch_size == 1
    assert little.admit().max_cached_tokens < plenty.roles.planner._reader.max_tokens  # type: ignore[attr-defined]
    assert little.loop().run(PROMPTS, range(3)) == expected
    scarce(2.2)
    assert DrawingModel(settings()).admit().batch_size == 2
    # More than are at home: what was forgotten is read again.
    assert DrawingModel(settings()).loop(3).run(PROMPTS, range(3)) == expected


def test_the_command_refuses_before_weights_are_read(
    scarce: Callable[[float], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    scarce(2)
    monkeypatch.setattr(
        DrawingModel, "engine", property(lambda self: pytest.fail("weights were read"))
    )
    argv = ["a photo of a ring", "--out", str(tmp_path / "out"), "--max-rounds", "1"]
    argv += ["--max-refinements", "1", "--max-text-tokens", "96", "--dtype", "float32"]
    with pytest.raises(ValueError, match=r"batch size 99: cpu has .* GiB free beside the weights"):
        main([*argv, "--batch-size", "99"])
    with pytest.raises(SystemExit) as told:
        main([*argv, "--batch-size", "0"])
    assert told.value.code == exit_codes.USAGE
    assert "from 1, or auto" in capsys.readouterr().err


def test_a_checkpoint_that_memory_cannot_hold_is_refused_before_its_weights_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "memory_of", lambda device: 2**20)
    model = DrawingModel(settings())
    for act in (model.admit, lambda: model.engine):
        with pytest.raises(ValueError, match=r"miniature:staged takes .* GiB of weights"):
            act()
