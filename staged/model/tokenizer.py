"""Text to ids in Qwen2's byte-level scheme, with the special tokens BAGEL frames segments by.

The miniature's tokenizer is of the same kind (byte-level BPE, same file), only with merges
learned on its small grammar, so any text encodes and one class reads both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from staged import strict_json
from staged.model.layout import SpecialTokens

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
# Qwen2's own splitting rule, so that the miniature splits text where the real model does.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"
_MAX_SETTINGS_BYTES = 1 << 22


class BagelTokenizer:
    """Encodes plain text; special tokens never come out of text, whatever it says."""

    def __init__(self, backend: Tokenizer) -> None:
        """Wrap a `tokenizers.Tokenizer`.

        Missing special tokens are added, as upstream does with Qwen2's. Those that are there keep
        their ids, and become special where a file does not say that they are.
        """
        backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
        # A file may ask for both; a block would then be filled up, or cut, on its way.
        backend.no_padding()
        backend.no_truncation()
        # A prompt that spells out "<|im_end|>" must stay text: encode it letter by letter.
        backend.encode_special_tokens = True
        self.backend = backend
        stop, text_start, text_end, image_start, image_end = (
            number for t in SPECIAL if (number := backend.token_to_id(t)) is not None
        )
        self.special = SpecialTokens(
            text_start=text_start,
            text_end=text_end,
            image_start=image_start,
            image_end=image_end,
            stop=stop,
        )

    @classmethod
    def load(cls, folder: str | Path) -> BagelTokenizer:
        """Read a checkpoint folder's tokenizer.

        Raises:
            ValueError: The folder has no readable tokenizer.
        """
        path = Path(folder) / FILE
        if path.is_file():
            try:
                backend = Tokenizer.from_file(str(path))
            except Exception as error:  # the library raises bare Exception on a damaged file
                raise ValueError(f"{path} is no tokenizer file: {error}") from error
            _check_added(backend, Path(folder) / SETTINGS_FILE)
            return cls(backend)._checked(path)
        if (Path(folder) / "vocab.json").is_file():
            from transformers import AutoTokenizer

            slow: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            return cls(slow.backend_tokenizer)._checked(Path(folder) / "vocab.json")
        raise ValueError(f"{folder} holds neither {FILE} nor vocab.json: no tokenizer to load")

    def _checked(self, path: Path) -> BagelTokenizer:
        """Refuse a vocabulary whose own pieces make a special token of its letters."""
        for token in SPECIAL:
            number = self.backend.token_to_id(token)
            for text in (token, f"a {token} b", f"a{token}b"):
                if number in self.encode(text):
                    raise ValueError(
                        f"{path}: a text that says {token} becomes the token {number} that frames "
                        "texts and images; leave it out of the vocabulary's merges"
                    )
        return self

    @property
    def vocab_size(self) -> int:
        """Ids in use, special tokens included."""
        return int(self.backend.get_vocab_size())

    def encode(self, text: str) -> tuple[int, ...]:
        """Ids of a text block, without markers."""
        return tuple(self.backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids; special tokens are left out."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the tokenizer's files into a checkpoint folder.

        `tokenizer.json` holds everything; older tools read Qwen2's vocabulary, merges and
        settings from files of their own.
        """
        self.backend.save(str(Path(folder) / FILE))
        self.backend.model.save(str(folder))
        added = self.backend.get_added_tokens_decoder()
        flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
        settings = {
            "tokenizer_class": "Qwen2Tokenizer",
            "added_tokens_decoder": {
                str(number): {flag: getattr(token, flag) for flag in flags}
                for number, token in sorted(added.items())
            },
            "add_prefix_space": False,
            # Joining spaces and marks would decode to what does not encode to the same ids again.
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
        }
        text = json.dumps(settings, indent=2) + "\n"
        (Path(folder) / SETTINGS_FILE).write_text(text, encoding="utf-8")


def _check_added(backend: Tokenizer, path: Path) -> None:
    """Refuse ids of added tokens that the settings beside a tokenizer give otherwise.

    Transformers would let the settings win; whichever does, the model was trained with one.
    """
    if not path.is_file():
        return
    settings = strict_json.read(path, max_bytes=_MAX_SETTINGS_BYTES)
    added = settings.get("added_tokens_decoder") if isinstance(settings, dict) else None
    for number, token in (added if isinstance(added, dict) else {}).items():
        content = token.get("content") if isinstance(token, dict) else token
        known = backend.token_to_id(content) if isinstance(content, str) else None
        if str(known) != number:
            raise ValueError(
                f"{path}: added_tokens_decoder gives {content!r:.40} the id {number}, {FILE} gives "
                f"it {'none' if known is None else known}; keep the one that the weights know"
            )


def train_tokenizer(corpus: Iterable[str], vocab_size: int) -> BagelTokenizer:
    """Learn byte-level merges from a corpus; the same corpus gives the same tokenizer.

    Args:
        corpus: Lines of text, in a fixed order.
        vocab_size: Ids at most, at least 256 bytes and the special tokens.
    """
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        # Every byte, so that any text encodes, whatever the corpus held.
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    return BagelTokenizer(backend)
