"""The text protocol: exact round trips, strict parsing with positions."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from staged.protocol import (
    ProtocolError,
    parse,
    parse_answer,
    parse_beginning,
    parse_thought,
    write,
)
from staged.trajectory import (
    MAX_TEXT_CHARS,
    Answer,
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Stop,
    TextStep,
    Thought,
)

TEXT = st.text(alphabet="abc <>/|\n.é", min_size=1, max_size=30).filter(lambda t: t == t.strip())


@given(TEXT, TEXT, st.sampled_from(["accept", "revise"]), st.sampled_from(["plan", "sketch"]))
def test_written_steps_parse_back_to_themselves(a: str, b: str, verdict: str, target: str) -> None:
    steps: list[Plan | Inspection | Refinement] = [
        Plan(instruction=a, description=b),
        Inspection(target=target, verdict=verdict, critique=a),  # type: ignore[arg-type]
        Refinement(instruction=b),
    ]
    for step in steps:
        assert parse(write(step), target=target) == step  # type: ignore[arg-type]
    assert parse_answer(write(Answer(text=a))) == Answer(text=a)


MARKS = ("<ins>", "</ins>", "<des>", "</des>", "<inspect>", "</inspect>", "<verdict>", "</verdict>")
OTHERS = ("<refine>", "</refine>", "accept", "revise", "a", " ", "<|im_end|>")
TAGGED = st.lists(st.sampled_from(MARKS + OTHERS), max_size=8).map("".join)


@given(TAGGED)
@settings(max_examples=500)
def test_whatever_parses_is_exactly_what_is_written(text: str) -> None:
    try:
        step = parse(text, target="sketch")
    except ProtocolError as error:
        assert 0 <= error.position <= len(text)
        return
    assert write(step) == text


def test_the_exact_text_of_each_step() -> None:
    assert write(Plan(instruction="add a", description="an a")) == "<ins>add a</ins><des>an a</des>"
    seen = Inspection(target="plan", verdict="revise", critique="no b")
    assert write(seen) == "<inspect>no b</inspect><verdict>revise</verdict>"
    assert write(Refinement(instruction="add b")) == "<refine>add b</refine>"


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "expected one of"),
        ("a red circle", 0, "expected one of"),
        (" <refine>a</refine>", 0, "expected one of"),
        ("<des>a</des><ins>b</ins>", 0, "expected one of"),
        ("<ins>a</ins>", 12, "expected <des>"),
        ("<ins>a</ins> <des>b</des>", 12, "expected <des>"),
        ("<ins>a</ins><verdict>accept</verdict>", 12, "expected <des>"),
        ("<ins>a</ins><des>b</des>\n", 24, "text after </des>"),
        ("<refine>a</refine><refine>b</refine>", 18, "text after </refine>"),
        ("<refine>a", 9, "<refine> is not closed"),
        ("<refine>a</ins>", 9, "</ins> inside <refine>"),
        ("<refine><ins>a</ins></refine>", 8, "<ins> inside <refine>"),
        ("<refine>a<|im_end|></refine>", 9, "<|im_end|> inside <refine>"),
        ("<refine></refine>", 8, "empty"),
        ("<refine>  </refine>", 8, "empty"),
        ("<refine> a</refine>", 8, "begins with whitespace"),
        ("<refine>a\n</refine>", 9, "ends with whitespace"),
        ("<refine>a\ud800</refine>", 9, "Unicode"),
        ("<inspect>a</inspect><verdict>Accept</verdict>", 29, "verdict is none of"),
        ("<inspect>a</inspect><verdict>accept </verdict>", 35, "ends with whitespace"),
        ("<refine>" + "a" * (MAX_TEXT_CHARS + 1) + "</refine>", 8 + MAX_TEXT_CHARS, "more than"),
    ],
)
def test_malformed_blocks_are_refused_with_position_and_reason(
    text: str, position: int, reason: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse(text, target="plan")
    assert caught.value.position == position
    assert reason in caught.value.reason
    assert f"character {position}" in str(caught.value)


def test_an_inspection_needs_something_to_inspect() -> None:
    with pytest.raises(ProtocolError, match="may not stand here"):
        parse("<inspect>a</inspect><verdict>accept</verdict>")


def test_a_very_long_block_is_refused_before_it_is_scanned() -> None:
    with pytest.raises(ProtocolError, match="block longer"):
        parse("<refine>" * 1_000_000)


@pytest.mark.parametrize(
    "bad", ["a</ins>b", "<verdict>", "x<|vision_start|>", " a", "a ", "\u3000a"]
)
def test_the_writer_refuses_text_that_would_not_parse(bad: str) -> None:
    steps: list[TextStep] = [
        Plan(instruction=bad, description="b"),
        Plan(instruction="a", description=bad),
        Inspection(target="plan", verdict="accept", critique=bad),
        Refinement(instruction=bad),
        Answer(text=bad),
    ]
    for step in steps:
        with pytest.raises(ProtocolError):
            write(step)


@pytest.mark.parametrize("text", ["<think>a</think>", "<think>\na </think>\n\nand so: <b>"])
def test_a_thought_is_kept_as_the_model_wrote_it(text: str) -> None:
    assert write(parse_thought(text)) == text


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("a star", 0, "expected <think>"),
        ("<ins>a</ins><des>b</des>", 0, "expected <think>"),
        ("<think>a star", 13, "<think> is not closed"),
        ("<think><ins></think>", 7, "<ins> inside text"),
        ("<think>a</think><|im_end|>", 16, "<|im_end|> inside text"),
    ],
)
def test_what_is_no_thought_is_refused(text: str, position: int, reason: str) -> None:
    with pytest.raises(ProtocolError, match=re.escape(reason)) as refused:
        parse_thought(text)
    assert refused.value.position == position
    with pytest.raises(ProtocolError):
        write(Thought(text=text))


def test_steps_without_text_have_no_block() -> None:
    for step in (Stop(), Sketch(image=ImageRef(name="0.png"))):
        with pytest.raises(ValueError, match="has no text block"):
            write(step)


def test_a_text_that_is_being_written_is_read_as_far_as_it_has_come() -> None:
    whole = "<ins>add a star</ins><des>a star\nbelow</des>"
    told = [parse_beginning(whole[:end]) for end in range(len(whole) + 1)]
    assert told[0] == told[4] == {}
    assert told[8] == {"step": "plan", "instruction": "add"}
    for shown in told:
        assert all("<" not in text for text in shown.values())
    # What is shown only grows.
    for name in ("instruction", "description"):
        texts = [shown.get(name, "") for shown in told]
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    plan = parse(whole)
    assert told[-1] == {
        "step": "plan",
        "instruction": plan.instruction,
        "description": plan.description,
    }
    seen = parse_beginning("<inspect>no</inspect><verdict>rev")
    assert seen == {"step": "inspection", "critique": "no", "verdict": "rev"}
    assert parse_beginning("<refine>x") == {"step": "refinement", "instruction": "x"}
    assert parse_beginning("something else") == {}
