"""Keeps the test process on this machine. Children are the sandbox's and the settings' business."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

_connect = socket.socket.connect
_connect_ex = socket.socket.connect_ex


def stay_on_loopback() -> None:
    """From now on connecting this process to anything but loopback and unix sockets is an AssertionError."""
    socket.socket.connect = _checked_connect  # type: ignore[method-assign, assignment]
    socket.socket.connect_ex = _checked_connect_ex  # type: ignore[method-assign, assignment]


def _checked_connect(self: socket.socket, address: Any) -> None:
    _check(self, address)
    _connect(self, address)


def _checked_connect_ex(self: socket.socket, address: Any) -> int:
    _check(self, address)
    return _connect_ex(self, address)


def _check(connecting: socket.socket, address: Any) -> None:
    if connecting.family not in (socket.AF_INET, socket.AF_INET6):
        return
    host = address[0]
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    assert is_loopback, f"A test may not connect to {address}"
