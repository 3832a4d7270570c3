"""Finished logs move from the database to one object in storage.

The object is a chain of gzip members (RFC 1952 §2.2), so it is a valid .gz file as a whole while each member can
be fetched by its byte range; the index of members stays on the execution. Rows are deleted only in the
transaction that names the object, after its size and hash were confirmed. Two workers that compact the same log
write the same bytes under the same key, and one that comes too late, finding fewer lines than the row counts,
writes nothing.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from uuid import UUID

import asyncpg
import structlog

from adapters.storage import Storage
from models.database import to_json

BLOCK_BYTES = 262_144
_LOGS_PER_ROUND = 4
_RETRY_SECONDS = 60
_PAGE_CHUNKS = 64
_log = structlog.get_logger("switchyard.logs")


async def compact_due(pool: asyncpg.Pool, storage: Storage) -> int:
    """Compact some finished logs whose time has come; returns how many. A failed one comes again in a minute."""
    async with pool.acquire(timeout=2) as connection:
        due = await connection.fetch(
            """UPDATE executions SET log_compaction_after = now() + make_interval(secs => $2)
               WHERE id IN (SELECT id FROM executions WHERE log_compaction_after <= now()
                            ORDER BY log_compaction_after LIMIT $1 FOR UPDATE SKIP LOCKED)
               RETURNING id, log_sequence""",
            _LOGS_PER_ROUND,
            _RETRY_SECONDS,
        )
    for row in due:
        await _compact(pool, storage, row["id"], line_count=row["log_sequence"])
    return len(due)


def log_key(execution_id: UUID) -> str:
    """Where the finished log of an execution is kept."""
    return f"logs/{execution_id}.jsonl.gz"


async def _compact(pool: asyncpg.Pool, storage: Storage, execution_id: UUID, *, line_count: int) -> None:
    members: list[bytes] = []
    index: list[list[int]] = []
    offset = 0
    async with pool.acquire(timeout=2) as connection:
        after = 0
        while chunks := await connection.fetch(
            """SELECT first_sequence, line_count, levels, body FROM log_chunks
               WHERE execution_id = $1 AND first_sequence > $2 ORDER BY first_sequence LIMIT $3""",
            execution_id,
            after,
            _PAGE_CHUNKS,
        ):
            after = chunks[-1]["first_sequence"]
            for block in _blocks(chunks):
                body = "".join(chunk["body"] for chunk in block).encode()
                # A fixed time makes the bytes the same whoever compacts.
                member = await asyncio.to_thread(gzip.compress, body, 6, mtime=0)
                levels = 0
                for chunk in block:
                    levels |= chunk["levels"]
                count = sum(chunk["line_count"] for chunk in block)
                index.append([block[0]["first_sequence"], count, levels, offset, len(member)])
                members.append(member)
                offset += len(member)
    if sum(block[1] for block in index) != line_count:
        # Whoever was quicker has moved the lines meanwhile; less must not replace its object.
        _log.warning("log_incomplete", execution_id=str(execution_id))
        return
    if members:
        data = b"".join(members)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())
        await storage.put(log_key(execution_id), data, content_type="application/gzip", sha256=digest)
        found = await storage.head(log_key(execution_id))
        if found is None or found.size != offset:
            _log.warning("log_object_differs", execution_id=str(execution_id))
            return
    archive = {"key": log_key(execution_id), "size": offset, "blocks": index} if members else None
    async with pool.acquire(timeout=2) as connection, connection.transaction():
        named = await connection.fetchval(
            "UPDATE executions SET log_object = $2, log_compaction_after = NULL WHERE id = $1 RETURNING id",
            execution_id,
            to_json(archive) if archive else None,
        )
        await connection.execute("DELETE FROM log_chunks WHERE execution_id = $1", execution_id)
    if named is None:
        # Deleted meanwhile, with its log: nothing names the object.
        await storage.delete([log_key(execution_id)])
        return
    _log.info("log_compacted", execution_id=str(execution_id), bytes=offset, blocks=len(index))


def _blocks(chunks: list[asyncpg.Record]) -> list[list[asyncpg.Record]]:
    """Neighbouring chunks put together up to about a block's size."""
    blocks: list[list[asyncpg.Record]] = [[]]
    size = 0
    for chunk in chunks:
        if blocks[-1] and size + len(chunk["body"]) > BLOCK_BYTES:
            blocks.append([])
            size = 0
        blocks[-1].append(chunk)
        size += len(chunk["body"])
    return blocks
