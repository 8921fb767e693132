"""Group infer: contexts that grow, greedy text, and drawing under five guidance settings."""

from collections.abc import Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, models
from torch import Tensor

from staged.engine.context import ChunkAttention, Context
from staged.engine.engine import Engine
from staged.engine.text_sampling import TextSampling
from staged.model.autoencoder import latents_from_tokens
from staged.model.codec import ImageCodec, ImageSizes
from staged.model.flows import FlowSettings, Guidance
from staged.model.images import to_levels
from staged.model.layout import lay_out
from staged.model.tokenizer import SPECIAL, BagelTokenizer
from staged.sequence import text_block
from staged.verify.comparison import Comparisons
from staged.verify.golden import Golden

__all__ = ["infer"]


class _RecordedSize(ImageCodec):
    """The codec with what the description fixes: the ViT copy's size."""

    recorded_size: tuple[int, int]  # width, height

    def copy_sizes(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        return super().copy_sizes(height, width)[0], self.recorded_size


class _RecordedNoise(Engine):
    """The engine with what the description fixes: the noise."""

    recorded_noise: Tensor

    def noise(self, seed: int, num_tokens: int) -> Tensor:
        assert len(self.recorded_noise) == num_tokens
        return self.recorded_noise


@torch.inference_mode()
def infer(golden: Golden, results: Comparisons) -> None:
    """Append a prompt, an image and a plan, write greedily, then draw."""
    engine = _engine(golden)
    inputs = golden.description["infer_inputs"]
    prompt, plan = ([text_block(inputs[name])] for name in ("prompt", "plan"))
    context = Context()
    engine.append([context], [prompt])
    _compare_context(golden, "after_prompt", context, results)
    texts_only = context.fork()
    engine.append_images([context], [golden.tensor("infer.image_u8").numpy()])
    _compare_context(golden, "after_image", context, results)
    without_text = context.fork()
    engine.append([context], [plan])
    _compare_context(golden, "after_plan", context, results)
    engine.append([texts_only], [plan])
    _compare_context(golden, "cfg_text_context", without_text, results)
    _compare_context(golden, "cfg_img_context", texts_only, results)
    _compare_text(golden, engine, context, results)
    for case in golden.description["flow"]:
        _compare_drawing(golden, engine, (context, without_text, texts_only), case, results)


def _engine(golden: Golden) -> _RecordedNoise:
    sizes = golden.description["config"]
    codec = _RecordedSize(
        golden.loaded.autoencoder,
        golden.loaded.config,
        sizes=ImageSizes(latent_max=max(sizes["img_hw"]), latent_min=min(sizes["img_hw"])),
    )
    height, width = sizes["vit_hw"][0]
    codec.recorded_size = (width, height)
    engine = _RecordedNoise(golden.loaded.model, codec, _tokenizer(golden))
    engine.recorded_noise = golden.tensor("infer.init_noise")
    return engine


def _tokenizer(golden: Golden) -> BagelTokenizer:
    """A tokenizer of the described ids: the numbers themselves, and the framing tokens."""
    special = golden.special
    vocabulary = {
        str(number): number for number in range(golden.description["config"]["vocab_size"])
    }
    _, text_start, text_end, image_start, image_end = SPECIAL
    vocabulary[text_start] = special.text_start
    vocabulary[text_end] = special.text_end
    vocabulary[image_start] = special.image_start
    vocabulary[image_end] = special.image_end
    return BagelTokenizer(Tokenizer(models.WordLevel(vocabulary, unk_token="0")))


def _compare_context(golden: Golden, name: str, context: Context, results: Comparisons) -> None:
    expected = golden.description["infer"][name]
    found = torch.tensor([context.num_tokens, context.position])
    lengths = torch.tensor([expected["kv_len"], expected["rope"]])
    results.add("infer", f"{name} length and rope position", found, lengths)
    for part, tensor in (
        ("key_first", context.keys[0]),
        ("key_last", context.keys[-1]),
        ("value_last", context.values[-1]),
    ):
        results.add("infer", f"{name}.{part}", tensor, golden.tensor(f"infer.{name}.{part}"))


def _compare_text(golden: Golden, engine: Engine, context: Context, results: Comparisons) -> None:
    """Greedy ids as the engine writes them, and the logits at each of them."""
    expected = golden.tensor("infer.greedy_ids")
    ids = expected[1:].tolist()
    [block] = engine.write([context], [TextSampling(max_tokens=len(ids))])
    written = torch.tensor([golden.special.text_start, *block.ids])
    # The reference was not stopped by the closing token; the engine always is.
    closing = (expected == golden.special.text_end).nonzero()
    upto = int(closing[0]) if len(closing) else len(expected)
    results.add("infer", "greedy_ids", written, expected[:upto])

    layout = lay_out([[text_block(ids)]], engine.special, first_positions=[context.position]).to(
        engine.device
    )
    hidden = engine.model(layout, golden.inputs(), ChunkAttention([context], layout))
    logits = engine.model.logits(hidden.und[: len(expected)])
    results.add("infer", "greedy_logits", logits, golden.tensor("infer.greedy_logits"))


def _compare_drawing(
    golden: Golden,
    engine: Engine,
    contexts: tuple[Context, Context, Context],
    case: Mapping[str, Any],
    results: Comparisons,
) -> None:
    config = golden.loaded.config
    height, width = golden.description["config"]["img_hw"]
    low, high = case["cfg_interval"]
    settings = FlowSettings(
        num_flow_steps=case["network_evaluations"],
        timestep_shift=case["timestep_shift"],
        guidance=Guidance(
            text_scale=case["cfg_text_scale"],
            image_scale=case["cfg_img_scale"],
            interval=(low, high),
            renorm=case["cfg_renorm_type"],
            renorm_min=case["cfg_renorm_min"],
        ),
    )
    alone = ([context] for context in contexts)
    [drawing] = engine.draw(*alone, sizes=[(height, width)], seeds=[0], settings=[settings])
    name = f"flow.{case['name']}"
    latents = golden.tensor(f"infer.{name}.latent_tokens")
    results.add("infer", f"{name}.latent_tokens", drawing.latents, latents)
    for image, _ in golden.named(rf"infer\.{name}\.image_u8"):
        # A byte only tells between which two levels the reference lay before rounding down, so a
        # level on the edge of one must not count as an error of a whole level.
        grid = golden.grid(image, config.pixels_per_latent_token)
        decoded = latents_from_tokens(drawing.latents, *grid, config.latent_patch_size)
        levels = to_levels(golden.loaded.autoencoder.decode(decoded[None])[0]).cpu()
        reference = golden.tensor(image).float()
        nearest = levels.clamp(reference, reference + 1)
        results.add("infer", f"{name}.image_u8 before rounding", levels, nearest)
        drawn = torch.from_numpy(drawing.pixels)
        results.add("infer", f"{name}.image_u8 as drawn", drawn, levels.to(torch.uint8))
