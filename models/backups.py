"""What a backup reads and what restoring one writes: all tables but those declared out, in the order of their keys.

Rows travel as the text of COPY, column lists in the order of the table; generated columns are made again.
Identifiers come from PostgreSQL's catalogue or are checked against it before they get into a statement.
"""

# ruff: noqa: S608 - identifiers are the catalogue's own, quoted

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from asyncpg import Connection

from models import media_queries

LEFT_OUT: Final[Mapping[str, str]] = {
    "tortoise_migrations": "restoring runs the migrations",
    "sessions": "a session that was ended must not come back",
    "one_time_links": "a link that was used must not open an account again",
    "ticks": "moments of the old installation",
}
"""Tables that no backup holds, each with its reason. Tables that are not logged are left out too."""

TEXT_SETTINGS: Final[Mapping[str, str]] = {
    "application_name": "switchyard-backup",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    # A table is read in the order in which it lies, or its text would not be the same twice.
    "synchronize_seqscans": "off",
    "statement_timeout": "0",
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "0",
}
"""Settings of the connection that copies: the same text for the same rows on every server."""

_LOCK: Final = 7_240_311_502
_PREFETCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the columns of it that travel."""

    name: str
    columns: tuple[str, ...]


class TablesRefer(Exception):
    """Tables refer to each other in a circle, so that none can be loaded first."""


async def tables(connection: Connection) -> list[Table]:
    """The tables of a backup, each behind those that it refers to; raises TablesRefer."""
    found = await connection.fetch(
        """SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
           FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
           WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relpersistence = 'p'
             AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND NOT c.relname = ANY($1::text[])
           GROUP BY c.relname""",
        list(LEFT_OUT),
    )
    columns = {row["name"]: tuple(row["columns"]) for row in found}
    references = await connection.fetch(
        """SELECT conrelid::regclass::text AS name, confrelid::regclass::text AS target FROM pg_constraint
           WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND conrelid <> confrelid"""
    )
    order: TopologicalSorter[str] = TopologicalSorter({name: set() for name in sorted(columns)})
    for row in references:
        if row["name"] in columns:
            order.add(row["name"], row["target"])
    try:
        return [Table(name, columns[name]) for name in order.static_order() if name in columns]
    except CycleError as error:
        raise TablesRefer(f"Tables refer to each other in a circle: {', '.join(error.args[1])}") from error


async def migrations(connection: Connection) -> list[str]:
    """The migrations of this database, oldest first; none when it was never migrated."""
    if await connection.fetchval("SELECT to_regclass('tortoise_migrations')") is None:
        return []
    return [row["name"] for row in await connection.fetch("SELECT name FROM tortoise_migrations ORDER BY name")]


async def sequences(connection: Connection) -> dict[str, int]:
    """The last value of each sequence that was used."""
    found = await connection.fetch(
        """SELECT sequencename AS name, last_value FROM pg_sequences
           WHERE schemaname = 'public' AND last_value IS NOT NULL AND sequencename <> 'tortoise_migrations_id_seq'"""
    )
    return {row["name"]: row["last_value"] for row in found}


async def copy_out(connection: Connection, table: Table, output: Callable[[bytes], Awaitable[None]]) -> int:
    """Give the text of a table's rows to `output`; how many rows there were."""
    columns = ", ".join(map(_quoted, table.columns))
    status: str = await connection.copy_from_query(
        f"SELECT {columns} FROM {_quoted(table.name)}", output=output, format="text"
    )
    return int(status.rpartition(" ")[2])


async def copy_in(connection: Connection, table: Table, source: AsyncGenerator[bytes, None]) -> int:
    """Load a table from its text; how many rows there were."""
    status: str = await connection.copy_to_table(
        table.name, source=source, columns=list(table.columns), format="text", schema_name="public"
    )
    return int(status.rpartition(" ")[2])


# -- objects

_NAMED: Final = f"""
SELECT log_object->>'key' AS key, true AS needed FROM executions WHERE log_object ? 'key'
UNION ALL SELECT key, true FROM output_files
UNION ALL SELECT key, true FROM item_exports WHERE key IS NOT NULL
UNION ALL SELECT file_key, true FROM scans WHERE file_key IS NOT NULL
UNION ALL SELECT '{media_queries.KEY_PREFIX}' || id || '/original', status = 'READY' FROM media
UNION ALL SELECT '{media_queries.KEY_PREFIX}' || id || '/thumbnail', true FROM media WHERE has_thumbnail
UNION ALL SELECT object_key, reserved_until > '-infinity' FROM site_blobs
UNION ALL SELECT object_key || '.br', reserved_until > '-infinity' FROM site_blobs WHERE brotli_size IS NOT NULL
UNION ALL SELECT object_key || '.gz', reserved_until > '-infinity' FROM site_blobs WHERE gzip_size IS NOT NULL
"""


async def named_objects(connection: Connection) -> AsyncGenerator[tuple[str, bool], None]:
    """Keys that rows name, sorted by their bytes, each once, and whether its object must be there.

    An upload that is under way, and content that is being dropped, may or may not have theirs. Needs a transaction.
    """
    statement = f"""SELECT key, bool_or(needed) AS needed FROM ({_NAMED}) AS named
                    GROUP BY key ORDER BY key COLLATE "C\""""
    async for row in connection.cursor(statement, prefetch=_PREFETCH):
        yield row["key"], row["needed"]


async def still_needed(connection: Connection, keys: Sequence[str]) -> set[str]:
    """Which of these keys rows name now."""
    found = await connection.fetch(
        f"SELECT DISTINCT key FROM ({_NAMED}) AS named WHERE needed AND key = ANY($1::text[])", list(keys)
    )
    return {row["key"] for row in found}


# -- restoring


async def is_blank(connection: Connection) -> bool:
    """Whether the database has no table at all."""
    return not await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p'))"
    )


async def has_users(connection: Connection) -> bool:
    """Whether anybody has an account here."""
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM users)"))


async def take_over(connection: Connection, loaded: Iterable[Table]) -> None:
    """Keep others from the tables, and put their triggers to sleep, in the current transaction."""
    await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
    await connection.execute("LOCK TABLE users")
    for table in loaded:
        await connection.execute(f"ALTER TABLE {_quoted(table.name)} DISABLE TRIGGER USER")


async def truncate(connection: Connection, loaded: Iterable[Table]) -> None:
    """Empty the tables that are loaded, and those that are left out."""
    names = {table.name for table in loaded}
    found = await connection.fetch("SELECT relname FROM pg_class WHERE relname = ANY($1::text[])", list(LEFT_OUT))
    names |= {row["relname"] for row in found} - {"tortoise_migrations"}
    await connection.execute(f"TRUNCATE {', '.join(map(_quoted, sorted(names)))}")


async def wake_triggers(connection: Connection, loaded: Iterable[Table]) -> None:
    """Let triggers work again."""
    for table in loaded:
        await connection.execute(f"ALTER TABLE {_quoted(table.name)} ENABLE TRIGGER USER")


async def set_sequences(connection: Connection, values: Mapping[str, Any]) -> None:
    """Let each sequence go on where it was."""
    for name, last in values.items():
        await connection.execute("SELECT setval(to_regclass($1), $2)", _quoted(name), int(last))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
