"""Options of commands that can search while they draw."""

from __future__ import annotations

import argparse
from typing import get_args

from eval.search.settings import SearchSettings, VerifierKind, VerifierSettings
from staged import settings as job_settings
from staged import strict_json
from staged.command_line import UsageError, count


def add_search(parser: argparse.ArgumentParser) -> None:
    """Add how many candidates are drawn for a picture, and who chooses."""
    group = parser.add_argument_group(
        "search", "draw several candidates of each picture and keep the best; off by default"
    )
    add = group.add_argument
    add("--best-of", type=count, metavar="N", help="candidates of each picture")
    add(
        "--total-flow-steps",
        type=count,
        metavar="N",
        help="as many candidates as so many network evaluations pay for",
    )
    add(
        "--verifier",
        nargs="+",
        metavar="KIND",
        help=f"who chooses: {', '.join(get_args(VerifierKind))}, and key=value of its settings "
        "(default: detector, which in most results is the judge too, and makes an upper bound)",
    )


def search_of(options: argparse.Namespace) -> SearchSettings | None:
    """Read how is searched; None where it is not.

    Raises:
        UsageError: a verifier without candidates, or both of their numbers.
        ValueError: settings of the verifier are wrong.
    """
    numbers = (options.best_of, options.total_flow_steps)
    if numbers == (None, None):
        if options.verifier:
            raise UsageError("--verifier chooses among candidates: add --best-of or "
                             "--total-flow-steps")  # fmt: skip
        return None
    if None not in numbers:
        raise UsageError("--best-of and --total-flow-steps: give one of them")
    kind, *overrides = options.verifier or ["detector"]
    # Quoted, so that a kind that is none is told as such and not as broken YAML.
    overrides = [f"kind={strict_json.dumps(kind)}", *overrides]
    verifier = job_settings.load(VerifierSettings, None, overrides)
    return SearchSettings(
        verifier=verifier,
        candidates=options.best_of,
        total_flow_steps=options.total_flow_steps,
    )


def verifier_help() -> str:
    """Describe the settings of a verifier, for the end of a help text."""
    return f"settings of a --verifier:\n{job_settings.describe(VerifierSettings)}"
