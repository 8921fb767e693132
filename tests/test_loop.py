"""The loop: what comes next, who plays, limits, failures, and that company changes nothing."""

from collections.abc import Sequence
from dataclasses import replace

import learning
import numpy as np
import pytest
import tiny

from staged.backends.bagel import BagelPlayer
from staged.backends.bagel_settings import BagelSettings
from staged.backends.editing import EditingSketcher
from staged.backends.reading import parts_of
from staged.engine.sampling import TextBlock
from staged.generate.role_choice import RoleChoice
from staged.loops.events import (
    Event,
    Failed,
    Inspected,
    PlanWritten,
    Previewed,
    Refined,
    Retried,
    SketchDrawn,
    Stopped,
    ThoughtWritten,
)
from staged.loops.policy import Policy
from staged.loops.redrawing import RedrawingSketcher
from staged.loops.roles import Roles
from staged.loops.staged import StagedLoop
from staged.loops.unbatched import Unbatched
from staged.model.flows import Flows, FlowSettings, Guidance
from staged.roles import RoleError, StepRequest, TextPreview
from staged.shapes.language.prompts import read_prompt
from staged.shapes.players.editor import EditorMistakes, ShapesEditor
from staged.shapes.players.scripted import ScriptedPlanner, ScriptedSketcher
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import satisfied
from staged.trajectory import (
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Stop,
    TextStep,
    Thought,
    Trajectory,
    moves,
)

FLOW = FlowSettings(
    num_flow_steps=2, timestep_shift=1.0, guidance=Guidance(text_scale=2.0, image_scale=1.5)
)
SETTINGS = BagelSettings(flows=Flows().each(lambda _: FLOW), max_text_tokens=60)
PROMPT = "a red circle above a star"


# --- a model that has learned by heart ----------------------------------------------------------


def lesson() -> Trajectory:
    """Refused and corrected, plan and sketch; two rounds."""
    return Trajectory(
        prompt=PROMPT,
        steps=(
            tiny.plan("a ring"),
            Inspection(target="plan", verdict="revise", critique="no ring"),
            Refinement(instruction="a star"),
            tiny.plan("a star"),
            tiny.sketch(0),
            Inspection(target="sketch", verdict="revise", critique="it is blue"),
            Refinement(instruction="make it red"),
            tiny.sketch(1),
            tiny.plan("a circle"),
            tiny.sketch(2),
            Inspection(target="sketch", verdict="accept", critique="as asked"),
            Stop(),
        ),
    )


def learn(trajectory: Trajectory, num_steps: int) -> BagelPlayer:
    return BagelPlayer(learning.learn(trajectory, num_steps), SETTINGS)


@pytest.fixture(scope="module")
def learned() -> BagelPlayer:
    return learn(lesson(), 90)


def fresh(player: BagelPlayer, **changes: object) -> BagelPlayer:
    """The same model with nothing read yet."""
    return BagelPlayer(player.engine, replace(player.settings, **changes))


def run(player: BagelPlayer, *starts: str | Trajectory, **policy: object) -> list[Trajectory]:
    loop = StagedLoop(Roles.of(player, "tiny"), Policy(**policy))
    return loop.run(starts, range(len(starts)))


def words(trajectory: Trajectory) -> list[object]:
    """Steps without what differs from drawing to drawing."""
    return [step for step in trajectory.steps if not isinstance(step, Sketch)]


def test_the_model_takes_the_way_it_learned_and_stops_by_itself(learned: BagelPlayer) -> None:
    events: list[Event] = []
    loop = StagedLoop(Roles.of(fresh(learned), "tiny"), Policy())
    [trajectory] = loop.run([PROMPT], [3], events.append)
    assert moves(trajectory.steps) == moves(lesson().steps)
    assert words(trajectory) == words(lesson())
    assert trajectory.complete and trajectory.provenance["ended_by"] == "model"
    assert trajectory.num_flow_steps == 3 * FLOW.num_flow_steps
    kinds = [PlanWritten, Inspected, Refined, PlanWritten, SketchDrawn, Inspected, Refined]
    kinds += [SketchDrawn, PlanWritten, SketchDrawn, Inspected, Stopped]
    assert [type(event) for event in events] == kinds
    assert [event.index for event in events[:-1]] == list(range(len(kinds) - 1))


