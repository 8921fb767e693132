"""`staged generate`: draw prompts in stages, watch each step come, keep everything."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staged import strict_json
from staged.command_line import UsageError, console, exit_codes, outputs
from staged.generate.answers import player_answers
from staged.generate.folder import REPORT, OutFolder
from staged.generate.options import CHECKPOINT, MOST_TOGETHER, given, parser
from staged.generate.picture_record import PictureOrigin, PictureRecord, read_record
from staged.generate.presets import MAX_THOUGHT_TOKENS, PRESETS
from staged.generate.requests import (
    DrawRequest,
    check_prompt,
    decides,
    make_requests,
    read_image,
    read_prompts,
)
from staged.generate.restoring import check_inputs, restore
from staged.generate.settings import DrawSettings
from staged.generate.signing import PictureSigner, SigningSettings
from staged.generate.telling import describe, figures, looked_at
from staged.jobs.budget import BudgetError
from staged.loops.events import Event, Failed, Stopped
from staged.loops.roles import Roles
from staged.report import drawn_report
from staged.settings import from_dict, load, to_dict
from staged.settings.plain import plain
from staged.trajectory import ImageRef, Trajectory
from staged.trajectory_folder import FINAL

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` should not
    from staged.generate.model import DrawingModel

_HOME = Path("out/generate")
_FILES_A_REQUEST = 2  # at least: a picture, and final.png; each has about a byte a pixel
MAX_SHOWN = 100
"""Trajectories in the report; the rest stand in their folders."""


def main(argv: list[str]) -> int:
    """Run the command.

    Returns:
        0, 1 if a trajectory did not come to its end, 3 when the budget of a language model
        stopped it, or 130 after Ctrl-C.
    """
    options = parser().parse_args(argv)
    if options.out is None:
        outputs.folder(_HOME)
    signer = None
    if options.sign is not None:
        signer = PictureSigner(load(SigningSettings, None, options.sign))
    restored = None if options.picture is None else read_record(options.picture)
    record = None if restored is None else restored[0]
    settings = _settings(options, record)
    seed = options.seed if options.seed is not None else record.seed if record else 0
    prompts, inputs = _read(options, record)
    # After the cheap checks: a wrong option is told at once, not after torch is loaded.
    from staged.generate.model import DrawingModel

    model = DrawingModel(settings, seed=seed)
    said = model.understood(prompts, onto_images=bool(inputs))
    for prompt, words in dict(zip(prompts, said, strict=True)).items():
        if prompt != words:
            print(f"prompt   {prompt!r} is read as {words!r}")
    starts = [model.start(words, inputs) for words in said]
    requests = make_requests(starts, num_images=options.num_images, seed=seed)
    begun = {} if record is None else {"from": record.trajectory.images[-1].name}
    out = options.out or _own_folder(requests, {**to_dict(settings), **begun})
    asked = {**decides(requests), "checkpoint": settings.drawn_by, **begun}
    with OutFolder(out, requests) as folder:
        # Told before weights are read, as far as it is known by then.
        known = {**asked, **settings.decides(), **model.flows.facts()}
        folder.refuse_others(known, unknown=("dtype", "weights"))
        height, width = model.largest
        missing = len(requests) - folder.count()
        need_bytes = outputs.MIN_FREE_BYTES + missing * _FILES_A_REQUEST * height * width
        outputs.folder(out, need_bytes=need_bytes)
        model.settle(folder.begun_dtype())
        model.admit(options.batch_size, num_inputs=len(inputs), most=MOST_TOGETHER)
        folder.refuse_others({**known, "dtype": model.settings.dtype}, unknown=("weights",))
        folder.begin({**asked, **model.decides()})
        there = len(folder.complete)
        if there:
            print(f"{there} of {len(requests)} trajectories are there", flush=True)
        started = time.monotonic()
        kept = f"{{}} of {len(requests)} trajectories are saved in {out}"
        try:
            with player_answers(settings, out) as model.log:
                drawing = _Drawing(
                    model, requests, folder, restored, records=options.record, signer=signer
                )
                drawing.draw(options.batch_size, len(inputs))
        except BudgetError as stop:
            print(
                f"stopped: {stop}; {kept.format(len(folder.complete))}; raise --lmm-budget-usd, "
                "and the same command goes on"
            )
            return exit_codes.STOPPED
        except KeyboardInterrupt:
            kept = kept.format(len(folder.complete))
            print(
                f"\ninterrupted; {kept}, and the same command goes on from there", file=sys.stderr
            )
            return exit_codes.INTERRUPTED
        took = (
            f"{len(requests) - there} drawn now, in {time.monotonic() - started:.1f} seconds"
            if there < len(requests)
            else "all were drawn before"
        )
        return _report(model, folder, took)


class _Drawing:
    """Draws what is missing. Nothing depends on its company, so what is there need not be drawn."""

    def __init__(
        self,
        model: DrawingModel,
        requests: Sequence[DrawRequest],
        folder: OutFolder,
        restored: tuple[PictureRecord, ImageRef] | None,
        *,
        records: bool,
        signer: PictureSigner | None,
    ) -> None:
        self._model, self._requests, self._folder = model, requests, folder
        self._restored, self._records, self._signer = restored, records, signer
        self._left = [number for number in range(len(requests)) if number not in folder.complete]

    def draw(self, batch_size: int | None, num_inputs: int) -> None:
        if not self._left:
            return
        asked = [self._requests[number] for number in self._left]
        loop = self._model.loop(batch_size, num_inputs=num_inputs, most=MOST_TOGETHER)
        starts = [request.start for request in asked]
        if self._restored is not None:
            starts = [self._begun(starts[0], loop.roles)] * len(asked)
        loop.run(starts, [request.seed for request in asked], self._tell)

    def _begun(self, start: Trajectory, roles: Roles) -> Trajectory:
        assert self._restored is not None
        record, picture = self._restored
        if record.weights not in (None, self._model.weights):
            print(
                "note     the picture was drawn by other weights, so what follows may be otherwise"
            )
        begun = restore(record, picture, start, roles, lambda said: print(f"note     {said}"))
        print(f"given    {len(begun.steps)} steps of the picture", flush=True)
        return begun

    def _tell(self, event: Event) -> None:
        number = self._left[event.rollout]
        event = looked_at(event)
        if (text := describe(event)) is not None:
            print(f"[{number}] {text}" if len(self._requests) > 1 else text, flush=True)
        if isinstance(event, Stopped | Failed):
            self._folder.save(number, self._recorded(event.trajectory, number))

    def _recorded(self, trajectory: Trajectory, number: int) -> Trajectory:
        """Let pictures say how they were drawn, and sign them, as it is wanted."""
        if self._records:
            settings, seed = self._model.settings, self._requests[number].seed
            origin = PictureOrigin.of(settings, seed=seed, weights=self._model.weights)
            trajectory = origin.put_into(trajectory)
        return trajectory if self._signer is None else self._signer.sign_sketches(trajectory)


def _report(model: DrawingModel, folder: OutFolder, took: str) -> int:
    settings, flows = model.settings, model.flows
    count, complete = len(folder.complete), sum(folder.complete.values())
    guidances = ", ".join(
        f"{name} {flow.guidance.text_scale:g} and {flow.guidance.image_scale:g}"
        for name, flow in vars(flows).items()
    )
    facts = [
        *([f"Before everything stands: {settings.system}"] if settings.system else []),
        f"Checkpoint {settings.drawn_by}, mode {settings.mode}; planner {settings.planner}, "
        f"inspector {settings.inspector}, sketcher {settings.sketcher}.",
        f"{flows.num_evaluations} flow steps a sketch; guidance by text and by images: "
        f"{guidances}; {settings.device}, {settings.dtype}.",
        f"{complete} of {count} trajectories came to their end; {took}.",
    ]
    shown = folder.load(MAX_SHOWN)
    more = f"The first {MAX_SHOWN} of {count}." if count > MAX_SHOWN else ""
    page = folder.path / REPORT
    drawn_report(shown, intro=more, expect=model.expectation, notes=facts).write(page)
    print(f"saved    {page}, {complete} of {count} complete; {took}")
    if count == 1 and shown[0].last_sketch is not None:
        print(f"         {folder.path / FINAL}")
    console().figures(
        {
            "complete": complete,
            "trajectories": count,
            "pictures": [figures(trajectory) for trajectory in shown],
            "out": str(folder.path),
        }
    )
    return exit_codes.OK if complete == count else exit_codes.FAILED


def _settings(options: argparse.Namespace, record: PictureRecord | None) -> DrawSettings:
    """The checkpoint's ways beneath the recipe's, and those beneath what is given."""
    named = given(options, DrawSettings)
    if options.size is not None:
        named["width"], named["height"] = options.size
    if record is not None:
        if options.preset is not None or options.think:
            raise UsageError("--from restores how a picture was drawn; leave the recipe out")
        if "checkpoint" not in named:
            named["checkpoint"] = _checkpoint_of(record)
        restored = {**record.settings, **{name: plain(value) for name, value in named.items()}}
        return from_dict(DrawSettings, restored, f"settings of {options.picture}")
    named.setdefault("checkpoint", CHECKPOINT)
    preset = PRESETS[options.preset or "staged"]
    preset.check(options.preset or "staged", options.image)
    thinking: dict[str, Any] = {}
    if options.think:
        thinking["max_text_tokens"] = MAX_THOUGHT_TOKENS
        if options.preset is None:
            thinking["mode"] = "one-shot"
    return DrawSettings(**{**preset.settings, **thinking, **named})


def _checkpoint_of(record: PictureRecord) -> str:
    """The model of a picture, which must not choose what is loaded from disk or network."""
    if not record.checkpoint.startswith("miniature:"):
        raise UsageError(
            f"the picture was drawn by {record.checkpoint!r:.80}; give --checkpoint, where that is"
        )
    return record.checkpoint


def _read(
    options: argparse.Namespace, record: PictureRecord | None
) -> tuple[list[str], list[ImageRef]]:
    """Prompts and input images."""
    if sum(given is not None for given in (options.prompt, options.prompts, record)) != 1:
        raise UsageError(
            "give one prompt, --prompts FILE with one prompt a line, or --from PICTURE"
        )
    inputs = [read_image(path) for path in options.image]
    if record is not None:
        try:
            check_inputs(record, inputs)
            return [check_prompt(record.trajectory.prompt, "its prompt")], inputs
        except ValueError as error:
            raise ValueError(f"{options.picture}: {error}") from None
    if options.prompts is None:
        return [check_prompt(options.prompt.strip(), "the prompt")], inputs
    return read_prompts(options.prompts), inputs


def _own_folder(requests: Sequence[DrawRequest], more: Mapping[str, Any]) -> Path:
    """A folder that the same command finds again, and no other command takes."""
    words = re.sub(r"[^a-z0-9]+", "-", requests[0].start.prompt.lower())[:40].strip("-")
    asked = strict_json.dumps({**decides(requests), **more})
    digest = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return outputs.folder(_HOME / f"{words}-{digest}".strip("-"))
