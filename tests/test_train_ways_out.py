"""What `staged train --plan` advises is what the run takes, whatever else is set."""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
import torch
from test_train_configs import FULL_SIZE, ROOT, TRAININGS
from training import CONFIG

from staged.device_memory import GIB
from staged.model.bagel import Bagel
from staged.settings import SettingsError, load
from train import forecast
from train.forecast import Machine, tell
from train.gpus import Gpu
from train.lora import trained_parameters
from train.num_ranks import require_ranks
from train.parts import PARTS, part_of
from train.reinforce.settings import ReinforceSettings
from train.settings import TrainSettings
from train.ways_out import ways_out

WHOLE = ("lora=null", "freeze=[]")
WIDE = "optimizer.states=float32"
ODD = (
    (WIDE, "optimizer.betas=[0.9,0.999]"),
    (WIDE, "optimizer.betas=[0.999,0.95]", "optimizer.kind=muon"),
    (*WHOLE, "matmuls=float8"),
    (*WHOLE, WIDE, "matmuls=float8_emulated", "optimizer.betas=[0.9,0.999]"),
    ("lora=null", "freeze=[vit]"),
    ("lora=null", "freeze=[vit,und]", "optimizer.lr_ratios={gen: 0.5, words: 2}"),
    (*WHOLE, "optimizer.lr_ratios={vit: 0.1, und: 0.25}"),
    ("lora=null", "freeze=[gen]", "matmuls=float8", "optimizer.lr_ratios={latents: 3}"),
    ("packs_per_step=8", "parallel.replicas=2", "pack_tokens=70000"),
)


def every_way(settings: TrainSettings) -> list[tuple[str, TrainSettings, int]]:
    """As if each took less than all before it."""
    less = count(0, -1)
    return list(ways_out(settings, lambda _: next(less)))


@pytest.mark.parametrize("path", TRAININGS, ids=str)
def test_what_is_advised_can_be_given_as_it_is_printed(path: Path) -> None:
    """Every line upon those before it, as one would paste them."""
    for odd in ((), *ODD):
        shipped = load(TrainSettings, ROOT / path, odd)
        given = list(odd)
        for words, changed, _ in every_way(shipped):
            given += words.split()
            assert load(TrainSettings, ROOT / path, given) == changed, given
            for ranks in (2, shipped.packs_per_step):
                if shipped.packs_per_step >= ranks and ranks % shipped.parallel.replicas == 0:
                    require_ranks(changed, ranks)


@pytest.mark.parametrize(
    ("odd", "advised"),
    [
        (ODD[0], "optimizer.states=8bit optimizer.betas=[0.9,0.99]"),
        (("freeze=[vit]",), "lora={} freeze=[]"),
        (("matmuls=float8",), "lora={} freeze=[] matmuls=as_dtype"),
        (
            ("optimizer.lr_ratios={vit: 0.1, gen: 0.5}",),
            "freeze=[und,vit,connector,words] optimizer.lr_ratios={} optimizer.lr_ratios.gen=0.5",
        ),
        (
            ("freeze=[und]", "optimizer.lr_ratios={latents: 3}"),
            "lora={} freeze=[] optimizer.lr_ratios={}",
        ),
    ],
)
def test_what_forbids_a_way_out_is_changed_with_it(odd: Sequence[str], advised: str) -> None:
    shipped = load(TrainSettings, ROOT / "configs/bagel_7b/joint.yaml", odd)
    assert advised in [words for words, *_ in every_way(shipped)]


