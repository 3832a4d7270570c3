"""How busy this machine and this process are: processor, memory, disk and network, from the operating system.

Rates are over the time since the reader looked last; a reader that looks twice within half a second is told the same.
Nothing here waits: the readings are files of /proc and one question to the file system.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

SHORTEST_SECONDS: Final = 0.5
HOST: Final = socket.gethostname()


@dataclass(frozen=True, slots=True)
class MachineReading:
    """A machine at one moment; rates are per second, sizes in bytes, shares in percent."""

    host: str
    cpu_count: int
    cpu_percent: float
    load_average: float
    memory_total: int
    memory_used: int
    disk_total: int
    disk_free: int
    received_per_second: float
    sent_per_second: float


@dataclass(frozen=True, slots=True)
class _Counters:
    at: float
    busy: float
    passed: float
    received: int
    sent: int


class MachineMeter:
    """One reader. `folder` says which disk; `since` is another reader to go on from."""

    def __init__(self, folder: Path, *, since: MachineMeter | None = None) -> None:
        self._folder = folder
        self._before: _Counters = _count() if since is None else since._before
        self._rates: tuple[float, float, float] = (0.0, 0.0, 0.0) if since is None else since._rates

    def read(self) -> MachineReading:
        """The machine now."""
        counted, before = _count(), self._before
        seconds = counted.at - before.at
        if seconds >= SHORTEST_SECONDS:
            passed = counted.passed - before.passed
            busy = 100 * (counted.busy - before.busy) / passed if passed > 0 else 0.0
            self._rates = (
                min(100.0, max(0.0, busy)),
                max(0, counted.received - before.received) / seconds,
                max(0, counted.sent - before.sent) / seconds,
            )
            self._before = counted
        memory = psutil.virtual_memory()
        disk = disk_of(self._folder)
        return MachineReading(
            host=HOST,
            cpu_count=os.cpu_count() or 1,
            cpu_percent=round(self._rates[0], 1),
            load_average=round(os.getloadavg()[0], 2),
            memory_total=memory.total,
            memory_used=memory.total - memory.available,
            disk_total=disk[0],
            disk_free=disk[1],
            received_per_second=round(self._rates[1], 1),
            sent_per_second=round(self._rates[2], 1),
        )


class ProcessMeter:
    """What this process takes."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._process.cpu_percent(None)  # the first answer is always zero

    def read(self) -> tuple[float, int]:
        """Percent of one processor since the last look, and resident bytes."""
        return round(self._process.cpu_percent(None), 1), self._process.memory_info().rss


def disk_of(folder: Path) -> tuple[int, int]:
    """Total and free bytes of the disk that a folder is on, or will be once it is made."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    return usage.total, usage.free


def _count() -> _Counters:
    times = psutil.cpu_times()
    # Linux counts the time of guests in that of users as well.
    passed = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    idle = times.idle + getattr(times, "iowait", 0.0)
    network = psutil.net_io_counters()
    return _Counters(
        at=time.monotonic(),
        busy=passed - idle,
        passed=passed,
        received=network.bytes_recv,
        sent=network.bytes_sent,
    )
