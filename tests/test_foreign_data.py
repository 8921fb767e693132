"""`staged data import`: data sets of others, from files in their published schemas."""

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import training
from foreign import png, write_lines, write_parquet

from data_pipelines.imports.job import run_job
from data_pipelines.imports.settings import ImportJobSettings, Source
from data_pipelines.rows import ParquetRows
from data_pipelines.summary import JobSummary
from staged.cli import main
from staged.data_urls import to_data_url
from staged.jobs.rank import Rank
from staged.settings import from_dict
from staged.shards import read_manifest, read_shards, validate
from staged.tables import ParquetFile
from staged.trajectory import Answer, Inspection, Stop, Thought, Trajectory, moves
from train.job import Trainer
from train.settings import Subset


def imported(
    out: Path, path: Path, form: str, *, rank: Rank | None = None, **changes: Any
) -> JobSummary:
    source = from_dict(Source, {"path": str(path), "format": form, **changes})
    return run_job(ImportJobSettings(sources=(source,)), out, rank=rank or Rank())


def trajectories(out: Path) -> list[Trajectory]:
    assert validate(out).ok
    return [sample.trajectory for sample in read_shards(out)]


def pixels(data: bytes) -> int:
    return zlib.crc32(data)


def pictures(trajectory: Trajectory) -> list[int]:
    return [pixels(ref.loaded) for ref in trajectory.images]


def crcs(*seeds: int) -> list[int]:
    return [pixels(png(seed)) for seed in seeds]


def test_bagels_captions_are_drawn_for(tmp_path: Path) -> None:
    """Which caption is chance's, the same for the same seed."""
    rows = [foreign.bagel_t2i(seed) for seed in range(8)]
    path = write_parquet(tmp_path / "t2i" / "a.parquet", rows, row_group_size=3)
    assert imported(tmp_path / "out", path.parent, "bagel-t2i", licence="CC0").accepted == 8
    made = trajectories(tmp_path / "out")
    for seed, one in enumerate(made):
        assert one.prompt in (f"a star {seed}", f"a red star {seed} on grey")
        assert moves(one.steps) == ("sketch", "stop") and one.task == "one_shot"
        assert pictures(one) == crcs(seed)
        assert one.provenance["source"] == f"t2i/a.parquet: row {seed + 1}"
        # The image is a target and no context.
        assert [step.loss for step in one.steps] == [True, False]
    assert {len(one.prompt) for one in made} == {8, 20}
    assert "CC0" in (tmp_path / "out" / "README.md").read_text()


def test_each_of_bagels_edits_is_a_sample(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [foreign.bagel_edit(10), foreign.bagel_edit(20)])
    assert imported(tmp_path / "out", path, "bagel-edit").accepted == 4
    blue, star, *_ = made = trajectories(tmp_path / "out")
    assert blue.prompt in ("make it blue 10", "blue, please 10") and star.prompt == "add a star 10"
    assert [pictures(one) for one in made] == [
        crcs(10, 11), crcs(11, 12), crcs(20, 21), crcs(21, 22)
    ]  # fmt: skip
    assert all(len(one.inputs) == 1 and one.task == "edit" for one in made)


