"""Commands as processes of their own, several at once, without seconds of imports for each."""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from forks import forks


class Command:
    """`staged data …` in a process of its own.

    Args:
        arguments: After `staged data`.
        log: File that gets what it prints.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._log = log
        self._process = forks.Process(target=_run, args=(list(arguments), str(log)))
        self._process.start()

    def kill(self) -> bool:
        """Send SIGKILL and wait for the end; say whether it was that which ended it."""
        self._process.kill()
        self._process.join()
        return self._process.exitcode == -signal.SIGKILL

    def end(self) -> int:
        """Wait for the end and return the exit code; a traceback or a hang is an error."""
        self._process.join(300)
        code = self._process.exitcode
        assert code is not None, "it hangs"
        assert "Traceback" not in self.text, self.text
        return code

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    @property
    def text(self) -> str:
        """What it has printed."""
        return self._log.read_text()


def _run(arguments: list[str], log: str) -> None:
    from data_pipelines.__main__ import main

    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    try:
        code = main(arguments)
    except (ValueError, OSError) as error:  # as the command does
        print(f"error: {error}", flush=True)
        code = 2
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    os._exit(code)
