"""What an uploaded file is: the door to the decoders, for the API.

Invariants: no byte of a file is decoded in this process; a file that exhausts its memory or its processor time, or
breaks its decoder, is rejected and costs no more than that; few files are looked into at once, a few more wait, and the
rest is told to come later. A decoder that is late without having used its processor time means a busy machine, and one
that ends with a code of its own an installation that is broken: neither is a fault of the file, which stays.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from adapters import limited_child
from adapters.limited_child import ChildEnd
from adapters.processes import CannotStart, TreeStillAlive
from errors import ServiceUnavailable
from models.media import MediaKind

CONTENT_TYPES: Final[Mapping[str, MediaKind]] = {
    **dict.fromkeys(
        ("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/tiff"), MediaKind.IMAGE
    ),
    "application/pdf": MediaKind.PDF,
    **dict.fromkeys(("video/mp4", "video/webm", "video/quicktime"), MediaKind.VIDEO),
}
"""What is taken, and what it is. Nothing that carries script, and no archives."""

CPU_SECONDS: Final = 12
WALL_SECONDS: Final = 18.0
MAX_FRAMES: Final = 1_000
MAX_PAGES: Final = 10_000
WAITING_PER_DECODER: Final = 4
WAIT_SECONDS: Final = 6.0
_MAX_ANSWER_BYTES: Final = 2 * 2**20
_CHECKOUT: Final = Path(__file__).parent.parent.parent
_log = structlog.get_logger("switchyard.media")


class Rejected(Exception):
    """The file is not what it was announced as, or more than we take; the message is for people."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a file holds. Sizes are upright; the thumbnail is WebP, and None where there is nothing to show."""

    kind: MediaKind
    width: int | None
    height: int | None
    pages: int | None
    duration_seconds: float | None
    thumbnail: bytes | None


class Decoders:
    """The decoders of one process; `places` files are looked into at once."""

    def __init__(self, *, places: int, memory_bytes: int, max_pixels: int) -> None:
        self._free = asyncio.Semaphore(places)
        self._places = places
        self._present = 0
        self._memory_bytes = memory_bytes
        self._max_pixels = max_pixels

    async def inspect(self, path: Path, *, content_type: str) -> Inspected:
        """What a file of an announced type is; the path is absolute.

        Raises Rejected, and ServiceUnavailable when too many wait or the decoder cannot be used.
        """
        if self._present >= self._places * (1 + WAITING_PER_DECODER):
            raise _busy()
        self._present += 1
        try:
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    await self._free.acquire()
            except TimeoutError:
                raise _busy() from None
            try:
                return await self._look(path, content_type)
            finally:
                self._free.release()
        finally:
            self._present -= 1

    async def _look(self, path: Path, content_type: str) -> Inspected:
        order = {
            "path": str(path),
            "contentType": content_type,
            "maxPixels": self._max_pixels,
            "maxFrames": MAX_FRAMES,
            "maxPages": MAX_PAGES,
        }
        try:
            end = await limited_child.run(
                [sys.executable, "-P", "-s", "-m", "adapters.decoding.child", json.dumps(order)],
                memory_bytes=self._memory_bytes,
                cpu_seconds=CPU_SECONDS,
                wall_seconds=WALL_SECONDS,
                max_output_bytes=_MAX_ANSWER_BYTES,
                environment={**limited_child.ENVIRONMENT, "PYTHONPATH": str(_CHECKOUT)},
            )
        except (CannotStart, TreeStillAlive) as error:
            _log.error("decoder_not_started", error=str(error))
            raise _broken() from None
        return _read(end)


def _read(end: ChildEnd) -> Inspected:
    if end.is_late:
        _log.warning("decoder_late")
        raise _busy()
    if end.signal in (signal.SIGXCPU, signal.SIGKILL):
        raise Rejected("Decoding the file takes longer than it may.")
    if end.exit_code and not end.is_cut:
        _log.error("decoder_failed", exit_code=end.exit_code, errors=end.errors.decode(errors="replace"))
        raise _broken()
    if not end.is_good:
        _log.info("decoder_broken", exit_code=end.exit_code, signal=end.signal)
        raise Rejected("The file breaks its decoder, or takes more memory than it may.")
    head, _, thumbnail = end.output.partition(b"\n")
    found: dict[str, Any] = orjson.loads(head)
    if "rejection" in found:
        raise Rejected(str(found["rejection"]))
    return Inspected(
        kind=MediaKind(found["kind"]),
        width=found["width"],
        height=found["height"],
        pages=found["pages"],
        duration_seconds=found["durationSeconds"],
        thumbnail=thumbnail[: found["thumbnailBytes"]] or None,
    )


def _broken() -> ServiceUnavailable:
    return ServiceUnavailable("Files cannot be looked into at the moment.", retryAfterSeconds=5)


def _busy() -> ServiceUnavailable:
    return ServiceUnavailable("Too many files are being looked into; try again in a moment.", retryAfterSeconds=5)
