"""What torch allocates while something runs: kernels' own buffers included, unlike tensors seen
from Python. On a CPU alone; on CUDA `torch.cuda.max_memory_allocated` says it.
"""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(act: Callable[[], object]) -> int:
    """Most bytes beyond those before that are allocated at any time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        act()
    profiler = seen.profiler
    assert profiler is not None
    events = [e for e in profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
