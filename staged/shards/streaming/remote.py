"""A folder at an address: whole small files, and parts of large ones, whatever the network does."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from staged import proxies
from staged.shards.streaming.settings import Streaming

_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
"""Statuses that a later attempt may not meet."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 15.0
_SLOWEST_BYTES: Final = 64 * 1024
"""What must come in `timeout_s` at least: a server may send a byte now and then for ever."""
_CHUNK_BYTES: Final = 4 * 2**20


class RemoteError(OSError):
    """Something at an address cannot be had; names it."""


class _PassingError(Exception):
    """An attempt that failed where another may not.

    Attributes:
        wait_s: Seconds that the server wants to be left alone.
    """

    def __init__(self, said: str, wait_s: float = 0.0) -> None:
        super().__init__(said)
        self.wait_s = wait_s


def is_remote(place: str) -> bool:
    """Whether data are named by an address rather than a path."""
    return bool(_ADDRESS.match(place))


def shown(place: str) -> str:
    """Write a place of data for messages and for others.

    Returns:
        A path as it is; an address without its query and fragment, which may be a secret, and
        without a user and a password.
    """
    if not is_remote(place):
        return place
    parts = urlsplit(place)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


class _Source(Protocol):
    """One attempt at a part of a file."""

    def chunks(self, name: str, start: int, stop: int | None, size: int | None) -> Iterator[bytes]:
        """Yield bytes of a file from `start` on; it may end early.

        Raises:
            RemoteError: Another attempt is no use.
            _PassingError: It may be.
        """
        ...


class Remote:
    """A folder at an address of http(s), or of anything that fsspec has a file system for.

    Usable from threads, and after a fork: each process has connections of its own.

    Attributes:
        shown: The address for messages: a query may be a secret.
    """

    def __init__(self, address: str, settings: Streaming) -> None:
        """Look at the address; nothing is asked yet.

        Raises:
            ValueError: It is none, or holds a password.
        """
        parts = urlsplit(address)
        if parts.username is not None or parts.password is not None:
            raise ValueError(
                "an address of data must not hold a user or a password, which files and messages "
                "would show; give the ones of s3:// and its like to the environment"
            )
        self.shown = shown(address)
        self._settings = settings
        web = parts.scheme.lower() in ("http", "https")
        self._source: _Source = (
            _Web(address, self.shown, settings.timeout_s) if web else _FileSystem(self.shown)
        )

    def whole(self, name: str, *, max_bytes: int) -> bytes:
        """Fetch a small file.

        Raises:
            RemoteError: It is not there, cannot be had, or is too large.
        """
        failures = 0
        while True:
            try:
                data = bytearray()
                for chunk in self._source.chunks(name, 0, None, None):
                    data += chunk
                    if len(data) > max_bytes:
                        raise RemoteError(f"{self.shown}/{name}: more than {max_bytes} bytes")
                return bytes(data)
            except _PassingError as error:
                failures += 1
                self._wait(name, error, failures)

    def part(self, name: str, start: int, stop: int, *, size: int) -> Iterator[bytes]:
        """Fetch bytes `start` to `stop` of a file of `size` bytes, going on where it was cut.

        Raises:
            RemoteError: They cannot be had, or the file has another size.
        """
        position, failures = start, 0
        while position < stop:
            try:
                for chunk in self._source.chunks(name, position, stop, size):
                    if position >= stop and chunk:
                        return  # more than was asked for: who knows how much
                    more = len(chunk) > stop - position
                    chunk = chunk[: stop - position]
                    position += len(chunk)
                    if chunk:
                        failures = 0
                        yield chunk
                    if more:
                        return
                # A server that gave what was asked for is heard to its end, which costs nothing
                # and keeps the connection for the next part.
                if position < stop:
                    raise _PassingError(f"it was cut at byte {position} of {stop}")
            except _PassingError as error:
                if position >= stop:
                    return  # an end that did not come
                failures += 1
                self._wait(name, error, failures)

    def _wait(self, name: str, error: _PassingError, failures: int) -> None:
        if failures >= self._settings.attempts:
            raise RemoteError(
                f"{self.shown}/{name}: {error}, {failures} times in a row"
                f"{proxies.blamed(self.shown)}; the same command goes on from the last state"
            ) from None
        longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**failures)
        time.sleep(max(min(error.wait_s, 60.0), random.uniform(longest / 2, longest)))


