"""A relay before a server that can fall silent: connections open and what is said arrives, but nothing comes back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit


class Relay:
    """A proxy before the server of a URL; `requests` counts the pieces of text that clients sent."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._relays: set[asyncio.Task[None]] = set()
        self._is_silent = False
        self.requests = 0

    def silence(self) -> None:
        """Swallow what clients say from now on, and answer nothing, as behind a firewall that drops packets."""
        self._is_silent = True

    def speak(self) -> None:
        """Relay again. What was swallowed is lost, so connections that waited for it are ended."""
        self._is_silent = False
        for relay in self._relays:
            relay.cancel()

    @property
    def url(self) -> str:
        """The address for clients."""
        assert self._server is not None
        credentials, separator, _ = self._target.netloc.rpartition("@")
        port = self._server.sockets[0].getsockname()[1]
        return self._target._replace(netloc=f"{credentials}{separator}127.0.0.1:{port}").geturl()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.speak()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        relays = {
            asyncio.create_task(self._requests(reader, server_writer)),
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

    async def _requests(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.requests += 1
                if not self._is_silent:
                    server.write(data)
                    await server.drain()


async def _answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
