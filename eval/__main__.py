"""`staged eval BENCHMARK …`: score a model, or what has been drawn or detected already.

A benchmark is a function `main(argv) -> int` with an argparse parser of its own. To add one, write
the function and add its row here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from staged.command_line import Command, dispatch, table_parser
from staged.command_line.applications import run_as_module

BENCHMARKS = {
    "miniature": Command("prompts of the miniature world", "eval.miniature:main"),
    "idea2img": Command("ideas of the miniature world, explored", "eval.idea2img.command:main"),
    "skills": Command("what a miniature can do, skill by skill", "eval.skills.command:main"),
    "tune-guidance": Command(
        "how strongly a miniature wants to be guided", "eval.skills.guidance:main"
    ),
    "generate": Command(
        "images for a benchmark's prompts, by any generator", "eval.generation.command:main"
    ),
    "on-ray": Command("a command shared by a Ray cluster", "eval.on_ray:main"),
    "geneval": Command("detections, by GenEval's rules", "eval.geneval.command:main"),
    "detect": Command("find objects in images, for geneval", "eval.geneval.detect_command:main"),
    "convert-detector": Command(
        "mmdet's Mask2Former for detect", "eval.converters.command:detector"
    ),
    "judge-wise": Command("a language model on images, for wise", "eval.wise.judge_command:main"),
    "wise": Command("judgements of WISE, legacy or verified", "eval.wise.command:main"),
    "answer-geneval2": Command(
        "a vision-language model on images, for geneval2", "eval.geneval2.command:answer"
    ),
    "geneval2": Command("answers about images, by Soft-TIFA", "eval.geneval2.command:main"),
    "rewards": Command("CLIPScore, PickScore and others", "eval.rewards.command:main"),
    "judge-accuracy": Command(
        "a judge of pairs against a known preference", "eval.judge_accuracy.command:main"
    ),
    "convert-reward": Command(
        "published weights of a reward, for rewards", "eval.converters.command:reward"
    ),
    "compare": Command("results of several runs, and published ones", "eval.compare:main"),
    "report": Command("results as one web page, with pictures", "eval.report:main"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval`.

    Args:
        argv: Arguments after `staged eval`; the process's own when None.

    Returns:
        What the benchmark returned; 2 for a command line that is wrong.
    """
    parser = table_parser(
        BENCHMARKS,
        prog="staged eval",
        noun="benchmark",
        description="Score a model on a benchmark.",
        example="staged eval miniature --checkpoint miniature:base --mode one-shot --out out/base",
    )
    return dispatch(parser, argv, "benchmark")


if __name__ == "__main__":
    sys.exit(run_as_module("eval", __file__, main))
