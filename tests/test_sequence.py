"""What of a trajectory is read, what is predicted, and what announces each step."""

from dataclasses import replace

import pytest

from staged import protocol
from staged.model.layout import Grids, SegmentKind, SpecialTokens, lay_out
from staged.sequence import Dropout, Interleaved, interleave
from staged.trajectory import (
    Answer,
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Thought,
    Trajectory,
)

SPECIAL = SpecialTokens(text_start=1, text_end=2, image_start=3, image_end=4, stop=5)
OPENERS = {SPECIAL.text_start: "text", SPECIAL.image_start: "image", SPECIAL.stop: "stop"}
GRIDS = Grids(latent=(1, 2), vision=(1, 1))

PLAN = Plan(instruction="add a star", description="a star")
WRONG_PLAN = replace(PLAN, loss=False)
SKETCH = Sketch(image=ImageRef(name="0.png"))
WRONG_SKETCH = replace(SKETCH, loss=False)
ACCEPT_PLAN = Inspection(target="plan", verdict="accept", critique="fine")
REVISE_PLAN = Inspection(target="plan", verdict="revise", critique="wrong")
ACCEPT = Inspection(target="sketch", verdict="accept", critique="fine")
REVISE = Inspection(target="sketch", verdict="revise", critique="wrong")
REFINE = Refinement(instruction="draw it")
STOP = Stop()


def encode(text: str) -> tuple[int, ...]:
    return tuple(10 + byte for byte in text.encode())


def read(steps: tuple[Step, ...], inputs: int = 0, dropout: Dropout | None = None) -> Interleaved:
    trajectory = Trajectory(
        prompt="p", steps=steps, inputs=tuple(ImageRef(name=f"{i}.png") for i in range(inputs))
    )
    return interleave(trajectory, encode, SPECIAL, lambda ref: GRIDS, dropout)


def shown(interleaved: Interleaved) -> str:
    """`text` or a copy of an image; `*` supervised, `>x` announces x, `-` dropped."""
    return " ".join(
        ("-" if segment.dropped else "")
        + segment.kind.name.lower()
        + ("*" if segment.supervised else "")
        + (f">{OPENERS[segment.end_label]}" if segment.end_label is not None else "")
        for segment in interleaved.segments
    )


@pytest.mark.parametrize(
    ("steps", "inputs", "expected"),
    [
        ((SKETCH, STOP), 0, "text>image noised* clean vision>stop"),
        ((SKETCH, replace(STOP, loss=False)), 0, "text>image noised*"),
        (
            (SKETCH, STOP),
            1,
            "clean vision text>image noised* clean vision>stop",
        ),
        ((Answer(text="two"), STOP), 1, "clean vision text>text text*>stop"),
        (
            (PLAN, SKETCH, PLAN, SKETCH, STOP),
            0,
            "text>text text*>image noised* clean vision>text text*>image noised* clean vision>stop",
        ),
        (
            (PLAN, ACCEPT_PLAN, SKETCH, ACCEPT, STOP),
            0,
            "text>text text*>text text*>image noised* clean vision>text text*>stop",
        ),
        (  # a wrong plan is not imitated, but noticing and correcting it is
            (WRONG_PLAN, REVISE_PLAN, REFINE, PLAN, SKETCH, STOP),
            0,
            "text text>text text*>text text*>text text*>image noised* clean vision>stop",
        ),
        (  # nor is a wrong sketch drawn: it is only looked at
            (PLAN, WRONG_SKETCH, REVISE, REFINE, SKETCH, ACCEPT, STOP),
            0,
            "text>text text* clean vision>text text*>text text*>image noised* clean vision>text "
            "text*>stop",
        ),
        (
            (Thought(text="<think>a star</think>"), SKETCH, STOP),
            1,
            "clean vision text>text text*>image noised* clean vision>stop",
        ),
        ((PLAN,), 0, "text>text text*"),
        ((), 0, "text"),
    ],
    ids=[
        "one shot",
        "one shot that need not stop",
        "edit",
        "understanding",
        "two rounds of plan and sketch",
        "all accepted",
        "wrong plan",
        "wrong sketch",
        "thought and drawn",
        "unfinished",
        "prompt only",
    ],
)
def test_each_form_of_trajectory_supervises_its_steps_and_their_openers(
    steps: tuple[Step, ...], inputs: int, expected: str
) -> None:
    assert shown(read(steps, inputs)) == expected


