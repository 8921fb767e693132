"""Editors apart from the ranks: actors of a Ray cluster, and what asks them."""

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from serving import serve
from test_pipeline_real import Reader, carrying, kontext  # noqa: F401
from test_ranks import Endpoint, answered, content, lines, parent

from data_pipelines.__main__ import main
from data_pipelines.drawing import DrawingSettings
from data_pipelines.editors import OWN
from data_pipelines.job import LEDGER
from data_pipelines.plan_sketch.job import run_job
from data_pipelines.ray_editors import EditorActor, RayEditor, RayEditors
from staged.backends.generators.settings import EditingServiceSettings
from staged.backends.http.service import ServiceError
from staged.command_line import UsageError
from staged.command_line.on_ray import num_gpus, require_gpus, share
from staged.jobs.records import Records
from staged.roles import LatentEditor, RoleError
from staged.settings import save_resolved
from staged.shapes.players.misbehaviour import SHAPES_LMM

SIZE = {"width": 48, "height": 48}


class Ray:
    """Answers at once, in this process, as Ray does: errors are wrapped in its own."""

    class exceptions:
        class RayTaskError(Exception):
            def __init__(self, cause: Exception) -> None:
                super().__init__("a traceback\nof many lines")
                self.cause = cause

        class RayActorError(Exception):
            pass

    def get(self, awaited: Any) -> Any:
        try:
            return awaited()
        except Exception as error:
            if isinstance(error, self.exceptions.RayActorError):
                raise
            raise self.exceptions.RayTaskError(error) from None


class Handle:
    """Of an actor that is in this process."""

    def __init__(self, actor: EditorActor, asked: list[int], number: int) -> None:
        self._actor, self._asked, self._number = actor, asked, number
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        def remote(*given: Any, **named: Any) -> Any:
            def answer() -> Any:
                if self.dead:
                    raise Ray.exceptions.RayActorError("The actor died\nand more")
                if name == "call":
                    self._asked.append(self._number)
                return getattr(self._actor, name)(*given, **named)

            return answer

        return SimpleNamespace(remote=remote)


@pytest.fixture
def asked() -> list[int]:
    return []


@pytest.fixture
def handles(asked: list[int]) -> list[Handle]:
    return [Handle(EditorActor(os.getcwd()), asked, number) for number in range(2)]


@pytest.fixture
def editor(handles: list[Handle]) -> RayEditor:
    return RayEditor(Ray(), handles, DrawingSettings().with_defaults())


def test_an_editor_elsewhere_draws_and_fails_as_one_here(editor: RayEditor) -> None:
    here = OWN.open(DrawingSettings().with_defaults())
    assert (editor.name, editor.licence) == (here.name, here.licence)
    drawn = editor.edit(None, "add a red circle", **SIZE, seed=3)
    assert (drawn == here.edit(None, "add a red circle", **SIZE, seed=3)).all()
    assert isinstance(editor, LatentEditor)
    with pytest.raises(RoleError) as refused:
        editor.edit(None, "sing", **SIZE, seed=3)
    assert refused.value.reason == "not understood" and "traceback" not in str(refused.value)
    with pytest.raises(ValueError, match="16 x 16: this editor draws 48 x 48"):
        editor.edit(None, "add a red circle", width=16, height=16, seed=3)


def test_whoever_has_fewest_requests_is_asked(editor: RayEditor, asked: list[int]) -> None:
    editor._waiting[0] = 1
    for _ in range(4):
        editor.edit(None, "add a red circle", **SIZE, seed=3)
    assert asked == [1] * 4 and editor._waiting == [1, 0]
    editor._waiting[0] = 0
    for _ in range(40):
        editor.edit(None, "add a red circle", **SIZE, seed=3)
    assert {*asked[4:]} == {0, 1}, "ranks that have nothing in flight do not all ask the first"


def test_a_request_that_editors_die_over_stops_the_job(
    editor: RayEditor, handles: list[Handle]
) -> None:
    for handle in handles:
        handle.dead = True
    with pytest.raises(ServiceError, match=r"died 17 times over one request \(The actor died\)"):
        editor.edit(None, "add a red circle", **SIZE, seed=3)
    assert editor._waiting == [0, 0]


def test_an_error_of_opening_is_the_editors_own(handles: list[Handle], tmp_path: Path) -> None:
    from staged.backends.diffusers.settings import DiffusersSettings

    pipeline = DiffusersSettings(model=str(tmp_path), licence="none", pipeline="Nonsense")
    with pytest.raises(ValueError, match="has no pipeline 'Nonsense'"):
        RayEditor(Ray(), handles, DrawingSettings(editor=pipeline).with_defaults())


