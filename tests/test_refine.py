"""The refine job: triples in GenRef's layout, in JSON lines, and from our own trajectories."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines.job import LEDGER
from data_pipelines.pairs import pairs, write_pairs
from data_pipelines.refine.genref import GenRef
from data_pipelines.refine.job import run_job
from data_pipelines.refine.json_lines import JsonLines
from data_pipelines.refine.own import OwnTrajectories
from data_pipelines.refine.settings import ImportSettings, RefineSettings
from staged import images
from staged.data_urls import to_data_url
from staged.jobs.rank import Rank
from staged.jobs.records import Records
from staged.shapes.language.critiques import read_sketch_critique
from staged.shapes.language.prompts import read_prompt
from staged.shapes.sight.detect import detect
from staged.shapes.sight.verdict import satisfied
from staged.shapes.tasks import sample_prompt, sample_scene
from staged.shapes.world.render import render
from staged.shards import Sample, ShardError, ShardWriter, read_shards, validate
from staged.tables import BadRowError
from staged.trajectory import (
    ImageRef,
    Inspection,
    Plan,
    Refinement,
    Sketch,
    Stop,
    Trajectory,
)

COUNT = 12


def triple(number: int, *, mended: bool = True) -> dict[str, bytes]:
    """A picture of another prompt, and one of this."""
    rng = np.random.default_rng((7, number))
    prompt, other = (sample_prompt("color_attr", rng) for _ in range(2))
    good = render(sample_scene(prompt.spec if mended else other.spec, rng))
    bad = render(sample_scene(other.spec, rng))
    return {
        "good_image.jpg": images.encode_png(good),
        "bad_image.jpg": images.encode_png(bad),
        "prompt.txt": prompt.text.encode(),
        "reflection.txt": b"The shapes are not the ones that were asked for.",
        "subset.txt": [b"general", b"rule"][number % 2],
    }


def write_tar(path: Path, samples: dict[str, dict[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as archive:
        for key, members in samples.items():
            for name, data in members.items():
                info = tarfile.TarInfo(f"{key}.{name}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def genref(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("genref")
    for shard in range(2):
        numbers = range(shard * COUNT // 2, (shard + 1) * COUNT // 2)
        write_tar(folder / f"{shard:05d}.tar", {f"{n:06d}": triple(n) for n in numbers})
    return folder


def job(path: Path, kind: str = "genref", **changes: Any) -> RefineSettings:
    source = ImportSettings(path=path, format=kind)  # type: ignore[arg-type]
    return replace(RefineSettings(sources=(source,), explain_mended=0.5), **changes)


@pytest.fixture(scope="module")
def lessons(genref: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    out = tmp_path_factory.mktemp("refine") / "data"
    report = run_job(job(genref), out)
    assert report.accepted == COUNT, report
    assert validate(out).ok
    return list(read_shards(out))


def test_pictures_that_fit_are_explained_and_others_corrected(lessons: list[Sample]) -> None:
    kinds = {"refine aligned": 0, "refine misaligned": 0}
    explained = 0
    for sample in lessons:
        trajectory = sample.trajectory
        kinds[str(trajectory.task)] += 1
        spec = read_prompt(trajectory.prompt).spec
        first, inspection, *rest = trajectory.steps
        assert isinstance(first, Sketch) and isinstance(inspection, Inspection)
        assert not first.loss and isinstance(rest[-1], Stop)
        verdict = satisfied(spec, detect(first.image.array()))
        assert (inspection.verdict == "accept") == verdict.exact
        if trajectory.task == "refine misaligned":
            assert read_sketch_critique(inspection.critique)
            refinement, mended = rest[:2]
            assert isinstance(refinement, Refinement) and isinstance(mended, Sketch)
            assert mended.loss and satisfied(spec, detect(mended.image.array())).exact
            explained += len(rest) == 4
            assert trajectory.provenance["reflection"].startswith("The shapes are not")
        assert trajectory.provenance["subset"] in ("general", "rule")
        assert ".tar, sample" in trajectory.provenance["source"]
    assert min(kinds.values()) >= 2 and 0 < explained < kinds["refine misaligned"]


def test_json_lines_give_what_tars_give(
    genref: Path, lessons: list[Sample], tmp_path: Path
) -> None:
    """By paths and as data URLs, under whatever names, and in two processes."""
    lines = []
    for number in range(COUNT):
        parts = triple(number)
        (tmp_path / f"good{number}.png").write_bytes(parts["good_image.jpg"])
        line = {
            "caption": parts["prompt.txt"].decode(),
            "pictures": [f"good{number}.png", {"url": to_data_url(parts["bad_image.jpg"])}],
            "why": parts["reflection.txt"].decode(),
            "subset": parts["subset.txt"].decode(),
        }
        lines.append(json.dumps(line))
    path = tmp_path / "triples.jsonl"
    path.write_text("\n\n".join(lines) + "\n")
    fields = {"prompt": "caption", "good": "pictures.0", "bad": "pictures.1.url"}
    source = ImportSettings(path=path, format="json-lines", fields={**fields, "reflection": "why"})
    for number in (1, 0):
        rank = Rank(number=number, world_size=2)
        settings = RefineSettings(sources=(source,), explain_mended=0.5)
        run_job(settings, tmp_path / "data", rank=rank)
    for one, other in zip(lessons, read_shards(tmp_path / "data"), strict=True):
        assert one.trajectory.steps == other.trajectory.steps


def test_what_fits_is_not_corrected_and_what_does_not_is_not_explained(tmp_path: Path) -> None:
    samples = {f"{n}": triple(n, mended=False) for n in range(4)}
    for n in range(4, 8):
        samples[str(n)] = triple(n)
        samples[str(n)]["bad_image.jpg"] = samples[str(n)]["good_image.jpg"]
    write_tar(tmp_path / "a.tar", samples)
    report = run_job(job(tmp_path, aligned=0.0), tmp_path / "data")
    assert report.reasons["correct_image"] == {
        "nothing wrong with the first": 4, "the second does not mend it": 4
    }  # fmt: skip
    report = run_job(job(tmp_path, aligned=1.0), tmp_path / "other")
    assert report.reasons["explain_image"] == {"the better image does not fit": 4}
    assert report.accepted == 4


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"good_image.jpg": b"no picture"}, "bad image"),
        ({"bad_image.jpg": triple(1)["bad_image.jpg"][:200]}, "bad image"),
        ({"good_image.jpg": None}, "missing image"),
        ({"prompt.txt": None}, "missing prompt"),
        ({"prompt.txt": b"<ins>a star</ins>"}, "bad prompt"),
        ({"prompt.txt": b"\xff\xfe"}, "bad text"),
        ({"prompt.txt": b"a" * 70_000}, "too large"),
    ],
)
def test_a_triple_that_cannot_be_read_is_counted_with_shard_and_key(
    change: dict[str, bytes | None], reason: str, tmp_path: Path
) -> None:
    broken = {name: data for name, data in {**triple(0), **change}.items() if data is not None}
    write_tar(tmp_path / "a.tar", {"x1": broken, "x2": triple(1)})
    out = tmp_path / "data"
    report = run_job(job(tmp_path), out)
    assert report.accepted == 1 and report.reasons["import"] == {reason: 1}
    assert "a.tar, sample 'x1'" in report.examples["import", reason]
    assert Records(out / LEDGER).spent.requests == 1, "nothing was asked about it"


def test_a_truncated_tar_is_an_error(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"1": triple(0)})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ShardError, match=r"a\.tar.*truncated"):
        run_job(job(tmp_path), tmp_path / "data")


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "link.png"])
def test_paths_do_not_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(triple(0)["good_image.jpg"])
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    (inside / "a.jsonl").write_text(json.dumps({"prompt": "a star", "good": name}))
    with pytest.raises(BadRowError, match="leads out of"):
        JsonLines(inside / "a.jsonl").triple(0)


def test_subsets_and_most_choose(genref: Path) -> None:
    assert len(GenRef(genref)) == COUNT and len(GenRef(genref, ("rule",))) == COUNT // 2
    assert GenRef(genref, ("rule",)).triple(0).subset == "rule"
    short = {**triple(0), "reflection.txt": b"none"}
    assert GenRef(write_tar(genref.parent / "b.tar", {"1": short})).triple(0).reflection is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "genref", "fields": {"prompt": "a"}}, "fields are for json-lines"),
        ({"format": "trajectories", "subsets": ("rule",)}, "subsets are GenRef's"),
        ({"format": "genref", "subsets": ("rules",)}, "subsets: rules; GenRef has general"),
        ({"format": "genref", "most": 0}, "most is 0"),
    ],
)
def test_sources_that_make_no_sense_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImportSettings(path=Path("a"), **given)


def test_without_sources_there_is_nothing_to_do(tmp_path: Path, genref: Path) -> None:
    with pytest.raises(ValueError, match="sources: none"):
        run_job(RefineSettings(), tmp_path)
    with pytest.raises(ValueError, match=f"count is 99, but the sources have {COUNT}"):
        run_job(job(genref, count=99), tmp_path)


def test_a_source_that_grows_adds_to_the_data_set(genref: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert run_job(job(genref, count=4), out).accepted == 4
    first = {s.key: s.trajectory for s in read_shards(out)}
    assert run_job(job(genref), out).accepted == COUNT
    assert first.items() <= {s.key: s.trajectory for s in read_shards(out)}.items()


def picture(number: int) -> ImageRef:
    return ImageRef.from_array(np.full((16, 16, 3), number, np.uint8), name=f"{number}.png")


OURS = Trajectory(
    prompt="a photo of a star",
    steps=(
        Plan(instruction="add a star", description="a star"),
        Sketch(image=picture(0), loss=False),
        Inspection(target="sketch", verdict="revise", critique="no star"),
        Refinement(instruction="add a star"),
        Sketch(image=picture(1), loss=False),
        Inspection(target="sketch", verdict="revise", critique="two stars"),
        Refinement(instruction="remove one star"),
        Sketch(image=picture(2)),
        Stop(),
    ),
    provenance={"models": {"sketcher": "m"}},
)


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    with ShardWriter(tmp_path / "ours", title="ours") as writer:
        writer.write("a", OURS)
        writer.write("b", replace(OURS, steps=OURS.steps[:2]))
    return tmp_path / "ours"


def test_what_we_refused_and_mended_makes_triples(ours: Path) -> None:
    found = OwnTrajectories(ours)
    triples = [found.triple(number) for number in range(len(found))]
    assert [t.prompt for t in triples] == ["a star"] * 2
    assert [t.reflection for t in triples] == ["add a star", "remove one star"]
    assert [t.bad for t in triples] == [picture(0).png, picture(1).png]
    assert {t.good for t in triples} == {picture(2).png}
    assert triples[0].facts == {"models": {"sketcher": "m"}}


def test_pairs_differ_in_their_last_sketch_alone(ours: Path, tmp_path: Path) -> None:
    assert write_pairs(ours, tmp_path / "pairs") == 2
    written = {sample.key: sample.trajectory for sample in read_shards(tmp_path / "pairs")}
    assert list(written) == ["a-0-1", "a-0-0", "a-1-1", "a-1-0"]
    for name in ("a-0", "a-1"):
        better, worse = written[f"{name}-1"], written[f"{name}-0"]
        assert better.steps[:-1] == worse.steps[:-1]
        assert [step.loss for step in better.steps] == [False] * (len(better.steps) - 1) + [True]
        assert not any(step.loss for step in worse.steps)
        assert (better.provenance["preferred"], worse.provenance["preferred"]) == (True, False)
        assert better.provenance["pair"] == worse.provenance["pair"] == name
    assert written["a-1-0"].last_sketch == replace(OURS.steps[4], image=picture(1))
    only_right = [sample for sample in read_shards(ours) if sample.key == "b"]
    assert not list(pairs(only_right[0]))


def test_a_data_set_without_refusals_has_no_pairs(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "data", title="t") as writer:
        writer.write("b", replace(OURS, steps=OURS.steps[:2]))
    with pytest.raises(ValueError, match="has no preferences"):
        write_pairs(tmp_path / "data", tmp_path / "pairs")
    assert not (tmp_path / "pairs" / "index.json").exists()