def test_of_a_run_that_begins_with_a_lora_no_other_is_advised(tmp_path: Path) -> None:
    """The run would refuse it unless it were of the same ranks."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "r": 8, "base_model_name_or_path": "miniature:base"})
    )
    whole = load(TrainSettings, ROOT / FULL_SIZE[0], [f"init={adapter}"])
    assert not any("lora" in words for words, *_ in every_way(whole))


def test_a_way_that_nobody_thought_of_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(settings: TrainSettings) -> None:
        if settings.activation_checkpointing == "full":
            raise ValueError("activation_checkpointing=full is of another world")

    settings = load(
        TrainSettings, ROOT / FULL_SIZE[0], ["activation_checkpointing=none", "max_logits_mib=900"]
    )
    monkeypatch.setattr(TrainSettings, "__post_init__", refuse)
    assert [words for words, *_ in every_way(settings)][:2] == [
        "max_logits_mib=256",
        "optimizer.states=8bit",
    ]


def test_advice_is_told_to_the_end_whatever_is_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had ended in an error in its midst."""
    monkeypatch.setattr(forecast, "config_of", lambda init: CONFIG)
    odd = ("matmuls=float8", "optimizer.betas=[0.9,0.999]", "optimizer.lr_ratios={vit: 0.1}")
    whole = load(TrainSettings, ROOT / "configs/shapes/base.yaml", odd)
    gpu = Gpu(GIB, 1e12)  # as much as the driver takes
    machine = Machine(name="tiny", gpu=gpu, ranks=1, utilization=0.3, usd_per_gpu_hour=None)
    told = [way["change"] for way in tell(whole, machine)["ways_out"]]
    said = capsys.readouterr().out
    assert len(told) > 3 and all(words in said for words in told)
    assert told[-1] == "freeze=[und,vit,connector,words] optimizer.lr_ratios={}"


def test_each_line_counts_those_that_are_shown_and_no_others() -> None:
    """What took no less had been left out, and counted on in the lines below it."""
    whole = load(TrainSettings, ROOT / FULL_SIZE[0], ["activation_checkpointing=none"])

    def weigh(settings: TrainSettings) -> int:
        full, narrow = settings.activation_checkpointing == "full", settings.optimizer.states
        return 2 * (not full) + (narrow != "8bit")

    found = [(words, s.max_logits_mib, total) for words, s, total in ways_out(whole, weigh)]
    assert found == [("activation_checkpointing=full", 1024, 1), ("optimizer.states=8bit", 1024, 0)]


def job(*overrides: str) -> TrainSettings:
    return load(TrainSettings, ROOT / "configs/shapes/base.yaml", overrides)


@pytest.mark.parametrize(
    ("overrides", "part", "reason"),
    [
        (("freeze=[vit]",), "vit", "freeze=vit leaves it as it is"),
        (("lora={}",), "words", "lora trains matrices of its own beside und and gen alone"),
        (("lora={gen: null}",), "gen", r"lora\.gen is null"),
    ],
)
def test_a_rate_of_what_is_not_trained_is_refused(
    overrides: Sequence[str], part: str, reason: str
) -> None:
    """It had been taken, and changed nothing."""
    said = rf"lr_ratios names {part}, of which nothing is trained: {reason}; leave {part} out"
    with pytest.raises(SettingsError, match=said):
        job(*overrides, f"optimizer.lr_ratios={{{part}: 0.1}}")


def test_reinforcement_refuses_it_too() -> None:
    with pytest.raises(SettingsError, match=r"lr_ratios names vit, of which nothing is trained"):
        load(
            ReinforceSettings,
            ROOT / "configs/bagel_7b/reinforce_lora.yaml",
            ["optimizer.lr_ratios={vit: 0.1}"],
        )


@pytest.mark.parametrize(
    "overrides", [(), ("freeze=[vit,words]",), ("lora={}",), ("lora={und: null}",)]
)
def test_a_rate_is_taken_exactly_of_what_has_parameters_to_train(overrides: Sequence[str]) -> None:
    with torch.device("meta"):
        model = Bagel(CONFIG)
    trained = {part_of(name) for name in trained_parameters(model, job(*overrides))}
    taken = set()
    for part in PARTS:
        with suppress(SettingsError):
            job(*overrides, f"optimizer.lr_ratios={{{part}: 0.5}}")
            taken.add(part)
    assert taken == trained
