"""The text of each step, written and parsed strictly.

One text block per step, in plain tags, so that no vocabulary changes:

    plan        <ins>instruction</ins><des>description</des>
    inspection  <inspect>critique</inspect><verdict>accept</verdict>     (or revise)
    refinement  <refine>instruction</refine>
    answer      the text itself
    thought     <think>thought</think>, and whatever the model says after it

Rules: a block is exactly its tags in this order with nothing before, between or after them. The
text inside a tag is not empty, neither begins nor ends with whitespace, holds at most
`MAX_TEXT_CHARS` characters, and holds none of the tags above and no special token
(`<|im_end|>` and the like); inner spaces and line breaks are kept as they are. What does not
parse is an error with its position, never a guess: the loop retries, counts and reports it.
"""

import re
from collections.abc import Iterable
from typing import Final

from staged.trajectory import (
    MAX_TEXT_CHARS,
    Answer,
    Inspection,
    Move,
    Plan,
    Refinement,
    Step,
    Target,
    Thought,
    Verdict,
)

MAX_TEXT_TOKENS: Final = 512
"""Of a text that a model writes, where no setting says otherwise."""
TAGS: Final = ("ins", "des", "inspect", "verdict", "refine")
VERDICTS: Final[dict[str, Verdict]] = {"accept": "accept", "revise": "revise"}

_THINK: Final = ("<think>", "</think>")
_FORMS: Final = (("ins", "des"), ("inspect", "verdict"), ("refine",))
_BEGINNINGS: Final = {
    "plan": "<ins>",
    "inspect": "<inspect>",
    "refine": "<refine>",
    "think": "<think>",
}
_NAMES: Final = {
    "ins": ("plan", "instruction"),
    "des": ("plan", "description"),
    "inspect": ("inspection", "critique"),
    "verdict": ("inspection", "verdict"),
    "refine": ("refinement", "instruction"),
}
_PART: Final = re.compile(rf"<(?P<tag>{'|'.join(TAGS)})>(?P<content>.*?)(?:</(?P=tag)>|\Z)", re.S)
_HALF_TAG: Final = re.compile(r"</?\w*\Z")
RESERVED: Final = re.compile(rf"</?(?:{'|'.join(TAGS)})>|<\|\w+\|>")
"""What no text holds beside the tags of its own step: tags, and special tokens spelt out."""
RESERVED_BEGUN: Final = re.compile(r"<(?:/?\w*|\|[\w\ufffd]*\|?)\Z")
"""The end of a text that may still become one; a letter may have come in part."""
CLOSING: Final = re.compile(r"</\w+>")
"""A tag that closes."""
_MAX_BLOCK_CHARS: Final = 2 * MAX_TEXT_CHARS + 64


class ProtocolError(ValueError):
    """A text does not follow the protocol.

    Attributes:
        position: Index of the first character that is wrong, in the block (parsing) or in the
            field (writing).
        reason: What is wrong there.
    """

    def __init__(self, position: int, reason: str, text: str = "") -> None:
        """Keep the place and the reason; `text` only helps the message."""
        near = text[max(0, position - 20) : position + 20]
        super().__init__(f"character {position}: {reason}" + (f" (near {near!r})" if near else ""))
        self.position = position
        self.reason = reason


def write(step: Step) -> str:
    """Write the text block of a step.

    Raises:
        ProtocolError: a field breaks the rules above.
        ValueError: the step has no text (sketch, stop).
    """
    match step:
        case Plan():
            return _block(ins=step.instruction, des=step.description)
        case Inspection():
            return _block(inspect=step.critique, verdict=step.verdict)
        case Refinement():
            return _block(refine=step.instruction)
        case Answer():
            check_text(step.text)
            return step.text
        case Thought():
            return parse_thought(step.text).text
        case _:
            raise ValueError(f"a {type(step).__name__} has no text block")


def beginnings(moves: Iterable[Move]) -> tuple[str, ...]:
    """What the text blocks of moves begin with; nothing where one of them is free text."""
    found: set[str] = set()
    for move in moves:
        tag = _BEGINNINGS.get(move.partition(" ")[0])
        if tag is None:
            return ()
        found.add(tag)
    return tuple(sorted(found))


