"""Verification cards of the shipped trainings, in docs/recipes: what each takes, what is known.

    python benchmarks/recipes.py

Numbers are the planner's (`staged train CONFIG --plan`) and those of measured runs in
benchmarks/results; words are the settings files' own. Needs no weights, data or device.
"""

import argparse
import io
import json
import re
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # from a bare checkout
from benchmarks.parts import reinforcement_card
from staged.settings import load
from train.forecast import PUBLISHED, Machine, config_of, forecast, tell
from train.gpus import GPUS
from train.reinforce.settings import ReinforceSettings
from train.settings import TrainSettings

ROOT = Path(__file__).resolve().parents[1]
CARDS = ROOT / "docs/recipes"
_RESULTS = ROOT / "benchmarks/results"
_RECORDS = ROOT / "staged/shapes/checkpoints"
_MIB = 2**20
_UTILIZATION = 0.3
_OTHER_MACHINES = ((1, "h100"), (1, "h200"), (2, "h100"), (8, "h100"), (16, "h100"), (64, "h100"))
_MACHINE = 8
"""Devices of one of several machines."""

FULL_SIZE = tuple(
    f"bagel_7b/{name}"
    for name in (
        *("plan_sketch", "inspect", "refine", "joint"),
        *("plan_sketch_gen", "refine_gen"),
        *("plan_sketch_lora", "inspect_lora", "refine_lora", "joint_lora"),
    )
)
MINIATURES = {
    "shapes/demo_train": None,
    "shapes/base": "base",
    "shapes/singles": "base",
    "shapes/finish": "base",
    "shapes/edits": "base",
    "shapes/plan_sketch": "staged",
}
"""Trainings of the miniature world, and the shipped checkpoint that each has a part in."""
REINFORCEMENTS: dict[str, Path | None] = {
    "bagel_7b/reinforce_lora": None,
    "shapes/reinforce": _RESULTS / "2026-11-28-reinforce.json",
}
"""Reinforcements, and what a run of each has left."""
MEASURED = {"shapes/demo_train": _RESULTS / "2026-11-27-demo-train.json"}


@dataclass(frozen=True)
class Recipe:
    """A shipped training.

    Attributes:
        name: Of its settings file, under configs/.
        settings: What it says.
        words: Its first comment, without the lines that are for machines.
        ranks: Of the machine that it is for.
        gpu: The same, as the planner names it; None for a CPU.
    """

    name: str
    settings: TrainSettings
    words: str
    ranks: int
    gpu: str | None

    @classmethod
    def read(cls, name: str) -> "Recipe":
        """Read a shipped settings file."""
        path = ROOT / f"configs/{name}.yaml"
        return cls(name, load(TrainSettings, path), *_first_comment(path.read_text()))

    @property
    def config(self) -> str:
        """Its settings file, as one names it."""
        return f"configs/{self.name}.yaml"

    def command(self, ranks: int) -> str:
        """What starts it on a machine of so many devices."""
        if ranks == 1:
            return f"staged train {self.config}"
        return f"torchrun --nproc-per-node {ranks} -m train {self.config}"


def file_of(name: str) -> str:
    """Name of the card of a settings file."""
    return f"{name.replace('/', '_')}.md"


def _first_comment(text: str) -> tuple[str, int, str | None]:
    """What a settings file says of itself, and the devices that it is for."""
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    machine = re.search(r"^# machine: (\d+) x (\S+)$", text, re.M)
    words = " ".join(line for line in comment if not line.startswith("machine:"))
    # What follows says where to look for what this page says.
    words = re.sub(r" (`staged train|Needs:).*", "", words)
    ranks, gpu = (int(machine[1]), machine[2]) if machine else (1, None)
    return words.strip(), ranks, gpu


def card(name: str) -> str:
    """Text of the card of a training or a reinforcement."""
    if name in REINFORCEMENTS:
        return _reinforcement(name)
    recipe = Recipe.read(name)
    return _miniature(recipe) if name in MINIATURES else _full_size(recipe)


