"""Messages that the documentation explains are those that the code prints."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/training-problems.md"
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(), re.M)


@cache
def strings() -> str:
    """Every string of the code, and every fixed part of one, in a line of its own."""
    found = []
    for folder in ("staged", "train"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(" ".join(node.value.split()))
    return "\n".join(found)


def test_twenty_messages_are_explained() -> None:
    assert len(MESSAGES) >= 20


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_is_one_that_is_printed(message: str) -> None:
    parts = [part.strip() for part in message.split("...")]
    assert sum(map(len, parts)) > 10, "it has nothing to be known by"
    for part in parts:
        assert part in strings(), part


def test_another_message_would_be_noticed() -> None:
    assert "data folder does not exist; build it anew" not in strings()