def test_what_a_prompt_and_seed_become_does_not_depend_on_company(learned: BagelPlayer) -> None:
    starts: list[str | Trajectory] = [
        PROMPT,
        "a star",
        Trajectory(prompt=PROMPT, steps=lesson().steps[:6]),
        PROMPT,
    ]
    seeds = [5, 6, 7, 8]
    policy = Policy(max_attempts=2)
    together = StagedLoop(Roles.of(fresh(learned), "tiny"), policy).run(starts, seeds)
    in_pairs = StagedLoop(Roles.of(fresh(learned), "tiny"), policy, batch_size=2).run(starts, seeds)
    for start, seed, one, two in zip(starts, seeds, together, in_pairs, strict=True):
        [alone] = StagedLoop(Roles.of(fresh(learned), "tiny"), policy).run([start], [seed])
        for other in (one, two):
            assert other == alone
    assert together[0].images[0] != together[3].images[0]  # the seed does count


def test_refused_sketches_are_drawn_again_alike_alone_and_in_company(
    learned: BagelPlayer,
) -> None:
    def draw(starts: list[str], seeds: list[int]) -> list[Trajectory]:
        player = fresh(learned)
        sketcher = RedrawingSketcher(player, player, max_redraws=1)
        roles = replace(Roles.of(player, "tiny"), sketcher=sketcher)
        return StagedLoop(roles).run(starts, seeds)

    together = draw([PROMPT] * 2, [1, 2])
    for seed, one in zip([1, 2], together, strict=True):
        assert draw([PROMPT], [seed]) == [one]
    # Whatever it draws first it has learned to refuse, and what it draws last to accept.
    spent = [step.num_flow_steps for step in together[0].steps if isinstance(step, Sketch)]
    assert spent[0] == 2 * FLOW.num_flow_steps and spent[-1] == FLOW.num_flow_steps
    [plain] = StagedLoop(Roles.of(fresh(learned), "tiny")).run([PROMPT], [1])
    assert plain.images[0] != together[0].images[0]


def test_what_comes_next_is_sampled_at_a_temperature_by_the_seed_alone(
    learned: BagelPlayer,
) -> None:
    [done] = run(learned, lesson().prompt)
    place = next(n for n, step in enumerate(done.steps) if isinstance(step, Sketch)) + 1
    begun = replace(done, steps=done.steps[:place])
    requests = [
        StepRequest(trajectory=begun, moves=("plan", "stop"), seed=seed) for seed in range(20)
    ]
    assert len(set(learned.choose(requests))) == 1
    hot = fresh(learned, choice_temperature=10.0)
    chosen = hot.choose(requests)
    assert set(chosen) == {("plan",), ("stop",)}
    assert [hot.choose([request])[0] for request in requests] == chosen


def test_each_step_is_read_once(learned: BagelPlayer, monkeypatch: pytest.MonkeyPatch) -> None:
    player = fresh(
        learned,
        flows=Flows().each(lambda _: replace(FLOW, guidance=Guidance(image_scale=1.0))),
    )
    read: list[str] = []
    append_text = player.engine.append_text

    def counting(contexts: Sequence[object], texts: Sequence[str]) -> object:
        read.extend(texts)
        return append_text(contexts, texts)

    monkeypatch.setattr(player.engine, "append_text", counting)
    [trajectory] = run(player, PROMPT)
    texts = [part.content for part in parts_of(trajectory) if isinstance(part.content, str)]
    assert read == texts and len(read) == len(words(lesson()))


