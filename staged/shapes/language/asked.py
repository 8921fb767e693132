"""What the miniature can be asked for: prompts as people write them, in the words it was taught.

    A star.                                     a photo of a star
    picture of three  hearts                    a photo of three hearts
    an arrow the color of snow                  a photo of an arrow the colour of snow

It reads no other words than its own: "two stars" without "a photo of" came out as crescents.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from staged.shapes.language.instructions import Add, read_edits
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import (
    LEAD,
    PromptMeaning,
    read_description,
    read_prompt,
    write_prompt,
)
from staged.shapes.world.scene import COLORS, KINDS, RELATIONS, SIZES
from staged.trajectory import Plan, Refinement

QUESTION = "describe the picture"
"""The one question that the miniature answers."""

MAX_SHAPES = 9
"""More find no room on the canvas."""

_LEAD = re.compile(r"(?:an? )?(?:photo|picture|image)s? of ")
_MAX_CHARS = 2000
_MAX_SHOWN_CHARS = 100


def read_request(prompt: str) -> PromptMeaning:
    """Read a prompt as people write it: in any case, with or without "a photo of" or a full stop.

    Raises:
        GrammarError: It asks for something that the miniature world does not have.
    """
    plain = _plain(prompt)
    lead = _LEAD.match(plain)
    rest = plain[lead.end() :] if lead else plain
    request = read_prompt(LEAD + rest.replace(" the color of ", " the colour of "))
    if request.spec.num_shapes > MAX_SHAPES:
        raise GrammarError(prompt, f"a prompt: the canvas has room for {MAX_SHAPES} shapes")
    return request


def in_its_words(
    prompts: Sequence[str], *, answering: bool = False, onto_images: bool = False
) -> list[str]:
    """Say prompts in the words that the miniature was taught.

    Args:
        prompts: As a user wrote them.
        answering: They are questions about images.
        onto_images: They come with images, which they may ask to edit.

    Raises:
        ValueError: One of them is outside its language; the message says what is in it.
    """
    said: list[str] = []
    unknown: list[str] = []
    for prompt in prompts:
        try:
            said.append(_say(prompt, answering=answering, onto_images=onto_images))
        except GrammarError:
            unknown.append(prompt)
    if unknown:
        raise ValueError(_refusal(unknown, len(prompts), answering, onto_images))
    return said


def step_in_its_words(step: Plan | Refinement) -> Plan | Refinement:
    """Say a plan or a correction in the words that the miniature was taught.

    Raises:
        ValueError: It is outside its language; the message says what is in it.
    """
    instruction = _plain(step.instruction)
    try:
        if isinstance(step, Refinement):
            read_edits(instruction, "refinement")
            return replace(step, instruction=instruction)
        read_edits(instruction, "plan")
        description = _plain(step.description)
        read_description(description)
    except GrammarError as error:
        shown = f"{error.text!r:.{_MAX_SHOWN_CHARS}}"
        raise ValueError(
            f"the miniature was not taught {shown}: an instruction reads like "
            "'add a red star left of the blue ring' or 'change the red star to blue', and a "
            "description like 'a red star left of a blue ring'"
        ) from None
    return replace(step, instruction=instruction, description=description)


def _say(prompt: str, *, answering: bool, onto_images: bool) -> str:
    plain = _plain(prompt)
    if answering:
        if plain != QUESTION:
            raise GrammarError(prompt, "a question of the miniature world")
        return plain
    for voice in ("plan", "refinement"):
        try:
            edits = read_edits(plain, voice)
        except GrammarError:
            continue
        # Onto nothing things can only be added, as a first plan does.
        if onto_images or all(isinstance(edit, Add) for edit in edits):
            return plain
    return write_prompt(read_request(prompt))


def _plain(prompt: str) -> str:
    """In lower case, with single spaces, without the mark that ends a sentence."""
    if len(prompt) > _MAX_CHARS:
        raise GrammarError(prompt, f"a prompt of {_MAX_CHARS} characters at most")
    return " ".join(prompt.lower().split()).rstrip(".!? ")


def _refusal(unknown: Sequence[str], number: int, answering: bool, onto_images: bool) -> str:
    first = unknown[0]
    shown = repr(first if len(first) <= _MAX_SHOWN_CHARS else first[:_MAX_SHOWN_CHARS] + "...")
    more = f" and {len(unknown) - 1} more of {number} prompts" if unknown[1:] else ""
    if answering:
        return f"the miniature cannot answer {shown}{more}: it knows one question, {QUESTION!r}"
    edits = ", or, of an image, like 'change the red star to blue'" if onto_images else ""
    looks = f"{', '.join(KINDS)}, in {', '.join(COLORS)}, {' or '.join(SIZES)}"
    return (
        f"the miniature cannot draw {shown}{more}: it knows the shapes {looks}, up to {MAX_SHAPES} "
        f"in all, {', '.join(RELATIONS)} one another. Ask like 'a photo of a red circle above a "
        f"blue star', 'three hearts' or 'a ring and a small green cross'{edits}; anything else "
        "takes the checkpoint of a full-size model"
    )
