"""The demo at its smallest: every part once, and nothing twice."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

from staged.cli import main

# Of most laptops and clouds: without bfloat16 products.
PLAIN_CPU = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def demo(out: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", "staged", "demo", "--quick", "--out", str(out)],
        env={**os.environ, **PLAIN_CPU},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_on_a_plain_cpu_the_demo_runs_every_part_and_goes_on_from_what_is_there(
    tmp_path: Path,
) -> None:
    said = demo(tmp_path)
    if platform.machine() in ("x86_64", "AMD64"):
        assert "\ndtype: float32\n" in (tmp_path / "training" / "settings.yaml").read_text()
    for part in ("1. Build a data set", "2. Fine-tune", "3. Draw in stages", "4. Score"):
        assert part in said
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in ("data set", "fine-tune: loss", "Drawn in stages", "Scores", "small about"):
        assert heading in page
    body = page[page.index("<main") :]
    order = ("Drawn in stages", "The same prompts", ">Scores", "data set: samples", "loss<")
    places = [body.index(part) for part in order]
    assert places == sorted(places), "the drawing and the scores come first"
    assert page.index("the base in one shot") < page.index("<main"), "the answer is on top"
    assert "Failed" not in page and "The detector" in page
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", page), "the page loads something"
    made = [*tmp_path.glob("data/*.tar"), *tmp_path.glob("training/checkpoint/*"),
            *tmp_path.glob("scores/*/drawn/*/*.tar")]  # fmt: skip
    trained = (tmp_path / "training" / "log.jsonl").read_bytes()
    times = {path: path.stat().st_mtime_ns for path in made if "data" not in path.parts}
    assert len(times) > 4

    demo(tmp_path)
    assert (tmp_path / "training" / "log.jsonl").read_bytes() == trained
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_missing_checkpoint_is_told_before_any_work(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert main(["demo", "--quick", "--out", str(tmp_path / "demo"), "--staged", nowhere]) == 1
    assert not (tmp_path / "demo").exists()
