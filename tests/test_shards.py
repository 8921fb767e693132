"""Shards: the same bytes for the same input, and nothing believed that is read."""

import hashlib
import io
import json
import os
import pickle
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from staged.scene_graph import SceneGraph, SceneObject
from staged.shards import (
    Limits,
    ShardError,
    ShardIndex,
    ShardWriter,
    Skipped,
    merge,
    read_index,
    read_manifest,
    read_shards,
    stats,
    validate,
)
from staged.trajectory import ImageRef, Inspection, Plan, Refinement, Sketch, Stop, Trajectory

ACCEPTANCE = {"sketch": {"accepted": 5, "wrong colour": 2}}


def image(seed: int, size: int = 8) -> ImageRef:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    return ImageRef.from_array(pixels)


def trajectory(i: int) -> Trajectory:
    return Trajectory(
        prompt=f"prompt {i}",
        task=("one", "two")[i % 2],
        inputs=(image(100 + i),) if i % 3 == 0 else (),
        scene_graph=SceneGraph([SceneObject(id="o1", class_name="star")]).to_dict(),
        steps=(
            Plan(instruction="add a star", description="a star"),
            Sketch(image=image(i), seed=i, num_flow_steps=20, loss=False),
            Inspection(target="sketch", verdict="revise", critique="it is round"),
            Refinement(instruction="draw points"),
            Sketch(image=image(50 + i), seed=i, num_flow_steps=20),
            Stop(),
        ),
        provenance={
            "licence": "terms (Non-Commercial)",
            "models": {"sketcher": "shapes"},
            "cost": {"usd": 0.25, "requests": 2},
        },
    )


def content(item: Trajectory) -> tuple[object, ...]:
    """A trajectory without the names of its images."""
    anonymous = [ImageRef(png=ref.png) for ref in item.images]
    return item.with_images(anonymous), *anonymous


def write(folder: Path, count: int = 5, **settings: Any) -> Path:
    options = {"title": "stars", "max_samples": 2, "fingerprints": ("abc",)} | settings
    with ShardWriter(folder, **options) as writer:
        for i in range(count):
            writer.write(f"s{i:03d}", trajectory(i))
        writer.finish(acceptance=ACCEPTANCE)
    return folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "set")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_written_is_read_back(dataset: Path) -> None:
    samples = list(read_shards(dataset, decode=True))
    assert [sample.key for sample in samples] == [f"s{i:03d}" for i in range(5)]
    assert [sample.shard[-8:-4] for sample in samples] == ["0000", "0000", "0001", "0001", "0002"]
    for i, sample in enumerate(samples):
        assert content(sample.trajectory) == content(trajectory(i))
    assert [ref.name for ref in samples[0].trajectory.images] == ["0.png", "1.png", "2.png"]


def test_the_same_input_gives_the_same_bytes(dataset: Path, tmp_path: Path) -> None:
    assert files(write(tmp_path / "again")) == files(dataset)


