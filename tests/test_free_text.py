"""A model that was taught stages keeps their tags out of what it says freely."""

import random
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from learning import learn
from test_engine import Plain

from staged import protocol
from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.text_sampling import Forbidden, TextSampling
from staged.engine.text_watch import TextWatch
from staged.generate.role_choice import open_engine
from staged.model.tokenizer import BagelTokenizer, train_tokenizer
from staged.roles import StepRequest
from staged.shapes.world.render import render
from staged.shapes.world.scene import scatter
from staged.trajectory import Answer, ImageRef, Thought, Trajectory

TAGS = Forbidden(whole=protocol.RESERVED, begun=protocol.RESERVED_BEGUN)
LETTERS = Forbidden(whole=re.compile(r"[aeiou]."), begun=re.compile(r"[aeiou]\Z"))
"""Something that a random model writes often."""
LONGEST = 200
"""Tokens after which a text is cut off: what it goes on with may be forbidden too."""


@pytest.mark.parametrize("tag", [*protocol.TAGS, "|im_end|", "|a_1|"])
def test_what_may_become_a_tag_counts_as_begun(tag: str) -> None:
    for whole in (f"<{tag}>", f"</{tag}>")[: 1 if "|" in tag else 2]:
        assert protocol.RESERVED.fullmatch(whole)
        for end in range(1, len(whole)):
            assert protocol.RESERVED_BEGUN.search("so " + whole[:end]), whole[:end]
        assert not protocol.RESERVED_BEGUN.search(whole)


def plain_text(engine: Engine, prompt: str, how: TextSampling) -> list[int]:
    """The rule written out: all that there is is computed again for every token."""
    plain, ids, refused = Plain(engine).text(prompt), list[int](), dict[int, set[str]]()
    assert how.without is not None
    markers = set(vars(engine.special).values()) - {engine.special.text_end}
    while len(ids) < how.max_tokens:
        logits = plain.next_logits(ids).clone()
        for token in range(len(logits)):
            text = engine.tokenizer.decode([token])
            if token in markers or not refused.get(len(ids), set()).isdisjoint(text):
                logits[token] = -torch.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == engine.special.text_end:
            return ids[:-1]
        found = how.without.whole.search(engine.tokenizer.decode(ids))
        if found:
            gone: list[int] = []
            while not how.without.whole.search(engine.tokenizer.decode(gone)):
                gone.insert(0, ids.pop())
            refused = {len(ids): refused.get(len(ids), set()) | {found.group()[0]}}
    return ids


@pytest.mark.parametrize("seed", range(2))
def test_what_is_forbidden_is_taken_back_as_a_plain_loop_does(seed: int) -> None:
    engine = tiny.engine(seed)
    context = Context()
    engine.append_text([context], ["a star"])
    free = TextSampling(max_tokens=14)
    held = TextSampling(max_tokens=14, without=LETTERS)
    without, block = engine.write([context] * 2, [free, held])
    assert list(block.ids) == plain_text(engine, "a star", held)
    assert not LETTERS.whole.search(block.text)
    assert block.ids != without.ids, "it would have written nothing of the kind"


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_alone_and_in_company_the_same_is_told_and_nothing_is_taken_back(
    temperature: float,
) -> None:
    engine = tiny.engine(1)
    context = Context()
    engine.append_text([context], ["a star"])
    asked = [
        TextSampling(max_tokens=10, temperature=temperature, seed=seed, without=LETTERS)
        for seed in range(3)
    ]
    told: list[list[int]] = [[] for _ in asked]
    written = engine.write([context] * 3, asked, lambda row, token: told[row].append(token))
    markers = set(vars(engine.special).values())
    for how, block, said in zip(asked, written, told, strict=True):
        assert not LETTERS.whole.search(block.text) and markers.isdisjoint(block.ids)
        assert said == list(block.ids)
        assert engine.write([context], [how]) == [block]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_no_tag_is_written_nothing_changes(temperature: float) -> None:
    engine = open_engine("miniature:base", dtype="float32")
    context = Context()
    engine.append_text([context], ["describe the picture"])
    plain = TextSampling(max_tokens=30, temperature=temperature, seed=4)
    free, held = engine.write(
        [context] * 2, [plain, TextSampling(**{**vars(plain), "without": TAGS})]
    )
    assert protocol.RESERVED.search(free.text) is None and held == free


