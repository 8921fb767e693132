"""The command line of `staged eval judge-wise`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from eval.budget import stopped_by_budget
from eval.score_options import unscored_lines
from eval.wise.judge import default_settings, judge_folder, judge_name
from eval.wise.prompts import load_prompts
from eval.wise.versions import VERSIONS
from staged import settings as job_settings
from staged import strict_json
from staged.backends.lmm.kept import kept_answers
from staged.backends.lmm.settings import LmmSettings
from staged.command_line import Parser, add_out_file, add_overrides, amount, console, exit_codes
from staged.jobs.files import write_json_lines


@stopped_by_budget("raise --budget-usd")
def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval judge-wise`.

    Args:
        argv: Arguments after the command; the process's own when None.

    Returns:
        0 for success, 3 when the budget stopped it.

    Raises:
        ValueError: settings or prompts are not as they must be, the endpoint refuses us, or not
            one image could be judged.
        OSError: a file cannot be read or written.
    """
    arguments = _parser().parse_args(argv)
    version = VERSIONS[arguments.version]
    defaults = [f"{k}={strict_json.dumps(v)}" for k, v in default_settings(version).items()]
    settings = job_settings.load(LmmSettings, None, [*defaults, *arguments.overrides])
    prompts = load_prompts(arguments.prompts, version)
    with kept_answers(arguments.out, usd=arguments.budget_usd) as log:
        lines = judge_folder(arguments.images, prompts, version, settings, log)
    write_json_lines(arguments.out, lines)
    reasons = Counter(line["reason"] for line in lines if "reason" in line)
    for line in unscored_lines(reasons):
        print(line)
    print(f"{judge_name(settings)} judged {len(lines) - reasons.total()} of {len(lines)} images")
    console().figures({"images": len(lines), "unscored": dict(reasons)})
    print(f"wrote {arguments.out}; aggregate it with `staged eval wise --judgements`")
    if reasons.total() == len(lines):
        raise ValueError("not one image was judged; the lines above say why")
    return exit_codes.OK


def _parser() -> Parser:
    parser = Parser(
        prog="staged eval judge-wise",
        description="Judge a folder of images, named {prompt_id}.png or .jpg or .webp, for WISE.",
        figures=True,
        epilog="example: staged eval judge-wise images --version verified --prompts data "
        "--out judged.jsonl base_url=http://gpu7:8000/v1\n\n"
        "The same command goes on where it was interrupted; no answer is paid for twice.\n\n"
        "settings of the judge (by default the version's own):\n"
        + job_settings.describe(LmmSettings),
    )
    add = parser.add_argument
    add("images", type=Path, metavar="FOLDER", help="images, {prompt_id}.png")
    add("--version", choices=list(VERSIONS), required=True, help="the prompts that were drawn")
    add("--prompts", type=Path, required=True, help="folder of WISE's JSON files")
    add_out_file(parser, words="judgements, JSON lines")
    add("--budget-usd", type=amount, help="stop when so much is spent, earlier runs included")
    add_overrides(parser, words="settings of the judge")
    return parser
