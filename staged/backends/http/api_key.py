"""The key of an endpoint: read from the environment, and kept out of whatever is written down."""

from __future__ import annotations

import os
from urllib.parse import urlsplit


def read_api_key(base_url: str, api_key_env: str | None) -> str:
    """Return the key for an endpoint; empty where it has none.

    Args:
        base_url: Of the endpoint; it stands in logs and results, so it must hold no secret.
        api_key_env: Environment variable that holds the key; None for none.

    Raises:
        ValueError: the variable is not set or holds no key, or the address is none or has a user
            or password in it.
    """
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        shown = "no address" if "@" in base_url else repr(base_url)  # the rest may be a password
        raise ValueError(f"base_url is {shown}; expected one such as http://127.0.0.1:8000/v1")
    if address.username or address.password:
        raise ValueError(
            f"base_url of {address.hostname} has a user or password in it, which results would "
            "keep; put the key into an environment variable and name that as api_key_env"
        )
    if api_key_env is None:
        return ""
    key = os.environ.get(api_key_env, "").strip()
    if not key:
        raise ValueError(
            f"the key for {base_url} is read from the environment variable {api_key_env}, which is "
            "not set; export it, name another one as api_key_env, or set api_key_env to null for "
            "an endpoint without a key"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        # It would stand in the error of the library that refuses to send it.
        raise ValueError(
            f"the environment variable {api_key_env} holds no key: there are characters in it that "
            "no header can carry"
        )
    return key


def without_key(text: str, key: str) -> str:
    """Take a key out of a message: some servers repeat the one that they refuse."""
    return text.replace(key, "[key]") if key else text
