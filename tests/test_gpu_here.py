"""The tests of CUDA devices, called on a CPU: what they ask for must be there when one is lent."""

from collections.abc import Callable

import pytest
import test_gpu
import torch


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_gpu, "CUDA", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)


@pytest.mark.parametrize(
    "test",
    [
        test_gpu.test_text_and_drawings_are_those_of_the_cpu,
        lambda: test_gpu.test_company_changes_no_bit(torch.float32, "none"),
        test_gpu.test_a_flow_step_never_waits_for_the_device,
        test_gpu.test_a_training_step_is_that_of_the_cpu,
    ],
)
def test_it_runs(test: Callable[[], None]) -> None:
    test()
