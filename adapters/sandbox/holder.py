"""A small program that holds the standard input of a container's first process, and thereby the container's life.

Run as `python -I -S holder.py <engine> <path>`, `<engine>` being `unix:<path of the socket>` or `tcp:<host>:<port>`,
and `<path>` the request target that attaches standard input. It says `held` on standard output once the engine has
given it the stream, sends nothing, and ends when the engine does. Nothing that it is started with is secret.

Invariant: the engine sees the stream end as soon as this program is gone, whatever became of the worker. The worker
runs it as a tree of `adapters.processes.spawn`: when the worker is killed or frozen, or loses its lease, deadman ends
it, the container's first process reads end-of-file and leaves, and the kernel ends all others of the container.

It imports nothing of the project, and no HTTP library, so that it starts in about 20 ms.
"""

from __future__ import annotations

import socket
import sys

ANSWER_SECONDS = 30.0
HEAD_BYTES = 16_384
READ_BYTES = 65_536


def main(engine: str, path: str) -> int:
    """Attach, say so, and stay; 0 when the engine ended the stream, 1 when it gave none."""
    try:
        connection = connect(engine)
        head = attach(connection, path)
    except OSError as error:
        sys.stderr.write(f"the engine cannot be reached: {error}\n")
        return 1
    status = head.split(b"\r\n", 1)[0].decode("latin-1")
    # Both are an open stream; which one depends on the engine and on what stands before it.
    if status.split(" ")[1:2] not in (["101"], ["200"]):
        sys.stderr.write(f"the engine answered {status!r}\n")
        return 1
    sys.stdout.write("held\n")
    sys.stdout.flush()
    connection.settimeout(None)
    try:
        while connection.recv(READ_BYTES):
            pass
    except OSError:
        return 1
    return 0


def connect(engine: str) -> socket.socket:
    """A connection to the engine."""
    kind, _, place = engine.partition(":")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(place)
        return connection
    host, _, port = place.rpartition(":")
    connection = socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS)
    # So that a machine which vanished is noticed here, as the engine notices ours.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return connection


def attach(connection: socket.socket, path: str) -> bytes:
    """Ask for the stream; the head of the answer."""
    request = (
        f"POST {path} HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
    )
    connection.sendall(request.encode("ascii"))
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = connection.recv(READ_BYTES)
        if not chunk or len(head) > HEAD_BYTES:
            break
        head += chunk
    return head


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
