"""`staged shapes`: measure the detector, look at what the tasks ask for, ship miniatures."""

from __future__ import annotations

import argparse
import html
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from staged.command_line import (
    Parser,
    Part,
    add_out_file,
    add_parts,
    add_seed,
    console,
    count,
    exit_codes,
    outputs,
    run,
    run_part,
)
from staged.data_urls import to_data_url
from staged.images import encode_png
from staged.jobs.files import write_whole
from staged.shapes.sight.detect import detect
from staged.shapes.sight.measure import CONDITIONS, MAX_OFFSET_PX, MIN_VISIBLE, Measurement, measure
from staged.shapes.sight.verdict import satisfied
from staged.shapes.tasks import (
    TASKS,
    Split,
    TaskPrompt,
    sample_prompts,
    sample_scene,
    suite_prompts,
)
from staged.shapes.world.render import render

_MAX_PER_TASK = 12_500
"""Of a list of prompts: those of all tasks are as many as other commands read."""
_SHIPPED = ("base", "staged")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one of the commands.

    Args:
        argv: Arguments without the program's name; None takes the process'.

    Returns:
        0 when all went well, 1 when the clean pictures miss the promised 99.5%.
    """
    parser = Parser(
        prog="staged shapes",
        description="Look at and measure the miniature world.",
        epilog="example: staged shapes measure-detector --num-scenes 500",
    )
    add_parts(parser, _PARTS)
    return run_part(parser, argv)


def _measure_options(parser: Parser) -> None:
    parser.add_argument("--num-scenes", type=count, default=2000, help="per condition")
    add_seed(parser, "of the scenes")
    add_out_file(parser, required=False, words="write the counts here, as JSON")
    words = "write the page with the table here"
    add_out_file(parser, name="--markdown", required=False, words=words)


def _preview_options(parser: Parser) -> None:
    add_out_file(parser, "shapes.html", words="page to write")
    _add_prompts(parser, num_per_task=8, split="train")
    add_seed(parser, "of prompts and pictures")


def _prompts_options(parser: Parser) -> None:
    add_out_file(parser, words="file of prompts")
    _add_prompts(parser, num_per_task=40, split="test")
    add_seed(parser, "of the prompts")


def _ship_options(parser: Parser) -> None:
    add = parser.add_argument
    add("run", type=Path, help="folder of a training run")
    add("name", choices=_SHIPPED, help="which one it is")
    add("--made-by", action="append", default=[], help="a command, in order")
    words = "result.json of an evaluation of it"
    add("--result", action="append", default=[], type=Path, metavar="FILE", help=words)
    add("--note", default="", help="what a reader of the record must know")


def _card_options(parser: Parser) -> None:
    parser.add_argument("name", choices=_SHIPPED, help="which one")
    add_out_file(parser, required=False, words="write it there instead of showing it")


def _add_prompts(parser: Parser, *, num_per_task: int, split: Split) -> None:
    add = parser.add_argument
    add("--num-per-task", type=count, default=num_per_task, help="prompts of each task")
    add("--split", choices=get_args(Split), default=split, help="of the prompts")


def _ship(options: argparse.Namespace) -> int:
    from staged.shapes.ship import ship

    folder = ship(
        options.run,
        options.name,
        commands=options.made_by,
        results=options.result,
        note=options.note,
    )
    print(folder)
    return exit_codes.OK


def _card(options: argparse.Namespace) -> int:
    from staged.shapes.card import card, read_record

    outputs.show(card(options.name, read_record(options.name)).rstrip("\n"), options.out)
    return exit_codes.OK


def _prompts(options: argparse.Namespace) -> int:
    if options.num_per_task > _MAX_PER_TASK:
        raise ValueError(
            f"--num-per-task {options.num_per_task}: give at most {_MAX_PER_TASK}; a file of more "
            "prompts than that of each task is too large for those who read it"
        )
    suite = suite_prompts(options.num_per_task, seed=options.seed, split=options.split)
    texts = [prompt.text for prompts in suite.values() for prompt in prompts]
    write_whole(options.out, "".join(f"{text}\n" for text in texts).encode())
    print(f"{options.out}: {len(texts)} prompts")
    return exit_codes.OK


def _measure(options: argparse.Namespace) -> int:
    results: list[Measurement] = []
    start = time.monotonic()
    for result in measure(options.num_scenes, options.seed):
        results.append(result)
        print(
            f"[{len(results)}/{len(CONDITIONS)}] {result.condition:18} "
            f"precision {result.precision:.2%}  recall {result.recall:.2%}  "
            f"({time.monotonic() - start:.0f} s)",
            file=sys.stderr,
        )
    print(table(results))
    record = {"seed": options.seed, "conditions": [result.as_json() for result in results]}
    console().figures(record)
    if options.out is not None:
        outputs.write_text(options.out, json.dumps(record, indent=1) + "\n")
    if options.markdown is not None:
        outputs.write_text(options.markdown, page(results, options.seed))
    clean = results[0]
    right = min(clean.precision, clean.recall) >= 0.995
    return exit_codes.OK if right else exit_codes.FAILED


def table(results: Sequence[Measurement]) -> str:
    """Set measurements as a Markdown table."""
    lines = [
        "| condition | scenes | objects | precision | recall | scenes all right |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.condition} | {r.num_scenes:,} | {r.num_objects:,} | {r.precision:.2%} "
        f"| {r.recall:.2%} | {r.num_scenes_right / r.num_scenes:.2%} |"
        for r in results
    ]
    return "\n".join(lines)


def page(results: Sequence[Measurement], seed: int) -> str:
    """Write the documentation page of the detector around a measurement."""
    num_scenes = results[0].num_scenes
    return f"""# The miniature world's detector

