"""Flow steps that are recorded once and replayed; on a CPU with a recorder that runs them again."""

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import SIDE, engine
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.graphs import OFF, Graphs
from staged.model.flows import FlowSettings, Guidance

PLAIN = engine(1)
WIDE = Guidance(text_scale=4.0, image_scale=1.5, interval=(0.3, 1.0))
FLOW = FlowSettings(num_flow_steps=8, timestep_shift=2.0, guidance=WIDE)
BARE = FlowSettings(num_flow_steps=5, guidance=Guidance(text_scale=1.0, image_scale=1.0))


class Recorder:
    """Replays by running the work again, into the tensor that it made at first."""

    def __init__(self, *, wrong: float = 0.0, error: Exception | None = None) -> None:
        self.num_recorded = self.num_replayed = 0
        self.wrong, self.error = wrong, error

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        self.num_recorded += 1
        if self.error is not None:
            raise self.error
        made = work()

        def replay() -> None:
            self.num_replayed += 1
            made.copy_(work() * (1 + self.wrong))

        return made, replay


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Callable[[Recorder], Engine]:
    def engine_of(recorder: Recorder) -> Engine:
        monkeypatch.setattr(Graphs, "on", classmethod(lambda cls, device: cls(recorder)))
        return Engine(PLAIN.model, PLAIN.codec, PLAIN.tokenizer)

    return engine_of


def draw(engine: Engine, *flows: FlowSettings, on_step: Any = None) -> list[Tensor]:
    """Latents of a picture for each way to draw, in contexts of words."""
    contexts = [Context() for _ in flows]
    engine.append_text(contexts, ["a red star", "a blue ring"][: len(flows)])
    nothing = [Context() for _ in flows]
    drawn = engine.draw(
        contexts,
        nothing,
        nothing,
        sizes=[(SIDE, SIDE)] * len(flows),
        seeds=list(range(len(flows))),
        settings=flows,
        on_step=on_step,
    )
    return [drawing.latents for drawing in drawn]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("flows", "recordings"),
    [
        ((FLOW,), 2),  # with guidance, and without
        ((BARE,), 1),
        ((FLOW, FLOW), 2),
        ((FLOW, BARE), 4),  # together, and what is left when one has ended
        ((FlowSettings(num_flow_steps=8, forecast=(None, None, None, *[1.0] * 5)),), 1),
    ],
)
def test_replayed_steps_draw_the_same_bits(
    recording: Callable[[Recorder], Engine], flows: tuple[FlowSettings, ...], recordings: int
) -> None:
    recorder = Recorder()
    assert same(draw(recording(recorder), *flows), draw(PLAIN, *flows))
    assert recorder.num_recorded <= recordings
    assert recorder.num_replayed > recorder.num_recorded


def test_what_is_recorded_is_let_go_with_its_picture(
    recording: Callable[[Recorder], Engine],
) -> None:
    held: list[weakref.ref[Any]] = []

    class Noting(Recorder):
        def __call__(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
            made, replay = super().__call__(work)
            held.append(weakref.ref(replay))
            return made, replay

    draw(recording(Noting()), FLOW)
    gc.collect()
    assert held and all(replay() is None for replay in held)


@pytest.mark.parametrize(
    ("recorder", "told"),
    [
        (Recorder(error=RuntimeError("operation not permitted\nmore")), "not permitted$"),
        (Recorder(wrong=0.1), "a replay is 0.1 away from a plain step"),
        (Recorder(wrong=float("nan")), "a replay is nan away"),
    ],
)
def test_where_replays_do_not_work_steps_stay_plain(
    recording: Callable[[Recorder], Engine], recorder: Recorder, told: str
) -> None:
    with pytest.warns(UserWarning, match=told):
        found = draw(recording(recorder), FLOW, FLOW)
    assert same(found, draw(PLAIN, FLOW, FLOW))
    assert recorder.num_recorded == 1, "it was tried again"


def test_a_picture_without_room_for_a_recording_is_drawn_plainly(
    recording: Callable[[Recorder], Engine], recwarn: pytest.WarningsRecorder
) -> None:
    recorder = Recorder(error=torch.OutOfMemoryError("no room"))
    engine = recording(recorder)
    assert same(draw(engine, FLOW), draw(PLAIN, FLOW))
    assert recorder.num_recorded and not recwarn.list
    recorder.error = None
    assert same(draw(engine, FLOW), draw(PLAIN, FLOW))
    assert recorder.num_replayed > 0


def test_nothing_is_recorded_on_a_cpu() -> None:
    assert Graphs.on(torch.device("cpu")).record is None


def test_the_environment_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFF, "0")
    assert Graphs.on(torch.device("cuda")).record is None


class NoWaiting(TorchDispatchMode):
    """Refuses what reads a number back from a device, or brings new ones there from the host."""

    REFUSED = ("_local_scalar_dense", "nonzero", "_unique", "unique_consecutive", "lift_fresh")

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = function.__name__
        assert not any(refused in name for refused in self.REFUSED), f"a step waits for {name}"
        return function(*args, **(kwargs or {}))


def test_a_step_that_is_replayed_waits_for_nothing(
    recording: Callable[[Recorder], Engine],
) -> None:
    class Watched(Recorder):
        def __call__(self, work: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
            def watched() -> Tensor:
                with NoWaiting():
                    return work()

            return super().__call__(watched)

    recorder = Watched()
    draw(recording(recorder), FLOW)
    assert recorder.num_replayed > 3
    with pytest.raises(AssertionError, match="waits for _local_scalar_dense"), NoWaiting():
        torch.ones(1).item()
