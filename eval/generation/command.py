"""The command line of `staged eval generate`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from eval.budget import stopped_by_budget
from eval.generation.benchmark import Benchmark
from eval.generation.benchmarks import BENCHMARKS
from eval.generation.run import Done, generate
from eval.generation.samples import BenchmarkSample
from eval.generation.settings import ExistingSettings
from eval.generation.store import Store, begun_dtype
from eval.results import versions
from eval.search.best_of import SIDE_BY_SIDE, BestOf
from eval.search.options import add_search, search_of, verifier_help
from eval.search.settings import SearchSettings
from eval.search.verifiers.opening import open_verifier
from staged import settings as job_settings
from staged.backends.generators.generator import Generator
from staged.backends.generators.settings import EndpointSettings, PipelineSettings
from staged.backends.lmm.attempts import AttemptLog
from staged.command_line import (
    Parser,
    UsageError,
    add_out_folder,
    add_overrides,
    add_seed,
    console,
    count,
    count_or_auto,
    exit_codes,
)
from staged.generate.answers import player_answers
from staged.generate.settings import ModelSettings
from staged.jobs.rank import Rank, add_options, rank_of


@dataclass(frozen=True, kw_only=True)
class GeneratorKind:
    """A kind of generator.

    Attributes:
        settings: Its settings class.
        words: What it is, for `--help`.
        batch: Images side by side unless said otherwise, at most; None where there is no such
            choice.
    """

    settings: type[Any]
    words: str
    batch: int | None = None


KINDS = {
    "model": GeneratorKind(settings=ModelSettings, words="a checkpoint of ours", batch=16),
    "diffusers": GeneratorKind(
        settings=PipelineSettings, words="any pipeline of diffusers", batch=1
    ),
    "endpoint": GeneratorKind(
        settings=EndpointSettings, words="any OpenAI-compatible images service"
    ),
    "folder": GeneratorKind(settings=ExistingSettings, words="images made elsewhere"),
}

_EXAMPLES = """examples:
  staged eval generate --benchmark geneval --out out/images \\
      --generator model checkpoint=ByteDance-Seed/BAGEL-7B-MoT
  staged eval generate --benchmark wise-verified --prompts data --out out/images \\
      --generator endpoint model=gpt-image-1 base_url=https://api.openai.com/v1 \\
      api_key_env=OPENAI_API_KEY seed_field=null response_format=null
  staged eval generate --benchmark geneval --out out/images \\
      --generator folder images=flat "pattern={prompt:05}_{image}.png"
  staged eval generate --benchmark geneval --out out/best_of_4 --best-of 4 \\
      --verifier pickscore --generator model checkpoint=ByteDance-Seed/BAGEL-7B-MoT

The same command goes on where it was interrupted, and tries again what failed on the way; a larger
--images-per-prompt adds to what is there. To share the work, start a process for each GPU with
`torchrun --nproc-per-node 8 -m staged eval generate ...`, give each --rank and --world-size, or
let a Ray cluster do it: `staged eval on-ray 8 generate ...`. On devices of one kind, the images are
the same bytes each way."""


@stopped_by_budget("raise it")
def main(argv: Sequence[str] | None = None) -> int:
    """Run `staged eval generate`.

    Args:
        argv: Arguments after `staged eval generate`; the process's own when None.

    Returns:
        0; or 1 where all was tried, samples have no image, and that was not allowed; 3 when the
        budget of a language model stopped it.

    Raises:
        ValueError: prompts, settings or the folder are not as they must be, or nothing was drawn.
        OSError: a file cannot be read or written.
    """
    options = _parser().parse_args(sys.argv[1:] if argv is None else argv)
    kind = KINDS[options.generator]
    rank = rank_of(options.rank, options.world_size)
    if kind.batch is None and options.batch_size is not None:
        raise UsageError(f"--batch-size: --generator {options.generator} draws each image alone")
    settings = job_settings.load(kind.settings, None, options.overrides)
    search = search_of(options)
    benchmark = BENCHMARKS[options.benchmark](options.prompts)
    if search and search.verifier.kind == "detector" and benchmark.geneval is None:
        raise ValueError(
            f"verifier detector: {benchmark.name} does not say what objects its prompts ask for; "
            "choose another kind"
        )
    samples = benchmark.samples(images_per_prompt=options.images_per_prompt, seed=options.seed)
    if isinstance(settings, ModelSettings | PipelineSettings):
        from staged.devices import settle

        settings = settle(settings, begun=begun_dtype(options.out))
    done = _drawn(options, settings, search, benchmark, samples, rank)
    console().figures(done.figures())
    if done.unscored is None:
        # Not a failure: torchrun would end the others.
        return exit_codes.OK
    print(f"look at them with `{benchmark.next_step.format(out=options.out)}`")
    if not done.unscored:
        return exit_codes.OK
    if done.unscored == len(samples):
        raise ValueError(
            "there is no image of any sample, the lines above say why; the same command tries "
            "again what may yet succeed"
        )
    print(
        f"{done.unscored} samples have no image and will be unscored; the same command tries again "
        "what may yet succeed, --allow-unscored accepts it",
        file=sys.stderr,
    )
    return exit_codes.OK if options.allow_unscored else exit_codes.FAILED


def _drawn(
    options: argparse.Namespace,
    settings: Any,
    search: SearchSettings | None,
    benchmark: Benchmark,
    samples: Sequence[BenchmarkSample],
    rank: Rank,
) -> Done:
    """Draw this process's share into the folder, and tell what came of it."""
    batch = options.batch_size or KINDS[options.generator].batch or 1
    with ExitStack() as stack:
        log = None
        if isinstance(settings, ModelSettings):
            log = stack.enter_context(player_answers(settings, options.out, rank=rank))
        prompts = [sample.prompt for sample in samples]
        generator = open_generator(settings, prompts, options.batch_size, log)
        benchmark.prepare(options.out)
        if search is not None:
            verifier = stack.enter_context(
                open_verifier(
                    search.verifier, folder=options.out, rank=rank, geneval=benchmark.geneval
                )
            )
            together = max(batch, SIDE_BY_SIDE) if generator.alone else batch
            generator = BestOf(generator, verifier, search, batch=together)
        store = stack.enter_context(Store(options.out, rank))
        unit = 1 if generator.alone else batch
        store.claim(
            {
                "benchmark": benchmark.name,
                "prompts": f"{benchmark.variant} {benchmark.sha256[:12]}",
                "seed": options.seed,
                "generator": options.generator,
                **({} if generator.alone else {"batch": batch}),
                **generator.identity(),
            },
            {
                "name": generator.name,
                "settings": job_settings.to_dict(settings),
                **({} if search is None else {"search": job_settings.to_dict(search)}),
                "versions": versions(),
            },
        )
        done = generate(samples, generator, store, batch=unit, rank=rank)
    _print(done, rank, generator.name)
    return done


