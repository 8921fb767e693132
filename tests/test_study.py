"""The study of preferences: a page that hides whose picture is whose, and counted votes."""

import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.results import BenchmarkResult
from eval.study.items import LINES, Study, make_study, read_key, write_key
from eval.study.page import study_page
from eval.study.votes import count, read_votes
from staged.cli import main
from staged.command_line import exit_codes
from staged.ideas.exploration import Draft, DraftRound, Exploration, Place
from staged.ideas.folder import save_exploration
from staged.ideas.idea import Idea
from staged.trajectory import ImageRef


def draft(shade: int) -> Draft:
    """A draft whose picture is its shade of grey."""
    image = ImageRef.from_array(np.full((8, 8, 3), shade, np.uint8))
    return Draft(prompt=f"shade {shade}", seed=shade, image=image)


def explored(number: int, *, shades: tuple[int, int, int] = (10, 20, 30)) -> Exploration:
    manual, first, refined = (draft(shade + number) for shade in shades)
    return Exploration(
        idea=Idea(parts=(f"idea {number}",)),
        seed=0,
        rounds=(
            DraftRound(drafts=(first,), choice=0), DraftRound(drafts=(refined,), choice=0),
        ),
        best=Place(1, 0),
        control=DraftRound(drafts=(manual,), choice=0),
    )  # fmt: skip


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = make_study([explored(number) for number in range(30)], title="Best?", seed=1)
    write_key(made, tmp_path / "key.json")
    return made


def voted(shown: Study, path: Path, line: str, **changes: Any) -> Path:
    """Votes of somebody who always prefers one line."""
    choices = {
        item.id: next(i for i, lines in enumerate(item.lines) if line in lines)
        for item in shown.items
    }
    votes = {"format": "staged-votes/1", "study": shown.digest, "voter": path.stem,
             "votes": choices}  # fmt: skip
    path.write_text(json.dumps({**votes, **changes}))
    return path


def test_the_order_is_drawn_from_the_seed(study: Study) -> None:
    explorations = [explored(number) for number in range(30)]
    assert make_study(explorations, title="Best?", seed=1) == study
    other = make_study(explorations, title="Best?", seed=2)
    assert [item.lines for item in other.items] != [item.lines for item in study.items]
    assert other.digest != study.digest
    for place in range(3):
        seen = Counter(item.lines[place][0] for item in study.items)
        assert set(seen) == set(LINES) and max(seen.values()) < 20, seen
    numbers = [int(item.idea.text.split()[1]) for item in study.items]
    assert sorted(numbers) == list(range(30)) != numbers


def test_the_page_says_nothing_of_whose_picture_is_whose(study: Study) -> None:
    page = study_page(study)
    shown = page[page.index("<main>") : page.index("</main>")]
    for word in (*LINES, *LINES.values(), "shade", "control", "draft", "prompt"):
        assert word not in re.sub(r'src="[^"]*"', "", shown), word
    assert page.count('class="item"') == 30
    assert not re.search(r'(?:src|href)="(?!data:)', page), "it loads something"


def test_pictures_that_are_the_same_are_shown_once_and_share_their_votes(tmp_path: Path) -> None:
    made = make_study([explored(0), explored(1, shades=(10, 20, 20))], title="a", seed=0)
    write_key(made, tmp_path / "key.json")
    key = read_key(tmp_path / "key.json")
    twice = next(item for item in made.items if len(item.pictures) == 2)
    assert set(twice.lines) == {("manual",), ("first", "refined")}
    votes = read_votes(voted(made, tmp_path / "ann.json", "refined"), key)
    shares = {line: result.samples["votes"][twice.cluster] for line, result in
              count(key, [votes]).items()}  # fmt: skip
    assert shares == {"manual": (0.0,), "first": (0.5,), "refined": (0.5,)}


def test_an_exploration_without_all_pictures_is_left_out() -> None:
    without = replace(explored(1), control=None)
    assert len(make_study([explored(0), without], title="a", seed=0).items) == 1
    with pytest.raises(ValueError, match=r"0 of 1 explorations .*policy.control=one"):
        make_study([without], title="a", seed=0)


