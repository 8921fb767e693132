"""LoRAs on an editor's pipeline, and weights kept in fewer bits, on a real tiny FLUX.1 Kontext."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FluxKontextPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from test_editor import SETTINGS, tiny_kontext

from staged.backends.diffusers.editor import DiffusersEditor
from staged.backends.diffusers.settings import DiffusersSettings, PipelineLora


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kontext")
    tiny_kontext().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> PipelineLora:
    """A LoRA as trainers of diffusers write them, that changes something."""
    made = tmp_path_factory.mktemp("lora")
    transformer = tiny_kontext().transformer
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"]))
    torch.manual_seed(1)
    weights = {k: torch.randn_like(v) for k, v in get_peft_model_state_dict(transformer).items()}
    FluxKontextPipeline.save_lora_weights(made, transformer_lora_layers=weights)
    return PipelineLora(model=str(made), licence="CC-BY-NC-4.0")


def drawn(folder: Path, **more: Any) -> tuple[np.ndarray, DiffusersEditor]:
    editor = DiffusersEditor(replace(SETTINGS, model=str(folder), **more))
    return editor.edit(None, "a star", width=32, height=32, seed=1).astype(int), editor


def test_a_lora_changes_pictures_as_strongly_as_it_is_told_and_brings_its_licence(
    folder: Path, lora: PipelineLora
) -> None:
    plain, _ = drawn(folder)
    none, _ = drawn(folder, loras=(replace(lora, scale=0.0),))
    full, editor = drawn(folder, loras=(lora,))
    assert np.abs(none - plain).max() <= 1 < np.abs(full - plain).max()
    assert editor.licence == "none and CC-BY-NC-4.0"
    assert editor.name == f"{folder} + {lora.model} (FluxKontextPipeline)"
    half = replace(lora, scale=0.5)
    twice, _ = drawn(folder, loras=(half, half))
    assert np.abs(twice - full).max() <= 1, "they are added up"


def test_a_lora_that_fits_nothing_or_is_no_safetensors_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    def given(name: str, weights: Mapping[str, torch.Tensor]) -> tuple[PipelineLora, ...]:
        (tmp_path / name).mkdir()
        save_file(dict(weights), tmp_path / name / "pytorch_lora_weights.safetensors")
        return (PipelineLora(model=str(tmp_path / name), licence="none"),)

    a, b = torch.zeros(2, 32), torch.zeros(32, 2)
    elsewhere = {"unet.to_q.lora_A.weight": a, "unet.to_q.lora_B.weight": b}
    with pytest.raises(ValueError, match=r"no weights for any part|does not fit"):
        drawn(folder, loras=given("elsewhere", elsewhere))
    place = "transformer.transformer_blocks.0.attn.to_q"
    wide = {f"{place}.lora_A.weight": torch.zeros(2, 99), f"{place}.lora_B.weight": b}
    with pytest.raises(ValueError, match=r"loras: \S*wide does not fit"):
        drawn(folder, loras=given("wide", wide))
    (tmp_path / "pickled").mkdir()
    torch.save(elsewhere, tmp_path / "pickled" / "pytorch_lora_weights.bin")
    with pytest.raises((ValueError, OSError), match=r"pickled|safetensors"):
        drawn(folder, loras=(PipelineLora(model=str(tmp_path / "pickled"), licence="none"),))


def test_weights_in_float8_take_a_quarter_of_float32_and_draw_nearly_the_same(
    folder: Path, lora: PipelineLora
) -> None:
    def num_bytes(editor: DiffusersEditor) -> int:
        parameters = editor._pipeline.transformer.parameters()
        return sum(p.numel() * p.element_size() for p in parameters)

    plain, whole = drawn(folder)
    small, kept = drawn(folder, storage="float8")
    assert num_bytes(kept) < 0.5 * num_bytes(whole)  # norms and the ends stay as they are
    assert 0 < np.abs(small - plain).mean() < 20
    with_lora, _ = drawn(folder, storage="float8", loras=(lora,))
    assert (with_lora != small).any()


def test_settings_of_loras_are_checked() -> None:
    with pytest.raises(ValueError, match="scale is 11"):
        PipelineLora(model="m", licence="none", scale=11)
    assert DiffusersSettings().loras == ()
