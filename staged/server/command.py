"""`staged serve`: a server that draws, and tells every stage as it comes."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from staged import settings as job_settings
from staged.command_line import Parser, exit_codes, outputs
from staged.generate.signing import PictureSigner
from staged.server.settings import ServeSettings

if TYPE_CHECKING:  # FastAPI and torch take seconds to import, and `--help` should not
    from staged.server.access import ApiKeys

_EPILOG = """
example:
  staged serve port=8000 out=out/serve

Then, from another terminal:
  curl -N http://127.0.0.1:8000/v1/trajectories -H 'Content-Type: application/json' \\
      -d '{"prompt": "a photo of a red circle above a blue star"}'

docs/server.md tells the rest. API keys come from STAGED_API_KEYS, as name:key,name:key; without
any, only this machine may ask.

settings:
"""


def main(argv: list[str]) -> int:
    """Run the command.

    Returns:
        0 once SIGTERM has ended it, 130 after Ctrl-C.
    """
    parser = Parser(
        prog="staged serve",
        description="Serve a model: draw in stages, edit and answer over HTTP.",
        epilog=_EPILOG + job_settings.describe(ServeSettings),
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings")
    parser.add_argument(
        "--until-eof",
        action="store_true",
        help="end at once when standard input does: when the program that holds it is gone",
    )
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key=value", help="changes to settings"
    )
    options = parser.parse_args(argv)
    settings = job_settings.load(ServeSettings, options.config, options.overrides)
    outputs.folder(settings.out)
    try:
        from staged.server.access import ApiKeys
        from staged.server.app import create_app
        from staged.server.logs import log_json
        from staged.server.serving import listen, serve
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the server needs {error.name}; run `pip install staged[serve]`"
        ) from None
    held_by = sys.stdin if options.until_eof else None
    log_json(with_words=settings.log_prompts)
    keys = ApiKeys.from_environment()
    check_open(settings.host, keys)
    # Also in front of replicas: what is wrong with it is told at once.
    signer = None if settings.sign is None else PictureSigner(settings.sign)
    if settings.replicas > 1:
        return _serve_replicas(settings, keys, held_by)
    from staged.generate.model import DrawingModel
    from staged.server.history import History
    from staged.server.service import DrawingService

    with listen(settings.host, settings.port) as listener:
        model = DrawingModel(
            settings,
            seed=settings.seed,
            preview_every=settings.preview_every,
            most_together=settings.limits.max_running,
        )
        with History(settings.out, max_kept=settings.max_kept) as history:
            job_settings.save_resolved(settings, settings.out / "settings.yaml")
            service = DrawingService(settings, model, history, signer)
            _tell(settings, keys, listener)
            got = serve(
                create_app(service, keys),
                service.scheduler,
                listener,
                drain_s=settings.drain_s,
                max_connections=settings.limits.max_connections,
                held_by=held_by,
            )
    return _ended(got)


def _serve_replicas(settings: ServeSettings, keys: ApiKeys, held_by: TextIO | None) -> int:
    from staged.server.replicas import Replicas
    from staged.server.router import create_router
    from staged.server.serving import listen, serve

    replicas = Replicas(settings)
    with listen(settings.host, settings.port) as listener:
        _tell(settings, keys, listener)
        got = serve(
            create_router(replicas.addresses, settings.limits),
            replicas,
            listener,
            drain_s=settings.drain_s,
            max_connections=settings.limits.max_connections,
            held_by=held_by,
        )
    return _ended(got)


def _tell(settings: ServeSettings, keys: ApiKeys, listener: socket.socket) -> None:
    """Say what is served, where, and to whom."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = listener.getsockname()[1]
    who = f"{len(keys)} API keys" if len(keys) else "no API keys: this machine alone may ask"
    many = f", {settings.replicas} replicas" if settings.replicas > 1 else ""
    print(f"serving  {settings.checkpoint} on http://{host}:{port} ({who}{many})", flush=True)
    print(f"         history in {settings.out}", flush=True)


def _ended(got: int | None) -> int:
    print("ended")
    return exit_codes.INTERRUPTED if got == signal.SIGINT else exit_codes.OK


def check_open(host: str, keys: ApiKeys) -> None:
    """Make sure that nobody listens to the world without keys.

    Raises:
        ValueError: They would.
    """
    from staged.server.access import KEYS_ENV, LOOPBACK

    if not len(keys) and host not in LOOPBACK:
        raise ValueError(
            f"host is {host}, which other machines reach, and there are no API keys: set "
            f"{KEYS_ENV} to name:key, such as alice:$(openssl rand -hex 24), or listen on 127.0.0.1"
        )
