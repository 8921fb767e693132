"""What holds for all tests."""

import signal

import pytest
from hypothesis import settings

# A machine that does other work too is no fault of the code.
settings.register_profile("staged", deadline=None)
settings.load_profile("staged")


def pytest_configure(config: pytest.Config) -> None:
    """Let Ctrl-C reach the processes that tests start.

    A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, saying so."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch  # only when asked for: most test files run without it

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