QUICK = ["1", "plan-sketch", "prompts.count=1", "--out", "out"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--editors", "0", *QUICK], "--editors is 0; give at least 1"),
        (["--editors", "2", "1", "refine", "--out", "out"], "refine draws nothing, only plan-sket"),
        (["--editor-gpus", "0.5", *QUICK], "say how many with --editors"),
        (["--editors", "2", *QUICK], "Ray is not installed: pip install 'staged\\[ray\\]'"),
    ],
)
def test_what_cannot_be_is_one_error(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=words):
        main(["on-ray", *arguments])


def test_half_of_three_gpus_is_no_number_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["on-ray", "--editors", "1", "--editor-gpus", "1.5", *QUICK])
    assert "'1.5': give a share of one GPU, or a whole number" in capsys.readouterr().err


def machines(*gpus: float) -> Any:
    """What Ray says of a cluster: a machine without GPUs, one that left it, and those of these."""
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": number}} for number in gpus]
    nodes += [{"Alive": True, "Resources": {"CPU": 8.0}}]
    nodes += [{"Alive": False, "Resources": {"CPU": 8.0, "GPU": 8.0}}]
    return SimpleNamespace(nodes=lambda: nodes)


@pytest.mark.parametrize(
    ("gpus", "each", "number", "beside", "fits"),
    [
        ([1], 0.5, 1, 0.5, True),  # an editor on what a task leaves of the only GPU
        ([1], 0.25, 2, 0.5, True),
        ([2], 0.5, 3, 0.5, True),
        ([2], 0.5, 4, 0.5, False),
        ([2], 0.6, 3, 0, False),  # a share lies on one GPU
        ([3], 1, 2, 0.5, True),
        ([3], 1, 3, 0.5, False),
        ([4], 2, 2, 0, True),
        ([], 1, 1, 0, False),
        ([1, 1], 2, 1, 0, False),  # nothing lies on two machines
        ([3, 3], 2, 2, 0, True),
        ([3, 3], 2, 3, 0, False),
        ([2, 3], 2, 2, 1, True),  # a task on the GPU that no editor can use
        ([2, 3], 2, 2, 2, False),
        ([2, 1], 2, 1, 1, True),
        ([1, 1], 1, 1, 2, False),  # a task that finds no room at all
        ([1, 1], 0.5, 2, 1, True),
        ([1, 1], 0.6, 2, 0.4, True),
        ([1, 1], 0.6, 2, 0.5, False),
    ],
)
def test_shares_of_gpus_fit_where_there_is_room(
    gpus: list[float], each: float, number: int, beside: float, fits: bool
) -> None:
    assert num_gpus(machines(*gpus)) == sum(gpus)
    refusal = nullcontext() if fits else pytest.raises(UsageError, match="the cluster has")
    with refusal:
        require_gpus(machines(*gpus), "--editors", each, number, beside=beside)


def test_a_refusal_counts_gpus_machine_by_machine() -> None:
    told = r"asks for 4 GPU, and the cluster has 7 \(machines: 2 with 3, 1 with 1\): .*one machine"
    with pytest.raises(UsageError, match=told):
        require_gpus(machines(3, 1, 3), "--gpus", 4)
    with pytest.raises(UsageError, match="and the cluster has 2: ask for fewer"):
        require_gpus(machines(2), "--gpus", 4)


@pytest.mark.parametrize("fails", [True, False])
def test_a_task_that_ray_gives_up_is_one_error_and_leaves_none_behind(fails: bool) -> None:
    """It was a traceback, and on a cluster of one's own the other tasks went on."""
    cancelled = list[int]()

    class Died(Exception):
        pass

    def get(awaited: list[int]) -> list[int]:
        if fails:
            raise Died("The worker died unexpectedly\nand many lines more")
        return [0, 3]

    numbers = iter(range(9))
    task = SimpleNamespace(remote=lambda *given: next(numbers))
    cluster = SimpleNamespace(
        exceptions=SimpleNamespace(RayTaskError=Ray.exceptions.RayTaskError, RayError=Died),
        remote=lambda **options: lambda run: task,
        get=get,
        cancel=lambda one, force: cancelled.append(one),
    )
    options = argparse.Namespace(gpus=None, cpus=1, processes=2, command="plan-sketch",
                                 arguments=[])  # fmt: skip
    if fails:
        told = r"gave a task up \(Died: The worker died unexpectedly\); the same command goes on"
        with pytest.raises(OSError, match=told):
            share(cluster, "data_pipelines", options, retries=1, by_default=0)
    else:
        assert share(cluster, "data_pipelines", options, retries=1, by_default=0) == 3
    assert cancelled == [0, 1]


