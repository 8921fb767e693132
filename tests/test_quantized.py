"""Weights of a byte each: what they change, what they take, and what is refused."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_engine_memory
import tiny
import torch
import torch.nn.functional as F
from allocations import peak_bytes
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import staged
from eval.miniature import main as eval_miniature
from staged.cli import main as command
from staged.engine.company import Company
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.memory import Footprint
from staged.engine.summing import Product, products_of, sums_alike
from staged.engine.text_sampling import TextSampling
from staged.export import merge_lora as merge_command
from staged.generate.admission import admit
from staged.generate.lengths import Lengths
from staged.generate.model import DrawingModel
from staged.generate.settings import DrawSettings
from staged.model import checkpoint
from staged.model.adapter import put_adapter, read_adapter, write_adapter
from staged.model.bagel import Bagel
from staged.model.codec import ImageSizes
from staged.model.division import Undivided
from staged.model.flows import FlowSettings
from staged.model.keys import to_upstream_key
from staged.model.lora import LowRank, add_lora, lora_layers, merge_lora
from staged.model.open import open_checkpoint
from staged.model.quantizations import Quantization
from staged.model.quantized import (
    QuantizedLinear,
    multiply,
    quantization_of,
    quantize,
    quantize_experts,
    quantized_layers,
    require_quantization,
)

KINDS: tuple[Quantization, ...] = ("int8", "float8")
CPU = torch.device("cpu")
TOLERANCE = {"int8": 0.02, "float8": 0.06}
"""Root of the mean squared error of a product over that of its values; rounding explains 0.008 and
0.04 of normal numbers."""
ONE_SHOT = ["a photo of a star", "--checkpoint", "miniature:fresh", "--mode", "one-shot"]
QUICK = [*ONE_SHOT, "--flow-steps", "2"]


def save(folder: Path, made: Engine | None = None) -> Path:
    made = made or tiny.engine(1)
    return checkpoint.save(
        folder,
        model=made.model,
        autoencoder=made.codec.autoencoder,
        tokenizer=made.tokenizer,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("checkpoint") / "tiny")


def engine(kind: Quantization, dtype: torch.dtype = torch.bfloat16) -> Engine:
    """On a CPU, float8 too: torch emulates there what the GPU's kernel does."""
    made = tiny.engine(1)
    model = made.model.to(dtype)
    quantize_experts(model, kind)
    return Engine(model, made.codec, made.tokenizer)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).detach().norm() / exact.detach().norm())


