"""The GPU script runs without a GPU at tiny size, and what it counts and compares is right."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_mask

from benchmarks import cpu_attention, engine, gpu, pages
from benchmarks import train as train_benchmark
from benchmarks.parts import arithmetic, middling, models, packs, plain_step
from benchmarks.parts.harness import Recorder, Setup
from benchmarks.parts.resident import ResidentPeak
from staged import protocol
from staged.allocator import keep_freed_memory
from staged.engine.cache import CachedSequence
from staged.model import work
from staged.model.attention import PackedAttention
from staged.model.bagel import Bagel
from staged.model.config_files import read_config
from staged.model.flex import FlexAttention, mask_rule
from staged.trajectory import Inspection, Plan, Refinement

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")

ROOT = Path(__file__).parents[1]
TINY = Setup(device=torch.device("cpu"), tiny=True)


def test_the_script_measures_every_section_from_a_bare_checkout(tmp_path: Path) -> None:
    out = tmp_path / "results" / "tiny.json"
    # Without site's path files an editable install of this package is not found either.
    packages = os.pathsep.join(path for path in sys.path if path.endswith("-packages"))
    script = [ROOT / "benchmarks/gpu.py", "--tiny", "--device=cpu", "--out", out]
    done = subprocess.run(
        [sys.executable, "-S", *script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": packages},
    )
    assert done.returncode == 0, done.stderr
    sections = json.loads(out.read_text())["sections"]
    assert list(sections) == list(gpu.SECTIONS)
    assert sections.pop("compiled")["status"] == "skipped"
    assert {section["status"] for section in sections.values()} == {"ok"}
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.pop("section") for line in lines] == [
        name for name, section in sections.items() for _ in section["measurements"]
    ]
    assert lines == [made for section in sections.values() for made in section["measurements"]]
    values = {line["name"]: line["value"] for line in lines if "value" in line}
    wanted = {
        "matmul_bfloat16", "train_float32", "infer_bfloat16", "flow_guided", "flow_guided_6k",
        "text_to_image", "edit_6k", "decode_batch_16", "autoencoder_decode", "tokens",
        "last_loss", "pack_400", "image_masked", "flex_forward_200",
        "lora", "what_draws", "all_weights",
    }  # fmt: skip
    assert wanted <= values.keys()
    assert values["train_float32"] < 1e-4


def test_a_failing_section_is_recorded_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gpu.SECTIONS, "golden", "benchmarks.parts.missing")
    out = tmp_path / "out.json"
    arguments = ["--tiny", "--device=cpu", f"--out={out}", "--only=golden", "--only=environment"]
    assert gpu.main(arguments) == 1
    sections = json.loads(out.read_text())["sections"]
    assert sections["golden"]["status"] == "failed"
    assert "ModuleNotFoundError" in sections["golden"]["traceback"][-1]
    assert sections["environment"]["status"] == "ok"


def test_a_section_without_its_package_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needy_section.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(gpu.SECTIONS, "golden", "needy_section")
    out = tmp_path / "out.json"
    assert gpu.main(["--tiny", "--device=cpu", f"--out={out}", "--only=golden"]) == 0
    section = json.loads(out.read_text())["sections"]["golden"]
    assert section == {
        "status": "skipped",
        "reason": "needs the package a_package_that_is_not_there",
    }


def test_a_failing_measurement_is_recorded_and_its_section_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.parts import attention

    monkeypatch.setattr(attention, "_LARGEST_DIFFERENCE", 0.0)
    out = tmp_path / "out.json"
    assert gpu.main(["--tiny", "--device=cpu", f"--out={out}", "--only=attention"]) == 1
    section = json.loads(out.read_text())["sections"]["attention"]
    assert section["status"] == "failed" and "image_masked" in section["reason"]
    measurements = {m["name"]: m for m in section["measurements"]}
    assert "ArithmeticError" in measurements["image"]["error"]
    assert measurements["flex_forward_200"]["value"] > 0


def test_no_section_begins_after_the_limit(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ["--tiny", "--device=cpu", f"--out={out}", "--only=golden", "--limit-s=-1"]
    assert gpu.main(arguments) == 0
    assert json.loads(out.read_text())["sections"]["golden"]["status"] == "skipped"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_the_device_asked_for_nothing_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_without_diffusers_the_other_reference_numbers_are_still_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.parts import golden

    monkeypatch.setitem(sys.modules, "diffusers", None)
    record = Recorder("golden")
    golden.run(TINY, record)
    made = {measurement["name"]: measurement for measurement in record.made}
    assert "diffusers" in made["vae_float32"]["skipped"]
    assert "diffusers" in made["infer_float32"]["skipped"]
    assert made["train_float32"]["value"] < 1e-4
    assert made["train_float32"]["comparisons"] > 20


def test_what_is_off_fails_the_golden_section(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.parts import golden

    monkeypatch.setitem(golden._TOLERANCES, torch.float32, 1e-9)
    with pytest.raises(ArithmeticError, match=r"off by more than allowed: torch\.float32"):
        golden.run(TINY, Recorder("golden"))


def test_arithmetic_at_full_size_is_as_published() -> None:
    decoder = read_config(models.FULL).transformer
    assert work.expert_weights(decoder) == pytest.approx(233.0e6, rel=1e-3)
    assert work.linear_flops(decoder, 4096) == pytest.approx(53.5e12, rel=2e-3)
    assert arithmetic.flow_flops(decoder, 4096, 0) == pytest.approx(60e12, rel=0.01)
    assert arithmetic.flow_flops(decoder, 4096, 6000) == pytest.approx(70e12, rel=0.01)
    assert arithmetic.decode_bytes(decoder, []) == pytest.approx(14.1e9, rel=0.01)
    assert arithmetic.decode_bytes(decoder, [1]) - arithmetic.decode_bytes(decoder, []) == 57_344


def test_flex_attention_follows_the_layout() -> None:
    layout = packs.pack(TINY, 300)
    size = layout.num_tokens
    [[mask]] = create_mask(mask_rule(layout, size), None, None, size, size, device="cpu")
    masks = [layout.mask(sample).float() for sample in range(len(layout.sample_lens))]
    assert len(masks) == 2
    assert torch.equal(mask, torch.block_diag(*masks).bool())
    assert work.visible_pairs(layout) == int(mask.sum())
    query, key, value = (torch.randn(size, heads, 16) for heads in (4, 2, 2))
    found = FlexAttention(layout)(0, query, key, value)
    torch.testing.assert_close(found, PackedAttention(layout)(0, query, key, value))


def test_the_stand_in_autoencoder_keeps_what_it_can() -> None:
    config = models.full_config(TINY).autoencoder
    codec = models.LinearAutoencoder(config)
    latents = torch.randn(1, config.latent_channels, 3, 2)
    picture = codec.decode(latents)
    assert picture.shape == (1, 3, 24, 16)
    torch.testing.assert_close(codec.encode(picture), latents)


def test_ways_of_attention_on_a_cpu_agree_and_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cpu_attention.main(["--num-tokens", "600", "--copies", "2", "--repeats", "1"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["pack"], line["dtype"]) for line in lines] == [
        (pack, dtype) for pack in ("one_shot", "staged") for dtype in ("bfloat16", "float32")
    ]
    ways = {"whole_sdpa", "whole_products", "blocks_sdpa", "blocks_products", "trainer"}
    assert all(line["milliseconds"].keys() == ways for line in lines)


def test_a_way_that_computes_something_else_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unscaled(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        return cpu_attention.products(2 * query, key, value, mask)

    monkeypatch.setitem(cpu_attention.KERNELS, "products", unscaled)
    assert cpu_attention.main(["--num-tokens", "100", "--repeats", "1"]) == 1
    assert "whole_products and whole_sdpa differ" in capsys.readouterr().err


def test_ways_of_keeping_contexts_agree_and_are_timed(capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--num-contexts", "3", "--num-tokens", "2", "--repeats", "1"]
    assert pages.main(few) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["work"] for line in lines] == ["read", "write", "draw"]
    ways = {"in_place", "gathered", "copied"}
    assert all(line["milliseconds"].keys() == ways for line in lines)


def test_a_way_of_keeping_contexts_that_loses_a_token_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    read = CachedSequence.read

    def shifted(
        self: CachedSequence, layer: int, num_tokens: int | None = None
    ) -> tuple[Tensor, Tensor]:
        keys, values = read(self, layer, num_tokens)
        return (keys, values) if self.in_place else (keys.roll(1, 0), values)

    monkeypatch.setattr(CachedSequence, "read", shifted)
    assert pages.main(["--num-contexts", "3", "--num-tokens", "2", "--repeats", "1"]) == 1
    assert "read: gathered and copied differ" in capsys.readouterr().err


def test_the_loop_draws_the_same_with_nothing_kept_alone_and_side_by_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert engine.main(["--requests", "1", "2", "--rounds", "1", "--flow-steps", "1"]) == 0
    one, two = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert one["engine_over_plain"] > 0 and "plain" not in two
    assert two["unbatched"]["texts"] == two["engine"]["texts"] >= 2


def test_a_way_of_the_loop_that_draws_otherwise_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = engine.Requests.run

    def other(self: engine.Requests, together: int) -> engine.Run:
        made = run(self, together)
        if together > 1:
            made.trajectories = made.trajectories[::-1]
        return made

    monkeypatch.setattr(engine.Requests, "run", other)
    assert engine.main(["--requests", "2", "--rounds", "1", "--flow-steps", "1"]) == 1
    assert "2 requests: unbatched and engine differ" in capsys.readouterr().err


@pytest.fixture
def small_middling(monkeypatch: pytest.MonkeyPatch) -> None:
    config = middling.config()
    small = replace(
        config,
        transformer=replace(
            config.transformer,
            hidden_size=64,
            intermediate_size=96,
            num_layers=1,
            num_heads=2,
            num_kv_heads=1,
            head_dim=32,
        ),
        max_latent_size=6,
    )
    monkeypatch.setattr(middling, "config", lambda: small)


def test_the_middling_model_has_a_hundred_million_weights() -> None:
    with torch.device("meta"):
        model = Bagel(middling.config())
    assert 0.95e8 < sum(weight.numel() for weight in model.parameters()) < 1.05e8


def test_the_middling_model_computes_in_the_precision_asked_for(small_middling: None) -> None:
    made = middling.engine(torch.bfloat16)
    assert made.model.embed_tokens.weight.dtype == torch.bfloat16
    assert made.codec.autoencoder.dtype == torch.float32


def test_a_model_of_random_weights_takes_all_the_steps_of_the_loop(small_middling: None) -> None:
    with engine.opened("100m", "float32") as origin:
        run = engine.Requests(origin, 6, num_flow_steps=1, max_rounds=1).run(6)
    ways = Counter(
        " ".join(type(step).__name__ for step in trajectory.steps)
        for trajectory in run.trajectories
    )
    seen = "Plan Sketch Inspection"
    assert ways.keys() == {f"{seen} Stop", f"{seen} Refinement Sketch Stop"}
    steps = [step for trajectory in run.trajectories for step in trajectory.steps]
    texts = [protocol.write(s) for s in steps if isinstance(s, Plan | Inspection | Refinement)]
    encode = origin.engine.tokenizer.encode
    assert run.written_tokens == sum(len(encode(text)) for text in texts)


def test_the_loop_of_random_weights_is_the_same_in_every_way(
    small_middling: None, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--requests", "1", "--rounds", "1", "--flow-steps", "1"]
    assert engine.main(["--model", "100m", *few]) == 0
    [found] = map(json.loads, capsys.readouterr().out.splitlines())
    assert found["model"] == "100m"
    assert found["plain"]["texts"] == found["unbatched"]["texts"] == found["engine"]["texts"] >= 2


@pytest.mark.skipif(sys.platform != "linux", reason="memory is told by /proc of Linux")
def test_peak_memory_is_that_since_it_was_last_asked_for() -> None:
    keep_freed_memory()  # as the benchmark does
    before = ResidentPeak().gib()
    torch.ones(2**27)  # half a gibibyte, free again
    memory = ResidentPeak()
    after = memory.gib()
    torch.ones(2**26)
    during = memory.gib()
    assert before and after and during
    assert after - before < 0.1
    assert 0.2 < during - after < 0.3


def test_the_plain_step_computes_what_the_trainer_computes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses and gradients of every weight, or the comparison of their speed would mean nothing."""
    out = tmp_path / "train.json"
    arguments = ["--tiny", "--tokens", "800", "--rounds", "1", "--out", str(out)]
    assert train_benchmark.main(arguments) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line.get("step") for line in lines] == ["ours", "plain", None]
    assert json.loads(out.read_text()) == lines[-1]
    real = plain_step._mlp
    monkeypatch.setattr(plain_step, "_mlp", lambda expert, x: 1.01 * real(expert, x))
    assert train_benchmark.main(arguments) == 1
    assert "differ" in capsys.readouterr().err
