"""The loop of Idea2Img: prompts, drafts, a choice, feedback, until the last round.

The image model is one that nobody here knows: what it understands is found out by trying. What an
exploration becomes depends on its idea and seed and on the players, never on what is explored
beside it. Source: arXiv 2310.08541, section 3; pairs, checklist and edits go beyond it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from staged.ideas.exploration import (
    Draft,
    DraftRound,
    DraftScore,
    Exploration,
    Feedback,
    PairComparison,
    Place,
    Preferred,
)
from staged.ideas.idea import Idea
from staged.loops.idea2img.events import (
    Checked,
    ChecklistWritten,
    Chosen,
    Compared,
    ControlDrawn,
    DraftDrawn,
    Explored,
    FeedbackGiven,
    IdeaEvent,
    PromptsWritten,
    StepRetried,
)
from staged.loops.idea2img.policy import IdeaPolicy
from staged.loops.idea2img.roles import DraftRequest, IdeaRoles, PaintedDraft, Revision, Scores
from staged.loops.rollout import step_seed
from staged.roles import RoleError
from staged.scene_graph import resolve
from staged.trajectory import ImageRef

T = TypeVar("T")
OnIdeaEvent = Callable[[IdeaEvent], None]
_MAX_DETAIL_CHARS = 500


class Idea2ImgLoop:
    """Roles and a policy."""

    def __init__(self, roles: IdeaRoles, policy: IdeaPolicy | None = None) -> None:
        """Take them together.

        Args:
            roles: Who plays.
            policy: Limits.

        Raises:
            ValueError: The policy draws onto pictures, and the image model does not.
        """
        self.roles, self.policy = roles, policy or IdeaPolicy()
        if self.policy.onto_idea and not roles.painter.edits:
            raise ValueError("onto_idea: this image model draws onto no picture; name an editor")

    async def run(
        self,
        idea: Idea,
        *,
        seed: int,
        manual: str = "",
        index: int = 0,
        on_event: OnIdeaEvent | None = None,
    ) -> Exploration:
        """Explore an idea to the end.

        Args:
            idea: What is wanted.
            seed: Of everything that is drawn at random.
            manual: What a person would ask the image model for; empty is the idea's text.
            index: Told with the events.
            on_event: Told of everything as it happens.

        Returns:
            The exploration; where a step failed for good, what there is by then, and `failure` in
            its provenance.
        """
        way = _Way(self.roles, self.policy, idea, seed, index, on_event or _ignore)
        ended_by, failure = "policy", None
        try:
            ended_by = await way.explore()
        except RoleError as error:
            ended_by, failure = "failure", error
            way.keep_best_scored()
        if self.policy.control != "none" and way.state.best is not None:
            try:
                await way.draw_control(manual or idea.text)
            except RoleError as error:
                failure = failure or error
        way.end(ended_by, failure)
        return way.state


class _Way:
    """An exploration on its way.

    Attributes:
        state: What there is so far.
    """

    def __init__(
        self,
        roles: IdeaRoles,
        policy: IdeaPolicy,
        idea: Idea,
        seed: int,
        index: int,
        tell: OnIdeaEvent,
    ) -> None:
        self._roles, self._policy, self._tell, self._index = roles, policy, tell, index
        self._retries: Counter[str] = Counter()
        self.state = Exploration(idea=idea, seed=seed)

    async def explore(self) -> str:
        """Go round after round; says who ended it."""
        policy, idea = self._policy, self.state.idea
        if policy.checklist:
            questions = await self._tried(
                "checklist", lambda seed: self._roles.inspector.write(idea, seed=seed)
            )
            self._grow(questions=questions)
            self._tell(ChecklistWritten(idea=self._index, questions=questions))
        ended_by = "policy"
        while policy.another(len(self.state.rounds), self.state.num_drafts):
            await self._draw_round()
            await self._choose()
            if policy.checklist and await self._all_holds():
                ended_by = "inspector"
                break
            if policy.another(len(self.state.rounds), self.state.num_drafts):
                await self._reflect()
        if policy.selection == "scores":
            await self._choose_of_all()
        return ended_by

    def keep_best_scored(self) -> None:
        """Let the winner with the highest score, the first of equals, stand where nobody chose."""
        if self.state.best is None:
            winners = self._winners()
            if winners:
                best = max(winners, key=lambda place: self.state.at(place).score or 0)
                self._grow(best=best)

    async def draw_control(self, manual: str) -> None:
        """Draw what a person's own prompt gives, and choose the best where it is several."""
        matched = self._policy.control == "matched"
        number = max(self.state.num_drafts, 1) if matched else 1
        requests = [
            DraftRequest(prompt=manual, seed=self._noise(i), onto=self._idea_image())
            for i in range(number)
        ]
        drafts = [
            _draft(request, picture, onto=None)
            for request, picture in zip(requests, await self._drawn(requests), strict=True)
        ]
        self._grow(control=DraftRound(drafts=tuple(drafts)))
        self._tell(ControlDrawn(idea=self._index, drafts=number))
        there = [i for i, draft in enumerate(drafts) if draft.image]
        if not there:
            raise RoleError(drafts[0].failure, drafts[0].detail)
        self._grow(control=await self._best_control(tuple(drafts), there))

    def end(self, ended_by: str, failure: RoleError | None) -> None:
        """Write down where it comes from."""
        cost: Counter[str] = Counter()
        for _, draft in self.state.drafts():
            cost.update({"images": int(draft.image is not None), **draft.cost})
        provenance = {
            "models": dict(self._roles.names),
            "prompt_versions": dict(self._roles.prompt_versions),
            "ended_by": ended_by,
            "retries": dict(self._retries),
            "cost": dict(cost),
        }
        if failure is not None:
            provenance |= {
                "failure": failure.reason,
                "failure_detail": str(failure)[:_MAX_DETAIL_CHARS],
            }
        self._grow(provenance=provenance)
        self._tell(Explored(idea=self._index, exploration=self.state))

    async def _draw_round(self) -> None:
        policy, number = self._policy, len(self.state.rounds)
        revision = await self._tried("prompts", self._revise)
        prompts = tuple(revision.prompts)
        written = PromptsWritten(
            idea=self._index, round=number, prompts=prompts, action=revision.action
        )
        self._tell(written)
        editing = revision.action == "edit"
        onto = self.state.best if editing else None
        image = self.state.at(onto).image if onto is not None else self._idea_image()
        first = number * policy.num_prompts
        requests = [
            DraftRequest(prompt=prompt, seed=self._noise(first + i), onto=image, edit=editing)
            for i, prompt in enumerate(prompts)
        ]
        drafts: list[Draft] = []
        for request, picture in zip(requests, await self._drawn(requests), strict=True):
            draft = _draft(request, picture, onto=onto)
            place = Place(number, len(drafts))
            drafts.append(draft)
            self._tell(DraftDrawn(idea=self._index, place=place, draft=draft))
        self._grow(
            rounds=(*self.state.rounds, DraftRound(drafts=tuple(drafts), action=revision.action))
        )
        if all(draft.image is None for draft in drafts):
            raise RoleError(drafts[0].failure, drafts[0].detail)

    async def _revise(self, seed: int) -> Revision:
        policy, writer = self._policy, self._roles.writer
        idea, memory = self.state.idea, self.state.memory
        limits = {"number": policy.num_prompts, "max_words": policy.max_words, "seed": seed}
        if not memory:
            return Revision(prompts=await writer.begin(idea, **limits))
        may_edit = policy.edit and self._roles.painter.edits and self.state.best is not None
        revision = await writer.revise(idea, memory, may_edit=may_edit, **limits)
        if revision.action == "edit" and not may_edit:
            raise RoleError("illegal", "chose to edit where nothing can be edited")
        return revision

    async def _drawn(self, requests: Sequence[DraftRequest]) -> list[PaintedDraft | RoleError]:
        pictures = await self._roles.painter.draw(requests)
        assert len(pictures) == len(requests), "a painter answers each request"
        return pictures

    async def _choose(self) -> None:
        """Choose the best draft of the last round, and in pairs the best of all so far."""
        number = len(self.state.rounds) - 1
        drafts = self.state.rounds[number].drafts
        there = [i for i, draft in enumerate(drafts) if draft.image]
        if self._policy.selection == "scores":
            drafts, choice = await self._scored_drafts(drafts, there)
            self._change_last(drafts=drafts, choice=choice)
            scored = tuple(
                DraftScore(
                    place=Place(number, i), score=draft.score, justification=draft.justification
                )
                for i, draft in enumerate(drafts)
                if draft.score is not None
            )
            self._tell(Chosen(idea=self._index, place=Place(number, choice), scored=scored))
            return
        champion = Place(number, there[0])
        for i in there[1:]:
            champion = await self._better(champion, Place(number, i))
        self._change_last(choice=champion.draft)
        if self.state.best is not None:
            champion = await self._better(self.state.best, champion)
        self._grow(best=champion)
        self._tell(Chosen(idea=self._index, place=champion, scored=()))

    async def _choose_of_all(self) -> None:
        winners = self._winners()
        if len(winners) == 1:
            self._grow(best=winners[0])
            return
        scores = await self._scored([self.state.at(place) for place in winners])
        final = tuple(
            DraftScore(place=place, score=score, justification=why)
            for place, (score, why) in zip(winners, scores.scores, strict=True)
        )
        best = winners[scores.choice]
        self._grow(best=best, final=final)
        self._tell(Chosen(idea=self._index, place=best, scored=final, final=True))

    async def _scored(self, drafts: Sequence[Draft]) -> Scores:
        selector, idea = self._roles.selector, self.state.idea
        return await self._tried("selection", lambda seed: selector.score(idea, drafts, seed=seed))

    async def _scored_drafts(
        self, drafts: Sequence[Draft], there: Sequence[int]
    ) -> tuple[tuple[Draft, ...], int]:
        """A round's drafts with scores where a picture is there, and the place of the best."""
        scores = await self._scored([drafts[i] for i in there])
        said = dict(zip(there, scores.scores, strict=True))
        scored = tuple(
            replace(draft, score=said[i][0], justification=said[i][1]) if i in said else draft
            for i, draft in enumerate(drafts)
        )
        return scored, there[scores.choice]

    async def _better(self, champion: Place, challenger: Place) -> Place:
        """Compare in both orders; who was best before stays unless it loses in both."""
        first, second = self.state.at(champion).image, self.state.at(challenger).image
        assert first is not None and second is not None
        (forward, why), (backward, why_not) = await self._both_orders(first, second)
        comparison = PairComparison(
            champion=champion,
            challenger=challenger,
            forward=forward,
            backward=backward,
            reasons=(why, why_not),
        )
        self._grow(comparisons=(*self.state.comparisons, comparison))
        self._tell(Compared(idea=self._index, comparison=comparison))
        return challenger if comparison.replaced else champion

    async def _both_orders(
        self, first: ImageRef, second: ImageRef
    ) -> tuple[tuple[Preferred, str], tuple[Preferred, str]]:
        selector, idea = self._roles.selector, self.state.idea

        def ask(a: ImageRef, b: ImageRef) -> Awaitable[tuple[Preferred, str]]:
            return self._tried("comparison", lambda seed: selector.compare(idea, a, b, seed=seed))

        return await asyncio.gather(ask(first, second), ask(second, first))

    async def _all_holds(self) -> bool:
        """Answer the checklist about the best picture; one that was looked at is not again."""
        number, best = len(self.state.rounds) - 1, self.state.best
        assert best is not None
        before = self.state.rounds[number - 1].answers if number else None
        answers: Mapping[str, bool]
        if before is not None and best.round < number:
            answers = before
        else:
            answers = await self._tried("check", self._check)
        self._change_last(answers=dict(answers))
        told = Checked(idea=self._index, round=number, place=best, answers=dict(answers))
        self._tell(told)
        return all(answers.values())

    async def _check(self, seed: int) -> Mapping[str, bool]:
        best = self.state.refined
        assert best is not None and best.image is not None
        questions = self.state.questions
        said = await self._roles.inspector.check(self.state.idea, questions, best.image, seed=seed)
        try:
            return resolve(questions, said)
        except ValueError as error:
            raise RoleError("incomplete", str(error)) from None

    async def _reflect(self) -> None:
        memory, last = self.state.memory, self.state.rounds[-1]
        unmet = [
            question.text
            for question in self.state.questions
            if last.answers is not None and not last.answers[question.id]
        ]
        raised = {one.feedback.problem for one in self.state.rounds if one.feedback is not None}
        attempts = 0

        async def reflect(seed: int) -> Feedback:
            nonlocal attempts
            attempts += 1
            critic, idea = self._roles.critic, self.state.idea
            feedback = await critic.reflect(idea, memory, unmet, seed=seed)
            if feedback.problem not in raised:
                return feedback
            if attempts < self._policy.max_attempts:
                raise RoleError("repetition", f"raised before: {feedback.problem}")
            # Nothing else comes to its mind; that it is no news is told with it.
            return replace(feedback, repeated=True)

        feedback = await self._tried("feedback", reflect)
        self._change_last(feedback=feedback)
        number = len(self.state.rounds) - 1
        self._tell(FeedbackGiven(idea=self._index, round=number, feedback=feedback))

    async def _best_control(self, drafts: tuple[Draft, ...], there: Sequence[int]) -> DraftRound:
        if len(there) == 1:
            return DraftRound(drafts=drafts, choice=there[0])
        if self._policy.selection == "scores":
            drafts, choice = await self._scored_drafts(drafts, there)
            return DraftRound(drafts=drafts, choice=choice)
        best = there[0]
        for i in there[1:]:
            champion, challenger = drafts[best].image, drafts[i].image
            assert champion is not None and challenger is not None
            (forward, _), (backward, _) = await self._both_orders(champion, challenger)
            if (forward, backward) == ("second", "first"):
                best = i
        return DraftRound(drafts=drafts, choice=best)

    async def _tried(self, step: str, act: Callable[[int], Awaitable[T]]) -> T:
        """Let a player act, again under another seed where it fails, as often as it may."""
        for attempt in range(self._policy.max_attempts):
            try:
                return await act(step_seed(self.state.seed, "text", attempt) % 2**31)
            except RoleError as error:
                if attempt + 1 == self._policy.max_attempts:
                    raise RoleError(error.reason, f"{step}: {_detail(error)}") from error
                self._retries[error.reason] += 1
                self._tell(
                    StepRetried(
                        idea=self._index,
                        step=step,
                        reason=error.reason,
                        detail=str(error),
                        attempt=attempt + 1,
                    )
                )
        raise AssertionError("max_attempts is at least 1")

    def _winners(self) -> list[Place]:
        return [
            Place(number, one.choice)
            for number, one in enumerate(self.state.rounds)
            if one.choice is not None
        ]

    def _idea_image(self) -> ImageRef | None:
        shown = self.state.idea.images if self._policy.onto_idea else ()
        return shown[0] if shown else None

    def _noise(self, number: int) -> int:
        return step_seed(self.state.seed, "noise", number)

    def _grow(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def _change_last(self, **changes: Any) -> None:
        last = replace(self.state.rounds[-1], **changes)
        self._grow(rounds=(*self.state.rounds[:-1], last))


def _draft(
    request: DraftRequest, picture: PaintedDraft | RoleError, *, onto: Place | None
) -> Draft:
    if isinstance(picture, RoleError):
        detail = _detail(picture)[:_MAX_DETAIL_CHARS]
        return Draft(prompt=request.prompt, seed=request.seed, onto=onto,
                     failure=picture.reason, detail=detail)  # fmt: skip
    return Draft(
        prompt=request.prompt,
        seed=request.seed,
        onto=onto,
        image=picture.image,
        cost=picture.cost,
    )


def _detail(error: RoleError) -> str:
    return str(error).removeprefix(f"{error.reason}: ")


def _ignore(event: IdeaEvent) -> None:
    pass
