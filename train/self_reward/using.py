"""Commands that use or measure what a run of `staged self-reward` left."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from staged import settings as job_settings
from staged.command_line import (
    UsageError,
    add_device,
    add_out_file,
    add_out_folder,
    console,
    count,
    exit_codes,
    natural,
)
from staged.generate.requests import check_prompt, read_prompts
from staged.jobs.budget import BudgetError
from staged.jobs.files import write_whole
from staged.jobs.progress import Progress
from train.self_reward.settings import SelfRewardSettings, VlmSettings

if TYPE_CHECKING:
    from train.self_reward.vlm import LocalVlm

PROG: Final = "staged self-reward"


def add_using(parts: Any) -> None:
    """Add the commands to a parser's parts."""
    _add_optimise(parts)
    part = parts.add_parser(
        "draw",
        help="draw prompts as they are and as each model of a run rewrites them",
        epilog=f"example: {PROG} draw --run out/self_reward --prompts out/school/held_out.txt "
        "--out out/drawn\n         staged eval rewards --images out/drawn/original.jsonl "
        "out/drawn/dpo2.jsonl\n             --reward detector --out out/scores\n\n"
        "A line is a file NAME.jsonl; all are drawn with the same noise. The same command goes on "
        "where it was\ninterrupted, and adds the lines of models that were trained since.",
        figures=True,
    )
    part.set_defaults(run=_draw)
    _add_run(part)
    part.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="one a line")
    add_out_folder(part, words="folder for lines and pictures")
    part.add_argument(
        "--iterations",
        type=natural,
        nargs="+",
        metavar="N",
        help="whose models, 0 for the first stage's; default: all that are there",
    )
    part.add_argument(
        "--images-per-prompt", type=count, default=1, metavar="N", help="with different noise"
    )
    _add_writing(part)
    part = parts.add_parser(
        "chosen",
        help="lines of what a judge would choose among some of its iteration's rewrites",
        epilog=f"example: {PROG} chosen --run out/self_reward --iteration 1 --among 2 4 8 "
        "--out out/chosen\n\nNothing is drawn or asked: it reads what `rollout` and `judge` left. "
        "Where no rewrite passes the gate\nthe original stays.",
        figures=True,
    )
    part.set_defaults(run=_chosen)
    _add_run(part)
    part.add_argument("--iteration", type=count, default=1, metavar="N", help="which one, from 1")
    part.add_argument(
        "--among",
        type=count,
        nargs="+",
        metavar="N",
        help="how many rewrites; default: 2, 4, 8, as far as the run has so many",
    )
    add_out_folder(part, words="folder for lines")
    part = parts.add_parser(
        "prefer",
        help="let a model of a run judge pairs of pictures of which one is known to be preferred",
        epilog=f"example: {PROG} prefer out/school/pairs.jsonl --run out/self_reward --iteration 0 "
        "--out out/preferred/sft\n         staged eval judge-accuracy "
        "out/preferred/sft/preferred.jsonl --out out/accuracy\n\n"
        "The same command goes on where it was interrupted.",
        figures=True,
    )
    part.set_defaults(run=_prefer)
    part.add_argument(
        "pairs", type=Path, help="file of pairs, as `import pick-a-pic` or `miniature` writes it"
    )
    _add_run(part)
    part.add_argument("--iteration", type=natural, metavar="N", help="its model; default: newest")
    part.add_argument("--limit", type=count, metavar="N", help="first so many pairs")
    add_out_folder(part, words="folder for what it says")
    add_device(part)


def _add_optimise(parts: Any) -> None:
    part = parts.add_parser(
        "optimise",
        help="write a better prompt",
        epilog=f'example: {PROG} optimise "something red next to a star" --run out/self_reward\n\n'
        "With --prompts the same command goes on where it was interrupted.",
        figures=True,
    )
    part.set_defaults(run=_optimise)
    part.add_argument("prompt", nargs="?", metavar="PROMPT", help="what is wanted")
    part.add_argument("--prompts", type=Path, metavar="FILE", help="many prompts, one a line")
    add_out_file(part, words="file for their rewrites, one a line", required=False)
    part.add_argument(
        "--keep-unwritten",
        action="store_true",
        help="with --prompts: a prompt for which none came stays as it is; without it that is an "
        "error",
    )
    _add_run(part, required=False)
    part.add_argument("--iteration", type=natural, metavar="N", help="another model; 0 is sft's")
    part.add_argument("--model", metavar="MODEL", help="folder or Hub id of a model instead")
    part.add_argument(
        "--wording", choices=("full", "terse"), default="full", help="how --model was taught"
    )
    part.add_argument("--num-beams", type=count, metavar="N", help="default: what the run says, 4")
    _add_writing(part)


