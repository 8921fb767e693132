"""Image editors that are actors of a Ray cluster, each on a GPU of its own, for many ranks.

A rank keeps ledger and budget, and waits mostly for the language model; an editor is asked by
whichever rank has something to draw. A picture depends on what is asked alone, so it does not
matter which editor draws it, nor whether one died over it and it is drawn again.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence
from typing import Any, Final
from uuid import uuid4

from data_pipelines.drawing import DrawingSettings, open_editor
from staged.backends.http.service import ServiceError
from staged.command_line import UsageError, on_ray
from staged.command_line.applications import prefer_ours
from staged.first_line import first_line
from staged.roles import ImageEditor, Pixels

_DEATHS: Final = 16
"""Editors that may die over one request; then it is taken for the request's fault."""
_CALLS: Final = 64
"""Calls that an editor takes at a time: it draws one after another, or a batch of them."""


class EditorActor:
    """An editor in a process of its own, which is opened by the first who asks.

    Ray starts it again where its process or machine died, so nothing is kept in it: every call says
    how the editor is set.

    Args:
        folder: Where relative paths of the settings begin.
    """

    def __init__(self, folder: str) -> None:
        """Open nothing yet."""
        os.chdir(folder)
        prefer_ours()
        self._opening = threading.Lock()
        self._open: tuple[DrawingSettings, ImageEditor] | None = None

    def settled(self, drawing: DrawingSettings, begun: DrawingSettings | None) -> DrawingSettings:
        """Say what `auto` stands for here; see `DrawingSettings.settled`."""
        return drawing.settled(begun=begun)

    def described(self, drawing: DrawingSettings) -> tuple[str, str]:
        """Return name and licence of the editor."""
        editor = self._opened(drawing)
        return editor.name, editor.licence

    def call(self, drawing: DrawingSettings, method: str, *given: Any, **named: Any) -> Any:
        """Call a method of the editor."""
        return getattr(self._opened(drawing), method)(*given, **named)

    def _opened(self, drawing: DrawingSettings) -> ImageEditor:
        with self._opening:
            if self._open is None or self._open[0] != drawing:
                self._open = drawing, open_editor(drawing)
            return self._open[1]


def start_editors(ray: Any, number: int, *, gpus: float) -> dict[str, Any]:
    """Start editors, which live as long as what is returned.

    Args:
        ray: See `staged.command_line.on_ray.cluster`.
        number: Of editors.
        gpus: That each has, or the share of one.

    Returns:
        Their names, by which `RayEditors` finds them, and Ray's handles.
    """
    # No processor is reserved: on a small machine the ranks would wait for one for ever.
    actor = ray.remote(
        num_cpus=0,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=_DEATHS,
        max_concurrency=_CALLS,
        scheduling_strategy="SPREAD",
    )(EditorActor)
    names = [f"editor-{uuid4()}" for _ in range(number)]
    return {name: actor.options(name=name).remote(os.getcwd()) for name in names}


class RayEditors:
    """Plays `data_pipelines.editors.Editors` with actors, in a task of the same Ray job.

    Args:
        names: Of the actors.

    Raises:
        UsageError: this is no task of `staged data on-ray`, or they are not there.
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Find the actors."""
        try:
            import ray

            if not ray.is_initialized():
                raise ValueError("no cluster")
            self._actors = [ray.get_actor(name) for name in names]
        except (ImportError, ValueError):
            raise UsageError(
                f"--editor-pool {','.join(names)}: there are no such editors; `staged data on-ray "
                "--editors N` starts them and says so to its tasks"
            ) from None
        self._ray = ray

    def settled(
        self, drawing: DrawingSettings, *, begun: DrawingSettings | None
    ) -> DrawingSettings:
        """Say what `auto` stands for where the editors are; see `DrawingSettings.settled`.

        Raises:
            ValueError: a service draws, or there is no such device.
        """
        if drawing.service is not None:
            raise ValueError(
                f"drawing.service: {drawing.model} draws behind its address and takes no GPU of "
                "the cluster; leave out --editors"
            )
        settled: DrawingSettings = on_ray.result(
            self._ray, self._actors[0].settled.remote(drawing, begun)
        )
        return settled

    def open(self, drawing: DrawingSettings) -> RayEditor:
        """Let an editor be opened, and return what asks all of them."""
        return RayEditor(self._ray, self._actors, drawing)


class RayEditor:
    """Plays `LatentEditor` by asking actors, each time the one with the fewest of our requests.

    Args:
        ray: The module.
        actors: Handles of `EditorActor`.
        drawing: How their editors are set.

    Raises:
        Exception: what opening an editor raised.
    """

    def __init__(self, ray: Any, actors: Sequence[Any], drawing: DrawingSettings) -> None:
        """Ask for the editor's name."""
        self._ray, self._actors, self._drawing = ray, actors, drawing
        self._waiting, self._choosing = [0] * len(actors), threading.Lock()
        self.name: str
        self.licence: str
        self.name, self.licence = self._ask("described")

    def edit(
        self, image: Pixels | None, instruction: str, *, width: int, height: int, seed: int
    ) -> Pixels:
        """Draw; see `ImageEditor`. From any thread.

        Raises:
            Exception: as the editor itself.
            ServiceError: editor after editor died over it.
        """
        drawn: Pixels = self._ask(
            "call", "edit", image, instruction, width=width, height=height, seed=seed
        )
        return drawn

    def edit_latents(
        self,
        image: Pixels | None,
        latents: bytes | None,
        instruction: str,
        *,
        width: int,
        height: int,
        seed: int,
    ) -> tuple[Pixels, bytes]:
        """Draw onto latents; see `LatentEditor`, and `edit`."""
        size = {"width": width, "height": height}
        drawn: tuple[Pixels, bytes] = self._ask(
            "call", "edit_latents", image, latents, instruction, **size, seed=seed
        )
        return drawn

    def _ask(self, method: str, *given: Any, **named: Any) -> Any:
        with self._choosing:
            # Other ranks choose as well, and not all of them the first.
            order = [(waiting, random.random()) for waiting in self._waiting]
            chosen = order.index(min(order))
            self._waiting[chosen] += 1
        try:
            asked = getattr(self._actors[chosen], method).remote(self._drawing, *given, **named)
            return on_ray.result(self._ray, asked)
        except self._ray.exceptions.RayActorError as error:
            raise ServiceError(
                f"an editor died {_DEATHS + 1} times over one request "
                f"({first_line(error)}); its log is with Ray's. The same command goes on"
            ) from None
        finally:
            with self._choosing:
                self._waiting[chosen] -= 1
