"""Players of Idea2Img for tests: an image model with habits, a language model over it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from staged import images
from staged.backends.generators.generator import DrawnImage, DrawOutcome, NoImage
from staged.backends.idea2img.painter import LedgerPainter
from staged.backends.idea2img.player import LmmIdeaPlayer
from staged.backends.idea2img.requests import PROMPT_VERSION
from staged.backends.lmm.client import LmmClient
from staged.backends.lmm.ledger import LedgerLog
from staged.ideas.exploration import Exploration
from staged.ideas.idea import Idea
from staged.jobs.ledger import Ledger
from staged.loops.idea2img.events import IdeaEvent
from staged.loops.idea2img.loop import Idea2ImgLoop
from staged.loops.idea2img.policy import IdeaPolicy
from staged.loops.idea2img.roles import DraftRequest, IdeaRoles
from staged.roles import RoleError
from staged.shapes.language.phrases import GrammarError
from staged.shapes.language.prompts import read_prompt
from staged.shapes.players.editor import EditorMistakes, ShapesEditor
from staged.shapes.players.lmm import connect, create_app
from staged.shapes.players.misbehaviour import SHAPES_LMM, Misbehaviour
from staged.shapes.tasks import sample_scene
from staged.shapes.world.render import render
from staged.shapes.world.scene import Scene, sample_background
from staged.shapes.world.spec import Spec

_MISTAKES = ("wrong_side", "wrong_color", "wrong_kind", "lost_object")


@dataclass
class Habits:
    """An image model that draws detailed prompts, and nothing of others.

    Attributes:
        drawn: (prompt, seed) of everything that it was asked for, in order.
        refuses: Prompts that it withholds the picture of.
        edits: Whether it edits, exactly.
        unknown: Kinds that it leaves out.
    """

    drawn: list[tuple[str, int]] = field(default_factory=list)
    refuses: Callable[[str], bool] = lambda prompt: False
    edits: bool = False
    unknown: Sequence[str] = ("hexagon",)
    at_once: int = 2
    name: str = "habits"

    def identity(self) -> Mapping[str, Any]:
        return {"habits": 1}

    def draw(self, requests: Sequence[DraftRequest]) -> Iterator[tuple[DraftRequest, DrawOutcome]]:
        for request in requests:
            self.drawn.append((request.prompt, request.seed))
            yield request, self._one(request)

    def _one(self, request: DraftRequest) -> DrawOutcome:
        if self.refuses(request.prompt):
            return NoImage(reason="content_filter", detail="withheld", final=True)
        rng = np.random.default_rng(request.seed)
        if request.onto is not None:
            exact = ShapesEditor(mistakes=EditorMistakes(**dict.fromkeys(_MISTAKES, 0.0)))
            try:
                pixels = exact.edit(
                    request.onto.array(), request.prompt, width=48, height=48, seed=request.seed
                )
            except RoleError as error:
                return NoImage(reason=error.reason, detail=str(error), final=True)
            return DrawnImage(pixels=pixels, cost={"flow_steps": 10})
        try:
            spec = read_prompt(request.prompt).spec
        except GrammarError:
            scene = Scene(shapes=(), background=sample_background(rng))
            return DrawnImage(pixels=render(scene), cost={"flow_steps": 20})
        known = tuple(thing for thing in spec.things if thing.kind not in self.unknown)
        relations = spec.relations if len(known) == len(spec.things) else ()
        scene = sample_scene(Spec(things=known, relations=relations), rng)
        return DrawnImage(pixels=render(scene), cost={"flow_steps": 20})


def roles(lmm: LmmClient, model: Any, ledger: Ledger) -> IdeaRoles:
    """A language model in all roles over an image model."""
    player = LmmIdeaPlayer(lmm)
    return IdeaRoles(
        writer=player,
        selector=player,
        critic=player,
        inspector=player,
        painter=LedgerPainter(model, ledger),
        names={"writer": player.name, "painter": model.name},
        prompt_versions={"lmm": PROMPT_VERSION},
    )


async def explored(
    idea: str | Idea,
    folder: Path,
    *,
    model: Any = None,
    policy: IdeaPolicy | None = None,
    seed: int = 0,
    lmm: LmmClient | None = None,
    tell: Callable[[IdeaEvent], None] | None = None,
    **misbehaviour: Any,
) -> Exploration:
    """Explore an idea of the miniature world, keeping everything in a folder's ledger."""
    if isinstance(idea, str):
        idea = Idea(parts=(idea,))
    with Ledger(folder / "ledger", fingerprint="f" * 64) as ledger:
        client = lmm or connect(misbehaviour=Misbehaviour(**misbehaviour), log=LedgerLog(ledger))
        async with client:
            loop = Idea2ImgLoop(roles(client, model or Habits(), ledger), policy)
            return await loop.run(idea, seed=seed, on_event=tell)


class Services:
    """The miniature world's language model and an image model, as services over HTTP.

    Attributes:
        answered: What was asked and answered, in order: a picture's (prompt, seed), or the digest
            of a request to the language model.
        number: Requests that arrived.
        on_request: Called with the number of each request, from 1, before it is answered.
    """

    def __init__(self, misbehaviour: Misbehaviour | None = None) -> None:
        self.answered: list[Any] = []
        self.on_request: Callable[[int], None] = lambda number: None
        self.model = Habits()
        self._language = create_app(misbehaviour)
        self.number = 0
        self.app = Starlette(
            routes=[
                Route("/v1/images/generations", self._draw, methods=["POST"]),
                Route("/v1/chat/completions", self._chat, methods=["POST"]),
            ]
        )

    def _arrived(self) -> None:
        self.number += 1
        self.on_request(self.number)

    async def _draw(self, request: Request) -> Response:
        body = await request.json()
        self._arrived()
        wanted = DraftRequest(prompt=body["prompt"], seed=body["seed"])
        [(_, outcome)] = self.model.draw([wanted])
        if isinstance(outcome, NoImage):
            error = {"error": {"code": "content_policy_violation", "message": "withheld"}}
            return JSONResponse(error, status_code=400)
        self.answered.append((wanted.prompt, wanted.seed))
        encoded = base64.b64encode(images.encode_png(outcome.pixels)).decode()
        return JSONResponse({"data": [{"b64_json": encoded}]})

    async def _chat(self, request: Request) -> Response:
        body = await request.body()
        self._arrived()
        response = await self._language.router.routes[0].endpoint(request)  # type: ignore[attr-defined]
        if response.status_code == 200:
            self.answered.append(hashlib.sha256(body).hexdigest())
        return response


def settings_for(url: str) -> list[str]:
    """Settings of `staged idea2img` that ask both services."""
    return [
        f"lmm.base_url={url}", f"lmm.model={SHAPES_LMM}", "lmm.api_key_env=null",
        "lmm.temperature=0", "lmm.structured_output=json_schema", "lmm.backoff_s=0",
        f"endpoint.base_url={url}", "endpoint.model=habits", "endpoint.concurrency=1",
        "concurrency=1",
    ]  # fmt: skip