@pytest.mark.parametrize("kind", KINDS)
def test_a_product_is_that_of_the_layer_within_rounding(kind: Quantization) -> None:
    # Rows and outputs have scales of their own: none is lost beside a large one.
    torch.manual_seed(0)
    of_rows, of_outputs = torch.logspace(-3, 3, 40)[:, None], torch.logspace(-3, 3, 96)
    rows, wide = torch.randn(40, 256) * of_rows, torch.randn(96, 256) * of_outputs[:, None]
    wide[7], bias = 0.0, of_outputs.clone()  # and of zeros there is nothing to scale by
    weight, scale = quantize(wide, kind, torch.float32)
    assert weight.element_size() == 1 and torch.isfinite(scale).all()
    found, exact = multiply(rows, weight, scale, bias), F.linear(rows, wide, bias)
    assert torch.equal(found[:, 7], exact[:, 7])
    assert multiply(rows[:0], weight, scale, bias).shape == (0, 96)
    pairs = zip((found - bias) / of_outputs, (exact - bias) / of_outputs, strict=True)
    assert 0 < max(error(*pair) for pair in pairs) < TOLERANCE[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_both_experts_are_rounded_and_nothing_else(kind: Quantization) -> None:
    before, after = tiny.engine(1).model, engine(kind, torch.float32).model
    rounded = dict(quantized_layers(after))
    assert len(rounded) == 3 * 2 * 7  # layers, experts, weights
    assert all(name.startswith("layers.") for name in rounded)
    ours, theirs = dict(after.named_parameters()), dict(before.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        if name.removesuffix(".weight") in rounded and name.endswith(".weight"):
            layer = rounded[name.removesuffix(".weight")]
            assert isinstance(layer, QuantizedLinear) and layer.weight.element_size() == 1
            found = layer.weight.float() * layer.weight_scale.float()[:, None]
            assert 0 < error(found, weight) < TOLERANCE[kind]
        else:
            assert torch.equal(ours[name], weight)


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_says_and_draws_nearly_the_same(kind: Quantization) -> None:
    results = []
    for made in (engine("none"), engine(kind)):
        context = Context()
        made.append_images([context], [tiny.picture(0)])
        [logits] = made.append_text([context], ["a red circle above a star"])
        flow = FlowSettings(num_flow_steps=4)
        options = {"sizes": [(16, 16)], "seeds": [0], "settings": [flow]}
        [drawn] = made.draw([context], [Context()], [context.fork()], **options)  # type: ignore[arg-type]
        results.append((logits, drawn.latents))
    for exact, found in zip(*results, strict=True):
        # Seven layers of products in turn, of a model whose weights are large and random.
        assert 0 < error(found, exact) < 6 * TOLERANCE[kind]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_takes_the_bytes_that_are_counted(
    folder: Path, kind: Quantization, dtype: torch.dtype
) -> None:
    loaded = checkpoint.load(folder, dtype=dtype, quantization=kind)
    made = Engine(loaded.model, loaded.codec, tiny.tokenizer())
    tensors = [*loaded.model.state_dict().values(), *loaded.autoencoder.state_dict().values()]
    assert made.footprint.quantization == kind
    assert sum(tensor.nbytes for tensor in tensors) == made.footprint.weights


def test_the_full_size_model_takes_half_the_memory_and_more_trajectories_come_in() -> None:
    full, sizes = test_engine_memory.FULL, ImageSizes.of(test_engine_memory.FULL)
    base = Footprint(config=full, sizes=sizes, dtype=torch.bfloat16, device=torch.device("cuda"))
    gib, let_in = {}, {}
    for kind in ("none", *KINDS):
        one = replace(base, quantization=kind)
        gib[kind] = round(one.weights / 2**30, 1)
        lengths = Lengths(usual=20_000, longest=60_000, shortest=10_000)
        room = one.promised(40 * 2**30) - one.weights
        options = {"num_writing": 16, "text": 1000, "page_size": 64}
        let_in[kind] = admit(None, one, lengths, room=room, **options).batch_size
    assert gib == {"none": 27.5, "int8": 15.4, "float8": 15.4}
    assert let_in["none"] < let_in["float8"] <= let_in["int8"]


def test_a_call_takes_no_more_than_it_is_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("staged.model.transformer", "staged.engine.memory"):
        monkeypatch.setattr(f"{module}.MAX_MLP_TOKENS", 256)
    made = test_engine_memory.engine(torch.bfloat16)
    quantize_experts(made.model, "int8")
    side = test_engine_memory.SIDE
    promise = made.footprint.working(0)
    took = peak_bytes(lambda: made.append_images([Context()], [tiny.picture(0, side, side)]))
    assert promise / 4 < took <= promise


def test_weights_are_rounded_one_by_one_while_they_are_read(tmp_path: Path) -> None:
    """Never is there a model of full precision, not for a moment."""
    made = test_engine_memory.engine(torch.float32)
    folder, wide = save(tmp_path / "wide", made), made.model
    largest = max(tensor.nbytes for tensor in wide.state_dict().values())
    loaded: list[checkpoint.LoadedBagel] = []

    def load() -> None:
        loaded.append(checkpoint.load(folder, quantization="int8"))

    took = peak_bytes(load)
    kept = [loaded[0].model, loaded[0].autoencoder]
    kept_bytes = sum(t.nbytes for module in kept for t in module.state_dict().values())
    # The file is mapped into memory, which counts as memory here, and is none of the device's.
    mapped = (folder / checkpoint.WEIGHTS[0]).stat().st_size
    assert kept_bytes <= took <= kept_bytes + mapped + 2 * largest
    assert took < sum(tensor.nbytes for tensor in wide.state_dict().values()) + mapped


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_rounded_from_what_is_stored(folder: Path, kind: Quantization) -> None:
    """And not from bfloat16, in which the model computes."""
    loaded = checkpoint.load(folder, dtype=torch.bfloat16, quantization=kind)
    stored = load_file(folder / checkpoint.WEIGHTS[0])
    for name, layer in quantized_layers(loaded.model):
        assert isinstance(layer, QuantizedLinear)
        wide = stored[to_upstream_key(f"{name}.weight")]
        weight, scale = quantize(wide, kind, torch.bfloat16)
        assert torch.equal(layer.weight.view(torch.uint8), weight.view(torch.uint8))
        assert torch.equal(layer.weight_scale, scale)
        assert layer.bias is None or layer.bias.dtype == torch.bfloat16


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_told_though_bytes_hide_it(
    folder: Path, tmp_path: Path, bad: float
) -> None:
    damaged = save(tmp_path / "damaged")
    tensors = load_file(damaged / checkpoint.WEIGHTS[0])
    name = to_upstream_key("layers.1.gen.up_proj.weight")
    tensors[name][3, 5] = bad
    save_file(tensors, damaged / checkpoint.WEIGHTS[0])
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"not finite .*mlp_moe_gen\.up_proj\.weight"):
            checkpoint.load(damaged, quantization=kind)


# --- company ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_company_changes_no_bit(kind: Quantization) -> None:
    made = engine(kind)
    contexts = [Context() for _ in range(4)]
    made.append_text(contexts, ["a red circle " * (1 + i % 3) for i in range(4)])
    sampling = [TextSampling(max_tokens=3 + i, temperature=0.9, seed=i) for i in range(4)]
    flow = FlowSettings(num_flow_steps=3)
    nothing = [Context() for _ in contexts]
    together = made.write(contexts, sampling)
    sizes = [(16, 16), (8, 16), (16, 16), (16, 8)]
    drawn = made.draw(contexts, nothing, nothing, sizes=sizes, seeds=range(4), settings=[flow] * 4)
    for row, context in enumerate(contexts):
        assert made.write([context], [sampling[row]]) == [together[row]]
        [alone] = made.draw(
            [context], nothing[:1], nothing[:1], sizes=sizes[row : row + 1], seeds=[row],
            settings=[flow],
        )  # fmt: skip
        assert torch.equal(alone.latents, drawn[row].latents)


def test_the_trial_multiplies_as_quantised_layers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """What kernels do with float8 says nothing of what they do with bfloat16, nor the reverse."""
    expectations: dict[Quantization, Product] = {
        "int8": Product(32, 48, False),
        "float8": Product(32, 48, False, "float8"),
    }
    for kind, expected in expectations.items():
        layer = engine(kind).model.layers[0]
        assert products_of([layer.gen.up_proj]) == {expected}  # type: ignore[union-attr]
    exact = F.scaled_mm

    def by_row(x: Tensor, weight: Tensor, step: Tensor, *more: Any, **options: Any) -> Tensor:
        """As some CPUs' kernels do of themselves, and some do not."""
        rows = zip(x.split(1), step.split(1), strict=True)
        return torch.cat([exact(row, weight, one, *more, **options) for row, one in rows])

    def by_number(x: Tensor, weight: Tensor, step: Tensor, *more: Any, **options: Any) -> Tensor:
        half = 16 if len(x) > 2 else 32
        parts = [(x[:, :half], weight[:half])] + [(x[:, half:], weight[half:])] * (half < 32)
        padded = [  # with zeros, which change no sum: kernels want whole rows
            by_row(F.pad(a.float(), (0, 32 - a.shape[1])).to(x.dtype),
                   F.pad(b.float(), (0, 0, 0, 32 - len(b))).t().contiguous().to(x.dtype).t(),
                   step, *more, **options)
            for a, b in parts
        ]  # fmt: skip
        return sum(padded[1:], padded[0])

    like = torch.zeros(1, dtype=torch.bfloat16)
    product = Product(32, 48, False, "float8")
    monkeypatch.setattr(F, "scaled_mm", by_row)
    assert sums_alike(product, [2, 1], like)
    monkeypatch.setattr(F, "scaled_mm", by_number)
    assert not sums_alike(product, [2, 1], like)
    made = engine("float8")
    assert not Company(made.model, made.special).changes_nothing([((4, 4), 1)] * 2)


# --- LoRA ---------------------------------------------------------------------------------------


def a_lora(folder: Path, base: Path) -> Path:
    model = checkpoint.load(base).model
    names = ["layers.0.gen.q_proj", "layers.2.und.down_proj"]
    add_lora(model, dict.fromkeys(names, LowRank(rank=2, scale=2.0)), seed=0)
    for layer in lora_layers(model).values():
        nn.init.normal_(layer.lora_b, std=0.2)
    return write_adapter(folder, model, base=str(base))


@pytest.mark.parametrize("kind", KINDS)
def test_a_lora_stands_beside_rounded_weights_as_beside_whole_ones(
    folder: Path, tmp_path: Path, kind: Quantization
) -> None:
    lora = a_lora(tmp_path / "lora", folder)
    plain = checkpoint.load(folder, dtype=torch.bfloat16, quantization=kind).model
    model = deepcopy(plain)
    if kind == "int8":
        options: dict[str, Any] = {"dtype": torch.bfloat16, "quantization": kind}
        model = open_checkpoint(str(folder), lora=lora, **options).model
    else:  # which a checkpoint is opened in on a GPU alone
        put_adapter(model, read_adapter(lora))
    rows = torch.randn(5, 32).bfloat16()
    adapter = read_adapter(lora)
    for name, layer in lora_layers(model).items():
        assert quantization_of(layer.weight) == kind
        assert layer.lora_a.dtype == torch.bfloat16
        x = rows if layer.in_features == 32 else torch.randn(5, 48).bfloat16()
        a, b = (adapter.tensors[f"{name}.{half}"].float() for half in ("lora_a", "lora_b"))
        expected = plain.get_submodule(name)(x).float() + 2.0 * (x.float() @ a.t()) @ b.t()
        assert error(layer(x), expected) < 0.02
    assert len(dict(quantized_layers(model))) == len(dict(quantized_layers(plain)))
    put_adapter(plain, adapter)  # without a dtype: the model's, not the bytes'
    assert {layer.lora_b.dtype for layer in lora_layers(plain).values()} == {torch.bfloat16}
    with pytest.raises(ValueError, match=f"rounded to {kind} cannot be merged with a LoRA"):
        merge_lora(model)


def test_rounded_weights_are_never_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"rounded to int8 cannot be saved, and layers\.0\.und"):
        save(tmp_path / "again", engine("int8"))
    assert not (tmp_path / "again").exists()
    # Commands that write checkpoints know no such option.
    with pytest.raises(SystemExit):
        merge_command(["miniature:base", "--quantization", "int8", "--out", str(tmp_path / "a")])


