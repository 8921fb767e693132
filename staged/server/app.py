"""The application: routes over a service, behind limits."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import JSONResponse

import staged
from staged.server import chat_api, images_api, models_api, page, trajectories
from staged.server.access import ApiKeys
from staged.server.bodies import BodyLimits
from staged.server.errors import install_error_handlers
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
    app.add_middleware(BodyLimits, max_bytes=limits.max_body_bytes, timeout_s=limits.body_timeout_s)
    install_error_handlers(app)
    for api in (trajectories, images_api, chat_api, models_api, page):
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

    return app