def test_a_trajectory_goes_on_from_an_edited_step(learned: BagelPlayer) -> None:
    edited = Trajectory(prompt=PROMPT, steps=(*lesson().steps[:3], tiny.plan("a star")))
    [trajectory] = run(fresh(learned), edited)
    assert trajectory.steps[:4] == edited.steps and trajectory.complete
    [done] = run(fresh(learned), trajectory)
    assert done == trajectory  # what is complete stays as it is


# --- failures -----------------------------------------------------------------------------------


def test_a_block_that_never_ends_fails_and_says_so(learned: BagelPlayer) -> None:
    events: list[Event] = []
    loop = StagedLoop(Roles.of(fresh(learned, max_text_tokens=3), "tiny"), Policy(max_attempts=3))
    [trajectory] = loop.run([PROMPT], [0], events.append)
    assert trajectory.steps == () and not trajectory.complete
    assert trajectory.provenance["failure"] == "truncated"
    assert trajectory.provenance["retries"] == {"truncated": 2}
    assert [type(event) for event in events] == [Retried, Retried, Failed]


@pytest.mark.parametrize(
    ("text", "finished", "reason"),
    [
        ("<ins>a</ins><des>b</des>", False, "truncated"),
        ("a plan", True, "protocol"),
        ("<ins>a</ins>", True, "protocol"),
        ("<ins>a</ins><des>b</des> more", True, "protocol"),
        ("<inspect>a</inspect><verdict>accept</verdict>", True, "protocol"),
        ("<refine>a</refine>", True, "illegal"),
    ],
)
def test_a_block_that_is_no_step_here_is_a_typed_failure(
    text: str, finished: bool, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = BagelPlayer(tiny.engine(), SETTINGS)
    block = TextBlock(ids=player.engine.tokenizer.encode(text), text=text, finished=finished)
    monkeypatch.setattr(player.engine, "write", lambda *_: [block])
    [failure] = player.write(
        [StepRequest(trajectory=Trajectory(prompt="p"), moves=("plan",), seed=0)]
    )
    assert isinstance(failure, RoleError) and failure.reason == reason


def test_a_special_token_inside_a_block_is_not_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    player = BagelPlayer(tiny.engine(), SETTINGS)
    text = "<ins>a</ins><des>b</des>"
    ids = (*player.engine.tokenizer.encode(text), player.engine.special.image_start)
    block = TextBlock(ids=ids, text=player.engine.tokenizer.decode(ids), finished=True)
    assert block.text == text
    monkeypatch.setattr(player.engine, "write", lambda *_: [block])
    [failure] = player.write(
        [StepRequest(trajectory=Trajectory(prompt="p"), moves=("plan",), seed=0)]
    )
    assert isinstance(failure, RoleError) and failure.reason == "protocol"


class Scripted:
    """A player who does as told: wants to go on for ever, refuses all, fails when asked to."""

    num_flow_steps = 10
    num_at_once = 8

    def __init__(self, *, failures: int = 0, wrong: TextStep | None = None) -> None:
        self.failures, self.wrong = failures, wrong
        self.requests: list[StepRequest] = []

    def choose(self, requests: Sequence[StepRequest]) -> list[tuple[object, ...]]:
        return [
            tuple(m for m in request.moves if m not in ("stop", "sketch"))[-1:]
            for request in requests
        ]

    def write(
        self, requests: Sequence[StepRequest], on_text: TextPreview | None = None
    ) -> list[TextStep | RoleError]:
        self.requests += requests
        return [self._step(request) for request in requests]

    def _step(self, request: StepRequest) -> TextStep | RoleError:
        if request.attempt < self.failures:
            return RoleError("refusal", "not now")
        if self.wrong is not None:
            return self.wrong
        match request.moves[0]:
            case "plan":
                return tiny.plan("more")
            case "think":
                return Thought(text="<think>more</think>")
            case "inspect plan":
                return Inspection(target="plan", verdict="revise", critique="no")
            case "inspect sketch":
                return Inspection(target="sketch", verdict="revise", critique="no")
        return Refinement(instruction="again")

    def draw(
        self, requests: Sequence[StepRequest], on_preview: object = None
    ) -> list[Sketch | RoleError]:
        self.requests += requests
        return [replace(tiny.sketch(0), num_flow_steps=10) for _ in requests]


def test_a_failed_step_is_tried_again_with_another_seed() -> None:
    player = Scripted(failures=2)
    [trajectory] = StagedLoop(
        Roles.of(player, "s"), Policy(max_attempts=3, max_rounds=1, max_refinements=0)
    ).run(["p"], [0])
    assert trajectory.complete
    assert trajectory.provenance["retries"] == {"refusal": 2}
    tries = [request for request in player.requests if request.moves == ("plan",)]
    assert [request.attempt for request in tries] == [0, 1, 2]
    assert len({request.seed for request in tries}) == 3


def test_a_step_of_the_wrong_kind_is_refused() -> None:
    wrong = Inspection(target="sketch", verdict="accept", critique="fine")
    [trajectory] = StagedLoop(Roles.of(Scripted(wrong=wrong), "s")).run(["p"], [0])
    assert trajectory.provenance["failure"] == "illegal" and trajectory.steps == ()


class Undecided(Scripted):
    """Chooses badly, or not at all, for some prompts, so often; raises for all at once."""

    def __init__(self, trouble: dict[str, list[object]], *, raises: bool = False) -> None:
        super().__init__()
        self.trouble, self.raises = trouble, raises

    def choose(self, requests: Sequence[StepRequest]) -> list[object]:
        self.requests += requests
        chosen: list[object] = []
        for request in requests:
            left = self.trouble.get(request.trajectory.prompt, [])
            chosen.append(left.pop(0) if left else (request.moves[0],))
        errors = [error for error in chosen if isinstance(error, RoleError)]
        if self.raises and errors:
            raise errors[0]
        return chosen


ONE_ROUND = Policy(max_attempts=3, max_rounds=1, max_refinements=0)


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [([RoleError("timeout")], "timeout"), ([("stop",)], "illegal"), ([()], "illegal")],
)
def test_a_choice_that_fails_is_made_again_and_touches_no_other(
    trouble: list[object], reason: str
) -> None:
    player = Undecided({"p": [*trouble, *trouble]})
    events: list[Event] = []
    done = StagedLoop(Roles.of(player, "s"), ONE_ROUND).run(["p", "q"], [0, 1], events.append)
    assert [trajectory.complete for trajectory in done] == [True, True]
    assert done[0].provenance["retries"] == {reason: 2} and done[1].provenance["retries"] == {}
    retried = [event for event in events if isinstance(event, Retried)]
    assert [event.moves for event in retried] == [("plan", "sketch")] * 2
    tries = [a for a in player.requests if a.trajectory.prompt == "p" and len(a.moves) > 1]
    assert [request.attempt for request in tries[:3]] == [0, 1, 2]
    # The attempts at choosing are not counted against what is chosen.
    assert player.requests[[a.moves for a in player.requests].index(("plan",))].attempt == 0


