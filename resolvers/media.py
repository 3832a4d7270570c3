"""Media: what others may do with them. A medium is its uploader's; administrators see all.

An upload is a promise of size, type and checksum first, then an object, then a medium that was looked into. Invariants:
a row is made before its object, so no object is without one for longer than it takes to delete it; a medium is decoded
before it can be used, and by one decoder at a time here; what was decided is not decided again; objects of refused and
deleted media are removed by a message that is written with the refusal. Sums per user are checked under a lock.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any, Final
from uuid import UUID
from weakref import WeakValueDictionary

from adapters import storage
from adapters.decoding.inspection import CONTENT_TYPES, Decoders, Inspected, Rejected
from adapters.storage import PresignedPut
from errors import Conflict, PayloadTooLarge, Unauthorized, ValidationFailed
from models import database, media_queries
from models.audit import AuditEvent
from models.database import Row
from models.idempotency import once
from models.ids import Prefix, encode_id, new_id
from models.media import MediaKind, MediaStatus
from models.permissions import Actor, Permission
from models.transaction import unit_of_work
from resolvers import access, sessions, texts
from tasks import media_upkeep, outbox

MAX_PENDING: Final = 100
MAX_FILENAME_LENGTH: Final = 255
MAX_SMALL_BYTES: Final = 10 * 2**20
"""What `uploadMedia` takes; larger files go to storage by `createUpload`."""

LATE: Final = timedelta(minutes=30)
"""After its time an upload can still be completed for so long; `tasks/media_upkeep.py` clears it away later than that.
"""

MIN_LINK_SECONDS: Final = 60
MAX_LINK_SECONDS: Final = 604_800
_SHA256: Final = re.compile(r"[0-9a-fA-F]{64}")
_WRITE_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class Promise:
    """What an upload is announced as, checked; `sha256` is lower-case hex."""

    filename: str
    content_type: str
    size: int
    sha256: str


async def ready(actor: Actor, media_id: str, *, kinds: Collection[MediaKind]) -> Row:
    """A medium that the actor may see, that was checked, and that is one of these kinds.

    Raises NotFound, Conflict while it is not READY, ValidationFailed for another kind.
    """
    row = await access.medium(actor, media_id, to=Permission.MEDIA_READ)
    if row["status"] != MediaStatus.READY:
        raise Conflict("This medium is not ready: its upload was not completed, or refused.", status=row["status"])
    if row["kind"] not in kinds:
        told = ", ".join(sorted(kind.value for kind in kinds))
        raise ValidationFailed(f"This takes media of these kinds only: {told}.", kind=row["kind"])
    return row


async def page(
    actor: Actor,
    *,
    kind: MediaKind | None,
    status: MediaStatus | None,
    search: str | None,
    after: UUID | None,
    before: UUID | None,
    backwards: bool,
    limit: int,
) -> list[Row]:
    """Media that the actor may see."""
    access.allow(actor, Permission.MEDIA_READ)
    return await media_queries.visible(
        actor,
        kind=kind,
        status=status,
        search=search,
        after=after,
        before=before,
        backwards=backwards,
        limit=limit,
    )


async def count(actor: Actor, *, kind: MediaKind | None, status: MediaStatus | None, search: str | None) -> int:
    """How many there are of them."""
    access.allow(actor, Permission.MEDIA_READ)
    return await media_queries.count_visible(actor, kind=kind, status=status, search=search)


async def create_upload(
    actor: Actor,
    *,
    filename: str,
    content_type: str,
    size: int,
    sha256: str,
    idempotency_key: str | None = None,
) -> tuple[Row, PresignedPut | None]:
    """Promise an upload: the medium, and how to send it; None for a repeated call when it is not to be sent any more.

    Raises ValidationFailed and PayloadTooLarge with the path, Conflict when the user has no room.
    """
    access.allow(actor, Permission.MEDIA_WRITE)
    promise = _promise(filename, content_type, size, sha256)
    media_id = await _insert(actor, promise, idempotency_key=idempotency_key, action="createUpload")
    row = (await media_queries.find([media_id])).get(media_id)
    if row is None:
        raise Conflict("The medium that this key made is gone.", path=["input", "idempotencyKey"])
    left = await database.value(
        "SELECT extract(epoch FROM upload_until - now())::float FROM media WHERE id = $1", media_id
    )
    if row["status"] != MediaStatus.PENDING or left is None or left < 1:
        return row, None
    target = await storage.current().presigned_put(
        media_queries.object_key(media_id),
        expires_seconds=int(left),
        size=promise.size,
        content_type=promise.content_type,
        sha256=promise.sha256,
    )
    return row, target


async def complete_upload(actor: Actor, media_id: str) -> Row:
    """Look into what was uploaded, and make it a medium; again is fine.

    Raises Conflict before the file is there, ValidationFailed with the reason for one that is refused.
    """
    row = await access.medium(actor, media_id, to=Permission.MEDIA_WRITE)
    return await _complete(actor, row, None, path=["input", "id"])


async def upload(actor: Actor, *, filename: str, content_type: str, size: int, sha256: str, file: Path) -> Row:
    """A medium from a small file that is here; raises as `create_upload` and `complete_upload`."""
    access.allow(actor, Permission.MEDIA_WRITE)
    if size > MAX_SMALL_BYTES:
        raise PayloadTooLarge(
            f"A file in a form has at most {MAX_SMALL_BYTES:,} bytes; send larger ones by `createUpload`.",
            path=["input", "file"],
            maxBytes=MAX_SMALL_BYTES,
        )
    promise = _promise(filename, content_type, size, sha256, whole=["input", "file"])
    media_id = await _insert(actor, promise, idempotency_key=None, action="uploadMedia")
    await storage.current().put_file(
        media_queries.object_key(media_id), file, content_type=promise.content_type, sha256=promise.sha256
    )
    row = (await media_queries.find([media_id])).get(media_id)
    if row is None:
        raise access.missing()
    return await _complete(actor, row, file, path=["input", "file"])


async def delete(actor: Actor, media_id: str) -> None:
    """Remove a medium from wherever it is used, and its objects from storage; raises NotFound."""
    row = await access.medium(actor, media_id, to=Permission.MEDIA_WRITE)
    async with unit_of_work():
        if not await media_queries.delete(row["id"]):
            raise access.missing()
        await _record(actor, "deleteMedia", row, status=row["status"])
        await _remove_objects(row["id"])


async def link(row: Row, *, expires_in: int | None, is_thumbnail: bool) -> str | None:
    """An address of a file or its thumbnail that expires; None while there is none. Whoever has the row may see it.

    Raises ValidationFailed.
    """
    settings = sessions.settings()
    seconds = settings.download_url_seconds if expires_in is None else expires_in
    texts.within(seconds, MIN_LINK_SECONDS, MAX_LINK_SECONDS, path=["expiresIn"])
    if row["status"] != MediaStatus.READY or (is_thumbnail and not row["has_thumbnail"]):
        return None
    key = media_queries.thumbnail_key(row["id"]) if is_thumbnail else media_queries.object_key(row["id"])
    return await storage.current().presigned_get(
        key,
        expires_seconds=seconds,
        filename=f"{Path(row['filename']).stem}.webp" if is_thumbnail else row["filename"],
        content_type="image/webp" if is_thumbnail else row["content_type"],
        inline=True,
    )


# -- inside

_busy: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
_decoders: Decoders | None = None


async def _complete(actor: Actor, row: Row, file: Path | None, *, path: list[str]) -> Row:
    """Decide about a medium, once; `file` is where its content is here, if it is."""
    media_id: UUID = row["id"]
    async with _busy.setdefault(media_id, asyncio.Lock()):
        row = (await media_queries.find([media_id])).get(media_id) or {}
        if row and row["status"] == MediaStatus.PENDING:
            await _decide(actor, row, file)
            row = (await media_queries.find([media_id])).get(media_id) or {}
    if not row:
        raise access.missing()
    if row["status"] == MediaStatus.REJECTED:
        raise ValidationFailed(row["rejection"], path=path, mediaId=encode_id(Prefix.MEDIA, media_id))
    return row


async def _decide(actor: Actor, row: Row, file: Path | None) -> None:
    media_id: UUID = row["id"]
    if datetime.now(UTC) > row["upload_until"] + LATE:
        raise Conflict("The time for this upload is over; begin another one.", path=["input", "id"])
    try:
        found = await _look(row) if file is None else await _inspect(file, row["content_type"])
    except Rejected as refusal:
        async with unit_of_work():
            if await media_queries.reject(media_id, str(refusal)[:500]):
                await _record(actor, "completeUpload", row, outcome="VALIDATION_ERROR", reason=str(refusal))
                await _remove_objects(media_id)
        return
    if found.thumbnail is not None:
        await storage.current().put(media_queries.thumbnail_key(media_id), found.thumbnail, content_type="image/webp")
    async with unit_of_work():
        is_done = await media_queries.make_ready(
            media_id,
            kind=found.kind,
            width=found.width,
            height=found.height,
            pages=found.pages,
            duration_seconds=found.duration_seconds,
            has_thumbnail=found.thumbnail is not None,
        )
        if is_done:
            await _record(actor, "completeUpload", row, kind=found.kind.value)
        else:
            await _remove_objects(media_id)  # of one that was deleted meanwhile; whoever tells it looks first


async def _look(row: Row) -> Inspected:
    """Fetch a file from storage and look into it; raises Rejected, Conflict when nothing is there."""
    key = media_queries.object_key(row["id"])
    stored = await storage.current().head(key)
    if stored is None:
        raise Conflict("The file has not been uploaded yet.", path=["input", "id"])
    if stored.size != row["size"]:
        raise Rejected(f"The file has {stored.size:,} bytes; {row['size']:,} were announced.")
    folder = sessions.settings().data_dir / "decoding"
    path = (folder / token_hex(16)).absolute()
    try:
        if await _fetch(key, path, size=row["size"]) != row["sha256"]:
            raise Rejected("The content does not match its SHA-256 checksum.")
        return await _inspect(path, row["content_type"])
    finally:
        await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))


async def _fetch(key: str, path: Path, *, size: int) -> str:
    """Write an object to a file, and return its checksum; no more than `size` bytes are written."""
    digest = hashlib.sha256()
    waiting: list[bytes] = []
    waiting_bytes = written = 0

    def begin() -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    def write() -> None:
        for piece in waiting:
            digest.update(piece)
            file.write(piece)
        file.flush()

    with os.fdopen(await asyncio.to_thread(begin), "wb") as file:
        async with aclosing(storage.current().get(key)) as chunks:
            async for chunk in chunks:
                waiting.append(chunk)
                waiting_bytes += len(chunk)
                if waiting_bytes >= _WRITE_BYTES:
                    written += waiting_bytes
                    if written > size:
                        raise Rejected("The file changed while it was read.")
                    await asyncio.to_thread(write)
                    waiting, waiting_bytes = [], 0
        await asyncio.to_thread(write)
    return digest.hexdigest()


async def _inspect(path: Path, content_type: str) -> Inspected:
    global _decoders
    settings = sessions.settings()
    if _decoders is None:
        _decoders = Decoders(
            places=settings.media_decoders,
            memory_bytes=settings.media_memory_megabytes * 2**20,
            max_pixels=settings.media_max_pixels,
        )
    return await _decoders.inspect(path, content_type=content_type)


def _promise(filename: str, content_type: str, size: int, sha256: str, *, whole: list[Any] | None = None) -> Promise:
    """What is announced, checked; `whole` is the path of a file that says all of it itself."""

    def path(name: str) -> list[Any]:
        return ["input", name] if whole is None else whole

    kind = content_type.strip().lower()
    if kind not in CONTENT_TYPES:
        told = ", ".join(CONTENT_TYPES)
        raise ValidationFailed(f"This takes files of these types only: {told}.", path=path("contentType"))
    largest = sessions.settings().media_max_megabytes * 2**20
    if size < 1:
        raise ValidationFailed("The file is empty.", path=path("size"))
    if size > largest:
        raise PayloadTooLarge(f"A medium has at most {largest:,} bytes.", path=path("size"), maxBytes=largest)
    if not _SHA256.fullmatch(sha256):
        raise ValidationFailed("This takes the 64 hexadecimal digits of a SHA-256 checksum.", path=path("sha256"))
    name = texts.line(
        filename.replace("\\", "/").rpartition("/")[2], path=path("filename"), max_length=MAX_FILENAME_LENGTH
    )
    if not name.strip("."):
        raise ValidationFailed("This is no name of a file.", path=path("filename"))
    return Promise(name, kind, size, sha256.lower())


async def _insert(actor: Actor, promise: Promise, *, idempotency_key: str | None, action: str) -> UUID:
    """Add the promise if its user has room for it; returns the id of the medium."""
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    owner_id = actor.user_id
    settings = sessions.settings()
    media_id = new_id()
    row = {"id": media_id, "content_type": promise.content_type, "size": promise.size}

    async def make() -> None:
        usage = await media_queries.lock_usage(owner_id)
        quota = settings.media_quota_megabytes * 2**20
        if usage["bytes"] + promise.size > quota:
            raise Conflict(
                "Your media would take more than they may; delete some first.",
                path=["input"],
                quotaBytes=quota,
                usedBytes=usage["bytes"],
            )
        if usage["pending"] >= MAX_PENDING:
            raise Conflict(
                f"{MAX_PENDING} of your uploads are not completed; complete or delete some first.", path=["input"]
            )
        await media_queries.insert(
            media_id,
            owner_id=owner_id,
            filename=promise.filename,
            content_type=promise.content_type,
            size=promise.size,
            sha256=promise.sha256,
            upload_seconds=settings.media_upload_seconds,
        )
        await _record(actor, action, row)

    request = {
        "filename": promise.filename,
        "contentType": promise.content_type,
        "size": promise.size,
        "sha256": promise.sha256,
    }
    async with unit_of_work():
        return await once(owner_id, action, idempotency_key, request=request, target_id=media_id, make=make)


async def _remove_objects(media_id: UUID) -> None:
    await outbox.post(media_upkeep.TOPIC, str(media_id), {"mediaId": str(media_id)})


async def _record(actor: Actor, action: str, row: Row, *, outcome: str = "success", **details: Any) -> None:
    await AuditEvent.record(
        actor,
        action,
        target_type="media",
        target_id=row["id"],
        outcome=outcome,
        details={"contentType": row["content_type"], "size": row["size"], **details},
    )
