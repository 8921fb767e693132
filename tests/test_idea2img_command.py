"""`staged idea2img`: many ideas, real services, real kills, and the page."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from exploring import Habits, Services, settings_for
from serving import serve

from staged import images
from staged.cli import main
from staged.command_line import exit_codes
from staged.idea2img.settings import Idea2ImgSettings
from staged.ideas.folder import EXPLORATION, load_exploration
from staged.settings import from_dict, load
from staged.shapes.language.prompts import read_prompt
from staged.shapes.players.misbehaviour import Misbehaviour
from staged.shapes.tasks import sample_scene
from staged.shapes.world.render import render
from staged.trajectory_folder import load_trajectory

ROOT = Path(__file__).parents[1]
IDEAS = "something red next to a star\ntwo blue things\na hexagon and something green\n"


@pytest.fixture
def ideas(tmp_path: Path) -> Path:
    path = tmp_path / "ideas.txt"
    path.write_text(IDEAS)
    return path


def command(ideas: Path, out: Path, url: str, *more: str) -> list[str]:
    return ["idea2img", "--ideas", str(ideas), "--out", str(out), *settings_for(url), *more]


def kept(out: Path) -> dict[str, bytes]:
    """Everything that an exploration is, by name."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.glob("0*/*"))
        if path.is_file()
    }


def test_ideas_are_explored_kept_and_shown(
    ideas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        assert main([*command(ideas, out, url), "--json"]) == exit_codes.OK
    figures = json.loads(capsys.readouterr().out)
    assert figures["complete"] == 3 and figures["unfinished"] == 0
    first = figures["explorations"][0]
    assert first["idea"] == "something red next to a star" and first["detector"]["refined"] is True
    assert len(services.answered) == len(set(services.answered)), "asked twice"
    for number in range(3):
        exploration = load_exploration(out / f"{number:05d}")
        assert exploration.complete and exploration.num_drafts == 9
        assert exploration.manual is not None
        assert load_trajectory(out / f"{number:05d}").complete
        assert (out / f"{number:05d}" / "final.png").is_file()
    assert load(Idea2ImgSettings, out / "settings.yaml").endpoint is not None
    page = (out / "report.html").read_text()
    assert "something red next to a star" in page and "Before and after" in page
    assert "<script" not in page and 'src="http' not in page


def test_the_same_command_goes_on_and_more_ideas_add(ideas: Path, tmp_path: Path) -> None:
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        assert main(command(ideas, out, url)) == exit_codes.OK
        before, asked = kept(out), len(services.answered)
        assert main(command(ideas, out, url)) == exit_codes.OK
        assert (kept(out), len(services.answered)) == (before, asked)
        ideas.write_text(IDEAS + "something white\n")
        assert main(command(ideas, out, url)) == exit_codes.OK
    assert kept(out).items() > before.items()
    assert load_exploration(out / "00003").idea.text == "something white"


def test_nothing_is_drawn_or_paid_for_twice_after_a_kill(ideas: Path, tmp_path: Path) -> None:
    """The process is killed while it waits for an answer, again and again."""
    ideas.write_text("something red next to a star\ntwo blue things\n")
    less = ("policy.max_rounds=2", "policy.num_prompts=2")
    services, out = Services(Misbehaviour(wrong_json=0.1, rate_limit=0.1)), tmp_path / "out"
    running: list[subprocess.Popen[bytes]] = []
    deaths = {3, 20}

    def kill(number: int) -> None:
        if number in deaths:
            os.kill(running[-1].pid, signal.SIGKILL)
            running[-1].wait()

    ends = []
    with serve(services.app) as url:
        assert main(command(ideas, tmp_path / "calm", url, *less)) == exit_codes.OK
        calm = [one for one in services.answered if isinstance(one, tuple)]
        services.answered, services.number, services.on_request = [], 0, kill
        words = command(ideas, out, url, *less)
        while len(ends) <= len(deaths):
            running.append(subprocess.Popen([sys.executable, "-m", "staged", *words], cwd=ROOT))
            ends.append(running[-1].wait(timeout=300))
            if ends[-1] == 0:
                break
    assert ends == [-signal.SIGKILL] * len(deaths) + [0]
    # A request that was in flight at a death was answered to nobody; it is asked once more.
    twice = Counter(services.answered)
    pictures = {one: n for one, n in twice.items() if isinstance(one, tuple)}
    assert sum(n - 1 for n in twice.values()) <= len(deaths)
    assert sorted(pictures) == sorted(calm)
    assert kept(out).keys() == kept(tmp_path / "calm").keys()
    different = [k for k, v in kept(out).items() if v != kept(tmp_path / "calm")[k]]
    assert different == []


def test_a_spent_budget_stops_and_a_larger_one_goes_on(
    ideas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        words = command(ideas, out, url)
        assert main([*words, "budget.images=12"]) == exit_codes.STOPPED
        assert "budget.images: 12 of 12 are used up" in capsys.readouterr().err
        drawn = [one for one in services.answered if isinstance(one, tuple)]
        assert len(drawn) == 12 and (out / "00000").is_dir() and not (out / "00002").exists()
        assert main(words) == exit_codes.OK
    assert len(services.answered) == len(set(services.answered))


def test_what_broke_off_is_tried_again_on_demand(
    ideas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        words = command(ideas, out, url, "lmm.max_attempts=1")
        broken = Services(Misbehaviour(server_error=0.3, seed=2))
        services._language = broken._language
        assert main(words) == exit_codes.FAILED
        assert "server_error" in capsys.readouterr().out
        services._language = Services()._language
        assert main(words) == exit_codes.FAILED, "nobody asked for another try"
        assert main([*words, "--retry-failed"]) == exit_codes.OK
    assert len(list(out.glob(f"*/{EXPLORATION}"))) == 3


