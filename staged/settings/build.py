"""Settings objects from plain data and command-line text, with every problem found at once."""

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from staged import strict_yaml
from staged.settings import kinds
from staged.settings.kinds import MISSING
from staged.strict_yaml import KeyPath

S = TypeVar("S")


class SettingsError(ValueError):
    """Settings that cannot be used.

    Attributes:
        problems: One line for each thing wrong, with its place and the way out.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        if len(self.problems) == 1:
            super().__init__(self.problems[0])
        else:
            lines = "\n".join(f"  {problem}" for problem in self.problems)
            super().__init__(f"{len(self.problems)} problems in the settings:\n{lines}")


@dataclasses.dataclass(frozen=True)
class Override:
    """A value still in the text of a command line; its field's type decides how to read it."""

    raw: str
    expression: str


class SettingsBuilder:
    """Builds one settings object, collecting problems instead of stopping at the first.

    Args:
        source: Where the data is from, for messages.
        lines: The line of each key in `source`, where known.
    """

    def __init__(self, source: str, lines: Mapping[KeyPath, int]) -> None:
        self.source = source
        self.lines = lines
        self.problems: list[str] = []

    def finish(self, cls: type[S], data: Any) -> S:
        """Build the object; raises `SettingsError` with all problems noted so far."""
        settings = self.section(cls, data, ())
        if self.problems:
            raise SettingsError(self.problems)
        return typing.cast(S, settings)

    def override(self, data: Any, expression: str) -> Any:
        """Lay one `section.key=value` over the data; returns the new data."""
        key, equals, raw = expression.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            self.problems.append(f"override {expression!r}: write it as section.key=value")
            return data
        return _laid(data, path, Override(raw, expression))

    def section(self, cls: type[Any], data: Any, path: KeyPath, default: Any = None) -> Any:
        """Build a (nested) settings object, or `MISSING` after noting why not.

        Args:
            cls: Its class.
            data: Its keys.
            path: Where it is.
            default: An object of the class whose values stand where `data` has none.
        """
        if not isinstance(data, Mapping):
            return self._problem(path, f"expected a section, got {kinds.show(data)}")
        types = kinds.types_of(cls)
        fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
        before = len(self.problems)
        for key, value in data.items():
            if key not in fields:
                suggestion = kinds.nearest(str(key), list(fields))
                self._problem((*path, str(key)), f"unknown key{suggestion}", value)
        values = {}
        for name, field in fields.items():
            standing = kinds.default_of(field) if default is None else getattr(default, name)
            if name in data:
                values[name] = self._value(types[name], data[name], (*path, name), standing)
            elif standing is MISSING:
                self._problem((*path, name), f"missing: give it a {kinds.name(types[name])}")
            else:
                values[name] = standing
        if len(self.problems) > before:
            return MISSING
        try:
            return cls(**values)
        except ValueError as error:
            message = str(error)
            return self._problem(path, message, at_fault(data, message), about=named(data, message))

    def _value(self, kind: Any, value: Any, path: KeyPath, default: Any = None) -> Any:
        """Return the value as the field's type, or `MISSING` after noting why not."""
        if isinstance(value, Override):
            return self._text(kind, value, path)
        if next(_overrides(value), None) and not _has_keys(kind):
            expected, way = kinds.name(kind), "..."
            if get_origin(kind) is tuple:
                expected, way = "a list", "[...]"
            message = f"expected {expected}, which has no keys; give {'.'.join(path)}={way} whole"
            return self._problem(path, message, value)
        if kinds.is_union(kind):
            return self._union(get_args(kind), value, path, default)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if isinstance(value, kind):
                return value
            return self.section(kind, value, path, default if isinstance(default, kind) else None)
        if get_origin(kind) is tuple:
            return self._tuple(get_args(kind), value, path)
        if get_origin(kind) in (dict, Mapping):
            return self._dict(get_args(kind)[1], value, path)
        if kind is Any and isinstance(value, Mapping):
            return self._dict(Any, value, path)
        result = kinds.scalar(kind, value)
        if result is MISSING:
            expected = f"expected {kinds.name(kind)}, got {kinds.show(value)}"
            return self._problem(path, expected + kinds.way_out(kind, value))
        return result

    def _text(self, kind: Any, override: Override, path: KeyPath) -> Any:
        """Read command-line text as YAML where that fits the type, and as it stands otherwise."""
        raw = override.raw
        readings: list[Any] = [raw]
        try:
            parsed = strict_yaml.loads(raw)
            if not isinstance(parsed, str):
                readings = [parsed] if kind is Any else [parsed, raw]
            elif raw[:1] in ("'", '"'):
                readings = [parsed]
        except ValueError:
            pass  # not YAML, so it can only be text as it stands
        attempts = [SettingsBuilder(f"override {override.expression!r}", {}) for _ in readings]
        for attempt, reading in zip(attempts, readings, strict=True):
            result = attempt._value(kind, reading, path)
            if result is not MISSING:
                return result
        self.problems += attempts[0].problems
        return MISSING

    def _union(self, members: Sequence[Any], value: Any, path: KeyPath, default: Any) -> Any:
        if value is None and type(None) in members:
            return None
        members = [member for member in members if member is not type(None)]
        # A member of exactly the value's type goes first: with float | int, 1 stays an int.
        members.sort(key=lambda member: member is not type(value))
        attempts = [SettingsBuilder(self.source, self.lines) for _ in members]
        for attempt, member in zip(attempts, members, strict=True):
            result = attempt._value(member, value, path, default)
            if result is not MISSING:
                return result
        if len(members) == 1:
            self.problems += attempts[0].problems
            return MISSING
        expected = " or ".join(kinds.name(member) for member in members)
        return self._problem(path, f"expected {expected}, got {kinds.show(value)}")

    def _tuple(self, members: Sequence[Any], value: Any, path: KeyPath) -> Any:
        if not isinstance(value, list | tuple):
            return self._problem(path, f"expected a list, got {kinds.show(value)}")
        if members[-1:] == (Ellipsis,):
            members = (members[0],) * len(value)
        elif len(members) != len(value):
            return self._problem(path, f"expected {len(members)} values, got {len(value)}")
        items = [
            self._value(member, item, (*path, str(index)))
            for index, (member, item) in enumerate(zip(members, value, strict=True))
        ]
        return MISSING if any(item is MISSING for item in items) else tuple(items)

    def _dict(self, member: Any, value: Any, path: KeyPath) -> Any:
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            shown = kinds.show(value)
            return self._problem(path, f"expected a mapping with text keys, got {shown}")
        items = {key: self._value(member, item, (*path, key)) for key, item in value.items()}
        return MISSING if any(item is MISSING for item in items.values()) else items

    def _problem(
        self, path: KeyPath, message: str, value: Any = None, *, about: Sequence[str] = ()
    ) -> Any:
        """Note a problem with the place of its key; returns `MISSING` to pass on.

        Args:
            path: Of the key, or of the section that is refused as a whole.
            message: What is wrong.
            value: Where it came from, if it is an override.
            about: Keys of the section that the message is about.
        """
        places = [*((*path, key) for key in about), *(path[:n] for n in range(len(path), 0, -1))]
        known = [place for place in places if place in self.lines]
        while isinstance(value, Mapping) and value:  # a key that an override made on its way
            value = next(iter(value.values()))
        if isinstance(value, Override):
            place = f"override {value.expression!r}"
        elif known:
            place = f"{self.source}, line {self.lines[known[0]]}"
        else:
            place = self.source
        key = f"{'.'.join(path)}: " if path else ""
        self.problems.append(f"{place}: {key}{message}")
        return MISSING


