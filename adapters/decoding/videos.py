"""Videos: their container, their first picture stream, and a frame of it.

Runs in the child. The container must be the announced one; nothing but the file itself is opened, whatever it refers
to. A file that ends before its boxes do is refused, other damage where it meets the frame that is shown.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, BinaryIO, Final

import av
import av.error
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from adapters.decoding.findings import Found, Rejection
from adapters.decoding.pictures import thumbnail

SHOWN_AT: Final = 0.1
"""Which part of a video its thumbnail is from."""

_DEMUXERS: Final = {"video/mp4": "mp4", "video/quicktime": "mov", "video/webm": "webm"}
_QUICKTIME_BRAND: Final = b"qt  "
_EBML: Final = b"\x1a\x45\xdf\xa3"
_DOC_TYPE: Final = b"\x42\x82"
_HEAD_BYTES: Final = 4_096
_MAX_BOXES: Final = 100_000
_MAX_TRIES: Final = 200
_OPTIONS: Final = {"protocol_whitelist": "file", "enable_drefs": "0", "use_absolute_path": "0"}


def look(order: Mapping[str, Any]) -> Found:
    """The size, upright, the length and a frame of a video; raises Rejection."""
    av.logging.set_level(av.logging.PANIC)
    content_type = order["contentType"]
    with open(order["path"], "rb") as file:
        _check_container(file, content_type)
    try:
        with av.open(order["path"], format=_DEMUXERS[content_type], options=dict(_OPTIONS)) as container:
            return _look(container, order)
    except (av.error.FFmpegError, OSError, ValueError):
        raise Rejection("The video is broken, or in a coding that is not known here.") from None


def _look(container: InputContainer, order: Mapping[str, Any]) -> Found:
    streams = [each for each in container.streams.video if Disposition.attached_pic not in each.disposition]
    if not streams:
        raise Rejection("The file has no moving picture.")
    stream = streams[0]
    if not 1 <= stream.codec_context.width * stream.codec_context.height <= order["maxPixels"]:
        raise Rejection(f"A picture of a video has 1 to {order['maxPixels']:,} pixels.")
    # Each thread of a decoder holds frames of its own.
    stream.codec_context.thread_count = 1
    seconds = _seconds(container, stream)
    frame = _frame(container, stream, seconds)
    if frame.width * frame.height > order["maxPixels"]:
        raise Rejection(f"A picture of a video has at most {order['maxPixels']:,} pixels.")
    image = frame.to_image()  # type: ignore[no-untyped-call] # by the library
    if frame.rotation:
        image = image.rotate(frame.rotation, expand=True)
    width, height = image.size
    return Found("VIDEO", width=width, height=height, duration_seconds=seconds, thumbnail=thumbnail(image))


def _seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """How long it lasts; None where the file does not say, as live recordings do not."""
    if container.duration is not None and container.duration > 0:
        return container.duration / av.time_base
    if stream.duration is not None and stream.time_base and stream.duration > 0:
        return float(stream.duration * stream.time_base)
    return None


def _frame(container: InputContainer, stream: VideoStream, seconds: float | None) -> VideoFrame:
    """A frame near the place that is shown, else the first one; raises Rejection when there is none."""
    for start in (int((seconds if seconds is not None else 0.0) * SHOWN_AT * av.time_base), 0):
        try:
            container.seek(start)
            for tries, frame in enumerate(container.decode(stream)):
                if frame.pts is None or frame.time * av.time_base >= start or tries >= _MAX_TRIES:
                    return frame
        except av.error.FFmpegError:
            continue
    raise Rejection("No picture of the video can be decoded.")


def _check_container(file: BinaryIO, content_type: str) -> None:
    """Refuse what is another container than announced, or cut off."""
    head = file.read(_HEAD_BYTES)
    if content_type == "video/webm":
        if not head.startswith(_EBML) or _doc_type(head) != b"webm":
            raise Rejection("The file is no WebM video.")
        return
    is_quicktime = head[4:8] != b"ftyp" or head[8:12] == _QUICKTIME_BRAND
    if is_quicktime is not (content_type == "video/quicktime"):
        raise Rejection(
            "The file is no MP4 video." if content_type == "video/mp4" else "The file is no QuickTime movie."
        )
    _walk_boxes(file)


def _doc_type(head: bytes) -> bytes:
    """The DocType of an EBML head (RFC 8794 §11.2.6), whose length is one byte."""
    place = head.find(_DOC_TYPE)
    if place < 0 or place + 3 > len(head):
        return b""
    return head[place + 3 : place + 3 + (head[place + 2] & 0x7F)].rstrip(b"\0")


def _walk_boxes(file: BinaryIO) -> None:
    """Refuse a file that ends within a box (ISO/IEC 14496-12 §4.2)."""
    end = file.seek(0, os.SEEK_END)
    place = 0
    for _ in range(_MAX_BOXES):
        if place == end:
            return
        file.seek(place)
        head = file.read(16)
        size = int.from_bytes(head[:4])
        if size == 1:
            size = int.from_bytes(head[8:16])
        elif size == 0:
            return  # the last box, to the end of the file
        if size < 8 or place + size > end:
            break
        place += size
    raise Rejection("The video is cut off or broken.")
