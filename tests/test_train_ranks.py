"""Several processes of one run: which packs are whose, and how the end of one reaches all."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rank_processes import QUICK, run_ranks

from staged.jobs.rank import Rank
from train.ranks import Ranks, joined
from train.settings import ParallelSettings
from train.stream import IDLE, in_order, numbers, packs_each

# --- whose packs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_any_number_of_ranks_takes_the_same_packs_in_the_same_steps(world_size: int) -> None:
    each = packs_each(6, world_size)
    by_rank = [
        list(numbers(range(2, 5), 6, Rank(number=number, world_size=world_size)))
        for number in range(world_size)
    ]
    assert {len(taken) for taken in by_rank} == {3 * each}
    for nth, step in enumerate(range(2, 5)):
        of_step = in_order([taken[nth * each : (nth + 1) * each] for taken in by_rank])
        assert of_step[:6] == list(range(6 * step, 6 * step + 6))
        assert of_step[6:] == [IDLE] * (each * world_size - 6)


# --- what they tell one another ------------------------------------------------------------------


def test_one_process_is_all_ranks_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(QUICK) as ranks:
        assert (ranks.number, ranks.world_size, ranks.is_first) == (0, 1, True)
        assert ranks.gather(3) == [3]
        assert ranks.first(lambda: [1, "a"]) == [1, "a"]
        assert not ranks.any(False)
        ranks.require_same("things", "x")


def exchange(ranks: Ranks) -> Any:
    calls: list[int] = []

    def slowly() -> dict[str, int]:
        calls.append(ranks.number)
        time.sleep(2.5)  # longer than a waiting rank sleeps
        return {"made_by": ranks.number}

    made = ranks.first(slowly), ranks.first(lambda: None)
    return [ranks.gather(ranks.number), ranks.any(ranks.number == 1), made, calls]


def test_ranks_exchange_values_and_the_first_works_for_all(tmp_path: Path) -> None:
    outcomes = run_ranks(tmp_path, 3, exchange)
    for number, outcome in enumerate(outcomes):
        calls = [0] if number == 0 else []
        assert outcome == {"returned": [[0, 1, 2], True, [{"made_by": 0}, None], calls]}


def come_late(ranks: Ranks) -> int:
    if ranks.number == 1:
        time.sleep(3)  # rank 0, who holds what they share, is done by then
    return ranks.first(lambda: 5)


def test_nobody_leaves_before_the_last_has_heard(tmp_path: Path) -> None:
    """A run of several machines without torchrun ended with a lost connection, all of it done."""
    assert run_ranks(tmp_path, 2, come_late) == [{"returned": 5}] * 2


def fail_on_rank_1(ranks: Ranks) -> None:
    if ranks.number == 1:
        raise ValueError("sample s003 is bad")
    ranks.gather(0)


def fail_while_others_wait_for_the_first(ranks: Ranks) -> None:
    if ranks.number == 1:
        raise OSError("no such file: x")
    ranks.first(lambda: ranks.gather(0))


@pytest.mark.parametrize(
    ("act", "kind", "text"),
    [
        pytest.param(fail_on_rank_1, "ValueError", "sample s003 is bad", marks=pytest.mark.slow),
        (fail_while_others_wait_for_the_first, "OSError", "no such file: x"),
    ],
)
def test_an_error_of_one_rank_is_raised_by_all(
    tmp_path: Path, act: Callable[..., Any], kind: str, text: str
) -> None:
    for number, outcome in enumerate(run_ranks(tmp_path, 3, act)):
        assert outcome == {kind: text if number == 1 else f"rank 1: {text}"}


def differ(ranks: Ranks) -> None:
    ranks.require_same("settings", "lr 1" if ranks.number < 2 else "lr 2")


def test_ranks_that_were_started_differently_are_told_how(tmp_path: Path) -> None:
    for outcome in run_ranks(tmp_path, 3, differ):
        assert outcome is not None
        assert (
            "settings differ between the processes of this run: rank 0 has lr 1, rank 2 has "
            in (outcome["ValueError"])
        )


def die_on_rank_1(ranks: Ranks) -> None:
    ranks.gather(0)
    if ranks.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    ranks.gather(1)


def test_a_rank_that_is_killed_is_missed_at_once(tmp_path: Path) -> None:
    """`run_ranks` waits for ten minutes; ranks wait for half an hour for one that lives."""
    outcomes = run_ranks(tmp_path, 3, die_on_rank_1)
    assert outcomes[1] is None
    for number in (0, 2):
        outcome = outcomes[number]
        assert outcome is not None
        assert "has lost another process of this run" in outcome["OSError"]


def test_a_rank_that_never_comes_is_missed(tmp_path: Path) -> None:
    outcomes = run_ranks(
        tmp_path, 3, exchange, settings=ParallelSettings(join_timeout_s=2), there=2
    )
    for outcome in outcomes[:2]:
        assert outcome is not None
        assert "did not find all 3 processes of this run at 127.0.0.1:" in outcome["OSError"]
        assert "within 2 s (parallel.join_timeout_s): one is missing" in outcome["OSError"]


def test_one_process_that_a_launcher_starts_for_many_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As `accelerate launch --cpu --num_processes 2` does."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with joined(ParallelSettings()):
        pass  # an address that was left over is no reason to stop
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with pytest.raises(ValueError, match="started one process"), joined(ParallelSettings()):
        pass


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0"}, "MASTER_ADDR and MASTER_PORT not set: start with torchrun"),
        ({"RANK": "2"}, "rank 2 of 2 processes"),
        ({"RANK": "a"}, "RANK='a' in the environment"),
    ],
)
def test_a_launcher_that_sets_half_of_what_is_needed_is_told(
    variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    monkeypatch.delenv("MASTER_PORT", raising=False)
    for name, value in {"WORLD_SIZE": "2", **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message), joined(QUICK):
        raise AssertionError
