"""A run from start to end, stopped and continued, and everything that can be wrong about it."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CONFIG
from training import (
    World,
    assert_same,
    build,
    edit,
    made,
    one_shot,
    run_quietly,
    start,
    train,
    understanding,
    write_data,
)

from staged.backends.bagel import BagelPlayer
from staged.cli import main as cli
from staged.devices import choose_device
from staged.engine.engine import Engine
from staged.model import checkpoint
from staged.model.autoencoder import Autoencoder
from staged.model.flows import FlowSettings, Guidance, read_flows, write_flows
from staged.model.loss import TokenLosses
from staged.roles import StepRequest
from staged.settings import load, save_resolved
from staged.trajectory import Answer, Move, Stop, Trajectory
from staged.trajectory_folder import load_trajectory
from train.export_run import export_run
from train.job import Trainer
from train.memory import bytes_to_write
from train.ranks import Ranks
from train.run_folder import cut_log
from train.run_log import Silence
from train.run_model import RunModel
from train.settings import ConditionDropout, Log, OptimizerSettings, Subset, TrainSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world: World) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*requires_grad.*")
        return train(world.settings(world.folder / "undisturbed"))


def stop_after(settings: TrainSettings, steps: int) -> None:
    """Train some steps and forget the process's memory, saving as a run does on Ctrl-C."""
    trainer = Trainer(settings)
    real = trainer.train_step

    def train_step(*packs: Any) -> dict[str, float]:
        record = real(*packs)
        if trainer.step + 1 == steps:
            os.kill(os.getpid(), signal.SIGINT)
        return record

    trainer.train_step = train_step  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def test_a_run_of_several_packs_a_step_continues_bit_for_bit(world: World, tmp_path: Path) -> None:
    settings = world.settings(tmp_path / "whole", packs_per_step=3, num_steps=4)
    whole = train(settings)
    parted = replace(settings, out=tmp_path / "parted")
    stop_after(parted, 2)
    assert_same(train(parted), whole)
    with pytest.raises(ValueError, match="packs_per_step"):
        Trainer(replace(parted, packs_per_step=1))


def test_a_run_leaves_a_checkpoint_with_averaged_weights_a_log_and_its_settings(
    world: World, undisturbed: dict[str, Any]
) -> None:
    out = world.folder / "undisturbed"
    loaded = checkpoint.load(out / "checkpoint")
    state = load_file(out / "state" / "00000008" / "state.safetensors")
    weights = dict(loaded.model.named_parameters())
    assert all(torch.equal(weights[name], state[f"average.{name}"]) for name in weights)
    assert any(not torch.equal(weights[name], state[f"weights.{name}"]) for name in weights)
    assert loaded.config == CONFIG
    assert loaded.tokenizer is not None
    assert [line["step"] for line in undisturbed["log"]] == list(range(1, 9))
    first = undisturbed["log"][0]
    assert {"loss", "ce", "mse", "grad_norm", "lr"} <= first.keys()
    assert {key for line in undisturbed["log"] for key in line if "/" in key} == {
        *(f"ce/{task}" for task in ("one_shot", "edit", "understanding", "staged", "plan_sketch")),
        *(f"mse/{task}" for task in ("one_shot", "edit", "staged", "plan_sketch")),
    }
    with_rates = json.loads((out / "log.jsonl").read_text().splitlines()[-1])
    assert with_rates["tokens_per_s"] > 0
    assert 0 <= with_rates["data_wait"] <= 1
    assert with_rates["tflop_per_s"] > 0 and "mfu" not in with_rates
    assert sorted(path.name for path in (out / "state").iterdir()) == ["00000006", "00000008"]
    assert (out / "settings.yaml").is_file()
    assert any((out / "tensorboard").iterdir())


@pytest.mark.parametrize(
    "stops", [*(pytest.param((step,), marks=pytest.mark.slow) for step in (1, 3, 5)), (2, 4, 7)]
)
def test_a_stopped_run_continues_bit_for_bit(
    world: World, undisturbed: dict[str, Any], tmp_path: Path, stops: tuple[int, ...]
) -> None:
    settings = world.settings(tmp_path)
    for step in stops:
        stop_after(settings, step)
    assert_same(train(settings), undisturbed)


