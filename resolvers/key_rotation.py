"""Rotation of keys: every sealed value is sealed again with the newest key of the ring.

It may be killed, repeated, or run twice at once: each value is replaced where the text that was read is still there, so
a change that somebody makes meanwhile is never undone, and values under the newest key are not touched again. Readers
notice nothing, because the ring opens both. Once nothing is left, the old key may leave the ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from adapters.secret_box import CannotOpen, SecretBox
from models import audit_queries, database, sealed
from models.leases import Connection
from models.sealed import KeyCount, SealedColumn
from settings import Settings

# Rows that were locked, or changed by a process that still has the old ring, come up again in the next pass.
_MAX_PASSES: Final = 5
_CLOSE_SECONDS: Final = 5


@dataclass(frozen=True, slots=True)
class Unopened:
    """A value that stays as it is because it does not open; `reason` never shows it."""

    column: SealedColumn
    row_id: UUID
    reason: str


@dataclass(frozen=True, slots=True)
class ColumnRotation:
    """What became of one column: `left` values are under other keys still, though they open."""

    column: SealedColumn
    resealed: int
    left: int
    unopened: tuple[Unopened, ...]


@dataclass(frozen=True, slots=True)
class RotationReport:
    """What to tell whoever asked: counts before and after, and what kept values from moving."""

    lines: tuple[str, ...]
    problems: tuple[str, ...]


async def rotate_all(settings: Settings) -> RotationReport:
    """Rotate the database that the settings name; raises ServiceUnavailable when it does not answer."""
    box = SecretBox(settings.keyring)
    with database.database_errors():
        connection = await database.connect_alone(settings, command_timeout_seconds=database.COMMAND_TIMEOUT_SECONDS)
        try:
            before = await sealed.count_by_key(connection)
            rotations = await rotate(connection, box)
            after = await sealed.count_by_key(connection)
            await audit_queries.insert_for_system(
                connection,
                "rotateKeys",
                {"key": box.newest_kid, "resealed": sum(rotation.resealed for rotation in rotations)},
            )
        finally:
            await connection.close(timeout=_CLOSE_SECONDS)
    problems = []
    for rotation in rotations:
        table = rotation.column.table
        problems += [f"{table} {unopened.row_id}: {unopened.reason}" for unopened in rotation.unopened]
        if rotation.left:
            problems.append(f"{table}: {rotation.left} were in use; run this again")
    resealed = [
        f"{rotation.column.table}: {rotation.resealed} sealed anew with {box.newest_kid}" for rotation in rotations
    ]
    return RotationReport((*_counted("Before", before), *_counted("After", after), *resealed), tuple(problems))


async def rotate(connection: Connection, box: SecretBox) -> list[ColumnRotation]:
    """Seal every value of every sealed column with the newest key, 500 rows at a time."""
    return [await _rotate_column(connection, box, column) for column in await sealed.existing(connection)]


async def _rotate_column(connection: Connection, box: SecretBox, column: SealedColumn) -> ColumnRotation:
    resealed = 0
    for _ in range(_MAX_PASSES):
        tried = changed = 0
        unopened: list[Unopened] = []
        after: UUID | None = None
        while batch := await sealed.under_other_keys(connection, column, box.newest_kid, after=after):
            after = batch[-1].row_id
            replacements = []
            for row in batch:
                place = column.place(row.row_id)
                try:
                    new = box.seal(box.open(row.text, place=place), place=place)
                except CannotOpen as error:
                    unopened.append(Unopened(column, row.row_id, str(error)))
                else:
                    replacements.append(sealed.Replacement(row.row_id, row.text, new))
            tried += len(replacements)
            changed += await sealed.replace(connection, column, replacements)
        resealed += changed
        if changed == tried:
            break
    return ColumnRotation(column, resealed, tried - changed, tuple(unopened))


def _counted(title: str, counts: Sequence[KeyCount]) -> list[str]:
    if not counts:
        return [f"{title}: nothing is sealed"]
    return [
        f"{title}:",
        *(f"  {count.column.table} {count.kid or '(no sealed value)'}: {count.values}" for count in counts),
    ]
