"""The writing end of a log against a ledger in memory: batches, order, patience, limits, and the end of a lease."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from uuid import UUID

import pytest

from models.executions import Claim
from models.leases import LeaseLost
from models.logs import MAX_CHUNK_LINES, MAX_LINE_BYTES, LogLevel, NewLine, decode_lines, encode_lines
from tasks.log_writer import FLUSH_SECONDS, MAX_BATCH_BYTES, MAX_BUFFER_BYTES, LogWriter
from tests.harness.waiting import eventually

MEBIBYTE = 2**20


class MemoryLedger:
    """Takes batches as the engine does: behind the last line or not at all; waits while `is_open` is not set."""

    def __init__(self, first_sequence: int = 0) -> None:
        self.batches: list[list[NewLine]] = []
        self.times: list[float] = []
        self.announced: list[int] = []
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.is_lost = False
        self._sequence = first_sequence

    async def append_lines(self, claim: Claim, after_sequence: int, lines: list[NewLine]) -> None:
        await self.is_open.wait()
        if self.is_lost:
            raise LeaseLost
        assert after_sequence == self._sequence
        assert lines
        self._sequence += len(lines)
        self.batches.append(lines)
        self.times.append(time.monotonic())

    def announce_lines(self, claim: Claim, last_sequence: int) -> None:
        self.announced.append(last_sequence)

    @property
    def messages(self) -> list[str]:
        return [line.message for batch in self.batches for line in batch]


@asynccontextmanager
async def writing(
    ledger: MemoryLedger,
    *,
    head_bytes: int = 16 * MEBIBYTE,
    tail_bytes: int = MEBIBYTE,
    written: int = 0,
    used: int = 0,
) -> AsyncIterator[LogWriter]:
    claim = Claim(
        execution_id=UUID(int=1),
        kind="TEST",
        owner_id=UUID(int=2),
        attempt=1,
        stage="FIRST",
        log_sequence=written,
        log_bytes=used,
        remaining_seconds=60,
    )
    writer = LogWriter(ledger, claim, head_bytes=head_bytes, tail_bytes=tail_bytes)
    task = asyncio.create_task(writer.run())
    try:
        yield writer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- when the lease is lost


async def test_lost_lease_ends_flushes_and_later_writes() -> None:
    ledger = MemoryLedger()
    ledger.is_lost = True
    async with writing(ledger) as log:
        await log.info("first")
        with pytest.raises(LeaseLost):
            await log.flush()
        with pytest.raises(LeaseLost):
            await log.info("second")
        with pytest.raises(LeaseLost):
            await log.finish()
    assert ledger.batches == []
    assert log.last_sequence == 0


async def test_lost_lease_frees_writers_that_wait_for_room() -> None:
    ledger = MemoryLedger()
    ledger.is_open.clear()
    async with writing(ledger) as log:

        async def flood() -> None:
            while True:
                await log.info("x" * 8_000)

        writers = [asyncio.create_task(flood()) for _ in range(3)]
        await let_run()
        assert not any(task.done() for task in writers)
        ledger.is_lost = True
        ledger.is_open.set()
        for task in writers:
            with pytest.raises(LeaseLost):
                async with asyncio.timeout(5):
                    await task


async def let_run() -> None:
    """Let everything run that can."""
    for _ in range(1_000):
        await asyncio.sleep(0)


# -- patience


async def test_a_writer_that_is_too_fast_waits_in_bounded_memory() -> None:
    ledger = MemoryLedger()
    ledger.is_open.clear()
    written = 0

    async with writing(ledger) as log:

        async def flood() -> None:
            nonlocal written
            for number in range(10_000):
                await log.info(f"{number:05} {'x' * 994}")
                written += 1

        task = asyncio.create_task(flood())
        await let_run()
        assert not task.done()
        assert written * 1_000 <= MAX_BUFFER_BYTES + 2 * MAX_BATCH_BYTES
        ledger.is_open.set()
        async with asyncio.timeout(10):
            await task
            await log.flush()
    assert [message[:5] for message in ledger.messages] == [f"{number:05}" for number in range(10_000)]


async def test_nobody_waits_for_room_that_is_there() -> None:
    ledger = MemoryLedger()
    ledger.is_open.clear()
    async with writing(ledger) as log, asyncio.timeout(1):
        for number in range(5_000):
            await log.info(f"line {number}")


# -- batches


async def test_a_first_line_leaves_at_once_and_the_next_ones_together() -> None:
    ledger = MemoryLedger()
    async with writing(ledger) as log:
        began = time.monotonic()
        await log.info("first")
        await eventually(lambda: len(ledger.batches) == 1)
        assert ledger.times[0] - began < FLUSH_SECONDS
        for number in range(50):
            await log.info(f"line {number}")
            await asyncio.sleep(0)
        await eventually(lambda: len(ledger.messages) == 51)
        assert len(ledger.batches) == 2
        assert ledger.times[1] - ledger.times[0] >= FLUSH_SECONDS * 0.9
        assert ledger.announced == [1, 51]


@pytest.mark.parametrize(("width", "most_lines"), [(10, MAX_CHUNK_LINES), (1_000, 70), (8_000, 9)])
async def test_batches_are_bounded_in_lines_and_bytes(width: int, most_lines: int) -> None:
    ledger = MemoryLedger()
    async with writing(ledger) as log:
        for number in range(1_500):
            await log.info(f"{number} ".ljust(width, "x"))
        await log.flush()
    assert max(map(len, ledger.batches)) <= most_lines
    assert max(len(encode_lines(batch)) for batch in ledger.batches) <= MAX_BATCH_BYTES + MAX_LINE_BYTES + 100
    assert len(ledger.messages) == 1_500


async def test_flush_returns_once_everything_is_stored() -> None:
    ledger = MemoryLedger()
    async with writing(ledger) as log:
        async with asyncio.timeout(1):
            await log.flush()  # nothing to wait for
        for round in range(5):
            for number in range(700):
                await log.info(f"{round} {number}")
            await asyncio.gather(log.flush(), log.flush())
            assert len(ledger.messages) == 700 * (round + 1) == log.last_sequence


async def test_lines_carry_level_time_and_the_stage_of_their_moment() -> None:
    ledger = MemoryLedger(first_sequence=41)
    async with writing(ledger, written=41) as log:
        await log.debug("one")
        log.stage = "SECOND"
        await log.warning("two")
        await log.write(LogLevel.ERROR, "three", timestamp_ms=1_234)
        await log.flush()
    now = time.time() * 1_000
    lines = [line for batch in ledger.batches for line in batch]
    assert [(line.level, line.stage) for line in lines] == [
        (LogLevel.DEBUG, "FIRST"),
        (LogLevel.WARNING, "SECOND"),
        (LogLevel.ERROR, "SECOND"),
    ]
    assert now - 5_000 < lines[0].timestamp <= now
    assert lines[2].timestamp == 1_234
    assert ledger.announced[-1] == log.last_sequence == 44


# -- what a line may hold


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("", [""]),
        ("one\ntwo", ["one", "two"]),
        ("ends\n", ["ends", ""]),
        ("windows\r\nlines\r\n", ["windows", "lines", ""]),
        ("progress\rbar", ["progress\rbar"]),
        ("nul\x00", ["nul\ufffd"]),
        ("surrogate \ud83d alone", ["surrogate ? alone"]),
        ("\u2028 and \x85 and \x0b stay", ["\u2028 and \x85 and \x0b stay"]),
        ("x" * MAX_LINE_BYTES, ["x" * MAX_LINE_BYTES]),
        ("x" * (MAX_LINE_BYTES + 1), ["x" * MAX_LINE_BYTES, "x"]),
        ("é" * MAX_LINE_BYTES, ["é" * (MAX_LINE_BYTES // 2)] * 2),
        ("a" + "é" * 4_096, ["a" + "é" * 4_095, "é"]),
        ("€" * 2_731, ["€" * 2_730, "€"]),
    ],
)
@pytest.mark.parametrize("way", ["write", "write_lines"])
async def test_lines_are_short_storable_and_keep_every_character(message: str, expected: list[str], way: str) -> None:
    ledger = MemoryLedger()
    async with writing(ledger) as log:
        if way == "write":
            await log.write(LogLevel.INFO, message)
        else:
            await log.write_lines([NewLine(0, LogLevel.INFO, message)])
        await log.flush()
    stored = decode_lines(1, encode_lines(line for batch in ledger.batches for line in batch).decode())
    assert [line.message for line in stored] == expected
    assert all(len(line.message.encode()) <= MAX_LINE_BYTES for line in stored)
    # What was split at line feeds are lines of their own, what was split for its length are pieces of one.
    assert [line.is_continuation for line in stored] == [False, *["\n" not in message] * (len(expected) - 1)]


# -- limits


async def fill(log: LogWriter, count: int, width: int = 1_000) -> None:
    for number in range(count):
        await log.info(f"{number} ".ljust(width, "x"))


def numbers(messages: list[str]) -> list[int]:
    return [int(message.split()[0]) for message in messages if message[0].isdigit()]


async def test_a_full_log_keeps_its_head_and_its_tail() -> None:
    ledger = MemoryLedger()
    async with writing(ledger, head_bytes=100_000, tail_bytes=20_000) as log:
        await fill(log, 1_000)
        await eventually(lambda: len(ledger.messages) >= 90)
        assert len(ledger.messages) < 100, "nothing of the tail is written before the end"
        await log.finish()
    kept = numbers(ledger.messages)
    head = next(number for number, (one, following) in enumerate(pairwise(kept)) if following > one + 1)
    assert kept[: head + 1] == list(range(head + 1))
    assert kept[head + 1 :] == list(range(1_000 - (len(kept) - head - 1), 1_000))
    assert ledger.messages[head + 1] == f"… {1_000 - len(kept)} lines left out: the log is full …"
    assert 90 <= head + 1 <= 100
    assert 15 <= len(kept) - head - 1 <= 20


async def test_a_log_that_just_overflows_loses_nothing() -> None:
    ledger = MemoryLedger()
    async with writing(ledger, head_bytes=100_000, tail_bytes=20_000) as log:
        await fill(log, 105)
        await log.finish()
    assert numbers(ledger.messages) == list(range(105))
    assert len(ledger.messages) == 105, "no word of lines left out"


async def test_limits_count_bytes_and_not_characters() -> None:
    ledger = MemoryLedger()
    async with writing(ledger, head_bytes=100_000, tail_bytes=20_000) as log:
        for number in range(1_000):
            await log.info(f"{number} " + "本" * 333)
        await log.finish()
    assert 100_000 < len(encode_lines(line for batch in ledger.batches for line in batch)) < 120_000 + MAX_LINE_BYTES


async def test_a_later_attempt_goes_on_where_the_limit_stood() -> None:
    ledger = MemoryLedger()
    async with writing(ledger, head_bytes=100_000, tail_bytes=20_000, used=90_000) as log:
        await fill(log, 500)
        await log.finish()
    assert len(numbers(ledger.messages)) <= 30


async def test_a_line_after_the_end_is_still_taken() -> None:
    ledger = MemoryLedger()
    async with writing(ledger, head_bytes=100_000, tail_bytes=20_000) as log:
        await fill(log, 500)
        await log.finish()
        await log.error("the result could not be stored")
        await log.finish()
    assert ledger.messages[-1] == "the result could not be stored"
    assert sum("left out" in message for message in ledger.messages) == 1
