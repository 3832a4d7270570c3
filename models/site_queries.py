"""The SQL of sites: where an address leads, what a deployment serves, moving an address, keeping and dropping content.

Invariants: an address moves in one statement, and never back to what was decided earlier; content is dropped only when
no file names it and no build has reserved it. The life of a blob:

    (upload) → reserved, until `reserved_until` → named by files → named by none → condemned → objects gone → row gone

Condemned is `reserved_until = -infinity`: nobody may use the blob any more, whoever finds it deletes its objects and
then its row. So a crash in between leaves something to find, and no transaction waits for storage. Functions take a
connection or pool where workers call them; those without use the API's pool or its unit of work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from models.database import Row, from_json, row, rows
from models.deployments import DeploymentTrigger
from models.leases import Connection
from models.site_paths import LabelReading
from models.site_rules import SiteRules

RESERVED_SECONDS: Final = 7_200
"""How long content stays that a build means to use: longer than any build takes from here to its end."""

EARLIER_HOURS: Final = 24
EARLIER_DEPLOYMENTS: Final = 20
SWEEP_WINDOW: Final = 20_000
_CHUNK: Final = 5_000


# -- where an address leads


@dataclass(frozen=True, slots=True)
class SiteTarget:
    """Where a label leads now. `alias` is None for a deployment's own address.

    `earlier` are the deployments that the alias led to within EARLIER_HOURS, newest first, without the present one.
    """

    project_id: UUID
    deployment_id: UUID
    alias: str | None
    earlier: tuple[UUID, ...] = ()


_TARGET: Final = f"""
WITH candidate AS (
    SELECT d.project_id, d.execution_id AS deployment_id, NULL::varchar AS alias, 1 AS rank
    FROM deployments d JOIN projects p ON p.id = d.project_id JOIN executions e ON e.id = d.execution_id
    JOIN users u ON u.id = p.owner_id AND u.deleted_at IS NULL
    WHERE d.site_key = $1 AND p.slug = $2 AND e.status = 'SUCCEEDED'
    UNION ALL
    SELECT a.project_id, a.deployment_id, a.name, 2
    FROM site_aliases a JOIN projects p ON p.id = a.project_id
    JOIN users u ON u.id = p.owner_id AND u.deleted_at IS NULL WHERE p.slug = $3 AND a.name = $4
), found AS (
    SELECT * FROM candidate ORDER BY rank LIMIT 1
)
SELECT found.*, ARRAY(
    SELECT shown.id FROM (
        SELECT moved.id, max(moved.number) AS number FROM (
            SELECT s.deployment_id AS id, s.id AS number FROM site_publications s
            WHERE s.project_id = found.project_id AND s.alias = found.alias
              AND s.at > now() - make_interval(hours => {EARLIER_HOURS})
            UNION ALL
            SELECT s.previous_id, s.id - 1 FROM site_publications s
            WHERE s.project_id = found.project_id AND s.alias = found.alias AND s.previous_id IS NOT NULL
              AND s.at > now() - make_interval(hours => {EARLIER_HOURS})
        ) AS moved WHERE moved.id <> found.deployment_id GROUP BY moved.id
        ORDER BY number DESC LIMIT {EARLIER_DEPLOYMENTS}
    ) AS shown ORDER BY shown.number DESC
) AS earlier
FROM found
"""  # noqa: S608 - the two numbers are constants


async def site_of_label(label: LabelReading) -> SiteTarget | None:
    """Where a label leads, None when nowhere. A deployment's own address wins over a project of the same name.

    Whoever is deleted has no sites, whatever rows are still there.
    """
    found = await row(_TARGET, label.site_key, label.keyed_slug, label.slug, label.alias)
    if found is None:
        return None
    return SiteTarget(found["project_id"], found["deployment_id"], found["alias"], tuple(found["earlier"]))


# -- what a deployment serves


@dataclass(frozen=True, slots=True)
class SiteFile:
    """A file of a deployment. Forms compressed beforehand lie beside the object, as `.br` and `.gz`."""

    content_type: str
    sha256: bytes
    size: int
    object_key: str
    brotli_size: int | None
    gzip_size: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that a deployment serves; it never changes."""

    deployment_id: UUID
    rules: SiteRules
    files: Mapping[str, SiteFile]


