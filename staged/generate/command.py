"""`staged generate`: draw prompts in stages, watch each step come, keep everything."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from staged import images
from staged.command_line import (
    Parser,
    UsageError,
    add_out_folder,
    add_seed,
    console,
    count,
    exit_codes,
    natural,
)
from staged.generate.keeping import Keeper
from staged.lines import read_lines
from staged.loops.events import (
    Answered,
    Event,
    Failed,
    Inspected,
    PlanWritten,
    Refined,
    Retried,
    SketchDrawn,
    Stopped,
)
from staged.report import drawn_report
from staged.settings import to_dict
from staged.trajectory import ImageRef, Trajectory
from staged.trajectory_folder import FINAL

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` should not
    from staged.engine.engine import Engine
    from staged.model.flows import Flows, FlowSettings

T = TypeVar("T")

MAX_PROMPTS = 100_000
MAX_SHOWN = 100
"""Trajectories in the report; the rest stand in their folders."""

_DESCRIPTION = """Draw a prompt in stages: the model plans, sketches, inspects, refines, and stops
by its own tokens. Every step is printed as it comes and saved with its images, as trajectory.json,
final.png and report.html."""
_EXAMPLE = """example:
  staged generate "a photo of a red circle above a blue star" --out out/example

With several prompts or images, the same command goes on where it was interrupted."""


def main(argv: list[str]) -> int:
    """Run the command.

    Returns:
        0, 1 if a trajectory did not come to its end, or 130 after Ctrl-C.
    """
    options = _parser().parse_args(argv)
    starts, seeds = _starts(options)
    # After the cheap checks: a wrong option is told at once, not after torch is loaded.
    from staged.loops.casting import Casting, bagel_player, open_engine
    from staged.loops.policy import Policy
    from staged.loops.staged import StagedLoop
    from staged.shapes.miniature import understood

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
    engine = open_engine(
        options.checkpoint, device=options.device, dtype=options.dtype, seed=options.seed
    )
    asked = [start.prompt for start in starts]
    said = understood(
        engine, asked, answering=options.mode == "answer", onto_images=bool(options.image)
    )
    for prompt, words in dict(zip(asked, said, strict=True)).items():
        if prompt != words:
            print(f"prompt   {prompt!r} is read as {words!r}")
    starts = [replace(start, prompt=words) for start, words in zip(starts, said, strict=True)]
    flows = engine.flows.each(lambda flow: _flow(flow, options))
    player = bagel_player(engine)
    player = type(player)(
        engine, replace(player.settings, flows=flows, temperature=options.temperature)
    )
    loop = StagedLoop(
        casting.cast(player, options.checkpoint), policy, batch_size=options.batch_size
    )
    started = time.monotonic()
    keeper = Keeper(options.out, len(starts))
    left = keeper.go_on(starts, seeds, _deciding(options, flows, engine) if starts[1:] else {})
    if keeper.saved:
        print(f"{len(keeper.saved)} of {len(starts)} trajectories are there", flush=True)

    def tell(event: Event) -> None:
        number = left[event.rollout]
        if (text := describe(event)) is not None:
            print(f"[{number}] {text}" if len(starts) > 1 else text, flush=True)
        keeper(number, event)

    try:
        if left:
            loop.run([starts[i] for i in left], [seeds[i] for i in left], tell)
    except KeyboardInterrupt:
        kept = f"{len(keeper.saved)} of {len(starts)} trajectories are saved in {options.out}"
        goes_on = ", and the same command goes on from there" if len(starts) > 1 else ""
        print(f"\ninterrupted; {kept}{goes_on}", file=sys.stderr)
        return exit_codes.INTERRUPTED
    took = (
        f"{len(left)} drawn now, in {time.monotonic() - started:.1f} seconds"
        if left
        else "all were drawn before"
    )
    return _report(options, keeper.in_order(), flows, engine, took)


def describe(event: Event) -> str | None:
    """Say an event in a line; None for those that only a screen can show."""
    match event:
        case PlanWritten(step=step):
            return f"plan     {step.instruction}\n         -> {step.description}"
        case SketchDrawn(step=step):
            return f"sketch   drawn in {step.num_flow_steps} flow steps, seed {step.seed}"
        case Inspected(step=step):
            return f"inspect  {step.target}: {step.verdict}: {step.critique}"
        case Refined(step=step):
            return f"refine   {step.instruction}"
        case Answered(step=step):
            return f"answer   {step.text}"
        case Retried(attempt=attempt, detail=detail):
            return f"retry    {attempt}: {detail}"
        case Stopped(ended_by=ended_by, trajectory=trajectory):
            return f"stop     by the {ended_by}, {trajectory.num_flow_steps} flow steps in all"
        case Failed(detail=detail):
            return f"failed   {detail}"
    return None


def _report(
    options: argparse.Namespace,
    saved: Sequence[Trajectory],
    flows: Flows,
    engine: Engine,
    took: str,
) -> int:
    out: Path = options.out
    complete = sum(trajectory.complete for trajectory in saved)
    guidances = ", ".join(
        f"{name} {flow.guidance.text_scale:g} and {flow.guidance.image_scale:g}"
        for name, flow in vars(flows).items()
    )
    facts = (
        f"Checkpoint {options.checkpoint}, mode {options.mode}; planner {options.planner}, "
        f"inspector {options.inspector}, sketcher {options.sketcher}.",
        f"{flows.num_flow_steps} flow steps a sketch; guidance by text and by images: {guidances}; "
        f"{engine.device.type}, {options.dtype}.",
        f"{complete} of {len(saved)} trajectories came to their end; {took}.",
    )
    shown = saved[:MAX_SHOWN]
    more = f"The first {MAX_SHOWN} of {len(saved)}." if len(saved) > MAX_SHOWN else ""
    report = drawn_report(shown, intro=more, notes=facts)
    report.write(out / "report.html")
    print(f"saved    {out / 'report.html'}, {complete} of {len(saved)} complete; {took}")
    if len(saved) == 1 and saved[0].last_sketch is not None:
        print(f"         {out / FINAL}")
    console().figures({"complete": complete, "trajectories": len(saved), "out": str(out)})
    return exit_codes.OK if complete == len(saved) else exit_codes.FAILED


def _deciding(options: argparse.Namespace, flows: Flows, engine: Engine) -> dict[str, Any]:
    """What decides a trajectory beside its prompt, input images and seed."""
    from staged.model.weights_hash import weights_hash

    free = ("prompt", "prompts", "image", "out", "num_images", "batch_size", "checkpoint", "device")
    resolved = ("flow_steps", "guidance_scale", "image_guidance_scale", "timestep_shift")
    given = {k: v for k, v in vars(options).items() if k not in (*free, *resolved)}
    weights = weights_hash((engine.model, engine.autoencoder))
    return {**given, "flow": to_dict(flows), "weights": weights}


def _starts(options: argparse.Namespace) -> tuple[list[Trajectory], list[int]]:
    """Prompts times images, and the seed of each."""
    if (options.prompt is None) == (options.prompts is None):
        raise UsageError("give one prompt, or --prompts FILE with one prompt a line")
    prompts = [options.prompt] if options.prompts is None else _read_prompts(options.prompts)
    inputs = tuple(_read_image(path) for path in options.image)
    starts = [
        Trajectory(prompt=prompt, inputs=inputs)
        for prompt in prompts
        for _ in range(options.num_images)
    ]
    return starts, [options.seed + i % options.num_images for i in range(len(starts))]


def _read_prompts(path: Path) -> list[str]:
    lines = islice(read_lines(path), MAX_PROMPTS + 1)
    prompts = [text for line in lines if (text := line.text().strip())]
    if not 1 <= len(prompts) <= MAX_PROMPTS:
        number = "no" if not prompts else "more"
        raise ValueError(f"{path} holds {number} prompts; give 1 to {MAX_PROMPTS}, one a line")
    return prompts


def _read_image(path: Path) -> ImageRef:
    data = images.read_file(path)
    try:
        images.probe(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return ImageRef(png=data)


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


def _parser() -> Parser:
    parser = Parser(
        prog="staged generate",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        figures=True,
    )
    add = parser.add_argument
    add("prompt", nargs="?", help="what to draw")
    add("--prompts", type=Path, metavar="FILE", help="many prompts, one a line")
    add("--image", type=Path, action="append", default=[], help="input image to edit; repeatable")
    add(
        "--checkpoint",
        default="miniature:staged",
        help="folder, Hub id, or miniature:base|staged|fresh (default: %(default)s)",
    )
    add_out_folder(parser, "out/generate")
    add_seed(parser, "of the first image; the next ones count up")
    add("--num-images", type=count, default=1, help="images a prompt")
    add(
        "--mode",
        choices=("staged", "one-shot", "answer"),
        default="staged",
        help="let the model plan, draw at once, or answer a question about --image",
    )
    players = ("model", "scripted")
    add("--planner", choices=players, default="model", help="who plans (and then directs)")
    add("--inspector", choices=players, default="model", help="who inspects and refines")
    add(
        "--sketcher",
        choices=("model", "editing", "scripted"),
        default="model",
        help="who draws; editing asks a model that knows no stages for one edit after another",
    )
    looks = ("model", "always", "never")
    add("--inspect-plans", choices=looks, default="model", help="whether plans are inspected")
    add("--inspect-sketches", choices=looks, default="model", help="whether sketches are")
    add("--max-rounds", type=count, default=6, help="plans at most (default: %(default)s)")
    add("--max-refinements", type=natural, default=2, help="of a plan, and of a sketch, at most")
    add("--max-flow-steps", type=count, default=300, help="of all sketches (default: %(default)s)")
    add("--max-attempts", type=count, default=3, help="at one step before it fails")
    add("--flow-steps", type=count, help="network evaluations of a sketch")
    add("--guidance-scale", type=float, help="over the last text; 1 is off")
    add("--image-guidance-scale", type=float, help="over images, beside the text; 1 is off")
    add("--timestep-shift", type=float, help="bias of the time grid toward noise")
    add("--temperature", type=float, default=0.0, help="of text; 0 is greedy")
    add("--batch-size", type=count, default=64, help="trajectories that advance together")
    add("--device", default="cpu", help="auto, cpu or cuda (default: %(default)s)")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the model")
    return parser
