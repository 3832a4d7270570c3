"""What the child of the decoders tells: what it found, or why the file is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

THUMBNAIL_PIXELS: Final = 512
"""The longer side of a thumbnail, at most."""


class Rejection(Exception):
    """The file is not what it was announced as, or more than we take; the message is for people."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a file holds; the thumbnail is WebP."""

    kind: str
    width: int | None = None
    height: int | None = None
    pages: int | None = None
    duration_seconds: float | None = None
    thumbnail: bytes | None = None
