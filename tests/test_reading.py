"""What is read is kept up to a limit, and does not depend on what was kept."""

import pytest
import tiny
import torch

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.backends.reading import ContextParts, ContextReader, before_last_cue, parts_of, texts_of
from staged.engine.pages import PageAllocator
from staged.loops.policy import Policy
from staged.loops.roles import Roles
from staged.loops.staged import StagedLoop
from staged.model.flows import Flows, FlowSettings, Guidance
from staged.roles import RoleError, StepRequest
from staged.trajectory import Inspection, Trajectory

FLOW = FlowSettings(num_flow_steps=2, guidance=Guidance(text_scale=2.0, image_scale=1.5))
WHOLE = tiny.staged_trajectory()


def trajectory(count: int, prompt: str = WHOLE.prompt) -> Trajectory:
    return Trajectory(prompt=prompt, steps=WHOLE.steps[:count])


def same(ours: ContextReader, theirs: ContextReader, wanted: ContextParts) -> None:
    """Both read the same, to the bit."""
    [one], [other] = ours.read([wanted]), theirs.read([wanted])
    assert one.openers is not None and other.openers is not None
    assert torch.equal(one.openers, other.openers)
    assert one.context.position == other.context.position
    for name in ("keys", "values"):
        for a, b in zip(getattr(one.context, name), getattr(other.context, name), strict=True):
            assert torch.equal(a, b)


def test_what_is_read_step_by_step_or_again_is_what_is_read_at_once() -> None:
    engine = tiny.engine()
    kept = ContextReader(engine, max_tokens=10_000)
    for count in range(len(WHOLE.steps)):
        kept.read([parts_of(trajectory(count))])
    wanted = parts_of(WHOLE)
    same(kept, ContextReader(engine, max_tokens=10_000), wanted)
    tight = ContextReader(engine, max_tokens=kept.at_most([kept.needed(wanted)]))
    tight.read([parts_of(trajectory(9, "x"))])  # what was read is forgotten for it
    same(kept, tight, wanted)


def test_what_readings_share_is_held_once() -> None:
    reader = ContextReader(tiny.engine(), max_tokens=10_000, page_size=1)
    [whole] = reader.read([parts_of(WHOLE)])
    assert reader.num_tokens == whole.context.num_tokens
    reader.read([parts_of(trajectory(count)) for count in range(len(WHOLE.steps))])
    assert reader.num_tokens == whole.context.num_tokens
    # Up to the first image, the texts are the whole.
    [texts] = reader.read([texts_of(parts_of(WHOLE))])
    before = sum(reader.needed(parts_of(trajectory(5))).values())
    assert reader.num_tokens == whole.context.num_tokens + texts.context.num_tokens - before


def test_guidance_is_against_the_absence_of_the_last_cue() -> None:
    parts = parts_of(WHOLE)
    told = [before_last_cue(parts[:end]) for end in range(1, len(parts) + 1)]
    assert told[0] == ()  # only the prompt
    assert told[4] == parts[:4]  # the plan that replaced another
    assert told[5] == told[6] == told[7] == parts[:4]  # neither verdict nor sketch is a cue
    assert told[8] == parts[:8]  # the next plan
    assert told[11] == parts[:11]  # a refinement of the sketch


# --- the limit ----------------------------------------------------------------------------------


class Held:
    """Tokens of all pages that are held, whoever has them, counted whenever one is taken."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.peak, take = 0, PageAllocator.take

        def take_and_look(made: PageAllocator, count: int, after: int | None = None) -> list[int]:
            taken = take(made, count, after)
            self.peak = max(self.peak, made.num_held)
            return taken

        monkeypatch.setattr(PageAllocator, "take", take_and_look)


@pytest.mark.parametrize("limit", [600, 800, 4000])
def test_no_more_is_held_than_the_limit_says(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted less than half of what was there, and kept more than it counted."""
    settings = BagelSettings(
        flows=Flows().each(lambda _: FLOW), max_text_tokens=20, max_cached_tokens=limit
    )
    player, held = BagelPlayer(tiny.engine(), settings), Held(monkeypatch)
    size = player._reader.cache.page_size
    requests = [
        StepRequest(trajectory=trajectory(count, prompt), moves=("plan",), seed=1)
        for count, prompt in ((0, "a star"), (3, WHOLE.prompt), (8, WHOLE.prompt), (7, "x"))
    ] * 3
    assert not any(_reason(answer) == "memory" for answer in player.choose(requests))
    assert not any(_reason(answer) == "memory" for answer in player.write(requests))
    drawing = [
        StepRequest(trajectory=trajectory(8, p), moves=("sketch",), seed=1) for p in ("x", "y")
    ]
    assert not any(isinstance(answer, RoleError) for answer in player.draw(drawing))
    assert held.peak * size <= limit
    if limit < 4000:
        assert held.peak * size > limit - 150  # there was not room for all


def _reason(answer: object) -> str:
    return answer.reason if isinstance(answer, RoleError) else ""


def test_a_limit_changes_nothing_but_the_work() -> None:
    engine = tiny.engine()

    def run(limit: int) -> list[Trajectory]:
        settings = BagelSettings(
            flows=Flows().each(lambda _: FLOW), max_text_tokens=20, max_cached_tokens=limit
        )
        starts = [trajectory(count) for count in (7, 8, 12)]
        policy = Policy(max_flow_steps=20, max_attempts=2)
        return StagedLoop(Roles.of(BagelPlayer(engine, settings), "tiny"), policy).run(
            starts, [1, 2, 3]
        )

    assert run(900) == run(100_000)


def test_what_does_not_fit_even_alone_fails_by_name_and_the_others_go_on() -> None:
    settings = BagelSettings(
        flows=Flows().each(lambda _: FLOW), max_text_tokens=20, max_cached_tokens=200
    )
    player = BagelPlayer(tiny.engine(), settings)
    long, short = trajectory(8, "a star and a circle"), Trajectory(prompt="a star")
    requests = [StepRequest(trajectory=t, moves=("plan",), seed=1) for t in (long, short)]
    for answers in (player.write(requests), player.choose(requests), player.draw(requests)):
        assert [_reason(answer) == "memory" for answer in answers] == [True, False]
        assert "after 'a star and a circle' takes" in str(answers[0])
        assert "max_cached_tokens is 200" in str(answers[0])
    # What it would write counts too.
    fits = player._reader.at_most([player._reader.needed(parts_of(short))])
    tight = BagelPlayer(
        player.engine,
        BagelSettings(flows=settings.flows, max_text_tokens=20, max_cached_tokens=fits),
    )
    [answer] = tight.write(requests[1:])
    assert _reason(answer) == "memory" and "what may be written" in str(answer)
    assert not isinstance(tight.choose(requests[1:])[0], RoleError)


def test_an_accepted_inspection_is_no_cue() -> None:
    accepted = Inspection(target="plan", verdict="accept", critique="fine")
    checked = Trajectory(prompt="p", steps=(tiny.plan("a star"), accepted))
    assert before_last_cue(parts_of(checked)) == parts_of(checked)[:1]
