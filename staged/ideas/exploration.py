"""What exploring an idea came to: rounds of drafts, what was chosen, and why.

It is to Idea2Img what a trajectory is to the staged loop: everything that was written and drawn,
in order, and enough to draw each picture again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, get_args

from staged import strict_json
from staged.ideas.idea import Idea
from staged.scene_graph import Question
from staged.trajectory import (
    MAX_TEXT_CHARS,
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Step,
    Stop,
    Trajectory,
)

Action = Literal["regenerate", "edit"]
"""Whether a round draws from nothing, or onto the best picture so far."""
Aspect = Literal["counts", "attributes", "entities", "relations", "size", "appearance"]
"""What is looked at when a draft is scored, and what feedback is about."""
Preferred = Literal["first", "second", "neither"]
MAX_SCORE: Final = 10
MAX_ROUNDS: Final = 32
MAX_DRAFTS: Final = 64


class Place(NamedTuple):
    """A draft by its round and its number in it, both from 0."""

    round: int
    draft: int

    def __str__(self) -> str:
        """As people count."""
        return f"{self.round + 1}.{self.draft + 1}"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A prompt and what was drawn from it.

    Attributes:
        prompt: What the image model was given.
        seed: Of the noise.
        image: What it drew; None where it did not.
        onto: The draft that it was drawn onto; None for a picture from nothing, or onto an image of
            the idea.
        failure: Why there is no image, short and countable; empty where there is one.
        detail: What is known of that.
        score: 1 to `MAX_SCORE`; None where it was not scored.
        justification: Why it has this score.
        cost: Unit (`flow_steps`, `usd`) to amount.
    """

    prompt: str
    seed: int
    image: ImageRef | None = None
    onto: Place | None = None
    failure: str = ""
    detail: str = ""
    score: int | None = None
    justification: str = ""
    cost: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """Check that there is an image or a reason, and that the score is one.

        Raises:
            ValueError: It is not so.
        """
        if (self.image is None) != bool(self.failure):
            raise ValueError(f"draft {self.prompt!r:.80}: give an image, or why there is none")
        if self.score is not None:
            _check_score(self.score)


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """One thing to improve.

    Attributes:
        aspect: What it is about.
        problem: What is wrong in the picture.
        change: How to change the prompt.
        repeated: Whether the same had been raised before, and nothing else came.
    """

    aspect: Aspect
    problem: str
    change: str
    repeated: bool = False

    def __post_init__(self) -> None:
        """Check the aspect."""
        _check_choice(self.aspect, Aspect, "aspect")


@dataclass(frozen=True, kw_only=True)
class PairComparison:
    """Two pictures compared in both orders; what differs between the orders is no preference.

    Attributes:
        champion: What was best before.
        challenger: What it was compared with.
        forward: Which was preferred, champion first.
        backward: Which was preferred, challenger first.
        reasons: Given with each.
    """

    champion: Place
    challenger: Place
    forward: Preferred
    backward: Preferred
    reasons: tuple[str, str] = ("", "")

    def __post_init__(self) -> None:
        """Check what was preferred."""
        _check_choice(self.forward, Preferred, "forward")
        _check_choice(self.backward, Preferred, "backward")

    @property
    def contradictory(self) -> bool:
        """Whether the orders name different winners: then it was the order that was preferred."""
        return self.forward == self.backward != "neither"

    @property
    def replaced(self) -> bool:
        """Whether the challenger was preferred in both orders."""
        return (self.forward, self.backward) == ("second", "first")


@dataclass(frozen=True, kw_only=True)
class DraftRound:
    """Drafts that were drawn side by side.

    Attributes:
        drafts: In order.
        action: How they were drawn.
        choice: Number of the best of them, from 0; None where it was not chosen.
        answers: Question id to whether it holds, of the best picture after this round; None where
            nobody was asked.
        feedback: On the best picture; None after the last round.
    """

    drafts: tuple[Draft, ...]
    action: Action = "regenerate"
    choice: int | None = None
    answers: Mapping[str, bool] | None = None
    feedback: Feedback | None = None

    def __post_init__(self) -> None:
        """Check the choice.

        Raises:
            ValueError: It has no image, or there is no such draft.
        """
        _check_choice(self.action, Action, "action")
        if self.choice is not None and not (
            0 <= self.choice < len(self.drafts) and self.drafts[self.choice].image
        ):
            raise ValueError(f"choice {self.choice} of {len(self.drafts)} drafts has no image")

    @property
    def winner(self) -> Draft | None:
        """The best of its drafts."""
        return None if self.choice is None else self.drafts[self.choice]


