"""What only a CUDA device can show; skipped where there is none."""

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import flex_attention

from benchmarks.parts import models, packs
from benchmarks.parts.harness import Setup
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.text_sampling import TextSampling
from staged.model.attention import PackedAttention, attend_rows
from staged.model.flex import FlexAttention
from staged.model.flows import FlowSettings, Guidance
from staged.model.quantizations import Quantization
from staged.model.quantized import multiply, quantize, quantize_experts
from staged.verify import main
from staged.verify.groups import GROUPS
from train.attention import choose_attention
from train.objective import Objective, Supervised, mean_losses
from train.optimizer import make_optimizers
from train.packing import Pack
from train.ranks import Ranks
from train.settings import Attention, OptimizerSettings

pytestmark = pytest.mark.gpu

GOLDEN = Path(__file__).parent / "golden/bagel_tiny"
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def exact_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensor cores round float32 operands to ten bits."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def engine(device: torch.device) -> Engine:
    pytest.importorskip("diffusers", reason="the autoencoder is built by diffusers")
    made = tiny.engine()
    made.codec.autoencoder.to(device)
    return Engine(made.model.to(device), made.codec, made.tokenizer)


@pytest.mark.parametrize("group", list(GROUPS))
def test_group_agrees_with_the_reference(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("diffusers", reason="the autoencoder is built by diffusers")
    code = main(["bagel", str(GOLDEN), "--group", group, "--device", "cuda"])
    assert code == 0, capsys.readouterr().out


def test_text_and_drawings_are_those_of_the_cpu() -> None:
    written, drawn = [], []
    for device in (torch.device("cpu"), CUDA):
        worker = engine(device)
        contexts = [Context(), Context()]
        worker.append_text(contexts, ["a red circle", "a star above a red"])
        texts_only = [context.fork() for context in contexts]
        worker.append_images(contexts, [tiny.picture(1), tiny.picture(2, 8, 12)])
        without_text = [context.fork() for context in contexts]
        sampling = [TextSampling(max_tokens=6), TextSampling(max_tokens=4)]
        written.append([block.ids for block in worker.write(contexts, sampling)])
        drawings = worker.draw(
            contexts,
            without_text,
            texts_only,
            sizes=[(16, 16), (8, 16)],
            seeds=[0, 1],
            settings=[FlowSettings(num_flow_steps=4)] * 2,
        )
        drawn.append(torch.cat([drawing.latents.cpu() for drawing in drawings]))
    assert written[0] == written[1]
    torch.testing.assert_close(drawn[0], drawn[1], rtol=1e-3, atol=1e-4)


needs_float8 = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0),
    reason="float8 is multiplied by GPUs of compute capability 9.0 or more",
)
KINDS = ["int8", pytest.param("float8", marks=needs_float8)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_rows", [1, 16, 300])
def test_a_quantised_product_is_that_of_the_layer_within_rounding(
    kind: Quantization, num_rows: int
) -> None:
    torch.manual_seed(0)
    rows, weight = (torch.randn(n, 512, device=CUDA) for n in (num_rows, 256))
    bias = torch.randn(256, device=CUDA)
    exact = rows @ weight.t() + bias
    found = multiply(
        rows.bfloat16(), *quantize(weight, kind, torch.bfloat16), bias.bfloat16()
    ).float()
    assert (found - exact).norm() / exact.norm() < {"int8": 0.02, "float8": 0.06}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantised_model_is_that_of_the_cpu(kind: Quantization) -> None:
    results = []
    for device in (torch.device("cpu"), CUDA):
        made = engine(device)
        model = made.model.to(torch.bfloat16)
        quantize_experts(model, kind)
        worker = Engine(model, made.codec, made.tokenizer)
        [logits] = worker.append_text([Context()], ["a red circle above a star"])
        results.append(logits.cpu())
    assert (results[1] - results[0]).norm() / results[0].norm() < 0.1


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        (torch.float32, "none"),
        (torch.bfloat16, "none"),
        (torch.bfloat16, "int8"),
        pytest.param(torch.bfloat16, "float8", marks=needs_float8),
    ],
)
def test_company_changes_no_bit(dtype: torch.dtype, kind: Quantization) -> None:
    made = engine(CUDA)
    model = made.model.to(dtype)
    quantize_experts(model, kind)
    worker = Engine(model, made.codec, made.tokenizer)
    # Kernels of float8 may tell rows apart: then each writes alone.
    assert worker.num_text_slots > 1 or kind == "float8", "the kernels tell rows apart"
    contexts = [Context() for _ in range(worker.num_text_slots + 3)]
    prompts = ["a red circle " * (1 + i % 4) for i in range(len(contexts))]
    worker.append_text(contexts, prompts)
    sampling = [
        TextSampling(max_tokens=3 + i % 9, temperature=0.9, seed=i) for i in range(len(contexts))
    ]
    together = worker.write(contexts, sampling)
    nothing = [Context() for _ in contexts]
    sizes, flows = [(16, 16)] * len(contexts), [FlowSettings(num_flow_steps=4)] * len(contexts)
    seeds = range(len(contexts))
    drawn = worker.draw(contexts, nothing, nothing, sizes=sizes, seeds=seeds, settings=flows)
    for row, context in enumerate(contexts):
        assert worker.write([context], [sampling[row]]) == [together[row]]
        [alone] = worker.draw(
            [context], nothing[:1], nothing[:1], sizes=sizes[:1], seeds=[row], settings=flows[:1]
        )
        assert torch.equal(alone.latents, drawn[row].latents)


