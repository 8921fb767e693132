"""What `auto` stands for, that it is every default, and that what was begun goes on as it was.

The slow kind of CPU is had on a fast one by forbidding torch its instructions (`SLOW`).
"""

import dataclasses
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train_autoencoder import tiny as tiny_job
from training import World, build, one_shot
from vlm import save_tiny

import data_pipelines
import eval as eval_package
import staged as staged_package
import train
from data_pipelines.claim import record_settings, refuse_other_settings
from data_pipelines.drawing import DrawingSettings
from data_pipelines.plan_sketch.job import settled
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from data_pipelines.prompts import Prompts
from eval.__main__ import main as staged_eval
from eval.generation.model import CheckpointGenerator
from eval.miniature.settings import MiniatureSettings
from eval.vqa.local import LocalAnswerer
from eval.vqa.options import _begun_dtype
from staged import devices
from staged.backends.diffusers.settings import DiffusersSettings
from staged.backends.lmm.settings import LmmSettings
from staged.cli import main as staged
from staged.cli.main import choose
from staged.command_line import walk
from staged.devices import choose_arithmetic, choose_device, settle
from staged.generate.role_choice import open_engine
from staged.generate.settings import ModelSettings
from staged.settings import from_dict, load, save_resolved
from train.autoencoder.job import train as train_autoencoder
from train.autoencoder.settings import AutoencoderJob
from train.job import Trainer
from train.settings import TrainSettings

