"""The command line of `staged generate`."""

from __future__ import annotations

from pathlib import Path

from staged.command_line import Parser, add_device, add_dtype, add_seed, count, natural, outputs

_DESCRIPTION = """Draw a prompt in stages: the model plans, sketches, inspects, refines, and stops
by its own tokens. Every step is printed as it comes and saved with its images, as trajectory.json,
final.png and report.html."""
_EXAMPLE = """example:
  staged generate "a photo of a red circle above a blue star" --out out/example

The same command goes on where it was interrupted. Nothing is overwritten: a folder that holds other
pictures, or that another process draws into, is refused."""


def parser() -> Parser:
    """Make the parser."""
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
    add(
        "--out",
        type=outputs.out_folder,
        metavar="FOLDER",
        help="folder to write (default: one of its own in out/generate, named by what is asked)",
    )
    add_seed(parser, "of a prompt's first image; its further ones, also on other lines, count up")
    add("--num-images", type=count, default=1, help="images of each line")
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
    add("--batch-size", type=count, default=8, help="trajectories that advance together")
    add_device(parser)
    add_dtype(parser)
    return parser
