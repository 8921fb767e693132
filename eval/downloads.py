"""Files of benchmarks, fetched on the user's machine at a pinned revision and checked.

They are not ours to ship. What arrives must have the pinned SHA-256, or it is refused; what is
cached is checked again each time.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from staged import proxies
from staged.jobs.files import write_whole

MAX_BYTES = 64 * 1024 * 1024
TIMEOUT_S = 60


@dataclass(frozen=True, kw_only=True)
class PinnedFile:
    """A file at one revision.

    Attributes:
        url: Where it is, revision included.
        sha256: Of its content, in hexadecimal.
    """

    url: str
    sha256: str


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def file_sha256(path: Path) -> str | None:
    """Return the SHA-256 of a file in hexadecimal; None where there is none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def cache_folder() -> Path:
    """Return the folder of fetched files: `STAGED_CACHE`, else below the user's cache folder."""
    if folder := os.environ.get("STAGED_CACHE"):
        return Path(folder)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "staged"


def fetch(pinned: PinnedFile) -> bytes:
    """Return the content, from the cache or from its address.

    Raises:
        ValueError: it cannot be fetched, is too large, or is not the pinned content.
    """
    import httpx

    cached = cache_folder() / f"{pinned.sha256}-{pinned.url.rsplit('/', 1)[-1]}"
    if cached.is_file() and sha256_of(content := cached.read_bytes()) == pinned.sha256:
        return content
    try:
        with httpx.stream("GET", pinned.url, timeout=TIMEOUT_S, follow_redirects=True) as answer:
            answer.raise_for_status()
            content = b""
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise ValueError(f"{pinned.url}: more than {MAX_BYTES} bytes; not the file")
    except httpx.HTTPError as error:
        raise ValueError(
            f"{pinned.url}: {error}{proxies.blamed(pinned.url)}; fetch the file by other means and "
            "give its path"
        ) from None
    found = sha256_of(content)
    if found != pinned.sha256:
        raise ValueError(
            f"{pinned.url}: SHA-256 is {found}, expected {pinned.sha256}; the file changed or was "
            "changed on its way, so give the path of one that you trust"
        )
    write_whole(cached, content)
    return content
