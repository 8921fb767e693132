"""Whether a drawing passes, by what a judge sees in it who is not told what was wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from data_pipelines.asking import Asking
from data_pipelines.objection import Objection
from data_pipelines.plan_sketch.requests import StepJudgement, Which, judgement_request
from data_pipelines.plan_sketch.settings import Gate
from data_pipelines.wording import Wording
from staged.scene_graph import (
    Delta,
    Question,
    SceneGraph,
    count_questions,
    delta,
    look_questions,
    questions,
    resolve,
    rest_questions,
)

_REST = "something else changed"


async def objection(
    asking: Asking,
    wording: Wording,
    gate: Gate,
    step: Delta,
    before: bytes | None,
    image: bytes,
    *,
    whole: bool,
    seed: int,
    look: Mapping[str, str] | None = None,
) -> Objection | None:
    """Let a drawing be judged.

    Args:
        asking: The judge.
        wording: In which words.
        gate: What it must come to.
        step: What was to be drawn.
        before: The image that it was drawn onto; None for a first one.
        image: The drawing.
        whole: Ask about everything in it, and not about what the step did alone.
        seed: See `LmmRequest`.
        look: What is said of the whole image. It is asked about in a first image, which sets the
            style of all others, and where everything is asked about.

    Returns:
        What is wrong with it; None where it passes.

    Raises:
        UnitEndError: the judge gave no answer.
    """
    asked = _asked(step, look or {}, has_before=before is not None, whole=whole)
    orders: tuple[Which, ...] = ("last", "first") if gate.both_orders and before else ("last",)
    # Of three apples in a bowl each is "an apple in the bowl": said once, and answered for all.
    once = {question.text: question for question in reversed(asked)}
    told = [question for question in asked if once[question.text] is question]
    seen = [
        await asking.ask(judgement_request(wording, told, before, image, result=order, seed=seed))
        for order in orders
    ]
    return _weighed(gate, asked, told, seen)


def _asked(
    step: Delta, look: Mapping[str, str], *, has_before: bool, whole: bool
) -> tuple[Question, ...]:
    about = delta(SceneGraph(), step.after) if whole else step
    asked = {question.id: question for question in questions(step)}
    asked |= {question.id: question for question in questions(about)}
    asked |= {question.id: question for question in count_questions(step.after)}
    if whole or not has_before:
        asked |= {question.id: question for question in look_questions(look)}
    if has_before:
        asked |= {question.id: question for question in rest_questions(step)}
    return tuple(asked.values())


def _weighed(
    gate: Gate,
    asked: Sequence[Question],
    told: Sequence[Question],
    seen: Sequence[StepJudgement],
) -> Objection | None:
    texts = {f"q{number}": question.text for number, question in enumerate(told, 1)}
    given = [{texts.get(a.id): a for a in judgement.answers} for judgement in seen]
    if any(question.text not in answers for question in asked for answers in given):
        return Objection("question left unanswered", "")
    holds = resolve(
        asked,
        {
            question.id: mean(answers[question.text].grade for answers in given) >= gate.min_grade
            for question in asked
        },
    )
    for question in asked:
        if not holds[question.id]:
            reason = f"{question.subject} not as planned"
            said = f"{question.text} {given[0][question.text].seen}"
            return Objection(_REST if question.subject == "rest" else reason, said)
    extras = min((judgement.extras for judgement in seen), key=len)
    if len(extras) > gate.max_extras:
        return Objection("something extra", ", ".join(extras))
    if (kept := mean(judgement.kept for judgement in seen)) < gate.min_kept:
        return Objection(_REST, f"kept: {kept:g} of 5")
    if (quality := mean(judgement.quality for judgement in seen)) < gate.min_quality:
        return Objection("poor quality", f"quality: {quality:g} of 5")
    return None