def _add_run(part: argparse.ArgumentParser, *, required: bool = True) -> None:
    part.add_argument(
        "--run",
        dest="run_folder",
        type=Path,
        required=required,
        metavar="FOLDER",
        help="what `run` left",
    )


def _add_writing(part: argparse.ArgumentParser) -> None:
    part.add_argument("--max-new-tokens", type=count, default=256, help="of a prompt, at most")
    add_device(part)


def _optimise(options: argparse.Namespace) -> int:
    if (options.prompt is None) == (options.prompts is None):
        raise UsageError("give one prompt, or --prompts FILE with --out FILE for many")
    if (options.prompts is None) != (options.out is None):
        raise UsageError("--prompts FILE and --out FILE belong together: give both or none")
    if (options.run_folder is None) == (options.model is None):
        raise UsageError("give --run FOLDER, or --model FOLDER of one model")
    if options.prompts is None:
        return _optimise_one(options, check_prompt(options.prompt.strip(), "the prompt"))
    if options.out.exists() and options.out.samefile(options.prompts):
        raise UsageError(f"--out {options.out} is the file of prompts; name another one")
    prompts = read_prompts(options.prompts)
    vlm, source, beams = _asked_model(options)
    from staged.jobs.ledger import Ledger, unit_key
    from train.self_reward.asking import WORDINGS
    from train.self_reward.rewriting import kept_rewrites

    progress = Progress("prompts", len(prompts))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    kept = options.out.with_name(f"{options.out.name}.kept")
    with Ledger(kept, fingerprint=unit_key("optimise")) as ledger:
        written = kept_rewrites(
            ledger,
            _open(source, vlm),
            WORDINGS[vlm.wording],
            prompts,
            num_beams=beams,
            max_new_tokens=options.max_new_tokens,
            done=progress.advance,
        )
    progress.close()
    console().figures({"prompts": dict(zip(prompts, written, strict=True))})
    failed = [prompt for prompt, text in zip(prompts, written, strict=True) if text is None]
    _tell_failed(failed)
    if failed and not options.keep_unwritten:
        print("--keep-unwritten leaves such prompts as they are", file=sys.stderr)
        return exit_codes.FAILED
    lines = [text or prompt for prompt, text in zip(prompts, written, strict=True)]
    write_whole(options.out, "".join(f"{line}\n" for line in lines).encode())
    shutil.rmtree(kept)
    same = f"; {len(failed)} of them are as they were asked" if failed else ""
    print(f"{options.out}: {len(lines)} prompts, in the order of {options.prompts}{same}")
    return exit_codes.OK


def _optimise_one(options: argparse.Namespace, prompt: str) -> int:
    vlm, source, beams = _asked_model(options)
    from train.self_reward.asking import WORDINGS, read_rewrite
    from train.self_reward.vlm import Asked

    asked = Asked(question=WORDINGS[vlm.wording].rewrite(prompt))
    said = _open(source, vlm).likeliest(
        asked, num_beams=beams, max_new_tokens=options.max_new_tokens
    )
    text = None if said is None else read_rewrite(said)
    console().figures({"prompts": {prompt: text}})
    if text is None:
        _tell_failed([prompt])
        return exit_codes.FAILED
    print(text)
    return exit_codes.OK


def _tell_failed(prompts: list[str]) -> None:
    for prompt in prompts[:5]:
        print(f"no prompt came for {prompt!r:.80}: empty, or cut off", file=sys.stderr)
    if len(prompts) > 5:
        print(f"nor for {len(prompts) - 5} others", file=sys.stderr)


