"""The egress proxy as a server of its own, for builds in containers: it listens, and stops when told to.

Invariant: it needs no database and no secret of ours, so it may run where builds can reach it. All builds share it:
what one of them sends is not told from another's, and so not limited.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from typing import Final

import structlog

from adapters.addresses import AddressGuard
from adapters.sandbox.egress import EgressProxy
from settings import Settings, SettingsError

MAX_CONNECTIONS: Final = 400  # each takes two descriptors, and 1,024 are usual
BACKLOG: Final = 512

_log = structlog.get_logger(__name__)


def prepare(settings: Settings, host: str, port: int) -> tuple[AddressGuard, socket.socket]:
    """The guard and the listening socket; raises SettingsError when either cannot be had."""
    try:
        guard = AddressGuard.from_settings(settings.build_allowed_hosts)
    except ValueError as error:
        raise SettingsError(f"BUILD_ALLOWED_HOSTS: {error}") from None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return guard, socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(f"cannot listen on {host} port {port}: {error.strerror}") from None


async def serve(guard: AddressGuard, listening: socket.socket, *, stop_signals: tuple[signal.Signals, ...]) -> None:
    """Serve until one of the signals; every connection ends with it."""

    async def refused(target: str, reason: str) -> None:
        _log.info("egress_refused", target=target, reason=reason)

    stopped = asyncio.Event()
    for number in stop_signals:
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    proxy = EgressProxy(guard, limit_bytes=None, refused=refused, max_connections=MAX_CONNECTIONS)
    async with proxy.serving(listening):
        _log.info("egress_proxy_serves", address="{}:{}".format(*listening.getsockname()[:2]))
        await stopped.wait()