@dataclass(frozen=True, kw_only=True)
class DraftScore:
    """What was said of a draft.

    Attributes:
        place: Which.
        score: 1 to `MAX_SCORE`.
        justification: Why.
    """

    place: Place
    score: int
    justification: str

    def __post_init__(self) -> None:
        """Check the score."""
        _check_score(self.score)


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What is remembered of a round.

    Attributes:
        prompt: Of the best of its drafts.
        image: What was drawn from that; loaded.
        feedback: After the round; None where it is still to come.
        best: Whether the picture is the best of all rounds so far.
    """

    prompt: str
    image: ImageRef
    feedback: Feedback | None = None
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """An idea and what it came to.

    Attributes:
        idea: What is wanted.
        seed: Of everything that is drawn at random.
        rounds: In order.
        best: The picture that was chosen in the end; None where there is none.
        final: What was said of the winners of all rounds in the end, where they were scored.
        questions: What the picture must answer with yes, where a checklist was written.
        comparisons: In order, where pictures were compared in pairs.
        control: What the image model draws from the `manual` prompt of a person; the first of its
            drafts is what that person would get, its choice the best of as many as were explored.
        provenance: Where it comes from, as bounded JSON: `models` and `prompt_versions` (role ->
            name), `preset`, `ended_by`, `cost` (unit -> amount), `retries` (reason -> number),
            `failure` and `failure_detail` where it broke off, `detector` (`manual`, `first`,
            `refined` -> verdict) where one has looked.
    """

    idea: Idea
    seed: int
    rounds: tuple[DraftRound, ...] = ()
    best: Place | None = None
    final: tuple[DraftScore, ...] = ()
    questions: tuple[Question, ...] = ()
    comparisons: tuple[PairComparison, ...] = ()
    control: DraftRound | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check places and provenance.

        Raises:
            ValueError: A place leads nowhere, or provenance is no plain JSON.
        """
        for place in (
            self.best,
            *(p for c in self.comparisons for p in (c.champion, c.challenger)),
        ):
            if place is not None and self.at(place).image is None:
                raise ValueError(f"draft {place} has no image")
        checked = strict_json.checked(self.provenance, "provenance")
        object.__setattr__(self, "provenance", checked)

    def at(self, place: Place) -> Draft:
        """Return a draft.

        Raises:
            ValueError: There is none.
        """
        if not 0 <= place.round < len(self.rounds) or not (
            0 <= place.draft < len(self.rounds[place.round].drafts)
        ):
            raise ValueError(f"there is no draft {place}")
        return self.rounds[place.round].drafts[place.draft]

    @property
    def manual(self) -> Draft | None:
        """What the prompt of a person gives at once; None where nobody drew it."""
        drawn = self.control.drafts[0] if self.control else None
        return drawn if drawn and drawn.image else None

    @property
    def first(self) -> Draft | None:
        """The best of the first round."""
        return self.rounds[0].winner if self.rounds else None

    @property
    def refined(self) -> Draft | None:
        """The picture that was chosen in the end."""
        return None if self.best is None else self.at(self.best)

    @property
    def complete(self) -> bool:
        """Whether it came to its end."""
        return self.best is not None and not self.provenance.get("failure")

    @property
    def num_drafts(self) -> int:
        """Pictures that were asked for; the control's are none of them."""
        return sum(len(one.drafts) for one in self.rounds)

    @property
    def holding(self) -> tuple[int, int] | None:
        """How many questions hold of the best picture, and of how many, where they were asked."""
        answered = [one.answers for one in self.rounds if one.answers is not None]
        return (sum(answered[-1].values()), len(answered[-1])) if answered else None

    @property
    def memory(self) -> tuple[Remembered, ...]:
        """The rounds so far, as whoever writes the next prompts remembers them."""
        return tuple(
            Remembered(
                prompt=one.winner.prompt,
                image=one.winner.image,
                feedback=one.feedback,
                best=self.best == (number, one.choice),
            )
            for number, one in enumerate(self.rounds)
            if one.winner is not None and one.winner.image is not None
        )

    def drafts(self) -> Iterator[tuple[Place, Draft]]:
        """Yield every draft with its place."""
        for number, one in enumerate(self.rounds):
            for index, draft in enumerate(one.drafts):
                yield Place(number, index), draft

    def with_images(self, named: Sequence[ImageRef]) -> Exploration:
        """Return it with other images, in the order of `images`."""
        left = iter(named)

        def drafts(one: DraftRound) -> DraftRound:
            changed = (replace(d, image=next(left)) if d.image else d for d in one.drafts)
            return replace(one, drafts=tuple(changed))

        parts = tuple(p if isinstance(p, str) else next(left) for p in self.idea.parts)
        rounds = tuple(drafts(one) for one in self.rounds)
        control = drafts(self.control) if self.control else None
        assert next(left, None) is None
        return replace(self, idea=Idea(parts=parts), rounds=rounds, control=control)

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """All images: of the idea, of the rounds, of the control."""
        every = [*self.rounds, *([self.control] if self.control else [])]
        return (
            *self.idea.images,
            *(draft.image for one in every for draft in one.drafts if draft.image),
        )

    def trajectory(self) -> Trajectory:
        """Tell the way to the picture that was chosen, as the staged loop tells its own.

        The first winner's prompt is the plan; each feedback refuses the picture that it is about,
        and the prompt that came of it is the refinement.
        """
        steps: list[Step] = []
        way = self._way()
        for number, (_, draft) in enumerate(way):
            assert draft.image is not None
            prompt = draft.prompt[:MAX_TEXT_CHARS]
            before = self.rounds[way[number - 1][0].round].feedback if number else None
            if not number:
                steps.append(Plan(instruction=prompt, description=prompt))
            else:
                critique = before.problem if before else "another picture was preferred"
                steps.append(Inspection(target="sketch", verdict="revise", critique=critique))
                steps.append(Refinement(instruction=prompt))
            flow_steps = int(draft.cost.get("flow_steps", 0))
            steps.append(Sketch(image=draft.image, seed=draft.seed, num_flow_steps=flow_steps))
        if self.complete:
            steps.append(Stop())
        ended = self.provenance.get("ended_by")
        kept = ("models", "prompt_versions", "cost", "retries", "failure", "failure_detail")
        provenance = {name: value for name, value in self.provenance.items() if name in kept}
        provenance |= {"seeds": {"rollout": self.seed}, "mode": "idea2img", "ended_by": ended}
        detected = self.provenance.get("detector")
        if isinstance(detected, dict) and "refined" in detected:
            provenance["detector"] = detected["refined"]
        return Trajectory(
            prompt=self.idea.text,
            inputs=self.idea.images,
            steps=tuple(steps),
            provenance=provenance,
        )

    def _way(self) -> list[tuple[Place, Draft]]:
        """The winners of the rounds before the best picture's, and that picture."""
        if self.best is None:
            return []
        before = [
            (Place(number, one.choice), one.drafts[one.choice])
            for number, one in enumerate(self.rounds[: self.best.round])
            if one.choice is not None
        ]
        return [*before, (self.best, self.at(self.best))]


def _check_score(score: int) -> None:
    if not 1 <= score <= MAX_SCORE:
        raise ValueError(f"score {score}; expected 1 to {MAX_SCORE}")


def _check_choice(value: str, kind: Any, place: str) -> None:
    if value not in get_args(kind):
        raise ValueError(f"{place} is {value!r:.40}; expected one of {', '.join(get_args(kind))}")
