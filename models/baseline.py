"""The schema that a database without tables gets in one go, instead of the migrations it stands for.

`baseline.sql` is generated (`make baseline`) from a database that went through these migrations, and a test holds it to
them. Migrations after its last one are applied on top as usual.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from asyncpg import Connection

PATH: Final = Path(__file__).with_name("baseline.sql")
_LAST: Final = re.compile(r"\A-- Stands for the migrations up to (\w+)\.")


def last_migration(text: str | None = None) -> str:
    """The newest migration that the baseline, or a text that is one, stands for."""
    found = _LAST.match(text if text is not None else PATH.read_text(encoding="utf-8"))
    if found is None:
        raise ValueError(f"{PATH.name} does not say what it stands for")
    return found[1]


async def fits(connection: Connection) -> bool:
    """Whether new tables of this connection go to where the baseline puts them; migrations make them in any schema."""
    return bool(await connection.fetchval("SELECT current_schema() = 'public'"))


async def load(connection: Connection) -> None:
    """Make everything, in one transaction, in a database that has nothing of it."""
    async with connection.transaction():
        # Left by whoever was cut off before the first migration.
        await connection.execute("DROP TABLE IF EXISTS tortoise_migrations")
        # Functions may name what comes after them.
        await connection.execute("SET LOCAL check_function_bodies = false")
        await connection.execute(PATH.read_text(encoding="utf-8"))