@pytest.mark.parametrize("raises", [False, True])
def test_a_choice_that_always_fails_ends_its_trajectory_alone(raises: bool) -> None:
    player = Undecided({"p": [RoleError("refusal", "no") for _ in range(99)]}, raises=raises)
    done = StagedLoop(Roles.of(player, "s"), ONE_ROUND).run(["q", "p", "r"], [0, 1, 2])
    assert [trajectory.complete for trajectory in done] == [True, False, True]
    assert done[1].provenance["failure"] == "refusal" and done[1].steps == ()


def test_a_director_that_fails_for_one_prompt_directs_the_others() -> None:
    class Director:
        def next_move(self, trajectory: Trajectory) -> str:
            if trajectory.prompt == "p":
                raise RoleError("grammar", "what is p?")
            return trajectory.legal_next()[0] if len(trajectory.steps) < 2 else "stop"

    playing = Unbatched(director=Director())  # type: ignore[arg-type]
    roles = replace(Roles.of(Scripted(), "s"), director=playing)
    done = StagedLoop(roles, ONE_ROUND).run(["q", "p"], [0, 1])
    assert [trajectory.complete for trajectory in done] == [True, False]
    assert done[1].provenance["failure"] == "grammar"


def test_a_sketcher_that_raises_for_one_draws_for_the_others() -> None:
    class Sketcher(Scripted):
        def draw(
            self, requests: Sequence[StepRequest], on_preview: object = None
        ) -> list[Sketch | RoleError]:
            if any(request.trajectory.prompt == "p" for request in requests):
                raise RoleError("content_filter")
            return super().draw(requests, on_preview)

    done = StagedLoop(Roles.of(Sketcher(), "s"), ONE_ROUND).run(["p", "q"], [0, 1])
    assert [trajectory.provenance.get("failure") for trajectory in done] == ["content_filter", None]