class _Web:
    """Files of a web server that gives parts of them."""

    def __init__(self, address: str, shown: str, timeout_s: float) -> None:
        self._parts = urlsplit(address)
        self._shown, self._timeout_s = shown, timeout_s
        self._clients: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": {}}

    def chunks(self, name: str, start: int, stop: int | None, size: int | None) -> Iterator[bytes]:
        import httpx

        asked = {"Accept-Encoding": "identity"}
        if stop is not None:
            asked["Range"] = f"bytes={start}-{stop - 1}"
        try:
            with self._client().stream("GET", self._url(name), headers=asked) as answer:
                self._check(name, answer, start, size)
                yield from self._timely(answer.iter_raw())
        except (httpx.TransportError, httpx.StreamError) as error:
            raise _PassingError(str(error) or type(error).__name__) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise RemoteError(f"{self._shown}/{name}: {error}") from None

    def _check(self, name: str, answer: Any, start: int, size: int | None) -> None:
        place, status = f"{self._shown}/{name}", answer.status_code
        if status in _PASSING:
            after = answer.headers.get("Retry-After", "")
            raise _PassingError(f"HTTP status {status}", float(after) if after.isdecimal() else 0)
        if status not in (200, 206):
            said = {404: "it is not there", 401: "it is not public", 403: "it is not public"}
            raise RemoteError(f"{place}: HTTP status {status}, {said.get(status, 'no file')}")
        if size is None:
            return
        if status == 200 and start:
            raise RemoteError(
                f"{place}: the server gives no parts of files (it ignores Range, as Python's "
                "http.server does); use one that does, or copy the data to a local folder"
            )
        told = answer.headers.get("Content-Length" if status == 200 else "Content-Range", "")
        total = told.rpartition("/")[2]
        if total.isdecimal() and int(total) != size:
            raise RemoteError(f"{place}: {total} bytes, the index says {size}; it has changed")
        if status == 206 and not told.startswith(f"bytes {start}-"):
            raise RemoteError(f"{place}: asked for byte {start}, and got {told!r:.60}")

    def _timely(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        since, came = time.monotonic(), 0
        for chunk in chunks:
            came += len(chunk)
            yield chunk
            now = time.monotonic()
            if now - since > self._timeout_s:
                if came < _SLOWEST_BYTES:
                    raise _PassingError(f"{came} bytes in {now - since:.0f} seconds")
                since, came = now, 0

    def _client(self) -> Any:
        import httpx

        pid = os.getpid()
        if pid not in self._clients:
            self._clients[pid] = httpx.Client(
                timeout=self._timeout_s,
                follow_redirects=True,
                trust_env=not proxies.is_this_machine(self._shown),
                limits=httpx.Limits(max_connections=None),
            )
        return self._clients[pid]

    def _url(self, name: str) -> str:
        path = f"{self._parts.path.rstrip('/')}/{quote(name)}"
        return urlunsplit((self._parts.scheme, self._parts.netloc, path, self._parts.query, ""))


class _FileSystem:
    """Files of an object store, through fsspec."""

    def __init__(self, address: str) -> None:
        try:
            import fsspec
        except ImportError:
            raise ValueError(
                f"{address}: what is not http(s) is read by fsspec; pip install staged[s3]"
            ) from None
        try:
            fsspec.get_filesystem_class(address.partition("://")[0])
        except (ImportError, ValueError) as error:
            raise ValueError(f"{address}: {error}") from None
        self._address = address

    def chunks(self, name: str, start: int, stop: int | None, size: int | None) -> Iterator[bytes]:
        import fsspec

        place = f"{self._address}/{name}"
        try:
            # One for each process: fsspec keeps them, and forgets them after a fork.
            system, path = fsspec.core.url_to_fs(place)
            found = system.size(path)
            if found is None:
                raise RemoteError(f"{place}: its file system does not say how large it is")
            if size is not None and int(found) != size:
                raise RemoteError(f"{place}: {found} bytes, the index says {size}; it has changed")
            stop = int(found) if stop is None else stop
            for position in range(start, stop, _CHUNK_BYTES):
                chunk = system.cat_file(
                    path, start=position, end=min(position + _CHUNK_BYTES, stop)
                )
                yield chunk
                if not chunk:
                    return
        except RemoteError:
            raise
        except FileNotFoundError:
            raise RemoteError(f"{place}: it is not there") from None
        except PermissionError as error:
            raise RemoteError(f"{place}: {error}") from None
        except Exception as error:  # each file system has its own for what a network does
            raise _PassingError(f"{type(error).__name__}: {error}") from None
