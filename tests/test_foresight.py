"""Which steps need the network: against all ways there are, and by the command on real models."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from staged.cli.main import main
from staged.engine.drawing import ImageOnItsWay, along_line
from staged.engine.foresight import MAX_AHEAD, fit
from staged.engine.velocity import GuidedImage
from staged.generate import studied
from staged.model.checkpoint import save
from staged.model.flow import time_grid
from staged.model.flows import FLOWS, Flows, FlowSettings, Guidance, read_flows

NUM_STEPS = 7
GUIDANCE = Guidance(text_scale=3.0, interval=(0.35, 1.0), renorm_min=1.0)
TIMES = time_grid(NUM_STEPS, 1.5).tolist()
WORK = 13
"""Guidance ends before the last step, so that it needs one branch, the others two."""


def drawn(seed: int, *, straight_from: int | None = None) -> ImageOnItsWay:
    """A picture whose velocities wander, from a step on in a straight line."""
    made = torch.Generator().manual_seed(seed)
    image = GuidedImage(branches=[], grid=(1, 2), guidance=GUIDANCE)
    steps = torch.randn(NUM_STEPS, 2, 2, 3, generator=made).cumsum(0)
    if straight_from is not None:
        for step in range(straight_from, NUM_STEPS):
            way = (TIMES[step] - TIMES[straight_from]) / (TIMES[-2] - TIMES[straight_from])
            steps[step] = torch.lerp(steps[straight_from], steps[-1], way)
    counts = [2 if GUIDANCE.at(time) else 1 for time in TIMES[:-1]]
    asked = [
        (time, velocities[:count])
        for time, velocities, count in zip(TIMES[:-1], steps, counts, strict=True)
    ]
    return ImageOnItsWay(number=0, image=image, times=TIMES, x_t=torch.zeros(2, 3), asked=asked)


def guided(velocities: Tensor) -> Tensor:
    if len(velocities) == 1:
        return velocities[0]
    return velocities[1] + GUIDANCE.text_scale * (velocities[0] - velocities[1])


def loss(images: Sequence[ImageOnItsWay], forecast: Sequence[float | None]) -> float:
    """What `fit` says a forecast loses, written out."""
    total = 0.0
    for step, follow in enumerate(forecast):
        if follow is None:
            continue
        before = [place for place in range(step) if forecast[place] is None][-2:]
        errors = []
        for image in images:
            time, there = image.asked[step]
            line = along_line([image.asked[place] for place in before], time, follow)
            errors.append(guided(line[: len(there)]) - guided(there))
        total += (TIMES[step] - TIMES[step + 1]) * float(torch.stack(errors).square().mean().sqrt())
    return total


def possible(asked: Sequence[bool]) -> bool:
    ahead = max(
        (len(list(g)) for is_asked, g in itertools.groupby(asked) if not is_asked), default=0
    )
    return asked[0] and ahead <= MAX_AHEAD


@pytest.mark.parametrize("share", [0.35, 0.5, 0.75])
def test_of_all_ways_the_one_that_loses_least_is_found(share: float) -> None:
    images = [drawn(seed) for seed in range(3)]
    found = fit(images, share)
    prices = [len(velocities) for _, velocities in images[0].asked]
    assert sum(prices) == WORK
    price = sum(p for p, one in zip(prices, found.forecast, strict=True) if one is None)
    assert found.share == price / WORK <= share
    best, step = loss(images, found.forecast), 1e-2
    for asked in itertools.product((True, False), repeat=NUM_STEPS):
        if not possible(asked):
            continue
        if sum(p for p, one in zip(prices, asked, strict=True) if one) > math.floor(share * WORK):
            continue
        # No other steps do better, however far lines are followed: not where these are fitted to
        # the same steps, for a least square has no better neighbour.
        theirs = tuple(
            None if one else fitted
            for one, fitted in zip(asked, follows(images, asked), strict=True)
        )
        assert best <= loss(images, theirs) + 1e-4
        for place, one in enumerate(theirs):
            if one is not None:
                for moved in (one - step, one + step):
                    other = (*theirs[:place], moved, *theirs[place + 1 :])
                    assert loss(images, theirs) <= loss(images, other) + 1e-6


def follows(images: Sequence[ImageOnItsWay], asked: Sequence[bool]) -> list[float]:
    """Least squares by a solver, for each step from the two that were asked for last."""
    found = []
    for step in range(NUM_STEPS):
        before = [place for place in range(step) if asked[place]][-2:]
        if len(before) < 2:
            found.append(0.0)
            continue
        rows, wanted = [], []
        for image in images:
            time, there = image.asked[step]
            pair = [image.asked[place] for place in before]
            kept, far = (guided(along_line(pair, time, f)[: len(there)]) for f in (0, 1))
            rows.append((far - kept).flatten())
            wanted.append((guided(there) - kept).flatten())
        solved = torch.linalg.lstsq(torch.cat(rows)[:, None], torch.cat(wanted)[:, None])
        found.append(float(solved.solution))
    return found


def test_what_lies_on_a_line_is_foreseen_for_nothing() -> None:
    images = [drawn(seed, straight_from=2) for seed in range(2)]
    found = fit(images, 8 / WORK)
    assert found.forecast[:4] == (None, None, None, None)
    assert found.forecast[4:] == pytest.approx((1.0, 1.0, 1.0), abs=1e-3)
    assert found.share == 8 / WORK and loss(images, found.forecast) < 1e-3


def test_too_little_and_pictures_of_other_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"share is 0\.1: .* nothing of 7 steps"):
        fit([drawn(0)], 0.1)
    with pytest.raises(ValueError, match="no pictures"):
        fit([], 0.5)
    other = replace(drawn(0), times=time_grid(NUM_STEPS, 1.0).tolist())
    with pytest.raises(ValueError, match="by one grid with every step asked"):
        fit([drawn(0), other], 0.5)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that draws in six steps."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    flow, made = FlowSettings(num_flow_steps=6, guidance=Guidance(text_scale=2.0)), tiny.engine()
    save(
        folder,
        model=made.model,
        autoencoder=made.codec.autoencoder,
        tokenizer=made.tokenizer,
        flows=Flows().each(lambda _: flow),
    )
    return folder


def test_the_command_tunes_keeps_and_says_what_it_costs(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "prompts.txt").write_text("a red star\na blue ring\na star\n")
    command = ["tune-steps", "--checkpoint", str(checkpoint), "--mode", "one-shot"]
    command += ["--prompts", str(tmp_path / "prompts.txt"), "--max-difference", "255"]
    assert main([*command, "--share", "0.6", "--out", str(tmp_path / "out"), "--keep"]) == 0
    told = capsys.readouterr().out
    assert "first" in told and "(2 fitted, 1 compared)" in told and "edit" not in told
    tuned = read_flows(tmp_path / "out")
    assert tuned == read_flows(checkpoint)
    assert tuned.first.num_flow_steps == 6 > tuned.first.num_evaluations
    assert tuned.edit.forecast == tuned.refinement.forecast == ()

    monkeypatch.setattr(studied, "MAX_FITTED", 1)
    assert main([*command, "--share", "0.6", "--out", str(tmp_path / "few")]) == 0
    assert "(1 fitted, 1 compared)" in capsys.readouterr().out

    before = (checkpoint / FLOWS).read_bytes()
    assert main([*command, "--max-difference", "0", "--out", str(tmp_path / "none")]) == 1
    assert "no forecast changes pictures by at most 0" in capsys.readouterr().out
    assert not (tmp_path / "none" / FLOWS).exists() and (checkpoint / FLOWS).read_bytes() == before
