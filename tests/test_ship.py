"""Shipping a miniature: what is stored is what was trained, once, with its record."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from staged.model import checkpoint
from staged.model.open import open_checkpoint
from staged.shapes import miniature, ship
from staged.shapes.__main__ import main


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("ae.safetensors", "ae.json"):
        shutil.copy(miniature.CHECKPOINTS / name, folder)
    monkeypatch.setattr(miniature, "CHECKPOINTS", folder)
    monkeypatch.setattr(ship, "CHECKPOINTS", folder)
    return folder


def finished_run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    loaded = miniature.fresh(3)
    checkpoint.save(
        run / "checkpoint",
        model=loaded.model,
        autoencoder=loaded.autoencoder,
        tokenizer=loaded.tokenizer,
    )
    (run / "settings.yaml").write_text("num_steps: 3\n")
    (run / "data.sha256").write_text("abc\n")
    return run


def test_a_shipped_miniature_opens_with_the_weights_that_were_trained(
    tmp_path: Path, shelf: Path
) -> None:
    result = tmp_path / "result.json"
    result.write_text('{"overall": 0.5}')
    words = f"ship {finished_run(tmp_path)} base --result {result} --made-by"
    assert main([*words.split(), "staged train x.yaml"]) == 0
    opened = open_checkpoint("miniature:base")
    for name, tensor in miniature.fresh(3).model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], tensor.bfloat16().float()), name
    assert not (shelf / "base" / "ae.safetensors").exists()
    record = json.loads((shelf / "base" / "record.json").read_text())
    assert record["commands"] == ["staged train x.yaml"]
    assert record["results"] == [{"overall": 0.5}]


def test_a_miniature_with_another_autoencoder_is_refused(tmp_path: Path, shelf: Path) -> None:
    run = finished_run(tmp_path)
    loaded = checkpoint.load(run / "checkpoint")
    with torch.no_grad():
        next(loaded.autoencoder.parameters()).add_(1)
    checkpoint.save(
        run / "checkpoint",
        model=loaded.model,
        autoencoder=loaded.autoencoder,
        tokenizer=loaded.tokenizer,
    )
    with pytest.raises(ValueError, match="another autoencoder"):
        ship.ship(run, "base", commands=(), results=())
    assert not (shelf / "base").exists()


def test_a_damaged_result_leaves_what_was_shipped_before(tmp_path: Path, shelf: Path) -> None:
    run, result = finished_run(tmp_path), tmp_path / "result.json"
    ship.ship(run, "base", commands=["first"], results=())
    result.write_text('{"overall": NaN}')
    with pytest.raises(ValueError, match=r"result\.json: .*NaN"):
        ship.ship(run, "base", commands=["second"], results=[result])
    record = json.loads((shelf / "base" / "record.json").read_text())
    assert record["commands"] == ["first"]


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no run of `staged train`"):
        ship.ship(tmp_path / "nothing", "base", commands=(), results=())