SLOW = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
FRESH = ["--checkpoint", "miniature:fresh", "--flow-steps", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"), [one_shot(0), one_shot(10)])


def machine(patch: pytest.MonkeyPatch, *, fast: bool) -> None:
    """Pretend that the hardware multiplies bfloat16 fast, or not."""
    patch.setattr(devices, "multiplies_bfloat16_fast", lambda device: fast)
    patch.setattr(devices, "bfloat16_gain", lambda: 4.0 if fast else 0.02)


@pytest.mark.parametrize("fast", [True, False])
def test_auto_is_what_the_hardware_multiplies_and_what_is_given_wins(
    monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    machine(monkeypatch, fast=fast)
    best, other = ("bfloat16", "float32")[:: 1 if fast else -1]
    assert choose_arithmetic("cpu", "auto").dtype_name == best
    assert (
        choose_arithmetic("cpu", "auto", begun=best).words == choose_arithmetic("cpu", "auto").words
    )
    for name in ("float32", "bfloat16", "float16", "float64"):
        for begun in (None, best, other):
            given = choose_arithmetic("cpu", name, begun=begun)
            assert given.dtype_name == name and given.words == f"computing on cpu in {name}"
    gone_on = choose_arithmetic("cpu", "auto", begun=other)
    assert gone_on.dtype_name == other
    assert f"in {other}, in which it was begun; {best} is faster here" in gone_on.words
    assert str(open_engine("miniature:fresh", device="cpu").model.lm_head.weight.dtype).endswith(
        best
    )


@pytest.mark.parametrize("name", ["float99", "nn", "tensor", "", "Auto"])
def test_what_is_no_precision_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"dtype is '{name}'; give auto, float32 or bfloat16"):
        choose_arithmetic("cpu", name)


def test_the_measurement_leaves_threads_as_they_were() -> None:
    before = torch.get_num_threads()
    devices.bfloat16_gain.cache_clear()
    assert devices.bfloat16_gain() > 0
    assert torch.get_num_threads() == before


def test_under_torchrun_auto_and_cuda_are_a_device_for_each_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    names = ("auto", "cuda", "cuda:3", "cpu")
    assert [str(choose_device(name)) for name in names] == ["cuda", "cuda", "cuda:3", "cpu"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert [str(choose_device(name)) for name in names] == ["cuda:1", "cuda:1", "cuda:3", "cpu"]
    monkeypatch.setenv("LOCAL_RANK", "7")
    with pytest.raises(ValueError, match="device 'cuda:7': this machine has 4"):
        choose_device("auto")
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(ValueError, match="cuda:first"):
        choose_device("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(choose_device("auto")) == "cpu"


def run_on(environment: dict[str, str], code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


PRINT = """
from staged.devices import choose_arithmetic
print(choose_arithmetic("cpu", "auto").dtype_name)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the name is of x86 instructions")
def test_a_cpu_that_emulates_bfloat16_well_still_computes_in_float32() -> None:
    """With AVX512 alone, products in bfloat16 have three quarters of float32's speed."""
    assert run_on({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, PRINT).split() == ["float32"]


USE = """
import sys
from staged.cli import main
job, drawn, out = sys.argv[1:]
for argv in (
    ["train", job, f"out={out}"],
    ["generate", "a photo of a star", "--checkpoint", "miniature:fresh", "--mode", "one-shot",
     "--flow-steps", "1", "--device", "cpu", "--out", drawn],
):
    if code := main(argv):
        sys.exit(code)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the names are of x86 instructions")
def test_commands_on_a_cpu_without_bfloat16_products_say_and_keep_float32(
    world: World, tmp_path: Path
) -> None:
    job, drawn, out = (str(tmp_path / name) for name in ("job.yaml", "drawn", "out"))
    short = world.settings(Path(out), num_steps=2, dtype="auto")
    save_resolved(short, job)
    said = run_on(SLOW, USE, job, drawn, out)
    assert said.count("computing on cpu in float32 (products in bfloat16 run at 0.") == 2
    assert settings_of(Path(out)).dtype == "float32"
    assert dtypes_in(Path(drawn) / "settings.json", "decides", "dtype") == "float32"


def has_bfloat16_products() -> bool:
    facts = Path("/proc/cpuinfo")
    words = facts.read_text().split() if facts.is_file() else []
    return "avx512_bf16" in words or "amx_bf16" in words


@pytest.mark.skipif(not has_bfloat16_products(), reason="this CPU has no bfloat16 products")
def test_a_cpu_with_bfloat16_products_computes_in_them() -> None:
    free = dict.fromkeys(SLOW, "")
    code = "import os\nfor name in " + repr([*SLOW]) + ": os.environ.pop(name)\n" + PRINT
    assert run_on(free, code).split() == ["bfloat16"]


def test_every_option_is_auto_by_default() -> None:
    found = [
        (" ".join(words), action)
        for words, parser in walk(choose)
        for action in parser._actions
        if {"--device", "--dtype"} & set(action.option_strings)
    ]
    # Where it is None, the default is that of the settings, which are looked at below.
    assert {action.default for _, action in found} <= {"auto", None}
    assert all("(default: auto)" in (action.help or "") for _, action in found)
    assert all("auto" in (action.choices or ["auto"]) for _, action in found)
    with_device, with_dtype = (
        {name for name, action in found if action.dest == dest} for dest in ("device", "dtype")
    )
    drawing = {"generate", "tune-steps", "verify bagel"}
    drawing |= {"eval miniature", "eval skills", "eval tune-guidance"}
    judging = {"eval rewards", "eval answer-geneval2"}
    assert with_device >= drawing | judging | {"eval detect"}
    assert with_dtype >= drawing | judging


def settings_classes() -> Iterator[type]:
    for package in (staged_package, train, eval_package, data_pipelines):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("settings") or "_settings" in module.name:
                for value in vars(importlib.import_module(module.name)).values():
                    if isinstance(value, type) and dataclasses.is_dataclass(value):
                        yield value


def test_every_setting_is_auto_by_default() -> None:
    found = {
        f"{cls.__name__}.{field.name}": field.default
        for cls in settings_classes()
        for field in dataclasses.fields(cls)
        if field.name in ("device", "dtype", "bf16", "precision")
    }
    assert set(found.values()) == {"auto"}
    assert {name.partition(".")[0] for name in found} >= {
        *("TrainSettings", "AutoencoderJob", "ModelSettings", "MiniatureSettings"),
        *("PipelineSettings", "DiffusersSettings"),
    }


def test_settled_settings_say_where_and_in_what(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, fast=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told: list[str] = []
    found = settle(ModelSettings(checkpoint="x"), tell=told.append)
    assert (found.device, found.dtype) == ("cpu", "float32")
    assert told == [
        "computing on cpu in float32 (products in bfloat16 run at 0.02 times its float32 speed)"
    ]
    assert settle(AutoencoderJob(), begun="bfloat16", tell=told.append).dtype == "bfloat16"


def settings_of(out: Path) -> TrainSettings:
    return load(TrainSettings, out / "settings.yaml")


@pytest.mark.parametrize("fast", [True, False])
def test_a_run_goes_on_in_the_precision_that_it_began_in(
    world: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fast: bool,
) -> None:
    began, other = ("bfloat16", "float32")[:: 1 if fast else -1]
    machine(monkeypatch, fast=fast)
    short = world.settings(tmp_path, dtype="auto", device="auto", num_steps=6)
    first = Trainer(short)

    def train() -> None:
        first.train_step(next(first.packs.from_step(0)))
        first.state.save(3, first.parameters, first.optimizer, first.average)
        first.state.finish()  # it is written while the run goes on

    first._train = train  # type: ignore[method-assign]
    first.run()
    assert settings_of(tmp_path).dtype == began and settings_of(tmp_path).device == "cpu"
    assert f"computing on cpu in {began}" in capsys.readouterr().out

    machine(monkeypatch, fast=not fast)
    second = Trainer(short)
    assert second.step == 3 and str(second.dtype) == f"torch.{began}"
    assert f"in {began}, in which it was begun; {other} is faster" in capsys.readouterr().out
    assert settings_of(tmp_path).dtype == began
    with pytest.raises(ValueError, match=f"dtype was '{began}' and is '{other}'"):
        Trainer(dataclasses.replace(short, dtype=other))


def test_a_run_without_a_state_binds_nothing(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = world.settings(tmp_path, dtype="auto")
    monkeypatch.setattr(Trainer, "_train", lambda self: None)
    for fast, dtype in ((True, "bfloat16"), (False, "float32")):
        machine(monkeypatch, fast=fast)
        trainer = Trainer(short)
        assert str(trainer.dtype) == f"torch.{dtype}"
        trainer.run()
        assert settings_of(tmp_path).dtype == dtype


def test_an_autoencoder_goes_on_in_the_precision_that_it_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, fast=True)
    job = tiny_job(tmp_path, num_steps=2)
    assert train_autoencoder(job)["settings"]["dtype"] == "bfloat16"
    machine(monkeypatch, fast=False)
    assert train_autoencoder(job)["settings"]["dtype"] == "bfloat16"
    assert "in which it was begun" in capsys.readouterr().out
    assert load(AutoencoderJob, tmp_path / "settings.yaml").dtype == "bfloat16"


def dtypes_in(path: Path, *keys: str) -> str:
    value: Any = json.loads(path.read_text())
    for key in keys:
        value = value[key]
    return str(value)


def test_an_evaluation_goes_on_in_the_precision_that_it_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    include = [{"class": "star", "count": 1}]
    prompts.write_text(json.dumps({"tag": "single_object", "include": include, "prompt": "a star"}))
    miniature = ["miniature", *FRESH, "--tasks", "colors", "--out", str(tmp_path / "miniature")]
    drawn = ["generate", "--benchmark", "geneval", "--prompts", str(prompts)]
    generator = ["--generator", "model", "checkpoint=miniature:fresh", "num_flow_steps=1"]
    machine(monkeypatch, fast=True)
    for number, fast in enumerate((True, False), start=1):
        machine(monkeypatch, fast=fast)
        assert staged_eval([*miniature, "--num-per-task", str(number)]) == 0
        more = ["--images-per-prompt", str(number), "--out", str(tmp_path / "made")]
        assert staged_eval([*drawn, *more, *generator, "device=cpu"]) == 0
        said = capsys.readouterr().out
        assert said.count("computing on cpu in bfloat16") == 2
        assert said.count("in which it was begun; float32 is faster here") == (0 if fast else 2)
    assert dtypes_in(tmp_path / "miniature" / "drawn.json", "settings", "dtype") == "bfloat16"
    assert dtypes_in(tmp_path / "made/generation/settings.json", "decides", "dtype") == "bfloat16"
    assert dtypes_in(tmp_path / "made/generation/settings.json", "also", "settings", "dtype") == (
        "bfloat16"
    )
    for command in (
        [*miniature, "--dtype", "float32"],
        [*drawn, "--out", str(tmp_path / "made"), *generator, "device=cpu", "dtype=float32"],
    ):
        with pytest.raises(ValueError, match=r"another.* dtype \(bfloat16, not float32\)"):
            staged_eval(command)


def test_a_generator_is_known_by_the_precision_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody asked before what `auto` is."""
    machine(monkeypatch, fast=False)
    settings = MiniatureSettings(checkpoint="miniature:fresh", device="cpu")
    model = CheckpointGenerator(settings)
    assert model.identity()["dtype"] == "float32"


def test_many_prompts_go_on_in_the_precision_that_they_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["generate", "a photo of a star", *FRESH, "--mode", "one-shot", "--num-images", "2"]
    argv += ["--out", str(tmp_path / "many")]
    machine(monkeypatch, fast=True)
    assert staged(argv) == 0
    machine(monkeypatch, fast=False)
    assert staged(argv) == 0
    said = capsys.readouterr().out
    assert "in bfloat16, in which it was begun; float32 is faster here" in said
    assert "all were drawn before" in said
    assert dtypes_in(tmp_path / "many" / "settings.json", "decides", "dtype") == "bfloat16"
    assert staged([*argv, "--dtype", "float32"]) == 1
    assert "dtype was 'bfloat16' and is 'float32'" in capsys.readouterr().err
    alone = ["generate", "a photo of a star", *FRESH, "--mode", "one-shot"]
    assert staged([*alone, "--out", str(tmp_path / "one")]) == 0
    assert "cpu, float32." in (tmp_path / "one" / "report.html").read_text()


class _Records:
    """No result yet."""

    def finished(self, *, round_: int) -> dict[int, Any]:
        return {}


def test_a_data_job_goes_on_in_the_precision_that_it_began_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = PlanSketchSettings(
        prompts=Prompts(file=Path("prompts.txt")),
        lmm=LmmSettings(model="reader-1", api_key_env=None),
        drawing=DrawingSettings(editor=DiffusersSettings(device="cpu")),
    )
    machine(monkeypatch, fast=True)
    first = settled(job, tmp_path)
    record_settings(first, tmp_path, _Records())  # type: ignore[arg-type]
    machine(monkeypatch, fast=False)
    second = settled(job, tmp_path)
    assert second == first and second.fingerprint == first.fingerprint
    assert second.drawing.editor is not None and second.drawing.editor.dtype == "bfloat16"
    assert "in which it was begun" in capsys.readouterr().out
    given = DiffusersSettings(device="cpu", dtype="float32")
    other = dataclasses.replace(job, drawing=dataclasses.replace(job.drawing, editor=given))
    with pytest.raises(ValueError, match=r"drawing\.editor\.dtype was 'bfloat16'"):
        refuse_other_settings(settled(other, tmp_path), tmp_path)
    miniature = PlanSketchSettings()
    assert settled(miniature, tmp_path / "none") == miniature


@pytest.mark.parametrize(
    ("fast", "kept", "given", "begun", "expected"),
    [
        (True, "bfloat16", "auto", None, "bfloat16"),
        (True, "float32", "auto", None, "float32"),
        (True, "float16", "auto", None, "float32"),
        (False, "bfloat16", "auto", None, "float32"),
        (False, "bfloat16", "auto", "bfloat16", "bfloat16"),
        (False, "float32", "bfloat16", None, "bfloat16"),
    ],
)
def test_who_answers_does_it_as_kept_or_as_begun_or_in_what_is_fast(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fast: bool,
    kept: str,
    given: str,
    begun: str | None,
    expected: str,
) -> None:
    machine(monkeypatch, fast=fast)
    folder = save_tiny(tmp_path / "model")
    if kept != "float32":
        from transformers import LlavaForConditionalGeneration

        model = LlavaForConditionalGeneration.from_pretrained(folder)
        model.to(getattr(torch, kept)).save_pretrained(folder)
    found = LocalAnswerer.load(folder, device="cpu", dtype=given, begun=begun)
    assert str(found.model.dtype) == f"torch.{expected}"
    assert f"computing on cpu in {expected}" in capsys.readouterr().out
    out = tmp_path / "answers.jsonl"
    assert _begun_dtype(out) is None
    for name in ("judge", "scorer"):
        for path in (out, tmp_path / "answers.jsonl.1-of-2"):
            path.write_text(json.dumps({name: f"{found.name}, asked what?"}) + "\n")
            assert _begun_dtype(out) == expected
            path.unlink()


def test_verification_is_in_the_precision_of_the_record(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(monkeypatch, fast=True)
    golden = Path(__file__).parent / "golden" / "bagel_tiny"
    assert staged(["verify", "bagel", str(golden), "--group", "positions", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["dtype"] == "float32" and figures["device"] != "auto"


def test_old_names_of_the_precision_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bf16"):
        from_dict(AutoencoderJob, {"bf16": True})
