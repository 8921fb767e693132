"""`staged generate`: draw prompts in stages, watch each step come, keep everything."""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from staged import strict_json
from staged.command_line import UsageError, console, exit_codes, outputs
from staged.generate.folder import REPORT, OutFolder
from staged.generate.options import parser
from staged.generate.requests import (
    Request,
    check_prompt,
    decides,
    make_requests,
    read_image,
    read_prompts,
)
from staged.generate.telling import describe
from staged.jobs.units import units
from staged.loops.events import Event, Failed, Stopped
from staged.report import drawn_report
from staged.settings import to_dict
from staged.trajectory import ImageRef
from staged.trajectory_folder import FINAL

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` should not
    from staged.loops.casting import Casting
    from staged.loops.policy import Policy
    from staged.loops.staged import StagedLoop
    from staged.model.flows import Flows, FlowSettings

T = TypeVar("T")

_DECIDING = (
    *("checkpoint", "mode", "planner", "inspector", "sketcher", "inspect_plans"),
    *("inspect_sketches", "max_rounds", "max_refinements", "max_flow_steps", "max_attempts"),
    *("temperature", "batch_size", "dtype"),
)
MAX_SHOWN = 100
"""Trajectories in the report; the rest stand in their folders."""


def main(argv: list[str]) -> int:
    """Run the command.

    Returns:
        0, 1 if a trajectory did not come to its end, or 130 after Ctrl-C.
    """
    options = parser().parse_args(argv)
    prompts, inputs = _read(options)
    # After the cheap checks: a wrong option is told at once, not after torch is loaded.
    from staged.devices import choose_arithmetic
    from staged.engine.engine import ImageSizes
    from staged.loops.casting import Casting
    from staged.loops.policy import Policy
    from staged.shapes.miniature import look_at_checkpoint, understood

    said = understood(
        ImageSizes.of(look_at_checkpoint(options.checkpoint).config),
        prompts,
        answering=options.mode == "answer",
        onto_images=bool(inputs),
    )
    for prompt, words in dict(zip(prompts, said, strict=True)).items():
        if prompt != words:
            print(f"prompt   {prompt!r} is read as {words!r}")
    requests = make_requests(said, inputs, num_images=options.num_images, seed=options.seed)
    known = {**decides(requests), **_deciding(options)}
    out = options.out or _own_folder(requests, known)
    casting = Casting(
        planner=options.planner, inspector=options.inspector, sketcher=options.sketcher
    )
    policy = casting.policy(
        Policy(
            mode=options.mode,
            max_rounds=options.max_rounds,
            max_refinements=options.max_refinements,
            max_flow_steps=options.max_flow_steps,
            max_attempts=options.max_attempts,
            inspect_plan=options.inspect_plans,
            inspect_sketch=options.inspect_sketches,
        )
    )
    with OutFolder(out, requests) as folder:
        folder.refuse_others({name: known[name] for name in known if name != "dtype"})
        chosen = choose_arithmetic(options.device, options.dtype, begun=folder.begun_dtype())
        print(chosen.words, flush=True)
        options.device, options.dtype = str(chosen.device), chosen.dtype_name
        known["dtype"] = chosen.dtype_name
        folder.refuse_others(known)
        return _draw(options, requests, folder, known, casting, policy)


def _draw(
    options: argparse.Namespace,
    requests: Sequence[Request],
    folder: OutFolder,
    known: Mapping[str, Any],
    casting: Casting,
    policy: Policy,
) -> int:
    from staged.backends.bagel import BagelPlayer, BagelSettings
    from staged.loops.casting import open_engine
    from staged.loops.staged import StagedLoop
    from staged.model.weights_hash import weights_hash

    engine = open_engine(
        options.checkpoint, device=options.device, dtype=options.dtype, seed=options.seed
    )
    flows = engine.flows.each(lambda flow: _flow(flow, options))
    playing = BagelSettings(flows=flows, temperature=options.temperature)

    def loop() -> StagedLoop:
        cast = casting.cast(BagelPlayer(engine, playing), options.checkpoint)
        return StagedLoop(cast, policy, batch_size=options.batch_size)

    loop()  # whether they fit, before anything is written
    weights = weights_hash((engine.model, engine.autoencoder))
    folder.begin({**known, "flow": to_dict(flows), "weights": weights})
    there = len(folder.complete)
    if there:
        print(f"{there} of {len(requests)} trajectories are there", flush=True)
    started = time.monotonic()
    try:
        for unit in units(range(len(requests)), options.batch_size):
            if not folder.complete.keys() >= set(unit):
                # A player of its own, which has read nothing in other company.
                _draw_unit(loop(), unit, requests, folder)
    except KeyboardInterrupt:
        kept = f"{len(folder.complete)} of {len(requests)} trajectories are saved in {folder.path}"
        goes_on = ", and the same command goes on from there"
        print(f"\ninterrupted; {kept}{goes_on}", file=sys.stderr)
        return exit_codes.INTERRUPTED
    took = (
        f"{len(requests) - there} drawn now, in {time.monotonic() - started:.1f} seconds"
        if there < len(requests)
        else "all were drawn before"
    )
    return _report(options, folder, flows, took)


def _draw_unit(
    loop: StagedLoop, unit: Sequence[int], requests: Sequence[Request], folder: OutFolder
) -> None:
    """Draw a unit; what is there of it keeps the others company, and is left as it is.

    Numbers depend on company in their last digits, and a picture on its numbers. So whoever goes
    on with a unit draws it in the company that it would have had without an interruption.
    """
    there = set(folder.complete)

    def tell(event: Event) -> None:
        number = unit[event.rollout]
        if number in there:
            return
        if (text := describe(event)) is not None:
            print(f"[{number}] {text}" if len(requests) > 1 else text, flush=True)
        if isinstance(event, Stopped | Failed):
            folder.save(number, event.trajectory)

    members = [requests[number] for number in unit]
    loop.run([r.start for r in members], [r.seed for r in members], tell)


def _report(options: argparse.Namespace, folder: OutFolder, flows: Flows, took: str) -> int:
    count, complete = len(folder.complete), sum(folder.complete.values())
    guidances = ", ".join(
        f"{name} {flow.guidance.text_scale:g} and {flow.guidance.image_scale:g}"
        for name, flow in vars(flows).items()
    )
    facts = (
        f"Checkpoint {options.checkpoint}, mode {options.mode}; planner {options.planner}, "
        f"inspector {options.inspector}, sketcher {options.sketcher}.",
        f"{flows.num_flow_steps} flow steps a sketch; guidance by text and by images: {guidances}; "
        f"{options.device}, {options.dtype}.",
        f"{complete} of {count} trajectories came to their end; {took}.",
    )
    shown = folder.load(MAX_SHOWN)
    more = f"The first {MAX_SHOWN} of {count}." if count > MAX_SHOWN else ""
    page = folder.path / REPORT
    drawn_report(shown, intro=more, notes=facts).write(page)
    print(f"saved    {page}, {complete} of {count} complete; {took}")
    if count == 1 and shown[0].last_sketch is not None:
        print(f"         {folder.path / FINAL}")
    console().figures({"complete": complete, "trajectories": count, "out": str(folder.path)})
    return exit_codes.OK if complete == count else exit_codes.FAILED


def _read(options: argparse.Namespace) -> tuple[list[str], list[ImageRef]]:
    """Prompts and input images."""
    if (options.prompt is None) == (options.prompts is None):
        raise UsageError("give one prompt, or --prompts FILE with one prompt a line")
    if options.prompts is None:
        prompts = [check_prompt(options.prompt.strip(), "the prompt")]
    else:
        prompts = read_prompts(options.prompts)
    return prompts, [read_image(path) for path in options.image]


def _own_folder(requests: Sequence[Request], known: Mapping[str, Any]) -> Path:
    """A folder that the same command finds again, and no other command takes."""
    words = re.sub(r"[^a-z0-9]+", "-", requests[0].start.prompt.lower())[:40].strip("-")
    digest = hashlib.sha256(strict_json.dumps(known).encode()).hexdigest()[:8]
    return outputs.folder(Path("out/generate") / f"{words}-{digest}".strip("-"))


def _deciding(options: argparse.Namespace) -> dict[str, Any]:
    """Options that decide a trajectory, beside what is asked for."""
    return {name: getattr(options, name) for name in _DECIDING}


def _flow(default: FlowSettings, options: argparse.Namespace) -> FlowSettings:
    """The checkpoint's defaults with what the command line changes."""
    guidance = replace(
        default.guidance,
        text_scale=_given(options.guidance_scale, default.guidance.text_scale),
        image_scale=_given(options.image_guidance_scale, default.guidance.image_scale),
    )
    return replace(
        default,
        num_flow_steps=_given(options.flow_steps, default.num_flow_steps),
        timestep_shift=_given(options.timestep_shift, default.timestep_shift),
        guidance=guidance,
    )


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
