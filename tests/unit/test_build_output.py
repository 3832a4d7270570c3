"""What a build prints becomes lines: masked, plain, bounded, with levels that help and a word about what went wrong."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.sandbox.contract import StopBuild
from models.executions import Claim
from models.leases import LeaseLost
from models.logs import MAX_LINE_BYTES, LogLevel, NewLine
from tasks.build.output import MAX_MESSAGE_CHARACTERS, TAIL_LINES, BuildOutput, level_of
from tasks.log_writer import LogWriter
from tasks.masking import Masker

SECRETS = [("TOKEN", "geheim-wort-17"), ("PEM", "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\n-----END KEY-----\n")]
MEBIBYTE = 2**20


@dataclass
class MemoryLedger:
    """Keeps what the log would store."""

    lines: list[NewLine] = field(default_factory=list)
    is_lost: bool = False

    async def append_lines(self, claim: Claim, after_sequence: int, lines: list[NewLine]) -> None:
        if self.is_lost:
            raise LeaseLost
        self.lines += lines

    def announce_lines(self, claim: Claim, last_sequence: int) -> None:
        return None


@dataclass
class Printed:
    """An output, its log, and what is in the log."""

    output: BuildOutput
    log: LogWriter
    ledger: MemoryLedger

    async def write(self, *chunks: bytes, is_error: bool = False) -> None:
        for chunk in chunks:
            await self.output.write(chunk, is_error=is_error)

    async def stored(self) -> list[NewLine]:
        await self.log.flush()
        return self.ledger.lines

    async def messages(self) -> list[str]:
        return [line.message for line in await self.stored()]


@asynccontextmanager
async def printing(
    *, limit_bytes: int = 64 * MEBIBYTE, secrets: list[tuple[str, str]] = SECRETS
) -> AsyncIterator[Printed]:
    claim = Claim(
        execution_id=UUID(int=1),
        kind="TEST",
        owner_id=UUID(int=2),
        attempt=1,
        stage="BUILDING",
        log_sequence=0,
        log_bytes=0,
        remaining_seconds=60,
    )
    ledger = MemoryLedger()
    log = LogWriter(ledger, claim, head_bytes=64 * MEBIBYTE, tail_bytes=MEBIBYTE)
    task = asyncio.create_task(log.run())
    try:
        yield Printed(BuildOutput(log, Masker(secrets), limit_bytes=limit_bytes), log, ledger)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- too much


async def test_a_build_that_prints_too_much_is_stopped_after_what_it_may_print() -> None:
    async with printing(limit_bytes=1_000) as printed:
        await printed.write(b"x" * 98 + b"\n")
        assert not printed.output.exceeded
        with pytest.raises(StopBuild, match="1000 bytes"):
            await printed.write((b"y" * 99 + b"\n") * 20, is_error=True)
        assert printed.output.exceeded
        with pytest.raises(StopBuild):
            await printed.write(b"more\n")
        await printed.output.close()
        assert await printed.messages() == ["x" * 98, *["y" * 99] * 9, "y"]


async def test_exactly_the_limit_is_allowed() -> None:
    async with printing(limit_bytes=1_000) as printed:
        await printed.write(b"x" * 1_000)
        await printed.write(b"")
        assert not printed.output.exceeded


async def test_a_lost_lease_ends_the_build() -> None:
    async with printing() as printed:
        printed.ledger.is_lost = True

        async def write_on() -> None:
            while True:
                await printed.write(b"line\n" * 100)

        with pytest.raises(LeaseLost):
            await write_on()


# -- secrets


@given(st.lists(st.integers(0, 400), max_size=30))
@settings(deadline=None)
async def test_no_secret_reaches_the_log_wherever_output_is_cut(cuts: list[int]) -> None:
    text = (
        b"TOKEN=geheim-wort-17\n\x1b[32mgeheim\x1b[39m-wort-17\r\n10%\rgeheim-wort-17 20%\n"
        b"R2VoZWltZ2VoZWltLXdvcnQtMTc=\n-----BEGIN KEY-----\r\n  MIIEvQIBADANBgkq\n"
        b"geh\x00eim-w\x08ort-17 \xffgeheim-wort-17"
    )
    async with printing() as printed:
        places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
        await printed.write(*(text[start:end] for start, end in zip(places, [*places[1:], None], strict=True)))
        await printed.output.close()
        assert await printed.messages() == [
            "TOKEN=***",
            "***",
            "*** 20%",
            "R2VoZWlt***c=",
            "***",
            "  ***",
            "*** \ufffd***",
        ]
        shown = " ".join([*printed.output.tail, printed.output.last_error_line() or ""])
        assert "geheim-wort" not in shown


async def test_a_secret_between_two_pieces_of_a_long_line_is_masked() -> None:
    async with printing() as printed:
        await printed.write(b"x" * (MAX_LINE_BYTES - 5) + b"geheim-", b"wort-17" + b"y" * MAX_LINE_BYTES)
        await printed.output.close()
        assert "".join(await printed.messages()) == "x" * (MAX_LINE_BYTES - 5) + "***" + "y" * MAX_LINE_BYTES


async def test_what_a_command_prints_on_both_streams_is_masked_on_each() -> None:
    async with printing() as printed:
        await printed.write(b"a geheim-")
        await printed.write(b"b geheim-", is_error=True)
        await printed.write(b"wort-17\n")
        await printed.write(b"wort-17\n", is_error=True)
        assert await printed.messages() == ["a ***", "b ***"]


# -- lines


async def test_lines_arrive_as_they_are_complete_and_the_rest_at_the_end_of_the_phase() -> None:
    async with printing() as printed:
        await printed.write(b"one\n\ntwo", b" and more\nthr", "ée".encode()[:2])
        assert await printed.messages() == ["one", "", "two and more"]
        await printed.write("ée".encode()[2:] + b" geheim-")  # which may be the beginning of a secret
        await printed.output.close()
        await printed.output.close()
        assert await printed.messages() == ["one", "", "two and more", "thrée geheim-"]
        printed.log.stage = "UPLOADING"
        await printed.write(b"next phase\n")
        assert [(line.message, line.stage) for line in (await printed.stored())[-2:]] == [
            ("thrée geheim-", "BUILDING"),
            ("next phase", "UPLOADING"),
        ]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"10%\r50%\r100%\n", ["100%"]),
        (b"done\r\n", ["done"]),
        (b"100%\r\r\n", ["100%"]),
        (b"100%\r    \r\n", ["100%"]),
        (b"\x1b[2K\x1b[1Gfetching 1\x1b[2K\x1b[1Gfetching 2\n", ["fetching 2"]),
        (b"\r\n\r\n", ["", ""]),
        (b"\x1b[1m\x1b[32m\xe2\x9c\x93\x1b[39m built\x1b[22m\n", ["✓ built"]),
        (b"\xff\xfe\n", ["\ufffd\ufffd"]),
        (b"tab\there\n", ["tab\there"]),
    ],
)
async def test_a_line_shows_what_a_terminal_would_show_last(written: bytes, shown: list[str]) -> None:
    async with printing() as printed:
        await printed.write(*(bytes([byte]) for byte in written))
        assert await printed.messages() == shown


async def test_a_line_without_end_leaves_in_marked_pieces_and_is_not_kept() -> None:
    async with printing() as printed:
        await printed.write(b"error: ", *["ü".encode() * 500 for _ in range(100)], b"\nshort\n")
        lines = await printed.stored()
        assert "".join(line.message for line in lines) == "error: " + "ü" * 50_000 + "short"
        assert [line.is_continuation for line in lines] == [False, *[True] * (len(lines) - 2), False]
        assert {line.level for line in lines[:-1]} == {LogLevel.ERROR}
        assert lines[-1].level is LogLevel.INFO
        assert max(len(line.message.encode()) for line in lines) <= MAX_LINE_BYTES


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r\r\n"])
@pytest.mark.parametrize("more", [-1, 0, 1, 2, 3, 800])
async def test_a_long_line_loses_nothing_wherever_it_ends(more: int, end: bytes) -> None:
    written = b"x" * (2 * MAX_LINE_BYTES + more) + end
    for cut in range(len(written) - 4, len(written) + 1):
        async with printing() as printed:
            await printed.write(written[:cut], written[cut:], b"next\n")
            *pieces, after = await printed.messages()
            assert (b"".join(piece.encode() for piece in pieces), after) == (written.rstrip(), "next")
            assert all(pieces)


@pytest.mark.parametrize(
    "written", [b"x" * 10_000, b"99%\r" * 2_500, b"\x1b]" + b"x" * 9_998, b"\x1b[2K\x1b[1G" * 1_250]
)
async def test_memory_is_bounded_without_any_line_feed(written: bytes) -> None:
    async with printing() as printed:
        await printed.write(written)
        tracemalloc.start()
        try:
            for _ in range(200):
                await printed.write(written)
                await printed.log.flush()
                printed.ledger.lines.clear()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 400_000


async def test_progress_without_any_line_feed_ends_in_its_last_state() -> None:
    async with printing() as printed:
        for percent in range(10_001):
            await printed.write(f"{percent / 100:6.2f}%\r".encode())
        await printed.output.close()
        assert await printed.messages() == ["100.00%"]


async def test_one_write_that_is_huge_lets_others_run() -> None:
    """Renewals of the lease run on the same loop."""
    async with printing() as printed:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(count())
        await printed.write(b"line\r" * 100_000)
        task.cancel()
        assert turns >= 10


# -- levels


@pytest.mark.parametrize(
    "line",
    [
        "npm ERR! code ELIFECYCLE",
        'npm error Missing script: "build"',
        "Error: Cannot find module 'x'",
        "TypeError: x is not a function",
        "src/a.ts(3,5): error TS2304: Cannot find name 'x'.",
        "src/a.ts:3:5 - error TS2304: Cannot find name 'x'.",
        "a.c:1:2: fatal error: x.h: No such file or directory",
        '✘ [ERROR] Could not resolve "x"',
        "ERROR in ./src/index.js",
        "Module not found: Error: Can't resolve 'x'",
        "make: *** [all] Error 2",
        "fatal: repository not found",
        " ERR_PNPM_OUTDATED_LOCKFILE  Cannot install",
        "Traceback (most recent call last):",
        "Failed to compile.",
        "✗ Build failed in 123ms",
    ],
)
def test_lines_that_report_an_error_have_its_level(line: str) -> None:
    assert level_of(line) is LogLevel.ERROR


@pytest.mark.parametrize(
    "line",
    [
        "npm warn deprecated glob@7.2.3: no longer supported",
        "a.c:1:2: warning: unused variable",
        "(node:12) [DEP0040] DeprecationWarning: The punycode module is deprecated.",
        "⚠ Warning: chunk is large",
        "WARN  Issues with peer dependencies found",
        "12:00:01 PM [vite] warning: x",
    ],
)
def test_lines_that_warn_have_their_level(line: str) -> None:
    assert level_of(line) is LogLevel.WARNING


@pytest.mark.parametrize(
    "line",
    [
        "Found 0 errors",
        "dist/error-page.js  12 kB",
        "src/errors.test.js passed",
        "no warnings",
        "✓ error page (3 ms)",
        "",
    ],
)
def test_lines_that_only_hold_such_a_word_are_plain(line: str) -> None:
    assert level_of(line) is LogLevel.INFO


async def test_the_stream_does_not_make_the_level() -> None:
    async with printing() as printed:
        await printed.write(b"Receiving objects: 100%\n", is_error=True)
        await printed.write(b"src/a.ts(3,5): error TS2304: Cannot find name 'x'.\nok\n")
        assert [line.level for line in await printed.stored()] == [LogLevel.INFO, LogLevel.ERROR, LogLevel.INFO]


# -- what went wrong


@pytest.mark.parametrize(
    ("printed_text", "told"),
    [
        ("", None),
        ("\n \n", None),
        ("one\ntwo\n\n", "two"),
        ("an error happened\nbye\n", "an error happened"),
        (
            'npm error Missing script: "build"\nnpm error code E1\n'
            "npm error A complete log of this run can be found in: /root/.npm/_logs/x-debug-0.log\n",
            'npm error Missing script: "build"',
        ),
        ("npm ERR! code ELIFECYCLE\nbye\n", "npm ERR! code ELIFECYCLE"),
        (
            "error during build:\nCould not resolve './x' from src/a.js\n    at y (z.js:1:2)\n",
            "error during build: Could not resolve './x' from src/a.js",
        ),
        ("a.ts(1,1): error TS1: first\nmake: *** [all] Error 2\n", "a.ts(1,1): error TS1: first"),
        ("Error: geheim-wort-17 is wrong\n", "Error: *** is wrong"),
    ],
)
async def test_the_line_that_tells_most_is_found(printed_text: str, told: str | None) -> None:
    async with printing() as printed:
        await printed.write(printed_text.encode())
        await printed.output.close()
        assert printed.output.last_error_line() == told


async def test_what_is_remembered_is_bounded_and_of_this_phase() -> None:
    async with printing() as printed:
        await printed.write(b"error: of the phase before\n")
        await printed.output.close()
        assert printed.output.last_error_line() == "error: of the phase before"
        await printed.write(b"fine\n")
        assert printed.output.last_error_line() == "fine"
        await printed.write(b"".join(b"%d\n\n" % number for number in range(1_000)))
        assert printed.output.tail == tuple(str(number) for number in range(1_000 - TAIL_LINES, 1_000))
        assert printed.output.last_error_line() == "999"
        await printed.write(b"error: " + b"x" * 5_000 + b"\n")
        await printed.write(b"error: " + b"y" * 50_000)  # the rest of a line tells nothing by itself
        await printed.output.close()
        told = printed.output.last_error_line()
        assert told is not None
        assert told.startswith("error: yyy")
        assert len(told) == len(printed.output.tail[-1]) == MAX_MESSAGE_CHARACTERS


# -- speed


async def test_output_costs_little() -> None:
    secrets = [(f"KEY{number}", f"{number * 7919}/secret+{number}") for number in range(20)]
    block = b"transforming src/components/Thing.tsx (412 modules) in 33 ms, gzip 12.3 kB\n" * 3_000
    async with printing(secrets=secrets) as printed:
        began = time.process_time()
        for _ in range(10):
            await printed.write(block)
        await printed.log.flush()
        seconds = time.process_time() - began
    assert seconds / 30_000 < 40e-6
