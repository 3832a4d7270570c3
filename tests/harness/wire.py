"""The wire between a program and PostgreSQL: counts what is asked, and can be cut."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from urllib.parse import urlsplit

_SSL_REQUEST = struct.pack("!II", 8, 80_877_103)  # PostgreSQL, "Message Formats"


class Wire:
    """A proxy before PostgreSQL; `count` is the number of statements with parameters that passed so far."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self.count = 0

    def cut(self) -> None:
        """End all connections and refuse new ones, until `mend`."""
        self._is_cut = True
        for relay in self._relays:
            relay.cancel()

    def mend(self) -> None:
        """Let connections through again."""
        self._is_cut = False

    @property
    def url(self) -> str:
        """The address for programs."""
        assert self._server is not None
        user = self._target.netloc.rpartition("@")[0]
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()

    async def __aenter__(self) -> Wire:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port or 5432)
        relays = {
            asyncio.create_task(self._requests(reader, server_writer, writer)),
            asyncio.create_task(_answers(server_reader, writer)),
        }
        self._relays |= relays
        try:
            await asyncio.wait(relays, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for relay in relays:
                relay.cancel()
            server_writer.transport.abort()
            writer.transport.abort()
            self._relays -= relays

    async def _requests(
        self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, client: asyncio.StreamWriter
    ) -> None:
        """Pass on what the program says, message by message; encryption is declined, as it could not be read."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readexactly(8)
            if head == _SSL_REQUEST:
                client.write(b"N")
                head = await reader.readexactly(8)
            server.write(head + await reader.readexactly(int.from_bytes(head[:4]) - 8))
            while True:
                kind = await reader.readexactly(1)
                size = await reader.readexactly(4)
                server.write(kind + size + await reader.readexactly(int.from_bytes(size) - 4))
                # Execute; what the pool and transactions say for themselves goes by Query.
                self.count += kind == b"E"
                await server.drain()


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
