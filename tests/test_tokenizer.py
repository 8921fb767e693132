"""Text stays text: what frames texts and images never comes out of what somebody wrote."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from staged.engine.context import Context
from staged.model.layout import Grids
from staged.model.tokenizer import SPECIAL, BagelTokenizer
from staged.sequence import interleave
from staged.trajectory import Answer, Trajectory

Change = Callable[[dict[str, Any]], None]


def unflagged(file: dict[str, Any]) -> None:
    for token in file["added_tokens"]:
        token["special"] = False


def normalized(file: dict[str, Any]) -> None:
    """Spellings that only a normaliser makes the token's: full-width signs, among others."""
    unflagged(file)
    for token in file["added_tokens"]:
        token["normalized"] = True
    file["normalizer"] = {"type": "NFKC"}


def greedy(file: dict[str, Any]) -> None:
    """Tokens that take the spaces and words around them along."""
    unflagged(file)
    for token in file["added_tokens"]:
        token |= {"lstrip": True, "rstrip": True}


def not_added(file: dict[str, Any]) -> None:
    file["added_tokens"] = []


def write(folder: Path, change: Change) -> Path:
    file = json.loads(tiny.tokenizer().backend.to_str())
    change(file)
    (folder / "tokenizer.json").write_text(json.dumps(file))
    return folder


@pytest.fixture(params=[unflagged, normalized, greedy, not_added])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> BagelTokenizer:
    return BagelTokenizer.load(write(tmp_path, request.param))


@pytest.mark.parametrize("token", SPECIAL)
def test_a_framing_token_never_comes_out_of_text(loaded: BagelTokenizer, token: str) -> None:
    """Where a file did not flag them special, a prompt that spelled one became it."""
    framing = {loaded.backend.token_to_id(name) for name in SPECIAL}
    wide = token.translate({ord("<"): "\uff1c", ord("|"): "\uff5c"})
    for text in (token, f"a {token} star", f"red{token}{token}circle", wide):
        ids = loaded.encode(text)
        assert framing.isdisjoint(ids)
        if text is not wide:
            assert loaded.decode(ids) == text


def test_ids_are_those_of_the_file_that_flags_them(loaded: BagelTokenizer, tmp_path: Path) -> None:
    plain = tiny.tokenizer()
    assert loaded.special == plain.special
    assert loaded.vocab_size == plain.vocab_size
    text = "".join(SPECIAL)
    assert loaded.encode(text) == plain.encode(text)
    # What a model writes is cleared of them too.
    assert loaded.decode([*range(len(SPECIAL)), *loaded.encode("a star")]) == "a star"
    loaded.save_pretrained(tmp_path)
    again = BagelTokenizer.load(tmp_path)
    assert again.encode(text) == plain.encode(text)
    assert all(token.special for token in again.backend.get_added_tokens_decoder().values())


def test_files_of_older_tools_are_read_the_same_way(tmp_path: Path) -> None:
    plain = tiny.tokenizer()
    plain.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for token in settings["added_tokens_decoder"].values():
        token["special"] = False
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    loaded = BagelTokenizer.load(tmp_path)
    text = f"a {''.join(SPECIAL)} star"
    assert loaded.special == plain.special
    assert loaded.encode(text) == plain.encode(text)


def test_a_vocabulary_that_makes_one_of_letters_is_refused(tmp_path: Path) -> None:
    """Without splitting, whole words are looked up, framing tokens among them."""

    def whole_words(file: dict[str, Any]) -> None:
        file["pre_tokenizer"] = {
            "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False
        }  # fmt: skip
        file["model"]["ignore_merges"] = True

    with pytest.raises(ValueError, match=r"tokenizer\.json: a text that says <\|endoftext\|>"):
        BagelTokenizer.load(write(tmp_path, whole_words))


def test_sequences_are_framed_once_whoever_wrote_what(loaded: BagelTokenizer) -> None:
    """A user's prompt, and an answer of another model, that spell every one of the tokens."""
    text = "".join(SPECIAL)
    trajectory = Trajectory(prompt=text, steps=(Answer(text=text),))
    nothing = Grids(latent=(0, 0), vision=(0, 0))
    segments = interleave(trajectory, loaded.encode, loaded.special, lambda _: nothing).segments
    framing = {loaded.backend.token_to_id(name) for name in SPECIAL}
    assert len(segments) == 2
    assert all(segment.ids and framing.isdisjoint(segment.ids) for segment in segments)
    engine = tiny.engine()
    engine.tokenizer = loaded
    context = Context()
    engine.append_text([context], [text])
    assert context.num_tokens == len(loaded.encode(text)) + 2
