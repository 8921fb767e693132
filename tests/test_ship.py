"""Shipping a miniature: what is stored is what was trained, once, with its record."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from staged.model import checkpoint
from staged.model.open import open_checkpoint
from staged.shapes import miniature, ship
from staged.shapes.__main__ import main
from staged.shapes.card import card


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for name in ("ae.safetensors", "ae.json"):
        shutil.copy(miniature.CHECKPOINTS / name, folder)
    monkeypatch.setattr(miniature, "CHECKPOINTS", folder)
    monkeypatch.setattr(ship, "CHECKPOINTS", folder)
    return folder


def evaluated() -> dict[str, Any]:
    """What a result must have for a card."""
    parts = {"value": 0.5, "low": None, "high": None, "n": 3}
    return {
        "benchmark": "miniature",
        "run": "/runs/x/checkpoint in one shot",
        "variant": {"split": "test"},
        "parts": ["two_object"],
        "estimates": {"two_object": parts, "overall": {**parts, "low": 0.4, "high": 0.6}},
        "interval_method": "95%",
    }


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
    kept = evaluated()
    result.write_text(json.dumps(kept))
    words = f"ship {finished_run(tmp_path)} base --result {result} --made-by"
    assert main([*words.split(), "staged train x.yaml"]) == 0
    opened = open_checkpoint("miniature:base")
    for name, tensor in miniature.fresh(3).model.state_dict().items():
        assert torch.equal(opened.model.state_dict()[name], tensor.bfloat16().float()), name
    assert not (shelf / "base" / "ae.safetensors").exists()
    record = json.loads((shelf / "base" / "record.json").read_text())
    assert record["commands"] == ["staged train x.yaml"]
    assert record["results"] == [kept]
    text = (shelf / "base" / "README.md").read_text()
    assert text == card("base", record) and text.startswith("---\nlicense: apache-2.0\n")
    for words in (
        "miniature:base in one shot; split test",
        "| two object | 0.50 | – to – | 3 |",
        "| overall | 0.50 | 0.40 to 0.60 | 3 |",
        "staged train x.yaml",
    ):
        assert words in text, words
    assert "/runs/x" not in text


def test_what_is_no_result_is_refused_before_anything_is_replaced(
    tmp_path: Path, shelf: Path
) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"overall": 0.5}')
    with pytest.raises(ValueError, match=r"wrong\.json: missing key 'benchmark'"):
        ship.ship(finished_run(tmp_path), "base", commands=(), results=[wrong])
    assert not (shelf / "base").exists()


@pytest.mark.parametrize("name", ["base", "staged"])
def test_the_cards_that_ship_are_those_of_their_records(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", name]) == 0
    said = capsys.readouterr().out
    stored = (miniature.CHECKPOINTS / name / "README.md").read_text(encoding="utf-8")
    assert said == stored, (
        f"staged shapes card {name} --out {miniature.CHECKPOINTS}/{name}/README.md"
    )


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