def test_a_pool_that_is_not_there_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--editor-pool a,b: there are no such editors; `staged d"):
        main([*QUICK[1:3], "--out", str(tmp_path / "out"), "--editor-pool", "a,b"])


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster that says it has two GPUs; nothing here uses one."""
    module = pytest.importorskip("ray", reason="needs the extra `ray`")
    module.init(num_cpus=2, num_gpus=2, include_dashboard=False)
    yield module
    module.shutdown()


JOB = ["plan-sketch", "concurrency=4"]


@pytest.mark.slow
def test_one_and_two_editors_leave_what_one_process_leaves(ray: Any, tmp_path: Path) -> None:
    job = [*JOB, "prompts.count=9"]
    assert main([*job, "--out", str(tmp_path / "one")]) == 0
    for number in ("1", "2"):
        out = tmp_path / number
        assert main(["on-ray", "--editors", number, "2", *job, "--out", str(out)]) == 0
        assert content(out) == content(tmp_path / "one")


@pytest.mark.slow
def test_editors_of_diffusers_leave_what_one_process_leaves(
    ray: Any,
    kontext: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    with serve(Reader().app) as url:
        job = carrying(kontext, tmp_path, url)
        assert run_job(job, tmp_path / "one").accepted == 2
        save_resolved(job, tmp_path / "job.yaml")
        command = ["2", "plan-sketch", str(tmp_path / "job.yaml"), "--out", str(tmp_path / "ray")]
        assert main(["on-ray", "--editors", "2", *command]) == 0
    assert content(tmp_path / "ray") == content(tmp_path / "one")


@pytest.mark.slow
def test_clusters_without_room_and_commands_that_fail_are_one_error(
    ray: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")]
    for options, words in (
        (["--editors", "3"], "--editors asks for 3 with 1 GPU each, and the cluster has 2"),
        (["--editors", "5", "--editor-gpus", "0.5"], "asks for 5 with 0.5 GPU each"),
        (["--editors", "2", "--gpus", "1"], "2 with 1 GPU each, with 1 for a task beside them"),
        (["--gpus", "4"], "--gpus asks for 4 GPU, and the cluster has 2"),
    ):
        with pytest.raises(UsageError, match=words):
            main(["on-ray", *options, "1", *JOB, *out])
    with pytest.raises(OSError) as missing:
        main(["on-ray", "--gpus", "0", "1", "plan-sketch", "nowhere.yaml", *out])
    assert "Traceback" not in str(missing.value)
    service = EditingServiceSettings(
        model="painter", base_url="http://127.0.0.1:9/v1", licence="none", api_key_env=None
    )
    with pytest.raises(ValueError, match=r"painter draws behind its address .* leave out"):
        RayEditors([]).settled(DrawingSettings(service=service), begun=None)
    assert main(["on-ray", "--gpus", "0", "1", "plan-sketch", "--nonsense", *out]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("deaths", [5, 200])
def test_editors_and_ranks_that_are_killed_leave_the_same_and_lose_nothing(
    ray: Any, tmp_path: Path, deaths: int
) -> None:
    model, rng, killed = Endpoint(), random.Random(0), list[str]()
    with serve(model) as url:
        lmm = [f"lmm.model={SHAPES_LMM}", f"lmm.base_url={url}", "lmm.api_key_env=null"]
        job = ["plan-sketch", "concurrency=2", *lmm, f"prompts.count={8 * deaths}"]
        job.append("lmm.backoff_s=0")
        assert main([*job, "--out", str(tmp_path / "one")]) == 0
        whole, needed = model.asked.copy(), Records(tmp_path / "one" / LEDGER)
        model.asked.clear()
        out, over = tmp_path / "ray", threading.Event()

        def kill() -> None:
            while len(killed) < deaths and not over.is_set():
                enough = lines(out) + rng.randint(10, 25)
                while lines(out) < enough and not over.is_set():
                    time.sleep(0.01)
                named = rng.choice(("EditorActor", "EditorActor", "_run"))
                if found := workers(named):
                    os.kill(rng.choice(found), signal.SIGKILL)
                    killed.append(named)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            for attempt in range(1, 20):
                try:
                    assert main(["on-ray", "--editors", "2", "2", *job, "--out", str(out)]) == 0
                    break
                except OSError as error:  # a task has died as often as Ray begins it anew
                    assert "the same command goes on" in str(error) and attempt < 19
        finally:
            over.set()
            killer.join()
    made = Records(out / LEDGER)
    assert len(killed) >= 0.8 * deaths and {"EditorActor", "_run"} == set(killed), killed
    assert answered(made) == answered(needed)
    assert model.asked.keys() == whole.keys()
    assert content(out) == content(tmp_path / "one")


def workers(named: str) -> Sequence[int]:
    """Processes of Ray's that run one thing; ours are children of the child that is ours."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            runs = (process / "cmdline").read_bytes().startswith(f"ray::{named}".encode())
            if runs and parent(parent(int(process.name))) == os.getpid():
                found.append(int(process.name))
        except (OSError, StopIteration):
            continue
    return found
