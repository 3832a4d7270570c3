"""What every object store promises: the Protocol, the values that cross it, its errors, the rules for keys.

Invariant: an object is visible only when it is complete and its bytes match the checksum that was promised;
a reader sees the old object or the new one, never a mixture. Keys are made by us, never by clients. The
module knows no driver; retention and who may see an object are the callers' business.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import errors

MAX_KEY_BYTES = 512
PART_BYTES = 8 * 2**20
"""Memory that an upload of any length takes, and the size of the parts it is sent in."""

MIN_PART_BYTES = 5 * 2**20
"""S3 refuses smaller parts, save the last (S3 user guide, multipart upload limits); both drivers do."""

MAX_PARTS = 10_000
MAX_EXPIRES_SECONDS = 604_800
"""A signed URL lives seven days at most: the limit of AWS signature version 4."""

INLINE_CONTENT_TYPES = frozenset(
    {"image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "video/mp4", "video/webm", "video/quicktime"}
)
"""Types that cannot carry script; everything else is a download, whatever the caller asks for."""

_SHA256_HEX = re.compile(r"[0-9a-f]{64}")
_CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(?:; ?[\w-]+=[\w.+-]+)*", re.ASCII)


class ObjectNotFound(errors.NotFound):
    """No object has this key."""

    def __init__(self, key: str) -> None:
        super().__init__("This file does not exist, or no longer.")
        self.key = key


class StorageUnavailable(errors.ServiceUnavailable):
    """The store does not answer in time, refuses us, or its disk is full; trying later may help."""


class StorageConflict(errors.Conflict):
    """Something exists where nothing may be overwritten, or a multipart upload is over or lacks a part."""


class ChecksumMismatch(errors.ValidationFailed):
    """The bytes are not the promised ones; nothing was stored."""


class InvalidKey(errors.ValidationFailed):
    """The key breaks the rules of `check_key`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """An object as the store describes it; `None` where the store cannot say.

    Listings know neither `content_type` nor `sha256`. `sha256` is also unknown on S3 for an object that came in
    through the multipart calls, or as a stream of more than `PART_BYTES` whose checksum was not given beforehand.
    """

    key: str
    size: int
    etag: str
    content_type: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredObject(ObjectInfo):
    """An object that has just been written: everything about it is known. `sha256` is lower-case hex."""

    content_type: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignedPut:
    """How to upload one object by plain HTTP: send exactly these headers, and a body of the promised size."""

    url: str
    headers: Mapping[str, str]
    method: str = "PUT"


@dataclass(frozen=True, slots=True, kw_only=True)
class MultipartUpload:
    """An upload in parts that outlives the process: keep both fields to go on later."""

    key: str
    upload_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedPart:
    """A part that the store has; `number` counts from 1."""

    number: int
    size: int
    etag: str
    sha256: str


