"""The diffusers editor, over a real FLUX.1 Kontext pipeline with tiny random weights."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxKontextPipeline,
    FluxTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from staged.backends.diffusers import latents as stored
from staged.backends.diffusers.editor import DiffusersEditor
from staged.backends.diffusers.settings import DiffusersSettings
from staged.roles import RoleError

SETTINGS = DiffusersSettings(
    model="tiny", licence="none", device="cpu", dtype="float32", num_inference_steps=2
)


def letters(end: str) -> dict[str, int]:
    alphabet = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    names = ["<|startoftext|>", "<|endoftext|>", *(letter + end for letter in alphabet), *alphabet]
    return {name: i for i, name in enumerate(names)}


def tiny_kontext() -> Any:
    """A real pipeline with random weights."""
    torch.manual_seed(0)
    clip = CLIPTextConfig(
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=1,
        projection_dim=32,
        vocab_size=64,
        bos_token_id=0,
        eos_token_id=1,
    )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    pieces += [(chr(c), -2.0) for c in range(ord("a"), ord("z") + 1)]
    t5 = T5Config(vocab_size=64, d_model=32, d_ff=37, d_kv=8, num_heads=4, num_layers=1)
    return FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL(
            block_out_channels=(4, 4),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=1,
            norm_num_groups=1,
            use_quant_conv=False,
            use_post_quant_conv=False,
            shift_factor=0.06,
            scaling_factor=1.5,
        ).eval(),
        text_encoder=CLIPTextModel(clip).eval(),
        tokenizer=CLIPTokenizer(vocab=letters("</w>"), merges=[], model_max_length=77),
        text_encoder_2=T5EncoderModel(t5).eval(),
        tokenizer_2=T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=64),
        transformer=FluxTransformer2DModel(
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=True,
        ).eval(),
    )


@pytest.fixture(scope="module")
def pipeline() -> Any:
    return tiny_kontext()


@pytest.fixture
def editor(pipeline: Any) -> DiffusersEditor:
    return DiffusersEditor(SETTINGS, pipeline=pipeline)


def picture(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_result_has_the_size_asked_for(editor: DiffusersEditor) -> None:
    drawn = editor.edit(picture(32, 16), "add a star", width=32, height=16, seed=1)
    assert drawn.shape == (16, 32, 3) and drawn.dtype == np.uint8


def test_a_first_step_is_drawn_without_an_image(pipeline: Any, editor: DiffusersEditor) -> None:
    from_text = editor.edit(None, "a star", width=16, height=16, seed=1)
    on_white = DiffusersEditor(
        replace(SETTINGS, first_step_without_image=False), pipeline=pipeline
    ).edit(None, "a star", width=16, height=16, seed=1)
    assert from_text.shape == on_white.shape == (16, 16, 3)
    assert (from_text != on_white).any()


def test_only_the_seed_decides_the_noise(editor: DiffusersEditor) -> None:
    first = editor.edit(picture(16, 16), "a star", width=16, height=16, seed=1)
    torch.manual_seed(99)
    again = editor.edit(picture(16, 16), "a star", width=16, height=16, seed=1)
    other = editor.edit(picture(16, 16), "a star", width=16, height=16, seed=2)
    assert (first == again).all()
    assert (first != other).any()


def test_the_input_image_conditions_the_result(editor: DiffusersEditor) -> None:
    plain = np.zeros((16, 16, 3), np.uint8)
    drawn = [editor.edit(i, "a star", width=16, height=16, seed=1) for i in (plain, plain + 255)]
    assert (drawn[0] != drawn[1]).any()


def test_steps_and_guidance_reach_the_pipeline(pipeline: Any, editor: DiffusersEditor) -> None:
    base = editor.edit(None, "a star", width=16, height=16, seed=1)
    for changed in (replace(SETTINGS, num_inference_steps=3), replace(SETTINGS, guidance_scale=9)):
        other = DiffusersEditor(changed, pipeline=pipeline)
        assert (other.edit(None, "a star", width=16, height=16, seed=1) != base).any()


def test_a_size_that_the_pipeline_rounds_is_refused(editor: DiffusersEditor) -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        editor.edit(None, "a star", width=17, height=16, seed=1)


# --- latents in place of pictures -----------------------------------------------------------------

CARRYING = replace(SETTINGS, carry_latents=True)
SIZE: dict[str, Any] = {"width": 32, "height": 16}


def test_an_edit_goes_on_from_latents_and_encodes_no_picture(
    pipeline: Any, editor: DiffusersEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrying = DiffusersEditor(CARRYING, pipeline=pipeline)
    first, latents = carrying.edit_latents(None, None, "a star", seed=1, **SIZE)
    assert (first == editor.edit(None, "a star", seed=1, **SIZE)).all(), "drawn as ever"
    onto_pixels = editor.edit(first, "a ring", seed=2, **SIZE)

    monkeypatch.setattr(pipeline.vae, "encode", None)
    second, _ = carrying.edit_latents(first, latents, "a ring", seed=2, **SIZE)
    assert (second != onto_pixels).any()
    found = safetensors.torch.load(latents)["latents"]
    by_hand = pipeline(
        image=found[None], prompt="a ring", generator=torch.Generator("cpu").manual_seed(2),
        num_inference_steps=2, guidance_scale=2.5, max_area=32 * 16, _auto_resize=False, **SIZE,
    ).images[0]  # fmt: skip
    assert (second == np.asarray(by_hand)).all()

    vae = pipeline.vae
    with torch.inference_mode():
        decoded = vae.decode(found[None] / vae.config.scaling_factor + vae.config.shift_factor)
    again = pipeline.image_processor.postprocess(decoded.sample, output_type="pil")[0]
    pipeline.image_processor.take(1)
    assert (first == np.asarray(again)).all(), "they are what the picture was decoded from"


def test_latents_pictures_and_nothing_are_not_mixed_in_a_batch(pipeline: Any) -> None:
    settings = replace(CARRYING, batch_size=3)
    alone = DiffusersEditor(settings, pipeline=pipeline)
    given: list[Any] = [(None, None)] * 2 + [(picture(32, 16), None)] * 2
    given += [(picture(32, 16), alone.edit_latents(*given[n], "a star", seed=n, **SIZE)[1])
              for n in range(4)]  # fmt: skip
    jobs = list(enumerate(given))

    def drawn(editor: DiffusersEditor, job: Any) -> tuple[bytes, bytes]:
        pixels, latents = editor.edit_latents(*job[1], "a ring", seed=job[0], **SIZE)
        return pixels.tobytes(), latents

    expected = [drawn(alone, job) for job in jobs]
    assert len(set(expected)) == len(jobs)
    together = DiffusersEditor(settings, pipeline=pipeline)
    with ThreadPoolExecutor(len(jobs)) as pool:
        assert list(pool.map(lambda job: drawn(together, job), jobs)) == expected


def test_what_are_no_latents_of_such_a_picture_is_refused(pipeline: Any) -> None:
    editor = DiffusersEditor(CARRYING, pipeline=pipeline)
    good = torch.zeros(1, 8, 16)
    for bad, said in (
        (b"no tensors", "10 bytes cannot be read"),
        (stored.to_bytes(torch.zeros(1, 8, 8)), r"expected \(1, 8, 16\) .* got \(1, 8, 8\)"),
        (stored.to_bytes(good.to(torch.bfloat16)), "of torch.float32, got .* of torch.bfloat16"),
        (stored.to_bytes(good / 0), "not all are finite"),
    ):
        with pytest.raises(ValueError, match=said):
            editor.edit_latents(picture(32, 16), bad, "a star", seed=1, **SIZE)
    editor.edit_latents(picture(32, 16), stored.to_bytes(good), "a star", seed=1, **SIZE)


def test_latents_are_refused_for_a_pipeline_that_takes_pictures_alone() -> None:
    with pytest.raises(ValueError, match=r"QwenImageEditPipeline .* takes pictures alone; only Fl"):
        replace(CARRYING, pipeline="QwenImageEditPipeline")


# --- many threads, one pipeline -------------------------------------------------------------------


def in_threads(editor: DiffusersEditor, jobs: Sequence[dict[str, Any]]) -> list[np.ndarray]:
    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(lambda job: editor.edit(**job), jobs))


JOBS = [
    {
        "image": picture(*size) if seed % 2 else None,
        "instruction": "a star" if seed % 3 else "a ring",
        "width": size[0],
        "height": size[1],
        "seed": seed,
    }
    for seed in range(8)
    for size in ((16, 16), (32, 16))
]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_sixteen_threads_get_what_each_alone_would(pipeline: Any, batch_size: int) -> None:
    settings = replace(SETTINGS, batch_size=batch_size)
    alone = [DiffusersEditor(settings, pipeline=pipeline).edit(**job) for job in JOBS]
    assert len({drawn.tobytes() for drawn in alone}) == len(JOBS)
    editor = DiffusersEditor(settings, pipeline=pipeline)
    for _ in range(2):
        together = in_threads(editor, JOBS)
        assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_edits_of_one_size_are_drawn_in_one_call(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int, bool]] = []
    first_began, go_on = threading.Event(), threading.Event()
    call = type(pipeline).__call__

    def counting(self: Any, **arguments: Any) -> Any:
        calls.append((len(arguments["prompt"]), arguments["width"], arguments["image"] is None))
        first_began.set()
        assert go_on.wait(30)
        return call(self, **arguments)

    editor = DiffusersEditor(replace(SETTINGS, batch_size=4), pipeline=pipeline)
    monkeypatch.setattr(type(pipeline), "__call__", counting)
    with ThreadPoolExecutor(len(JOBS)) as pool:
        first = pool.submit(editor.edit, **JOBS[0])
        assert first_began.wait(30)
        rest = [pool.submit(editor.edit, **job) for job in JOBS[1:]]
        while len(editor._turns._waiting) < len(JOBS) - 1:
            time.sleep(0.001)
        go_on.set()
        assert all(future.result(30) is not None for future in [first, *rest])
    # One alone, and fifteen of four kinds, three or four of each.
    assert len(calls) == 5 and {rows for rows, _, _ in calls} == {4}
    assert len(set(calls[1:])) == 4


def test_batches_differ_from_single_images_in_the_last_digits_only(pipeline: Any) -> None:
    for job in JOBS[:4]:
        one, four = (
            DiffusersEditor(replace(SETTINGS, batch_size=size), pipeline=pipeline).edit(**job)
            for size in (1, 4)
        )
        assert np.abs(one.astype(int) - four).max() <= 1


def test_a_call_that_breaks_is_an_error_for_its_own_edits_alone(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = type(pipeline).__call__

    def breaking(self: Any, **arguments: Any) -> Any:
        if arguments["width"] == 32:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return call(self, **arguments)

    editor = DiffusersEditor(SETTINGS, pipeline=pipeline)
    monkeypatch.setattr(type(pipeline), "__call__", breaking)
    with ThreadPoolExecutor(len(JOBS)) as pool:
        futures = [pool.submit(editor.edit, **job) for job in JOBS]
    errors = [future.exception() for future in futures]
    assert [error is not None for error in errors] == [job["width"] == 32 for job in JOBS]
    assert all(isinstance(error, ValueError) for error in errors[1::2])
    assert "lower batch_size or the size, or set offload" in str(errors[1])


def test_what_a_safety_checker_withholds_is_withheld_from_one_of_a_batch(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = type(pipeline).__call__

    def flagging(self: Any, **arguments: Any) -> Any:
        result = call(self, **arguments)
        result.nsfw_content_detected = [text == "a ring" for text in arguments["prompt"]]
        return result

    editor = DiffusersEditor(replace(SETTINGS, batch_size=2), pipeline=pipeline)
    monkeypatch.setattr(type(pipeline), "__call__", flagging)
    with ThreadPoolExecutor(len(JOBS)) as pool:
        futures = [pool.submit(editor.edit, **job) for job in JOBS]
    for job, future in zip(JOBS, futures, strict=True):
        assert isinstance(future.exception(), RoleError) == (job["instruction"] == "a ring")


def test_a_pipeline_to_which_a_list_means_references_draws_no_batches(pipeline: Any) -> None:
    class QwenImageEditPlusPipeline(FluxKontextPipeline):
        pass

    other = QwenImageEditPlusPipeline(**pipeline.components)
    with pytest.raises(ValueError, match="set batch_size to 1"):
        DiffusersEditor(replace(SETTINGS, batch_size=2), pipeline=other)
    DiffusersEditor(SETTINGS, pipeline=other)
    with pytest.raises(ValueError, match="batch_size is 0"):
        replace(SETTINGS, batch_size=0)


def test_a_device_that_is_not_there_is_named_before_anything_is_loaded(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="'cuda:99': this machine has"):
        DiffusersEditor(replace(SETTINGS, model=str(tmp_path / "none"), device="cuda:99"))


def test_unknown_pipelines_arguments_and_licences_are_refused(pipeline: Any) -> None:
    with pytest.raises(ValueError, match="no pipeline 'FluxContextPipeline'"):
        DiffusersEditor(replace(SETTINGS, pipeline="FluxContextPipeline"))
    with pytest.raises(ValueError, match="takes no 'strenght'"):
        DiffusersEditor(replace(SETTINGS, arguments={"strenght": 1}), pipeline=pipeline)
    with pytest.raises(ValueError, match="licence"):
        DiffusersSettings(model="someone/something")


def test_a_pipeline_is_loaded_from_a_folder(pipeline: Any, tmp_path: Any) -> None:
    pipeline.save_pretrained(tmp_path)
    loaded = DiffusersEditor(replace(SETTINGS, model=str(tmp_path)))
    here = DiffusersEditor(SETTINGS, pipeline=pipeline)
    drawn = [e.edit(None, "a star", width=16, height=16, seed=1) for e in (loaded, here)]
    assert (drawn[0] == drawn[1]).all()


def test_a_picture_of_nan_is_no_edit(pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a black picture that went into a data set."""
    editor = DiffusersEditor(SETTINGS, pipeline=pipeline)
    monkeypatch.setattr(pipeline.vae.decoder.conv_out, "bias", None)
    monkeypatch.setattr(
        pipeline.vae.decoder.conv_out,
        "weight",
        torch.nn.Parameter(torch.full_like(pipeline.vae.decoder.conv_out.weight, torch.nan)),
    )
    with pytest.raises(RoleError, match="not finite") as caught:
        editor.edit(None, "a star", width=16, height=16, seed=1)
    assert caught.value.reason == "not_finite"


def test_a_pipeline_whose_pictures_cannot_be_checked_is_refused(
    pipeline: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "image_processor", None)
    with pytest.raises(ValueError, match="cannot be checked"):
        DiffusersEditor(SETTINGS, pipeline=pipeline)