def test_each_answer_of_a_conversation_is_a_sample(tmp_path: Path) -> None:
    """With what was said before it, from lines, from a list, and from messages of a service."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(1))
    rows = [foreign.llava("images/a.png")]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
        {"role": "assistant", "content": "A star."},
    ]
    rows.append({"messages": messages, "images": [to_data_url(png(2))]})
    rows.append({"conversations": [{"from": "human", "value": "Hello"},
                                   {"from": "gpt", "value": "Hi"}]})  # fmt: skip
    lines = write_lines(tmp_path / "a.jsonl", rows)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    assert imported(tmp_path / "out", lines, "conversations").accepted == 4
    first, second, brief, text = made = trajectories(tmp_path / "out")
    assert (first.prompt, first.steps[0]) == ("What colour is it?", Answer(text="It is red."))
    assert second.prompt == "What colour is it?\nIt is red.\nAnd its shape?"
    assert second.steps == (Answer(text="A star."), Stop(loss=False))
    assert [pictures(one) for one in made] == [crcs(1), crcs(1), crcs(2), []]
    assert (brief.prompt, brief.system, text.prompt) == ("What is it?", "Be brief.", "Hello")
    imported(tmp_path / "list", tmp_path / "a.json", "conversations")
    assert [t.steps for t in trajectories(tmp_path / "list")] == [t.steps for t in made]
    assert imported(tmp_path / "few", lines, "conversations", turns="first").accepted == 3


def test_a_picture_that_is_named_again_is_looked_at_and_not_drawn_again(tmp_path: Path) -> None:
    row = foreign.zebra(3)
    drawn = "<image_start>[reasoning_image_1]<image_end>"
    row["Text Reasoning Trace"] += f"\nTHOUGHT 4: As in {drawn} it was."
    path = write_parquet(tmp_path / "a.parquet", [row])
    imported(tmp_path / "out", path, "zebra-cot")
    [made] = trajectories(tmp_path / "out")
    assert moves(made.steps) == ("think", "sketch", "think", "sketch", "answer", "stop")
    assert pictures(made) == crcs(3, 4, 5)
    assert made.steps[-2] == Answer(
        text="<think>It is on the left.\nAs in [image 2] it was.</think>\nleft"
    )


def test_zebras_thoughts_and_pictures_come_in_turn(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [foreign.zebra(3)])
    assert imported(tmp_path / "out", path, "zebra-cot").accepted == 1
    [made] = trajectories(tmp_path / "out")
    assert moves(made.steps) == ("think", "sketch", "think", "sketch", "answer", "stop")
    assert made.prompt == "Where is it?" and pictures(made) == crcs(3, 4, 5)
    assert len(made.inputs) == 1 and all(step.loss for step in made.steps)
    first, answer = made.steps[0], made.steps[-2]
    assert first == Thought(text="<think>I look closer.\nSo I draw it.</think>")
    assert answer == Answer(text="<think>It is on the left.</think>\nleft")


def test_several_pictures_of_a_question_are_told_apart(tmp_path: Path) -> None:
    row = foreign.zebra(3)
    row["Question"] = (
        "Is <image_start>[problem_image_2]<image_end> in <image_start>[problem_image_1]<image_end>?"
    )
    row["problem_image_2"] = foreign.hub_image(9)
    row["Text Reasoning Trace"] = (
        "THOUGHT 0: In <image_start>[problem_image_1]<image_end> I mark it. "
        "<image_start>[reasoning_image_1]<image_end>"
    )
    path = write_parquet(tmp_path / "a.parquet", [row])
    imported(tmp_path / "out", path, "zebra-cot")
    [made] = trajectories(tmp_path / "out")
    assert made.prompt == "Is [image 1] in [image 2]?" and pictures(made) == crcs(9, 3, 4)
    assert made.steps[0] == Thought(text="<think>In [image 2] I mark it.</think>")
    assert made.steps[-2] == Answer(text="left")


def test_thinkmorphs_columns_are_read_as_they_are_spelt(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [foreign.thinkmorph(3)])
    assert imported(tmp_path / "out", path, "thinkmorph").accepted == 1
    [made] = trajectories(tmp_path / "out")
    assert made.steps[0] == Thought(text="<think>I put them together.</think>")
    assert made.steps[2].text == "<think>The second one continues the line.</think>\nB"  # type: ignore[union-attr]
    assert made.task == "jigsaw" and pictures(made) == crcs(3, 4)


@pytest.mark.parametrize("task", ["t2i", "edit"])
def test_reflections_become_inspections_and_refinements(task: str, tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [foreign.reflection(3, task)])
    assert imported(tmp_path / "out", path, "umm-reflection").accepted == 1
    [made] = trajectories(tmp_path / "out")
    assert moves(made.steps) == (
        "think", "sketch", "inspect sketch", "refine sketch", "sketch", "inspect sketch", "stop"
    )  # fmt: skip
    thought, wrong, said, mend, right, seen, _ = made.steps
    assert thought == Thought(text="<think>Nothing is there yet.</think>\na red star on grey")
    assert isinstance(said, Inspection) and said.verdict == "revise"
    assert said.critique == "The star is blue.\nIt must be red."
    assert mend.instruction == "make the star red"  # type: ignore[union-attr]
    assert isinstance(seen, Inspection) and seen.verdict == "accept"
    assert (wrong.loss, right.loss) == (False, True)
    assert pictures(made) == (crcs(3) if task == "edit" else []) + crcs(4, 5)
    assert made.provenance["uid"] == "u3"


def test_any_rows_are_read_by_a_map_of_their_fields(tmp_path: Path) -> None:
    edits = [{"original_image": foreign.hub_image(1), "edit_prompt": "make it blue",
              "edited_image": foreign.hub_image(2)}]  # fmt: skip
    path = write_parquet(tmp_path / "a.parquet", edits)
    fields = {"prompt": "edit_prompt", "inputs": "original_image", "image": "edited_image"}
    imported(tmp_path / "edits", path, "rows", fields=fields)
    [edit] = trajectories(tmp_path / "edits")
    assert (edit.prompt, edit.task, pictures(edit)) == ("make it blue", "edit", crcs(1, 2))

    (tmp_path / "b.png").write_bytes(png(7))
    rows = [
        {"q": {"en": "Draw."}, "image": "b.png"},
        {"q": {"en": "What?"}, "inputs": ["b.png"], "answer": "A star.", "task": "look"},
        {"q": {"en": "Hm?"}, "thought": "I draw.", "image": "b.png", "answer": "So."},
    ]
    lines = write_lines(tmp_path / "b.jsonl", rows)
    imported(tmp_path / "lines", lines, "rows", fields={"prompt": "q.en"})
    made = trajectories(tmp_path / "lines")
    assert [moves(one.steps) for one in made] == [
        ("sketch", "stop"), ("answer", "stop"), ("think", "sketch", "answer", "stop")
    ]  # fmt: skip
    assert [one.task for one in made] == ["one_shot", "look", "one_shot"]
    with pytest.raises(ValueError, match="a sample has no picture; name some of prompt, image"):
        imported(tmp_path / "no", lines, "rows", fields={"picture": "image"})


def broken_llava(folder: Path) -> list[tuple[Any, str, str]]:
    """A line, the reason under which it is counted, and what is said of it."""
    (folder / "secret.png").write_bytes(png(9))
    (folder / "data").mkdir()
    (folder / "data" / "ok.png").write_bytes(png(1))
    (folder / "data" / "cut.png").write_bytes(png(1)[:60])
    (folder / "data" / "text.png").write_text("no image")
    (folder / "data" / "link.png").symlink_to(folder / "secret.png")
    talk = foreign.llava("ok.png")["conversations"]
    one = talk[:2]
    return [
        ({"image": "../secret.png", "conversations": one}, "bad image", "leads out of"),
        ({"image": str(folder / "secret.png"), "conversations": one}, "bad image", "leads out of"),
        ({"image": "link.png", "conversations": one}, "bad image", "leads out of"),
        ({"image": "none.png", "conversations": one}, "bad image", "No such file"),
        ({"image": "cut.png", "conversations": one}, "bad image", "image 0"),
        ({"image": "text.png", "conversations": one}, "bad image", "not a PNG, WebP or JPEG"),
        ({"image": 7, "conversations": one}, "missing image", "image: 7 is no path"),
        ({"image": None, "conversations": one}, "missing image", "1 times <image> and 0 images"),
        ({"image": "ok.png", "conversations": talk[:3]}, "missing answer", "no answer"),
        ({"image": "ok.png", "conversations": talk[1:]}, "bad order", "conversations.0: 'gpt'"),
        ({"image": "ok.png", "conversations": "hello"}, "missing conversations", "no list at"),
        ({"image": "ok.png", "conversations": [7]}, "bad message", "conversations.0: 7"),
        ({"image": "ok.png"}, "missing conversations", "no list at 'conversations' but None"),
        ({"video": "a.mp4", "conversations": one}, "video", "only images are read"),
        (
            {"image": "ok.png", "conversations": [talk[0], {"from": "gpt", "value": "<|im_end|>"}]},
            "bad text",
            "<|im_end|> inside text",
        ),
        (
            {"image": "ok.png", "conversations": [talk[0], {"from": "gpt", "value": "a" * 9000}]},
            "bad trajectory",
            "9000 characters exceed",
        ),
        (7, "missing conversations", "no list at"),
    ]


def test_what_cannot_be_used_is_counted_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = broken_llava(tmp_path)
    rows = [case[0] for case in cases] + [foreign.llava("ok.png")]
    path = write_lines(tmp_path / "data" / "a.jsonl", rows)
    with path.open("a") as file:
        file.write('{"image": \n')
    report = imported(tmp_path / "out", path, "conversations")
    assert (report.accepted, report.rejected) == (2, len(cases) + 1)
    counts: dict[str, int] = {}
    for _, reason, _ in [*cases, (None, "bad line", "")]:
        counts[reason] = counts.get(reason, 0) + 1
    assert report.reasons == {"import": counts}
    assert read_manifest(tmp_path / "out").acceptance["import"] == counts
    for number, (row, reason, said) in enumerate(cases, 1):
        alone = write_lines(tmp_path / "data" / f"{number}.jsonl", [row])
        told = imported(tmp_path / str(number), alone, "conversations").examples["import", reason]
        assert f"{number}.jsonl:1: {reason}: " in told and said in told, told
    words = ["data", "import", f"sources=[{{path: {path}, format: conversations}}]"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "accepted 2, rejected 18" in shown and "import: bad image: 6, such as" in shown


BROKEN: list[tuple[str, Callable[[int], dict[str, Any]], dict[str, Any], str]] = [
    ("bagel-t2i", foreign.bagel_t2i, {"captions": "a star"}, "bad captions"),
    ("bagel-t2i", foreign.bagel_t2i, {"captions": "[]"}, "bad captions"),
    ("bagel-t2i", foreign.bagel_t2i, {"captions": '{"a": " "}'}, "missing captions"),
    ("bagel-t2i", foreign.bagel_t2i, {"captions": None}, "missing captions"),
    ("bagel-t2i", foreign.bagel_t2i, {"image": b"GIF89a"}, "bad image"),
    ("bagel-t2i", foreign.bagel_t2i, {"image": None}, "missing image"),
    ("bagel-edit", foreign.bagel_edit, {"instruction_list": [["a"]]}, "other number of"),
    ("bagel-edit", foreign.bagel_edit, {"instruction_list": []}, "other number of"),
    ("bagel-edit", foreign.bagel_edit, {"instruction_list": None}, "missing instruction_list"),
    ("bagel-edit", foreign.bagel_edit, {"instruction_list": [[], [" "]]}, "missing instruction"),
    ("zebra-cot", foreign.zebra, {"Final Answer": ""}, "missing Final Answer"),
    ("zebra-cot", foreign.zebra, {"reasoning_image_2": None}, "missing image"),
    ("zebra-cot", foreign.zebra, {"Text Reasoning Trace": "I know."}, "missing image"),
    (
        "zebra-cot",
        foreign.zebra,
        {"Text Reasoning Trace": "<image_start>[reasoning_image_1]<image_end> So."},
        "no thought before an image",
    ),
    (
        "zebra-cot",
        foreign.zebra,
        {"Text Reasoning Trace": "So. <image_start>[Question_1]<image_end>"},
        "missing image",
    ),
    ("zebra-cot", foreign.zebra, {"Question": "<|vision_start|>?"}, "bad prompt"),
    ("thinkmorph", foreign.thinkmorph, {"resoning_thought_0": None}, "no thought before an image"),
    ("thinkmorph", foreign.thinkmorph, {"reasoning_image_0": None}, "missing image"),
    ("thinkmorph", foreign.thinkmorph, {"answer": None}, "missing answer"),
    ("umm-reflection", foreign.reflection, {"task": "video"}, "bad task"),
    ("umm-reflection", foreign.reflection, {"step_need_loss": [True]}, "other number of steps"),
    ("umm-reflection", foreign.reflection, {"step_image_list": [b"", b"", b""]}, "missing image"),
    ("umm-reflection", foreign.reflection, {"think_list": ["a", "b", "c"]}, "bad controller"),
    (
        "umm-reflection",
        foreign.reflection,
        {"think_list": [foreign.controller(0, "done", "x")] * 3},
        "bad action",
    ),
    (
        "umm-reflection",
        foreign.reflection,
        {
            "think_list": [foreign.controller(0, "edit", "x", "y")] * 3,
            "step_image_list": [png(1)] * 3,
        },
        "not finished",
    ),
    ("umm-reflection", foreign.reflection, {"step_image_sha256": ["0" * 64] * 3}, "damaged image"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("form", "make", "change", "reason"), BROKEN, ids=[f"{b[0]}-{i}" for i, b in enumerate(BROKEN)]
)
def test_a_broken_row_is_left_out_beside_a_good_one(
    form: str, make: Callable[[int], dict[str, Any]], change: dict[str, Any], reason: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    good = make(1) | ({"step_image_sha256": None} if "step_image_sha256" in change else {})
    path = write_parquet(tmp_path / "a.parquet", [good, {**make(1), **change}])
    report = imported(tmp_path / "out", path, form)
    assert report.accepted >= 1 and report.rejected >= 1
    [(found, _)] = report.reasons["import"].items()
    assert found.startswith(reason)
    assert "a.parquet: row 2: " in report.examples["import", found]


def test_wrong_files_are_told_at_once(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", [foreign.zebra(1)])
    with pytest.raises(ValueError, match=r"a.parquet: no column image, captions; it has Question"):
        imported(tmp_path / "out", path, "bagel-t2i")
    with pytest.raises(ValueError, match=r"no column resoning_thought_0"):
        write_parquet(tmp_path / "b.parquet", [{"question": "a", "answer": "b"}])
        imported(tmp_path / "out", tmp_path / "b.parquet", "thinkmorph")
    (tmp_path / "c.parquet").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"c.parquet: no parquet file"):
        imported(tmp_path / "out", tmp_path / "c.parquet", "zebra-cot")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"no folder of .parquet files"):
        imported(tmp_path / "out", tmp_path / "none", "zebra-cot")
    with pytest.raises(ValueError, match=r"fields are for rows"):
        imported(tmp_path / "out", path, "zebra-cot", fields={"prompt": "a"})
    assert not (tmp_path / "out").exists()


def holed(path: Path) -> Path:
    """Damage in the middle: the footer is right, and a page is not."""
    rows = [foreign.bagel_t2i(seed) for seed in range(40)]
    write_parquet(path, rows, row_group_size=10)
    place = pq.ParquetFile(path).metadata.row_group(2).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[place : place + 16] = b"\xff" * 16
    path.write_bytes(data)
    return path


def test_a_file_with_holes_stops_the_job_and_is_named(tmp_path: Path) -> None:
    path = holed(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a.parquet: damaged or truncated after row 16"):
        imported(tmp_path / "out", path, "bagel-t2i")


def bomb(path: Path) -> Path:
    """A few kilobytes: one value of 16 MiB that 4,000 rows share."""
    picture = pa.array([b"\0" * (16 << 20)], type=pa.binary())
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(4000, np.int32)), picture)
    captions = pa.array(['{"a": "a star"}'] * 4000)
    table = pa.table({"image": column, "captions": captions})
    pq.write_table(table, path, compression="zstd", store_schema=False, write_statistics=False)
    return path


def test_a_file_that_swells_is_read_in_bounded_memory(tmp_path: Path) -> None:
    path = bomb(tmp_path / "a.parquet")
    assert path.stat().st_size < 100_000
    code = (
        "import sys, resource\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))\n"  # far below the 62 GiB
        "from pathlib import Path\n"
        "from data_pipelines.imports.bagel import BagelTextToImage\n"
        "from data_pipelines.rows import ParquetRows\n"
        "rows = ParquetRows(Path(sys.argv[1]), BagelTextToImage().columns)\n"
        "for number in range(20): rows[number].image('image')\n"
        # Not `ru_maxrss`, which a new process has from the one that started it.
        "[peak] = [w[1] for w in map(str.split, open('/proc/self/status')) if w[0] == 'VmHWM:']\n"
        "print(len(rows), peak)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    number, kib = map(int, done.stdout.split())
    assert number == 4000 and kib < 2**20


def test_rows_are_found_in_any_order(tmp_path: Path) -> None:
    for file in range(3):
        rows = [{"n": 10 * file + row} for row in range(10)]
        write_parquet(tmp_path / f"{file}.parquet", rows, row_group_size=4)
    rows = ParquetRows(tmp_path, lambda file: file.names)
    order = [0, 1, 2, 2, 29, 5, 6, 15, 14, 28, 29, 0]
    assert [rows[number].value("n") for number in order] == order


def test_rows_that_are_near_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rank reads every so many rows: one reader, not one of each row's whole group."""
    path = write_parquet(tmp_path / "a.parquet", [{"n": row} for row in range(300)])
    begun, real = [], ParquetFile.rows

    def counted(file: ParquetFile, columns: Any, start: int = 0) -> Any:
        begun.append(start)
        return real(file, columns, start)

    monkeypatch.setattr(ParquetFile, "rows", counted)
    rows = ParquetRows(path, lambda file: file.names)
    order = [*range(0, 100, 3), 160, 299, 10]
    assert [rows[number].value("n") for number in order] == order
    assert begun == [0, 299, 10]
    for number in (-1, 300):
        with pytest.raises(IndexError):
            rows[number]


