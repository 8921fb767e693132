"""A block begins as a step that may come does, whatever the model would rather write."""

import pytest
import tiny

from staged import protocol
from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.context import Context
from staged.engine.text_sampling import TextSampling
from staged.generate.role_choice import open_engine
from staged.roles import RoleError, StepRequest
from staged.trajectory import Move, Plan, Trajectory, moves

BEGINS = (("<ins>",), ("<refine>",), ("<ins>", "<inspect>"), ("<think>",), ("a red", "<ins>a"))


@pytest.mark.parametrize("temperature", [0.0, 5.0])
@pytest.mark.parametrize("begins", BEGINS, ids=str)
def test_a_block_begins_as_it_must_alone_and_in_company(
    begins: tuple[str, ...], temperature: float
) -> None:
    """Of a random model, which begins with none of them by itself."""
    engine = tiny.engine(2)
    context = Context()
    engine.append_text([context], ["a star"])

    def sampling(begins: tuple[str, ...], seed: int) -> TextSampling:
        return TextSampling(max_tokens=24, temperature=temperature, seed=seed, begins=begins)

    asked = [sampling(begins, seed) for seed in range(6)] + [sampling((), 0)]
    written = engine.write([context] * len(asked), asked)
    assert not written[-1].text.startswith(begins)
    for how, block in zip(asked[:-1], written[:-1], strict=True):
        assert block.text.startswith(begins), block.text
        assert engine.write([context], [how]) == [block]


def test_what_fits_already_is_written_as_without_a_word() -> None:
    """Only what could not come is left out: the likeliest text that fits stays the same."""
    engine = open_engine("miniature:staged", dtype="float32")
    context = Context()
    engine.append_text([context], ["a photo of a red circle"])
    free, held = engine.write(
        [context] * 2,
        [
            TextSampling(max_tokens=40),
            TextSampling(max_tokens=40, begins=("<ins>", "<inspect>", "<refine>")),
        ],
    )
    assert free.text.startswith("<ins>") and held == free


@pytest.mark.parametrize("seed", range(4))
def test_a_step_that_may_not_come_is_never_written(seed: int) -> None:
    """A model that was taught no refinements, asked for one."""
    engine = open_engine("miniature:staged", dtype="float32")
    start = Trajectory(prompt="a photo of a red circle")
    request = StepRequest(trajectory=start, moves=("plan",), seed=seed)
    [plan] = BagelPlayer(engine, BagelSettings(max_text_tokens=60)).write([request])
    assert isinstance(plan, Plan)
    planned = start.extend(plan)
    [step] = BagelPlayer(engine, BagelSettings(max_text_tokens=60)).write(
        [StepRequest(trajectory=planned, moves=("inspect plan",), seed=seed)]
    )
    assert not isinstance(step, RoleError)
    assert moves(planned.extend(step).steps)[-1] == "inspect plan"


def test_every_move_with_a_text_begins_with_its_own_tag() -> None:
    texts: tuple[Move, ...] = ("plan", "inspect plan", "inspect sketch", "refine plan", "think")
    assert protocol.beginnings(texts) == ("<ins>", "<inspect>", "<refine>", "<think>")
    assert protocol.beginnings(["answer", "plan"]) == ()


def test_an_empty_beginning_is_refused() -> None:
    with pytest.raises(ValueError, match="one is empty"):
        TextSampling(begins=("<ins>", ""))
