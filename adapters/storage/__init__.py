"""Object storage: exports, uploads, artifacts and finished logs, in a folder or in S3, by settings.

`open_storage` gives the driver; the promises are in `contract.py`. Callers know only the Protocol: signing,
timeouts, retries and the translation of errors stay in here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from adapters.storage.contract import (
    INLINE_CONTENT_TYPES,
    MAX_EXPIRES_SECONDS,
    MIN_PART_BYTES,
    PART_BYTES,
    ChecksumMismatch,
    InvalidKey,
    MultipartUpload,
    ObjectInfo,
    ObjectNotFound,
    PresignedPut,
    Storage,
    StorageConflict,
    StorageUnavailable,
    StoredObject,
    UploadedPart,
    check_key,
)
from adapters.storage.local import LocalStorage, OpenObject, open_local_storage
from adapters.storage.s3 import S3Limits, S3Storage, open_s3_storage
from adapters.storage.signing import CreateGrant, ReadGrant, UrlSigner
from settings import Settings, StorageBackend

__all__ = [
    "INLINE_CONTENT_TYPES",
    "MAX_EXPIRES_SECONDS",
    "MIN_PART_BYTES",
    "PART_BYTES",
    "ChecksumMismatch",
    "CreateGrant",
    "InvalidKey",
    "LocalStorage",
    "MultipartUpload",
    "ObjectInfo",
    "ObjectNotFound",
    "OpenObject",
    "PresignedPut",
    "ReadGrant",
    "S3Limits",
    "S3Storage",
    "Storage",
    "StorageConflict",
    "StorageUnavailable",
    "StoredObject",
    "UploadedPart",
    "UrlSigner",
    "check_key",
    "current",
    "open_local_storage",
    "open_s3_storage",
    "open_storage",
]


_current: Storage | None = None


def current() -> Storage:
    """The storage of this process; raises LookupError when none is open."""
    if _current is None:
        raise LookupError("open_storage() is not open in this process")
    return _current


@asynccontextmanager
async def open_storage(settings: Settings) -> AsyncIterator[Storage]:
    """The driver that the settings name, for as long as the context lasts; `current()` gives it meanwhile."""
    global _current
    before = _current
    async with AsyncExitStack() as stack:
        if settings.storage_backend is StorageBackend.S3:
            storage: Storage = await stack.enter_async_context(open_s3_storage(settings))
        else:
            signer = UrlSigner(base_url=settings.base_url, keyring=settings.keyring)
            storage = await stack.enter_async_context(open_local_storage(settings.data_dir / "files", signer=signer))
        _current = storage
        try:
            yield storage
        finally:
            _current = before