class Storage(Protocol):
    """An object store. Every method may raise StorageUnavailable, and InvalidKey where a key is given.

    Memory use does not grow with the size of objects. Every call to a remote store has a deadline.
    """

    async def put(
        self, key: str, data: AsyncIterable[bytes] | bytes, *, content_type: str, sha256: str | None = None
    ) -> StoredObject:
        """Store an object, replacing one of the same key; on failure or cancellation nothing changes.

        Raises ChecksumMismatch when `sha256` (hex) is given and the bytes differ.
        """
        ...

    async def put_file(self, key: str, path: Path, *, content_type: str, sha256: str | None = None) -> StoredObject:
        """Store the content of a local file; as `put`. Raises FileNotFoundError when there is no such file."""
        ...

    def get(self, key: str, *, start: int | None = None, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` up to, not including, `end`; like a slice, a range past the end yields less.

        Raises ObjectNotFound at the first chunk. Close the generator (`contextlib.aclosing`) when leaving early.
        """
        ...

    async def head(self, key: str) -> ObjectInfo | None:
        """Describe an object, or None when there is none."""
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; keys without an object are fine."""
        ...

    def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """Objects whose key starts with `prefix`, sorted by key, fetched in pages."""
        ...

    async def presigned_get(
        self,
        key: str,
        *,
        expires_seconds: int,
        filename: str | None = None,
        content_type: str | None = None,
        inline: bool = False,
    ) -> str:
        """A URL that reads one object until it expires; the object need not exist yet.

        It is a download unless `inline` is asked for and `content_type` is one of INLINE_CONTENT_TYPES.
        """
        ...

    async def presigned_put(
        self, key: str, *, expires_seconds: int, size: int, content_type: str, sha256: str
    ) -> PresignedPut:
        """A request that stores one new object of exactly this size, type and SHA-256 (hex); it never overwrites."""
        ...

    async def create_multipart(self, key: str, *, content_type: str) -> MultipartUpload:
        """Begin an upload in parts; nothing is visible until it is completed."""
        ...

    async def upload_part(self, upload: MultipartUpload, number: int, data: bytes) -> UploadedPart:
        """Store part `number` (1 to MAX_PARTS), replacing an earlier one. Raises StorageConflict after the end."""
        ...

    async def complete_multipart(self, upload: MultipartUpload, parts: Sequence[UploadedPart]) -> ObjectInfo:
        """Make the object of these parts, in this order, visible.

        Raises ValidationFailed when a part before the last is under MIN_PART_BYTES or the numbers do not ascend,
        StorageConflict when the upload is over or a part is not there.
        """
        ...

    async def abort_multipart(self, upload: MultipartUpload) -> None:
        """Forget an upload and its parts; forgetting twice is fine."""
        ...


def check_key(key: str) -> str:
    """The key, if it is sound: printable, relative, at most MAX_KEY_BYTES, no empty, `.` or `..` segment."""
    _check_text(key)
    if any(segment in {"", ".", ".."} for segment in key.split("/")):
        raise InvalidKey("A file key has no empty, '.' or '..' segment.")
    return key


def check_prefix(prefix: str) -> str:
    """The prefix, if keys can start with it."""
    _check_text(prefix)
    return prefix


def check_sha256(sha256: str) -> str:
    """The checksum, if it is 64 lower-case hex digits; raises ValidationFailed."""
    if not _SHA256_HEX.fullmatch(sha256):
        raise errors.ValidationFailed("sha256 must be 64 lower-case hexadecimal digits.", path=["sha256"])
    return sha256


def check_content_type(content_type: str) -> str:
    """The media type, if it can stand in a header as it is; raises ValidationFailed."""
    if len(content_type) > 200 or not _CONTENT_TYPE.fullmatch(content_type):
        raise errors.ValidationFailed("contentType must look like image/png.", path=["contentType"])
    return content_type


def check_expiry(expires_seconds: int) -> int:
    """The life of a URL, if it is between one second and MAX_EXPIRES_SECONDS; raises ValidationFailed."""
    if not 1 <= expires_seconds <= MAX_EXPIRES_SECONDS:
        raise errors.ValidationFailed("A link lives between one second and seven days.", path=["expiresIn"])
    return expires_seconds


def check_size(size: int) -> int:
    """The size, if it is not negative; raises ValidationFailed."""
    if size < 0:
        raise errors.ValidationFailed("size cannot be negative.", path=["size"])
    return size


def check_range(start: int | None, end: int | None) -> None:
    """Refuse negative offsets: they mean different things to different stores. Raises ValidationFailed."""
    if (start is not None and start < 0) or (end is not None and end < 0):
        raise errors.ValidationFailed("A range is counted from the start of the file.")


def check_part_number(number: int) -> int:
    """The number, if a part may have it; raises ValidationFailed."""
    if not 1 <= number <= MAX_PARTS:
        raise errors.ValidationFailed(f"Parts are numbered from 1 to {MAX_PARTS}.")
    return number


def check_parts(parts: Sequence[UploadedPart]) -> None:
    """Refuse what S3 would refuse on completion, so that both drivers do; raises ValidationFailed."""
    if not parts:
        raise errors.ValidationFailed("An upload needs at least one part.")
    if any(later.number <= earlier.number for earlier, later in pairwise(parts)):
        raise errors.ValidationFailed("Part numbers must ascend.")
    if any(part.size < MIN_PART_BYTES for part in parts[:-1]):
        raise errors.ValidationFailed(f"Every part but the last has at least {MIN_PART_BYTES} bytes.")


def checksum_mismatch() -> ChecksumMismatch:
    """The error both drivers raise for bytes that are not the promised ones."""
    return ChecksumMismatch("The content does not match its SHA-256 checksum.", path=["sha256"])


def _check_text(text: str) -> None:
    # isprintable also refuses lone surrogates, so that encode() cannot fail.
    if not text.isprintable() or text.startswith("/") or len(text.encode()) > MAX_KEY_BYTES:
        raise InvalidKey(f"A file key is printable, relative and at most {MAX_KEY_BYTES} bytes long.")