def open_generator(
    settings: Any,
    prompts: Sequence[str],
    batch_size: int | None = None,
    log: AttemptLog | None = None,
) -> Generator[BenchmarkSample]:
    """Open the generator that some settings are of.

    Args:
        settings: Of one of `KINDS`.
        prompts: What it is to draw.
        batch_size: Images side by side; None for as many as memory has room for.
        log: Where the answers of a language model are kept that plays a role.

    Raises:
        ValueError: they cannot be followed, or a prompt is beyond the generator.
    """
    # What a generator needs is imported with it: torch, diffusers, httpx.
    if isinstance(settings, ModelSettings):
        from eval.generation.model import CheckpointGenerator

        model = CheckpointGenerator(
            settings, batch_size=batch_size, most=KINDS["model"].batch or 1, log=log
        )
        model.understood(prompts)
        return model
    if isinstance(settings, PipelineSettings):
        from staged.backends.generators.pipeline import Pipeline

        return Pipeline(settings)
    if isinstance(settings, EndpointSettings):
        from staged.backends.generators.endpoint import Endpoint

        return Endpoint(settings)
    from eval.generation.existing import Existing

    return Existing(settings)


def _print(done: Done, rank: Rank, name: str) -> None:
    spent = f" for {done.usd:.2f} USD" if done.usd else ""
    print(rank.label(f"{name}: drew {done.drawn} images{spent}, {done.there} were there"))
    for reason, number in done.failures.most_common():
        print(f"no image: {number}, {reason} (such as: {done.examples[reason][:200]})")
    if done.unscored is None:
        print("other processes have not tried all of theirs yet")


def _parser() -> Parser:
    tables = "\n\n".join(
        f"settings of --generator {name}, {kind.words}:\n{job_settings.describe(kind.settings)}"
        for name, kind in KINDS.items()
    )
    parser = Parser(
        prog="staged eval generate",
        description="Draw a benchmark's prompts into the folder that its scorer reads.",
        figures=True,
        epilog=f"{tables}\n\n{verifier_help()}\n\n{_EXAMPLES}",
    )
    add = parser.add_argument
    add("--benchmark", choices=list(BENCHMARKS), required=True, help="whose prompts")
    add(
        "--prompts",
        metavar="PATH",
        help="GenEval: its metadata file (default: fetched, and checked); GenEval 2: its data "
        "file; WISE: the folder of its JSON files",
    )
    add_out_folder(parser, words="folder of images, in the benchmark's layout")
    add("--generator", choices=list(KINDS), required=True, help="who draws them")
    add(
        "--images-per-prompt",
        type=count,
        metavar="N",
        help="default: what the benchmark's rules want (GenEval 4, others 1)",
    )
    add_seed(parser, "of the noise, with prompt and image")
    add(
        "--batch-size",
        type=count_or_auto,
        metavar="N",
        help="images side by side; default: auto, which is of a model as many as memory has room "
        f"for, at most {KINDS['model'].batch}, and of diffusers {KINDS['diffusers'].batch}",
    )
    add_search(parser)
    add_options(parser)
    add("--allow-unscored", action="store_true", help="exit 0 even if samples have no image")
    add_overrides(parser, words="settings of the generator")
    return parser