def test_a_killed_run_leaves_no_finished_data_set_and_the_next_makes_the_same_bytes(
    dataset: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "killed"
    child = os.fork()
    if not child:
        writer = ShardWriter(folder, title="stars", max_samples=1)
        for i in range(7):  # killed here: complete shards, an open one, no index
            writer.write(f"s{i:03d}", trajectory(i))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with pytest.raises(FileNotFoundError):
        validate(folder)
    assert len([name for name in files(folder) if name.endswith(".tmp")]) == 1
    assert files(write(folder)) == files(dataset)


def test_the_half_of_a_writer_that_is_at_work_is_not_taken_from_it(
    dataset: Path, tmp_path: Path
) -> None:
    other = ShardWriter(tmp_path / "set", title="stars", max_samples=2)
    other.write("s000", trajectory(0))
    write(tmp_path / "set")
    for i in range(1, 5):
        other.write(f"s{i:03d}", trajectory(i))
    other.finish()
    assert files(tmp_path / "set").keys() == files(dataset).keys()
    assert validate(tmp_path / "set").ok


def test_an_exception_leaves_the_folder_unfinished(tmp_path: Path) -> None:
    with pytest.raises(KeyError), ShardWriter(tmp_path, title="stars") as writer:
        writer.write("a", trajectory(0))
        raise KeyError
    assert files(tmp_path) == {}


def test_a_finished_data_set_is_not_overwritten_unasked(dataset: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "set", count=7)
    with pytest.raises(ValueError, match="holds a finished data set"):
        write(folder)
    assert files(write(folder, overwrite=True)) == files(dataset)


def test_shards_respect_both_bounds(tmp_path: Path) -> None:
    one = len((write(tmp_path / "one", count=1) / "shard-000000.tar").read_bytes())
    folder = write(tmp_path / "set", count=6, max_samples=100, max_bytes=2 * one)
    entries = read_index(folder)
    assert sum(entry.samples for entry in entries) == 6
    assert len(entries) > 1
    assert all(entry.bytes <= 2 * one + 10240 for entry in entries)


def test_members_are_anonymous_and_in_order(dataset: Path) -> None:
    with tarfile.open(dataset / "shard-000000.tar") as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == [
        *("s000.json", "s000.0.png", "s000.1.png", "s000.2.png"),
        *("s001.json", "s001.0.png", "s001.1.png"),
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
        (0, 0, 0, "", "", 0o644)
    }


def test_index_manifest_and_card_say_what_is_there(dataset: Path) -> None:
    entries = read_index(dataset)
    for entry in entries:
        data = (dataset / entry.shard).read_bytes()
        assert (entry.bytes, entry.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    manifest = read_manifest(dataset)
    assert manifest.fingerprints == ("abc",)
    assert manifest.acceptance == ACCEPTANCE
    assert manifest.cost == {"usd": 1.25, "requests": 10}
    found = stats(dataset)
    assert manifest.stats == found.to_dict()
    assert (found.trajectories, found.complete, found.images) == (5, 5, 12)
    assert found.tasks == {"one": 3, "two": 2}
    assert found.verdicts["sketch"] == {"revise": 5}
    assert (found.steps["sketch"], found.supervised["sketch"]) == (10, 5)
    card = (dataset / "README.md").read_text()
    assert "forbid commercial use" in card
    assert "| sketch: wrong colour | 2 |" in card


def test_a_card_keeps_text_from_outside_in_its_place(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, title='a"\n# b') as writer:
        bad = Trajectory(prompt="x", task="t | u\n# heading", provenance={"licence": "MIT\n---"})
        writer.write("a", bad)
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("# ")] == ['# a" # b']
    assert lines.count("---") == 2
    assert "| t \\| u # heading | 1 |" in lines


def test_plain_webdataset_reads_the_shards(dataset: Path) -> None:
    urls = [str(dataset / entry.shard) for entry in read_index(dataset)]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in samples] == [f"s{i:03d}" for i in range(5)]
    for i, sample in enumerate(samples):
        assert sample["json"]["prompt"] == f"prompt {i}"
        refs = trajectory(i).images
        for number, ref in enumerate(refs):
            assert (np.asarray(sample[f"{number}.png"]) == ref.array()).all()


def test_shards_that_webdataset_wrote_are_read(tmp_path: Path) -> None:
    named = trajectory(1).with_images(
        [ImageRef(png=ref.png, name=f"{i}.png") for i, ref in enumerate(trajectory(1).images)]
    )
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as sink:
        sample: dict[str, Any] = {"__key__": "k", "json": json.loads(named.to_json())}
        sink.write(sample | {str(ref.name): ref.png for ref in named.images})
    assert [sample.trajectory for sample in read_shards(tmp_path)] == [named]
    assert ShardIndex(tmp_path)[0].trajectory == named


def test_other_image_formats_are_kept_as_they_are(tmp_path: Path) -> None:
    def encoded(kind: str) -> ImageRef:
        buffer = io.BytesIO()
        Image.new("RGB", (6, 4), "red").save(buffer, kind)
        return ImageRef(png=buffer.getvalue())

    item = Trajectory(prompt="x", inputs=(encoded("JPEG"), encoded("WEBP")))
    with ShardWriter(tmp_path, title="x") as writer:
        writer.write("a", item)
    (sample,) = read_shards(tmp_path, decode=True)
    assert [ref.name for ref in sample.trajectory.images] == ["0.jpg", "1.webp"]
    assert content(sample.trajectory) == content(item)


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../a", "a b", "é", "a" * 81])
def test_bad_keys_are_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key"):
        ShardWriter(tmp_path, title="x").write(key, trajectory(0))