# --- what asks for it ---------------------------------------------------------------------------


def test_float8_is_refused_where_it_is_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="quantization 'int4'; expected one of none, int8, float8"):
        require_quantization("int4", CPU, torch.bfloat16)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"9\.0 or more \(H100.*device is cpu; int8 works on any"):
        require_quantization("float8", CPU, torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    with pytest.raises(ValueError, match="the device is NVIDIA A100"):
        require_quantization("float8", torch.device("cuda"), torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    require_quantization("float8", torch.device("cuda"), torch.bfloat16)
    with pytest.raises(ValueError, match="adds up in bfloat16, and dtype is float32"):
        require_quantization("float8", torch.device("cuda"), torch.float32)


class Halves(Undivided):
    """A division, as training may have."""


@pytest.mark.parametrize("source", ["miniature:base", "miniature:fresh", "a folder", "a LoRA"])
def test_however_a_checkpoint_is_opened_it_refuses_before_weights_are_read(
    source: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what generates asked; others came to it within a product, or drew a model first."""
    if source.startswith("a "):
        source = str(folder if source == "a folder" else a_lora(tmp_path / "lora", folder))
    monkeypatch.setattr("staged.model.checkpoint.StoredWeights", None)
    monkeypatch.setattr("staged.shapes.miniature.fresh", None)
    bfloat16 = torch.bfloat16
    with pytest.raises(ValueError, match=r"quantization float8 takes a GPU .* device is cpu"):
        open_checkpoint(source, dtype=bfloat16, quantization="float8")
    with pytest.raises(ValueError, match="quantization 'int4'; expected"):
        open_checkpoint(source, quantization="int4")  # type: ignore[arg-type]
    # A model with a LoRA, and one that is not read, were parted after they were rounded.
    with pytest.raises(ValueError, match="quantization int8 takes a whole model, and this one is"):
        open_checkpoint(source, quantization="int8", division=Halves())


def test_what_is_divided_is_not_rounded(folder: Path) -> None:
    """An assertion, which python -O takes for granted."""
    with pytest.raises(ValueError, match="give quantization none, or no division"):
        checkpoint.load(folder, quantization="int8", division=Halves())


def test_float8_takes_no_layers_of_odd_sizes() -> None:
    decoder = replace(tiny.CONFIG.transformer, intermediate_size=40)
    model = Bagel(replace(tiny.CONFIG, transformer=decoder))
    with pytest.raises(ValueError, match="multiples of 16, and this model has some of 40; int8"):
        quantize_experts(model, "float8")
    assert not list(quantized_layers(model))
    quantize_experts(model, "int8")


@pytest.mark.parametrize(
    "argv",
    [
        ["generate", "a star", "--quantization", "float8"],
        ["serve", "quantization=float8", "port=0"],
        ["eval", "miniature", "--checkpoint", "miniature:base", "--quantization", "float8"],
        ["eval", "skills", "--checkpoint", "miniature:base", "--quantization", "float8"],
    ],
)
def test_every_command_refuses_it_before_weights_are_read(
    argv: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("staged.model.checkpoint.load", None)
    out = f"out={tmp_path / 'out'}" if argv[0] == "serve" else f"--out={tmp_path / 'out'}"
    assert command([*argv, out]) == 1
    assert "quantization float8 takes a GPU of compute capability" in capsys.readouterr().err


def test_the_python_interface_draws_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="float8 takes a GPU"):
        staged.load("miniature:fresh", quantization="float8")
    model = staged.load("miniature:fresh", quantization="int8", mode="one-shot", num_flow_steps=1)
    drawn = model.draw("a photo of a star")
    assert drawn.last_sketch is not None
    inner = model._model.like(DrawSettings(checkpoint="x", lora=Path("y"), quantization="none"))
    assert (inner.settings.quantization, inner.settings.lora) == ("int8", None)
    assert "int8" in model.settings.drawn_by


def test_what_was_drawn_before_there_was_a_choice_goes_on() -> None:
    whole, rounded = DrawSettings(checkpoint="x"), DrawSettings(checkpoint="x", quantization="int8")
    assert "quantization" not in whole.decides() and whole.drawn_by == "x"
    assert rounded.decides() == {**whole.decides(), "quantization": "int8"}


def test_a_model_that_does_not_fit_is_told_of_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("staged.generate.admission.memory_of", lambda _: 1000)
    told: dict[Quantization, bool] = {"none": True, "int8": False}
    for kind, expected in told.items():
        model = DrawingModel(DrawSettings(checkpoint="miniature:fresh", quantization=kind))
        with pytest.raises(ValueError, match="GiB of weights") as refused:
            model.admit()
        assert ("quantization int8 takes a byte" in str(refused.value)) is expected


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        (["--quantization", "int8"], [], "quantization was 'int8' and is None"),
        ([], ["--quantization", "int8"], "quantization was None and is 'int8'"),
        # The same fault of another setting that is written down only where it is used.
        (
            ["--mode", "staged", "--max-text-tokens", "4", "--max-redraws", "2"],
            ["--mode", "staged", "--max-text-tokens", "4"],
            "max_redraws was 2",
        ),
    ],
)
def test_a_folder_goes_on_only_in_the_same(
    first: list[str], then: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only the folder had a setting of was not compared: it went on without a word."""
    out = ["--out", str(tmp_path)]
    command(["generate", *QUICK, *first, *out])
    monkeypatch.setattr("staged.generate.role_choice.open_checkpoint", None)
    with pytest.raises(ValueError, match=told):
        from staged.generate.command import main

        main([*QUICK, *then, *out])


def test_an_evaluation_names_it_and_goes_on_only_in_the_same(tmp_path: Path) -> None:
    argv = ["--checkpoint", "miniature:fresh", "--flow-steps", "1", "--tasks", "colors"]
    argv += ["--num-per-task", "1", "--out", str(tmp_path)]
    assert eval_miniature([*argv, "--quantization", "int8"]) == 0
    assert "miniature:fresh in int8" in (tmp_path / "result.json").read_text()
    with pytest.raises(ValueError, match=r"another .*quantization \(int8, not None\)"):
        eval_miniature(argv)