# --- policy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_rounds", [1, 3])
@pytest.mark.parametrize("max_refinements", [0, 1, 2])
@pytest.mark.parametrize("max_flow_steps", [10, 35, 1000])
def test_whoever_never_stops_is_stopped_at_a_state_that_may_stop(
    max_rounds: int, max_refinements: int, max_flow_steps: int
) -> None:
    policy = Policy(
        max_rounds=max_rounds,
        max_refinements=max_refinements,
        max_flow_steps=max_flow_steps,
        inspect_plan="always",
        inspect_sketch="always",
    )
    [trajectory] = StagedLoop(Roles.of(Scripted(), "s"), policy).run(["p"], [0])
    assert trajectory.complete and trajectory.provenance["ended_by"] == "policy"
    made = moves(trajectory.steps)
    rounds = made.count("plan") - made.count("refine plan")
    assert rounds <= max_rounds and trajectory.num_flow_steps <= max_flow_steps
    assert made.count("refine plan") == rounds * max_refinements
    assert made.count("refine sketch") <= rounds * max_refinements
    if max_flow_steps == 1000:
        assert rounds == max_rounds
        assert made.count("refine sketch") == rounds * max_refinements


def test_inspections_are_always_never_or_as_the_model_decides() -> None:
    for when, count in (("always", 1), ("never", 0)):
        policy = Policy(max_rounds=1, max_refinements=1, inspect_plan=when, inspect_sketch="never")
        [trajectory] = StagedLoop(Roles.of(Scripted(), "s"), policy).run(["p"], [0])
        made = moves(trajectory.steps)
        assert made.count("inspect plan") == count and "inspect sketch" not in made


def test_one_shot_is_one_sketch_unless_sketches_are_always_inspected() -> None:
    roles = Roles.of(Scripted(), "s")
    [plain] = StagedLoop(roles, Policy(mode="one-shot")).run(["p"], [0])
    assert moves(plain.steps) == ("sketch", "stop")
    inspected = Policy(mode="one-shot", inspect_sketch="always", max_refinements=1)
    [corrected] = StagedLoop(roles, inspected).run(["p"], [0])
    expected = ("sketch", "inspect sketch", "refine sketch", "sketch", "stop")
    assert moves(corrected.steps) == expected


def test_a_one_shot_sketch_may_be_thought_about_first() -> None:
    events: list[Event] = []
    loop = StagedLoop(Roles.of(Scripted(), "s"), Policy(mode="one-shot", think=True))
    [trajectory] = loop.run(["p"], [0], events.append)
    assert moves(trajectory.steps) == ("think", "sketch", "stop")
    assert [type(event) for event in events] == [ThoughtWritten, SketchDrawn, Stopped]
    wrong = Scripted(wrong=tiny.plan("a star"))
    loop = StagedLoop(Roles.of(wrong, "s"), Policy(mode="one-shot", think=True))
    [trajectory] = loop.run(["p"], [0])
    assert trajectory.provenance["failure"] == "illegal"


