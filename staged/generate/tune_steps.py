"""`staged tune-steps`: find the flow steps that a checkpoint's network need not be asked at.

First sketches, edits and refinements are studied apart, in the contexts in which a loop of the
checkpoint's own draws them. Half of the prompts are for fitting; on the other half each picture is
drawn a second time with the forecast, and a third time in as many plain steps, by the same noise in
the same context.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from staged.command_line import (
    Parser,
    add_batch_size,
    add_device,
    add_dtype,
    add_out_folder,
    add_quantization,
    add_seed,
    amount,
    console,
    exit_codes,
    share,
)
from staged.generate.options import MOST_TOGETHER
from staged.generate.requests import read_prompts
from staged.generate.settings import DrawSettings
from staged.jobs.progress import Progress
from staged.model.flows import FLOWS, FlowKind, Flows, write_flows

if TYPE_CHECKING:  # torch takes seconds to import, and `--help` should not
    from staged.generate.studied import Trial

_DESCRIPTION = """Find the flow steps at which the network need not be asked, because what it would
say lies on a line through what it said before."""
_EXAMPLE = """example:
  staged tune-steps --checkpoint runs/staged/checkpoint --prompts prompts.txt --out out/steps
  staged tune-steps --checkpoint ByteDance-Seed/BAGEL-7B-MoT --prompts prompts.txt --share 0.4 \\
      --mode one-shot --out out/steps

The forecasts go into flow.yaml of the output folder, and with --keep into the checkpoint's folder
too, where every command finds them. One that changes pictures by more than --max-difference, or by
more than as many plain steps do, is not kept. A command that is given --flow-steps or guidance asks
at every step."""


def main(argv: list[str]) -> int:
    """Run the command.

    Returns:
        0, or 1 where no forecast is worth it.

    Raises:
        ValueError: There is no such checkpoint, or none of its own to keep the result in; there are
            fewer than two prompts; the share is too small.
    """
    options = _parser().parse_args(argv)
    if options.keep and not Path(options.checkpoint).is_dir():
        raise ValueError(f"--keep needs a checkpoint's folder; {options.checkpoint} is none")
    prompts = read_prompts(options.prompts)
    if len(prompts) < 2:
        raise ValueError(f"{options.prompts} holds one prompt; half are to fit, and half to check")
    from staged.engine.foresight import fit
    from staged.generate.model import DrawingModel
    from staged.generate.studied import StepStudy, Trial

    settings = DrawSettings(
        checkpoint=options.checkpoint,
        mode=options.mode,
        device=options.device,
        dtype=options.dtype,
        quantization=options.quantization,
    )
    model = DrawingModel(settings, seed=options.seed)
    study = StepStudy(model, options.batch_size)
    said = model.understood(prompts)
    progress = Progress("prompts", len(said))
    drawn = study.draw(said[::2], seed=options.seed, progress=progress)
    fitted = {kind: fit(images, options.share) for kind, images in drawn.items()}
    flows = study.flows
    trials = {
        kind: Trial(
            flow=flows.of(kind),
            forecast=flows.of(kind).otherwise(forecast=found.forecast),
            share=found.share,
            num_fitted=len(drawn[kind]),
        )
        for kind, found in fitted.items()
    }
    drawn.clear()  # the velocities of every step take most of the memory
    study.compare(said[1::2], trials, seed=options.seed, progress=progress)
    return _keep(options, flows, trials)


def _keep(options: argparse.Namespace, flows: Flows, trials: Mapping[FlowKind, Trial]) -> int:
    chosen: dict[str, Any] = {}
    figures: dict[str, float | None] = {}
    for kind, trial in trials.items():
        worth_it = trial.worth_it(options.max_difference)
        print(f"{kind:<11}{trial}{'' if worth_it else '  <- not kept'}")
        figures |= {f"{kind}/share": trial.share, f"{kind}/difference": trial.differences[0]}
        if worth_it:
            chosen[kind] = trial.forecast
    console().figures(figures)
    if not chosen:
        print(
            f"no forecast changes pictures by at most {options.max_difference:g} and by less "
            "than fewer steps do; give a larger --share or more prompts"
        )
        return exit_codes.FAILED
    kept = Flows(**({kind: flows.of(kind) for kind in ("first", "edit", "refinement")} | chosen))
    options.out.mkdir(parents=True, exist_ok=True)
    for folder in (options.out, *([Path(options.checkpoint)] if options.keep else [])):
        write_flows(kept, folder)
        print(f"wrote {folder / FLOWS}")
    return exit_codes.OK


def _parser() -> Parser:
    parser = Parser(
        prog="staged tune-steps", description=_DESCRIPTION, epilog=_EXAMPLE, figures=True
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="folder, Hub id, or miniature:base|staged")
    add("--prompts", type=Path, required=True, metavar="FILE", help="what to draw, one a line")
    add_out_folder(parser, words="folder for flow.yaml")
    add("--mode", choices=("staged", "one-shot"), default="staged", help="default: staged")
    add(
        "--share",
        type=share,
        default=0.5,
        metavar="SHARE",
        help="of the network's work that may be left, branches of guidance counted; default: 0.5",
    )
    add(
        "--max-difference",
        type=amount,
        default=4.0,
        metavar="D",
        help="of pictures, as the root mean square over their values of 0 to 255; default: 4",
    )
    add("--keep", action="store_true", help="write flow.yaml into the checkpoint's folder too")
    add_seed(parser, "of every prompt's pictures")
    add_batch_size(parser, "prompts that advance together", most=MOST_TOGETHER)
    add_device(parser)
    add_dtype(parser)
    add_quantization(parser)
    return parser
