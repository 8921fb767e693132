"""What holds for all tests."""

import gc
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from staged.command_line.console import session

# A machine that does other work too is no fault of the code.
settings.register_profile("staged", deadline=None)
settings.load_profile("staged")


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach the processes that tests start.

    A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # until all is collected: modules and tests are millions of objects that stay


def pytest_collection_finish() -> None:
    """Collect garbage from here on among what tests make, not through torch and all tests anew."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _console_of_its_own() -> Iterator[None]:
    """Let nothing that a test asks of the console, such as `--json`, reach the next one."""
    with session():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest; skip what needs a GPU where there is none, saying so."""
    # Runs of several ranks, up to a minute each: at the end one worker would wait for another.
    items.sort(key=lambda item: not item.path.name.startswith("test_train_"))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch  # only when asked for: most test files run without it

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