def test_the_writer_refuses_what_could_not_be_read_back(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, title="x")
    writer.write("a", trajectory(0))
    with pytest.raises(ValueError, match="written before"):
        writer.write("a", trajectory(0))
    for ref, message in ((ImageRef(name="0.png"), "not loaded"), (ImageRef(png=b"x"), "not a PNG")):
        with pytest.raises(ValueError, match=f"sample 'b': image 0.*{message}"):
            writer.write("b", Trajectory(prompt="x", inputs=(ref,)))
    writer.finish()
    with pytest.raises(ValueError, match="finished"):
        writer.write("c", trajectory(0))


# --- reading what is damaged --------------------------------------------------------------------

Members = list[tuple[str, bytes]]


def good_members(key: str = "a") -> Members:
    item = trajectory(1)
    refs = [ImageRef(png=ref.png, name=f"{i}.png") for i, ref in enumerate(item.images)]
    text = item.with_images(refs).to_json().encode()
    return [(f"{key}.json", text)] + [(f"{key}.{ref.name}", ref.png or b"") for ref in refs]


def tar_of(members: Members) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def edited(name: str, data: bytes | None) -> Callable[[Members], Members]:
    def edit(members: Members) -> Members:
        return [(n, data if n == name else d) for n, d in members if n != name or data is not None]

    return edit  # type: ignore[return-value]


BOMB = io.BytesIO()
Image.new("1", (8200, 8200)).save(BOMB, "PNG")
PNG = trajectory(1).images[0].png or b""

DAMAGED: list[tuple[str, Callable[[Members], Members], str]] = [
    ("missing member", edited("a.0.png", None), r"a\.0\.png"),
    ("missing member", edited("a.json", None), r"a\.json"),
    ("unexpected member", lambda m: [*m, ("a.9.png", PNG)], "in no step"),
    ("unexpected member", lambda m: [*m, ("a.txt", b"x")], "in no step"),
    ("unexpected member", lambda m: [*m, m[0]], "appears twice"),
    ("bad trajectory", edited("a.json", b"{"), "not valid JSON"),
    ("bad trajectory", edited("a.json", b'{"version":2,"prompt":"x","steps":[]}'), "2 is not 1"),
    (
        "bad trajectory",
        edited("a.json", b'{"version":1,"prompt":"x","steps":[{"step":"stop","loss":true}]}'),
        r"steps\[0\]: stop may not come",
    ),
    ("bad image", edited("a.0.png", b"GIF89a"), "not a PNG"),
    ("bad image", edited("a.0.png", BOMB.getvalue()), "exceeds the limit of 67108864 pixels"),
    ("bad image", edited("a.0.png", PNG[:60]), "does not decode|not a PNG"),
    ("too large", lambda m: m + [(f"a.{i}.png", PNG) for i in range(2, 200)], "members"),
    ("too large", edited("a.0.png", PNG + bytes(70_000)), "exceed 60000"),
    ("bad name", lambda m: [(n.replace("a.", "a b."), d) for n, d in m], "letters"),
    ("bad name", lambda m: [("../" + n, d) for n, d in m], "letters"),
]