def index() -> str:
    """Text of the page before them."""
    full = [Recipe.read(name) for name in FULL_SIZE]
    small = [Recipe.read(name) for name in MINIATURES]
    rewarded = ", ".join(f"[{name}]({file_of(name)})" for name in REINFORCEMENTS)
    rows = []
    for recipe in full:
        assert recipe.gpu is not None
        found = forecast(recipe.settings, config_of(recipe.settings.init), recipe.ranks)
        hours = recipe.settings.num_steps * found.step_s(GPUS[recipe.gpu], _UTILIZATION) / 3600
        rows.append(
            f"| [{recipe.name}]({file_of(recipe.name)}) | {recipe.ranks} x {recipe.gpu} | "
            f"{found.total / 2**30:.0f} of {GPUS[recipe.gpu].memory / 2**30:.0f} | {hours:.0f} |"
        )
    names = ", ".join(f"[{recipe.name}]({file_of(recipe.name)})" for recipe in small)
    return f"""# Verification cards

For each training and reinforcement that ships: its exact command, what it takes, what has been
verified and what has not. `python benchmarks/recipes.py` writes these pages from the settings
files, the planner and measured runs, and a test requires them to be what it writes.

**No training of full size has been run.** Memory is counted, not measured, and hours assume that a
step reaches {_UTILIZATION:.0%} of the device's rate.

| BAGEL-7B | machine | GiB a rank, of | hours |
|---|---|---|---|
{chr(10).join(rows)}

In miniature, on a CPU: {names}.

Reinforcement, in both sizes: {rewarded}.
"""


def _full_size(recipe: Recipe) -> str:
    settings, ranks = recipe.settings, recipe.ranks
    assert recipe.gpu is not None
    plan = f"staged train {recipe.config} --plan --gpu {recipe.gpu} --ranks {ranks}"
    sections = [
        f"{_head(recipe)}\n\n## Run\n\n```sh\n{recipe.command(ranks)}\n```\n\n"
        "[Data, weights, held-out losses](../real-model.md#training); "
        "[several machines](../launch.md#many-machines).",
        f"## What it takes\n\n```sh\n{plan}\n```\n\n```text\n{_plan(recipe, ranks)}```",
    ]
    sections.append(_other_machines(recipe))
    sections.append(
        "## Expected losses\n\nNone are known: the published run names none, and ours has not "
        "been made. `validation/ce` and `validation/mse` before the first step are those of the "
        "published weights on your data; what the recipe trains should fall."
    )
    kind = "the LoRA" if settings.lora is not None else "what is trained"
    sections.append(
        "## Verified, and not\n\n| | |\n|---|---|\n"
        "| `make test` | the settings are read; the same job takes two steps on a tiny model "
        "and writes its result (`tests/test_train_configs.py`); the count of this page fits the "
        "machine |\n"
        "| `make test-slow`, on CPUs and gloo | one process against several, kills, resume, "
        f"{kind} exported and loaded again (`tests/test_train_*.py`, `tests/test_lora.py`) |\n"
        "| never | this recipe at full size: memory, speed, losses, scores; NCCL; more than one "
        "machine |"
    )
    return "\n\n".join(sections) + "\n"


def _miniature(recipe: Recipe) -> str:
    parts = forecast(recipe.settings, config_of("miniature:base")).parts
    kept = sum(size for name, size in parts.items() if name not in ("activations", "words"))
    passing = parts["activations"] + parts["words"]
    sections = [
        f"{_head(recipe)}\n\n## Run\n\n```sh\n{recipe.command(1)}\n```",
        f"## What it takes\n\n{kept / _MIB:.0f} MiB of weights, gradients, moments and average, "
        f"and up to {passing / _MIB:.0f} MiB of activations (twice that in float32), counted by "
        "the planner; libraries and data come on top.",
        _measured(MEASURED[recipe.name]) if recipe.name in MEASURED else _not_measured(),
        _verified(recipe),
    ]
    return "\n\n".join(sections) + "\n"


