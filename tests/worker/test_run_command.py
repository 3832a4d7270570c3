"""`switchyard run` and its siblings as a person uses them: real processes, their output, what they leave behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from adapters.embedded import children
from settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60
SERVERS = {"postgres", "valkey-server"}
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")


def environment(**changes: str) -> dict[str, str]:
    """Ours without any setting, so that `run` provides them all."""
    names = {name.upper() for name in Settings.model_fields}
    return {name: value for name, value in os.environ.items() if name not in names} | changes


def switchyard(*arguments: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(CHECKOUT / "cli.py"), *arguments],
        env=environment(**changes),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=READY_SECONDS,
        check=False,
    )


async def until(condition: Callable[[], bool], *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.05)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def alive(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if is_alive(process)]


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # ended meanwhile; a zombie counts as well
        return []


class Running:
    """A `switchyard run` and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path, port: int) -> None:
        self.process = process
        self.output = output
        self.port = port
        self.family: list[psutil.Process] = []

    @property
    def text(self) -> str:
        return self.output.read_text(encoding="utf-8")

    def look(self) -> list[psutil.Process]:
        """All that it runs now, itself included; remembered, so that none is missed when it is gone."""
        own = psutil.Process(self.process.pid)
        now = [own, *own.children(recursive=True)]
        self.family += [process for process in now if process not in self.family]
        return now

    def program(self, command: str) -> psutil.Process | None:
        """The child that runs `cli.py <command>`."""
        return next((member for member in self.look() if command in command_line(member)), None)

    def server(self, name: str) -> psutil.Process | None:
        """The database server of that name that is a child of ours."""
        own = psutil.Process(self.process.pid).children()
        return next((child for child in own if is_alive(child) and child.name() == name), None)

    def get(self, path: str) -> tuple[int, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers={"Accept": "text/html"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode("utf-8")


def launch(arguments: Sequence[str], output: Path, **changes: str) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, str(CHECKOUT / "cli.py"), "run", *arguments],
            env=environment(PYTHONUNBUFFERED="1", **changes),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


@asynccontextmanager
async def running(folder: Path, output: Path) -> AsyncIterator[Running]:
    """A `switchyard run` that is ready; killed at the end, with all it started, whatever the test did."""
    port = children.free_port()
    run = Running(launch(["--data", str(folder), "--port", str(port)], output), output, port)
    try:
        await until(lambda: "Ctrl-C stops" in run.text or run.process.poll() is not None, seconds=READY_SECONDS)
        assert run.process.poll() is None, run.text
        run.look()
        yield run
    finally:
        run.process.kill()
        run.process.wait(timeout=10)
        for process in alive(run.family):
            with suppress(psutil.NoSuchProcess):  # it was about to end by itself
                process.kill()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that the tests share, so that only the first of them makes the database."""
    return tmp_path_factory.mktemp("run") / "data"


@pytest.fixture
def port_in_use() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


# -- run


async def test_the_first_start_shows_the_password_once_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "data", tmp_path / "first") as run:
        password = re.search(r"Password +(\S+)", run.text)
        assert password is not None
        assert f"http://localhost:{run.port}/graphql" in run.text
        assert str(tmp_path / "data") in run.text
        assert run.get("/readyz")[0] == 200
        status, page = run.get("/graphql")
        assert (status, "<html" in page.lower()) == (200, True)

        secrets = [password[1], *(path.read_text().strip() for path in (tmp_path / "data").glob("*/password"))]
        assert len(secrets) == 3
        for member in run.look():
            line = " ".join(command_line(member))
            assert not [secret for secret in secrets if secret in line]

        run.process.send_signal(signal.SIGINT)
        await until(lambda: run.process.poll() is not None, seconds=20)
        assert run.process.returncode == 0
        assert not alive(run.family)
        assert "ended (" not in run.text

    async with running(tmp_path / "data", tmp_path / "second") as run:
        assert "Password" not in run.text
        assert password[1] not in run.text


def is_replaced(find: Callable[[], psutil.Process | None], dead: psutil.Process) -> bool:
    return find() not in (None, dead)


async def test_what_dies_is_brought_back(folder: Path, tmp_path: Path) -> None:
    async with running(folder, tmp_path / "output") as run:
        for command in ("worker", "api", "ai-service"):
            victim = run.program(command)
            assert victim is not None
            victim.kill()
            await until(partial(is_replaced, partial(run.program, command), victim), seconds=20)

        server = run.server("postgres")
        assert server is not None
        server.kill()
        await until(partial(is_replaced, partial(run.server, "postgres"), server), seconds=20)

        def is_ready() -> bool:
            try:
                return run.get("/readyz")[0] == 200
            except OSError:
                return False

        await until(is_ready, seconds=30)
        for title in ("The worker", "The API", "The risk scanner", "PostgreSQL"):
            assert f"{title} ended (SIGKILL); starting it again in 0.5 s" in run.text
        run.process.send_signal(signal.SIGTERM)
        await until(lambda: run.process.poll() is not None, seconds=20)
        assert run.process.returncode == 0
        assert not alive(run.family)


@on_linux
async def test_a_killed_run_takes_everything_with_it(folder: Path, tmp_path: Path) -> None:
    async with running(folder, tmp_path / "output") as run:
        assert {process.name() for process in run.look()} >= SERVERS
        run.process.kill()
        await until(lambda: not alive(run.family), seconds=10)
    async with running(folder, tmp_path / "again") as run:
        assert run.get("/readyz")[0] == 200


async def test_a_second_run_on_the_same_folder_is_refused_and_hurts_nobody(folder: Path, tmp_path: Path) -> None:
    async with running(folder, tmp_path / "output") as run:
        second = await asyncio.to_thread(switchyard, "run", "--data", str(folder), "--port", str(children.free_port()))
        assert second.returncode == 2
        assert f"already runs in {folder} (process {run.process.pid})" in second.stderr
        assert run.get("/readyz")[0] == 200


async def test_a_signal_during_the_start_stops_what_was_started(tmp_path: Path) -> None:
    output = tmp_path / "output"
    process = launch(["--data", str(tmp_path / "data"), "--port", str(children.free_port())], output)
    try:
        pid_file = tmp_path / "data" / "redis" / "redis.pid"
        await until(pid_file.exists, seconds=READY_SECONDS)
        server = psutil.Process(int(pid_file.read_text()))
        process.send_signal(signal.SIGTERM)
        await until(lambda: process.poll() is not None, seconds=20)
        assert process.returncode == 0, output.read_text()
        assert not alive([server])
    finally:
        process.kill()
        process.wait(timeout=10)


def test_a_port_in_use_is_a_clear_message(tmp_path: Path, port_in_use: int) -> None:
    refused = switchyard("run", "--data", str(tmp_path / "data"), "--port", str(port_in_use))
    assert refused.returncode == 2
    assert (
        refused.stderr.strip() == f"Port {port_in_use} is in use; choose another one: make run PORT={port_in_use + 1}"
    )
    assert not list((tmp_path / "data").glob("postgres"))


def test_a_bad_setting_stops_the_start_before_anything_runs(tmp_path: Path) -> None:
    refused = switchyard("run", "--data", str(tmp_path / "data"), DATABASE_POOL_SIZE="many")
    assert refused.returncode == 2
    assert "DATABASE_POOL_SIZE" in refused.stderr
    assert not list((tmp_path / "data").glob("postgres"))


# -- doctor, migrate, schema, create-admin


def test_doctor_finds_a_machine_that_can_run_it_fine(tmp_path: Path) -> None:
    report = switchyard("doctor", DATA_DIR=str(tmp_path / "data"))
    assert report.returncode == 0, report.stdout
    for subject in ("Settings", "Python", "Data folder", "PostgreSQL", "Redis", "Storage"):
        assert re.search(rf"^ok +{subject}: ", report.stdout, re.MULTILINE), report.stdout


def test_doctor_says_what_is_wrong_without_showing_passwords(tmp_path: Path) -> None:
    nobody = children.free_port()
    report = switchyard(
        "doctor",
        DATA_DIR=str(tmp_path / "data"),
        DATABASE_URL=f"postgres://user:hunter2@127.0.0.1:{nobody}/none",
        REDIS_URL=f"redis://:hunter2@127.0.0.1:{nobody}/0",
    )
    assert report.returncode == 1
    assert re.search(r"^problem +PostgreSQL: .+\n +→ check DATABASE_URL", report.stdout, re.MULTILINE), report.stdout
    assert re.search(r"^problem +Redis: .+\n +→ check REDIS_URL", report.stdout, re.MULTILINE), report.stdout
    assert "hunter2" not in report.stdout + report.stderr


def test_doctor_names_a_bad_setting(tmp_path: Path) -> None:
    report = switchyard("doctor", DATA_DIR=str(tmp_path / "data"), LEASE_SECONDS="soon")
    assert report.returncode == 1
    assert "LEASE_SECONDS" in report.stdout


def test_migrate_without_a_database_is_a_clear_failure() -> None:
    failed = switchyard(
        "migrate",
        DATABASE_URL=f"postgres://user:hunter2@127.0.0.1:{children.free_port()}/none",
        REDIS_URL="redis://127.0.0.1",
        SECRET_KEYS="k:" + "A" * 43 + "=",
    )
    assert failed.returncode == 1
    assert "database does not answer" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert "hunter2" not in failed.stderr


def test_the_models_have_their_migrations() -> None:
    checked = switchyard("migrate", "--check")
    assert checked.returncode == 0, checked.stderr


def test_the_printed_schema_is_the_one_in_the_repository() -> None:
    checked = switchyard("schema", "--check")
    assert checked.returncode == 0, checked.stderr
    assert switchyard("schema").stdout == (CHECKOUT / "schema.graphql").read_text(encoding="utf-8")


def test_an_empty_password_is_refused() -> None:
    refused = switchyard("create-admin", "--email", "a@b.example", "--username", "a", "--password-stdin", stdin="\n")
    assert refused.returncode == 2
    assert "empty" in refused.stderr
