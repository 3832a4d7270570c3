"""The baseline is what the migrations make, to the last index; whoever else migrates at the same time waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from adapters import embedded, garbage
from models import baseline, database
from tests.harness.databases import name_of, new_database
from tests.harness.schema_dump import as_baseline, canonical, dump, migrated_dump

pytestmark = pytest.mark.timeout(180)


@pytest_asyncio.fixture(scope="module")
async def server_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server of the version that the file was generated with."""
    async with embedded.postgres(tmp_path_factory.mktemp("baseline"), durable=False) as server:
        yield server.url


async def test_it_is_what_the_migrations_make(server_url: str) -> None:
    with garbage.seldom():
        migrated = await migrated_dump(server_url)
    kept = baseline.PATH.read_text(encoding="utf-8")
    assert canonical(kept) == canonical(as_baseline(migrated)), "run `make baseline`"
    async with new_database(server_url, "baseline") as url:
        assert await database.migrate(url) == database.known_migrations()
        assert canonical(await asyncio.to_thread(dump, url)) == canonical(migrated)


async def test_of_those_who_start_together_one_makes_it(server_url: str) -> None:
    async with new_database(server_url, "raced") as url:
        done = await asyncio.gather(*(database.migrate(url) for _ in range(3)))
        assert sorted(map(len, done)) == [0, 0, len(database.known_migrations())]
        assert await database.migrate(url) == []


async def test_what_is_cut_off_leaves_nothing_and_can_be_done_again(
    server_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = baseline.PATH.read_text(encoding="utf-8")
    broken = tmp_path / "baseline.sql"
    broken.write_text(whole + "SELECT 1 / 0;\n", encoding="utf-8")
    async with new_database(server_url, "broken") as url:
        connection = await asyncpg.connect(url)
        try:
            # A migration that was cut off before its first step.
            await connection.execute("CREATE TABLE tortoise_migrations (id int)")
            with monkeypatch.context() as patch:
                patch.setattr(baseline, "PATH", broken)
                with pytest.raises(asyncpg.DivisionByZeroError):
                    await baseline.load(connection)
            tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            assert [row["tablename"] for row in tables] == ["tortoise_migrations"]
            await baseline.load(connection)
            assert await connection.fetchval("SELECT count(*) FROM executions") == 0
        finally:
            await connection.close()


@pytest.mark.parametrize("makes", ["a search path", "a schema of the user's name"])
async def test_where_tables_go_to_another_schema_it_is_not_used(
    server_url: str, monkeypatch: pytest.MonkeyPatch, makes: str
) -> None:
    async def left_to_the_migrations(**_: object) -> None:
        """They take twenty seconds, and what they make is compared above."""
        raise InterruptedError

    monkeypatch.setattr(database, "run_migrations", left_to_the_migrations)
    async with new_database(server_url, "elsewhere") as url:
        connection = await asyncpg.connect(url)
        try:
            assert await baseline.fits(connection)
            if makes == "a search path":
                await connection.execute("CREATE SCHEMA elsewhere")
                await connection.execute(f'ALTER DATABASE "{name_of(url)}" SET search_path = elsewhere')
            else:
                await connection.execute("CREATE SCHEMA AUTHORIZATION CURRENT_USER")
            with pytest.raises(InterruptedError):
                await database.migrate(url)
            assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        finally:
            await connection.close()


def test_it_says_what_it_stands_for() -> None:
    assert baseline.last_migration() in database.known_migrations()
    with pytest.raises(ValueError, match=r"baseline\.sql"):
        baseline.last_migration("-- Something else")