_FILE_COLUMNS: Final = "f.path, f.content_type, b.sha256, b.size, b.object_key, b.brotli_size, b.gzip_size"


async def manifest(deployment_id: UUID) -> Manifest | None:
    """The files and rules of a deployment, None when it is gone."""
    deployment = await row("SELECT routing FROM deployments WHERE execution_id = $1", deployment_id)
    if deployment is None:
        return None
    found = await rows(
        f"""SELECT {_FILE_COLUMNS} FROM deployment_files f JOIN site_blobs b ON b.id = f.blob_id
            WHERE f.deployment_id = $1""",  # noqa: S608 - constant
        deployment_id,
    )
    types: dict[str, str] = {}  # thousands of files share a few of them
    files = {entry["path"]: _file(entry, types) for entry in found}
    return Manifest(deployment_id, SiteRules.from_json(from_json(deployment["routing"])), files)


async def earlier_file(deployment_ids: Sequence[UUID], path: str) -> tuple[UUID, SiteFile] | None:
    """The file of this path in the first of these deployments that has one."""
    found = await row(
        f"""SELECT f.deployment_id, {_FILE_COLUMNS} FROM deployment_files f JOIN site_blobs b ON b.id = f.blob_id
            WHERE f.deployment_id = ANY($1::uuid[]) AND f.path = $2
            ORDER BY array_position($1::uuid[], f.deployment_id) LIMIT 1""",  # noqa: S608 - constant
        list(deployment_ids),
        path,
    )
    return None if found is None else (found["deployment_id"], _file(found, {}))


def _file(entry: Row, types: dict[str, str]) -> SiteFile:
    return SiteFile(
        content_type=types.setdefault(entry["content_type"], entry["content_type"]),
        sha256=entry["sha256"],
        size=entry["size"],
        object_key=entry["object_key"],
        brotli_size=entry["brotli_size"],
        gzip_size=entry["gzip_size"],
    )


# -- moving an address


@dataclass(frozen=True, slots=True)
class Publication:
    """What an attempt to move an address came to.

    `is_live` says that the address leads to the deployment now, `has_moved` that it did not before, and `previous_id`
    where it led then.
    """

    is_live: bool
    has_moved: bool
    previous_id: UUID | None


# The row is locked before it is judged, so that of two who move it at once the second one sees the first one's move.
# An alias that does not exist yet cannot be locked: there the conflict decides, by the same rule.
_PUBLISH: Final = """
WITH wanted AS (
    SELECT d.project_id, $2::varchar AS name, d.execution_id AS deployment_id,
           coalesce($4::timestamptz, now()) AS decided_at
    FROM deployments d JOIN executions e ON e.id = d.execution_id
    WHERE d.project_id = $1 AND d.execution_id = $3 AND (e.status = 'SUCCEEDED' OR $7::boolean)
), before AS (
    SELECT deployment_id, decided_at FROM site_aliases WHERE project_id = $1 AND name = $2 FOR NO KEY UPDATE
), moved AS (
    INSERT INTO site_aliases (project_id, name, deployment_id, decided_at, updated_at)
    SELECT project_id, name, deployment_id, decided_at, now() FROM wanted
    WHERE NOT EXISTS (SELECT FROM before WHERE before.decided_at > wanted.decided_at)
    ON CONFLICT (project_id, name) DO UPDATE
    SET deployment_id = excluded.deployment_id, decided_at = excluded.decided_at, updated_at = now()
    WHERE site_aliases.decided_at <= excluded.decided_at
    RETURNING deployment_id
), noted AS (
    INSERT INTO site_publications (project_id, alias, deployment_id, previous_id, reason, user_id, at)
    SELECT $1, $2, moved.deployment_id, (SELECT deployment_id FROM before),
           $5::varchar, $6::uuid, clock_timestamp()
    FROM moved
    WHERE moved.deployment_id IS DISTINCT FROM (SELECT deployment_id FROM before)
    RETURNING id
)
SELECT EXISTS (SELECT FROM moved) AS is_live, EXISTS (SELECT FROM noted) AS has_moved,
       (SELECT deployment_id FROM before) AS previous_id
"""