def written_by(
    wants: str, tokenizer: BagelTokenizer, then: str, forbidden: Forbidden = TAGS
) -> str:
    """What comes of a writer that wants a text, token by token, and else goes on with another.

    Whoever listens is told what is settled, and that stays.
    """
    watch, ids, told = TextWatch(forbidden, tokenizer), list[int](), list[int]()
    wanted = list(tokenizer.encode(wants))
    while wanted and len(ids) < LONGEST and not watch.ended:
        if watch.refuses(ids, wanted[0]):
            wanted = list(tokenizer.encode(then))
            while wanted and watch.refuses(ids, wanted[0]):
                del wanted[0]
            continue
        ids.append(wanted.pop(0))
        num_kept = watch.keep(ids)
        wanted = ids[num_kept:] + wanted
        del ids[num_kept:]
        num_settled = watch.settled(ids)
        assert len(told) <= num_settled <= num_kept, tokenizer.decode(told)
        assert ids[: len(told)] == told
        told = ids[:num_settled]
    assert tokenizer.decode(ids).startswith(tokenizer.decode(told))
    return tokenizer.decode(ids)


def words(*forbidden: str) -> Forbidden:
    """Words that a text may not hold, as a user may list them."""
    begun = {re.escape(word[:end]) for word in forbidden for end in range(1, len(word))}
    return Forbidden(
        whole=re.compile("|".join(map(re.escape, forbidden))),
        begun=re.compile(rf"(?:{'|'.join(sorted(begun))})\Z"),
    )


def _bytes() -> BagelTokenizer:
    return train_tokenizer(["a"], 261)


def _merged() -> BagelTokenizer:
    """As Qwen2's: `</`, `.</` and `><` are tokens, and `<des` and `<ver` cut as it likes."""
    line = "a star.</ins><des>b.</des><verdict>yes</verdict> <refine>d</refine> x <inspect>y"
    return train_tokenizer([line] * 9, 400)


@pytest.mark.parametrize("make", [_bytes, _merged, tiny.tokenizer])
@pytest.mark.parametrize("tag", ["</ins>", "<des>", "</verdict>", "<refine>", "<|im_end|>"])
def test_a_tag_goes_back_whole_however_it_is_cut(
    make: Callable[[], BagelTokenizer], tag: str
) -> None:
    tokenizer = make()
    for text in ("a star", "a < b ", "é", "a star."):
        made = written_by(text + tag + " and more", tokenizer, "; it ends")
        # A token that holds the tag's first character goes with all that it holds.
        assert made in (f"{text}; it ends", f"{text[:-1]}; it ends"), made
        assert text.endswith((".", " ")) or made == f"{text}; it ends"
    for harmless in ("a < b", "<b>bold</b>", "</instance>", "x <", "<|", "<ins", "if a<des:"):
        assert written_by(harmless, tokenizer, "?") == harmless
    assert "<ins>" not in written_by("<<ins>>", tokenizer, "ins>ins>")


def test_a_beginning_before_what_was_taken_back_is_not_told_yet() -> None:
    """The first "<" had been told, and went with the tag that came of it after all."""
    assert written_by("<<ins>>", _bytes(), "ins>; more") == "ins>; more"
    assert written_by("a <<des>", _merged(), "des> b") == "ades> b"
    assert written_by("tthen", _bytes(), "hen. So", words("then")) == "hen. So"


def test_a_word_that_begins_again_within_itself_is_found() -> None:
    """Only the later beginning was followed, and the word was whole by the earlier one."""
    assert written_by("so onion", _bytes(), ".", words("onion")) == "so ."
    assert written_by("abacabab.", _bytes(), "-", words("abacabab", "ac")) == "ab-"


