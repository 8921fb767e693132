"""`staged eval BENCHMARK …`: score a model, or what has been drawn or detected already.

A benchmark is a function `main(argv) -> int` with an argparse parser of its own. To add one, write
the function and add its row here.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Benchmark(NamedTuple):
    """A row of the table.

    Attributes:
        help: One line for `staged eval --help`.
        target: `module:function`, imported only when the benchmark runs.
    """

    help: str
    target: str


BENCHMARKS = {
    "miniature": Benchmark("prompts of the miniature world", "eval.miniature:main"),
    "generate": Benchmark(
        "images for a benchmark's prompts, by any generator", "eval.generation.command:main"
    ),
    "on-ray": Benchmark("a command shared by a Ray cluster", "eval.on_ray:main"),
    "geneval": Benchmark("detections, by GenEval's rules", "eval.geneval.command:main"),
    "detect": Benchmark("find objects in images, for geneval", "eval.geneval.detect_command:main"),
    "convert-detector": Benchmark(
        "mmdet's Mask2Former for detect", "eval.geneval.detect_command:convert"
    ),
    "judge-wise": Benchmark("a language model on images, for wise", "eval.wise.judge_command:main"),
    "wise": Benchmark("judgements of WISE, legacy or verified", "eval.wise.command:main"),
    "answer-geneval2": Benchmark(
        "a vision-language model on images, for geneval2", "eval.geneval2.command:answer"
    ),
    "geneval2": Benchmark("answers about images, by Soft-TIFA", "eval.geneval2.command:main"),
    "rewards": Benchmark("CLIPScore, PickScore and others", "eval.rewards.command:main"),
    "convert-reward": Benchmark(
        "published weights of a reward, for rewards", "eval.rewards.command:convert"
    ),
    "compare": Benchmark("results of several runs, and published ones", "eval.compare:main"),
    "report": Benchmark("results as one web page, with pictures", "eval.report:main"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval`.

    Args:
        argv: Arguments after `staged eval`; the process's own when None.

    Returns:
        What the benchmark returned; 2 for a command line that is wrong.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    if not argv:
        parser.print_help()
        return 2
    if argv[0].startswith("-"):
        parser.parse_args(argv)
        parser.error(f"{argv[0]} stands before the benchmark; write `staged eval BENCHMARK ...`")
    name, arguments = argv[0], argv[1:]
    if name not in BENCHMARKS:
        close = difflib.get_close_matches(name, BENCHMARKS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(BENCHMARKS)}"
        parser.error(f"unknown benchmark {name!r}; {hint}")
    module, _, function = BENCHMARKS[name].target.partition(":")
    return int(getattr(importlib.import_module(module), function)(arguments))


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, BENCHMARKS))
    rows = "\n".join(f"  {name:{width}}  {row.help}" for name, row in BENCHMARKS.items())
    return argparse.ArgumentParser(
        prog="staged eval",
        usage="staged eval BENCHMARK ...",
        description="Score a model on a benchmark.",
        epilog=f"benchmarks:\n{rows}\n\n`staged eval BENCHMARK --help` shows its options.\n"
        "example: staged eval miniature --checkpoint miniature:base --mode one-shot --out out/base",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


if __name__ == "__main__":
    sys.exit(main())
