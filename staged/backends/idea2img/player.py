"""A language model that sees, in every role of Idea2Img but the painter's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel

from staged.backends.idea2img import requests
from staged.backends.idea2img.answers import RevisionAnswer
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.request import Failure, LmmRequest
from staged.ideas.exploration import Draft, Feedback, Preferred, Remembered
from staged.ideas.idea import Idea
from staged.loops.idea2img.roles import Revision, Scores
from staged.roles import RoleError
from staged.scene_graph import Question
from staged.trajectory import ImageRef

T = TypeVar("T", bound=BaseModel)


class LmmIdeaPlayer:
    """Plays `PromptWriter`, `Selector`, `Critic` and `ChecklistInspector`.

    What cannot be read, a refusal, a choice against its own scores: each fails with the reason of
    the client, after it was asked again where that may help.

    Args:
        lmm: The model; its attempts are kept in its log.
    """

    def __init__(self, lmm: LmmClient) -> None:
        """Take the model."""
        self._lmm = lmm

    @property
    def name(self) -> str:
        """What to write into provenance."""
        return self._lmm.settings.model

    async def begin(self, idea: Idea, *, number: int, max_words: int, seed: int) -> Sequence[str]:
        """Write the first prompts."""
        request = requests.prompts_request(idea, number=number, max_words=max_words, seed=seed)
        return (await self._asked(request)).prompts

    async def revise(
        self,
        idea: Idea,
        memory: Sequence[Remembered],
        *,
        number: int,
        max_words: int,
        may_edit: bool,
        seed: int,
    ) -> Revision:
        """Write the prompts of a further round, by the memory of all before."""
        request: LmmRequest[Any] = requests.revision_request(
            idea, memory, number=number, max_words=max_words, may_edit=may_edit, seed=seed
        )
        answer = await self._asked(request)
        action = answer.action if isinstance(answer, RevisionAnswer) else "regenerate"
        return Revision(prompts=answer.prompts, action=action)

    async def score(self, idea: Idea, drafts: Sequence[Draft], *, seed: int) -> Scores:
        """Score drafts, and choose one that none has a higher score than."""
        answer = await self._asked(requests.selection_request(idea, drafts, seed=seed))
        said = {one.draft: (one.score, one.justification) for one in answer.drafts}
        return Scores(
            scores=[said[number] for number in range(1, len(drafts) + 1)],
            choice=answer.choice - 1,
        )

    async def compare(
        self, idea: Idea, first: ImageRef, second: ImageRef, *, seed: int
    ) -> tuple[Preferred, str]:
        """Say which of two pictures is better, and why."""
        answer = await self._asked(requests.comparison_request(idea, first, second, seed=seed))
        return answer.better, answer.reason

    async def reflect(
        self, idea: Idea, memory: Sequence[Remembered], unmet: Sequence[str], *, seed: int
    ) -> Feedback:
        """Find the one thing to improve."""
        answer = await self._asked(requests.feedback_request(idea, memory, unmet, seed=seed))
        return Feedback(aspect=answer.aspect, problem=answer.problem, change=answer.change)

    async def write(self, idea: Idea, *, seed: int) -> tuple[Question, ...]:
        """Write a checklist."""
        answer = await self._asked(requests.checklist_request(idea, seed=seed))
        return tuple(
            Question(id=q.id, subject=q.subject, text=q.question, parents=tuple(q.parents))
            for q in answer.questions
        )

    async def check(
        self, idea: Idea, questions: Sequence[Question], image: ImageRef, *, seed: int
    ) -> Mapping[str, bool]:
        """Answer a checklist by looking."""
        request = requests.check_request(idea, questions, image, seed=seed)
        return {one.id: one.yes for one in (await self._asked(request)).answers}

    async def _asked(self, request: LmmRequest[T]) -> T:
        reply = await self._lmm.ask(request)
        if isinstance(reply, Failure):
            raise RoleError(reply.kind, reply.detail)
        return reply.value
