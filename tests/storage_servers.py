"""Servers that storage tests talk to: moto, a faulty S3, and the API's file route, each on a free loopback port."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import HTTPConnection

from adapters.storage import Storage
from schema.files import routes
from schema.middleware import FAULT_HANDLERS, REFUSAL_HANDLERS, RequestIdentity, SecurityHeaders
from settings import Settings

PAGE_KEYS = 40
"""Length of a page of moto's listings, so that a hundred objects take three."""

KEYS = {"new": b"n" * 32, "old": b"o" * 32}


def make_settings(folder: Path, **values: Any) -> Settings:
    keys = ",".join(f"{kid}:{base64.b64encode(key).decode()}" for kid, key in KEYS.items())
    required = {"database_url": "postgres://none", "redis_url": "redis://none", "secret_keys": keys, "data_dir": folder}
    return Settings(**{**required, **values})


def s3_settings(folder: Path, *, endpoint_url: str, bucket: str, **values: Any) -> Settings:
    return make_settings(
        folder,
        storage_backend="s3",
        s3_endpoint_url=endpoint_url,
        s3_bucket=bucket,
        s3_access_key_id="AKIDTEST",
        s3_secret_access_key="very-secret-value",
        **values,
    )


@contextmanager
def moto_server() -> Iterator[str]:
    """A process of its own, so that what it holds in memory is not taken for ours."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE_KEYS)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            # The pytest timeout is the deadline; the process ending closes the pipe.
            found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)
            url = next(match[0] for match in found if match)
            # It logs every request, and would stop when the pipe is full.
            threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
            yield url
        finally:
            process.kill()


class FileServer:
    """The file route under a real uvicorn, for whichever storage a test puts behind it."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.storage: Storage | None = None

    def storage_of(self, _: HTTPConnection) -> Storage:
        assert self.storage is not None
        return self.storage


@asynccontextmanager
async def file_server() -> AsyncIterator[FileServer]:
    # It listens already: connections wait in the backlog until uvicorn accepts them.
    listener = socket.create_server(("127.0.0.1", 0))
    files = FileServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    app = Starlette(
        routes=routes(files.storage_of, stalled_seconds=2),
        middleware=[
            Middleware(RequestIdentity, trusted_proxies=()),
            Middleware(SecurityHeaders, strict_transport=False),
            Middleware(ExceptionMiddleware, handlers=FAULT_HANDLERS),
        ],
        exception_handlers=REFUSAL_HANDLERS,
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=2))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.serve(sockets=[listener]))
        try:
            yield files
        finally:
            server.should_exit = True


class FaultyS3:
    """Stands before S3: refuses the first `failures` connections, then passes on; or never answers."""

    def __init__(
        self, upstream: str, *, failures: int = 0, status: int = 503, code: str = "SlowDown", hangs: bool = False
    ) -> None:
        body = f"<Error><Code>{code}</Code></Error>"
        self._refusal = f"HTTP/1.1 {status} No\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        self._upstream = urlsplit(upstream)
        self._failures = failures
        self._hangs = hangs
        self.connections = 0
        self.url = ""

    async def __aenter__(self) -> FaultyS3:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self._hangs:
                await reader.read(-1)  # until the client gives up
            elif self.connections <= self._failures:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self._refusal.encode())
                await writer.drain()
            else:
                await self._pass_on(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)

        async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()
            target.close()

        try:
            await asyncio.gather(pump(reader, upstream_writer), pump(upstream_reader, writer))
        finally:
            upstream_writer.close()
