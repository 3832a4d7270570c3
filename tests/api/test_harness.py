"""What other tests rely on: that the harness really keeps apart, keeps in, finds out and cleans up."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sys
from pathlib import Path

import asyncpg
import pytest

from models.permissions import Role
from tests.conftest import ApiServer, WorkerFactory
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.processes import Program
from tests.harness.waiting import eventually, leftover_processes

SLEEPER = 'import signal, time; print(\'{"event": "up"}\', flush=True); time.sleep(60)'
POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); " + SLEEPER
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER


async def test_tests_cannot_leave_the_machine() -> None:
    with pytest.raises(AssertionError, match="may not connect"):
        await asyncio.open_connection("192.0.2.1", 80)
    with (
        pytest.raises(AssertionError, match="may not connect"),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.connect(("192.0.2.1", 53))


async def test_waiting_ends_with_the_last_answer() -> None:
    with pytest.raises(AssertionError, match="last answer: 0"):
        await eventually(lambda: 0, 0.05)


async def test_waiting_fails_with_the_log_when_a_program_dies(tmp_path: Path) -> None:
    program = Program(["-c", "print('the reason')"], environment={}, log=tmp_path / "log")
    with pytest.raises(AssertionError, match="the reason"):
        await program.wait_event("up", 10)


async def test_leftovers_are_found_by_environment_and_gone_after_a_kill(tmp_path: Path) -> None:
    marker = secrets.token_hex(8)
    program = Program(["-c", SLEEPER], environment={"MARKER": marker}, log=tmp_path / "log")
    await program.wait_event("up")
    assert program.pid in leftover_processes(marker)
    program.kill()
    assert await program.wait_exit() == -signal.SIGKILL
    assert leftover_processes(marker) == {}


async def test_frozen_program_stands_still_until_thawed(tmp_path: Path) -> None:
    program = Program(["-c", POLITE], environment={}, log=tmp_path / "log")
    await program.wait_event("up")
    program.freeze()
    program.terminate()
    with pytest.raises(AssertionError):
        await program.wait_exit(0.3)
    program.thaw()
    assert await program.wait_exit() == 7


async def test_program_that_ignores_the_stop_is_killed_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.harness.processes.STOP_SECONDS", 0.3)
    program = Program(["-c", STUBBORN], environment={}, log=tmp_path / "log")
    await program.wait_event("up")
    with pytest.raises(AssertionError, match="the end of"):
        await program.stop()
    assert program.exit_code == -signal.SIGKILL


async def test_worker_factory_starts_any_program(worker_factory: WorkerFactory, settings_env: dict[str, str]) -> None:
    worker = worker_factory(["-c", SLEEPER])
    await worker.wait_event("up")
    assert worker.environment["DATABASE_URL"] == settings_env["DATABASE_URL"]
    assert worker.argv[0] == sys.executable


async def test_new_users_differ_and_own_nothing(client: GraphQLClient) -> None:
    first, second = await new_user(client), await new_user(client)
    assert first.id != second.id
    assert first.role is Role.USER
    data = await client.run("{ me { id username } }", token=first.token)
    assert data["me"] == {"id": first.id, "username": first.username}


async def test_administrator_is_there_and_can_be_made(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection, api_server: ApiServer
) -> None:
    assert (admin.role, admin.email) == (Role.ADMIN, api_server.admin_email)
    made = await new_user(client, role=Role.ADMIN, db=db)
    assert made.role is Role.ADMIN


async def test_errors_of_an_answer_are_raised(client: GraphQLClient) -> None:
    with pytest.raises(GraphQLFailure) as refused:
        await client.run("{ me { id } }", token="no token")
    assert refused.value.code == "UNAUTHORIZED"
    assert refused.value.extensions["statusCode"] == 401