def test_votes_become_shares_with_intervals(study: Study, tmp_path: Path) -> None:
    key = read_key(tmp_path / "key.json")
    ann = read_votes(voted(study, tmp_path / "ann.json", "refined"), key)
    ben = read_votes(voted(study, tmp_path / "ben.json", "first"), key)
    nobody = dict.fromkeys(ann.choices, None)
    results = count(key, [ann, ben, replace(ann, voter="cat", choices=nobody)])
    assert {line: one.overall.value for line, one in results.items()} == {
        "manual": 0.0, "first": 0.5, "refined": 0.5,
    }  # fmt: skip
    overall = results["refined"].overall
    assert (overall.n, overall.num_clusters, overall.unscored) == (60, 30, 30)
    assert overall.low is not None and overall.high is not None
    assert overall.low <= 0.5 <= overall.high
    with pytest.raises(ValueError, match="two files hold votes of 'ann'"):
        count(key, [ann, ann])
    with pytest.raises(ValueError, match="nobody preferred anything"):
        count(key, [replace(ann, choices={})])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "other"}, "format 'other'"),
        ({"study": "0" * 64}, r"these votes are of the study 000000000000"),
        ({"voter": " "}, "expected a name"),
        ({"voter": "a" * 101}, "expected a name"),
        ({"votes": {"0": 1}}, "there is no item '0'"),
        ({"votes": []}, "expected dict"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_votes_from_anywhere_are_checked(
    study: Study, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = voted(study, tmp_path / "ann.json", "first", **changes)
    with pytest.raises(ValueError, match=said) as caught:
        read_votes(path, read_key(tmp_path / "key.json"))
    assert "ann.json" in str(caught.value)


@pytest.mark.parametrize("choice", [3, -1, True, 1.0, "1"])
def test_a_vote_is_for_a_picture_that_was_shown(
    study: Study, tmp_path: Path, choice: object
) -> None:
    path = voted(study, tmp_path / "ann.json", "first", votes={study.items[0].id: choice})
    with pytest.raises(ValueError, match="has 3 pictures"):
        read_votes(path, read_key(tmp_path / "key.json"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        save_exploration(tmp_path / "ideas" / f"{number:05d}", explored(number))
    return tmp_path / "ideas"


def test_from_a_folder_to_a_page_to_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "study.html"
    assert main(["idea2img-study", "page", str(folder), "--out", str(page)]) == exit_codes.OK
    assert "keep it" in capsys.readouterr().out
    found = [explored(number) for number in range(6)]
    study = make_study(found, title="Which picture is best?", seed=0)
    assert read_key(tmp_path / "study.key.json").digest == study.digest
    assert page.read_text() == study_page(study)
    files = [str(voted(study, tmp_path / f"{name}.json", "refined")) for name in ("ann", "ben")]
    words = ["idea2img-study", "votes", *files, "--key", str(tmp_path / "study.key.json")]
    assert main([*words, "--out", str(tmp_path / "out"), "--json"]) == exit_codes.OK
    figures = json.loads(capsys.readouterr().out)
    assert figures["refined"]["overall"]["value"] == 1.0
    assert BenchmarkResult.read(tmp_path / "out/refined.json").overall.n == 12
    shown = (tmp_path / "out/report.html").read_text()
    assert "SDXL (published)" in shown and "56.7" in shown and "refined 100.0%" in shown


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to run the page's script")
def test_the_page_keeps_votes_and_exports_what_can_be_counted(study: Study, tmp_path: Path) -> None:
    """A script plays the voter: one goes back, changes a vote, leaves one item out."""
    plays = """<script>
    addEventListener("load", () => {
      const at = (id) => document.getElementById(id);
      const key = (name) => document.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
      at("voter").value = "ann"; at("voter").dispatchEvent(new Event("input"));
      at("start").click();
      key("1"); key("2"); key("ArrowLeft"); key("3"); key("0"); key("ArrowRight");
      document.querySelector(".item:not([hidden]) [data-choice='1']").click();
      at("finish").click();
    });
    </script></body>"""
    page = tmp_path / "study.html"
    page.write_text(study_page(study).replace("</body>", plays))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               "--virtual-time-budget=2000", f"--user-data-dir={tmp_path / 'profile'}",
               f"file://{page}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    place = re.search(r'<p id="summary">([^<]*)</p>', done.stdout)
    assert place and place[1] == "You voted on 4 of 30 ideas.", done.stderr[-500:]
    kept = done.stdout.partition('id="end"')[0]
    assert 'id="voting" hidden' in kept
    exported = _exported(page, tmp_path)
    assert exported["voter"] == "ann"
    ids = [item.id for item in study.items]
    assert exported["votes"] == {ids[0]: 0, ids[1]: 2, ids[2]: None, ids[4]: 1}
    votes = tmp_path / "ann.json"
    votes.write_text(json.dumps(exported))
    assert read_votes(votes, read_key(tmp_path / "key.json")).choices[ids[1]] == 2


def _exported(page: Path, tmp_path: Path) -> Any:
    """What stands in the text field, which is no part of the document's text."""
    shows = """<pre id="shown"></pre><script>
    addEventListener("load", () => {
      document.getElementById("shown").textContent = document.getElementById("votes").value;
    });
    </script></body>"""
    page.write_text(page.read_text().replace("</body>", shows))
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               "--virtual-time-budget=2000", f"--user-data-dir={tmp_path / 'other'}",
               f"file://{page}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="shown">([^<]*)</pre>', done.stdout)
    assert found, done.stderr[-500:]
    return json.loads(found[1].replace("&quot;", '"'))
