"""The embedded servers: they keep data, let in nobody else, and leave nothing behind however their owner ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from adapters import embedded
from adapters.embedded import EmbeddedError, FolderBusy, PostgresServer, RedisServer, children, redis_server, supervisor
from adapters.embedded.server import Installation

SYSTEM_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
CHECKOUT = Path(__file__).resolve().parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root takes another identity")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")

OWNER = """
import asyncio, sys
from pathlib import Path
from adapters import embedded

async def main():
    async with (
        embedded.postgres(Path(sys.argv[1]), durable=False) as postgres,
        embedded.redis(Path(sys.argv[1])) as redis,
    ):
        print(postgres.pid, redis.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def until(condition: Callable[[], bool], *, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while True:
            if condition():
                return
            await asyncio.sleep(0.02)


def start(*argv: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=environment)


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def query(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def redis_command(url: str, *command: str) -> object:
    async with Redis.from_url(url, socket_timeout=10, decode_responses=True) as client:
        return await client.execute_command(*command)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose PostgreSQL cluster is made once; no server runs between tests."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
async def postgres(cluster: Path) -> AsyncIterator[PostgresServer]:
    async with embedded.postgres(cluster, durable=False) as server:
        yield server


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with embedded.redis(tmp_path) as server:
        yield server


# -- who gets in


async def test_postgres_refuses_a_wrong_password(postgres: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await query(f"postgres://switchyard:guess@127.0.0.1:{postgres.port}/switchyard", "SELECT 1")
    assert await query(postgres.url, "SELECT 1") == 1


async def test_redis_refuses_a_wrong_password_and_none_at_all(redis: RedisServer) -> None:
    for credentials in (":guess@", ""):
        with pytest.raises(AuthenticationError):
            await redis_command(f"redis://{credentials}127.0.0.1:{redis.port}/0", "GET", "key")
    assert await redis_command(redis.url, "ECHO", "hello") == "hello"


async def test_others_find_the_redis_that_runs_in_a_folder(redis: RedisServer, tmp_path: Path) -> None:
    assert redis_server.running_url(tmp_path) == redis.url
    await redis.stop()
    with pytest.raises(EmbeddedError):
        redis_server.running_url(tmp_path)


async def test_no_password_is_an_argument_and_files_are_private(postgres: PostgresServer, redis: RedisServer) -> None:
    for server in (postgres, redis):
        password = server.url.split("@")[0].rsplit(":", 1)[1]
        process = psutil.Process(server.pid)
        for member in (process, *process.children(recursive=True)):
            assert password not in " ".join(member.cmdline())
        assert (server.folder / "password").stat().st_mode & 0o077 == 0
        assert server.folder.stat().st_mode & 0o077 == 0


async def test_the_servers_listen_on_loopback_only_and_run_as_nobody_important(
    postgres: PostgresServer, redis: RedisServer
) -> None:
    for server in (postgres, redis):
        process = psutil.Process(server.pid)
        listening = {conn.laddr.ip for conn in process.net_connections("inet") if conn.status == psutil.CONN_LISTEN}
        assert listening == {"127.0.0.1"}
        assert not process.net_connections("unix")


async def test_what_the_caller_has_in_its_environment_does_not_reach_the_server(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=64kB")
    monkeypatch.setenv("SECRET_KEYS", "k:secret")
    async with embedded.postgres(cluster, durable=False) as server:
        assert psutil.Process(server.pid).environ().keys().isdisjoint({"PGOPTIONS", "SECRET_KEYS"})
        assert await query(server.url, "SHOW timezone") == "UTC"
        assert await query(server.url, "SHOW max_connections") == "200"


# -- what is kept


async def test_rows_survive_a_crash_on_the_same_port_and_a_clean_restart(cluster: Path) -> None:
    server = PostgresServer(cluster, durable=False)
    await server.start()
    try:
        port, pid = server.port, server.pid
        await query(server.url, "CREATE TABLE kept AS SELECT 7 AS number")
        await server.restart_immediate()
        assert (server.port, server.pid != pid) == (port, True)
        assert await query(server.url, "SELECT number FROM kept") == 7
        await server.kill()
        await server.restart_immediate()
        assert server.port == port
        assert await query(server.url, "SELECT number FROM kept") == 7
    finally:
        await server.stop()
    await server.start()
    try:
        assert await query(server.url, "SELECT number FROM kept") == 7
        await query(server.url, "DROP TABLE kept")
    finally:
        await server.stop()


async def test_keys_survive_a_killed_redis_on_the_same_port(redis: RedisServer) -> None:
    port = redis.port
    await redis_command(redis.url, "SET", "kept", "7")
    await redis.kill()
    assert not lives_on(port)
    await redis.restart_immediate()
    assert redis.port == port
    assert await redis_command(redis.url, "GET", "kept") == "7"
    assert await redis_command(redis.url, "CONFIG", "GET", "maxmemory-policy") == ["maxmemory-policy", "noeviction"]


def lives_on(port: int) -> bool:
    return not children.port_is_free("127.0.0.1", port)


async def test_the_wheel_brings_the_extensions_that_search_needs(postgres: PostgresServer) -> None:
    installed = await query(
        postgres.url, "SELECT count(*) FROM pg_available_extensions WHERE name IN ('pg_trgm', 'unaccent', 'citext')"
    )
    assert installed == 3
    assert await query(postgres.url, "SELECT lower('ÁRBOL')") == "árbol"


async def test_a_cluster_left_half_made_is_made_anew(tmp_path: Path) -> None:
    draft = tmp_path / "postgres" / "data.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("18\n")
    async with embedded.postgres(tmp_path, durable=False) as server:
        assert await query(server.url, "SELECT 1") == 1


# -- what is refused


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer])
async def test_a_second_start_on_the_same_folder_names_the_holder_and_hurts_nobody(
    kind: type[PostgresServer | RedisServer], cluster: Path
) -> None:
    first = kind(cluster, durable=False)
    await first.start()
    try:
        with pytest.raises(FolderBusy, match=rf"already runs in {cluster}.*process {os.getpid()}\)"):
            await kind(cluster).start()
        with pytest.raises(EmbeddedError, match="already started"):
            await first.start()
        assert lives(first.pid)
    finally:
        await first.stop()


async def test_a_folder_of_another_major_version_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("12\n")
    with pytest.raises(EmbeddedError, match="made by PostgreSQL 12 and this is"):
        await PostgresServer(tmp_path).start()


async def test_a_server_that_cannot_start_says_why_and_gives_the_folder_back(cluster: Path) -> None:
    async with embedded.postgres(cluster, durable=False):
        pass
    broken = cluster / "postgres" / "data" / "postgresql.auto.conf"
    kept = broken.read_text()
    try:
        broken.write_text("no_such_setting = 1\n")
        with pytest.raises(EmbeddedError, match="no_such_setting"):
            await PostgresServer(cluster).start()
    finally:
        broken.write_text(kept)
    async with embedded.postgres(cluster, durable=False) as server:
        assert await query(server.url, "SELECT 1") == 1


async def test_a_program_that_cannot_run_is_a_clear_error(tmp_path: Path) -> None:
    nothing = Installation(tmp_path, tmp_path / "missing")
    with pytest.raises(EmbeddedError, match="cannot run in"):
        await PostgresServer(tmp_path, installation=nothing).start()


async def test_a_port_taken_meanwhile_stops_a_restart_and_a_stranger_is_not_taken_for_ours(redis: RedisServer) -> None:
    assert not await redis.answers(redis.pid + 1, redis.port)
    await redis.kill()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", redis.port))
        stranger.listen()
        with pytest.raises(EmbeddedError, match="does not start"):
            await redis.restart_immediate()
    await redis.restart_immediate()
    assert await redis_command(redis.url, "ECHO", "hello") == "hello"


# -- what a crash leaves behind


@on_linux
async def test_a_killed_owner_leaves_no_orphan_and_the_next_start_works(cluster: Path) -> None:
    owner = start(sys.executable, "-c", OWNER, str(cluster))
    try:
        assert owner.stdout is not None
        pids = [int(word) for word in (await asyncio.to_thread(owner.stdout.readline)).split()]
        assert len(pids) == 2
        assert all(lives(pid) for pid in pids)
    finally:
        owner.kill()
        owner.communicate(timeout=10)
    try:
        await until(lambda: not any(lives(pid) for pid in pids), seconds=10)
    finally:
        for orphan in filter(lives, pids):
            os.kill(orphan, signal.SIGKILL)
    async with embedded.postgres(cluster, durable=False) as postgres, embedded.redis(cluster) as redis:
        assert await query(postgres.url, "SELECT 1") == 1
        assert await redis_command(redis.url, "ECHO", "hello") == "hello"


@pytest.mark.parametrize("kind", [PostgresServer, RedisServer])
async def test_a_server_that_outlived_its_owner_is_stopped_by_the_next_start(
    kind: type[PostgresServer | RedisServer], cluster: Path
) -> None:
    server = kind(cluster, durable=False)
    await server.start()
    await server.stop()
    orphan = children.spawn(
        server.command(server.find_installation().program, children.free_port()),
        folder=server.work_folder,
        environment={},
        death_signal=signal.SIGKILL,
        identity=children.identities(server.folder)[0],
        output=subprocess.DEVNULL,
    )
    try:
        await until(lambda: bool(children.leftovers(server.work_folder, server.process_names, None)))
        await server.start()
        assert orphan.wait(timeout=10) == 0, "it was asked to stop, not killed"
        assert server.pid != orphan.pid
    finally:
        await server.stop()
        children.kill_group(orphan)
        orphan.wait(timeout=10)


async def start_with_stale_pid(cluster: Path, pid: int) -> None:
    async with embedded.postgres(cluster, durable=False) as server:
        record = server.pid_file.read_text().splitlines()
    server.pid_file.write_text("\n".join([str(pid), *record[1:]]) + "\n")
    async with embedded.postgres(cluster, durable=False) as server:
        assert await query(server.url, "SELECT 1") == 1


async def test_a_stale_pid_file_that_names_a_stranger_is_removed_and_the_stranger_left_alone(cluster: Path) -> None:
    stranger = start("sleep", "60")
    try:
        await start_with_stale_pid(cluster, stranger.pid)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate(timeout=10)


@on_linux
async def test_a_stale_pid_file_that_names_a_zombie_is_removed(cluster: Path) -> None:
    zombie = start("true")  # nobody waits for it, as in a container whose first process does not reap
    try:
        await until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
        await start_with_stale_pid(cluster, zombie.pid)
    finally:
        zombie.communicate(timeout=10)


@as_root
async def test_root_is_replaced_by_the_owner_of_the_folder_with_a_copy_of_programs_it_cannot_read(
    tmp_path: Path,
) -> None:
    bundled = redis_server.find_installation()
    shutil.copytree(bundled.root, tmp_path / "private")  # under a folder of root alone
    hidden = Installation(
        tmp_path / "private", tmp_path / "private" / bundled.program.relative_to(bundled.root), bundled.parts
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data" / "redis"
        folder.mkdir(parents=True)
        os.chmod(name, 0o755)
        os.chown(folder, children.NOBODY, children.NOBODY)
        server = RedisServer(folder.parent, installation=hidden)
        before = os.umask(0o077)  # a careful root, whose new files nobody else can read
        try:
            await server.start()
        finally:
            os.umask(before)
        try:
            assert psutil.Process(server.pid).uids().real == children.NOBODY
            assert await redis_command(server.url, "ECHO", "hello") == "hello"
        finally:
            await server.stop()


@as_root
async def test_a_folder_that_its_owner_cannot_reach_is_a_clear_error_and_stays_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "redis"  # below a folder that only root may enter
    folder.mkdir()
    os.chown(folder, children.NOBODY, children.NOBODY)
    with pytest.raises(EmbeddedError, match="choose a data folder that other users can enter"):
        await RedisServer(tmp_path).start()
    assert folder.stat().st_uid == children.NOBODY


def effective_capabilities(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().split("CapEff:")[1].split()[0], 16)


@as_root
async def test_root_itself_runs_no_server(postgres: PostgresServer, redis: RedisServer) -> None:
    for server in (postgres, redis):
        assert effective_capabilities(server.pid) == 0


# -- our own programs


def program(tmp_path: Path, source: str, said: list[str], *, drain_seconds: float = 5) -> supervisor.Child:
    return supervisor.Child(
        "The program",
        [sys.executable, "-c", source, str(tmp_path)],
        folder=tmp_path,
        announce=said.append,
        drain_seconds=drain_seconds,
    )


async def test_a_program_that_dies_is_started_again_and_ends_with_sigterm(tmp_path: Path) -> None:
    said: list[str] = []
    child = program(
        tmp_path,
        "import os, signal, sys, pathlib\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "if not (folder / 'first').exists(): (folder / 'first').touch(); sys.exit(3)\n"
        "signal.signal(signal.SIGTERM, lambda *_: ((folder / 'drained').touch(), sys.exit(0)))\n"
        "(folder / 'steady').touch()\n"
        "signal.pause()\n",
        said,
    )
    life = asyncio.create_task(child.keep_running())
    await until((tmp_path / "steady").exists)
    life.cancel()
    await asyncio.wait([life], timeout=10)
    assert life.cancelled()
    assert (tmp_path / "drained").exists()
    assert said == ["The program ended (exit code 3); starting it again in 0.5 s"]


async def test_a_program_that_ignores_sigterm_is_killed_after_its_drain(tmp_path: Path) -> None:
    child = program(
        tmp_path,
        "import os, signal, sys, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "(pathlib.Path(sys.argv[1]) / 'draft').write_text(str(os.getpid()))\n"
        "(pathlib.Path(sys.argv[1]) / 'draft').rename(pathlib.Path(sys.argv[1]) / 'pid')\n"
        "while True: signal.pause()\n",
        [],
        drain_seconds=0.2,
    )
    life = asyncio.create_task(child.keep_running())
    await until((tmp_path / "pid").exists)
    began = time.monotonic()
    life.cancel()
    await asyncio.wait([life], timeout=10)
    assert life.cancelled()
    assert 0.2 <= time.monotonic() - began < 5
    assert not lives(int((tmp_path / "pid").read_text()))


async def test_a_server_that_dies_is_brought_back_on_its_port(redis: RedisServer) -> None:
    said: list[str] = []
    keeper = asyncio.create_task(supervisor.keep_alive(redis, announce=said.append))
    port, pid = redis.port, redis.pid
    os.kill(pid, signal.SIGKILL)
    await until(lambda: bool(said) and redis.pid != pid)
    await until(lambda: lives_on(port))
    assert said == ["Redis ended (SIGKILL); starting it again in 0.5 s"]
    keeper.cancel()
    await asyncio.wait([keeper], timeout=10)


async def test_an_api_that_dies_before_it_is_ready_is_not_waited_for(tmp_path: Path) -> None:
    child = program(tmp_path, "raise SystemExit(2)", [])
    life = asyncio.create_task(child.keep_running())

    async def never() -> bool:
        return False

    with pytest.raises(EmbeddedError, match="ended before it was ready"):
        await supervisor.wait_until_ready(never, child, seconds=10)
    life.cancel()
    await asyncio.wait([life], timeout=10)


async def test_nobody_at_a_port_is_no_status() -> None:
    assert await supervisor.http_status("127.0.0.1", children.free_port(), "/readyz") is None


# -- programs of the system instead of the wheel's


async def test_a_system_postgresql_of_an_older_version_serves_as_well(tmp_path: Path) -> None:
    if not SYSTEM_POSTGRES:
        pytest.skip("no PostgreSQL of the system here")
    program = SYSTEM_POSTGRES[0]
    server = PostgresServer(tmp_path, durable=False, installation=Installation(program.parent.parent, program))
    await server.start()
    try:
        assert await query(server.url, "SELECT lower('ÁRBOL')") == "árbol"
    finally:
        await server.stop()