def test_a_flow_step_never_waits_for_the_device() -> None:
    setup = Setup(device=CUDA, tiny=True)
    worker = models.engine(
        models.build(models.full_config(setup), setup, torch.bfloat16), setup, torch.bfloat16
    )
    context = Context()
    worker.append([context], [[packs.text_only(16)]])
    # All the time with guidance: where it ends a recording begins, which waits.
    flow = FlowSettings(num_flow_steps=6, guidance=Guidance(interval=(0.0, 1.0)))

    def on_step(_row: int, step: int, _estimate: Tensor) -> None:
        replaying = 2 <= step < flow.num_flow_steps  # the second step is the one that is recorded
        torch.cuda.set_sync_debug_mode("error" if replaying else "default")

    try:
        [drawing] = worker.draw(
            [context],
            [Context()],
            [Context()],
            sizes=[(64, 64)],
            seeds=[0],
            settings=[flow],
            on_step=on_step,
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert drawing.pixels.shape == (64, 64, 3)


def test_replayed_steps_are_those_that_are_launched(recwarn: pytest.WarningsRecorder) -> None:
    worker = engine(CUDA)
    plain = Engine(worker.model, worker.codec, worker.tokenizer, shares_calls=False)
    flow = FlowSettings(num_flow_steps=8)  # guidance ends on the way
    drawn = []
    for drawer in (worker, plain):
        context, nothing = [Context()], [Context()]
        drawer.append_text(context, ["a red circle"])
        [drawing] = drawer.draw(
            context, nothing, nothing, sizes=[(16, 16)], seeds=[0], settings=[flow]
        )
        drawn.append(drawing.latents)
    assert worker.graphs.compared and worker.graphs.record is not None
    torch.testing.assert_close(*drawn, rtol=1e-3, atol=1e-4)
    assert not [one for one in recwarn.list if "CUDA graphs" in str(one.message)]


def trained(device: torch.device) -> dict[str, Tensor]:
    """Losses, gradients and weights after a step on a fixed pack."""
    here = Setup(device=torch.device("cpu"), tiny=True)
    config = models.full_config(here)
    model = models.build(config, here, torch.float32)
    layout = packs.pack(here, 300)
    weights = torch.ones(len(layout.velocity_rows))
    pack = Pack(layout, *packs.inputs(layout, config, torch.float32), ("a",) * 2, weights)
    pack = pack.to(device)
    model = model.to(device)
    parameters = dict(model.named_parameters())
    optimizer = make_optimizers(parameters, OptimizerSettings(), torch.float32)
    ce, mse = mean_losses(Objective(model)(pack), pack, Supervised.of(pack))
    (ce + mse).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    gradients = {f"{n}.grad": p.grad.cpu() for n, p in parameters.items() if p.grad is not None}
    optimizer.step(lr=OptimizerSettings().lr)
    weights = {name: p.detach().cpu() for name, p in parameters.items()}
    return {"ce": ce.detach().cpu(), "mse": mse.detach().cpu(), **gradients, **weights}


def test_a_training_step_is_that_of_the_cpu() -> None:
    expected, found = trained(torch.device("cpu")), trained(CUDA)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=5e-5, msg=name)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("queries", [1, 300])
def test_masked_attention_never_writes_its_scores_out(queries: int, dtype: torch.dtype) -> None:
    query, key, value = (
        torch.randn(2, heads, length, 64, device=CUDA).to(dtype)
        for heads, length in ((8, queries), (2, 500), (2, 500))
    )
    mask = torch.rand(2, 1, queries, 500, device=CUDA) < 0.7
    with sdpa_kernel([SDPBackend.MATH]):
        expected = attend_rows(query.float(), key.float(), value.float(), mask)
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]):
        found = attend_rows(query, key, value, mask)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_compiled_flex_attention_is_packed_attention() -> None:
    setup = Setup(device=CUDA, tiny=True)
    layout = packs.pack(setup, 300)
    leaves = [
        torch.randn(layout.num_tokens, heads, 64, device=CUDA, requires_grad=True)
        for heads in (4, 2, 2)
    ]
    towards = torch.randn_like(leaves[0])
    results = []
    for attend in (
        PackedAttention(layout),
        FlexAttention(layout, torch.compile(flex_attention, dynamic=False)),
    ):
        out = attend(0, *leaves)
        results.append([out.detach(), *torch.autograd.grad(out, leaves, towards)])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["flex", "varlen"])
def test_kernels_of_training_have_right_gradients(name: Attention) -> None:
    decoder = models.full_config(Setup(device=CUDA, tiny=False)).transformer
    _, said = choose_attention(name, decoder, CUDA, torch.bfloat16, room=2048, ranks=Ranks())
    assert said == f"attention: {name}, its gradients checked"
