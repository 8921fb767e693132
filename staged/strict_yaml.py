"""YAML as settings need it: bounded, without surprises, errors that name the line.

PyYAML speaks YAML 1.1, where `2e-5` is text, `no` is false, `12:30` is a number, a date becomes
an object and the second of two equal keys wins silently. Here scalars follow YAML 1.2's core
schema, equal keys are an error, and anchors are refused, so a small file cannot grow large.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from staged.lines import read_bounded, without_mark

MAX_BYTES = 1 << 20
"""Largest settings file that is read."""

KeyPath = tuple[str, ...]

_SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|", ["~", "n", ""]),
    ("tag:yaml.org,2002:bool", r"true|false", list("tf")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9](_?[0-9])*", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9](_?[0-9])*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+.0123456789"),
    ),
)


class _Loader(yaml.SafeLoader):
    """Safe loader with YAML 1.2's scalars, unique keys and no anchors."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(
                problem="anchors and aliases are not accepted; write the value out",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Safe dumper that quotes whatever `_Loader` would not read back as text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own class attribute)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(node.value.replace("_", ""))


def _represent_str(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds Unicode's own line breaks wrongly in every style but this one.
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


for _tag, _pattern, _first in _SCALARS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_tag, re.compile(f"^(?:{_pattern})$"), _first)
# YAML 1.1 reads 010 as eight; 1.2 and people read ten.
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Dumper.add_representer(str, _represent_str)


def read(path: Path) -> tuple[Any, dict[KeyPath, int]]:
    """Read a YAML file.

    Returns:
        Its value, and the 1-based line of every key, by path from the root.

    Raises:
        OSError: the file cannot be read.
        ValueError: too large, not UTF-8, or not YAML as described above; names file and line.
    """
    data = read_bounded(path, max_bytes=MAX_BYTES, what="a settings file")
    try:
        return _parse(without_mark(data, str(path)).decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8: {error}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {_describe(error)}") from None


def loads(text: str) -> Any:
    """Parse one YAML value, as given on a command line.

    Raises:
        ValueError: not YAML as described above.
    """
    try:
        return _parse(text)[0]
    except yaml.YAMLError as error:
        raise ValueError(_describe(error)) from None


def dumps(value: Any) -> str:
    """Write plain data (dicts, lists, scalars) so that `loads` gives it back, keys in order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _parse(text: str) -> tuple[Any, dict[KeyPath, int]]:
    lines: dict[KeyPath, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _check(node, (), lines)
        return loader.construct_document(node), lines
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except ValueError as error:  # a constructor: an integer of thousands of digits, a bad !!float
        raise yaml.YAMLError(str(error)) from None


def _check(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    """Refuse equal or non-text keys, and note the line of each key."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _check(item, (*path, str(index)), lines)
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        problem = None
        if not isinstance(key, yaml.ScalarNode):
            problem = "a key must be text"
        elif (*path, key.value) in lines:
            problem = f"key {key.value!r} is given twice"
        if problem is not None:
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
        lines[(*path, key.value)] = key.start_mark.line + 1
        _check(value, (*path, key.value), lines)


def _describe(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return f"line {mark.line + 1}: {problem}" if mark is not None else problem
