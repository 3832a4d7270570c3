"""The loop's own lag: what blocks it is seen, said aloud when it is long, and forgotten after a while."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from adapters import loop_lag
from adapters.loop_lag import LoopLag
from tests.harness.waiting import eventually


async def test_a_block_is_measured_and_logged() -> None:
    lag = LoopLag()
    with capture_logs() as logs, lag.watched():
        await asyncio.sleep(0)
        time.sleep(loop_lag.WARN_SECONDS + 2 * loop_lag.TICK_SECONDS)  # noqa: ASYNC251 - the block is the point
        await eventually(lambda: lag.worst_milliseconds >= loop_lag.WARN_SECONDS * 1_000)
    (event,) = [each for each in logs if each["event"] == "loop_lag"]
    assert event["milliseconds"] == lag.worst_milliseconds


async def test_a_block_is_forgotten_after_two_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_lag, "WINDOW_SECONDS", 0.1)
    lag = LoopLag()
    with lag.watched():
        time.sleep(0.2)  # noqa: ASYNC251 - the block is the point
        await eventually(lambda: lag.worst_milliseconds >= 100)
        await eventually(lambda: lag.worst_milliseconds < 100)


async def test_nothing_is_watched_once_it_is_closed() -> None:
    lag = LoopLag()
    with lag.watched():
        pass
    time.sleep(2 * loop_lag.TICK_SECONDS)  # noqa: ASYNC251 - the block is the point
    await asyncio.sleep(0)
    assert lag.worst_milliseconds == 0