@pytest.mark.parametrize(("reason", "damage", "detail"), DAMAGED)
def test_a_bad_sample_is_named_and_can_be_skipped(
    reason: str, damage: Callable[[Members], Members], detail: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(tar_of([*good_members("z0"), *damage(good_members()), *good_members("z1")]))
    limits = Limits(image_bytes=60_000)
    with pytest.raises(ShardError, match=detail) as caught:
        list(read_shards(path, decode=True, limits=limits))
    assert caught.value.shard == "s.tar"
    assert caught.value.reason == reason
    assert str(caught.value).startswith("s.tar, sample ")
    if reason != "bad name":
        assert caught.value.key == "a"
    skipped = Skipped()
    kept = read_shards(path, on_error="skip", skipped=skipped, decode=True, limits=limits)
    assert [sample.key for sample in kept] == ["z0", "z1"]
    assert skipped.counts == {reason: 1}
    assert skipped.examples == [str(caught.value)]


def test_a_key_that_comes_again_is_an_error(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(tar_of(good_members()))
    with pytest.raises(ShardError, match=r"b\.tar, sample 'a': duplicate key"):
        list(read_shards(tmp_path))
    with pytest.raises(ShardError, match=rf"{tmp_path}/b\.tar, sample 'a': duplicate key"):
        ShardIndex(tmp_path)


@pytest.mark.parametrize(("kept", "said"), [(700, "truncated"), (None, "missing shard")])
def test_what_cannot_be_opened_is_named_with_its_folder(
    tmp_path: Path, kept: int | None, said: str
) -> None:
    folder = write(tmp_path / "one of several")
    (folder / "offsets.json").unlink()
    shard = folder / "shard-000001.tar"
    data = shard.read_bytes()
    shard.unlink()
    if kept is not None:
        shard.write_bytes(data[:kept])
    with pytest.raises(ShardError, match=rf"{shard}.*: {said}"):
        ShardIndex(folder)


def test_links_and_folders_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("a.json")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    (tmp_path / "s.tar").write_bytes(buffer.getvalue())
    with pytest.raises(ShardError, match="not a plain file"):
        list(read_shards(tmp_path))


def test_an_extended_header_may_not_rename_or_resize(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a.json")
        info.pax_headers = {"path": "b.json"}
        archive.addfile(info)
    (tmp_path / "s.tar").write_bytes(buffer.getvalue())
    with pytest.raises(ShardError, match="extended header"):
        list(read_shards(tmp_path))


def boundaries(data: bytes) -> Iterator[int]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive.getmembers():
            yield from (member.offset, member.offset_data)
        yield archive.offset
        yield archive.offset + 512


def test_a_tar_cut_anywhere_is_an_error_that_names_shard_and_key(tmp_path: Path) -> None:
    whole = tar_of(good_members("a") + good_members("b"))
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        start_of_b = archive.getmember("b.json").offset
        archive.getmembers()
        end = archive.offset
    path = tmp_path / "s.tar"
    places = sorted({*boundaries(whole), *range(0, end + 1024, 97)})
    for place in [place for place in places if place < end + 1024]:
        path.write_bytes(whole[:place])
        keys = []
        with pytest.raises(ShardError, match=r"^s\.tar.*: truncated: ") as caught:
            for sample in read_shards(path):
                keys.append(sample.key)
        # A whole header of b says that a is complete; then b is the one that is cut.
        assert keys == (["a"] if place >= start_of_b + 512 else [])
        assert caught.value.key == (("b" if keys else "a") if place >= 512 else None)


@given(data=st.data())
@settings(max_examples=150)
def test_flipped_bytes_never_escape_as_another_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    whole = bytearray(tar_of(good_members("a") + good_members("b")))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("flip") / "s.tar"
    path.write_bytes(whole)
    skipped = Skipped()
    kept = list(read_shards(path, on_error="skip", skipped=skipped, decode=True))
    assert len(kept) + sum(skipped.counts.values()) >= 1
    assert all(sample.key and sample.trajectory.images for sample in kept)


def test_a_damaged_header_ends_the_shard_but_not_the_data_set(
    dataset: Path, tmp_path: Path
) -> None:
    folder = write(tmp_path / "set")
    path = folder / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        data[archive.getmember("s001.json").offset] ^= 1
    path.write_bytes(data)
    skipped = Skipped()
    keys = [sample.key for sample in read_shards(folder, on_error="skip", skipped=skipped)]
    assert keys == ["s002", "s003", "s004"]
    assert skipped.counts == {"damaged tar": 1}
    with pytest.raises(ShardError, match=r"shard-000000\.tar, sample 's000': damaged tar"):
        list(read_shards(folder))


def test_an_unknown_policy_is_refused(dataset: Path) -> None:
    with pytest.raises(ValueError, match="'ignore'"):
        next(read_shards(dataset, on_error="ignore"))  # type: ignore[arg-type]


# --- random access ------------------------------------------------------------------------------


def test_random_access_equals_reading_in_order(dataset: Path, tmp_path: Path) -> None:
    index = ShardIndex(dataset)
    samples = list(read_shards(dataset))
    assert len(index) == 5
    assert [index[i] for i in (3, 0, 4, 1, 2)] == [samples[i] for i in (3, 0, 4, 1, 2)]
    assert index[-1] == samples[-1]
    assert index.find("s003") == 3
    assert list(pickle.loads(pickle.dumps(index))) == samples
    with pytest.raises(IndexError):
        index[5]
    with pytest.raises(ValueError, match="no sample 'x'"):
        index.find("x")


def test_offsets_are_found_again_by_a_scan(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    (folder / "offsets.json").unlink()
    assert list(ShardIndex(folder)) == list(read_shards(folder))


def test_stale_offsets_are_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    offsets = json.loads((folder / "offsets.json").read_text())
    rows = offsets["shards"]["shard-000000.tar"]["samples"]
    rows[0], rows[1] = [rows[1][0], *rows[0][1:]], [rows[0][0], *rows[1][1:]]
    (folder / "offsets.json").write_text(json.dumps(offsets))
    with pytest.raises(ShardError, match="stale offsets"):
        ShardIndex(folder)[0]
    rows[0], rows[1][0] = ["s000", 5, 99], "s001"
    (folder / "offsets.json").write_text(json.dumps(offsets))
    with pytest.raises(ShardError, match="stale offsets"):
        ShardIndex(folder)[0]
    rows[0] = ["s000", 5, 10**9]
    (folder / "offsets.json").write_text(json.dumps(offsets))
    with pytest.raises(ValueError, match=r"offsets\.json: shard-000000\.tar: .* is not"):
        ShardIndex(folder)


# --- whole data sets ----------------------------------------------------------------------------


def test_a_sound_data_set_validates(dataset: Path) -> None:
    found = validate(dataset)
    assert found.ok
    assert (found.samples, found.skipped) == (5, {})


def test_validation_reports_every_kind_of_damage(tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    first = folder / "shard-000000.tar"
    data = bytearray(first.read_bytes())
    with tarfile.open(first) as archive:
        member = archive.getmember("s000.0.png")
    data[member.offset_data + member.size // 2] ^= 0xFF
    first.write_bytes(data)
    (folder / "shard-000001.tar").unlink()
    found = validate(folder)
    assert not found.ok
    assert found.skipped == {"bad image": 1, "missing shard": 1}
    assert found.samples == 2
    text = "\n".join(found.problems)
    assert "shard-000000.tar: sha256 is" in text
    assert "shard-000000.tar, sample 's000': bad image: s000.0.png" in text
    assert "shard-000001.tar: listed in the index, but missing" in text
    assert "shard-000000.tar: 1 readable samples, the index says 2" in text
    assert "manifest.json: its counts differ" in text


def test_validation_looks_into_scene_graphs(tmp_path: Path) -> None:
    bad = Trajectory(prompt="x", scene_graph={"objects": [{"id": "o1"}]})
    with ShardWriter(tmp_path, title="x") as writer:
        writer.write("a", bad)
    assert validate(tmp_path).problems == (
        "shard-000000.tar, sample 'a': scene_graph.objects[0]: missing key 'class'",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"shards": [{}]}, r"shards\[0\]: missing key"),
        (
            {"shards": [{"shard": "../x.tar", "samples": 1, "bytes": 1, "sha256": ""}]},
            "not the name of a shard",
        ),
        ({"colour": 1}, "unknown key"),
    ],
)
def test_malformed_indexes_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "set")
    data = json.loads((folder / "index.json").read_text()) | change
    (folder / "index.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        list(read_shards(folder))


def test_merging_keeps_every_sample_and_adds_up(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="written before"):
        merge([dataset, dataset], tmp_path / "clash", title="both")
    merge([dataset, dataset], tmp_path / "both", title="both", prefixes=["a-", "b-"])
    assert validate(tmp_path / "both").ok
    samples = list(read_shards(tmp_path / "both"))
    assert [sample.key for sample in samples[::5]] == ["a-s000", "b-s000"]
    once = [sample.trajectory for sample in read_shards(dataset)]
    assert [sample.trajectory for sample in samples] == once + once
    manifest = read_manifest(tmp_path / "both")
    assert manifest.fingerprints == ("abc",)
    assert manifest.acceptance == {"sketch": {"accepted": 10, "wrong colour": 4}}
    assert manifest.cost == {"usd": 2.5, "requests": 20}
    with pytest.raises(ValueError, match="one of the sources"):
        merge([dataset], dataset, title="x", overwrite=True)


def test_resharding_there_and_back_gives_the_same_shards(dataset: Path, tmp_path: Path) -> None:
    merge([dataset], tmp_path / "wide", title="stars", max_samples=100)
    merge([tmp_path / "wide"], tmp_path / "back", title="stars", max_samples=2)
    assert len(read_index(tmp_path / "wide")) == 1
    assert read_index(tmp_path / "back") == read_index(dataset)