def test_a_file_is_open_only_while_it_is_read(tmp_path: Path) -> None:
    """Of thousands, more than a process may have open."""
    for file in range(20):
        write_parquet(tmp_path / f"{file:02}.parquet", [{"n": file}] * 3)
    before = len(os.listdir("/dev/fd"))
    rows = ParquetRows(tmp_path, lambda file: file.names)
    assert len(os.listdir("/dev/fd")) == before
    assert [rows[number].value("n") for number in range(60)] == [n // 3 for n in range(60)]
    assert len(os.listdir("/dev/fd")) <= before + 1
    write_parquet(tmp_path / "00.parquet", [{"n": 7}] * 4)
    with pytest.raises(ValueError, match=r"00.parquet has changed while it was read"):
        rows[0]


def test_damage_is_told_each_time(tmp_path: Path) -> None:
    """A reader that raised has ended, and says nothing more."""
    path = holed(tmp_path / "a.parquet")
    rows = ParquetRows(path, lambda file: file.names)
    assert rows[15].place.endswith("row 16")
    for number in (19, 19, 20, 20, 21):
        with pytest.raises(ValueError, match="damaged or truncated"):
            rows[number]
    assert rows[16].place.endswith("row 17"), "it is whole"


def test_ranks_share_an_import_and_write_the_same(tmp_path: Path) -> None:
    rows = [foreign.bagel_edit(10 * seed) for seed in range(6)]
    path = write_parquet(tmp_path / "a.parquet", rows, row_group_size=2)
    imported(tmp_path / "alone", path, "bagel-edit")
    for number in (1, 0):
        rank = Rank(number=number, world_size=2)
        report = imported(tmp_path / "shared", path, "bagel-edit", rank=rank)
        assert report.unfinished == (6 if number else 0)
    for name in ("shard-000000.tar", "index.json", "manifest.json"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "shared" / name).read_bytes()
    assert not [f for f in (tmp_path / "alone" / "ledger").glob("*.blobs") if f.stat().st_size]


def test_a_source_that_changed_is_noticed(tmp_path: Path) -> None:
    rows = [foreign.bagel_t2i(seed) for seed in range(4)]
    path = write_parquet(tmp_path / "a.parquet", rows)
    out = tmp_path / "out"
    imported(out, path, "bagel-t2i", rank=Rank(number=1, world_size=2))
    write_parquet(path, [*rows[:3], {**rows[3], "image": png(77)}])
    with pytest.raises(ValueError, match=r"a.parquet: row 4 has changed since it was imported"):
        imported(out, path, "bagel-t2i", rank=Rank(number=0, world_size=2))
    assert not (out / "index.json").exists()
    write_parquet(path, rows)
    assert imported(out, path, "bagel-t2i").accepted == 4
    write_parquet(path, [*rows, foreign.bagel_t2i(9)])
    with pytest.raises(ValueError, match=r"count.*4.*5"):
        imported(out, path, "bagel-t2i")
    with pytest.raises(ValueError, match="sources"):
        imported(out, path, "bagel-t2i", most=4, licence="other")


KILLED = """
import os, signal, sys
from pathlib import Path
import data_pipelines.imports.job as job
from data_pipelines.imports.settings import ImportJobSettings, Source
calls, real = 0, job._checked
def deadly(trajectory):
    global calls
    calls += 1
    if calls == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return real(trajectory)
job._checked = deadly
source = Source(path=Path(sys.argv[1]), format="bagel-t2i")
job.run_job(ImportJobSettings(sources=(source,)), Path(sys.argv[2]))
"""


@pytest.mark.slow
def test_a_killed_import_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    rows = [foreign.bagel_t2i(seed) for seed in range(20)]
    path = write_parquet(tmp_path / "a.parquet", rows, row_group_size=6)
    imported(tmp_path / "whole", path, "bagel-t2i")
    words = [sys.executable, "-c", KILLED, str(path), str(tmp_path / "out"), "12"]
    assert subprocess.run(words, capture_output=True).returncode == -9
    report = imported(tmp_path / "out", path, "bagel-t2i")
    assert report.accepted == 20 and 0 < report.new < 20
    for name in ("shard-000000.tar", "index.json", "manifest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_was_imported_trains(tmp_path: Path) -> None:
    world = training.build(tmp_path)
    sets = {
        "bagel-t2i": [foreign.bagel_t2i(1)],
        "bagel-edit": [foreign.bagel_edit(2)],
        "zebra-cot": [foreign.zebra(3)],
        "thinkmorph": [foreign.thinkmorph(4)],
        "umm-reflection": [foreign.reflection(5), foreign.reflection(6, "edit")],
    }
    sources = [
        Source(path=write_parquet(tmp_path / f"{form}.parquet", rows), format=form)  # type: ignore[arg-type]
        for form, rows in sets.items()
    ]
    (tmp_path / "a.png").write_bytes(png(9))
    talk = write_lines(tmp_path / "talk.jsonl", [foreign.llava("a.png")])
    sources.append(Source(path=talk, format="conversations"))
    report = run_job(ImportJobSettings(sources=tuple(sources)), tmp_path / "foreign")
    assert (report.accepted, report.rejected) == (9, 0)
    settings = world.settings(tmp_path / "run", num_steps=2, pack_tokens=1000)
    settings = replace(settings, data=(Subset(path=tmp_path / "foreign"),))
    trainer = Trainer(settings)
    for number in (0, 1):
        record = trainer.train_step(trainer.packs.build(number))
        assert np.isfinite(record["loss"]) and record["ce"] > 0 and record["mse"] > 0
    assert {"one_shot", "edit", "understanding"} <= {
        s.task for s in trajectories(tmp_path / "foreign")
    }
