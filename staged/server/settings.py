"""Settings of a server: what draws, where it listens, and the limits on everything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from staged.generate.settings import DrawSettings
from staged.generate.signing import SigningSettings
from staged.ranges import check_finite, check_range
from staged.trajectory import MAX_INPUTS, MAX_TEXT_CHARS

_LARGEST_SIDE = 8192


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """How much a server takes, of one request and at a time."""

    max_running: int = 8
    """Trajectories that advance side by side; fewer where memory has room for fewer."""
    max_queued: int = 64
    """Trajectories that wait; who comes after them is told to come again (429)."""
    max_per_client: int = 32
    """Trajectories of one client that wait or advance."""
    max_connections: int = 256
    """Connections at a time; who comes after them gets 503."""
    max_body_bytes: int = 32 * 2**20
    """Of a request."""
    body_timeout_s: float = 60.0
    """For a request's body to arrive."""
    write_timeout_s: float = 60.0
    """For a client to take what a stream sends; who does not is let go."""
    max_prompt_chars: int = 2000
    """Of a prompt, a question or an edited text."""
    max_images: int = 4
    """Input images of a request."""
    max_image_pixels: int = 4096 * 4096
    """Of an input image."""
    max_picture_pixels: int = 1024 * 1024
    """Of a picture that is drawn."""
    max_samples: int = 8
    """Pictures of one request (`n`)."""
    max_flow_steps: int = 600
    """Network evaluations of a trajectory that a request may ask for."""
    max_rounds: int = 8
    """Plans that are sketched, which a request may ask for."""
    max_text_tokens: int = 2048
    """Of a text, which a request may ask for."""
    deadline_s: float = 600.0
    """From a request's arrival to its end; one may ask for less."""
    reconnect_s: float = 15.0
    """That a trajectory goes on after its last reader went away."""

    def __post_init__(self) -> None:
        """Check ranges.

        Raises:
            ValueError: A value is out of range.
        """
        check_finite(self)
        counts = ("max_running", "max_queued", "max_per_client", "max_connections", "max_rounds")
        check_range(self, *counts, minimum=1, maximum=100_000)
        check_range(self, "max_flow_steps", "max_text_tokens", minimum=1, maximum=10**6)
        check_range(self, "max_body_bytes", minimum=1024, maximum=2**31)
        check_range(self, "max_prompt_chars", minimum=1, maximum=MAX_TEXT_CHARS)
        check_range(self, "max_images", minimum=0, maximum=MAX_INPUTS)
        check_range(self, "max_samples", minimum=1, maximum=1000)
        check_range(
            self, "max_image_pixels", "max_picture_pixels", minimum=1, maximum=_LARGEST_SIDE**2
        )
        check_range(self, "body_timeout_s", "write_timeout_s", "deadline_s", minimum=0, above=True)
        check_range(self, "reconnect_s", minimum=0)


@dataclass(frozen=True, kw_only=True)
class ServeSettings(DrawSettings):
    """What draws and how, unless a request says otherwise; where it listens; limits."""

    checkpoint: str = "miniature:staged"
    """`miniature:base`, `miniature:staged`, a folder, or a Hub id."""
    host: str = "127.0.0.1"
    """Address to listen on; one that other machines reach needs API keys."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    seed: int = 0
    """Of `miniature:fresh`; pictures have seeds of their own."""
    model_name: str | None = None
    """By which OpenAI's clients call it; null is `checkpoint`."""
    public_url: str | None = None
    """Where clients reach it, such as https://draw.example.org; null is where they asked."""
    allowed_origins: tuple[str, ...] = ()
    """Other sites whose pages may ask from a browser, such as https://draw.example.org."""
    log_prompts: bool = False
    """Write prompts, and what errors say, into the log."""
    records: bool = True
    """Let each PNG that is sent carry its prompt and how it was drawn."""
    sign: SigningSettings | None = None
    """With what each PNG that was drawn is signed as it is sent (C2PA); null signs none."""
    out: Path = Path("out/serve")
    """Folder of what was drawn: one server's at a time."""
    replicas: int = 1
    """Processes behind the port, each with the model, `limits` and a part of `out` of its own."""
    max_kept: int = 10_000
    """Trajectories; the oldest are forgotten for new ones."""
    preview_every: int = 4
    """Flow steps between previews of a sketch that is watched; 0 makes none."""
    drain_s: float = 30.0
    """Once told to end: for what was begun to come to its end."""
    limits: ServerLimits = ServerLimits()
    """How much it takes."""

    def __post_init__(self) -> None:
        """Check names and ranges.

        Raises:
            ValueError: A value is out of range, or values contradict one another.
        """
        super().__post_init__()
        check_range(self, "port", minimum=0, maximum=65535)
        check_range(self, "preview_every", "drain_s", minimum=0)
        check_range(self, "max_kept", minimum=1)
        check_range(self, "replicas", minimum=1, maximum=256)
        check_range(self, "seed", minimum=0)
        if self.public_url is not None and not self.public_url.startswith(("http://", "https://")):
            raise ValueError(f"public_url is {self.public_url!r}; it begins with https://")
        if self.asks_lmm:
            raise ValueError(
                f"planner {self.planner}, inspector {self.inspector}: while a language model "
                "thinks, nobody is drawn for; let the model or scripted players play on a server"
            )
        if not self.host:
            raise ValueError("host is empty; give an address such as 127.0.0.1 or 0.0.0.0")

    @property
    def name(self) -> str:
        """By which OpenAI's clients call the model."""
        return self.model_name or self.checkpoint
