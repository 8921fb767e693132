"""Settings of a job: one frozen dataclass, from YAML and `section.key=value`, checked as a whole.

A settings class is a frozen, keyword-only dataclass. Its fields are scalars (`bool`, `int`,
`float`, `str`, `Path`, `Literal`, enums), tuples, `dict[str, ...]`, other settings classes
(sections), or unions of these with `None`. The string under a field, or its entry in the class's
`Attributes:`, documents it:

    @dataclass(frozen=True, kw_only=True)
    class Optimizer:
        lr: float = 2e-5
        '''Peak learning rate.'''

    settings = load(Job, "configs/job.yaml", ["optimizer.lr=1e-4"])

Every default lives in its class; a file states only what differs.
"""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from staged import strict_json, strict_yaml
from staged.jobs.files import write_whole
from staged.settings.build import SettingsBuilder, SettingsError
from staged.settings.plain import changes, to_dict
from staged.settings.table import describe

__all__ = [
    "SettingsError",
    "changes",
    "describe",
    "find_config",
    "fingerprint",
    "from_dict",
    "load",
    "save_resolved",
    "shipped_configs",
    "to_dict",
]

S = TypeVar("S")


def load(cls: type[S], path: str | Path | None = None, overrides: Sequence[str] = ()) -> S:
    """Read settings from a YAML file, with overrides on top.

    Args:
        cls: The settings class.
        path: YAML file; `None` for defaults only. `configs/...` that is not found from the
            working directory is looked for beside the installed packages.
        overrides: `section.key=value`; the last of equal keys wins.

    Raises:
        SettingsError: everything that is wrong, at once.
        ValueError: the file is not YAML.
        OSError: the file cannot be read.
    """
    data: Any = {}
    lines: dict[tuple[str, ...], int] = {}
    source = "settings"
    if path is not None:
        found = find_config(Path(path))
        source = str(found)
        data, lines = strict_yaml.read(found)
        data = {} if data is None else data
    return _built(cls, data, SettingsBuilder(source, lines), overrides)


def from_dict(
    cls: type[S],
    data: Mapping[str, Any],
    source: str = "settings",
    overrides: Sequence[str] = (),
) -> S:
    """Build settings from plain data, such as `to_dict` gives, with overrides on top as in `load`.

    Raises:
        SettingsError: everything that is wrong, at once; `source` names the origin.
    """
    return _built(cls, data, SettingsBuilder(source, {}), overrides)


def _built(cls: type[S], data: Any, builder: SettingsBuilder, overrides: Sequence[str]) -> S:
    for expression in overrides:
        data = builder.override(data, expression)
    return builder.finish(cls, data)


def fingerprint(settings: Any) -> str:
    """Return the SHA-256 (hex) of the settings' canonical JSON: equal settings, equal text."""
    return hashlib.sha256(strict_json.dumps(to_dict(settings)).encode()).hexdigest()


def save_resolved(settings: Any, path: str | Path) -> None:
    """Write all settings, defaults included, as YAML that `load` reads back to an equal object.

    The file appears whole or not at all, and its folder is made if need be.
    """
    text = f"# {type(settings).__name__}, resolved; fingerprint {fingerprint(settings)}\n"
    text += strict_yaml.dumps(to_dict(settings))
    write_whole(Path(path), text.encode())


def find_config(path: Path) -> Path:
    """Return `path`, or the file that the package ships under the same `configs/...` name.

    Raises:
        FileNotFoundError: neither exists; names the nearest shipped files, if some are near.
    """
    if path.is_file():
        return path
    shipped = shipped_configs()
    if path in shipped:
        return shipped[path]
    # What all names begin and end with would make each like any other.
    names = {str(Path(*name.parts[1:]).with_suffix("")): str(name) for name in shipped}
    given = str(path).removeprefix("configs/").removesuffix(".yaml")
    close = [names[name] for name in difflib.get_close_matches(given, names, n=3)]
    hint = f"; did you mean {' or '.join(close)}?" if close else ";"
    raise FileNotFoundError(f"no settings file {path}{hint} `staged configs` lists those shipped")


def shipped_configs() -> dict[Path, Path]:
    """Name (`configs/…`) to path of every settings file that comes with the package."""
    packages = Path(__file__).resolve().parents[2]
    return {file.relative_to(packages): file for file in sorted(packages.glob("configs/**/*.yaml"))}