async def publish(
    connection: Connection,
    *,
    project_id: UUID,
    alias: str,
    deployment_id: UUID,
    decided_at: datetime,
    reason: DeploymentTrigger,
    user_id: UUID | None,
) -> Publication:
    """Move an address to a deployment that succeeds in this very transaction; again is fine.

    `decided_at` is when the deployment was asked for: what was decided later stays. Tell the other processes
    (`SiteChanged`) after the commit.
    """
    found = await connection.fetchrow(
        _PUBLISH, project_id, alias, deployment_id, decided_at, reason.value, user_id, True
    )
    return _publication(found)


async def promote(
    *, project_id: UUID, alias: str, deployment_id: UUID, reason: DeploymentTrigger, user_id: UUID | None
) -> Publication:
    """Move an address to a deployment that has succeeded, because a person says so now; in a unit of work.

    `is_live` is False when the deployment is another project's or did not succeed. Publish `SiteChanged` with it.
    """
    return _publication(await row(_PUBLISH, project_id, alias, deployment_id, None, reason.value, user_id, False))


def _publication(found: Mapping[str, Any] | None) -> Publication:
    if found is None:
        raise LookupError("the statement always gives a row")
    return Publication(found["is_live"], found["has_moved"], found["previous_id"])


async def record_files(connection: Connection, deployment_id: UUID, files: Sequence[tuple[str, str, int]]) -> None:
    """Write down what a deployment serves, as (path, content type, blob id); again is fine.

    Raises asyncpg.ForeignKeyViolationError when a blob is gone, which a reservation that still holds rules out.
    """
    for offset in range(0, len(files), _CHUNK):
        chunk = files[offset : offset + _CHUNK]
        await connection.fetch(
            """INSERT INTO deployment_files (deployment_id, path, content_type, blob_id)
               SELECT $1, * FROM unnest($2::text[], $3::text[], $4::bigint[])
               ON CONFLICT (deployment_id, path) DO NOTHING""",
            deployment_id,
            [path for path, _, _ in chunk],
            [content_type for _, content_type, _ in chunk],
            [blob_id for _, _, blob_id in chunk],
        )


# -- content


@dataclass(frozen=True, slots=True)
class NewBlob:
    """Content whose objects are in storage."""

    sha256: bytes
    size: int
    object_key: str
    brotli_size: int | None
    gzip_size: int | None


@dataclass(frozen=True, slots=True)
class CondemnedBlob:
    """Content that nobody may use any more; `object_keys` lead to all of its forms."""

    id: int
    object_keys: tuple[str, ...]


async def reserve(connection: Connection, project_id: UUID, hashes: Sequence[bytes]) -> dict[bytes, int]:
    """Keep content of a project that is there already for RESERVED_SECONDS; ids by hash, missing ones are not there."""
    ids: dict[bytes, int] = {}
    for offset in range(0, len(hashes), _CHUNK):
        # Locked in one order, or two builds with the same files would wait for each other for ever.
        found = await connection.fetch(
            """UPDATE site_blobs SET reserved_until = now() + make_interval(secs => $3)
               WHERE id IN (SELECT id FROM site_blobs WHERE project_id = $1 AND sha256 = ANY($2::bytea[])
                            AND reserved_until > '-infinity' ORDER BY id FOR NO KEY UPDATE)
                 AND reserved_until > '-infinity'
               RETURNING id, sha256""",
            project_id,
            list(hashes[offset : offset + _CHUNK]),
            RESERVED_SECONDS,
        )
        ids |= {entry["sha256"]: entry["id"] for entry in found}
    return ids


async def insert_blobs(
    connection: Connection, project_id: UUID, blobs: Sequence[NewBlob]
) -> dict[bytes, tuple[int, str]]:
    """Write down new content; id and object key by hash. The key is another one where somebody was faster.

    A hash that is missing from the answer is condemned at this moment.
    """
    ordered = sorted(blobs, key=lambda blob: blob.sha256)
    found = await connection.fetch(
        """INSERT INTO site_blobs (project_id, sha256, size, object_key, brotli_size, gzip_size, reserved_until)
           SELECT $1, *, now() + make_interval(secs => $7)
           FROM unnest($2::bytea[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[])
           ON CONFLICT (project_id, sha256) DO UPDATE SET reserved_until = excluded.reserved_until
           WHERE site_blobs.reserved_until > '-infinity'
           RETURNING id, sha256, object_key""",
        project_id,
        [blob.sha256 for blob in ordered],
        [blob.size for blob in ordered],
        [blob.object_key for blob in ordered],
        [blob.brotli_size for blob in ordered],
        [blob.gzip_size for blob in ordered],
        RESERVED_SECONDS,
    )
    return {entry["sha256"]: (entry["id"], entry["object_key"]) for entry in found}


