"""Data are read and encoded before a GPU is held for them, as the run itself would."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from training import World, build, one_shot, start, train, understanding, write_data

from staged.cli.main import main as cli
from staged.model.codec import ImageCodec
from staged.settings import save_resolved
from staged.trajectory import ImageRef, Sketch, Stop, Trajectory
from train import encoded, partial_latents
from train.prepare import prepare
from train.settings import Subset, TrainSettings, ValidationSettings


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build(tmp_path_factory.mktemp("world"))


def job(world: World, folder: Path, **changes: Any) -> TrainSettings:
    changes = {"cache": folder / "cache", "num_workers": 0, **changes}
    return world.settings(folder / "out", **changes)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def test_a_run_finds_its_cache_filled_and_the_numbers_as_they_were_told(
    world: World,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = write_data(tmp_path / "other", [understanding(50), one_shot(51)])
    held_out = write_data(tmp_path / "held_out", [one_shot(60)])
    settings = job(
        world,
        tmp_path,
        data=(Subset(path=world.data), Subset(path=other, repeats=2)),
        validation=ValidationSettings(data=(held_out,)),
        num_steps=3,
    )
    save_resolved(settings, tmp_path / "job.yaml")
    with monkeypatch.context() as patch:
        patch.setattr("train.opening.open_checkpoint", lambda *_, **__: pytest.fail("weights"))
        assert cli(["train", str(tmp_path / "job.yaml"), "--prepare", "--json"]) == 0
    assert not settings.out.exists()
    captured = capsys.readouterr()
    found = json.loads(captured.out.splitlines()[-1])
    assert found["samples"] == 12 and found["encoded"] is True
    assert [(part["folder"], part["samples"]) for part in found["data"]] == [
        (str(world.data), 10),
        (str(other), 2),
    ]
    assert found["tokens"] == sum(part["tokens"] for part in found["data"])
    assert found["held_out"][0]["samples"] == 1
    monkeypatch.setattr(encoded.EncodedFolder, "_measure", lambda *_: pytest.fail("it encodes"))
    train(settings)
    lines = [json.loads(line) for line in (settings.out / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 3
    assert found["epochs"] == pytest.approx(3 / found["packs_per_epoch"])


def test_without_a_cache_nothing_is_written_or_encoded(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageCodec, "to_latents_each", lambda *_: pytest.fail("it encodes"))
    found = prepare(job(world, tmp_path, cache=None))
    assert found["samples"] == 10 and found["encoded"] is False
    assert not list(tmp_path.iterdir())


def cut_off(seed: int) -> Trajectory:
    """Its picture has a whole header, and half of its pixels."""
    good = one_shot(seed).steps[0]
    assert isinstance(good, Sketch)
    png = good.image.loaded
    bad = ImageRef(png=png[: len(png) // 2])
    return Trajectory(prompt="a star", steps=(Sketch(image=bad), Stop()), task="one_shot")


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("where", ["data", "validation"])
def test_a_sample_whose_picture_is_cut_off_is_named(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str, cached: bool
) -> None:
    """A run read its header, and said of a picture somewhere that it is none."""
    bad = write_data(tmp_path / "bad", [one_shot(70), cut_off(71), one_shot(72)])
    cache = tmp_path / "cache" if cached else None
    settings = job(world, tmp_path, cache=cache, data=(Subset(path=bad),))
    if where == "validation":
        validation = ValidationSettings(data=(bad,))
        settings = job(world, tmp_path, cache=cache, validation=validation)
    save_resolved(settings, tmp_path / "job.yaml")
    assert cli(["train", str(tmp_path / "job.yaml"), "--prepare"]) == 1
    assert f"{bad}: s001: " in capsys.readouterr().err


def test_what_would_end_the_run_is_named(world: World, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"samples exceed pack_tokens=50: .*data: s"):
        prepare(job(world, tmp_path, pack_tokens=50))
    with pytest.raises(ValueError, match=r"validation.data names .*, which is trained on"):
        prepare(job(world, tmp_path, validation=ValidationSettings(data=(world.data,))))
    copied = write_data(tmp_path / "copied", [one_shot(80), one_shot(81)])
    [shard] = copied.glob("*.tar")
    data = bytearray(shard.read_bytes())
    data[-2000] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"copied is damaged: .*staged data validate"):
        prepare(job(world, tmp_path, cache=None, data=(Subset(path=copied),)))


def prepare_and_die(settings: TrainSettings, batches: int) -> None:
    encoded._ENCODE_BATCH, partial_latents._EVERY_S = 1, 0.0
    real, calls = ImageCodec.to_latents_each, 0

    def deadly(codec: ImageCodec, pictures: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > batches:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(codec, pictures)

    ImageCodec.to_latents_each = deadly  # type: ignore[method-assign]
    prepare(settings)


def test_an_encoding_that_was_killed_goes_on_where_it_was(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It began anew, after hours perhaps."""
    whole, killed = (replace(job(world, tmp_path / name)) for name in ("whole", "killed"))
    monkeypatch.setattr(encoded, "_ENCODE_BATCH", 1)
    prepare(whole)
    process = start(prepare_and_die, killed, 7)
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    assert killed.cache is not None and whole.cache is not None
    [part] = killed.cache.glob("*.part")
    with part.open("ab") as file:
        file.write(b"what no note speaks of")
    calls, real = [], ImageCodec.to_latents_each

    def counted(codec: ImageCodec, pictures: Any) -> Any:
        calls.append(len(pictures))
        return real(codec, pictures)

    monkeypatch.setattr(ImageCodec, "to_latents_each", counted)
    prepare(killed)
    assert len(calls) == 10 - 7
    assert files(killed.cache) == files(whole.cache)


def test_what_is_left_of_other_latents_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "x.latents"
    partial_latents.part_of(path).write_bytes(b"1234")
    for note in (None, '{"samples": 3, "bytes": 5}'):
        if note is not None:
            partial_latents.note_of(path).write_text(note)
        with partial_latents.PartialLatents(path) as latents:
            assert latents.samples == 0
            latents.write(b"12")
    with partial_latents.PartialLatents(path) as latents:
        latents.write(b"123")
        latents.finish()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("x.latents", b"123")]
