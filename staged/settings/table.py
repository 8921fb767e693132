"""The table of keys that `--help` shows: key, type, documentation, default."""

import ast
import dataclasses
import inspect
import itertools
import re
import textwrap
import typing
from collections.abc import Iterator
from typing import Any, get_args

from staged.settings.kinds import MISSING, default_of, is_union, name, show, types_of
from staged.settings.plain import plain

_ENTRY = re.compile(r"^(\w+)(?: \([^)]*\))?: *(.*)$")


def describe(cls: type[Any]) -> str:
    """Return a text table of every key with its type, documentation and default, for `--help`."""
    rows = list(_rows(cls, ""))
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return "\n".join(f"  {key:{widths[0]}}  {kind:{widths[1]}}  {doc}" for key, kind, doc in rows)


def _rows(cls: type[Any], prefix: str, default: Any = None) -> Iterator[tuple[str, str, str]]:
    types = types_of(cls)
    docs = _docs(cls)
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        kind = types[field.name]
        standing = default_of(field) if default is None else getattr(default, field.name)
        members = get_args(kind) if is_union(kind) else (kind,)
        sections = [member for member in members if dataclasses.is_dataclass(member)]
        if len(sections) == 1:
            section = typing.cast(type[Any], sections[0])
            inner = standing if isinstance(standing, section) else None
            yield from _rows(section, f"{prefix}{field.name}.", inner)
        else:
            note = "[required]" if standing is MISSING else f"[{show(plain(standing))}]"
            doc = f"{docs.get(field.name, '')} {note}".strip()
            yield prefix + field.name, name(kind), doc


def _docs(cls: type[Any]) -> dict[str, str]:
    """Return each documented field's text on one line, by name; base classes included.

    A field is documented by the string under it or by its entry in the class docstring's
    `Attributes:` section. Classes whose source is not at hand have no entries.
    """
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            docs.update(_attributes_section(inspect.cleandoc(base.__doc__ or "")))
            docs.update(_strings_under_fields(base))
    return docs


def _strings_under_fields(cls: type[Any]) -> dict[str, str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return {}
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    docs = {}
    for field, below in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            docs[field.target.id] = " ".join(below.value.value.split())
    return docs


def _attributes_section(docstring: str) -> dict[str, str]:
    _, _, section = docstring.partition("\nAttributes:\n")
    docs: dict[str, str] = {}
    name = None
    for line in textwrap.dedent(re.split(r"\n(?=\S)", section)[0]).splitlines():
        if entry := _ENTRY.match(line):
            name = entry[1]
            docs[name] = entry[2]
        elif name and line.strip():
            docs[name] = f"{docs[name]} {line.strip()}"
    return docs