# Whoever reserves a blob locks its row and sets a time that has not come, so either the row is passed over here, or it
# is condemned first and the reservation does not find it. Files are recorded under a reservation that still holds, so
# the look at them cannot be outdated; if a build took longer than that, the foreign key refuses one of the two.
_UNUSED: Final = """
    b.reserved_until < now() AND NOT EXISTS (SELECT FROM deployment_files f WHERE f.blob_id = b.id)
"""
_CONDEMN: Final = f"""
UPDATE site_blobs SET reserved_until = '-infinity' WHERE id IN (
    SELECT b.id FROM site_blobs b WHERE b.project_id = $1 AND {_UNUSED} ORDER BY b.id LIMIT $2
    FOR UPDATE SKIP LOCKED
) AND reserved_until < now() RETURNING id, object_key, brotli_size, gzip_size
"""  # noqa: S608 - constant
# Without a project: a window of the table at a random place, so that no sweep reads it all and each part has its turn.
_CONDEMN_SOMEWHERE: Final = f"""
WITH place AS MATERIALIZED (
    SELECT greatest(0, (random() * (max(id) - $2))::bigint) AS first FROM site_blobs
)
UPDATE site_blobs SET reserved_until = '-infinity' WHERE id IN (
    SELECT b.id FROM site_blobs b, place WHERE b.id > place.first AND b.id <= place.first + $2 AND {_UNUSED}
    ORDER BY b.id LIMIT $1 FOR UPDATE OF b SKIP LOCKED
) AND reserved_until < now() RETURNING id, object_key, brotli_size, gzip_size
"""  # noqa: S608 - constant


async def condemn(connection: Connection, project_id: UUID, *, limit: int) -> list[CondemnedBlob]:
    """Take content of a project out of use that no file names and no build has reserved."""
    return [_condemned(entry) for entry in await connection.fetch(_CONDEMN, project_id, limit)]


async def condemn_somewhere(connection: Connection, *, limit: int) -> list[CondemnedBlob]:
    """The same in a part of the table that chance picks."""
    return [_condemned(entry) for entry in await connection.fetch(_CONDEMN_SOMEWHERE, limit, SWEEP_WINDOW)]


async def condemned(connection: Connection, project_id: UUID, hashes: Sequence[bytes]) -> list[CondemnedBlob]:
    """Content among these hashes that somebody took out of use and that is not gone yet."""
    found = await connection.fetch(
        """SELECT id, object_key, brotli_size, gzip_size FROM site_blobs
           WHERE project_id = $1 AND sha256 = ANY($2::bytea[]) AND reserved_until = '-infinity'""",
        project_id,
        list(hashes),
    )
    return [_condemned(entry) for entry in found]


async def forget(connection: Connection, blob_ids: Sequence[int]) -> int:
    """Remove condemned content whose objects are gone; how many rows went."""
    found = await connection.fetch(
        "DELETE FROM site_blobs WHERE id = ANY($1::bigint[]) AND reserved_until = '-infinity' RETURNING id",
        list(blob_ids),
    )
    return len(found)


def object_keys(object_key: str, brotli_size: int | None, gzip_size: int | None) -> tuple[str, ...]:
    """The keys of all forms of a blob."""
    keys = [object_key]
    if brotli_size is not None:
        keys.append(f"{object_key}.br")
    if gzip_size is not None:
        keys.append(f"{object_key}.gz")
    return tuple(keys)


def _condemned(entry: Row) -> CondemnedBlob:
    return CondemnedBlob(entry["id"], object_keys(entry["object_key"], entry["brotli_size"], entry["gzip_size"]))
