"""A line on the terminal while torch loads: seconds of silence look like a command that hangs."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from staged.command_line.console import console

_PATIENCE_S = 1.0
_WIPE = "\r\x1b[K"


class _Watch:
    """A finder that finds nothing: it notices when a module begins to be imported."""

    def __init__(self, module: str) -> None:
        self.timer: threading.Timer | None = None
        self._module = module
        self._shown = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == self._module and self.timer is None:
            self.timer = threading.Timer(_PATIENCE_S, self._show)
            self.timer.daemon = True
            self.timer.start()
        return None

    def loading(self) -> bool:
        spec = getattr(sys.modules.get(self._module), "__spec__", None)
        return bool(getattr(spec, "_initializing", False))

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self._shown:
            self._shown = False
            print(_WIPE, end="", file=sys.stderr, flush=True)

    def _show(self) -> None:
        if self.loading():
            self._shown = True
            print(f"loading {self._module} ...", end="", file=sys.stderr, flush=True)
            while self._shown and self.loading():
                threading.Event().wait(0.05)
            self.stop()


@contextlib.contextmanager
def tell_slow_import(module: str) -> Iterator[None]:
    """While the block lasts, tell on a terminal when importing a module takes long.

    Args:
        module: Its name; nothing is told where it is imported already.
    """
    if module in sys.modules or not sys.stderr.isatty() or console().quiet:
        yield
        return
    watch = _Watch(module)
    sys.meta_path.insert(0, watch)
    try:
        yield
    finally:
        sys.meta_path.remove(watch)
        watch.stop()
