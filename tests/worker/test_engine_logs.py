"""Logs as workers write them: limits, odd bytes, floods, and the move to storage."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import orjson

from adapters.storage import Storage, open_storage
from models import leases, logs
from models.executions import ExecutionStatus
from models.logs import LogLevel, NewLine
from tasks import log_compaction
from tests.harness.processes import Program
from tests.harness.waiting import eventually
from tests.worker.engine import Bench, bench, benches, scenarios, together

__all__ = ["bench", "benches", "scenarios"]

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = ExecutionStatus
SETTINGS = {"LOG_COMPACT_AFTER_SECONDS": "3600"}
HEAD_BYTES, TAIL_BYTES = 65_536, 8_192


def wide(number: int) -> str:
    return f"attempt 1 line {number} {'x' * 100}"


@together
async def test_a_log_over_its_limit_keeps_head_and_tail_and_says_what_is_missing(bench: Bench) -> None:
    await bench.worker(LOG_HEAD_BYTES=str(HEAD_BYTES), LOG_TAIL_BYTES=str(TAIL_BYTES))
    execution = await bench.queue({"lines": 5_000, "width": 100})
    row = await bench.verdict(execution, SUCCEEDED, within=15)
    messages = await bench.messages(execution)
    marker = next(number for number, text in enumerate(messages) if "left out" in text)
    head, tail = messages[:marker], messages[marker + 1 :]
    assert head == [wide(number) for number in range(1, len(head) + 1)]
    assert tail == [wide(number) for number in range(5_001 - len(tail), 5_001)]
    assert messages[marker] == f"… {5_000 - len(head) - len(tail)} lines left out: the log is full …"
    assert HEAD_BYTES * 0.6 < sum(map(len, head)) <= HEAD_BYTES
    assert TAIL_BYTES * 0.6 < sum(map(len, tail)) <= TAIL_BYTES
    assert row["log_bytes"] <= HEAD_BYTES + TAIL_BYTES + 2 * logs.MAX_LINE_BYTES


@together
async def test_the_limit_holds_over_all_attempts(bench: Bench) -> None:
    worker = await bench.worker(LOG_HEAD_BYTES=str(HEAD_BYTES), LOG_TAIL_BYTES=str(TAIL_BYTES))
    execution = await bench.queue({"lines": 400, "width": 100}, {"lines": 30, "every": 0.1})
    await bench.until_line(execution, wide(350))
    worker.terminate()
    await worker.wait_exit()
    await bench.worker(LOG_HEAD_BYTES=str(HEAD_BYTES), LOG_TAIL_BYTES=str(TAIL_BYTES))
    row = await bench.verdict(execution, SUCCEEDED, attempt=2, within=20)
    messages = await bench.messages(execution)
    assert messages[-1] == "attempt 2 line 30"
    assert any("left out" in text for text in messages)
    assert row["log_bytes"] <= HEAD_BYTES + TAIL_BYTES + 2 * logs.MAX_LINE_BYTES


@together
async def test_any_bytes_become_lines_that_can_be_read(bench: Bench) -> None:
    await bench.worker()
    long = "é" * 10_000  # 20,000 bytes
    texts = {
        b"nul \x00 byte": ["nul \ufffd byte"],
        b"broken \xff\xfe utf-8": ["broken ?? utf-8"],
        b"one\ntwo\r\n\nfour": ["one", "two", "", "four"],
        "line separator \u2028 stays".encode(): ["line separator \u2028 stays"],
        b"": [""],
        b"\x1b[31mred\x1b[0m\ttab": ["\x1b[31mred\x1b[0m\ttab"],
        b'"quotes" \\ and {braces}': ['"quotes" \\ and {braces}'],
        "😀".encode() * 3: ["😀😀😀"],
        long.encode(): ["é" * 4_096, "é" * 4_096, "é" * (10_000 - 2 * 4_096)],
    }
    execution = await bench.queue(*({"log": data.hex()} for data in texts))
    await bench.verdict(execution, SUCCEEDED, within=10)
    lines = await bench.lines(execution)
    assert [line.message for line in lines] == [text for expected in texts.values() for text in expected]
    assert [line.is_continuation for line in lines[-3:]] == [False, True, True]
    assert not any(line.is_continuation for line in lines[:-2])


@together
async def test_a_flood_of_lines_flows_in_bounded_memory(bench: Bench) -> None:
    worker = await bench.worker()
    await bench.verdict(await bench.queue({"lines": 500, "width": 80}), SUCCEEDED, within=10)
    before = _peak_bytes(worker)
    execution = await bench.queue({"lines": 100_000, "width": 80})
    row = await bench.verdict(execution, SUCCEEDED, within=30)
    grown = _peak_bytes(worker) - before
    assert row["log_sequence"] == 100_000
    assert row["lost_workers"] == 0
    # All at once they would be 12 MB of text and 40 MB of objects; the buffer holds one.
    assert grown < 16 * 2**20, f"{grown / 2**20:.0f} MiB"
    chunks = await bench.chunks(execution)
    assert all(chunk["line_count"] <= logs.MAX_CHUNK_LINES for chunk in chunks)
    assert len(chunks) < 1_000, "full batches, not one per line"


@together
async def test_lines_are_readable_soon_after_they_were_written(bench: Bench) -> None:
    await bench.worker()
    execution = await bench.queue({"lines": 20, "every": 0.15})
    await bench.verdict(execution, SUCCEEDED, within=15)
    history = await bench.history(execution)
    chunks = await bench.chunks(execution)
    assert len(chunks) >= 15, "a slow writer's lines are not held back for company"
    lines = await bench.lines(execution)
    assert [line.timestamp for line in lines] == sorted(line.timestamp for line in lines)
    assert lines[-1].timestamp <= history[-1]["at"], "the last line is stored before the end is"


def _peak_bytes(program: Program) -> int:
    """The largest resident set so far: proc(5)."""
    with open(f"/proc/{program.pid}/status") as file:
        return next(int(line.split()[1]) * 1_024 for line in file if line.startswith("VmHWM"))


# -- the move to storage


@asynccontextmanager
async def storage_of(bench: Bench) -> AsyncIterator[Storage]:
    async with open_storage(bench.settings) as storage:
        yield storage


async def archived(bench: Bench, execution: UUID) -> dict[str, Any] | None:
    """The index on the row, once there is one."""
    found = (await bench.row(execution))["log_object"]
    return None if found is None else orjson.loads(found)


async def make_due(bench: Bench, execution: UUID) -> None:
    await bench.db.execute("UPDATE executions SET log_compaction_after = now() WHERE id = $1", execution)


async def check_archive(bench: Bench, storage: Storage, execution: UUID, expected: list[logs.Line]) -> None:
    """The object is valid gzip, block by block what the index says, and holds every line."""
    archive = await archived(bench, execution)
    assert archive is not None
    data = b"".join([chunk async for chunk in storage.get(archive["key"])])
    assert len(data) == archive["size"]
    assert logs.decode_lines(1, gzip.decompress(data).decode()) == expected
    offset, sequence = 0, 1
    for first, count, levels, start, length in archive["blocks"]:
        assert (first, start) == (sequence, offset)
        part = b"".join([chunk async for chunk in storage.get(archive["key"], start=start, end=start + length)])
        lines = logs.decode_lines(first, zlib.decompress(part, wbits=31).decode())
        assert lines == expected[first - 1 : first - 1 + count]
        assert levels == logs.level_bits({line.level for line in lines})
        offset, sequence = offset + length, sequence + count
    assert (offset, sequence) == (archive["size"], len(expected) + 1)
    assert await bench.chunks(execution) == []


@together
async def test_a_finished_log_moves_to_storage_whole(bench: Bench) -> None:
    await bench.worker()
    execution = await bench.queue({"lines": 8_000, "width": 100}, {"crash": "so that there is an error, too"})
    await bench.verdict(execution, FAILED, within=15)
    before = await bench.lines(execution)
    await make_due(bench, execution)
    await eventually(lambda: archived(bench, execution), 10, what="the archive")
    async with storage_of(bench) as storage:
        await check_archive(bench, storage, execution, before)
    archive = await archived(bench, execution)
    assert archive is not None
    assert len(archive["blocks"]) >= 3, "large enough to say something"
    assert {block[2] for block in archive["blocks"]} == {2, 10}
    assert (await bench.row(execution))["log_compaction_after"] is None


@together
async def test_an_execution_without_lines_has_nothing_to_move(bench: Bench) -> None:
    await bench.worker()
    execution = await bench.queue({"sleep": 0})
    await bench.verdict(execution, SUCCEEDED, within=10)
    await make_due(bench, execution)

    async def done() -> bool:
        return (await bench.row(execution))["log_compaction_after"] is None

    await eventually(done, 10, what="compaction")
    assert await archived(bench, execution) is None


@together
async def test_a_log_of_work_cancelled_between_attempts_is_moved_as_well(bench: Bench) -> None:
    worker = await bench.worker()
    execution = await bench.queue({"lines": 5}, {"sleep": 60})
    await bench.until_line(execution, "attempt 1 line 5")
    worker.terminate()
    await worker.wait_exit()
    await bench.cancel(execution)
    row = await bench.row(execution)
    assert (row["status"], row["attempt"]) == ("CANCELLED", 1)
    await bench.worker()
    archive = await eventually(lambda: archived(bench, execution), 10, what="the archive")
    assert archive["blocks"][0][1] == row["log_sequence"] >= 5


async def test_a_worker_killed_while_moving_a_log_loses_no_line(bench: Bench) -> None:
    worker = await bench.worker()
    execution = await bench.queue({"lines": 3_000, "width": 100})
    await bench.verdict(execution, SUCCEEDED, within=15)
    before = await bench.lines(execution)
    async with bench.db.acquire() as connection, storage_of(bench) as storage:
        transaction = connection.transaction()
        await transaction.start()
        # Whoever deletes these rows waits for us: that is the moment between the object and the deletion.
        await connection.execute("SELECT 1 FROM log_chunks WHERE execution_id = $1 FOR UPDATE", execution)
        await make_due(bench, execution)

        async def is_between() -> bool:
            waiting = await bench.db.fetchval(
                """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND query LIKE 'DELETE FROM log_chunks%'"""
            )
            return bool(waiting) and await storage.head(log_compaction.log_key(execution)) is not None

        await eventually(is_between, 10, what="a worker between the object and the deletion")
        worker.kill()
        await worker.wait_exit()
        await transaction.rollback()

        async def nobody_works() -> bool:
            return not await bench.db.fetchval(
                """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND query LIKE 'DELETE FROM log_chunks%'"""
            )

        await eventually(nobody_works, 10, what="the end of the dead worker's session")
        assert await archived(bench, execution) is None
        assert await bench.lines(execution) == before
        await bench.worker()
        await make_due(bench, execution)
        await eventually(lambda: archived(bench, execution), 10, what="the archive")
        await check_archive(bench, storage, execution, before)


async def finished_log(bench: Bench, lines: int) -> UUID:
    """An execution that has ended with so many lines in chunks of ten."""
    execution = await bench.queue({"lines": 1})
    async with bench.db.acquire() as connection:
        async with connection.transaction():
            claim = await leases.claim(
                connection, bench.kind, worker="test", lease_seconds=60, max_running_per_owner=10
            )
        assert claim is not None
        for first in range(0, lines, 10):
            new = [NewLine(number, LogLevel.INFO, f"line {number}") for number in range(first, first + 10)]
            assert await logs.append(connection, claim, after_sequence=first, lines=new)
        assert await leases.finish(connection, claim, SUCCEEDED, compact_log_after_seconds=3_600)
    return execution


async def test_who_moves_a_log_too_late_changes_nothing(bench: Bench) -> None:
    execution = await finished_log(bench, 50)
    before = await bench.lines(execution)
    async with storage_of(bench) as storage:
        await make_due(bench, execution)
        assert await log_compaction.compact_due(bench.db, storage) == 1
        await check_archive(bench, storage, execution, before)
        # As one finds it who took the log for due before, and reads it after, another has moved it.
        await make_due(bench, execution)
        await log_compaction.compact_due(bench.db, storage)
        await check_archive(bench, storage, execution, before)


async def test_half_a_log_is_never_moved(bench: Bench) -> None:
    execution = await finished_log(bench, 50)
    async with storage_of(bench) as storage:
        await bench.db.execute("DELETE FROM log_chunks WHERE execution_id = $1 AND first_sequence <= 20", execution)
        left = await bench.chunks(execution)
        await make_due(bench, execution)
        await log_compaction.compact_due(bench.db, storage)
        assert await archived(bench, execution) is None
        assert await bench.chunks(execution) == left
        assert await storage.head(log_compaction.log_key(execution)) is None
    await bench.db.execute("UPDATE executions SET log_compaction_after = NULL WHERE id = $1", execution)


async def test_a_store_that_fails_costs_only_time(bench: Bench) -> None:
    execution = await finished_log(bench, 20)
    before = await bench.lines(execution)
    await make_due(bench, execution)
    worker = await bench.worker(
        STORAGE_BACKEND="s3", S3_ENDPOINT_URL="http://127.0.0.1:1", S3_ACCESS_KEY_ID="a", S3_SECRET_ACCESS_KEY="b"
    )
    await worker.wait_event("sweep_failed")
    assert await archived(bench, execution) is None
    assert await bench.lines(execution) == before
    await bench.verdict(await bench.queue({"lines": 1}), SUCCEEDED, within=10)
    assert await worker.stop() == 0