def test_a_start_that_needs_a_sketch_beyond_the_limit_fails_by_name() -> None:
    start = Trajectory(prompt="p", steps=(replace(tiny.sketch(0), num_flow_steps=95),))
    refused = Inspection(target="sketch", verdict="revise", critique="no")
    start = start.extend(refused, Refinement(instruction="again"))
    loop = StagedLoop(Roles.of(Scripted(), "s"), Policy(max_flow_steps=100))
    [trajectory] = loop.run([start], [0])
    assert trajectory.provenance["failure"] == "limit" and trajectory.steps == start.steps


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "two-shot"}, "mode is 'two-shot'; give one of staged, one-shot, answer"),
        ({"inspect_plan": "often"}, "inspect_plan is 'often'"),
        ({"think": True}, "think: a staged trajectory plans instead"),
        ({"max_rounds": 0}, "max_rounds is 0; give 1 or more"),
        ({"max_rounds": 20}, "allows 321 steps, a trajectory holds 128"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Policy(**settings)


def test_a_loop_that_could_draw_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a sketch takes 10 flow steps, max_flow_steps is 9"):
        StagedLoop(Roles.of(Scripted(), "s"), Policy(max_flow_steps=9))
    with pytest.raises(ValueError, match="1 seeds for 2 prompts"):
        StagedLoop(Roles.of(Scripted(), "s")).run(["a", "b"], [0])


# --- other players ------------------------------------------------------------------------------


def test_scripted_players_find_and_correct_what_a_careless_editor_draws() -> None:
    prompts = [
        "a photo of a red star left of a blue ring, and a green heart below the red star",
        "a photo of three hearts",
        "a photo of a circle the colour of a ripe banana",
        "a photo of a white cross and a black drop",
    ]
    editor = ShapesEditor(mistakes=EditorMistakes(wrong_color=0.3, wrong_kind=0.2))
    player = BagelPlayer(tiny.engine(), SETTINGS)
    choice = RoleChoice(planner="scripted", inspector="scripted", sketcher="scripted")
    roles = replace(choice.roles(player, "tiny"), sketcher=ScriptedSketcher(editor))
    done = StagedLoop(roles, choice.policy(Policy(max_rounds=4, max_refinements=4))).run(
        prompts, [1, 2, 3, 4]
    )
    refused = 0
    for prompt, trajectory in zip(prompts, done, strict=True):
        sketch = trajectory.last_sketch
        assert sketch is not None and trajectory.complete, trajectory.provenance
        assert satisfied(read_prompt(prompt).spec, detect(sketch.image.array())).exact
        refused += moves(trajectory.steps).count("refine sketch")
    assert refused > 0
    assert done[0].provenance["models"]["inspector"] == "scripted"


def test_scripted_players_beside_a_model_of_larger_pictures_are_refused() -> None:
    player = BagelPlayer(tiny.engine(), SETTINGS)
    player.engine.codec.sizes = replace(player.engine.codec.sizes, latent_max=1024)
    for role in ("planner", "inspector", "sketcher"):
        with pytest.raises(ValueError, match=f"{role} scripted: .* BAGEL draws 1024 x 1024"):
            RoleChoice(**{role: "scripted"}).roles(player, "BAGEL")
    assert (
        RoleChoice(sketcher="editing").roles(player, "BAGEL").names["sketcher"] == "BAGEL (editing)"
    )


def test_a_prompt_that_a_scripted_planner_cannot_read_fails_by_name() -> None:
    planner = ScriptedPlanner()
    playing = Unbatched(director=planner, planner=planner)
    roles = replace(Roles.of(Scripted(), "s"), director=playing, planner=playing)
    [trajectory] = StagedLoop(roles).run(["draw me a sheep"], [0])
    assert trajectory.provenance["failure"] == "grammar"


def test_a_scripted_inspector_corrects_a_one_shot_sketch() -> None:
    choice = RoleChoice(inspector="scripted", sketcher="scripted")
    roles = choice.roles(BagelPlayer(tiny.engine(), SETTINGS), "tiny")
    careless = ScriptedSketcher(ShapesEditor(mistakes=EditorMistakes(wrong_color=0.6)))
    policy = choice.policy(Policy(mode="one-shot", max_rounds=1, max_refinements=6))
    loop = StagedLoop(replace(roles, sketcher=careless), policy)
    prompts = [f"a photo of a {color} star" for color in ("red", "blue", "green", "white")]
    done = loop.run(prompts, range(4))
    assert any("refine sketch" in moves(trajectory.steps) for trajectory in done)
    for prompt, trajectory in zip(prompts, done, strict=True):
        sketch = trajectory.last_sketch
        assert sketch is not None and trajectory.last_plan is None
        assert satisfied(read_prompt(prompt).spec, detect(sketch.image.array())).exact


def test_an_editing_sketcher_asks_for_one_edit_after_another() -> None:
    player = BagelPlayer(tiny.engine(), SETTINGS)
    asked: list[Trajectory] = []
    draw = player.draw

    def recording(
        requests: Sequence[StepRequest], on_preview: object = None
    ) -> list[Sketch | RoleError]:
        asked.extend(request.trajectory for request in requests)
        return draw(requests)

    player.draw = recording  # type: ignore[method-assign]
    sketcher, steps = EditingSketcher(player), lesson().steps
    for count in (4, 7, 9):
        start = Trajectory(prompt=PROMPT, steps=steps[:count])
        [sketch] = sketcher.draw([StepRequest(trajectory=start, moves=("sketch",), seed=0)])
        assert isinstance(sketch, Sketch)
    first, corrected, second = asked
    plans = [step for step in steps if isinstance(step, Plan)]
    assert (first.prompt, first.inputs) == (plans[1].description, ())
    assert corrected.prompt == "make it red" and second.prompt == plans[2].instruction
    sketches = [step.image for step in steps if isinstance(step, Sketch)]
    assert [corrected.inputs, second.inputs] == [(sketches[0],), (sketches[1],)]


def test_an_edit_takes_the_size_of_its_input() -> None:
    player = BagelPlayer(tiny.engine(), SETTINGS)
    source = tiny.editing_trajectory().inputs
    [trajectory] = run(player, Trajectory(prompt="make it blue", inputs=source), mode="one-shot")
    expected = player.engine.codec.grids(*source[0].array().shape[:2]).latent
    assert trajectory.images[1].array().shape == (expected[0] * 4, expected[1] * 4, 3)


def test_previews_come_while_a_sketch_forms(learned: BagelPlayer) -> None:
    events: list[Event] = []
    player = fresh(learned, preview_every=1)
    StagedLoop(Roles.of(player, "tiny"), Policy(mode="one-shot")).run(
        ["a star", "x"], [0, 1], events.append
    )
    previews = [event for event in events if isinstance(event, Previewed)]
    drawn = [event for event in events if isinstance(event, SketchDrawn)]
    for rollout in (0, 1):
        own = [event for event in previews if event.rollout == rollout]
        assert [event.flow_step for event in own] == [1, 2]
        difference = drawn[rollout].step.image.array().astype(int) - own[1].pixels.astype(int)
        assert np.abs(difference).max() <= 1


def test_texts_that_belong_to_different_players_must_be_told_apart() -> None:
    roles = replace(Roles.of(Scripted(), "s"), inspector=Scripted())
    with pytest.raises(ValueError, match="set the policy's inspections to always or never"):
        roles.writer(("inspect sketch", "plan"))
    assert roles.writer(("inspect sketch",)) is roles.inspector