def parse(text: str, *, target: Target | None = None) -> Plan | Inspection | Refinement:
    """Parse a text block; its first tag tells which kind of step it is.

    Args:
        text: The block, without the tokens around it.
        target: What an inspection at this place is about, which the text does not say
            (`Trajectory.inspection_target`). None where no inspection may stand.

    Returns:
        The step, with `loss` true.

    Raises:
        ProtocolError: with the position of the first mistake.
    """
    if len(text) > _MAX_BLOCK_CHARS:
        raise ProtocolError(_MAX_BLOCK_CHARS, f"block longer than {_MAX_BLOCK_CHARS} characters")
    form = next((form for form in _FORMS if text.startswith(f"<{form[0]}>")), None)
    if form is None:
        openers = ", ".join(f"<{form[0]}>" for form in _FORMS)
        raise ProtocolError(0, f"expected one of {openers}", text)
    if form[0] == "inspect" and target is None:
        raise ProtocolError(0, "an inspection may not stand here", text)
    values, starts = _fields(text, form)
    match form[0]:
        case "ins":
            return Plan(instruction=values[0], description=values[1])
        case "refine":
            return Refinement(instruction=values[0])
    if values[1] not in VERDICTS:
        raise ProtocolError(starts[1], f"verdict is none of {', '.join(VERDICTS)}", text)
    assert target is not None
    return Inspection(target=target, verdict=VERDICTS[values[1]], critique=values[0])


def parse_beginning(text: str) -> dict[str, str]:
    """Read what is there of a block that is still being written, for whoever watches.

    Args:
        text: The block so far; it may break off anywhere.

    Returns:
        The kind of its step as `step`, and its fields so far; nothing where no tag is whole yet.
    """
    found: dict[str, str] = {}
    for part in _PART.finditer(text[:_MAX_BLOCK_CHARS]):
        kind, name = _NAMES[part["tag"]]
        # Of a tag that is only begun nothing is shown.
        found |= {"step": kind, name: _HALF_TAG.sub("", part["content"])}
    return found


def parse_answer(text: str) -> Answer:
    """Parse the text block of an answer, which has no tags of its own.

    Raises:
        ProtocolError: with the position of the first mistake.
    """
    check_text(text)
    return Answer(text=text)


def parse_thought(text: str) -> Thought:
    """Parse the text block of a thought. It is the model's own, so its tags are not reserved.

    Raises:
        ProtocolError: with the position of the first mistake.
    """
    opener, closer = _THINK
    if not text.startswith(opener):
        raise ProtocolError(0, f"expected {opener}", text)
    if closer not in text:
        raise ProtocolError(len(text), f"{opener} is not closed", text)
    check_text(text)
    return Thought(text=text)


def check_text(text: str) -> None:
    """Check text that will stand in a sequence: one field, an answer, or a prompt.

    Raises:
        ProtocolError: with the position of the first mistake.
    """
    _check_content(text, 0, len(text))


def _block(**contents: str) -> str:
    for content in contents.values():
        check_text(content)
    return "".join(f"<{tag}>{content}</{tag}>" for tag, content in contents.items())


def _fields(text: str, tags: tuple[str, ...]) -> tuple[list[str], list[int]]:
    """Split a block into the contents of `tags` and where each begins."""
    values, starts = [], []
    position = 0
    for tag in tags:
        if not text.startswith(f"<{tag}>", position):
            raise ProtocolError(position, f"expected <{tag}>", text)
        start = position + len(tag) + 2
        end = RESERVED.search(text, start)
        if end is None:
            raise ProtocolError(len(text), f"<{tag}> is not closed", text)
        if end.group() != f"</{tag}>":
            raise ProtocolError(
                end.start(), f"{end.group()} inside <{tag}>; expected </{tag}>", text
            )
        _check_content(text, start, end.start())
        values.append(text[start : end.start()])
        starts.append(start)
        position = end.end()
    if position != len(text):
        raise ProtocolError(position, f"text after </{tags[-1]}>", text)
    return values, starts


def _check_content(text: str, start: int, end: int) -> None:
    content = text[start:end]
    if not content.strip():
        raise ProtocolError(start, "empty text", text)
    if content[0].isspace():
        raise ProtocolError(start, "text begins with whitespace", text)
    if content[-1].isspace():
        raise ProtocolError(end - 1, "text ends with whitespace", text)
    if len(content) > MAX_TEXT_CHARS:
        raise ProtocolError(start + MAX_TEXT_CHARS, f"more than {MAX_TEXT_CHARS} characters", text)
    reserved = RESERVED.search(content)
    if reserved:
        raise ProtocolError(start + reserved.start(), f"{reserved.group()} inside text", text)
    for i, char in enumerate(content):
        if 0xD800 <= ord(char) <= 0xDFFF:
            raise ProtocolError(start + i, "not valid Unicode", text)
