"""The Python interface: load a model, draw with it step by step, step in, keep what was drawn.

    import staged

    model = staged.load("miniature:staged")
    for event in model.stream("a photo of a red circle above a blue star", seed=3):
        print(event)
    trajectory = event.trajectory
    plan = staged.Plan(instruction="add a green ring", description="a green ring")
    forked = model.fork(trajectory, at=0, step=plan)
    staged.save_trajectory("out/forked", forked)
    pixels = forked.last_sketch.image.array()

Names and options are those of the server (docs/server.md); docs/python.md has more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from staged import protocol
from staged.generate.model import DrawingModel
from staged.generate.requests import check_prompt, read_image
from staged.generate.settings import OF_WEIGHTS, DrawSettings
from staged.generate.telling import looked_at
from staged.loops.events import Event, Failed, Previewed, Stopped, TextPreviewed
from staged.loops.rollout import OnEvent
from staged.loops.rollouts import LostRollout, Rollouts
from staged.loops.staged import StagedLoop
from staged.settings import from_dict, to_dict
from staged.shapes.miniature import understood_step
from staged.shapes.sight.judged import judged
from staged.trajectory import Answer, ImageRef, Stop, TextStep, Trajectory

GivenImage = str | Path | bytes | NDArray[np.uint8] | ImageRef
"""A file, the bytes of one, (h, w, 3) uint8 RGB, or the image of a trajectory."""

_PREVIEW_EVERY: Final = 4
_FORKED: Final = "forked"


class DrawingFailed(RuntimeError):
    """A trajectory ended before its end.

    Attributes:
        reason: Short and countable, such as `truncated`.
        trajectory: What there is of it.
    """

    def __init__(self, failed: Failed) -> None:
        """Say why."""
        super().__init__(failed.detail)
        self.reason, self.trajectory = failed.reason, failed.trajectory


class LoadedModel:
    """A checkpoint that draws. For one thread at a time.

    Attributes:
        settings: How it draws unless a call says otherwise.
    """

    def __init__(self, settings: DrawSettings, *, preview_every: int = _PREVIEW_EVERY) -> None:
        """Look at a checkpoint; weights are read when something is drawn. See `load`."""
        _refuse_budget(settings)
        self._model = DrawingModel(settings, preview_every=preview_every)
        self.settings = self._model.settings

    def stream(
        self,
        prompt: str,
        *,
        images: Sequence[GivenImage] = (),
        seed: int = 0,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> Iterator[Event]:
        """Draw a prompt, and give every step as it is made.

        Whoever reads no further ends the drawing: what was read for it is given back.

        Args:
            prompt: What to draw, what to change, or what to answer.
            images: Input images.
            seed: The same seed draws the same pictures.
            on_event: Told of everything at once, previews of texts and pictures too, which are not
                among what is given.
            options: Settings that differ, such as `mode` or `max_rounds`; see `DrawSettings`. What
                the model was loaded with, such as `dtype`, cannot.

        Yields:
            Events, see `staged.loops.events`; the last is `Stopped`, or `Failed`, and has the
            trajectory.

        Raises:
            ValueError: An option or image is wrong, or the prompt beyond a miniature.
        """
        model = self._like(options)
        inputs = [read(image) for image in images]
        if model.settings.mode == "answer" and not inputs:
            raise ValueError("a question needs an image that it is about")
        check_prompt(prompt.strip(), "the prompt")
        [said] = model.understood([prompt.strip()], onto_images=bool(inputs))
        return _events(model, model.start(said, inputs), seed, on_event)

    def draw(self, prompt: str, **arguments: Any) -> Trajectory:
        """Draw a prompt to its end; arguments as for `stream`.

        Raises:
            DrawingFailed: It did not come to its end.
            ValueError: As `stream`.
        """
        return _end(self.stream(prompt, **arguments))

    def answer(self, question: str, images: Sequence[GivenImage], **arguments: Any) -> str:
        """Answer a question about images; arguments as for `stream`.

        Raises:
            DrawingFailed: There is no answer.
            ValueError: As `stream`.
        """
        trajectory = self.draw(question, images=images, mode="answer", **arguments)
        [text] = [step.text for step in trajectory.steps if isinstance(step, Answer)]
        return text

    def stream_fork(
        self,
        trajectory: Trajectory,
        *,
        at: int,
        step: TextStep | None = None,
        seed: int | None = None,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> Iterator[Event]:
        """Go on from a step of a trajectory, and give every new step as it is made.

        Args:
            trajectory: Ended or not.
            at: How many of its steps are kept.
            step: What comes next, by hand.
            seed: Of everything that is drawn now; by default its own.
            on_event: See `stream`.
            options: See `stream`.

        Raises:
            ValueError: There is no such step, the one by hand may not come there, or an option is
                wrong.
        """
        model = self._like(options)
        whole = [made for made in trajectory.steps if not isinstance(made, Stop)]
        if not 0 <= at <= len(whole):
            raise ValueError(f"at is {at}, and the trajectory has {len(whole)} steps")
        begun = replace(trajectory, steps=tuple(whole[:at]))
        if step is not None:
            protocol.write(step)
            begun = begun.extend(understood_step(model.sizes, step))
        if seed is None:
            seed = int(trajectory.provenance.get("seeds", {}).get("rollout", 0))
        forked = {"at": at, "by_hand": step is not None}
        return _events(model, replace(begun, provenance={_FORKED: forked}), seed, on_event)

    def fork(self, trajectory: Trajectory, **arguments: Any) -> Trajectory:
        """Go on from a step of a trajectory to its end; arguments as for `stream_fork`.

        Raises:
            DrawingFailed: It did not come to its end.
            ValueError: As `stream_fork`.
        """
        return _end(self.stream_fork(trajectory, **arguments))

    def draw_many(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int] | None = None,
        on_event: OnEvent | None = None,
        **options: Any,
    ) -> list[Trajectory]:
        """Draw prompts side by side, as many as memory has room for.

        Args:
            prompts: Any number.
            seeds: One for each; by default 0, 1, 2, …
            on_event: Told of everything; `rollout` is the prompt's place.
            options: See `stream`.

        Returns:
            The trajectories, in order. One that failed is not complete; `provenance` says why.

        Raises:
            ValueError: As `stream`.
        """
        model = self._like(options)
        if model.settings.mode == "answer":
            raise ValueError("a question is about an image; ask one after another with answer()")
        for place, prompt in enumerate(prompts):
            check_prompt(prompt.strip(), f"prompts[{place}]")
        said = model.understood([prompt.strip() for prompt in prompts])
        starts = [model.start(words) for words in said]
        chosen = list(range(len(prompts))) if seeds is None else list(seeds)
        loop = StagedLoop(model.roles, model.policy, batch_size=model.admission.batch_size)
        ended = loop.run(starts, chosen, on_event)
        return [judged(trajectory) for trajectory in ended]

    def _like(self, options: dict[str, Any]) -> DrawingModel:
        settings = from_dict(DrawSettings, {**to_dict(self.settings), **options}, "options")
        _refuse_budget(settings)
        for name in OF_WEIGHTS:
            ours, asked = getattr(self.settings, name), getattr(settings, name)
            if asked != ours:
                raise ValueError(
                    f"{name} is {asked}, and this model was loaded with {ours}, for all calls: "
                    f"load another one, staged.load(..., {name}=...)"
                )
        return self._model.like(settings)


def load(checkpoint: str = "miniature:staged", **settings: Any) -> LoadedModel:
    """Load a model.

    Args:
        checkpoint: `miniature:base`, `miniature:staged`, a folder, or a Hub id.
        settings: How it draws, where, in which precision; see `staged.generate.settings`.

    Raises:
        ValueError: There is no such checkpoint, or a setting is wrong; all of them are told.
    """
    return LoadedModel(from_dict(DrawSettings, {"checkpoint": checkpoint, **settings}, "settings"))


def read(image: GivenImage) -> ImageRef:
    """Take an image in any form.

    Raises:
        ValueError: It is none.
    """
    if isinstance(image, ImageRef):
        return image
    if isinstance(image, np.ndarray):
        return ImageRef.from_array(image)
    if isinstance(image, bytes):
        ref = ImageRef(png=image)
        ref.array()
        return ref
    return read_image(Path(image))


def _refuse_budget(settings: DrawSettings) -> None:
    """Refuse what would hold nothing: there is no folder here whose runs are counted."""
    if settings.lmm_budget_usd is not None:
        raise ValueError(
            f"lmm_budget_usd is {settings.lmm_budget_usd:g}, and money is counted over the runs of "
            "a folder, of which Python's calls have none: use `staged generate`, or leave it out "
            "and set a limit where the language model is paid"
        )


def _events(
    model: DrawingModel, start: Trajectory, seed: int, on_event: OnEvent | None
) -> Iterator[Event]:
    """Advance one trajectory; what is told during a call is given after it."""
    told: list[Event] = []

    def tell(event: Event) -> None:
        event = looked_at(event)
        if not isinstance(event, Previewed | TextPreviewed):
            told.append(event)
        if on_event is not None:
            on_event(event)

    rollouts = Rollouts(room=1, on_event=tell, preview_texts=on_event is not None)
    number = rollouts.join(
        start,
        seed=seed,
        roles=model.roles,
        policy=model.policy,
        watched=lambda: on_event is not None,
    )
    try:
        while rollouts or told:
            yield from told
            told.clear()
            if rollouts:
                rollouts.advance()
    except LostRollout as lost:
        raise (lost.__cause__ or lost) from None
    finally:
        rollouts.cancel(number)


def _end(events: Iterator[Event]) -> Trajectory:
    *_, last = events
    if isinstance(last, Failed):
        raise DrawingFailed(last)
    assert isinstance(last, Stopped), "a trajectory ends"
    return last.trajectory
