"""Reinforcement's losses, grades and advantages, against numbers worked out by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import picture, plan, sketch, tokenizer

from eval.search.verifiers.detector import MiniatureVerifier
from staged.model.layout import Grids, lay_out
from staged.roles import Rated, Rating, Verifier
from staged.sequence import interleave
from staged.shapes.language.asked import read_request
from staged.shapes.language.prompts import describe
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import satisfied
from staged.shapes.tasks import sample_scene
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene
from staged.shapes.world.spec import Spec
from staged.trajectory import ImageRef, Inspection, Plan, Refinement, Sketch, Stop, Trajectory
from train.reinforce.advantages import CreditSettings, credit
from train.reinforce.detector import DetectorGrader
from train.reinforce.grades import Grades, SketchGrade, end_known
from train.reinforce.loss import image_loss, text_divergence, text_loss
from train.reinforce.record import figures_of
from train.reinforce.scorer import ScorerGrader

# --- losses --------------------------------------------------------------------------------------


def tokens(*values: float) -> torch.Tensor:
    """One latent token."""
    return torch.tensor([list(values)])


def test_the_image_loss_is_the_formula_on_numbers_worked_out_by_hand() -> None:
    """v_old = (1, 0), v_theta = (2, 2), v = (0, 1), b = 1/2: v+ = (1.5, 1), v- = (.5, -1)."""
    velocity, old, target = tokens(2, 2), tokens(1, 0), tokens(0, 1)
    for reward, expected in ((1.0, 2.25 / 2), (0.0, 4.25 / 2), (0.25, 0.25 * 1.125 + 0.75 * 2.125)):
        loss = image_loss(velocity, old, target, torch.tensor([reward]), beta=0.5)
        assert loss.item() == pytest.approx(expected)


def gradient(velocity: torch.Tensor, old: torch.Tensor, reward: float, beta: float) -> torch.Tensor:
    velocity = velocity.clone().requires_grad_()
    target = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    image_loss(velocity, old, target, torch.full((5,), reward), beta=beta).sum().backward()
    assert velocity.grad is not None
    return velocity.grad


def plain_gradient(velocity: torch.Tensor) -> torch.Tensor:
    velocity = velocity.clone().requires_grad_()
    target = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    ((velocity - target) ** 2).mean(dim=-1).sum().backward()
    assert velocity.grad is not None
    return velocity.grad


def test_what_is_rewarded_is_learned_as_by_flow_matching_and_what_is_punished_unlearned() -> None:
    rng = torch.Generator().manual_seed(0)
    old, moved = torch.randn(5, 4, generator=rng), torch.randn(5, 4, generator=rng)
    # With b = 1 the positive policy is the one that learns, wherever the old one is.
    torch.testing.assert_close(gradient(moved, old, 1.0, 1.0), plain_gradient(moved))
    for beta in (0.1, 1.0, 2.0):
        torch.testing.assert_close(gradient(old, old, 1.0, beta), beta * plain_gradient(old))
        torch.testing.assert_close(gradient(old, old, 0.0, beta), -beta * plain_gradient(old))
        torch.testing.assert_close(gradient(old, old, 0.75, beta), 0.5 * beta * plain_gradient(old))
        assert gradient(old, old, 0.5, beta).abs().max() < 1e-6
        # Away from the old policy r = 1/2 pulls back to it: 2 b^2 (v_theta - v_old), by mean.
        torch.testing.assert_close(gradient(moved, old, 0.5, beta), beta**2 * (moved - old) / 2)


def test_the_least_image_loss_lies_beyond_the_old_policy_by_the_reward() -> None:
    """At v_theta = v_old + (2r - 1) (v - v_old) / b its gradient is 0."""
    old = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    target = torch.randn(5, 4, generator=torch.Generator().manual_seed(3))
    for reward, beta in ((0.9, 0.5), (0.2, 1.0)):
        best = old + (2 * reward - 1) * (target - old) / beta
        assert gradient(best, old, reward, beta).abs().max() < 1e-5


def test_words_of_an_advantage_become_likelier_until_the_ratio_is_clipped() -> None:
    old = torch.tensor([1.0, 1.0, 1.0, 1.0])
    advantage = torch.tensor([2.0, -2.0, 2.0, -2.0])
    # Ratios: 1, 1, e^.5 (beyond 1.2 and good: clipped), e^.5 (beyond 1.2 and bad: not clipped).
    ce = torch.tensor([1.0, 1.0, 0.5, 0.5], requires_grad=True)
    loss = text_loss(ce, old, advantage, clip=0.2, kl_weight=0.0)
    expected = [-2.0, 2.0, -2 * 1.2, 2 * math.exp(0.5)]
    torch.testing.assert_close(loss, torch.tensor(expected))
    loss.sum().backward()
    # d loss / d ce = ratio * advantage: a step down raises the likelihood of what was good.
    torch.testing.assert_close(ce.grad, torch.tensor([2.0, -2.0, 0.0, -2 * math.exp(0.5)]))


def test_the_divergence_is_0_where_nothing_has_moved_and_pulls_back_where_it_has() -> None:
    old = torch.tensor([1.0, 1.0, 1.0])
    ce = torch.tensor([1.0, 1.5, 0.5], requires_grad=True)
    kl = text_divergence(ce, old)
    expected = [0.0, math.exp(0.5) - 1.5, math.exp(-0.5) - 0.5]
    torch.testing.assert_close(kl, torch.tensor(expected))
    kl.sum().backward()
    assert ce.grad is not None
    assert ce.grad[0] == 0 and ce.grad[1] > 0 > ce.grad[2]
    half = text_loss(ce, old, torch.zeros(3), clip=0.2, kl_weight=0.5)
    torch.testing.assert_close(half, 0.5 * kl)


# --- whose tokens are whose ----------------------------------------------------------------------


def test_every_label_and_every_supervised_latent_knows_its_step() -> None:
    trajectory = Trajectory(
        prompt="a star",
        steps=(
            plan("a star"),
            sketch(0),
            Inspection(target="sketch", verdict="revise", critique="no"),
            Refinement(instruction="draw it"),
            sketch(1),
            Stop(),
        ),
    )
    words = tokenizer()
    found = interleave(
        trajectory, words.encode, words.special, lambda _: Grids((2, 2), (4, 4)), noised_copies=2
    )
    layout = lay_out([found.segments], words.special)
    labels, latents = found.steps_of_labels(), found.steps_of_velocities()
    assert len(labels) == len(layout.labels) and len(latents) == len(layout.velocity_rows)
    assert latents == [1] * 8 + [4] * 8
    # A step owns its opener, on the closing token before it, and its own words.
    special = words.special
    openers = {0: special.text_start, 1: special.image_start, 5: special.stop}
    for step, opener in openers.items():
        own = [int(layout.labels[i]) for i, of in enumerate(labels) if of == step]
        assert own[0] == opener
        assert len(own) == 1 or own[-1] == special.text_end
    assert labels == sorted(labels) and set(labels) == set(range(6))


# --- advantages ----------------------------------------------------------------------------------


def rolled(*values: tuple[float, float, float | None]) -> tuple[Trajectory, Grades]:
    """A one-shot sketch and its refinements, with their value, whole and gain."""
    steps: list[object] = []
    grades = []
    for number, (value, whole, gain) in enumerate(values):
        if number:
            steps += [
                Inspection(target="sketch", verdict="revise", critique="no"),
                Refinement(instruction="again"),
            ]
        grades.append(SketchGrade(step=len(steps), value=value, whole=whole, gain=gain))
        steps.append(sketch(number))
    steps.append(Stop())
    trajectory = Trajectory(prompt="a star", steps=tuple(steps))  # type: ignore[arg-type]
    return trajectory, Grades(sketches=tuple(grades))


def advantages(
    rollouts: list[tuple[Trajectory, Grades]], groups: list[int], **changes: float
) -> list[dict[int, float]]:
    found = credit(
        [one for one, _ in rollouts],
        [two for _, two in rollouts],
        groups,
        CreditSettings(**changes),
    )
    return [{step: one.advantage for step, one in credits.items()} for credits in found]


def test_pictures_of_a_prompt_are_compared_with_one_another_alone() -> None:
    """Returns .2, .4 and .9, .7: centred by group -.1, .1, .1, -.1, whose spread is .1."""
    rollouts = [rolled((v, v, None)) for v in (0.2, 0.4, 0.9, 0.7)]
    found = advantages(rollouts, [0, 0, 1, 1])
    assert [one[0] for one in found] == pytest.approx([-1, 1, 1, -1])
    assert [one[0] for one in advantages(rollouts, [0, 1, 2, 3])] == [0, 0, 0, 0]
    alike = [rolled((0.5, 0.5, None))] * 3
    assert [one[0] for one in advantages(alike, [0, 0, 0])] == [0, 0, 0]


def test_an_advantage_is_cut_off() -> None:
    found = advantages([rolled((v, v, None)) for v in (0, 0, 0, 0, 1)], [0] * 5, max_advantage=1.5)
    # Centred -.2 four times and .8, spread .4.
    assert [one[0] for one in found] == pytest.approx([-0.5] * 4 + [1.5])


def test_what_later_turns_gain_belongs_to_the_first_picture_too() -> None:
    """Equal first pictures of .4, of which one was mended to 1: .4 + .5 * .6 against .4."""
    mended, left = rolled((0.4, 0.4, None), (1.0, 1.0, 0.6)), rolled((0.4, 0.4, None))
    first = [one[0] for one in advantages([mended, left], [0, 0])]
    assert first == pytest.approx([1, -1])
    assert [one[0] for one in advantages([mended, left], [0, 0], later_share=0)] == [0, 0]


def test_an_edit_that_does_not_improve_gets_the_lowest_of_its_group() -> None:
    better = rolled((0.2, 0.2, None), (0.5, 0.5, 0.3))
    lowest = rolled((0.2, 0.2, None), (0.1, 0.1, 0.1))  # nearer to its plan, and poor
    wasted = rolled((0.8, 0.8, None), (0.8, 0.8, 0.0))
    second = [one[3] for one in advantages([better, lowest, wasted], [0, 0, 0])]
    assert second[1] == second[2] < 0 < second[0]


def test_a_right_picture_that_is_changed_is_punished_whatever_it_became() -> None:
    changed = rolled((1.0, 1.0, None), (1.0, 1.0, 0.2))
    mended = rolled((0.5, 0.5, None), (0.9, 0.9, 0.4))
    second = [one[3] for one in advantages([changed, mended], [0, 0])]
    assert second[0] == 0 == second[1]  # the group's lowest is .9, and all of it
    poor = rolled((0.5, 0.5, None), (0.6, 0.6, 0.1))
    second = [one[3] for one in advantages([changed, mended, poor], [0, 0, 0])]
    assert second[0] == second[2] < second[1]


def test_a_true_verdict_is_worth_more_than_a_false_one() -> None:
    """Texts: half the gain of the end on the picture before, half what they say."""
    accepted, grades = rolled((1.0, 1.0, None))
    refused, worse = rolled((1.0, 1.0, None), (0.4, 0.4, -0.6))
    rollouts = [
        (accepted, replace(grades, words={1: 1.0})),
        (refused, replace(worse, words={1: -1.0, 4: -1.0})),
        rolled((1.0, 1.0, None), (0.4, 0.4, -0.6)),
    ]
    found = advantages(rollouts, [0, 0, 0])
    # Refusals of the same turn: returns .5 * -.6 - .5 and .5 * -.6.
    assert found[1][1] < found[2][1]
    # Stops are compared by turn: the one after a single picture is alone.
    assert found[0][1] == 0
    assert found[1][4] < found[2][4]


def test_a_stop_that_the_limits_imposed_is_nobodys_decision() -> None:
    trajectory, grades = rolled((1.0, 1.0, None))
    imposed = replace(trajectory, provenance={"ended_by": "policy"})
    assert 1 in credit([trajectory], [grades], [0], CreditSettings())[0]
    assert 1 not in credit([imposed], [grades], [0], CreditSettings())[0]


class Rates:
    """Gives ratings in turn."""

    name = "rates"

    def __init__(self, *values: float | None) -> None:
        self._values = values

    def rate(self, pictures: Sequence[Rated]) -> list[Rating]:
        return [Rating(value=one) for one, _ in zip(self._values, pictures, strict=True)]


def test_what_cannot_be_rated_is_neither_rewarded_nor_punished() -> None:
    """Rollouts of two pictures: both rated; the last not; the first not; the last no number."""
    trajectory, _ = rolled((0, 0, None), (0, 0, None))
    scorer = Rates(0.4, 1.0, 0.4, None, None, 0.9, 0.4, math.nan)
    grades = ScorerGrader(scorer).grade([trajectory] * 4)
    assert [end_known(trajectory, one) for one in grades] == [True, False, True, False]
    assert [dict(one.words) for one in grades] == [{4: 1.0}, {}, {4: -1.0}, {}]
    assert [one.sketches[-1].gain for one in grades] == pytest.approx([0.6, None, None, None])
    found = credit([trajectory] * 4, grades, [0] * 4, CreditSettings())
    # Texts at 1 and 2 stand on the first picture, the stop at 4 on the last.
    assert [sorted(one) for one in found] == [[0, 1, 2, 3, 4], [0], [3, 4], [0]]
    assert [one[0].value for one in (found[0], found[1])] == pytest.approx([0.7, 0.4])
    figures = figures_of([(trajectory, one) for one in grades])
    assert (figures["reward"], figures["right"], figures["unrated"]) == (0.95, 0.5, 0.5)
    unknown = figures_of([(trajectory, grades[1])])
    assert unknown["unrated"] == 1 and "reward" not in unknown
    # Nothing was drawn: that is known, and worth nothing.
    assert end_known(Trajectory(prompt="a star", steps=(plan("a star"),)), Grades())


# --- the detector --------------------------------------------------------------------------------


def drawn(spec: Spec, seed: int = 0) -> tuple[Scene, ImageRef]:
    scene = sample_scene(spec, np.random.default_rng(seed))
    return scene, ImageRef.from_array(render(scene))


def test_the_detector_grades_pictures_plans_and_verdicts() -> None:
    prompt = "a photo of a red square and a blue ring"
    whole = read_request(prompt).spec
    red = Spec(things=whole.things[:1])
    scene, both = drawn(whole)
    one = ImageRef.from_array(render(replace(scene, shapes=scene.shapes[:1])))
    steps = (
        Plan(instruction="Add a red square.", description=describe(red)),
        Sketch(image=one),
        Inspection(target="sketch", verdict="accept", critique="fits"),
        Plan(instruction="Add a blue ring.", description=describe(whole)),
        Sketch(image=both),
        Inspection(target="sketch", verdict="revise", critique="no"),
        Refinement(instruction="Recolour the red square green."),
        Sketch(image=one),
        Stop(),
    )
    [grades] = DetectorGrader().grade([Trajectory(prompt=prompt, steps=steps)])
    first, second, third = grades.sketches
    # Its plan holds, and half of the prompt.
    assert (first.step, first.value, first.whole, first.gain) == (1, 0.75, 0.5, None)
    # Plan, prompt and what was there before; half of its plan was there.
    assert (second.value, second.whole, second.gain) == (1.0, 1.0, 0.5)
    assert second.right and not third.right and third.gain == -0.5
    # Plans are right; the first verdict is true, the second false; so is the stop.
    assert grades.words == {0: 1, 2: 1, 3: 1, 5: -1, 8: -1}
    assert grades.last == 0.5 and not grades.right


def test_the_detector_tells_a_plan_that_contradicts_and_one_for_what_is_done() -> None:
    prompt = "a photo of a red square"
    red = read_request(prompt).spec
    blue = read_request("a photo of a blue ring").spec
    _, image = drawn(red)
    steps = (
        Plan(instruction="Add a blue ring.", description=describe(blue)),
        Sketch(image=image),
        Plan(instruction="Add a red square.", description=describe(red)),
        Sketch(image=image),
        Stop(),
    )
    [grades] = DetectorGrader().grade([Trajectory(prompt=prompt, steps=steps)])
    assert grades.words == {0: -1, 2: -1, 4: 1}
    # A ring was planned, a square drawn: the plan does not hold, the prompt does.
    assert grades.sketches[0].value == 0.5


def test_prompts_of_another_world_are_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ValueError, match="a unicorn"):
        DetectorGrader().require(["a photo of a red square", "a unicorn"])


def test_likeness_counts_what_is_too_much() -> None:
    both = read_request("a photo of a red square and a blue ring").spec
    red = Spec(things=both.things[:1])
    _, image = drawn(both)
    assert satisfied(both, detect(image.array())).likeness == 1
    check = satisfied(red, detect(image.array()))
    assert (check.share, check.likeness, check.correct) == (1, 0.5, True)


def test_a_verifier_of_an_evaluation_is_one_here() -> None:
    verifier: Verifier = MiniatureVerifier()
    [rating] = verifier.rate([Rated(prompt="a photo of a star", pixels=picture(0, 48, 48))])
    assert rating.value == 0
