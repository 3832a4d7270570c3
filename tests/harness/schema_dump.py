"""What PostgreSQL says of a database, as text that does not depend on its version or on the moment.

Run as a program, writes `models/baseline.sql` from a database that goes through all migrations: `make baseline`.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import asyncpg

from adapters import embedded
from adapters.embedded.postgres_server import find_installation
from models import baseline, database
from tests.harness.databases import new_database

# Kept by every dump, and nothing of ours: comments, settings of the session, guards of psql, owners of extensions.
_NOISE: Final = re.compile(
    r"--( .*)?|SET \w+ = .*;|SELECT pg_catalog\.set_config\(.*|\\(un)?restrict .*|COMMENT ON EXTENSION .*"
)
_NEW_SEQUENCE: Final = re.compile(r"SELECT pg_catalog\.setval\('[\w.]+', 1, false\);")
_APPLIED: Final = re.compile(
    r"INSERT INTO public\.tortoise_migrations .*|SELECT pg_catalog\.setval\('public\.tortoise_migrations_.*"
)
_TABLE: Final = re.compile(r"^(CREATE TABLE [\w.]+ \()\n(.*?)\n\);", re.MULTILINE | re.DOTALL)


def dump(database_url: str) -> str:
    """Tables, functions, rows and all, as the normalised output of the newest pg_dump."""
    done = subprocess.run(
        [find_installation().program.with_name("pg_dump"), "--no-owner", "--no-privileges", "--inserts", database_url],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    lines = [
        line
        for line in done.stdout.splitlines()
        if not any(pattern.fullmatch(line) for pattern in (_NOISE, _NEW_SEQUENCE, _APPLIED))
    ]
    return re.sub(r"\n{2,}", "\n\n", "\n".join(lines)).strip() + "\n"


def as_baseline(dumped: str) -> str:
    """The text of `models/baseline.sql` for the schema of a dump."""
    known = database.known_migrations()
    names = ",\n".join(f"    ('models', '{name}', now())" for name in known)
    return (
        f"-- Stands for the migrations up to {known[-1]}. Generated: make baseline\n\n{dumped}\n"
        f"INSERT INTO public.tortoise_migrations (app, name, applied_at) VALUES\n{names};\n"
    )


def canonical(text: str) -> str:
    """A dump in which equal schemas are equal: references are not added in the same order by every migration."""
    return _TABLE.sub(
        lambda table: "\n".join((table[1], *sorted(line.rstrip(",") for line in table[2].splitlines()), ");")), text
    )


async def migrated_dump(server_url: str) -> str:
    """The dump of a database that has gone through every migration, and through a dump: that changes how it is said."""
    async with new_database(server_url, "migrated") as url:
        await database.migrate(url, target=database.known_migrations()[0])
        await database.migrate(url)
        first = await asyncio.to_thread(dump, url)
    async with new_database(server_url, "reloaded") as url:
        connection = await asyncpg.connect(url)
        await connection.execute(f"SET check_function_bodies = false; {first}")
        await connection.close()
        return await asyncio.to_thread(dump, url)


async def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        async with embedded.postgres(Path(folder) / "postgres", durable=False) as server:
            text = as_baseline(await migrated_dump(server.url))
    if canonical(text) != canonical(baseline.PATH.read_text(encoding="utf-8")):
        baseline.PATH.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(main())
