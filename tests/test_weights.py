"""Foreign weights that are incomplete, too many, misshapen, not finite or pickled are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import clips
import diffusers
import pytest
import torch
import vlm
from safetensors.torch import load_file, save_file
from test_editor import SETTINGS
from test_editor import pipeline as pipeline  # the fixture

from eval.clip import ClipEmbedder
from eval.converters.aesthetic import convert_head
from eval.geneval.clip_color import ClipColors
from eval.rewards.aesthetic import AestheticHead, load_head
from eval.vqa.local import LocalAnswerer
from eval.vqa.question import VqaQuestion
from staged.backends.diffusers.loading import load_pipeline, refuse_unknown_settings
from staged.images import encode_png
from staged.model.weights import check_finite_weights, check_weights

FILE = "model.safetensors"
LOADERS = {
    "vlm": lambda folder: LocalAnswerer.load(folder),
    "embedder": lambda folder: ClipEmbedder.load(folder, folder),
    "colors": lambda folder: ClipColors.load(folder),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    clip = clips.save_tiny(folder / "clip")
    return {"vlm": vlm.save_tiny(folder / "vlm"), "embedder": clip, "colors": clip}


def edit(path: Path, **changes: Any) -> None:
    tensors = load_file(path) | changes
    kept = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    save_file(kept, path, metadata={"format": "pt"})


def some_weight(path: Path) -> str:
    return next(key for key, tensor in load_file(path).items() if tensor.dim() == 2)


@pytest.mark.parametrize("kind", sorted(LOADERS))
def test_each_loader_refuses_by_name(kind: str, saved: dict[str, Path], tmp_path: Path) -> None:
    LOADERS[kind](saved[kind])
    name = some_weight(saved[kind] / FILE)
    whole = load_file(saved[kind] / FILE)[name]
    leaf = name.rpartition("model.")[2]  # the library may begin it otherwise
    for number, (change, message) in enumerate(
        [
            ({name: None}, f"1 missing: .*{leaf}"),
            ({"spare.weight": torch.zeros(2)}, "1 unexpected: spare.weight"),
            ({name: torch.zeros(3, 3)}, rf"1 of another shape: .*{leaf} \[3, 3\], expected"),
            ({name: torch.full_like(whole, torch.nan)}, f"1 not finite .*: .*{leaf}"),
            ({name: torch.full_like(whole, -torch.inf)}, f"1 not finite .*: .*{leaf}"),
        ]
    ):
        folder = Path(shutil.copytree(saved[kind], tmp_path / str(number)))
        edit(folder / FILE, **change)
        with pytest.raises(ValueError, match=message):
            LOADERS[kind](folder)


@pytest.mark.parametrize("kind", sorted(LOADERS))
def test_pickled_and_damaged_files_are_refused(
    kind: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(saved[kind], tmp_path / "copy"))
    content = (folder / FILE).read_bytes()
    torch.save(load_file(folder / FILE), folder / "pytorch_model.bin")
    (folder / FILE).unlink()
    with pytest.raises(ValueError, match="read from safetensors only"):
        LOADERS[kind](folder)
    (folder / FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="read from safetensors only"):
        LOADERS[kind](folder)


def head_of(folder: Path) -> str:
    return next(key for key in load_file(folder / FILE) if key.endswith("lm_head.weight"))


def test_a_model_without_its_head_does_not_answer(saved: dict[str, Path], tmp_path: Path) -> None:
    """It answered by random weights, with other numbers each time, and ended with 0."""
    folder = Path(shutil.copytree(saved["vlm"], tmp_path / "copy"))
    edit(folder / FILE, **{head_of(folder): None})
    with pytest.raises(ValueError, match=r"1 missing: lm_head\.weight"):
        LocalAnswerer.load(folder)


def test_a_head_that_the_configuration_ties_need_not_be_there(tmp_path: Path) -> None:
    folder = vlm.save_tiny_qwen(tmp_path / "model")
    edit(folder / FILE, **{head_of(folder): None})
    with pytest.raises(ValueError, match=r"1 missing: lm_head\.weight"):
        LocalAnswerer.load(folder)
    config = json.loads((folder / "config.json").read_text())
    for section in (config, config["text_config"]):
        section["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    image = tmp_path / "image.png"
    image.write_bytes(encode_png(torch.full((16, 16, 3), 90, dtype=torch.uint8).numpy()))
    question = VqaQuestion(image=image, text="yes", accepted=("yes",))
    told: list[float | None] = []
    for _ in range(2):
        answerer = LocalAnswerer.load(folder)
        answerer.answer([question], lambda _, answer: told.append(answer.probability))
    assert told[0] is not None and told[0] == told[1]


@pytest.fixture(scope="module")
def kontext(pipeline: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kontext")
    pipeline.save_pretrained(folder)
    return folder


def load_kontext(folder: Path) -> Any:
    return load_pipeline(replace(SETTINGS, model=str(folder), dtype="float32", device="cpu"))


PARTS = {
    "transformer": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": FILE,
    "text_encoder_2": FILE,
}


@pytest.mark.parametrize(
    ("part", "file"), [("vae", "config.json"), ("scheduler", "scheduler_config.json")]
)
def test_settings_of_a_part_that_diffusers_would_ignore_are_refused(
    part: str, file: str, kontext: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(kontext, tmp_path / "model")
    config = folder / part / file
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"not_used": None}))
    load_kontext(folder)
    config.write_text(json.dumps(told | {"scaling_facter": 3.0}))
    with pytest.raises(ValueError, match=rf"part {part} .*'scaling_facter': 3\.0.*config\.json"):
        load_kontext(folder)


def test_what_another_scheduler_reads_of_the_same_file_may_stand_there() -> None:
    told = dict(diffusers.PNDMScheduler().config)
    assert "skip_prk_steps" in told
    refuse_unknown_settings("scheduler", diffusers.DDIMScheduler.from_config(told))
    odd = diffusers.DDIMScheduler.from_config(told | {"shft": 3.0})
    with pytest.raises(ValueError, match=r"'shft': 3\.0"):
        refuse_unknown_settings("scheduler", odd)


@pytest.mark.parametrize("part", sorted(PARTS))
def test_every_part_of_a_pipeline_is_read_whole(
    part: str, kontext: Path, pipeline: Any, tmp_path: Path
) -> None:
    loaded = load_kontext(kontext)
    ours, theirs = getattr(loaded, part).state_dict(), getattr(pipeline, part).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    name = some_weight(kontext / part / PARTS[part])
    whole = load_file(kontext / part / PARTS[part])[name]
    for number, (change, message) in enumerate(
        [
            ({name: None}, "1 missing: "),
            ({"spare.weight": torch.zeros(2)}, "1 unexpected: spare.weight"),
            ({name: torch.zeros(3, 7)}, r"1 of another shape: .* \[3, 7\], expected"),
            ({name: torch.full_like(whole, torch.nan)}, "not finite .*: "),
        ]
    ):
        folder = Path(shutil.copytree(kontext, tmp_path / str(number)))
        edit(folder / part / PARTS[part], **change)
        with pytest.raises(ValueError, match=f"{part} does not hold .*{message}"):
            load_kontext(folder)
    folder = Path(shutil.copytree(kontext, tmp_path / "pickled"))
    (folder / part / PARTS[part]).unlink()
    torch.save({}, folder / part / Path(PARTS[part]).with_suffix(".bin").name)
    with pytest.raises(ValueError, match=f"no {part} there .* safetensors only"):
        load_kontext(folder)


def test_a_part_of_a_library_that_is_not_checked_is_refused(kontext: Path, tmp_path: Path) -> None:
    """A file may not say what is imported, either."""
    folder = Path(shutil.copytree(kontext, tmp_path / "copy"))
    index = json.loads((folder / "model_index.json").read_text())
    index["transformer"] = ["antigravity", "FluxTransformer2DModel"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="part transformer is a FluxTransformer2DModel of antigra"):
        load_kontext(folder)


def test_a_head_of_ratings_is_read_whole(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = AestheticHead((8, 4, 1))
    torch.save(head.state_dict(), tmp_path / "head.pth")
    convert_head(tmp_path / "head.pth", tmp_path / "head")
    load_head(tmp_path / "head")
    edit(tmp_path / "head" / FILE, **{"layers.1.bias": torch.tensor([torch.nan])})
    with pytest.raises(ValueError, match=r"1 not finite .*: layers\.1\.bias"):
        load_head(tmp_path / "head")
    (tmp_path / "head" / FILE).write_bytes(b"no tensors")
    with pytest.raises(ValueError, match="no readable safetensors"):
        load_head(tmp_path / "head")


def test_everything_wrong_is_said_at_once() -> None:
    found = {"a": torch.zeros(2), "b": torch.zeros(3), "d": torch.tensor(torch.nan)}
    with pytest.raises(ValueError) as caught:
        check_weights("here", found, {"a": (2,), "b": (4,), "c": (1,), "d": ()})
    assert str(caught.value) == (
        "here does not hold the weights of this model; tensors 1 missing: c; "
        "1 of another shape: b [3], expected [4]"
    )
    found = {"a": torch.zeros(2), "d": torch.tensor(torch.nan)}
    with pytest.raises(ValueError, match=r"1 not finite \(NaN or infinite\): d$"):
        check_finite_weights("here", found)