PIECES = {
    "tags": "< </ <<i ins ins> <ins> </ins> > <des <des> <| |> <|im_end|> a b. </x <ref refine>",
    "then": "t th the then hen en n tt so a. then then. ethen",
    "onion": "on onion oni ion i n nion o . so anon",
    "several": "abac ab ac a c abab b aabac . abacabab ca",
}
RULES = {
    "tags": replace(TAGS, ends=protocol.CLOSING),
    "then": words("then"),
    "onion": words("onion"),
    "several": words("abacabab", "abac.", "cab", "bb"),
}


@pytest.mark.parametrize("kind", PIECES)
def test_nothing_that_was_told_is_taken_back(kind: str) -> None:
    forbidden, pieces = RULES[kind], PIECES[kind].split()
    tokenizers = [
        _bytes(),
        _merged(),
        train_tokenizer([PIECES[kind].replace(" ", ""), PIECES[kind]] * 9, 400),
    ]
    num_refused = 0
    for seed in range(120):
        rng = random.Random(seed)

        def text(rng: random.Random = rng) -> str:
            drawn = rng.choices(pieces, k=rng.randint(1, 9))
            return rng.choice(["", " "]).join(drawn)

        wants, then, tokenizer = text(), text(), rng.choice(tokenizers)
        made = written_by(wants, tokenizer, then, forbidden)
        assert not forbidden.whole.search(made), (seed, wants, then, made)
        num_refused += made != wants
    assert 20 < num_refused < 120, "it says too little"


@pytest.mark.parametrize("make", [_bytes, tiny.tokenizer])
def test_a_tag_that_closes_ends_a_text_in_which_something_is_said(
    make: Callable[[], BagelTokenizer],
) -> None:
    ending = replace(TAGS, ends=protocol.CLOSING)
    said = {
        "a star</ins> and more": "a star",
        "a star<des> and more": "a star; more",
        "</ins> and more": "; more",
        " </ins> and more": " ; more",
        "a</b> star": "a</b> star",
    }
    for wants, made in said.items():
        assert written_by(wants, make(), "; more", ending) == made


def test_a_beginning_may_not_be_what_is_forbidden() -> None:
    with pytest.raises(ValueError, match="one holds what the text may not hold"):
        TextSampling(begins=("<think>", "<ins>"), without=TAGS)


@pytest.mark.parametrize("attempt", [0, 1])
def test_a_model_that_was_taught_stages_thinks_and_answers_without_them(attempt: int) -> None:
    """It has learned nothing but plans."""
    engine = learn(Trajectory(prompt="a star", steps=(tiny.plan("a red circle"),)), 60)
    start = Trajectory(prompt="a star", inputs=(ImageRef.from_array(tiny.picture(1)),))
    player = BagelPlayer(engine, BagelSettings(max_text_tokens=40))
    for move, kind in (("answer", Answer), ("think", Thought)):
        request = StepRequest(trajectory=start, moves=(move,), seed=3, attempt=attempt)  # type: ignore[arg-type]
        [block] = player._blocks([request], 0, None)
        assert protocol.RESERVED.search(block.text) is None
        [step] = player.write([request])
        assert isinstance(step, kind) or "inside text" not in str(step)


def test_the_staged_miniature_describes_pictures_in_words_alone() -> None:
    """Of these it mixed up most with its stages."""
    rng = np.random.default_rng(5)
    scenes = [scene for scene in (scatter(1 + i % 2, rng) for i in range(4)) if scene]
    player = BagelPlayer(
        open_engine("miniature:staged", dtype="float32"), BagelSettings(max_text_tokens=100)
    )
    requests = [
        StepRequest(
            trajectory=Trajectory(
                prompt="describe the picture", inputs=(ImageRef.from_array(render(scene)),)
            ),
            moves=("answer",),
            seed=0,
        )
        for scene in scenes
    ]
    told: dict[int, str] = {}
    before = dict(told)

    def on_text(row: int, text: str) -> None:
        assert text.startswith(before.get(row, ""))
        before[row] = told[row] = text

    steps = player.write(requests, on_text)
    for row, step in enumerate(steps):
        assert isinstance(step, Answer) and told[row].strip() == step.text
