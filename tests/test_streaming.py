"""Data sets at addresses: the same samples as from a folder, whatever the network does."""

import errno
import json
import multiprocessing
import pickle
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import training
from remote_folder import Site, serving
from training import assert_same, made, train

from staged.shards import ShardError, ShardIndex, ShardWriter
from staged.shards.limits import Limits
from staged.shards.streaming import RemoteError, RemoteShards, Streaming, shards
from staged.shards.streaming.pieces import Pieces
from staged.shards.streaming.remote import Remote, _PassingError
from train.job import Trainer
from train.settings import Subset, ValidationSettings

QUICK = Streaming(timeout_s=0.5, attempts=4, connections=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten samples in three shards."""
    folder = tmp_path_factory.mktemp("data")
    trajectories = [kind(seed) for seed in (0, 10) for kind in training.ALL_KINDS]
    return training.write_data(folder / "shards", trajectories)


def remote(site: Site, folder: Path, **changes: Any) -> RemoteShards:
    return RemoteShards(site.address, folder, replace(QUICK, **changes))


def summed(shards: RemoteShards) -> bytes:
    return b"".join(digest for _, digest in shards.in_order())


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.piece"))


def test_the_samples_are_those_of_the_folder(data: Path, tmp_path: Path) -> None:
    """In their order, in any order, and each fetched once."""
    here = ShardIndex(data)
    with serving(data) as site:
        there = remote(site, tmp_path)
        assert there.keys == here.keys
        assert [sample for sample, _ in there.in_order()] == list(here)
        shards = [name for name, _, _ in site.asked if name.endswith(".tar")]
        assert len(shards) == len(here.shards) == len(set(shards)), "a shard is one stream"
        there.expect(summed(there))
        number = len(site.asked)
        order = [7, 0, 9, 3, 3, 7]
        assert [there[i] for i in order] == [here[i] for i in order]
        assert len(site.asked) == number, "it is on the disk"
        fresh = remote(site, tmp_path / "fresh")
        number = len(site.asked)
        assert [fresh[i] for i in order] == [here[i] for i in order]
        assert len(site.asked) - number == 4


def test_what_is_cut_or_stalls_or_fails_goes_on(data: Path, tmp_path: Path) -> None:
    """From the byte that came last, and without a byte too many."""
    faults = ["cut", "503", "stall", "429", None]

    def fault(name: str, count: int) -> str | None:
        return faults[count % len(faults)] if name.endswith(".tar") else ["500", None][count % 2]

    with serving(data, fault) as site:
        there = remote(site, tmp_path)
        assert [sample for sample, _ in there.in_order()] == list(ShardIndex(data))
        first = [(a, b) for name, a, b in site.asked if name == "shard-000000.tar"]
        size = there.entries[0].bytes
        # Half of it, a third of what was left, and the rest; two attempts gave nothing.
        half = size // 2
        third = half + (size - half) // 3
        assert first == [(0, size), (half, size), (third, size)]
        fresh = remote(site, tmp_path / "fresh")
        assert [fresh[i] for i in range(len(fresh))] == list(ShardIndex(data))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("404", "HTTP status 404, it is not there"),
        ("403", "HTTP status 403, it is not public"),
        ("cut", "4 times in a row"),
        ("503", "HTTP status 503, 4 times in a row"),
        ("whole", "gives no parts of files"),
    ],
)
def test_what_cannot_be_had_is_named(fault: str, told: str, data: Path, tmp_path: Path) -> None:
    with serving(data, lambda name, _: fault if name == "shard-000001.tar" else None) as site:
        there = remote(site, tmp_path)
        assert there[0] == ShardIndex(data)[0]
        with pytest.raises(RemoteError, match=told) as caught:
            there[5]
        assert f"{site.address}/shard-000001.tar" in str(caught.value)


def test_nobody_there_is_told_within_the_attempts(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(RemoteError, match=r"127.0.0.1:9/x/index.json: .*4 times in a row"):
        RemoteShards("http://127.0.0.1:9/x", tmp_path, QUICK)
    assert time.monotonic() - began < 30
    with pytest.raises(ValueError, match="must not hold a user or a password"):
        RemoteShards("https://me:secret@127.0.0.1:9/x", tmp_path, QUICK)
    with pytest.raises(RemoteError) as caught:
        RemoteShards("http://127.0.0.1:9/x?token=secret", tmp_path, QUICK)
    assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match="nowhere"):
        RemoteShards("nowhere://x/y", tmp_path, QUICK)


@pytest.fixture
def changing(data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data, tmp_path / "changing"))


def test_other_bytes_are_found_out(changing: Path, tmp_path: Path) -> None:
    """By the sum of the shard at first, and later by those of its samples."""
    here = list(ShardIndex(changing))
    with serving(changing) as site:
        there = remote(site, tmp_path / "kept", max_gib=1e-9)
        there.expect(summed(there))
        path = changing / there.entries[1].shard
        right = path.read_bytes()
        wrong = bytearray(right)
        # The prompt of a sample: nothing of its form is wrong.
        wrong[right.index(b'"prompt":"') + 12] ^= 1
        path.write_bytes(wrong)
        with pytest.raises(ShardError, match=r"shard-000001.tar, sample .* it has changed"):
            there[4]
        fresh = remote(site, tmp_path / "fresh")
        with pytest.raises(ShardError, match=r"shard-000001.tar: .*the index says"):
            summed(fresh)
        path.write_bytes(right + bytes(512))
        with pytest.raises(RemoteError, match=r"bytes, the index says .* it has changed"):
            there[4]
        path.write_bytes(right)
        # What was fetched before it was found out is not believed later.
        assert [sample for sample, _ in fresh.in_order()] == here
        assert [there[i] for i in range(len(there))] == here


@pytest.mark.parametrize("name", ["index.json", "offsets.json"])
def test_malformed_files_are_named(name: str, changing: Path, tmp_path: Path) -> None:
    record = json.loads((changing / name).read_text())
    record["version"] = 7
    (changing / name).write_text(json.dumps(record))
    with serving(changing) as site, pytest.raises(ValueError, match=rf"data/{name}.*version 7"):
        remote(site, tmp_path)
    (changing / "offsets.json").write_text('{"version": 1, "shards": {}}')
    (changing / "index.json").write_text("[")
    with serving(changing) as site, pytest.raises(ValueError, match=r"index.json: not valid JSON"):
        remote(site, tmp_path)


def test_damage_on_the_disk_is_fetched_again(data: Path, tmp_path: Path) -> None:
    with serving(data) as site:
        there = remote(site, tmp_path)
        expected = there[5]
        [piece] = tmp_path.rglob("*.piece")
        for wrong in (piece.read_bytes()[:-40], b"", piece.read_bytes()[::-1]):
            piece.write_bytes(wrong)
            assert there[5] == expected
        assert len([1 for name, _, _ in site.asked if name.endswith(".tar")]) == 4


def test_what_was_not_read_for_longest_goes_first(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, 10 * 1032)
    for number in range(10):
        pieces.put(f"{number:02x}", bytes([number]) * 1000)
        time.sleep(0.002)
    assert pieces.read("00") == bytes(1000)  # now it is the newest
    pieces.put("aa", b"a" * 1000)
    left = {f"{number:02x}" for number in range(10) if pieces.read(f"{number:02x}") is not None}
    assert "00" in left and "01" not in left and pieces.read("aa") is not None
    assert size_of(tmp_path) <= 10 * 1032
    with pieces.held("00") as file:
        for number in range(20, 60):
            pieces.put(f"{number:02x}", bytes([number]) * 1000)
        assert file is not None and file.read(1000) == bytes(1000)
        assert (tmp_path / "00" / "00.piece").exists(), "it is being read"
    for number in range(60, 90):
        pieces.put(f"{number:02x}", bytes([number]) * 1000)
    assert not (tmp_path / "00" / "00.piece").exists()
    assert size_of(tmp_path) <= 10 * 1032


def test_a_full_disk_keeps_nothing_and_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(data) as site:
        there = remote(site, tmp_path)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        assert there[2] == ShardIndex(data)[2] == there[2]
    assert not list(tmp_path.rglob("*.piece"))


def _read_all(shards: RemoteShards, first: int, said: Any) -> None:
    count = len(shards)
    for turn in range(3 * count):
        with shards.at_hand([(first + turn) % count, (first + 2 * turn) % count]):
            sample = shards[(first + turn) % count]
            said.put((sample.key, len(sample.trajectory.steps)))
    said.put(None)


@pytest.mark.parametrize("max_gib", [1.0, 2e-5], ids=["all", "little"])
def test_two_processes_share_what_they_fetch(max_gib: float, data: Path, tmp_path: Path) -> None:
    """Each sample is fetched once, or again where little is kept; never more than that is."""
    here = ShardIndex(data)
    expected = {sample.key: len(sample.trajectory.steps) for sample in here}
    with serving(data) as site:
        there = pickle.loads(pickle.dumps(remote(site, tmp_path, max_gib=max_gib)))
        context = multiprocessing.get_context("fork")
        said = context.Queue()
        processes = [
            context.Process(target=_read_all, args=(there, first, said)) for first in (0, 5)
        ]
        for process in processes:
            process.start()
        ended, seen = 0, 0
        while ended < 2:
            answer = said.get(timeout=120)
            ended += answer is None
            if answer is not None:
                assert expected[answer[0]] == answer[1]
                seen += 1
        for process in processes:
            process.join()
            assert process.exitcode == 0
        fetched = [place for place in site.asked if place[0].endswith(".tar")]
        assert seen == 2 * 3 * len(here)
        if max_gib == 1.0:
            assert len(fetched) == len(set(fetched)) == len(here)
        else:
            assert len(fetched) > len(here)
            Pieces(tmp_path, int(max_gib * 2**30))
            assert size_of(tmp_path) <= max_gib * 2**30


def test_other_stores_are_read_through_fsspec(data: Path, tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in data.iterdir():
        memory.pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    there = RemoteShards("memory://bucket/shards", tmp_path, QUICK)
    assert [sample for sample, _ in there.in_order()] == list(ShardIndex(data))
    fresh = RemoteShards("memory://bucket/shards", tmp_path / "fresh", QUICK)
    assert fresh[9] == ShardIndex(data)[9]
    memory.rm("/bucket/shards/shard-000002.tar")
    with pytest.raises(RemoteError, match=r"shard-000002.tar: it is not there"):
        fresh[8]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> training.World:
    return training.build(tmp_path_factory.mktemp("world"))


def at(site: Site, settings: Any, **changes: Any) -> Any:
    # Faults go by turns among requests that come side by side: one may have several in a row.
    streaming = replace(QUICK, **{"attempts": 20, **changes})
    return replace(settings, data=(Subset(path=site.address),), streaming=streaming)


def faulty(name: str, count: int) -> str | None:
    return ["cut", None, "503"][count % 3] if name.endswith(".tar") else None


@pytest.mark.slow
def test_a_run_at_an_address_is_that_of_the_folder(world: training.World, tmp_path: Path) -> None:
    """Bit by bit, begun here and finished there, over a bad network and hardly any disk."""
    here = world.settings(tmp_path / "here", num_workers=0)
    expected = train(here)
    moving = replace(here, out=tmp_path / "moving")
    trainer = Trainer(moving)
    with trainer.state.written():
        packs = trainer.packs.from_step(0)
        for _ in range(3):
            trainer.interval.add(trainer.train_step(next(packs)))
            trainer.interval.take()
            trainer.step += 1
        trainer._save()
    with serving(world.data, faulty) as site:
        assert_same_weights(train(at(site, moving, max_gib=1e-5)), expected)
        assert any(name.endswith(".tar") for name, _, _ in site.asked)
        fresh = at(site, replace(here, out=tmp_path / "there", num_workers=1), max_gib=1e-5)
        assert_same(train(fresh), expected)


def assert_same_weights(results: dict[str, Any], expected: dict[str, Any]) -> None:
    """Without the log, of which the first part was not written here."""
    assert_same({**results, "log": None}, {**expected, "log": None})


@pytest.mark.slow
def test_a_killed_run_at_an_address_goes_on_exactly(world: training.World, tmp_path: Path) -> None:
    expected = train(world.settings(tmp_path / "here"))
    with serving(world.data, faulty) as site:
        settings = at(site, world.settings(tmp_path / "there"), max_gib=1e-5)
        process = training.start(
            training.run_and_die, settings, "train.job:Trainer.train_step", 6, "before"
        )
        process.join()
        assert process.exitcode == -9
        assert_same(train(settings), expected)
    assert made(tmp_path / "there").keys() == expected.keys()


def test_held_out_data_may_be_elsewhere(world: training.World, tmp_path: Path) -> None:
    others = training.write_data(tmp_path / "others", [training.one_shot(99), training.edit(98)])
    with serving(others) as site:
        validation = ValidationSettings(data=(site.address,), every_steps=2)
        settings = world.settings(tmp_path / "run", num_steps=2, validation=validation)
        train(replace(settings, streaming=QUICK))
        log = (tmp_path / "run" / "log.jsonl").read_text()
        assert "validation/loss" in log


def test_a_server_that_is_gone_ends_the_run_by_name(world: training.World, tmp_path: Path) -> None:
    with serving(world.data) as site:
        settings = world.settings(tmp_path / "run", num_workers=0)
        settings = at(site, settings, max_gib=1e-9, attempts=4)
        trainer = Trainer(settings)
        site.fault = lambda name, count: "503"
        with pytest.raises((ValueError, OSError), match=rf"{site.address}/shard.*503, 4 times"):
            trainer.run()


def test_a_query_is_sent_and_never_shown(
    world: training.World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run: in no progress, no name of a sample and no message."""
    with serving(world.data) as site:
        address = f"{site.address}?signature=hidden"
        settings = world.settings(tmp_path / "run", num_workers=0)
        settings = replace(settings, data=(Subset(path=address),), streaming=QUICK)
        validation = ValidationSettings(data=(address,))
        with pytest.raises(ValueError, match=rf"names {site.address}, which is trained") as caught:
            Trainer(replace(settings, validation=validation))
        [sums] = (settings.cache or settings.out / "cache").glob("*.sums")
        whole = sums.read_bytes()
        for cut in (whole[:-1], whole[:-32], b""):
            sums.write_bytes(cut)
            with pytest.raises(ValueError, match=rf"{sums} is damaged .*; remove it, and"):
                Trainer(settings)
        sums.unlink()
        examples = Trainer(replace(settings, streaming=replace(QUICK, max_gib=1e-9))).examples
        assert sums.read_bytes() == whole
        site.fault = lambda name, count: "503"
        with pytest.raises((ValueError, OSError)) as lost:
            examples.trajectory(0)
        said = [str(caught.value), str(lost.value), examples.name(0), *examples.folders.values()]
    shown = capsys.readouterr()
    assert "hidden" not in "".join([*said, shown.out, shown.err])
    with pytest.raises(ValueError, match="teaches nothing") as idle:
        Subset(path=address, ce_weight=0, mse_weight=0)
    assert "hidden" not in str(idle.value)


class _Source:
    """Gives what it is made of."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self.given, self._chunks = 0, chunks

    def chunks(self, *_: object) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.given += 1
            yield chunk


def remote_of(chunks: Iterable[bytes], **changes: Any) -> tuple[Remote, _Source]:
    """A folder whose files come in given chunks."""
    found, source = Remote("http://127.0.0.1:9/x", replace(QUICK, **changes)), _Source(chunks)
    found._source = source
    return found, source


def test_a_file_in_many_chunks_is_put_together_once() -> None:
    """Nothing is copied at each chunk: these would be 1 TB."""
    began = time.monotonic()
    there, _ = remote_of([bytes(2000)] * 32_000)
    assert len(there.whole("a", max_bytes=2**27)) == 64_000_000
    assert time.monotonic() - began < 20


def _endless() -> Iterator[bytes]:
    while True:
        yield bytes(100)


@pytest.mark.parametrize("stop", [1000, 1050])
def test_a_server_that_gives_more_than_asked_is_left(stop: int) -> None:
    there, source = remote_of(_endless())
    assert len(b"".join(there.part("a", 0, stop, size=10**9))) == stop
    assert source.given == 11


def test_an_end_that_does_not_come_costs_nothing() -> None:
    def hanging() -> Iterator[bytes]:
        yield bytes(1000)
        raise _PassingError("timed out")

    there, _ = remote_of(hanging(), attempts=1)
    assert len(b"".join(there.part("a", 0, 1000, size=10**9))) == 1000


def test_connections_are_used_again(data: Path, tmp_path: Path) -> None:
    with serving(data) as site:
        there = remote(site, tmp_path)
        assert [there[i] for i in range(len(there))] == list(ShardIndex(data))
        [client] = there._remote._source._clients.values()  # type: ignore[attr-defined]
        [connection] = client._transport._pool.connections
        assert connection.is_idle()


def test_a_large_object_is_refused_in_pieces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of a store, too, no more is taken than a piece beyond what may be."""
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe_file("/large/index.json", bytes(9 * 2**20))
    taken, real = [], type(memory).cat_file

    def cat_file(*arguments: Any, **options: Any) -> bytes:
        taken.append(real(*arguments, **options))
        return taken[-1]

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    there = Remote("memory://large", QUICK)
    with pytest.raises(RemoteError, match=r"large/index.json: more than 1000 bytes"):
        there.whole("index.json", max_bytes=1000)
    assert sum(map(len, taken)) <= 4 * 2**20
    assert there.whole("index.json", max_bytes=2**24) == bytes(9 * 2**20)


def test_a_sample_that_is_too_large_is_refused_before_it_is_fetched(
    data: Path, tmp_path: Path
) -> None:
    with serving(data) as site:
        with pytest.raises(ShardError, match=r"shard-000000.tar, sample .*: too large: .* exceed"):
            RemoteShards(site.address, tmp_path, QUICK, limits=Limits(sample_bytes=1000))
        assert not [name for name, _, _ in site.asked if name.endswith(".tar")]


def test_what_stands_between_samples_is_read_in_pieces(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_PIECE_BYTES", 700)
    read, real = [], shards._Stream.read

    def counted(stream: shards._Stream, start: int, stop: int) -> bytes:
        read.append(stop - start)
        return real(stream, start, stop)

    monkeypatch.setattr(shards._Stream, "read", counted)
    with serving(data) as site:
        there = remote(site, tmp_path)
        assert [sample for sample, _ in there.in_order()] == list(ShardIndex(data))
    between = sum(entry.bytes for entry in there.entries) - sum(
        stop - start for _, start, stop in there._places
    )
    assert sum(size for size in read if size <= 700) >= between > 700


def test_an_empty_address_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "empty", title="empty"):
        pass
    with serving(tmp_path / "empty") as site:
        assert len(remote(site, tmp_path / "kept")) == 0
