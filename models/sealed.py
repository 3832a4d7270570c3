"""Sealed columns: every place where the database holds a secret, and how such places are counted and changed.

Invariant: a sealed column is listed in `SEALED`, or a rotation of keys would pass it by; its name begins with
`sealed_`, which a test compares with the database. A change of keys replaces exactly the text that was read, and waits
for nobody: rows that somebody holds are left for the next look. Sealing itself is in `adapters/secret_box.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from models.leases import Connection

BATCH_ROWS: Final = 500
# A sealed text is v1.<key id>.<base64url>; a key id may itself hold dots, the last part cannot.
_KEY_ID: Final = r"substring({column} from '^v1\.(.+)\.[A-Za-z0-9_-]+$')"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one sealed value lives: it opens nowhere else."""

    table: str
    column: str
    row_id: UUID


@dataclass(frozen=True, slots=True)
class SealedColumn:
    """A column of sealed texts; `id_column` holds the id that its places are bound to."""

    table: str
    id_column: str
    column: str

    def place(self, row_id: UUID) -> Place:
        """The place of this column in one row."""
        return Place(self.table, self.column, row_id)


ENVIRONMENT_VALUE: Final = SealedColumn("environment_variables", "id", "sealed_value")
DEPLOYMENT_ENVIRONMENT: Final = SealedColumn("deployments", "execution_id", "sealed_environment")
CONNECTION_TOKEN: Final = SealedColumn("oauth_connections", "id", "sealed_token")
TOTP_SECRET: Final = SealedColumn("users", "id", "sealed_totp")
WEBHOOK_SECRET: Final = SealedColumn("webhook_endpoints", "id", "sealed_secret")
PREVIOUS_WEBHOOK_SECRET: Final = SealedColumn("webhook_endpoints", "id", "sealed_previous_secret")
SEALED: Final[tuple[SealedColumn, ...]] = (
    ENVIRONMENT_VALUE,
    DEPLOYMENT_ENVIRONMENT,
    CONNECTION_TOKEN,
    TOTP_SECRET,
    WEBHOOK_SECRET,
    PREVIOUS_WEBHOOK_SECRET,
)


@dataclass(frozen=True, slots=True)
class KeyCount:
    """How many values of a column are sealed with one key; `kid` is None for texts that are no sealed values."""

    column: SealedColumn
    kid: str | None
    values: int


@dataclass(frozen=True, slots=True)
class SealedRow:
    """A sealed text and the row that it is in."""

    row_id: UUID
    text: str


@dataclass(frozen=True, slots=True)
class Replacement:
    """A text that takes the place of another one, if that one is still there."""

    row_id: UUID
    old: str
    new: str


async def existing(connection: Connection) -> list[SealedColumn]:
    """The columns that this database has: one that was never migrated has none, and holds no secrets."""
    return [
        column
        for column in SEALED
        if await connection.fetchval(
            "SELECT true FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped",
            column.table,
            column.column,
        )
    ]


async def count_by_key(connection: Connection) -> list[KeyCount]:
    """Values per column and key id, columns in the order of `SEALED`; a column without values has no entry."""
    counts = []
    for column in await existing(connection):
        found = await connection.fetch(
            f"SELECT {_key_id(column)} AS kid, count(*) AS values FROM {column.table}"  # noqa: S608 - our own names
            f" WHERE {column.column} IS NOT NULL GROUP BY 1 ORDER BY 1"
        )
        counts += [KeyCount(column, row["kid"], row["values"]) for row in found]
    return counts


async def under_other_keys(
    connection: Connection, column: SealedColumn, newest_kid: str, *, after: UUID | None
) -> list[SealedRow]:
    """The next rows behind an id, at most 500, whose text is not sealed with the newest key."""
    found = await connection.fetch(
        f"SELECT {column.id_column} AS row_id, {column.column} AS text FROM {column.table}"  # noqa: S608 - our own names
        f" WHERE {column.column} IS NOT NULL AND {_key_id(column)} IS DISTINCT FROM $1"
        f" AND ($2::uuid IS NULL OR {column.id_column} > $2) ORDER BY {column.id_column} LIMIT {BATCH_ROWS}",
        newest_kid,
        after,
    )
    return [SealedRow(row["row_id"], row["text"]) for row in found]


async def replace(connection: Connection, column: SealedColumn, replacements: Sequence[Replacement]) -> int:
    """Put each new text where its old one still is; how many that were.

    Rows locked by somebody else are skipped. Many rows change in one statement, so waiting for a lock while holding
    others could end in a deadlock, which might cost a user's change instead of ours.
    """
    changed = await connection.fetch(
        f"""WITH given AS (
               SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[]) AS given (row_id, old, new)
           ), free AS (
               SELECT held.{column.id_column} AS row_id FROM {column.table} AS held
               WHERE held.{column.id_column} = ANY ($1::uuid[])
               FOR UPDATE OF held SKIP LOCKED
           )
           UPDATE {column.table} AS target SET {column.column} = given.new FROM given JOIN free USING (row_id)
           WHERE target.{column.id_column} = given.row_id AND target.{column.column} = given.old
           RETURNING target.{column.id_column}""",  # noqa: S608 - our own names
        [replacement.row_id for replacement in replacements],
        [replacement.old for replacement in replacements],
        [replacement.new for replacement in replacements],
    )
    return len(changed)


def _key_id(column: SealedColumn) -> str:
    return _KEY_ID.format(column=column.column)
