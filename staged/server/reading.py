"""What a client asks for, read and checked before anything is begun."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from staged import images, protocol
from staged.data_urls import from_base64
from staged.generate.model import DrawingModel
from staged.generate.presets import PRESETS
from staged.generate.settings import DrawSettings
from staged.server.carrying import drawing_of
from staged.server.errors import bad_request
from staged.server.job import JobOrder
from staged.server.record import HistoryRecord
from staged.server.settings import ServeSettings
from staged.shapes.miniature import is_miniature, understood_step
from staged.trajectory import ImageRef, TextStep, Trajectory

_MAX_MODELS: Final = 64
"""Ways of drawing that are remembered; weights and what was read is shared between them all."""
_SEEDS: Final = 2**31
"""Seeds that are chosen for whoever names none: what every client can hold."""


class OrderReader:
    """Makes orders of what clients send, in any thread; whatever is wrong is an `ApiError`."""

    def __init__(self, settings: ServeSettings, model: DrawingModel) -> None:
        """Read for a server.

        Args:
            settings: Its own, with its limits.
            model: Its checkpoint, under these settings.
        """
        self._settings, self._model = settings, model
        self._models = OrderedDict[DrawSettings, DrawingModel]()
        self._lock = threading.Lock()

    def model(self, asked: Mapping[str, Any]) -> DrawingModel:
        """Return the model under the settings that a request names.

        Raises:
            ApiError: One of them is out of range or beyond the limits (400).
        """
        try:
            settings = replace(self._settings, **asked)
            with self._lock:
                model = self._models.get(settings) or self._model.like(settings)
                self._check_limits(settings, model)
                self._models[settings] = model
                self._models.move_to_end(settings)
                if len(self._models) > _MAX_MODELS:
                    self._models.popitem(last=False)
        except ValueError as error:
            raise bad_request(str(error)) from None
        return model

    def answering(self) -> Mapping[str, Any]:
        """Settings under which the model answers questions about images, best as it was taught."""
        if is_miniature(self._model.sizes):
            return {"mode": "answer"}
        return PRESETS["understand"].settings

    def images(self, given: Sequence[bytes], param: str = "images") -> list[ImageRef]:
        """Check input images, each decoded once so that a broken one is found here.

        Raises:
            ApiError: There are too many, or one is none or too large (400).
        """
        limits = self._settings.limits
        if len(given) > limits.max_images:
            raise bad_request(
                f"{len(given)} images; the server's limit is {limits.max_images}", param=param
            )
        refs = []
        for number, data in enumerate(given):
            try:
                images.decode(data, max_pixels=limits.max_image_pixels)
            except ValueError as error:
                raise bad_request(f"{param}[{number}]: {error}", param=param) from None
            refs.append(ImageRef(png=data))
        return refs

    def from_base64(self, given: Iterable[str], param: str = "images") -> list[ImageRef]:
        """Read images as they stand in JSON; see `images`.

        Raises:
            ApiError: One is no base64 of an image (400).
        """
        try:
            return self.images([from_base64(text) for text in given], param)
        except ValueError as error:
            raise bad_request(f"{param}: {error}", param=param) from None

    def order(
        self,
        client: str,
        words: str,
        *,
        asked: Mapping[str, Any],
        inputs: Sequence[ImageRef] = (),
        kind: str = "trajectory",
        seed: int | None = None,
        deadline_s: float | None = None,
        detached: bool = False,
    ) -> JobOrder:
        """Read what a client asks for.

        Args:
            client: Who.
            words: Prompt, edit or question.
            asked: Settings that the request names.
            inputs: Images with it.
            kind: Of the request.
            seed: Of everything drawn at random; None chooses one.
            deadline_s: From now; None is the longest that may be asked for.
            detached: It goes on when nobody reads it.

        Raises:
            ApiError: Something of it is not possible (400).
        """
        model = self.model(asked)
        if model.settings.mode == "answer" and not inputs:
            raise bad_request("a question needs an image that it is about", param="images")
        said = self._words(model, words, onto_images=bool(inputs))
        return JobOrder(
            client=client,
            kind=kind,
            words=words,
            start=model.start(said, inputs),
            seed=secrets.randbelow(_SEEDS) if seed is None else seed,
            asked=asked,
            playing=model,
            drawing=drawing_of(model.settings) if self._settings.records else {},
            deadline_s=self._deadline_s(deadline_s),
            detached=detached,
        )

    def fork(
        self,
        record: HistoryRecord,
        whole: Trajectory,
        *,
        at: int,
        step: TextStep | None,
        asked: Mapping[str, Any],
        seed: int | None = None,
        deadline_s: float | None = None,
        detached: bool = False,
    ) -> JobOrder:
        """Read how a trajectory is to go on from one of its steps.

        Args:
            record: Of the trajectory.
            whole: The same, as far as it has come.
            at: How many of its steps are kept.
            step: What comes next, by hand.
            asked: Settings that differ from its own.
            seed: Of everything that is drawn now; by default its own.
            deadline_s: See `order`.
            detached: See `order`.

        Raises:
            ApiError: Something of it is not possible (400).
        """
        if at > len(whole.steps):
            raise bad_request(
                f"at is {at}, and the trajectory has {len(whole.steps)} steps", param="at"
            )
        asked = {**record.asked, **asked}
        model = self.model(asked)
        begun = replace(whole, steps=whole.steps[:at])
        if step is not None:
            begun = self._with_step(model, begun, step)
        forked = {"forked": {"from": record.id, "at": at, "by_hand": step is not None}}
        return JobOrder(
            client=record.client,
            kind=record.kind,
            words=record.words,
            start=replace(begun, provenance=forked),
            seed=record.seed if seed is None else seed,
            asked=asked,
            playing=model,
            drawing=drawing_of(model.settings) if self._settings.records else {},
            deadline_s=self._deadline_s(deadline_s),
            parent=record.id,
            detached=detached,
        )

    def _check_limits(self, settings: DrawSettings, model: DrawingModel) -> None:
        limits = self._settings.limits
        height, width = model.largest
        if height * width > limits.max_picture_pixels:
            raise bad_request(
                f"a picture of {width} x {height} pixels exceeds the server's limit of "
                f"{limits.max_picture_pixels}",
                param="width",
            )
        for name in ("max_flow_steps", "max_rounds", "max_text_tokens"):
            value, most = getattr(settings, name), getattr(limits, name)
            # What the server is set up with is its operator's choice.
            if value > max(most, getattr(self._settings, name)):
                raise bad_request(f"{name} is {value}; the server's limit is {most}", param=name)

    def _words(self, model: DrawingModel, words: str, *, onto_images: bool) -> str:
        """Say a prompt as the model is to read it."""
        most = self._settings.limits.max_prompt_chars
        if len(words) > most:
            raise bad_request(
                f"the prompt has {len(words)} characters; the server's limit is {most}",
                param="prompt",
            )
        try:
            protocol.check_text(words.strip())
        except ValueError as error:
            raise bad_request(f"prompt: {error}", param="prompt") from None
        try:
            [said] = model.understood([words.strip()], onto_images=onto_images)
        except ValueError as error:
            raise bad_request(str(error), param="prompt", code="unknown_words") from None
        return said

    def _with_step(self, model: DrawingModel, begun: Trajectory, step: TextStep) -> Trajectory:
        most = self._settings.limits.max_prompt_chars
        try:
            for name, text in vars(step).items():
                if isinstance(text, str) and len(text) > most:
                    raise ValueError(f"{name} has {len(text)} characters; the limit is {most}")
            protocol.write(step)
            return begun.extend(understood_step(model.sizes, step))
        except ValueError as error:
            raise bad_request(f"step: {error}", param="step") from None

    def _deadline_s(self, asked: float | None) -> float:
        most = self._settings.limits.deadline_s
        return most if asked is None else min(asked, most)
