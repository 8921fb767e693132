"""Outputs that are links, to another folder or to another disk: written there, and links still."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import training
import yaml
from test_numbered import tree

from staged import settings as job_settings
from staged.cli import main
from staged.command_line import outputs
from staged.jobs.files import temporary, whole_folder, write_whole
from staged.model import checkpoint
from staged.shards import validate

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(params=["another folder", "another disk"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty folder that a link may lead to."""
    if request.param == "another folder":
        (tmp_path / "elsewhere").mkdir()
        yield tmp_path / "elsewhere"
        return
    there = SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK)
    if not there or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip(f"{SHARED_MEMORY} is no disk of its own here")
    folder = Path(tempfile.mkdtemp(dir=SHARED_MEMORY))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def link(elsewhere: Path, tmp_path: Path) -> Path:
    path = tmp_path / "here" / "out"
    path.parent.mkdir()
    path.symlink_to(elsewhere, target_is_directory=True)
    return path


def sound(link: Path, elsewhere: Path) -> bool:
    """Whether the link is as it was, and nothing unfinished lies beside it or where it leads."""
    halves = [p for place in (link.parent, elsewhere) for p in place.rglob(".*.tmp")]
    olds = [p for place in (link.parent, elsewhere) for p in place.rglob(".*.old")]
    return link.is_symlink() and os.listdir(link.parent) == [link.name] and not halves + olds


def test_a_linked_file_is_written_where_it_leads(tmp_path: Path, elsewhere: Path) -> None:
    """The link was replaced, and the file was on the disk that had no room for it."""
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "report.html"
    link.symlink_to(elsewhere / "real.html")
    for content in (b"new", b"changed"):  # it leads nowhere, then to a file
        assert outputs.file(link) == link
        assert temporary(link).parent.samefile(elsewhere)
        write_whole(link, content)
        assert (elsewhere / "real.html").read_bytes() == content
    assert sound(link, elsewhere)
    assert os.listdir(elsewhere) == ["real.html"]


def test_a_linked_folder_is_replaced_where_it_leads(link: Path, elsewhere: Path) -> None:
    for content in ("new", "changed"):
        (elsewhere / "stale").touch()
        with whole_folder(link) as fresh:
            assert fresh.stat().st_dev == elsewhere.stat().st_dev
            (fresh / "file").write_text(content)
        assert os.listdir(elsewhere) == ["file"]
        assert (link / "file").read_text() == content
    assert sound(link, elsewhere)


def test_links_to_nowhere_are_refused_first(tmp_path: Path) -> None:
    for name, check in (("out", outputs.folder), ("page.html", outputs.file)):
        (tmp_path / name).symlink_to(tmp_path / "gone" / name)
        with pytest.raises(NotADirectoryError, match="link to what is not there") as caught:
            check(tmp_path / name)
        assert caught.value.filename == str(tmp_path / name)


def twice(*command: str | Path) -> None:
    """Run a command, and again on what it left."""
    for _ in range(2):
        assert main([str(word) for word in command]) == 0


def test_data_jobs_follow_links(link: Path, elsewhere: Path, tmp_path: Path) -> None:
    twice("data", "plan-sketch", "--out", link, "prompts.count=3")
    assert sound(link, elsewhere) and validate(elsewhere).ok
    assert main(["data", "preview", str(link)]) == 0
    shutil.rmtree(elsewhere)
    elsewhere.mkdir()
    config = tmp_path / "base.yaml"
    config.write_text(yaml.safe_dump({"out": str(link), "num_samples": 4, "num_workers": 1}))
    assert main(["data", "base", str(config)]) == 0
    assert sound(link, elsewhere) and validate(elsewhere).ok


def test_shards_that_are_links_are_written_where_they_lead(
    link: Path, elsewhere: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    out.mkdir()
    (out / "shard-000000.tar").symlink_to(elsewhere / "big.tar")
    assert main(["data", "plan-sketch", "--out", str(out), "prompts.count=3"]) == 0
    assert validate(out).ok and (out / "shard-000000.tar").is_symlink()
    assert (elsewhere / "big.tar").stat().st_size == (out / "shard-000000.tar").stat().st_size


def test_training_follows_links(link: Path, elsewhere: Path, tmp_path: Path) -> None:
    """Also with the states, or the cache of latents, on another disk than the run."""
    world = training.build(tmp_path / "world")
    settings = world.settings(link, num_steps=4, cache=None)
    path = tmp_path / "train.yaml"
    job_settings.save_resolved(settings, path)
    for name in ("state", "checkpoint", "cache"):
        (elsewhere / f"far-{name}").mkdir()
        (elsewhere / name).symlink_to(elsewhere / f"far-{name}")
    twice("train", path)
    assert main(["train", str(path), f"out={elsewhere}", "num_steps=4"]) == 0, "by its other name"
    assert sound(link, elsewhere)
    for name in ("state", "checkpoint", "cache"):
        assert (elsewhere / name).is_symlink() and any((elsewhere / f"far-{name}").iterdir())
    assert checkpoint.load(link / "checkpoint").tokenizer is not None


def test_evaluation_follows_links(link: Path, elsewhere: Path, tmp_path: Path) -> None:
    scripted = ["--planner", "scripted", "--inspector", "scripted", "--sketcher", "scripted"]
    twice(
        *("eval", "miniature", "--out", link, "--checkpoint", "miniature:fresh"),
        *("--mode", "staged", *scripted, "--num-per-task", "1"),
    )
    assert sound(link, elsewhere) and (elsewhere / "result.json").is_file()
    images = tree(tmp_path / "images", "samples/0.png")
    found, page = tmp_path / "found.jsonl", tmp_path / "page.html"
    found.symlink_to(elsewhere / "found-there.jsonl")
    page.symlink_to(elsewhere / "page-there.html")
    twice("eval", "detect", images, "--detector", "miniature", "--out", found)
    assert found.is_symlink() and json.loads((elsewhere / "found-there.jsonl").read_text())
    twice("eval", "report", link, "--out", page)
    assert page.is_symlink() and (elsewhere / "page-there.html").stat().st_size > 1000


def test_generation_of_a_benchmark_follows_links(
    link: Path, elsewhere: Path, tmp_path: Path
) -> None:
    images = tree(tmp_path / "images", "samples/0.png")
    twice(
        *("eval", "generate", "--benchmark", "geneval", "--prompts", images, "--out", link),
        *("--generator", "folder", "--images-per-prompt", "1", f"images={images}"),
        "pattern={prompt:05}/samples/{image}",
    )
    assert sound(link, elsewhere) and (elsewhere / "00000" / "samples" / "00000.png").is_file()


def test_generate_follows_links(link: Path, elsewhere: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a star\na ring\n")
    twice(
        *("generate", "--prompts", prompts, "--out", link, "--checkpoint", "miniature:fresh"),
        *("--flow-steps", "2", "--mode", "one-shot"),
    )
    assert sound(link, elsewhere) and (elsewhere / "report.html").is_file()


@pytest.mark.parametrize("make", [Path.is_dir, Path.is_file])
def test_folders_that_cannot_be_synced_are_no_failure(
    make: Callable[[Path], bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some disks over a network take fsync for files alone; where a file cannot, it is said."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if make(Path(os.readlink(f"/proc/self/fd/{descriptor}"))):
            raise OSError(22, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if make is Path.is_file:
        with pytest.raises(OSError, match="Invalid argument"):
            write_whole(tmp_path / "file", b"x")
        assert not (tmp_path / "file").exists()
    else:
        write_whole(tmp_path / "file", b"x")
        assert (tmp_path / "file").read_bytes() == b"x"
