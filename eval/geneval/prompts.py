"""The prompt files of GenEval: the 553 short prompts, and BAGEL's rewritten long ones.

A score with long prompts is another metric (BAGEL: 0.88 with them, 0.82 without), so the variant
is part of every result. It is told from the prompts themselves; any others are `custom:` and the
beginning of their SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from eval.downloads import PinnedFile, fetch, sha256_of
from eval.geneval.detections import MAX_LINE_BYTES
from eval.geneval.folders import read_folders
from eval.geneval.prompt import GenEvalPrompt, parse_prompt
from staged import strict_json
from staged.lines import read_bounded, split_lines

MAX_FILE_BYTES = 64 * 1024 * 1024

PINNED = {
    "short": PinnedFile(
        url="https://raw.githubusercontent.com/djghosh13/geneval/"
        "16f1681160a110fd077309eb04c1e004f951e06d/prompts/evaluation_metadata.jsonl",
        sha256="5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13",
    ),
    "long": PinnedFile(
        url="https://raw.githubusercontent.com/ByteDance-Seed/Bagel/"
        "a2fa77dd8caeefc41e6607ae0ec17408d3f4ee9f/eval/gen/geneval/prompts/evaluation_metadata_long.jsonl",
        sha256="09472cc9c24e225417b1d5df27e688e5f2a0fcac9ec772f33d9debe4e5d49f27",
    ),
}
"""By variant."""

_VARIANTS = {
    "1c26c0995ab32aae7303994c3878bdcb481dc37978061e9caf18fe9a5babb354": "short",
    "c021c3f3044a6ad2816f8a0b643af4645cbefc1bbe5a78875b38a5d905933f01": "long",
}
"""By the SHA-256 of all records as canonical JSON, a line each: a folder of images has them too."""


@dataclass(frozen=True, kw_only=True)
class GenEvalPromptFile:
    """The prompts of one file.

    Attributes:
        variant: `short`, `long`, or `custom:` and twelve digits of the prompts' SHA-256.
        sha256: Of the file.
        prompts: In the file's order: a prompt's index names its folder of images.
    """

    variant: str
    sha256: str
    prompts: tuple[GenEvalPrompt, ...]


def load_prompts(source: str | Path) -> GenEvalPromptFile:
    """Read prompts from a path, or by the name of a variant, which may fetch its file.

    Args:
        source: Path of a file, of a folder of images in the reference's layout, or `short` or
            `long` where no such path exists.

    Raises:
        ValueError: a line is not a prompt (the message begins with `FILE:LINE`), a prompt occurs
            twice, or a variant's file cannot be had.
        OSError: the file cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        records = [folder.prompt.as_dict() for folder in read_folders(path)]
        return parse_prompts(strict_json.dump_lines(records), str(path))
    if str(source) in PINNED and not path.exists():
        return parse_prompts(fetch(PINNED[str(source)]), str(source))
    content = read_bounded(path, max_bytes=MAX_FILE_BYTES, what="a prompt file")
    return parse_prompts(content, str(path))


def parse_prompts(content: bytes, place: str) -> GenEvalPromptFile:
    """Check a file's content; see `load_prompts`.

    A variant is recognised by its prompts, so that copies in another layout keep its name.
    """
    prompts: list[GenEvalPrompt] = []
    first: dict[str, str] = {}
    for line, where in split_lines(content, place, max_bytes=MAX_LINE_BYTES):
        prompt = parse_prompt(strict_json.loads(line, place=where, max_bytes=MAX_LINE_BYTES), where)
        if prompt.text in first:
            raise ValueError(
                f"{where}: the prompt {prompt.text!r:.60} stands at {first[prompt.text]} already; "
                "images could not be told apart"
            )
        first[prompt.text] = where
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{place}: no prompts")
    digest = sha256_of(strict_json.dump_lines(prompt.as_dict() for prompt in prompts))
    known = _VARIANTS | {pinned.sha256: variant for variant, pinned in PINNED.items()}
    sha256 = sha256_of(content)
    return GenEvalPromptFile(
        variant=known.get(sha256) or known.get(digest) or f"custom:{digest[:12]}",
        sha256=sha256,
        prompts=tuple(prompts),
    )
