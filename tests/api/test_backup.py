"""Backup and restore of a real installation: what comes back is used through the API, what is damaged is refused."""

from __future__ import annotations

import asyncio
import io
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from botocore.session import get_session
from pydantic import SecretStr

from adapters import storage
from adapters.backup_archive import BackupDamaged
from adapters.storage import open_storage
from errors import Conflict, ValidationFailed
from models import backups, database
from settings import Settings
from tasks.backup import restoring, writing
from tests.conftest import ApiServer, Template
from tests.factories import Person, new_user, sign_in
from tests.harness.client import GraphQLClient
from tests.harness.databases import new_database
from tests.harness.executions import add_items, run_id, settings_of
from tests.harness.processes import CLI, run_cli
from tests.harness.scans import open_lab
from tests.harness.sites import SiteDesk
from tests.storage_servers import moto_server

RUN = """
query Run($id: ID!) {
  jobRun(id: $id) {
    status
    items(first: 5) { totalCount edges { node { data } } }
    logs(first: 3) { edges { node { sequence message } } }
  }
}
"""
SCAN = "query Scan($id: ID!) { scan(id: $id) { status filename risks { risk } } }"
PAGE = "<h1>served from the backup</h1>"


@dataclass(frozen=True, slots=True)
class Past:
    """An installation with something of many kinds in it, and the backup that was made of it."""

    settings: Settings
    person: Person
    run: str
    scan: str
    label: str
    path: Path
    written: writing.Written


@pytest_asyncio.fixture(scope="module")
async def past(
    client: GraphQLClient, settings_env: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Past]:
    """Filled as users and workers fill it."""
    folder = tmp_path_factory.mktemp("backup")
    person = await new_user(client)
    settings = settings_of(settings_env)
    async with open_lab(client, settings_env, folder) as lab:
        desk = lab.desk
        hand = await desk.started(person)
        await add_items(hand.id, hand.id, [{"name": f"Ünïcode\t\\N {number}"} for number in range(20)])
        await hand.write("first line", "second\tline")
        await hand.finish()
        await desk.compact(hand.id)
        sites = SiteDesk(desk.pool, folder, desk.tell)
        site = await sites.deploy(await sites.project(), {"index.html": PAGE, "app.js": "let a = 1;" * 500})
        scan_id = await lab.upload(person, b"There is no backup.", "risks.txt")
        await lab.finish(scan_id)
        await storage.current().put("stray/object", b"nobody's", content_type="text/plain")
        path = folder / "whole.tar"
        with path.open("wb") as file:
            written = await writing.write(settings, storage.current(), file)
        yield Past(settings, person, run_id(hand.id), scan_id, site.label, path, written)


@asynccontextmanager
async def empty(past: Past, postgres_url: str, template: Template, folder: Path) -> AsyncIterator[Settings]:
    """Another installation: migrated, without users, with a folder of its own."""
    async with new_database(postgres_url, "restored", template=template.name) as url:
        connection = await asyncpg.connect(url)
        await connection.execute("DELETE FROM users")
        await connection.close()
        yield past.settings.model_copy(update={"database_url": SecretStr(url), "data_dir": folder})


async def restore(settings: Settings, path: Path) -> restoring.Restored:
    async with open_storage(settings) as store:
        return await restoring.restore(settings, store, path)


async def count_users(settings: Settings) -> int:
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    try:
        return int(await connection.fetchval("SELECT count(*) FROM users"))
    finally:
        await connection.close()


