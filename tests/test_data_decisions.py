"""Trajectories cut into decisions teach what the whole ones do."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import tiny
from training import ALL_KINDS, edit, staged, write_data

from data_pipelines.__main__ import main
from data_pipelines.decisions import decisions
from staged.model.layout import Grids, lay_out
from staged.sequence import interleave
from staged.shards import read_shards, validate
from staged.trajectory import Inspection, Trajectory


def taught(trajectories: Sequence[Trajectory]) -> list[tuple[int, float, int, int]]:
    """Each label with its weight, position and number of keys that it is predicted from."""
    tokenizer = tiny.tokenizer()
    found = []
    for trajectory in trajectories:
        segments = interleave(
            trajectory, tokenizer.encode, tokenizer.special, lambda ref: Grids((2, 2), (3, 3))
        ).segments
        layout = lay_out([segments], tokenizer.special)
        where = layout.ce_index
        seen = layout.mask(0)[where].sum(dim=1)
        columns = (layout.labels, layout.ce_weights, layout.position_ids[where], seen)
        found += list(zip(*(column.tolist() for column in columns), strict=True))
        latents = layout.position_ids[layout.latent_index]
        found += [(-1, 1.0, place, 0) for place in latents[layout.velocity_rows].tolist()]
    return found


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_decisions_teach_what_the_whole_does_in_the_same_context(kind) -> None:
    whole = kind(3)
    cut = list(decisions(whole))
    assert len(cut) == sum(step.loss for step in whole.steps) > 1
    assert all(one.steps[-1].loss and sum(s.loss for s in one.steps) == 1 for one in cut)
    assert sorted(taught(cut)) == sorted(taught([whole]))


def test_the_command_writes_those_of_a_kind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", [staged(0), edit(1)])
    out = tmp_path / "looks"
    assert main(["decisions", str(data), "--kind", "inspection", "--out", str(out)]) == 0
    number = sum(isinstance(s, Inspection) and s.loss for s in staged(0).steps)
    assert f"{number} decisions" in capsys.readouterr().out
    samples = list(read_shards(out))
    assert validate(out).ok and len(samples) == number > 1
    assert [sample.key for sample in samples] == [f"s000-{place}" for place in range(number)]
    assert all(isinstance(sample.trajectory.steps[-1], Inspection) for sample in samples)


def test_a_data_set_without_any_is_told(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", [edit(1)])
    with pytest.raises(ValueError, match="has no supervised step of inspection"):
        main(["decisions", str(data), "--kind", "inspection", "--out", str(tmp_path / "out")])