def test_how_to_go_about_it_stands_first_and_is_not_learned() -> None:
    made = interleave(
        Trajectory(prompt="a star", system="Think.", inputs=(SKETCH.image,), steps=(SKETCH,)),
        encode, SPECIAL, lambda _: GRIDS,
    )  # fmt: skip
    assert shown(made) == "text clean vision text>image noised*"
    assert made.segments[0].ids == encode("Think.")


def test_an_unsupervised_step_is_not_announced_either() -> None:
    steps = tuple(replace(step, loss=False) for step in (PLAN, SKETCH, ACCEPT, STOP))
    assert shown(read(steps)) == "text text text"


def test_labels_of_a_plan_are_its_text_its_end_and_the_opener_of_the_image() -> None:
    layout = lay_out([read((PLAN, SKETCH, STOP)).segments], SPECIAL)
    text = encode(protocol.write(PLAN))
    assert layout.labels.tolist() == [
        SPECIAL.text_start,  # at the prompt's end: a plan comes
        *text,
        SPECIAL.text_end,
        SPECIAL.image_start,  # at the plan's end: an image comes
        SPECIAL.stop,  # after the image
    ]
    ends = [index for index, token in enumerate(layout.token_ids.tolist()) if token in (2, 4)]
    at_ends = [layout.text_index[end].item() for end in ends]
    prompt_end, plan_end, _, _, vision_end = at_ends
    placed = dict(zip(layout.ce_index.tolist(), layout.labels.tolist(), strict=True))
    assert placed[prompt_end] == SPECIAL.text_start
    assert placed[plan_end] == SPECIAL.image_start
    assert placed[vision_end] == SPECIAL.stop
    count = len(text) + 1
    assert layout.ce_weights.tolist() == pytest.approx([1.0, *[count**-0.5] * count, 1.0, 1.0])


def test_images_name_the_picture_that_fills_each_copy() -> None:
    interleaved = read((PLAN, WRONG_SKETCH, REVISE, REFINE, SKETCH, ACCEPT, STOP), inputs=1)
    kinds = [segment.kind for segment in interleaved.segments]
    filled = [
        (kind.name, image)
        for kind, image in zip(kinds, interleaved.images, strict=True)
        if image is not None
    ]
    assert filled == [
        ("CLEAN", 0), ("VISION", 0), ("CLEAN", 1), ("VISION", 1),
        ("NOISED", 2), ("CLEAN", 2), ("VISION", 2),
    ]  # fmt: skip
    assert all(
        (image is None) == (kind is SegmentKind.TEXT)
        for kind, image in zip(kinds, interleaved.images, strict=True)
    )


@pytest.mark.parametrize(
    ("steps", "dropout", "expected"),
    [
        ((SKETCH, STOP), Dropout(prompt=True), "-text noised* clean vision>stop"),
        (
            (PLAN, SKETCH, PLAN, SKETCH, STOP),
            Dropout(plans=frozenset({2})),
            "text>text text*>image noised* clean vision -text noised* clean vision>stop",
        ),
        (
            (PLAN, SKETCH, PLAN, SKETCH, STOP),
            Dropout(images=frozenset({0})),
            "text>text text*>image noised* -clean -vision text*>image noised* clean vision>stop",
        ),
    ],
    ids=["prompt", "plan", "image"],
)
def test_what_is_dropped_is_neither_predicted_nor_announces(
    steps: tuple[Step, ...], dropout: Dropout, expected: str
) -> None:
    assert shown(read(steps, dropout=dropout)) == expected


def test_an_image_that_is_inspected_under_supervision_cannot_be_dropped() -> None:
    with pytest.raises(ValueError, match="image 0 is inspected under supervision"):
        read((PLAN, SKETCH, ACCEPT, STOP), dropout=Dropout(images=frozenset({0})))


def test_only_steps_with_text_can_be_dropped() -> None:
    with pytest.raises(ValueError, match="step 1 is a Sketch: it has no text to drop"):
        read((PLAN, SKETCH, STOP), dropout=Dropout(plans=frozenset({1})))
