"""Who may read `/metrics`: whoever shows METRICS_TOKEN, or where there is none, a neighbour on this machine.

A neighbour connects from loopback, names loopback as the host and was not forwarded. The address of the peer alone
would let in the whole world behind a proxy on this machine, and a page of another site whose name leads to loopback.
Numbers tell of load and of users, so a refusal without a token looks like a page that is not there.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from pydantic import SecretStr

_FORWARDING: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def refusal(
    token: SecretStr | None, *, peer: str | None, headers: Mapping[str, str], neighbours: bool = True
) -> int | None:
    """The status to refuse a request with, or None; `headers` finds names in any case."""
    if token is not None:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        expected = token.get_secret_value().encode()
        is_right = hmac.compare_digest(shown.strip().encode(), expected) and scheme.lower() == "bearer"
        return None if is_right else 401
    is_neighbour = (
        is_loopback(peer or "")
        and is_loopback(_host_name(headers.get("host", "")))
        and not any(name in headers for name in _FORWARDING)
    )
    return None if neighbours and is_neighbour else 404


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine and nothing else."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