def test_a_run_whose_time_is_over_exports_what_it_has_and_goes_on_bit_for_bit(
    world: World,
    undisturbed: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = world.settings(tmp_path)
    for step in (1, 2):  # a step is what any time is enough for
        trainer = Trainer(replace(settings, max_minutes=1e-9))
        checkpoint.load(trainer.run())
        assert trainer.step == step
        assert f"stopped after {step} of 8 steps: max_minutes is 1e-09" in capsys.readouterr().err
    assert_same(train(replace(settings, max_minutes=60.0)), undisturbed)


def test_a_stopped_run_by_muon_with_several_copies_continues_bit_for_bit(
    world: World, tmp_path: Path
) -> None:
    def settings(out: str) -> TrainSettings:
        return world.settings(
            tmp_path / out,
            noised_copies=3,
            pack_tokens=400,
            optimizer=OptimizerSettings(kind="muon", lr=3e-3),
        )

    stop_after(settings("stopped"), 5)
    assert_same(train(settings("stopped")), train(settings("through")))


def test_tensorboard_shows_each_step_of_a_killed_run_once(world: World, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stop_after(world.settings(tmp_path), 5)
    shutil.rmtree(tmp_path / "state" / "00000005")  # as if killed then: step 3 is the newest
    train(world.settings(tmp_path))
    shown = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for name in ("loss", "ce/staged"):
        steps = [event.step for event in shown.Scalars(name)]
        assert steps == sorted(set(steps))
    assert [event.step for event in shown.Scalars("loss")] == list(range(1, 9))


def test_a_finished_run_given_again_changes_nothing(
    world: World, undisturbed: dict[str, Any]
) -> None:
    settings = world.settings(world.folder / "undisturbed")
    assert_same(train(settings), undisturbed)


def test_how_often_it_logs_saves_and_draws_does_not_matter(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    log = Log(
        every_steps=2,
        sample_every_steps=3,
        sample_prompts=("a star", "a ring"),
        sample_flow_steps=2,
    )
    settings = world.settings(tmp_path, checkpoint_every_steps=100, log=log)
    results = train(settings)
    steps = [line["step"] for line in results.pop("log")]  # tests/test_train_interval.py reads them
    assert steps == [2, 4, 6, 8]
    assert_same(results, {k: v for k, v in undisturbed.items() if k != "log"})
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "00000003.png",
        "00000006.png",
    ]


def test_pictures_on_the_way_are_drawn_as_the_checkpoint_draws(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They had a shift and guidance of their own, and showed another model than the one kept."""
    own = FlowSettings(timestep_shift=1.0, guidance=Guidance(text_scale=2.5, renorm="channel"))
    shutil.copytree(world.init, tmp_path / "init")
    write_flows(replace(read_flows(world.init), first=own), tmp_path / "init")
    used: list[FlowSettings] = []
    real = Engine.draw

    def draw(engine: Engine, *contexts: Any, **ask: Any) -> Any:
        used.extend(ask["settings"])
        return real(engine, *contexts, **ask)

    monkeypatch.setattr(Engine, "draw", draw)
    log = Log(sample_prompts=("a star",), sample_flow_steps=2)
    settings = world.settings(tmp_path / "out", init=str(tmp_path / "init"), log=log)
    Trainer(settings).sample(Silence())
    assert used == [own.otherwise(num_flow_steps=2)]


def test_whole_trajectories_are_drawn_where_that_is_asked_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that knows no words, so that it says that it would draw at once."""

    def at_once(player: BagelPlayer, requests: Sequence[StepRequest]) -> list[tuple[Move, ...]]:
        return [("sketch",) if "sketch" in one.moves else ("stop",) for one in requests]

    log = Log(
        every_steps=1,
        sample_every_steps=1,
        sample_prompts=("a star", "a ring"),
        sample_flow_steps=2,
        sample_mode="staged",
    )
    monkeypatch.setattr(BagelPlayer, "choose", at_once)
    train(world.settings(tmp_path, num_steps=1, log=log))
    for number, prompt in enumerate(log.sample_prompts):
        drawn = load_trajectory(tmp_path / "samples" / "00000001" / str(number))
        assert drawn.prompt == prompt and drawn.complete
        assert drawn.num_flow_steps == 2
    assert (tmp_path / "samples" / "00000001.png").is_file()


def test_without_prompts_nothing_is_drawn(world: World, tmp_path: Path) -> None:
    log = Log(every_steps=1, sample_every_steps=1)
    train(world.settings(tmp_path, num_steps=1, log=log))
    assert not (tmp_path / "samples").exists()


def test_what_changes_no_result_may_differ_when_a_run_continues(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    stop_after(world.settings(tmp_path / "before"), 4)
    (tmp_path / "before").rename(tmp_path / "after")
    moved = shutil.copytree(world.data, tmp_path / "moved")
    settings = world.settings(
        tmp_path / "after",
        data=(Subset(path=moved),),
        cache=tmp_path / "cache",
        checkpoint_every_steps=1,
        num_workers=0,
    )
    assert_same(train(settings), undisturbed)


@pytest.mark.slow
def test_a_run_of_one_kind_of_sample_continues_too(world: World, tmp_path: Path) -> None:
    """Whatever a data set lacks (images to look at, images to draw, text), all weights train."""
    text_only = Trajectory(prompt="hello", steps=(Answer(text="a star"), Stop()))
    for name, kinds in {
        "one shot": [
            one_shot(0),
            replace(one_shot(1), steps=(*one_shot(1).steps[:1], Stop(loss=False))),
        ],
        "understanding": [understanding(0), understanding(1)],
        "text": [text_only, text_only],
    }.items():
        data = (Subset(path=write_data(tmp_path / name / "data", kinds)),)
        whole, parts = tmp_path / name / "whole", tmp_path / name / "parts"
        expected = train(world.settings(whole, data=data, num_steps=4))
        stop_after(world.settings(parts, data=data, num_steps=4), 2)
        assert_same(train(world.settings(parts, data=data, num_steps=4)), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pack_tokens": 320}, r"pack_tokens was 300 and is 320.*choose another `out`"),
        ({"num_steps": 9}, "num_steps was 8 and is 9"),
        ({"dropout": ConditionDropout(text=0.2)}, r"dropout\.text was 0\.1 and is 0\.2"),
        ({"seed": 1, "ce_weight": 1.0}, r"ce_weight was 0\.25 and is 1\.0; seed was 0 and is 1"),
    ],
)
def test_a_run_refuses_to_continue_with_other_settings(
    world: World, undisturbed: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    settings = world.settings(world.folder / "undisturbed", **changes)
    with pytest.raises(ValueError, match=message):
        Trainer(settings)
    assert_same(made(settings.out), undisturbed)


def test_a_run_refuses_to_continue_on_other_data(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    other = write_data(tmp_path / "other", [one_shot(0), edit(0)])
    settings = world.settings(world.folder / "undisturbed", data=(Subset(path=other),))
    with pytest.raises(ValueError, match=r"the data of .* have changed since it began"):
        Trainer(settings)


def test_settings_of_a_run_that_never_saved_do_not_bind(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        Trainer(world.settings(tmp_path / "out", data=(Subset(path=tmp_path / "missing"),)))
    assert not (tmp_path / "out").exists(), "a run that cannot begin leaves settings behind"
    assert Trainer(world.settings(tmp_path / "out", pack_tokens=320)).step == 0


# --- damage --------------------------------------------------------------------------------------


def newest_state(out: Path) -> Path:
    [*_, newest] = sorted((out / "state").iterdir())
    return newest / "state.safetensors"


@pytest.fixture
def stopped(world: World, tmp_path: Path) -> TrainSettings:
    settings = world.settings(tmp_path)
    stop_after(settings, 5)
    return settings


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lack_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: t for name, t in tensors.items() if name != "weights.lm_head.weight"}, path)


def have_another_shape(path: Path) -> None:
    tensors = {name: t.clone() for name, t in load_file(path).items()}
    tensors["average.lm_head.weight"] = tensors["average.lm_head.weight"][:5].clone()
    save_file(tensors, path)


def hold_nan(path: Path) -> None:
    tensors = {name: t.clone() for name, t in load_file(path).items()}
    tensors["optimizer.exp_avg.lm_head.weight"][0, 0] = torch.nan
    save_file(tensors, path)


def have_one_number(path: Path) -> None:
    """A copy would spread it over the whole matrix."""
    tensors = {name: t.clone() for name, t in load_file(path).items()}
    tensors["weights.lm_head.weight"] = torch.ones(1, 1)
    save_file(tensors, path)


@pytest.mark.parametrize(
    "damage",
    [
        *(cut_short, hold_nan),
        *(
            pytest.param(act, marks=pytest.mark.slow)
            for act in (lack_a_tensor, have_another_shape, Path.unlink, have_one_number)
        ),
    ],
)
def test_a_damaged_state_is_named_and_the_older_one_serves_once_it_is_removed(
    stopped: TrainSettings, undisturbed: dict[str, Any], damage: Any
) -> None:
    damage(newest_state(stopped.out))
    with pytest.raises(ValueError, match=r"00000005.*remove it to continue"):
        Trainer(stopped)
    shutil.rmtree(newest_state_folder := stopped.out / "state" / "00000005")
    assert not newest_state_folder.exists()
    assert_same(train(stopped), undisturbed)


def test_a_shard_with_other_bytes_than_its_index_says_is_refused_before_it_is_encoded(
    world: World, tmp_path: Path
) -> None:
    """In the middle of a picture, where it would still be one."""
    data = shutil.copytree(world.data, tmp_path / "data")
    shard = next(data.glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[content.find(b"IDAT") + 12] ^= 1
    shard.write_bytes(content)
    settings = world.settings(tmp_path / "out", cache=tmp_path / "cache")
    with pytest.raises(ValueError, match=rf"data is damaged: {shard.name}: sha256"):
        Trainer(replace(settings, data=(Subset(path=data),)))


@pytest.mark.parametrize("suffix", [".npz", ".latents"])
def test_a_damaged_cache_is_named(stopped: TrainSettings, suffix: str) -> None:
    [path] = (stopped.out / "cache").glob(f"*{suffix}")
    os.truncate(path, path.stat().st_size // 2 + 1)
    with pytest.raises(ValueError, match=r"\.npz is damaged .*; remove it"):
        Trainer(stopped)


def test_latents_of_nan_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of them would spoil every run that shares it."""
    encode = Autoencoder.encode
    monkeypatch.setattr(
        Autoencoder, "encode", lambda self, images: encode(self, images) * torch.nan
    )
    settings = build(tmp_path / "world").settings(tmp_path / "run")
    with pytest.raises(ValueError, match=r"latents of an image of .* are not finite"):
        Trainer(settings)
    assert not list((tmp_path / "run" / "cache").glob("*.npz"))


def test_a_log_cut_off_in_a_line_keeps_what_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    cut_log(log, 5)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n{"step": 3}\n'
    cut_log(log, 2)
    assert log.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_full_disk_is_reported_and_keeps_the_earlier_state(
    stopped: TrainSettings, undisturbed: dict[str, Any]
) -> None:
    process = start(run_with_small_files, stopped, 20_000)
    process.join(120)
    assert process.exitcode == 3
    assert sorted(path.name for path in (stopped.out / "state").iterdir()) == [
        "00000003",
        "00000005",
    ]
    assert_same(train(stopped), undisturbed)


def run_with_small_files(settings: TrainSettings, max_bytes: int) -> None:
    """A limit on the size of files fails a write as a full disk does."""
    import resource

    trainer = Trainer(settings)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, resource.RLIM_INFINITY))
    try:
        trainer.run()
    except OSError as error:
        assert "cannot write the state of step 6 (" in str(error)
        assert "Earlier states are kept" in str(error)
        sys.exit(3)


def test_a_folder_that_cannot_be_made_is_an_error_with_its_name(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Trainer(world.settings(tmp_path / "file" / "out"))


# --- mistakes ------------------------------------------------------------------------------------


def test_missing_unfinished_and_empty_data_are_named(world: World, tmp_path: Path) -> None:
    def error(folder: Path) -> str:
        with pytest.raises(ValueError) as caught:
            Trainer(world.settings(tmp_path / "out", data=(Subset(path=folder),)))
        return str(caught.value)

    missing, unfinished = tmp_path / "missing", tmp_path / "unfinished"
    assert f"data folder {missing} does not exist" in error(missing)
    shutil.copytree(world.data, unfinished)
    (unfinished / "index.json").unlink()
    assert f"{unfinished} holds no finished data set" in error(unfinished)
    assert "the data hold no samples" in error(write_data(tmp_path / "empty", []))


@pytest.mark.parametrize("more", [[], ["--show-pack", "0"], ["--prepare"]])
def test_so_they_are_by_the_command(
    world: World, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    job, missing, unfinished = tmp_path / "job.yaml", tmp_path / "missing", tmp_path / "unfinished"
    shutil.copytree(world.data, unfinished)
    (unfinished / "index.json").unlink()
    for folder, message in (
        (missing, f"data folder {missing} does not exist; build it, or correct data.path"),
        (unfinished, f"{unfinished} holds no finished data set (no index.json); let its build"),
    ):
        save_resolved(world.settings(tmp_path / "out", data=(Subset(path=folder),)), job)
        assert cli(["train", str(job), *more]) == 1
        assert message in capsys.readouterr().err


def test_samples_longer_than_a_pack_are_counted_and_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        Trainer(world.settings(tmp_path, pack_tokens=100))
    message = str(caught.value)
    lengths = Trainer(world.settings(tmp_path)).examples.lengths
    too_long = int((lengths > 100).sum())
    assert 0 < too_long < len(lengths)
    assert f"{too_long} of {len(lengths)} samples exceed pack_tokens=100" in message
    assert f"{world.data}: s003 ({lengths[3]} tokens)" in message
    assert f"raise pack_tokens to {lengths.max()}" in message


@pytest.mark.parametrize("spread", [False, True])
def test_of_a_pack_the_sample_is_named_that_a_loss_of_nan_comes_from(
    world: World, tmp_path: Path, spread: bool
) -> None:
    trainer = Trainer(world.settings(tmp_path, pack_tokens=2000))
    real = trainer._forward

    def forward(pack: Any) -> TokenLosses:
        """One sample's picture is broken, or what it does reaches a neighbour too."""
        sample = pack.layout.sample_ids()[pack.layout.latent_index]
        for place in [broken, neighbour] if spread else [broken]:
            pack.inputs.latents[sample == place] = torch.nan
        return real(pack)

    packed = [sample for sample, _ in trainer.plan.pack(0)]
    pack = trainer.packs.build(0)
    drawn = [place for place, task in enumerate(pack.tasks) if task != "understanding"]
    broken, neighbour = drawn[-1], drawn[0]
    trainer._forward = forward  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="the loss is nan at step 0") as caught:
        trainer.run()
    said = str(caught.value)
    named = {place for place, n in enumerate(packed) if trainer.examples.name(n) in said}
    assert named == ({broken, neighbour} if spread else {broken})
    assert len(packed) > 2 and "it comes from" in said


@pytest.mark.parametrize("kind", ["loss", "gradient norm"])
def test_a_loss_or_gradient_that_is_not_finite_names_samples_and_leaves_the_weights(
    world: World, tmp_path: Path, kind: str
) -> None:
    trainer = Trainer(world.settings(tmp_path))
    with torch.no_grad():
        if kind == "loss":
            trainer.parameters["lm_head.weight"].fill_(torch.inf)
        else:
            trainer.parameters["lm_head.weight"].register_hook(lambda grad: grad * torch.nan)
    before = {name: p.detach().clone() for name, p in trainer.parameters.items()}
    with pytest.raises(ValueError, match=rf"the {kind} is (nan|inf) at step 0.*: s00\d"):
        trainer.run()
    assert all(torch.equal(before[name], p) for name, p in trainer.parameters.items())
    assert trainer.step == 0


def test_a_worker_that_dies_ends_the_run_with_a_way_out(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    before = set(multiprocessing.active_children())  # a test may leave one that is about to end
    trainer = Trainer(world.settings(tmp_path, num_workers=1))
    real = trainer.train_step

    def train_step(*packs: Any) -> dict[str, float]:
        if trainer.step == 3:
            [worker] = set(multiprocessing.active_children()) - before
            worker.kill()
            time.sleep(10)  # torch notices within
        return real(*packs)

    trainer.train_step = train_step  # type: ignore[method-assign]
    with pytest.raises(OSError, match=r"builds packs has died.*num_workers=0"):
        trainer.run()
    assert_same(train(world.settings(tmp_path)), undisturbed)


def test_devices_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="device 'nonsense'"):
        choose_device("nonsense")
    with pytest.raises(ValueError, match="device 'cuda:99': this machine has"):
        choose_device("cuda:99")


@pytest.mark.parametrize("option", ["--export", "--export-best"])
def test_a_run_without_a_state_has_nothing_to_export_and_reads_nothing_first(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    monkeypatch.setattr(
        "train.run_model.open_to_train", lambda *_: pytest.fail("it reads the weights")
    )
    save_resolved(world.settings(tmp_path / "out"), tmp_path / "job.yaml")
    assert cli(["train", str(tmp_path / "job.yaml"), option]) == 1
    assert "holds no state of a run" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_export_reads_no_data_and_needs_no_gpu_that_multiplies_float8(
    world: World, undisturbed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It encoded all of the data first, which a machine that exports need not have."""
    out = shutil.copytree(world.folder / "undisturbed", tmp_path / "out")
    shutil.rmtree(out / "checkpoint")
    shutil.rmtree(out / "cache")
    begun = load(TrainSettings, out / "settings.yaml")
    save_resolved(replace(begun, matmuls="float8"), out / "settings.yaml")
    found = sorted(out.rglob("*"))
    options = ["data=[{path: gone}]", "matmuls=float8", f"out={out}", "--export"]
    job = str(world.folder / "undisturbed" / "settings.yaml")
    assert cli(["train", job, *options]) == 0
    assert_same(made(out), undisturbed)
    made_now = set(out.rglob("*")) - set(found)
    assert {path.relative_to(out).parts[0] for path in made_now} == {"checkpoint"}
    capsys.readouterr()
    assert cli(["train", job, *options, "--to", str(out)]) == 1
    assert f"{out} is not empty; name another folder" in capsys.readouterr().err
    assert cli(["train", job, *options, "ce_weight=1", "--to", str(tmp_path / "to")]) == 1
    assert "ce_weight was 0.25 and is 1.0" in capsys.readouterr().err
    assert not (tmp_path / "to").exists()


def test_a_state_that_a_run_drops_while_it_is_exported_is_not_called_damaged(
    world: World, undisturbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(world.folder / "undisturbed", tmp_path / "out")
    job = replace(load(TrainSettings, out / "settings.yaml"), out=out)
    real = RunModel.begin_average

    def begin(run: RunModel) -> None:
        shutil.rmtree(out / "state" / "00000008")
        real(run)

    monkeypatch.setattr(RunModel, "begin_average", begin)
    with pytest.raises(ValueError, match=r"00000008 is gone: the run goes on, .* same command"):
        export_run(job, Ranks(), tmp_path / "to", best=False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Subset(path=Path("x"), repeats=0), "repeats is 0; give 0.001 or more"),
        (lambda: Subset(path=Path("x"), repeats=float("nan")), "repeats is nan"),
        (lambda: ConditionDropout(text=1.5), "text is 1.5; give 0 or more, at most 1"),
        (lambda: ConditionDropout(image=-0.1), "image is -0.1"),
        (lambda: OptimizerSettings(lr=0), "lr is 0; give more than 0"),
        (lambda: OptimizerSettings(lr=float("inf")), "lr is inf"),
        (lambda: OptimizerSettings(eps=0), "eps is 0"),
        (lambda: OptimizerSettings(warmup_steps=-1), "warmup_steps is -1"),
        (lambda: OptimizerSettings(min_lr_ratio=2), "min_lr_ratio is 2"),
        (lambda: OptimizerSettings(betas=(0.9, 1.0)), r"betas is \(0.9, 1.0\)"),
        (lambda: OptimizerSettings(weight_decay=-1), "weight_decay is -1"),
        (lambda: OptimizerSettings(max_grad_norm=0), "max_grad_norm is 0"),
        (lambda: OptimizerSettings(ema_decay=1), "ema_decay is 1; give 0 or more, below 1"),
        (lambda: Log(every_steps=0), "every_steps is 0; give 1 or more"),
        (lambda: Log(sample_every_steps=-1), "sample_every_steps is -1"),
        (lambda: Log(sample_flow_steps=0), "sample_flow_steps is 0"),
        (lambda: job(data=()), "data is empty; name at least one folder"),
        (lambda: job(num_steps=0), "num_steps is 0"),
        (lambda: job(pack_tokens=0), "pack_tokens is 0"),
        (lambda: job(checkpoint_every_steps=0), "checkpoint_every_steps is 0"),
        (lambda: job(ce_weight=-1), "ce_weight is -1"),
        (lambda: job(timestep_shift=0), "timestep_shift is 0; give more than 0"),
        (lambda: job(seed=-1), "seed is -1"),
        (lambda: job(num_threads=-1), "num_threads is -1"),
        (lambda: job(num_workers=-1), "num_workers is -1"),
    ],
)
def test_settings_out_of_range_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def job(**changes: Any) -> TrainSettings:
    settings = TrainSettings(init="x", data=(Subset(path=Path("x")),), out=Path("x"))
    return replace(settings, **changes)


# --- the command ---------------------------------------------------------------------------------


def test_the_command_trains_and_says_where_the_checkpoint_is(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_resolved(world.settings(tmp_path / "out", num_steps=2), tmp_path / "job.yaml")
    assert cli(["train", str(tmp_path / "job.yaml")]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        f"computing on cpu in float32\ncheckpoint: {tmp_path / 'out' / 'checkpoint'}\n"
    )
    lines = [line for line in captured.err.splitlines() if line.startswith("step ")]
    assert lines[-1].startswith("step 2/2")
    assert all("tokens/s" in line and " 0 tokens/s" not in line for line in lines)


def test_the_command_reports_mistakes_in_a_line(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_resolved(world.settings(tmp_path / "out"), tmp_path / "job.yaml")
    assert cli(["train", str(tmp_path / "job.yaml"), "optimiser.lr=1", "pack_tokens=1.5"]) == 1
    assert "did you mean" in capsys.readouterr().err
    assert cli(["train", str(tmp_path / "job.yaml"), "pack_tokens=50"]) == 1
    assert "samples exceed pack_tokens=50" in capsys.readouterr().err


@pytest.mark.slow  # what ends a run at a signal is tried by the next test too
def test_ctrl_c_saves_says_how_to_continue_and_exits_with_130(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    # Slow enough to be met in the middle, and with a state of its own only in the end.
    settings = world.settings(tmp_path / "out", checkpoint_every_steps=1000)
    save_resolved(settings, tmp_path / "job.yaml")
    slowly = (
        "import sys, time; from train.job import Trainer; step = Trainer.train_step\n"
        "def slow(self, pack): time.sleep(0.5); return step(self, pack)\n"
        "Trainer.train_step = slow\n"
        "from staged.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", slowly, "train", str(tmp_path / "job.yaml")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    log = tmp_path / "out" / "log.jsonl"
    deadline = time.monotonic() + 300
    while not (log.is_file() and log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of its processes
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert f"of 8 is saved in {tmp_path / 'out'}; the same command continues from there" in said
    assert "Traceback" not in said
    assert Trainer(settings).step == len(log.read_text().splitlines()) > 0
    assert_same(train(settings), undisturbed)


def test_sigterm_saves_and_exits_with_143(
    world: World, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    settings = world.settings(tmp_path, checkpoint_every_steps=1000)
    process = start(run_until_terminated, settings)
    process.join(120)
    assert process.exitcode == 143
    assert Trainer(settings).step == 4
    assert_same(train(settings), undisturbed)


def run_until_terminated(settings: TrainSettings) -> None:
    real = Trainer.train_step

    def train_step(self: Trainer, *packs: Any) -> dict[str, float]:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, *packs)

    Trainer.train_step = train_step  # type: ignore[method-assign]
    run_quietly(settings)


def test_a_disk_without_room_for_the_states_is_told_before_training(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be found out at the first state, after hundreds of steps."""
    settings = world.settings(tmp_path / "out", num_steps=4, checkpoint_every_steps=1)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=70 * 2**20))
    roomy = Trainer(settings)
    needed = bytes_to_write(settings, roomy.model, roomy.parameters, roomy.optimizer)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(OSError, match="MB are needed"):
        Trainer(settings)
    roomy.run()
    written = sum(p.stat().st_size for p in (tmp_path / "out").rglob("*.safetensors"))
    assert needed / 2 < written <= needed + 2**20  # one more state stands there for a moment
    Trainer(settings)  # what is there is replaced, so it needs no more
