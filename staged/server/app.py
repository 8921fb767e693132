"""The application: routes over a service, behind limits."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response

import staged
from staged.server import chat_api, images_api, models_api, page, pictures_api, trajectories
from staged.server.access import ApiKeys, Client
from staged.server.bodies import BodyLimits
from staged.server.errors import install_error_handlers
from staged.server.metrics import CONTENT_TYPE
from staged.server.observing import Observing
from staged.server.origins import Origins
from staged.server.routing import ERRORS
from staged.server.service import DrawingService

_ABOUT = """Draws pictures in stages: plans, sketches, inspects, refines, and tells every stage as
it comes. docs/server.md says more."""


def create_app(service: DrawingService, keys: ApiKeys) -> FastAPI:
    """Build the ASGI application.

    Args:
        service: Started and stopped by whoever serves.
        keys: Who may ask.
    """
    app = FastAPI(title="staged", version=staged.__version__, description=_ABOUT)
    app.state.service, app.state.keys = service, keys
    limits = service.settings.limits
    # The last is the first to see a request.
    app.add_middleware(BodyLimits, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
    origins = service.settings.allowed_origins
    app.add_middleware(Origins, allowed=origins, local=not len(keys))
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Trajectory-Id", "X-Request-Id"],
        )
    app.add_middleware(Observing, metrics=service.metrics)
    install_error_handlers(app)
    for api in (trajectories, pictures_api, images_api, chat_api, models_api, page):
        app.include_router(api.router)

    @app.get("/health", tags=["operation"])
    async def health() -> JSONResponse:
        """Whether the server lives; one that does not is to be started again."""
        error = service.scheduler.error
        status = {"status": "ok" if error is None else "broken"}
        return JSONResponse(status, status_code=200 if error is None else 503)

    @app.get("/ready", tags=["operation"])
    async def ready() -> JSONResponse:
        """Whether it takes requests: its model is loaded, and it is not ending."""
        scheduler = service.scheduler
        state = "ready" if scheduler.ready.is_set() else "loading"
        state = state if scheduler.alive else "ending"
        return JSONResponse({"status": state}, status_code=200 if state == "ready" else 503)

    @app.get("/metrics", tags=["operation"], response_class=Response, responses=ERRORS)
    async def metrics(_: Client) -> Response:
        """Counters for Prometheus, in its text format."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    return app
