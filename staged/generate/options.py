"""Command lines that draw: the one of `staged generate`, and what it has in common with others."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from staged.backends.lmm.settings import LmmSettings
from staged.command_line import (
    Parser,
    add_batch_size,
    add_device,
    add_dtype,
    add_quantization,
    add_seed,
    amount,
    count,
    natural,
    outputs,
)
from staged.generate.presets import PRESETS
from staged.generate.settings import DrawSettings
from staged.loops.policy import Inspect, Player, Sketcher
from staged.model.flows import Renorm
from staged.settings import load

CHECKPOINT = "miniature:staged"
MOST_TOGETHER = 16
"""Trajectories that a kill costs at most, where nobody asks for more."""
_DESCRIPTION = """Draw a prompt in stages: the model plans, sketches, inspects, refines, and stops
by its own tokens. Every step is printed as it comes and saved with its images, as trajectory.json,
final.png and report.html."""
_EXAMPLE = """example:
  staged generate "a photo of a red circle above a blue star" --out out/example
  staged generate --from out/example/0.png --seed 7 --out out/otherwise

The same command goes on where it was interrupted. Nothing is overwritten: a folder that holds other
pictures, or that another process draws into, is refused."""


def parser() -> Parser:
    """Make the parser of `staged generate`."""
    parser = Parser(
        prog="staged generate",
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        figures=True,
    )
    add = parser.add_argument
    add("prompt", nargs="?", help="what to draw")
    add("--prompts", type=Path, metavar="FILE", help="many prompts, one a line")
    add(
        "--from",
        dest="picture",
        type=Path,
        metavar="PICTURE",
        help="go on from a picture that staged drew: prompt, steps, seed and settings are restored "
        "from it, and what else is given counts before them",
    )
    add(
        "--record",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let each picture carry how it was drawn, for --from (default: it does)",
    )
    add(
        "--sign",
        nargs="+",
        metavar="key=value",
        help="sign each picture as C2PA has it, with certificate=FILE key=FILE (PEM) and, of keys "
        "other than es256, algorithm=NAME",
    )
    add(
        "--image",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="input image, to edit or to be asked about; give it several times for several",
    )
    add(
        "--checkpoint",
        help="folder, Hub id, or miniature:base|staged|fresh; or the folder of a LoRA, upon the "
        f"checkpoint that it names (default: {CHECKPOINT})",
    )
    add(
        "--out",
        type=outputs.out_folder,
        metavar="FOLDER",
        help="folder to write (default: one of its own in out/generate, named by what is asked)",
    )
    words = (
        "of a prompt's first image; its further ones, also on other lines, count up (default: 0)"
    )
    add_seed(parser, words, default=None)
    add("--num-images", type=count, default=1, help="images of each line")
    home = DrawSettings(checkpoint=CHECKPOINT)
    add(
        "--preset",
        choices=list(PRESETS),
        help="recipe, beneath the options that are given: "
        + "; ".join(f"{name}: {preset.words}" for name, preset in PRESETS.items())
        + "; default: staged",
    )
    add(
        "--think",
        action="store_true",
        help="let BAGEL write a thought first, then draw at once, or answer",
    )
    add(
        "--system-prompt",
        metavar="TEXT",
        help="what stands before everything; default: with --think, a request to think",
    )
    add(
        "--mode",
        choices=("staged", "one-shot", "answer"),
        help="plan and draw in stages, draw at once, or answer a question about --image; "
        "default: what the preset says",
    )
    add(
        "--size",
        type=size,
        metavar="WxH",
        help="of pictures in pixels; default: the largest square, or that of the last --image",
    )
    add_drawing(parser, home)
    add_batch_size(parser, "trajectories that advance together; changes none", most=MOST_TOGETHER)
    return parser


def add_drawing(parser: argparse.ArgumentParser, home: DrawSettings) -> None:
    """Add the options that every command has whose pictures a checkpoint of ours draws.

    Args:
        parser: Gets groups of them.
        home: Whose values are the defaults; the options' own are None.
    """
    _add_loop(parser.add_argument_group("loop", "who does what, and how often"), home)
    words = "how a picture is drawn; what is not given, the checkpoint's flow.yaml says"
    _add_flow(parser.add_argument_group("flow", words))
    group = parser.add_argument_group("model")
    add = group.add_argument
    add(
        "--lora",
        type=Path,
        metavar="FOLDER",
        help="LoRA (PEFT's format) to put upon the checkpoint, beside its weights",
    )
    add(
        "--temperature",
        type=float,
        metavar="T",
        help=f"of text; 0 takes the likeliest token; default: {home.temperature:g}",
    )
    add(
        "--max-text-tokens",
        type=count,
        metavar="N",
        help=f"of a text; default: {home.max_text_tokens}",
    )
    add(
        "--vision-only",
        action=argparse.BooleanOptionalAction,
        help="read images as ViT copies alone, as BAGEL does to answer",
    )
    add_device(group, default=None)
    add_dtype(group, default=None)
    add_quantization(group, default=None)


def _add_loop(group: argparse._ArgumentGroup, home: DrawSettings) -> None:
    add, players, looks = group.add_argument, get_args(Player), get_args(Inspect)
    add("--planner", choices=players, help="who plans (and then directs)")
    add("--inspector", choices=players, help="who inspects and refines")
    add(
        "--sketcher",
        choices=get_args(Sketcher),
        help="who draws; editing asks a model that knows no stages for one edit after another",
    )
    add(
        "--lmm",
        nargs="+",
        metavar="key=value",
        help="the language model of --planner lmm or --inspector lmm: model, base_url, api_key_env "
        "and whatever else it takes; model=shapes-lmm-1 is the miniature world's own",
    )
    add("--lmm-budget-usd", type=amount, metavar="USD", help="most money for it, over all runs")
    add("--inspect-plans", dest="inspect_plan", choices=looks, help="whether plans are inspected")
    add("--inspect-sketches", dest="inspect_sketch", choices=looks, help="whether sketches are")
    for name, kind, words in (
        ("max_rounds", count, "plans at most"),
        ("max_refinements", natural, "of a plan, and of a sketch, at most"),
        ("max_redraws", natural, "of a sketch that is refused, before it is refined, at most"),
        ("max_flow_steps", count, "of all sketches of a trajectory, at most"),
        ("max_attempts", count, "at one step, at most"),
    ):
        option = f"--{name.replace('_', '-')}"
        add(option, type=kind, metavar="N", help=f"{words}; default: {getattr(home, name)}")


def _add_flow(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--flow-steps",
        dest="num_flow_steps",
        type=count,
        metavar="N",
        help="network evaluations of a sketch",
    )
    add("--timestep-shift", type=float, metavar="SHIFT", help="bias of the time grid toward noise")
    add("--guidance-scale", type=float, metavar="SCALE", help="over the last text; 1 is off")
    add(
        "--image-guidance-scale",
        type=float,
        metavar="SCALE",
        help="over images in context, beside the text; 1 is off",
    )
    add(
        "--guidance-interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="shifted times, from 1 (noise) to 0, at which guidance is on: above LOW, up to HIGH",
    )
    add(
        "--guidance-renorm",
        choices=get_args(Renorm),
        help="over what a guided velocity keeps the length of the unguided one: the image, each "
        "token, or each token before images guide",
    )
    add(
        "--guidance-renorm-min",
        type=float,
        metavar="FACTOR",
        help="least factor of that correction; 1 switches it off",
    )


def given(options: argparse.Namespace, settings: type[DrawSettings]) -> dict[str, Any]:
    """What a command line gives of some settings, by their names."""
    names = (field.name for field in fields(settings))
    found = {name: getattr(options, name, None) for name in names}
    if found["lmm"] is not None:
        found["lmm"] = load(LmmSettings, None, found["lmm"])
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in found.items()
        if value is not None
    }


def size(text: str) -> tuple[int, int]:
    """Read width and height, such as `1024x768`.

    Raises:
        argparse.ArgumentTypeError: The text is no size.
    """
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isascii() and side.isdigit() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r}: give width x height in pixels, as 1024x768")
    return count(sides[0]), count(sides[1])