def test_a_wrong_address_is_told_at_once(
    ideas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*settings_for("http://127.0.0.1:9/v1"), "lmm.max_attempts=1", "concurrency=3"]
    code = main(["idea2img", "--ideas", str(ideas), "--out", str(tmp_path / "out"), *words])
    assert code == exit_codes.FAILED
    said = capsys.readouterr()
    assert "connection" in said.out or "does not answer" in said.err


def test_an_idea_holds_images_and_own_prompts_are_compared(tmp_path: Path) -> None:
    scene = sample_scene(read_prompt("a photo of a red star").spec, np.random.default_rng(0))
    (tmp_path / "star.png").write_bytes(images.encode_png(render(scene)))
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        words = ["idea2img", "a ring the colour of", str(tmp_path / "star.png"), "--out", str(out),
                 "--prompt", "ring, red", *settings_for(url)]  # fmt: skip
        assert main(words) == exit_codes.OK
    exploration = load_exploration(out / "00000")
    assert len(exploration.idea.images) == 1
    assert exploration.manual is not None and exploration.manual.prompt == "ring, red"
    assert all("red ring" in draft.prompt for _, draft in exploration.drafts())
    assert exploration.provenance["detector"]["refined"]["correct"] is True
    assert len(load_trajectory(out / "00000").inputs) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one idea"),
        (["a star", "--ideas", "ideas.txt"], "give one idea"),
        (["a dragon"], "The miniature world's language model knows its shapes alone"),
        (["a star", "nowhere.png"], "nowhere.png"),
        (["a star", "--prompt", "<|im_end|>"], "--prompt: "),
        (["--ideas", "ideas.txt", "--prompt", "a star"], "--prompt is for one idea"),
        (["--ideas", "ideas.txt", "--manual", "one.txt"], "1 prompts for 3 ideas"),
        (["a star", "policy.num_promts=2"], "num_prompts"),
        (["a star", "policy.checklist=true"], "set selection to pairs"),
        (["a star", "model.checkpoint=a", "endpoint.model=b"], "an exploration has one image"),
        (["a star", "pipeline.model=sdxl"], "name the model that writes and looks"),
        (["a star", "editor.model=Qwen/Qwen-Image-Edit"], "edits by itself"),
        (["a star", "--preset", "best", "--config", "a.yaml"], "give one"),
        (["a star", "seed=-1"], "seed is -1"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(
    ideas: Path,
    tmp_path: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "one.txt").write_text("a star\n")
    code = main(["idea2img", *words, "--out", "out"])
    assert code in (exit_codes.FAILED, exit_codes.USAGE)
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_settings_or_ideas_is_refused(
    ideas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        words = command(ideas, out, url, "policy.max_rounds=1", "policy.control=none")
        assert main(words) == exit_codes.OK
        before, asked = kept(out), len(services.answered)
        assert main([*words, "policy.num_prompts=2"]) == exit_codes.FAILED
        assert "policy.num_prompts" in capsys.readouterr().err
        ideas.write_text("something white\n" + IDEAS)
        assert main(words) == exit_codes.FAILED
        assert "another exploration 0 than 'something white'" in capsys.readouterr().err
    assert (kept(out), len(services.answered)) == (before, asked)


def test_several_of_an_idea_differ_by_their_seeds(tmp_path: Path) -> None:
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        words = ["idea2img", "something red", "--out", str(out), "explorations=2", "--seed", "7",
                 "policy.max_rounds=1", *settings_for(url)]  # fmt: skip
        assert main(words) == exit_codes.OK
    first, second = (load_exploration(out / name) for name in ("00000", "00001"))
    assert (first.seed, second.seed) == (7, 8)
    assert first.rounds[0].drafts[0].seed != second.rounds[0].drafts[0].seed


def test_processes_share_the_ideas(ideas: Path, tmp_path: Path) -> None:
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        words = command(ideas, out, url, "--world-size", "2")
        for rank in ("1", "0"):
            assert main([*words, "--rank", rank]) == exit_codes.OK
    assert len(list(out.glob(f"*/{EXPLORATION}"))) == 3
    assert len(services.answered) == len(set(services.answered))


def test_a_preset_says_how_and_single_settings_have_the_last_word(tmp_path: Path) -> None:
    services, out = Services(), tmp_path / "out"
    with serve(services.app) as url:
        words = ["idea2img", "a hexagon", "--preset", "best", "policy.max_images=6",
                 "--out", str(out), *settings_for(url)]  # fmt: skip
        assert main(words) == exit_codes.OK
    policy = load(Idea2ImgSettings, out / "settings.yaml").policy
    assert (policy.selection, policy.checklist, policy.max_images) == ("pairs", True, 6)
    assert load_exploration(out / "00000").num_drafts == 6


def test_what_does_not_decide_does_not_bind_a_folder() -> None:
    one = from_dict(Idea2ImgSettings, {"concurrency": 1, "endpoint": {"model": "m"}})
    other = from_dict(
        Idea2ImgSettings,
        {"concurrency": 9, "budget": {"usd": 1.0}, "explorations": 3,
         "endpoint": {"model": "m", "concurrency": 2, "timeout_s": 9.0}},
    )  # fmt: skip
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != from_dict(Idea2ImgSettings, {"seed": 1}).fingerprint


def test_pictures_reach_their_tasks_as_they_come() -> None:
    """One that fails for all leaves those that came before it, and the queue goes on."""
    import asyncio

    from staged.backends.idea2img.painter import DrawQueue
    from staged.loops.idea2img.roles import DraftRequest

    class Breaking(Habits):
        def draw(self, requests):  # type: ignore[no-untyped-def]
            for request, outcome in super().draw(requests):
                if request.seed == 2:
                    raise ValueError("it broke")
                yield request, outcome

    async def go() -> list[object]:
        queue = DrawQueue(Breaking(at_once=3))
        wanted = [DraftRequest(prompt="a photo of a star", seed=seed) for seed in range(1, 6)]
        return await asyncio.gather(*map(queue.take, wanted), return_exceptions=True)

    came = [type(one).__name__ for one in asyncio.run(go())]
    assert came == ["DrawnImage", "ValueError", "ValueError", "DrawnImage", "DrawnImage"]


def test_a_checkpoint_draws_any_words_and_edits(tmp_path: Path) -> None:
    """The miniature refuses what it cannot know, for whoever asks; here it is to be found out."""
    from staged.generate.settings import ModelSettings
    from staged.idea2img.checkpoint_model import CheckpointModel
    from staged.loops.idea2img.roles import DraftRequest
    from staged.trajectory import ImageRef

    out = tmp_path / "out"
    words = ["idea2img", "something red", "--out", str(out), "policy.max_rounds=1",
             "policy.num_prompts=2", "model.checkpoint=miniature:fresh", "model.num_flow_steps=2",
             "model.device=cpu", "model.dtype=float32"]  # fmt: skip
    assert main(words) == exit_codes.OK
    exploration = load_exploration(out / "00000")
    assert exploration.manual is not None and exploration.manual.prompt == "something red"
    assert exploration.provenance["cost"] == {"images": 2, "flow_steps": 4}
    assert main(["report", str(out), "--out", str(tmp_path / "page.html")]) == exit_codes.OK
    assert "something red" in (tmp_path / "page.html").read_text()
    model = CheckpointModel(
        ModelSettings(checkpoint="miniature:fresh", num_flow_steps=2, device="cpu", dtype="float32")
    )
    drawn = exploration.manual.image
    assert isinstance(drawn, ImageRef)
    wanted = [
        DraftRequest(prompt="something red", seed=exploration.manual.seed),
        DraftRequest(prompt="add a blue ring", seed=1, onto=drawn, edit=True),
    ]
    came = {request.prompt: outcome.pixels for request, outcome in model.draw(wanted)}
    assert np.array_equal(came["something red"], drawn.array()), "its company changed it"
    assert came["add a blue ring"].shape == (48, 48, 3)