async def test_everything_is_used_again_where_it_was_restored(
    past: Past, api_server: ApiServer, postgres_url: str, template: Template, tmp_path: Path
) -> None:
    assert past.written.missing == []
    assert past.written.unnamed == 1
    async with empty(past, postgres_url, template, tmp_path) as settings:
        manifest = await restoring.verify(past.path)
        assert manifest["sequences"]["items_id_seq"] == 20
        restored = await restore(settings, past.path)
        assert (restored.rows, restored.objects) == (past.written.rows, past.written.objects)
        assert (restored.lost, restored.missing_keys) == ([], [])
        again = await api_server.second(
            DATABASE_URL=settings.database_url.get_secret_value(),
            DATA_DIR=str(tmp_path),
            REDIS_NAMESPACE=f"{past.settings.redis_namespace}-restored",
        )
        async with GraphQLClient(again.graphql_url) as graphql:
            person = await sign_in(graphql, past.person.username, past.person.password)
            run = (await graphql.run(RUN, {"id": past.run}, token=person.token))["jobRun"]
            assert run["status"] == "SUCCEEDED"
            assert run["items"]["totalCount"] == 20
            assert run["items"]["edges"][0]["node"]["data"]["name"].startswith("Ünïcode\t\\N ")
            assert [edge["node"]["message"] for edge in run["logs"]["edges"]] == ["first line", "second\tline"]
            assert (await graphql.run(SCAN, {"id": past.scan}, token=person.token))["scan"]["status"] == "SUCCEEDED"
        async with httpx.AsyncClient() as visitor:
            page = await visitor.get(f"{again.url}/", headers={"Host": f"{past.label}.localhost"})
            assert (page.status_code, page.text) == (200, PAGE)
        await again.stop()
        connection = await asyncpg.connect(settings.database_url.get_secret_value())
        with pytest.raises(asyncpg.RestrictViolationError):
            await connection.execute("DELETE FROM audit_events")
        sequences = await backups.sequences(connection)
        assert {name: sequences.get(name) for name in manifest["sequences"]} == manifest["sequences"]
        await connection.close()
        with pytest.raises(Conflict, match="accounts in this installation"):
            await restore(settings, past.path)


async def test_objects_move_to_s3_and_back(past: Past, postgres_url: str, template: Template, tmp_path: Path) -> None:
    with moto_server() as endpoint:
        client = get_session().create_client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.create_bucket(Bucket="moved")
        async with empty(past, postgres_url, template, tmp_path / "one") as plain:
            s3 = plain.model_copy(
                update={
                    "storage_backend": "s3",
                    "s3_endpoint_url": endpoint,
                    "s3_bucket": "moved",
                    "s3_access_key_id": "a",
                    "s3_secret_access_key": past.settings.secret_keys,
                }
            )
            assert (await restore(s3, past.path)).objects == past.written.objects
            second = tmp_path / "second.tar"
            async with open_storage(s3) as store:
                with second.open("wb") as file:
                    written = await writing.write(s3, store, file)
            assert (written.rows, written.objects, written.unnamed) == (past.written.rows, past.written.objects, 0)
        async with empty(past, postgres_url, template, tmp_path / "two") as local:
            await restore(local, second)
            async with open_storage(past.settings) as before, open_storage(local) as after:
                kept = {info.key: info.etag async for info in before.list("")}
                kept.pop("stray/object")
                assert {info.key: info.etag async for info in after.list("")} == kept


async def test_every_table_is_in_or_declared_out(past: Past, db: asyncpg.Connection) -> None:
    manifest = await restoring.verify(past.path)
    there = {
        row["relname"]
        for row in await db.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
            " AND relpersistence = 'p'"
        )
    }
    assert {content["name"] for content in manifest["contents"]} == there - set(backups.LEFT_OUT)
    assert set(backups.LEFT_OUT) <= there


