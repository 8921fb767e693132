"""The command lines of `staged eval geneval2` and `staged eval answer-geneval2`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.budget import stopped_by_budget
from eval.geneval2.answers import read_answers
from eval.geneval2.asking import ask_about
from eval.geneval2.prompts import load_prompts
from eval.geneval2.summary import summarise
from eval.pictures import read_pictures
from eval.results import BenchmarkResult
from eval.score_options import (
    add_score_options,
    finish,
    origin_of,
    unscored_lines,
)
from eval.statistics import METHOD
from eval.tables import counted_table
from eval.vqa.options import JUDGE, add_options, open_answerer, server_help
from staged.command_line import Parser, add_device, add_out_file, console, count, exit_codes
from staged.jobs.rank import add_options as add_rank_options
from staged.jobs.rank import rank_of


def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval geneval2`.

    Args:
        argv: Arguments after `staged eval geneval2`; the process's own when None.

    Returns:
        0 for success, 1 when samples are unscored and that was not allowed.

    Raises:
        ValueError: a file is not as it must be.
        OSError: a file cannot be read or written.
    """
    arguments = _parser().parse_args(argv)
    prompt_file = load_prompts(arguments.prompts)
    answers = read_answers(
        arguments.answers, prompt_file, images_per_prompt=arguments.images_per_prompt
    )
    path = arguments.answers
    origin = origin_of(arguments, [path], default_name=path.stem)
    judge = arguments.judge or answers.judge
    result = origin.told_in(summarise(answers, prompt_file, judge=judge))
    result.write(arguments.out)
    unscored = unscored_lines(answers.unscored, " questions")
    wrote = [arguments.out]
    return finish("staged eval geneval2", arguments, result, render(result), wrote, unscored)


@stopped_by_budget("raise --budget-usd")
def answer(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval answer-geneval2`.

    Args:
        argv: Arguments after the command; the process's own when None.

    Returns:
        0 for success, 3 when the budget stopped it.

    Raises:
        ValueError: settings, prompts or images are not as they must be, or there is no such model.
        OSError: a file cannot be read or written.
    """
    arguments = _answer_parser().parse_args(argv)
    prompt_file = load_prompts(arguments.prompts)
    pictures = read_pictures(arguments.images)
    rank = rank_of(arguments.rank, arguments.world_size)
    out, model = arguments.out, arguments.model
    with open_answerer(
        arguments, weights=model, purpose="geneval2", out=out, rank=rank
    ) as answerer:
        asked = ask_about(pictures, prompt_file, answerer, out, rank=rank)
    print(rank.label(f"{answerer.name}: {asked.new} images now, {asked.kept} were there"))
    console().figures({"new": asked.new, "kept": asked.kept})
    if asked.lines is None:
        print("answers of other processes are still missing")
        return exit_codes.OK
    answers = read_answers(out, prompt_file)
    for line in unscored_lines(answers.unscored, " questions"):
        print(line)
    print(f"wrote {out}; aggregate it with `staged eval geneval2 --answers`")
    if not answers.num_answered:
        raise ValueError("not one question was answered; the lines above say why")
    return exit_codes.OK


def render(result: BenchmarkResult) -> str:
    """Write the table of a result for a terminal."""
    parts = [(name, result.estimates[name]) for name in result.samples]
    found = [("geometric mean", result.overall), *result.also.items(), *parts]
    table = counted_table("", "score", found)
    title = f"GenEval 2, Soft-TIFA, {result.variant['prompts']}, judge {result.variant['judge']}"
    note = "skills: arithmetic mean, n counts questions; atomicities: geometric mean"
    return f"{title}\n{table}\n{note}; intervals: {METHOD}"


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval geneval2",
        description="Aggregate answers to GenEval 2's questions by Soft-TIFA.",
        figures=True,
        epilog="example: staged eval geneval2 --answers answers.jsonl "
        "--prompts geneval2_data.jsonl --out geneval2.json\n\n"
        'A line of FILE is {"prompt_id": 0, "probabilities": [0.98, 0.31, null]}, of the right\n'
        "answer to each question about the prompt of that place in PROMPTS, from 0. A list of\n"
        "lists, as the reference writes it, is read as well.",
    )
    add = parser.add_argument
    add("--answers", type=Path, required=True, metavar="FILE", help="JSON lines, an image each")
    add("--prompts", type=Path, required=True, help="geneval2_data.jsonl of the benchmark")
    add_out_file(parser, words="result file (JSON)")
    add(
        "--images-per-prompt",
        type=count,
        metavar="N",
        help="how many there should be (default: the most that any prompt has)",
    )
    add("--judge", metavar="MODEL", help="who answered, where lines do not say")
    add_score_options(parser, default_name="the file's")
    return parser


def _answer_parser() -> Parser:
    parser = Parser(
        prog="staged eval answer-geneval2",
        description="Answer GenEval 2's questions about images with a vision-language model.",
        figures=True,
        epilog="example: staged eval answer-geneval2 images.jsonl --prompts geneval2_data.jsonl "
        "--out answers.jsonl\n"
        "         staged eval answer-geneval2 images --prompts geneval2_data.jsonl --out "
        "answers.jsonl\n             --through server base_url=http://gpu7:8000/v1\n\n"
        "IMAGES is a folder NNNNN/metadata.jsonl with NNNNN/samples/*.png, a file of lines\n"
        '{"image": PATH, "prompt": TEXT}, or a JSON file {TEXT: PATH}. The same command goes on\n'
        "where it was interrupted; no answer is paid for twice.\n\n" + server_help(),
    )
    add = parser.add_argument
    add("images", type=Path, metavar="IMAGES", help="what is asked about")
    add("--prompts", type=Path, required=True, help="geneval2_data.jsonl of the benchmark")
    add_out_file(parser, words="answers, JSON lines")
    add("--model", default=JUDGE, help="transformers: folder or Hub id (default: %(default)s)")
    add_device(parser)
    add_rank_options(parser)
    add_options(parser)
    return parser
