"""Who may ask: keys from the environment, and whose request one is."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from staged.server.errors import ApiError

KEYS_ENV: Final = "STAGED_API_KEYS"
ANYONE: Final = "anyone"
"""The client of every request to a server without keys."""
LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_MIN_KEY_CHARS: Final = 16

_bearer = HTTPBearer(auto_error=False, description=f"A key of the server's {KEYS_ENV}.")


class ApiKeys:
    """The keys that a server knows, by the SHA-256 of each; the keys themselves are forgotten."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """Take keys: name of the client to its key."""
        self._names = {_digest(key): name for name, key in keys.items()}

    @classmethod
    def from_environment(cls) -> ApiKeys:
        """Read `name:key` or `key`, separated by commas.

        Raises:
            ValueError: One is too short, or stands there twice; the message holds no key.
        """
        keys: dict[str, str] = {}
        listed = os.environ.get(KEYS_ENV, "")
        for number, entry in enumerate(filter(None, map(str.strip, listed.split(","))), 1):
            name, colon, key = entry.partition(":")
            name, key = (name.strip(), key.strip()) if colon else (f"key{number}", entry)
            if len(key) < _MIN_KEY_CHARS or not (key.isascii() and key.isprintable()):
                raise ValueError(
                    f"{KEYS_ENV}: key {number} has fewer than {_MIN_KEY_CHARS} characters, or some "
                    "that no header can carry; make one with `openssl rand -hex 24`"
                )
            if name in keys or key in keys.values() or name == ANYONE:
                raise ValueError(f"{KEYS_ENV}: name or key {number} stands there twice")
            keys[name] = key
        return cls(keys)

    def __len__(self) -> int:
        """How many there are; without any, everybody may ask."""
        return len(self._names)

    def client(self, key: str | None) -> str | None:
        """Name the client whose key this is; None where it is nobody's."""
        if not self._names:
            return ANYONE
        if key is None:
            return None
        given = _digest(key)
        # All are compared, so that the time it takes says nothing.
        found = [name for digest, name in self._names.items() if hmac.compare_digest(digest, given)]
        return found[0] if found else None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode(errors="replace")).hexdigest()


async def asking_client(
    request: Request,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)] = None,
) -> str:
    """Name whose request this is.

    Raises:
        ApiError: The server has keys, and none of them came with it (401).
    """
    keys: ApiKeys = request.app.state.keys
    client = keys.client(None if given is None else given.credentials)
    if client is None:
        said = "no API key came with the request" if given is None else "the API key is unknown"
        raise ApiError(
            401,
            f"{said}; send `Authorization: Bearer KEY`",
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )
    request.state.client = client
    return client


Client = Annotated[str, Depends(asking_client)]
