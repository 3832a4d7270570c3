"""Fixtures: real servers, a database per module, our own programs as children, clients.

The session has one PostgreSQL and one Redis, given by DATABASE_URL and REDIS_URL or embedded, and one migrated template
with an administrator in it. Each module works on a clone and in a Redis namespace of its own, so modules never meet.
A module changes the settings of its programs with a constant `SETTINGS = {"NAME": "value"}`.
"""

from __future__ import annotations

import base64
import itertools
import re
import secrets
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import asyncpg
import pytest
import pytest_asyncio

from adapters import garbage
from models import database
from tests.factories import Person, sign_in
from tests.harness.client import GraphQLClient
from tests.harness.databases import name_of, new_database, postgres_server, redis_server
from tests.harness.fork_server import ForkServer
from tests.harness.loopback import stay_on_loopback
from tests.harness.processes import CLI, Api, Program, child_environment, run_cli

ADMIN_EMAIL = "admin@switchyard.internal"
ADMIN_USERNAME = "root-admin"

stay_on_loopback()


# -- servers and databases


@pytest_asyncio.fixture(scope="session")
async def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A PostgreSQL server for the session."""
    async with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest_asyncio.fixture(scope="session")
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A Redis server for the session."""
    async with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def base_settings(redis_url: str) -> dict[str, str]:
    """What all programs of the session have in common: cheap passwords, short leases, no counts of calls, no probes."""
    return {
        "REDIS_URL": redis_url,
        "SECRET_KEYS": f"test:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "HOST": "127.0.0.1",
        "PORT": "0",
        "LOG_LEVEL": "INFO",
        "LOG_FORMAT": "json",
        "ARGON2_MEMORY_KIB": "64",
        "LEASE_SECONDS": "6",
        "HEARTBEAT_SECONDS": "1.5",
        "SWEEP_SECONDS": "0.5",
        "RATE_LIMITS": "false",
        "STATUS_PROBES": "false",
    }


@dataclass(frozen=True, slots=True)
class Template:
    """The migrated database that modules clone, and the administrator in it."""

    name: str
    admin_email: str
    admin_password: str = field(repr=False)


@pytest_asyncio.fixture(scope="session")
async def template(
    postgres_url: str, base_settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Template]:
    """Migrated once; nobody is connected to it, or it could not be cloned."""
    async with new_database(postgres_url, "template") as url:
        with garbage.seldom():
            await database.migrate(url)
        password = secrets.token_urlsafe(12)
        run_cli(
            *("create-admin", "--email", ADMIN_EMAIL, "--username", ADMIN_USERNAME, "--password-stdin"),
            environment=child_environment(
                {**base_settings, "DATABASE_URL": url, "DATA_DIR": str(tmp_path_factory.mktemp("template"))}
            ),
            stdin=f"{password}\n",
        )
        yield Template(name_of(url), ADMIN_EMAIL, password)


