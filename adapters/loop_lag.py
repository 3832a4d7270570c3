"""How late the event loop is: what blocks it makes everybody wait, and shows in no trace of a request.

A timer that should come every fifty milliseconds says by how much it did not. A turn that lasts a quarter of a second
or longer is logged as `loop_lag`; the worst of the last ten to twenty seconds is for whoever asks. A block is seen
from the timer's next moment on, so up to fifty milliseconds of it are missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

TICK_SECONDS: Final = 0.05
WINDOW_SECONDS: Final = 10.0
WARN_SECONDS: Final = 0.25

_log = structlog.get_logger("switchyard.loop")


class LoopLag:
    """Watches the loop that it is opened on."""

    def __init__(self) -> None:
        self._worst = 0.0
        self._worst_before = 0.0
        self._window_ends = 0.0
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def worst_milliseconds(self) -> float:
        """The longest delay lately, in milliseconds; 0 unless it watches."""
        return round(max(self._worst, self._worst_before) * 1_000, 1)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the running loop for as long as this is open."""
        loop = asyncio.get_running_loop()
        self._window_ends = loop.time() + WINDOW_SECONDS
        self._arm(loop)
        try:
            yield
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due = loop.time() + TICK_SECONDS
        self._timer = loop.call_at(self._due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if now >= self._window_ends:
            self._worst_before, self._worst = self._worst, 0.0
            self._window_ends = now + WINDOW_SECONDS
        late = max(0.0, now - self._due)
        self._worst = max(self._worst, late)
        if late >= WARN_SECONDS:
            _log.warning("loop_lag", milliseconds=round(late * 1_000, 1))
        self._arm(loop)
