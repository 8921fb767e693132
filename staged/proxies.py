"""Proxies that the environment names, and which addresses they are not for.

Libraries obey `HTTP_PROXY` and its like without a word. So whoever fails behind one is told, and
this machine's own servers are asked past it: a proxy is for the world outside.
"""

import ipaddress
import os
from typing import Final
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

_VARIABLES: Final = ("http_proxy", "https_proxy", "all_proxy")


def is_this_machine(url: str) -> bool:
    """Whether an address is one of this machine, by its own words."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None) or address
    # Servers print 0.0.0.0 when they listen everywhere, and so it is copied.
    return mapped.is_loopback or mapped.is_unspecified


def variables() -> list[str]:
    """Name the variables of the environment that set a proxy, as they are spelled there."""
    return [name for name, value in os.environ.items() if name.lower() in _VARIABLES and value]


def blamed(url: str) -> str:
    """Say by which proxy an address is asked, and how to go around it.

    Args:
        url: The address.

    Returns:
        The end of a message, or nothing where no proxy is used. A proxy's own address is not said:
        it may hold a password.
    """
    address = urlsplit(url)
    if is_this_machine(url) or proxy_bypass(address.hostname or ""):
        return ""
    obeyed = (f"{address.scheme}_proxy", "all_proxy")
    used = [name for name in variables() if name.lower() in obeyed]
    if not used:
        return ""
    return (
        f" (asked through the proxy of {' and '.join(sorted(used))}; NO_PROXY={address.hostname} "
        "goes around it)"
    )