Every score in the miniature world is read from pixels by `staged.shapes.sight.detect`, so how often
the detector itself errs bounds what any score can mean. It is measured where the truth is known:

    staged shapes measure-detector --num-scenes {num_scenes} --seed {seed}

{table(results)}

- A detection is right when its class and colour are those of a shape whose centre lies within
  {MAX_OFFSET_PX:g} pixels of its own; each shape is found once. Precision is the share of
  detections that are right, recall the share of shapes that are found. "Scenes all right" have
  every shape found and nothing else reported.
- Scenes hold one to four shapes of random class, colour and size that do not touch. Overlapping
  scenes hold two or three shapes of different colours of which at least one hides a part of
  another; at least {MIN_VISIBLE:.0%} of every shape stays visible.
- Noise is Gaussian per channel in 8-bit steps, blur is Gaussian in pixels. JPEG halves the
  resolution of colour, which at 48 pixels smears every outline.

## How it sees

1. The background is the median of the greyish pixels. Noise is estimated from differences between
   neighbours; noisy images are smoothed before pixels are sorted by colour.
2. Every pixel goes to the nearest of the background and the ten colours. A connected region's
   colour is voted for by pixels in proportion to how close they come to it, so that rims, which
   are mixtures (black fades to grey through something like brown), have no say.
3. A region's coverage is compared with every class at both sizes and nine positions, by the
   Tanimoto coefficient (intersection over union for soft masks), which is the detection's score.
   Where nothing fits well, sizes in between are tried: generated shapes vary.
4. Regions that touch others, or fit nothing, are searched for shapes that hide one another:
   what others cover is not compared.

Regions of fewer than 14 pixels are specks and ignored; anything else is reported, under a low
score if it resembles no class. Clean renders read back exactly (`scene_from`), background
included.

## Where it errs

The circle and the hexagon differ by a few pixels: drawn at a size that is neither of the two
real ones, one can pass for the other. Shapes under 40% visible, and touching shapes of the same
colour that fit each other's outline, are not told apart.
"""


def _preview(options: argparse.Namespace) -> int:
    split = options.split
    rng = np.random.default_rng(options.seed)
    prompts = sample_prompts(options.num_per_task, rng, split=split)
    cards = [_figure(prompt, split, rng) for prompt in prompts]
    sections = "".join(
        f"<h2>{task}</h2><div>{''.join(card for name, card in cards if name == task)}</div>"
        for task in TASKS
    )
    outputs.write_text(
        options.out,
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Shapes, {split}</title><style>body{{font:15px system-ui;margin:1rem}}"
        "div{display:flex;flex-wrap:wrap;gap:1rem}figure{width:9rem;margin:0}"
        "img{width:9rem;image-rendering:pixelated}figcaption{font-size:.8rem}</style>"
        f"<h1>Shapes, {split}</h1>{sections}",
    )
    print(f"{len(cards)} prompts in {options.out}")
    return exit_codes.OK


def _figure(prompt: TaskPrompt, split: Split, rng: np.random.Generator) -> tuple[str, str]:
    """A task's name, and a figure with a satisfying picture and the detector's opinion of it."""
    picture = render(sample_scene(prompt.spec, rng, split))
    verdict = satisfied(prompt.spec, detect(picture))
    opinion = "right" if verdict.exact else "; ".join(verdict.reasons)
    text = html.escape(prompt.text)
    return prompt.task, (
        f"<figure><img alt='{text}' src='{to_data_url(encode_png(picture))}'>"
        f"<figcaption>{text}<br><small>{html.escape(opinion)}</small></figcaption></figure>"
    )


_PARTS = {
    "measure-detector": Part(
        help="precision and recall where the truth is known",
        epilog="example: staged shapes measure-detector --num-scenes 500",
        options=_measure_options,
        run=_measure,
    ),
    "preview": Part(
        help="prompts and pictures that satisfy them, as HTML",
        epilog="example: staged shapes preview --split test --out shapes.html",
        options=_preview_options,
        run=_preview,
        figures=False,
    ),
    "prompts": Part(
        help="the prompts of `staged eval miniature`, one a line",
        epilog="example: staged shapes prompts --out prompts.txt",
        options=_prompts_options,
        run=_prompts,
        figures=False,
    ),
    "ship": Part(
        help="put a trained miniature among the package's checkpoints",
        epilog="example: staged shapes ship runs/base base --result out/base/result.json "
        '--made-by "staged train configs/shapes/base.yaml"',
        options=_ship_options,
        run=_ship,
        figures=False,
    ),
    "card": Part(
        help="the model card of a shipped miniature: what it is for, how well it does, how made",
        epilog="example: staged shapes card staged",
        options=_card_options,
        run=_card,
        figures=False,
    ),
}


if __name__ == "__main__":
    sys.exit(run("staged shapes", main))