def _reinforcement(name: str) -> str:
    path, record = ROOT / f"configs/{name}.yaml", REINFORCEMENTS[name]
    settings, text = load(ReinforceSettings, path), path.read_text()
    words, ranks, gpu = _first_comment(text)
    config = config_of(PUBLISHED if gpu else settings.init)
    before = reinforcement_card.needs(text)
    command = f"{before}\nstaged reinforce configs/{name}.yaml".lstrip()
    if gpu:
        takes = reinforcement_card.full_size(settings, config, gpu, _UTILIZATION)
    else:
        parts = reinforcement_card.learning(settings, config).parts
        takes = (
            f"{sum(parts.values()) / _MIB:.0f} MiB while it learns (up to twice that in float32), "
            "counted by the planner; libraries, and caches while it draws, come on top."
        )
    sections = [
        f"# configs/{name}.yaml\n\n{words}\n\n| | |\n|---|---|\n"
        f"| machine | {f'{ranks} x {gpu}' if gpu else 'a CPU'} |\n"
        + reinforcement_card.what_it_is(settings),
        f"## Run\n\n```sh\n{command}\n```\n\n"
        "[An iteration, what to watch, several devices](../reinforce.md).",
        f"## What it takes\n\n{takes}",
        "## Expected rewards and losses\n\n"
        + (reinforcement_card.measured(record) if record else "None are known: it was never run."),
        "## Verified, and not\n\n| | |\n|---|---|\n"
        "| `make test` | the settings are read; the same job makes an iteration of two rollouts "
        "from the miniature, another scorer in place of a detector with weights of its own, and "
        "writes its result (`tests/test_train_configs.py`); an iteration that is killed, resume, "
        "ranks (`tests/test_reinforce*.py`) |\n"
        + (
            "| never | this recipe at full size: memory, speed, rewards, scores; the detector as "
            "its grader; more than one device |"
            if gpu
            else "| never | recorded to its last iteration; whether its result draws better |"
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _measured(path: Path) -> str:
    """The held-out losses that a run left."""
    run = json.loads(path.read_text())
    lines = [line for line in run["log"] if "validation/loss" in line]
    rows = "\n".join(
        f"| {line['step']} | {line['validation/loss']:.3f} | {line['validation/ce']:.3f} | "
        f"{line['validation/mse']:.3f} |"
        for line in lines
    )
    return (
        "## Expected losses\n\nHeld out, by the averaged weights, in the first of its steps "
        f"({run['date']}, {run['machine']}, torch {run['torch']}):\n\n"
        f"| step | loss | ce, nats | mse |\n|---|---|---|---|\n{rows}\n\n"
        f"```sh\n{run['commands']}\n```"
    )


def _not_measured() -> str:
    return "## Expected losses\n\nNot recorded; what the shipped checkpoint scores is."


def _verified(recipe: Recipe) -> str:
    rows = [
        "| `make test` | the settings are read; the same job takes two steps on a tiny model "
        "and writes its result (`tests/test_train_configs.py`) |"
    ]
    if (shipped := MINIATURES[recipe.name]) is not None:
        record = json.loads((_RECORDS / shipped / "record.json").read_text())
        [*_, result] = record["results"]
        rows.append(
            f"| {record['date']}, torch {record['torch']} | the commands of "
            f"[the miniature](../miniature.md), this one among them, made `miniature:{shipped}`, "
            f"which draws {result['overall']:.0%} of {result['n']} held-out prompts right "
            f"(`staged shapes card {shipped}`). {record['note']} |"
        )
        rows.append("| never | made again from nothing and compared |")
    else:
        rows.append("| `make test` | a short demo, this training in it (`tests/test_demo.py`) |")
    return "## Verified, and not\n\n| | |\n|---|---|\n" + "\n".join(rows)


def _head(recipe: Recipe) -> str:
    settings = recipe.settings
    data = ", ".join(f"`{subset.path}`" for subset in settings.data)
    optimizer = settings.optimizer
    tokens = settings.pack_tokens * settings.packs_per_step
    return f"""# {recipe.config}

{recipe.words}

| | |
|---|---|
| machine | {f"{recipe.ranks} x {recipe.gpu}" if recipe.gpu else "a CPU"} |
| begins with | `{settings.init}` |
| data | {data} |
| steps | {settings.num_steps:,} of at most {tokens:,} tokens |
| optimizer | {optimizer.kind}, peak rate {optimizer.lr:g}, {optimizer.warmup_steps} steps of \
warm-up, {optimizer.schedule} to {optimizer.min_lr_ratio:g} of it, states {optimizer.states} |
| result | `{settings.out}/{"adapter" if settings.lora is not None else "checkpoint"}` |"""


def _other_machines(recipe: Recipe) -> str:
    """What the same settings take elsewhere, with the overrides that give every rank work."""
    rows, fitting = [], ""
    for ranks, gpu in _OTHER_MACHINES:
        if (ranks, gpu) == (recipe.ranks, recipe.gpu):
            continue
        changes = []
        if recipe.settings.packs_per_step < ranks:
            changes.append(f"packs_per_step={ranks}")
        if ranks > _MACHINE:
            changes.append(f"parallel.replicas={ranks // _MACHINE}")
        settings = load(TrainSettings, ROOT / recipe.config, changes)
        found = forecast(settings, config_of(settings.init), ranks)
        memory, step_s = GPUS[gpu].memory, found.step_s(GPUS[gpu], _UTILIZATION)
        fits = found.total <= memory
        if fits and ranks == _MACHINE and gpu == "h100":
            fitting = f"{recipe.command(ranks)} {' '.join(changes)}".rstrip()
        time = f"{step_s:.1f} | {settings.num_steps * step_s / 3600:.0f}" if fits else "- | -"
        rows.append(
            f"| {ranks} x {gpu} | {f'`{chr(32).join(changes)}`' if changes else 'none'} | "
            f"{found.total / 2**30:.0f} of {memory / 2**30:.0f}{'' if fits else ', does not fit'} "
            f"| {time} |"
        )
    tokens = recipe.settings.pack_tokens
    text = (
        "## On other machines\n\nBy the planner, with `--gpu`, `--ranks` and these overrides. A "
        f"step has as many packs of {tokens:,} tokens as `packs_per_step` says, and as many steps "
        "as above: more packs learn from more data, at a rate that nobody has tuned for them. What "
        "devices send one another takes time that is not counted. "
        f"Several machines have {_MACHINE} each: `packs_per_step={_MACHINE}N "
        "parallel.replicas=N` on N of them.\n\n"
        "| devices | overrides | GiB a rank, of | s a step | hours |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
    )
    return f"{text}\n\n```sh\n{fitting}\n```" if fitting and recipe.ranks == 1 else text


def _plan(recipe: Recipe, ranks: int) -> str:
    assert recipe.gpu is not None
    settings = load(TrainSettings, ROOT / recipe.config)
    machine = Machine(
        name=recipe.gpu,
        gpu=GPUS[recipe.gpu],
        ranks=ranks,
        utilization=_UTILIZATION,
        usd_per_gpu_hour=None,
    )
    with redirect_stdout(io.StringIO()) as printed:
        tell(settings, machine)
    return printed.getvalue()


def main(argv: list[str]) -> int:
    """Write the cards."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args(argv)
    CARDS.mkdir(exist_ok=True)
    pages = {file_of(name): card(name) for name in (*FULL_SIZE, *MINIATURES, *REINFORCEMENTS)}
    pages["README.md"] = index()
    for stale in {path.name for path in CARDS.glob("*.md")} - pages.keys():
        (CARDS / stale).unlink()
    for name, text in pages.items():
        (CARDS / name).write_text(text)
    print(f"{len(pages)} pages in {CARDS}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
