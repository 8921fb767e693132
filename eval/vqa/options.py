"""Options of commands that ask a vision-language model."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eval.kept import lines_of
from eval.vqa.question import Answerer
from staged import settings as job_settings
from staged import strict_json
from staged.backends.lmm.kept import kept_answers
from staged.backends.lmm.settings import LmmSettings
from staged.command_line import add_dtype, add_overrides, amount
from staged.jobs.rank import Rank

JUDGE = "Qwen/Qwen3-VL-8B-Instruct"
_SAID = re.compile(r", (float32|bfloat16|float16), first token")  # by `LocalAnswerer.name`
_SERVER_DEFAULTS = {"model": JUDGE, "base_url": "http://127.0.0.1:8000/v1", "api_key_env": None}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--through` and what belongs to it."""
    group = parser.add_argument_group("the model that answers")
    add = group.add_argument
    add(
        "--through",
        choices=("transformers", "server"),
        default="transformers",
        help="in this process, or by log probabilities of an OpenAI-compatible server "
        "(default: %(default)s)",
    )
    add_dtype(
        group,
        "of its weights in this process",
        auto="what they are kept in, float32 where the device multiplies that slowly, and for a "
        "file that goes on what it began in",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    add(
        "--top-logprobs",
        type=int,
        default=20,
        help="server: tokens it names for each answer (default: %(default)s)",
    )
    add(
        "--budget-usd",
        type=amount,
        help="server: stop when so much is spent, over all runs and processes",
    )
    add_overrides(group, words="server: its settings")


def server_help() -> str:
    """Describe the server's settings, for the end of a help text."""
    return (
        f"settings of the server (by default {JUDGE} at {_SERVER_DEFAULTS['base_url']}, without a "
        f"key):\n{job_settings.describe(LmmSettings)}"
    )


def _begun_dtype(out: Path) -> str | None:
    """Return the precision of the answers in a file, which is part of who gave them."""
    for line, place in lines_of(out):
        record = strict_json.loads(line, place=place, max_bytes=len(line))
        names = [record.get("judge"), record.get("scorer")] if isinstance(record, dict) else []
        for name in names:
            if isinstance(name, str) and (found := _SAID.search(name)):
                return found[1]
    return None


@contextmanager
def open_answerer(
    arguments: argparse.Namespace, *, weights: str, purpose: str, out: Path, rank: Rank
) -> Iterator[Answerer]:
    """Open who answers.

    Args:
        arguments: With the options of `add_options`, and `--device`.
        weights: For transformers: folder or Hub id.
        purpose: For a server: what the questions are for, in its log.
        out: The file of what is answered; a server's answers are kept beside it, and what
            transformers' answers were given in, they go on in.
        rank: Which of the processes that share the work this is; they share the answers too.

    Raises:
        ValueError: no such model, or an option that does not belong to `--through`.
    """
    if arguments.through == "transformers":
        budget = [] if arguments.budget_usd is None else ["--budget-usd"]
        if of_server := [*arguments.overrides, *budget]:
            raise ValueError(f"{of_server[0]!r} is for a server; add --through server")
        from eval.vqa.local import LocalAnswerer

        yield LocalAnswerer.load(
            weights, device=arguments.device, dtype=arguments.dtype, begun=_begun_dtype(out)
        )
        return
    if arguments.dtype != "auto":
        raise ValueError(f"--dtype {arguments.dtype} is for transformers; a server has its own")
    from eval.vqa.server import ServerAnswerer

    defaults = [f"{key}={strict_json.dumps(value)}" for key, value in _SERVER_DEFAULTS.items()]
    settings = job_settings.load(LmmSettings, None, [*defaults, *arguments.overrides])
    with kept_answers(out, usd=arguments.budget_usd, rank=rank) as log:
        yield ServerAnswerer(settings, log, purpose=purpose, top_logprobs=arguments.top_logprobs)