def _draw(options: argparse.Namespace) -> int:
    prompts = list(dict.fromkeys(read_prompts(options.prompts)))
    settings = _settings(options.run_folder)
    from train.self_reward.job import models_of

    there = models_of(options.run_folder, settings)
    wanted = options.iterations or sorted(there)
    if missing := [number for number in wanted if number not in there]:
        raise ValueError(
            f"{options.run_folder} holds no model of iteration {missing[0]}; there are those of "
            f"{', '.join(map(str, sorted(there))) or 'none'}"
        )
    from staged.idea2img.image_models import open_image_model
    from train.self_reward.asking import WORDINGS
    from train.self_reward.lines import draw_lines, line_of

    vlm = replace(settings.vlm, device=options.device)

    def tell(line: str, number: int) -> Callable[[], None]:
        return Progress(line, number, unit="images/s").advance

    try:
        found = draw_lines(
            settings,
            {line_of(number, settings): there[number] for number in wanted},
            prompts,
            options.out,
            images_per_prompt=options.images_per_prompt,
            max_new_tokens=options.max_new_tokens,
            wording=WORDINGS[vlm.wording],
            model=open_image_model(settings.image_model),
            open_writer=lambda source: _open(source, vlm),
            tell=tell,
        )
    except BudgetError as stop:
        return _stopped(stop)
    return _lines_told(found, options.out)


def _chosen(options: argparse.Namespace) -> int:
    settings = _settings(options.run_folder)
    most = settings.num_candidates
    among = list(dict.fromkeys(options.among or [n for n in (2, 4, 8) if n <= most]))
    if max(among) > most:
        raise UsageError(f"--among {max(among)}: the run has {most} rewrites of a prompt at most")
    from train.self_reward.lines import chosen_lines

    return _lines_told(
        chosen_lines(settings, options.run_folder / str(options.iteration), among, options.out),
        options.out,
    )


def _prefer(options: argparse.Namespace) -> int:
    from train.self_reward.preferences import read_pairs

    pairs = read_pairs(options.pairs)[: options.limit]
    settings = _settings(options.run_folder)
    from train.self_reward.asking import WORDINGS
    from train.self_reward.job import newest_model
    from train.self_reward.preferring import PREFERRED, prefer

    source = newest_model(options.run_folder, settings, options.iteration)
    vlm = replace(settings.vlm, device=options.device)
    progress = Progress("pairs", len(pairs))
    try:
        whole = prefer(
            settings,
            _open(source, vlm),
            pairs,
            options.out,
            wording=WORDINGS[vlm.wording],
            done=progress.advance,
        )
    except BudgetError as stop:
        return _stopped(stop)
    progress.close()
    print(f"{options.out / PREFERRED}: {len(pairs)} pairs, {whole} with scores under every rubric")
    console().figures({"pairs": len(pairs), "scored": whole})
    return exit_codes.OK


def _stopped(stop: BudgetError) -> int:
    print(f"stopped: {stop}; raise it in the run's settings", file=sys.stderr)
    return exit_codes.STOPPED


def _lines_told(found: Mapping[str, Mapping[str, int]], folder: Path) -> int:
    for line, counts in found.items():
        said = ", ".join(f"{number} {what}" for what, number in counts.items())
        print(f"{folder / f'{line}.jsonl'}: {said}")
    console().figures(dict(found))
    return exit_codes.OK


def _settings(run: Path) -> SelfRewardSettings:
    """Settings of a run, wherever its folder lies now."""
    from train.self_reward.job import SETTINGS

    path = run / SETTINGS
    if not path.is_file():
        raise ValueError(f"{run} holds no run: there is no {path}")
    return job_settings.load(SelfRewardSettings, path)


def _asked_model(options: argparse.Namespace) -> tuple[VlmSettings, str, int]:
    """How the model is asked, which it is, and how many beams it has."""
    plain: Any = SelfRewardSettings.__dataclass_fields__["num_beams"].default
    if options.model is not None:
        vlm = VlmSettings(model=options.model, wording=options.wording, device=options.device)
        return vlm, options.model, options.num_beams or plain
    settings = _settings(options.run_folder)
    from train.self_reward.job import newest_model

    source = newest_model(options.run_folder, settings, options.iteration)
    vlm = replace(settings.vlm, device=options.device)
    return vlm, source, options.num_beams or settings.num_beams


def _open(source: str, vlm: VlmSettings) -> LocalVlm:
    from train.self_reward.vlm import LocalVlm

    return LocalVlm(source, vlm)