def _has_keys(kind: Any) -> bool:
    """Whether a value of a type has parts of their own names."""
    if kinds.is_union(kind):
        return any(map(_has_keys, get_args(kind)))
    return kind is Any or dataclasses.is_dataclass(kind) or get_origin(kind) in (dict, Mapping)


def at_fault(data: Mapping[str, Any], message: str) -> Override | None:
    """The override that a section's own refusal is about, if there is one.

    That of a key that the message names; else the only one, where the file said the rest.
    """
    given = dict(_overrides(data))
    if about := named(given, message):
        return given[about[0]]
    return next(iter(given.values())) if len(given) == 1 and not named(data, message) else None


def named(data: Mapping[str, Any], message: str) -> list[str]:
    """The keys that a message names, in its order."""
    found = {str(key): re.search(rf"\b{re.escape(str(key))}\b", message) for key in data}
    places = {key: match.start() for key, match in found.items() if match}
    return sorted(places, key=lambda key: places[key])


def _overrides(data: Any) -> Iterator[tuple[str, Override]]:
    if isinstance(data, Mapping):
        for key, value in data.items():
            if isinstance(value, Override):
                yield str(key), value
            else:
                yield from _overrides(value)


def _laid(data: Any, path: KeyPath, value: Override) -> Any:
    """Return the data with a value at the path; what is no section makes room for one."""
    if not path:
        return value
    if isinstance(data, Override):  # a section given whole, earlier on the command line
        try:
            data = strict_yaml.loads(data.raw)
        except ValueError:
            data = None
    section = dict(data) if isinstance(data, Mapping) else {}
    section[path[0]] = _laid(section.get(path[0]), path[1:], value)
    return section