@pytest.mark.parametrize("damage", ["cut", "end cut", "bit", "last bit", "empty", "something else"])
async def test_a_damaged_file_is_refused_before_anything_is_used(
    past: Past, postgres_url: str, template: Template, tmp_path: Path, damage: str
) -> None:
    data = bytearray(past.path.read_bytes())
    match damage:
        case "cut":
            del data[len(data) // 2 :]
        case "end cut":
            del data[-2048:]
        case "bit":
            data[len(data) // 2] ^= 1
        case "last bit":
            data[-2049] ^= 1
        case "empty":
            data.clear()
        case _:
            data[:] = b"x" * 10_000
    broken = tmp_path / "broken.tar"
    broken.write_bytes(data)
    with pytest.raises(BackupDamaged):
        await restoring.verify(broken)
    with pytest.raises(BackupDamaged):
        await restore(past.settings, broken)


async def test_a_backup_of_a_newer_version_is_refused(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "known_migrations", lambda: ["0001_initial"])
    with pytest.raises(ValidationFailed, match="newer version"):
        await restore(past.settings, past.path)


async def test_what_fails_at_the_end_leaves_an_empty_installation_that_takes_it_the_next_time(
    past: Past, postgres_url: str, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any) -> None:
        raise ConnectionResetError

    async with empty(past, postgres_url, template, tmp_path) as settings:
        with monkeypatch.context() as patch:
            patch.setattr(backups, "set_sequences", fail)
            with pytest.raises(ConnectionResetError):
                await restore(settings, past.path)
        assert await count_users(settings) == 0
        await restore(settings, past.path)
        assert await count_users(settings) > 0


async def test_of_two_at_once_one_restores_and_one_is_refused(
    past: Past, postgres_url: str, template: Template, tmp_path: Path
) -> None:
    async with empty(past, postgres_url, template, tmp_path) as settings, open_storage(settings) as store:
        ended = await asyncio.gather(
            *(restoring.restore(settings, store, past.path) for _ in range(2)), return_exceptions=True
        )
        assert sorted(type(end).__name__ for end in ended) == ["Conflict", "Restored"]


async def test_other_tables_than_those_of_the_backup_are_refused(
    past: Past, postgres_url: str, template: Template, tmp_path: Path
) -> None:
    async with empty(past, postgres_url, template, tmp_path) as settings:
        connection = await asyncpg.connect(settings.database_url.get_secret_value())
        await connection.execute("ALTER TABLE jobs ADD COLUMN extra int")
        await connection.close()
        with pytest.raises(Conflict, match="not those that this version makes"):
            await restore(settings, past.path)
        assert await count_users(settings) == 0


async def test_rows_written_meanwhile_are_not_half_in_it(past: Past, db: asyncpg.Connection, tmp_path: Path) -> None:
    path = tmp_path / "busy.tar"
    before = backups.copy_out
    wrote = False

    async def copy_out(connection: asyncpg.Connection, table: backups.Table, output: Any) -> int:
        nonlocal wrote
        count = await before(connection, table, output)
        if not wrote:
            wrote = True
            await db.execute(
                """INSERT INTO users (id, email, email_key, username, username_key, name, role, is_active, created_at)
                   VALUES (gen_random_uuid(), 'l@x', 'l@x', 'late', 'late', 'L', 'USER', true, now())"""
            )
        return count

    with pytest.MonkeyPatch.context() as patch, path.open("wb") as file:
        patch.setattr(backups, "copy_out", copy_out)
        async with open_storage(past.settings) as store:
            written = await writing.write(past.settings, store, file)
    assert wrote
    assert written.rows == past.written.rows
    assert await db.fetchval("DELETE FROM users WHERE username = 'late' RETURNING true")


async def test_a_lost_object_is_told_and_a_removed_one_is_not(past: Past, db: asyncpg.Connection) -> None:
    async with open_storage(past.settings) as store:
        key = await db.fetchval("SELECT file_key FROM scans WHERE file_key IS NOT NULL")
        content = b"".join([chunk async for chunk in store.get(key)])
        await store.delete([key])
        lost = await writing.write(past.settings, store, io.BytesIO())
        assert lost.missing == [key]

        head = store.head

        async def removing(asked: str) -> Any:
            if asked == key:
                await db.execute("UPDATE scans SET file_key = NULL WHERE file_key = $1", key)
            return await head(asked)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "head", removing)
            removed = await writing.write(past.settings, store, io.BytesIO())
        assert removed.missing == []
        await store.put(key, content, content_type="text/plain")


def test_the_commands(past: Past, settings_env: Mapping[str, str], tmp_path: Path) -> None:
    target = tmp_path / "cli.tar"
    run_cli("backup", str(target), environment=settings_env)
    assert [path.name for path in tmp_path.iterdir()] == ["cli.tar"]
    assert target.stat().st_mode & 0o777 == 0o600
    run_cli("backup", "--verify", str(target), environment=settings_env)
    with pytest.raises(AssertionError, match="accounts in this installation"):
        run_cli("restore", str(target), environment=settings_env)


def test_a_killed_backup_leaves_no_file_of_that_name(
    past: Past, settings_env: Mapping[str, str], tmp_path: Path
) -> None:
    target = tmp_path / "killed.tar"
    target.write_bytes(b"the one before")
    code = (
        "import os, signal, sys; sys.argv = ['cli.py', 'backup', sys.argv[1]]; import cli; from adapters import"
        " backup_archive as a; a.ArchiveWriter.end = lambda *_: os.kill(os.getpid(), signal.SIGKILL); cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], env=dict(settings_env), cwd=CLI.parent, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"the one before"
    with pytest.raises(AssertionError, match="no whole backup"):
        run_cli("backup", "--verify", f"{target}.part", environment=settings_env)