@pytest_asyncio.fixture(scope="module")
async def database_url(postgres_url: str, template: Template, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A migrated database of this module's own, with nothing in it but the administrator."""
    kind = re.sub(r"\W", "_", request.module.__name__.rpartition(".")[2])
    async with new_database(postgres_url, kind, template=template.name) as url:
        yield url


@pytest_asyncio.fixture(scope="module")
async def db(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the module's database, for what the API does not show."""
    connection = await asyncpg.connect(database_url, timeout=10, command_timeout=10)
    yield connection
    await connection.close(timeout=5)


@pytest.fixture(scope="module")
def settings_env(
    database_url: str,
    base_settings: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
) -> dict[str, str]:
    """The environment of the module's programs; `REDIS_NAMESPACE` marks them and all they start."""
    return child_environment(
        {
            **base_settings,
            "DATABASE_URL": database_url,
            "REDIS_NAMESPACE": f"sy-{secrets.token_hex(6)}",
            "DATA_DIR": str(tmp_path_factory.mktemp("data")),
            **getattr(request.module, "SETTINGS", {}),
        }
    )


# -- our programs


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """What programs are forked from; it ends with the session."""
    server = ForkServer()
    yield server
    server.close()


AnyApi = TypeVar("AnyApi", bound=Api)


class Programs:
    """Starts programs in the module's environment and remembers them."""

    def __init__(self, environment: dict[str, str], folder: Path, server: ForkServer) -> None:
        self.environment = environment
        self.started: list[Program] = []
        self._server = server
        self._folder = folder
        self._numbers = itertools.count(1)

    async def api(self, kind: type[AnyApi], argv: Sequence[str | Path] = (CLI, "api"), **settings: str) -> AnyApi:
        """A ready API process; settings by their variable's name."""
        program = kind(argv, environment={**self.environment, **settings}, log=self._log("api"), server=self._server)
        self.started.append(program)
        await program.ready()
        return program

    def start(self, argv: Sequence[str | Path], *, kind: str, **settings: str) -> Program:
        """Any Python program of ours."""
        program = Program(argv, environment={**self.environment, **settings}, log=self._log(kind), server=self._server)
        self.started.append(program)
        return program

    async def stop(self) -> None:
        """End all that still live; those asked to end by SIGTERM must do so with code 0."""
        codes = {f"{program.argv} → {program.log}": await program.stop() for program in self.started if _lives(program)}
        assert not any(codes.values()), codes

    def _log(self, kind: str) -> Path:
        return self._folder / f"{kind}-{next(self._numbers)}.log"


def _lives(program: Program) -> bool:
    return program.exit_code is None


@pytest_asyncio.fixture(scope="module")
async def programs(
    settings_env: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
    request: pytest.FixtureRequest,
    fork_server: ForkServer,
) -> AsyncIterator[Programs]:
    """The module's programs; their logs are shown with a failing test."""
    started = Programs(settings_env, tmp_path_factory.mktemp("logs"), fork_server)
    request.node.stash[_PROGRAMS] = started
    yield started
    await started.stop()


class ApiServer(Api):
    """The module's API process, and how to have a second one beside it."""

    admin_email = ADMIN_EMAIL
    admin_password = ""
    programs: Programs

    async def second(self, **settings: str) -> Api:
        """Another API process on the same database and Redis."""
        return await self.programs.api(Api, **settings)


@pytest_asyncio.fixture(scope="module")
async def api_server(programs: Programs, template: Template) -> ApiServer:
    """The API as production starts it, on a port of its own."""
    server = await programs.api(ApiServer)
    server.programs, server.admin_password = programs, template.admin_password
    # Links to files name the address, which workers started from now on must know as well.
    programs.environment["BASE_URL"] = server.url
    return server


WorkerFactory = Callable[..., Program]


@pytest_asyncio.fixture
async def worker_factory(programs: Programs) -> AsyncIterator[WorkerFactory]:
    """`worker_factory()` starts a worker, `worker_factory(argv)` any program in its place; they end with the test."""
    mine: list[Program] = []

    def start(argv: Sequence[str | Path] = (CLI, "worker"), **settings: str) -> Program:
        program = programs.start(argv, kind="worker", **settings)
        mine.append(program)
        return program

    yield start
    for program in mine:
        await program.stop()


# -- clients


@pytest_asyncio.fixture(scope="module")
async def client(api_server: ApiServer) -> AsyncIterator[GraphQLClient]:
    """GraphQL over HTTP on the module's API."""
    async with GraphQLClient(api_server.graphql_url) as graphql:
        yield graphql


@pytest_asyncio.fixture
async def admin(client: GraphQLClient, template: Template) -> Person:
    """The administrator that every module's database has, in a session of the test's own."""
    return await sign_in(client, template.admin_email, template.admin_password)


@pytest.fixture(scope="module")
def graphql_ws_url(api_server: ApiServer) -> str:
    """For `tests.harness.client.subscribe`."""
    return api_server.ws_url


# -- order

# What takes long, longest first: begun last, such a file would keep one of two processes busy while the other has none.
# Files that are not named here are short, and new ones lose nothing by that.
LONG_FILES = (
    "worker/test_crawl_runs.py",
    "worker/test_run_command.py",
    "worker/test_crawler_child.py",
    "worker/test_readme.py",
    "worker/deployments/test_real_apps.py",
    "browser/test_graphiql.py",
    "api/test_stream_faults.py",
    "api/test_app.py",
    "worker/test_engine_recovery.py",
    "worker/deployments/test_faults.py",
    "worker/test_engine_logs.py",
    "browser/test_sites.py",
    "unit/test_storage.py",
    "worker/test_outbox.py",
    "worker/test_engine_outages.py",
    "api/test_streams.py",
    "worker/test_sandbox_breakout.py",
    "worker/test_engine_fairness.py",
    "worker/test_engine_cancel.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first; in a file, and among the others, the order stays."""
    folder = Path(__file__).parent
    places = {folder / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


# -- reports

_PROGRAMS = pytest.StashKey[Programs]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of each program's log beside a failure."""
    report = yield
    module = item.getparent(pytest.Module)
    if report.failed and module is not None and (programs := module.stash.get(_PROGRAMS, None)) is not None:
        for program in programs.started:
            report.sections.append((f"log of {program.argv[1:]} ({program.log})", program.log_tail()))
    return report
