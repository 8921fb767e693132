"""An image editor behind HTTP: the miniature's own, with OpenAI's images API before it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from data_pipelines.__main__ import main
from data_pipelines.drawing import DrawingSettings
from data_pipelines.plan_sketch.settings import PlanSketchSettings
from staged import images
from staged.backends.diffusers.settings import DiffusersSettings
from staged.backends.generators.editing_service import EditingService
from staged.backends.generators.settings import EditingServiceSettings
from staged.backends.http.service import ServiceError
from staged.data_urls import to_base64
from staged.roles import RoleError
from staged.shapes.players.editor import NO_MISTAKES, ShapesEditor
from staged.shapes.players.lmm import create_app
from staged.shards import read_manifest, read_shards

EDITOR = ShapesEditor(mistakes=NO_MISTAKES)
Script = Callable[[int], Response | None]


class Server:
    """Draws what it is asked, unless a script has another answer for the n-th request."""

    def __init__(self, script: Script = lambda _: None) -> None:
        self.script = script
        self.asked: list[tuple[str, dict[str, Any]]] = []
        routes = [
            Route(f"/v1/images/{name}", self.answer, methods=["POST"])
            for name in ("generations", "edits")
        ]
        self.app = Starlette(routes=routes)

    async def answer(self, request: Request) -> Response:
        before = None
        if request.url.path.endswith("edits"):
            async with request.form() as form:
                fields: dict[str, Any] = {k: v for k, v in form.items() if isinstance(v, str)}
                file = form["image"]
                assert not isinstance(file, str) and file.content_type == "image/png"
                before = images.decode(await file.read())
        else:
            fields = await request.json()
        self.asked.append((request.url.path.rpartition("/")[2], fields))
        if (scripted := self.script(len(self.asked) - 1)) is not None:
            return scripted
        width, height = map(int, fields["size"].split("x"))
        drawn = EDITOR.edit(
            before, fields["prompt"], width=width, height=height, seed=int(fields["seed"])
        )
        return JSONResponse({"data": [{"b64_json": to_base64(images.encode_png(drawn))}]})


@contextmanager
def served(script: Script = lambda _: None, **more: Any) -> Iterator[tuple[EditingService, Server]]:
    server = Server(script)
    with serve(server.app) as url:
        settings = EditingServiceSettings(model="editor-1", base_url=url, licence="MIT", **more)
        yield EditingService(settings), server


def test_it_draws_and_edits_what_the_editor_behind_it_does_from_many_threads() -> None:
    jobs = [
        ("add a red star", before, seed)
        for before in (None, EDITOR.edit(None, "add a blue ring", width=48, height=48, seed=9))
        for seed in range(6)
    ]

    def drawn(editor: Any, job: Any) -> np.ndarray:
        text, before, seed = job
        return editor.edit(before, text, width=48, height=48, seed=seed)

    with served() as (editor, server), ThreadPoolExecutor(len(jobs)) as pool:
        assert (editor.name.split()[0], editor.licence) == ("editor-1", "MIT")
        found = list(pool.map(lambda job: drawn(editor, job), jobs))
    for job, picture in zip(jobs, found, strict=True):
        assert (picture == drawn(EDITOR, job)).all()
    paths = [path for path, _ in server.asked]
    assert paths.count("generations") == paths.count("edits") == 6


def test_a_service_that_only_edits_begins_on_white() -> None:
    picture = images.encode_png(np.zeros((48, 48, 3), np.uint8))
    reply = JSONResponse({"data": [{"b64_json": to_base64(picture)}]})
    with served(lambda _: reply, first_step_without_image=False) as (editor, server):
        editor.edit(None, "add a red star", width=48, height=48, seed=1)
    assert [path for path, _ in server.asked] == ["edits"]


def test_what_is_not_known_to_the_service_is_not_sent() -> None:
    with served(seed_field=None, sends_size=False, response_format=None) as (editor, server):
        server.script = lambda _: JSONResponse({"data": []})
        with pytest.raises(RoleError, match="invalid_reply"):
            editor.edit(None, "add a red star", width=48, height=48, seed=1)
    assert server.asked[0][1].keys() == {"model", "prompt", "n"}


def test_a_busy_service_is_asked_again_and_a_refusal_is_a_failure_of_one_edit() -> None:
    busy = JSONResponse({"error": {"message": "slow down"}}, 429, {"retry-after": "0.01"})
    unsafe = JSONResponse({"error": {"message": "no", "code": "moderation_blocked"}}, 400)
    answers = {0: busy, 2: unsafe}
    with served(answers.get, max_attempts=3) as (editor, server):
        editor.edit(None, "add a red star", width=48, height=48, seed=1)
        with pytest.raises(RoleError) as caught:
            editor.edit(None, "add a red star", width=48, height=48, seed=2)
    assert caught.value.reason == "content_filter" and len(server.asked) == 3


def test_a_wrong_key_stops_the_job_and_another_size_is_named() -> None:
    refused = JSONResponse({"error": {"message": "bad key"}}, 401)
    with served(lambda _: refused) as (editor, _), pytest.raises(ServiceError, match="bad key"):
        editor.edit(None, "add a red star", width=48, height=48, seed=1)
    large = images.encode_png(np.zeros((64, 96, 3), np.uint8))
    reply = JSONResponse({"data": [{"b64_json": to_base64(large)}]})
    with (
        served(lambda _: reply) as (editor, _),
        pytest.raises(ValueError, match=r"96 x 64 instead of 48 x 48.*drawing\.width"),
    ):
        editor.edit(None, "add a red star", width=48, height=48, seed=1)


def test_a_pipeline_and_a_service_do_not_go_together_nor_with_the_miniatures_words() -> None:
    service = EditingServiceSettings(model="editor-1", licence="MIT")
    with pytest.raises(ValueError, match=r"leave out the pipeline \(editor\) or the service"):
        DrawingSettings(editor=DiffusersSettings(), service=service)
    with pytest.raises(ValueError, match="knows shapes only, and editor-1 draws"):
        PlanSketchSettings(drawing=DrawingSettings(service=service))


def test_a_job_draws_by_a_service_and_says_whose_terms_its_images_carry(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a photo of a red star\na photo of a blue ring and a green heart\n")
    server = Server()
    with serve(create_app()) as lmm, serve(server.app) as images_url:
        job = [
            f"prompts.file={prompts}", "prompts.count=2", "lmm.model=some-lmm",
            f"lmm.base_url={lmm}", "lmm.api_key_env=null", "drawing.service.model=editor-1",
            f"drawing.service.base_url={images_url}", "drawing.service.licence=MIT",
            "drawing.width=48", "drawing.height=48", "steps.varied=0", "critiques.inspect=nothing",
        ]  # fmt: skip
        out = tmp_path / "data"
        assert main(["plan-sketch", *job, "--out", str(out)]) == 0
        asked = len(server.asked)
        assert asked >= 2
        assert main(["plan-sketch", *job, "--out", str(out)]) == 0
    assert len(server.asked) == asked, "nothing is drawn twice"
    assert read_manifest(out).acceptance["samples"] == {"accepted": 2}
    for sample in read_shards(out):
        said = sample.trajectory.provenance
        assert said["licence"] == "MIT" and said["models"]["editor"].startswith("editor-1 at ")
    assert "MIT" in (out / "README.md").read_text()
