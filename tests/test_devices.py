"""Nothing forgets which device it works on: the model, the engine, training, the benchmark.

Run on an accelerator that does not exist (see `pretend`), so that a missing `.to(device)` shows
on machines without one.
"""

import importlib

import pytest
import tiny
import torch
from pretend import DEVICE, Elsewhere, accelerator, move
from torch import Tensor, nn

from benchmarks.gpu import SECTIONS
from benchmarks.parts import models, packs
from benchmarks.parts.harness import Recorder, Setup
from staged.engine.context import Context
from staged.engine.engine import Engine
from staged.engine.sampling import Drawing, TextBlock
from staged.engine.text_sampling import TextSampling
from staged.model.attention import attend_rows
from staged.model.bagel import Bagel
from staged.model.config import BagelConfig
from staged.model.flows import FlowSettings
from train.ema import WeightAverage
from train.objective import Objective, Supervised, mean_losses, task_sums
from train.packing import Pack


def home(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, Elsewhere), "the result does not lie on the accelerator"
    return tensor.held


def test_the_pretended_accelerator_refuses_to_meet_the_cpu() -> None:
    with accelerator() as device:
        there = torch.arange(3, device=device)
        assert home(there + 1).tolist() == [1, 2, 3]
        assert (there + torch.tensor(1)).device == device  # a scalar may come from anywhere
        with pytest.raises(RuntimeError, match="mixes"):
            there + torch.arange(3)
        with pytest.raises(RuntimeError, match="mixes"):
            there[torch.tensor([0, 1])]
        assert there.to("cpu").device.type == "cpu"
        assert torch.tensor([1.0], device=device).device == device


def work(engine: Engine) -> tuple[list[Tensor], list[TextBlock], list[Drawing]]:
    """Read words and pictures, write, and draw, two contexts of different lengths at once."""
    contexts = [Context(), Context()]
    logits = engine.append_text(contexts, ["a red circle", "a star above a red"])
    texts_only = [context.fork() for context in contexts]
    engine.append_images(contexts, [tiny.picture(1), tiny.picture(2, 8, 12)])
    without_text = [context.fork() for context in contexts]
    sampling = [TextSampling(max_tokens=5), TextSampling(max_tokens=7, temperature=1, top_p=0.9)]
    blocks = [block for block in engine.write(contexts, sampling)]
    drawings = engine.draw(
        contexts,
        without_text,
        texts_only,
        sizes=[(16, 16), (8, 16)],
        seeds=[0, 1],
        settings=[FlowSettings(num_flow_steps=3)] * 2,
        on_step=lambda row, step, estimate: None,
    )
    return logits, blocks, drawings


def away(engine: Engine) -> Engine:
    move(engine.model)
    move(engine.codec.autoencoder)
    return Engine(engine.model, engine.codec, engine.tokenizer)


def test_the_engine_gives_the_same_on_an_accelerator() -> None:
    logits, blocks, drawings = work(tiny.engine())
    with accelerator():
        found_logits, found_blocks, found_drawings = work(away(tiny.engine()))
    assert found_blocks == blocks
    for found, expected in zip(found_logits, logits, strict=True):
        torch.testing.assert_close(home(found), expected)
    for found, expected in zip(found_drawings, drawings, strict=True):
        torch.testing.assert_close(home(found.latents), expected.latents)


def test_the_engine_keeps_to_bfloat16() -> None:
    """The types that a full-size model runs in; sums and times stay float32 inside."""
    with accelerator():
        engine = tiny.engine()
        engine.model.to(torch.bfloat16)
        engine.codec.autoencoder.to(torch.bfloat16)
        _, _, drawings = work(away(engine))
    assert all(home(drawing.latents).isfinite().all() for drawing in drawings)


def passed(model: Bagel, pack: Pack) -> dict[str, Tensor]:
    """Losses, gradients and averaged weights of one pass, as the trainer computes them."""
    average = WeightAverage(dict(model.named_parameters()), 0.9)
    losses = Objective(model)(pack)
    ce, mse = mean_losses(losses, pack, Supervised.of(pack))
    (ce + mse).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    average.update(model.parameters(), 0)
    assert task_sums(losses, pack).keys() == {"ce/a", "mse/a"}
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"ce": ce, "mse": mse, **gradients}


def test_a_training_pass_gives_the_same_on_an_accelerator() -> None:
    config: BagelConfig = models.full_config(Setup(device=torch.device("cpu"), tiny=True))
    here = Setup(device=torch.device("cpu"), tiny=True)
    model = models.build(config, here, torch.float32)
    layout = packs.pack(here, 300)
    weights = torch.ones(len(layout.velocity_rows))
    pack = Pack(layout, *packs.inputs(layout, config, torch.float32), ("a",) * 2, weights)
    expected = passed(model, pack)
    model.zero_grad()
    with accelerator():
        move(model)
        found = passed(model, pack.to(DEVICE))
    assert found.keys() == expected.keys() and len(found) > 50
    for name, tensor in expected.items():
        torch.testing.assert_close(home(found[name]), tensor, msg=name)


@pytest.mark.parametrize(
    "section",
    [
        "layers",
        pytest.param("golden", marks=pytest.mark.slow),
        pytest.param("generation", marks=pytest.mark.slow),
    ],
)
def test_a_section_of_the_benchmark_runs_on_an_accelerator(section: str) -> None:
    record = Recorder(section)
    with accelerator():
        importlib.import_module(SECTIONS[section]).run(Setup(device=DEVICE, tiny=True), record)
    assert record.made and not record.failed


@pytest.mark.parametrize("queries", [1, 5])
def test_masked_attention_is_the_same_for_accelerators(queries: int) -> None:
    """Fused kernels want another form of it, without shared key heads."""
    query, key, value = (
        torch.randn(2, heads, length, 8) for heads, length in ((6, queries), (3, 7), (3, 7))
    )
    mask = torch.rand(2, 1, queries, 7) < 0.7
    mask[..., 0] = True
    expected = attend_rows(query, key, value, mask)
    with accelerator():
        found = attend_rows(*(Elsewhere(tensor) for tensor in (query, key, value, mask)))
    torch.testing.assert_close(home(found), expected)
