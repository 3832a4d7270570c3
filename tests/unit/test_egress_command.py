"""`switchyard egress-proxy`: what builds in containers reach through it, and that it needs nothing else of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cli import main
from tests.harness.processes import CLI, Program, child_environment


@pytest.fixture
async def site() -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, target: str) -> bytes:
    """The answer to a request for this `host:port`, through a tunnel if there is one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n")[0]:
            return head
        writer.write(b"GET / HTTP/1.1\r\nHost: site\r\n\r\n")
        return await reader.read()
    finally:
        writer.close()


async def test_it_serves_without_databases_refuses_what_is_private_and_stops(tmp_path: Path, site: int) -> None:
    environment = child_environment({"BUILD_ALLOWED_HOSTS": f"127.0.0.1:{site}", "LOG_FORMAT": "json"})
    for name in ("DATABASE_URL", "REDIS_URL", "SECRET_KEYS"):
        environment.pop(name, None)
    program = Program(
        [CLI, "egress-proxy", "--listen", "127.0.0.1:0"], environment=environment, log=tmp_path / "proxy.log"
    )
    try:
        address = (await program.wait_event("egress_proxy_serves"))["address"]
        port = int(address.rpartition(":")[2])

        assert (await ask(port, f"127.0.0.1:{site}")).endswith(b"hello")
        assert b" 403 " in await ask(port, "169.254.169.254:80")
        await program.wait_event("egress_refused", target="169.254.169.254:80")
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            program.terminate()
            assert await program.wait_exit() == 0
            assert await reader.read() == b""
            writer.close()
    finally:
        program.kill()


@pytest.mark.parametrize("address", ["3128", "host:", ":3128", "host:70000", "host:port"])
def test_an_address_that_is_none_is_wrong_usage(address: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["egress-proxy", "--listen", address])

    assert ended.value.code == 2


def test_a_bad_exception_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BUILD_ALLOWED_HOSTS", "nonsense")

    assert main(["egress-proxy", "--listen", "127.0.0.1:0"]) == 2
    assert "BUILD_ALLOWED_HOSTS: 'nonsense'" in capsys.readouterr().err
