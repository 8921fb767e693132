"""`staged train CONFIG [key=value …]`: fine-tune on one process, or on many with torchrun."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from staged import settings as job_settings
from staged.command_line import (
    Parser,
    UsageError,
    add_overrides,
    amount,
    console,
    count,
    exit_codes,
    natural,
    outputs,
    share,
)
from staged.command_line.applications import run_as_module
from staged.shards.streaming import is_remote
from train.data_folder import finished
from train.gpus import GPUS
from train.run_lock import alone_together, require_nobody_yet
from train.settings import TrainSettings

_EPILOG = """
example:
  staged train configs/shapes/base.yaml out=runs/base num_steps=2000

  staged train configs/shapes/demo_train.yaml --show-pack 0 --page out/pack.html

  staged train configs/shapes/base.yaml cache=runs/cache --prepare

  staged train configs/bagel_7b/plan_sketch.yaml --plan --gpu h100 --ranks 8

  staged train configs/shapes/base.yaml out=runs/base --export --to weights/so_far

  torchrun --nproc-per-node 8 -m train configs/bagel_7b/plan_sketch.yaml out=runs/plan

The same command continues an interrupted run, bit for bit on a CPU, and on another number of
processes with the same samples in the same order.

settings:
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train, report where the checkpoint lies."""
    arguments = _parser().parse_args(argv)
    if arguments.export and arguments.export_best:
        raise UsageError("--export is of the newest state, --export-best of another: give one")
    exporting = arguments.export or arguments.export_best
    if arguments.to is not None and not exporting:
        raise UsageError("--to is of --export and --export-best: say which state")
    if arguments.page is not None and arguments.show_pack is None:
        raise UsageError("--page is of --show-pack: say which pack")
    settings = job_settings.load(TrainSettings, arguments.config, arguments.overrides)
    if arguments.plan:
        return _tell_plan(settings, arguments)
    if exporting:
        return _export(settings, arguments)
    for subset in settings.data:
        if not is_remote(subset.path):
            finished(subset.path)
    if arguments.show_pack is not None:
        from train.show_pack import show_pack

        console().figures(show_pack(settings, arguments.show_pack, arguments.page))
        return exit_codes.OK
    if arguments.prepare:
        if settings.cache is not None:
            outputs.folder(settings.cache)
        from train.prepare import prepare

        console().figures(prepare(settings))
        return exit_codes.OK
    return _train(settings)


def _train(settings: TrainSettings) -> int:
    outputs.folder(settings.out)
    require_nobody_yet(settings.out)
    if settings.cache is not None:
        outputs.folder(settings.cache)
    _quieten_torch()
    # What follows needs torch; `--help` does not.
    from train.job import Trainer
    from train.profiles import TraceRequests
    from train.ranks import joined

    with (
        joined(settings.parallel, settings.device) as ranks,
        alone_together(settings.out, ranks),
        TraceRequests(),  # outside of its steps, too, a run does not end by one
    ):
        trainer = Trainer(settings, ranks)
        if ranks.is_first and trainer.step >= settings.num_steps:
            print(f"all {settings.num_steps} steps were taken before; writing the checkpoint again")
        folder = trainer.run()
    if ranks.is_first:
        _tell_result(folder, trainer.step)
    return exit_codes.OK


def _export(settings: TrainSettings, arguments: argparse.Namespace) -> int:
    to: Path | None = arguments.to
    if to is not None and to.is_dir() and any(to.iterdir()):
        raise ValueError(f"{to} is not empty; name another folder, or remove it")
    _quieten_torch()
    from train.export_run import export_run
    from train.ranks import joined
    from train.run_model import result_of

    best = arguments.export_best
    folder = result_of(settings, best=best) if to is None else to
    with joined(settings.parallel, settings.device) as ranks, ExitStack() as leaving:
        if to is None:  # the run's own result, which a process that trains will write
            words = "; or give --to FOLDER, which a run that goes on does not mind"
            leaving.enter_context(alone_together(settings.out, ranks, way_out=words))
        step = export_run(settings, ranks, folder, best=best)
    if ranks.is_first:
        _tell_result(folder, step)
    return exit_codes.OK


def _quieten_torch() -> None:
    # Of a lost rank torch tells dozens of lines of its own; ours are one. Read when it is loaded.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")


def _tell_result(folder: Path, step: int) -> None:
    print(f"checkpoint: {folder}")
    console().figures({"checkpoint": str(folder), "step": step})


def _parser() -> Parser:
    parser = Parser(
        prog="staged train",
        description="Fine-tune a BAGEL on trajectories.",
        figures=True,
        epilog=_EPILOG + job_settings.describe(TrainSettings),
    )
    add = parser.add_argument
    add("config", help="YAML file; see configs/")
    add_overrides(parser)
    words = "train no further: write the checkpoint of the newest state"
    add("--export", action="store_true", help=words)
    words = "train no further: write the state with the least validation loss, to `<out>/best`"
    add("--export-best", action="store_true", help=words)
    words = "with either: write it there, also while the run goes on"
    add("--to", type=outputs.out_folder, metavar="FOLDER", help=words)
    add(
        "--show-pack",
        type=natural,
        metavar="N",
        help="train nothing: print pack number N token by token: kind, position, label, weight, "
        "who sees whom",
    )
    words = (
        "train nothing: read every sample as the run would, on the CPU and without the model; with "
        "`cache` also encode them ahead, and go on where that was interrupted"
    )
    add("--prepare", action="store_true", help=words)
    words = "with --show-pack: also as a web page"
    add("--page", type=outputs.out_file, metavar="FILE", help=words)
    _add_plan(parser)
    return parser


def _add_plan(parser: Parser) -> None:
    group = parser.add_argument_group("planning, without data, weights or a device")
    group.add_argument(
        "--plan",
        action="store_true",
        help="train nothing: print memory, time and cost, what fits, and what to change",
    )
    group.add_argument("--gpu", choices=GPUS, default="h100", help="device (default: h100)")
    group.add_argument("--ranks", type=count, default=1, help="devices (default: 1)")
    group.add_argument(
        "--utilization",
        type=share,
        default=0.3,
        metavar="SHARE",
        help="of the device's rate that a step reaches (default: 0.3)",
    )
    group.add_argument("--usd-per-gpu-hour", type=amount, metavar="USD", help="for the cost")


def _tell_plan(settings: TrainSettings, arguments: argparse.Namespace) -> int:
    from train.forecast import Machine, tell

    machine = Machine(
        name=arguments.gpu,
        gpu=GPUS[arguments.gpu],
        ranks=arguments.ranks,
        utilization=arguments.utilization,
        usd_per_gpu_hour=arguments.usd_per_gpu_hour,
    )
    figures = tell(settings, machine)
    console().figures(figures)
    return exit_codes.OK if figures["fits"] else exit_codes.FAILED


if __name__ == "__main__":
    sys.exit(run_as_module("train", __file__, main))
