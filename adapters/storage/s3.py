"""The S3 driver: objects in a bucket of Amazon S3 or a service that speaks its protocol.

Invariant: no call waits longer than its limit, and no botocore name or error leaves this module, the only one that
deals in its untyped values. Anything bigger than one part goes up as a multipart upload that is completed only
after its checksum was compared, and aborted otherwise. What a killed process leaves unfinished is for the bucket's
lifecycle rule (`docs/decisions/0004-storage.md`); making the bucket is for its operator.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import aiohttp
import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError

from adapters.storage.contract import (
    PART_BYTES,
    MultipartUpload,
    ObjectInfo,
    ObjectNotFound,
    PresignedPut,
    StorageConflict,
    StorageUnavailable,
    StoredObject,
    UploadedPart,
    check_content_type,
    check_expiry,
    check_key,
    check_part_number,
    check_parts,
    check_prefix,
    check_range,
    check_sha256,
    check_size,
    checksum_mismatch,
)
from adapters.storage.signing import content_disposition
from adapters.storage.streams import cut, file_chunks, sha256_of
from settings import Settings

Client: TypeAlias = Any
"""aiobotocore builds its clients at run time from JSON; there are no types for them."""

_READ_BYTES: Final = 256 * 2**10
_DELETE_BATCH: Final = 1_000
_ABORT_SECONDS: Final = 10.0
_MISSING: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_OVER: Final = frozenset({"NoSuchUpload", "InvalidPart", "InvalidPartOrder"})
_EXISTS: Final = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict"})

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Limits:
    """How long to wait for the service, and how often to try.

    `call_seconds` bounds a whole call with its retries; a call with a body may take longer by the time that
    `upload_bytes_per_second` allows for it. botocore alone would wait `attempts` times `read_seconds`.
    """

    connect_seconds: float = 3.0
    read_seconds: float = 20.0
    call_seconds: float = 25.0
    upload_bytes_per_second: int = 512 * 2**10
    attempts: int = 3


DEFAULT_LIMITS: Final = S3Limits()


@asynccontextmanager
async def open_s3_storage(settings: Settings, *, limits: S3Limits = DEFAULT_LIMITS) -> AsyncIterator[S3Storage]:
    """The driver for the bucket of the settings; its connections close with the context."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_client(settings, settings.s3_endpoint_url, limits))
        signing_client = client
        if settings.s3_public_url is not None:
            signing_client = await stack.enter_async_context(_client(settings, settings.s3_public_url, limits))
        yield S3Storage(client, signing_client=signing_client, bucket=settings.s3_bucket, limits=limits)


class S3Storage:
    """Storage in a bucket; see `Storage` for the promises."""

    def __init__(self, client: Client, *, signing_client: Client, bucket: str, limits: S3Limits) -> None:
        self._client = client
        self._signing_client = signing_client
        self._bucket = bucket
        self._limits = limits

    async def put(
        self, key: str, data: AsyncIterable[bytes] | bytes, *, content_type: str, sha256: str | None = None
    ) -> StoredObject:
        """See `Storage.put`."""
        check_key(key)
        check_content_type(content_type)
        expected = None if sha256 is None else check_sha256(sha256)
        if isinstance(data, bytes):
            actual = await sha256_of(data)
            if expected not in {None, actual}:
                raise checksum_mismatch()
            expected = actual
        async with aclosing(cut(data, size=PART_BYTES)) as parts:
            waiting = deque([await anext(parts)])
            if len(waiting[0]) < PART_BYTES:
                return await self._put_whole(key, waiting[0], content_type=content_type, expected=expected)
            return await self._put_in_parts(key, waiting, parts, content_type=content_type, expected=expected)

    async def put_file(self, key: str, path: Path, *, content_type: str, sha256: str | None = None) -> StoredObject:
        """See `Storage.put_file`. Reads the file once more, before, when its checksum is not given."""
        check_key(key)
        if not await asyncio.to_thread(path.is_file):
            raise FileNotFoundError(path)
        if sha256 is None:
            digest = hashlib.sha256()
            async with aclosing(file_chunks(path)) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(digest.update, chunk)
            sha256 = digest.hexdigest()
        async with aclosing(file_chunks(path)) as chunks:
            return await self.put(key, chunks, content_type=content_type, sha256=sha256)

    async def get(self, key: str, *, start: int | None = None, end: int | None = None) -> AsyncGenerator[bytes, None]:
        """See `Storage.get`."""
        check_key(key)
        check_range(start, end)
        if end is not None and end <= (start or 0):
            # HTTP cannot ask for nothing, yet a missing object is still an error.
            if await self.head(key) is None:
                raise ObjectNotFound(key)
            return
        wanted = {} if start is None and end is None else {"Range": _range_header(start or 0, end)}
        try:
            async with self._call(key):
                response = await self._client.get_object(Bucket=self._bucket, Key=key, **wanted)
        except _PastTheEnd:
            return
        async with response["Body"] as body:
            while True:
                async with self._call(key):
                    chunk = bytes(await body.read(_READ_BYTES))
                if not chunk:
                    return
                yield chunk

    async def head(self, key: str) -> ObjectInfo | None:
        """See `Storage.head`."""
        check_key(key)
        try:
            async with self._call(key):
                answer = await self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        except ObjectNotFound:
            return None
        return ObjectInfo(
            key=key,
            size=int(answer["ContentLength"]),
            etag=_etag(answer),
            content_type=answer.get("ContentType"),
            sha256=_known_sha256(answer),
        )

    async def delete(self, keys: Iterable[str]) -> None:
        """See `Storage.delete`."""
        wanted = [{"Key": check_key(key)} for key in keys]
        for offset in range(0, len(wanted), _DELETE_BATCH):
            batch = {"Objects": wanted[offset : offset + _DELETE_BATCH], "Quiet": True}
            async with self._call():
                answer = await self._client.delete_objects(Bucket=self._bucket, Delete=batch)
            for refused in answer.get("Errors", []):
                raise _unavailable(str(refused.get("Code")))

    async def list(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """See `Storage.list`."""
        check_prefix(prefix)
        more: dict[str, str] = {}
        while True:
            async with self._call():
                page = await self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, **more)
            for entry in page.get("Contents", []):
                yield ObjectInfo(key=entry["Key"], size=int(entry["Size"]), etag=_etag(entry))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    async def presigned_get(
        self,
        key: str,
        *,
        expires_seconds: int,
        filename: str | None = None,
        content_type: str | None = None,
        inline: bool = False,
    ) -> str:
        """See `Storage.presigned_get`."""
        parameters = {
            "ResponseContentDisposition": content_disposition(filename, content_type=content_type, inline=inline)
        }
        if content_type is not None:
            parameters["ResponseContentType"] = check_content_type(content_type)
        return await self._presign("get_object", key, parameters, expires_seconds=expires_seconds)

    async def presigned_put(
        self, key: str, *, expires_seconds: int, size: int, content_type: str, sha256: str
    ) -> PresignedPut:
        """See `Storage.presigned_put`. The service enforces size, type, checksum and newness: all are signed."""
        checksum = _base64(check_sha256(sha256))
        parameters = {
            "ContentLength": check_size(size),
            "ContentType": check_content_type(content_type),
            "ChecksumSHA256": checksum,
            "IfNoneMatch": "*",
        }
        url = await self._presign("put_object", key, parameters, expires_seconds=expires_seconds)
        # Content-Length is left to the client's HTTP library: browsers refuse to have it set.
        headers = {"Content-Type": content_type, "x-amz-checksum-sha256": checksum, "If-None-Match": "*"}
        return PresignedPut(url=url, headers=headers)

    async def create_multipart(self, key: str, *, content_type: str) -> MultipartUpload:
        """See `Storage.create_multipart`."""
        return await self._begin(key, content_type=content_type, metadata={})

    async def upload_part(self, upload: MultipartUpload, number: int, data: bytes) -> UploadedPart:
        """See `Storage.upload_part`."""
        check_part_number(number)
        sha256 = await sha256_of(data)
        async with self._call(upload.key, body=data) as sent:
            answer = await self._client.upload_part(
                Bucket=self._bucket,
                Key=upload.key,
                UploadId=upload.upload_id,
                PartNumber=number,
                Body=sent,
                ChecksumSHA256=_base64(sha256),
            )
        return UploadedPart(number=number, size=len(data), etag=_etag(answer), sha256=sha256)

    async def complete_multipart(self, upload: MultipartUpload, parts: Sequence[UploadedPart]) -> ObjectInfo:
        """See `Storage.complete_multipart`."""
        check_parts(parts)
        listed = [
            {"PartNumber": part.number, "ETag": part.etag, "ChecksumSHA256": _base64(part.sha256)} for part in parts
        ]
        async with self._call(upload.key):
            answer = await self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id, MultipartUpload={"Parts": listed}
            )
        return ObjectInfo(key=upload.key, size=sum(part.size for part in parts), etag=_etag(answer))

    async def abort_multipart(self, upload: MultipartUpload) -> None:
        """See `Storage.abort_multipart`."""
        with contextlib.suppress(StorageConflict):
            async with self._call(upload.key):
                await self._client.abort_multipart_upload(
                    Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id
                )

    async def _put_whole(self, key: str, body: bytes, *, content_type: str, expected: str | None) -> StoredObject:
        sha256 = await sha256_of(body)
        if expected not in {None, sha256}:
            raise checksum_mismatch()
        async with self._call(key, body=body) as sent:
            answer = await self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=sent,
                ContentType=content_type,
                ChecksumSHA256=_base64(sha256),
                Metadata={"sha256": sha256},
            )
        return StoredObject(key=key, size=len(body), sha256=sha256, content_type=content_type, etag=_etag(answer))

    async def _put_in_parts(
        self, key: str, waiting: deque[bytes], rest: AsyncIterator[bytes], *, content_type: str, expected: str | None
    ) -> StoredObject:
        metadata = {} if expected is None else {"sha256": expected}
        upload = await self._begin(key, content_type=content_type, metadata=metadata)
        digest = hashlib.sha256()
        parts: list[UploadedPart] = []
        is_complete = False
        try:
            # `waiting` is emptied, here and in the caller's eyes: no part is held while the next one is gathered.
            while body := waiting.popleft() if waiting else await anext(rest, b""):
                await asyncio.to_thread(digest.update, body)
                parts.append(await self.upload_part(upload, len(parts) + 1, body))
                del body
            if expected not in {None, digest.hexdigest()}:
                raise checksum_mismatch()
            stored = await self.complete_multipart(upload, parts)
            is_complete = True
        finally:
            if not is_complete:
                await self._abort_after_failure(upload)
        return StoredObject(
            key=key, size=stored.size, sha256=digest.hexdigest(), content_type=content_type, etag=stored.etag
        )

    async def _abort_after_failure(self, upload: MultipartUpload) -> None:
        # The failure that brought us here is the one to tell; parts that stay behind fall to the lifecycle rule.
        try:
            async with asyncio.timeout(_ABORT_SECONDS):
                await self.abort_multipart(upload)
        except (StorageUnavailable, TimeoutError):
            _log.warning("storage_abort_failed", key=upload.key, upload_id=upload.upload_id)

    async def _begin(self, key: str, *, content_type: str, metadata: dict[str, str]) -> MultipartUpload:
        check_key(key)
        check_content_type(content_type)
        async with self._call(key):
            answer = await self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type, ChecksumAlgorithm="SHA256", Metadata=metadata
            )
        return MultipartUpload(key=key, upload_id=answer["UploadId"])

    async def _presign(self, operation: str, key: str, parameters: dict[str, Any], *, expires_seconds: int) -> str:
        target = {"Bucket": self._bucket, "Key": check_key(key)}
        url = await self._signing_client.generate_presigned_url(
            operation, Params={**target, **parameters}, ExpiresIn=check_expiry(expires_seconds)
        )
        return str(url)

    @asynccontextmanager
    async def _call(self, key: str = "", *, body: bytes = b"") -> AsyncIterator[io.BytesIO]:
        """Bound one call in time and translate whatever it raises; what it yields is the body to send."""
        seconds = self._limits.call_seconds + len(body) / self._limits.upload_bytes_per_second
        try:
            # The body is closed at once: the client's objects refer to each other and would keep its bytes for a while.
            with io.BytesIO(body) as sent:
                async with asyncio.timeout(seconds):
                    yield sent
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise ObjectNotFound(key) from error
            if code in _OVER:
                raise StorageConflict("This upload is over, or one of its parts is missing.") from error
            if code in _EXISTS:
                raise StorageConflict("A file with this key exists already.") from error
            if code in {"416", "InvalidRange"}:
                raise _PastTheEnd from error
            raise _unavailable(code) from error
        except (BotoCoreError, aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            raise _unavailable(type(error).__name__) from error


class _PastTheEnd(Exception):
    """The range asked for begins after the last byte."""


def _client(settings: Settings, endpoint_url: str | None, limits: S3Limits) -> Client:
    key_id, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    config = AioConfig(
        signature_version="s3v4",
        connect_timeout=limits.connect_seconds,
        read_timeout=limits.read_seconds,
        retries={"mode": "standard", "total_max_attempts": limits.attempts},
        max_pool_connections=32,
        # The settings alone decide where we connect, not AWS_* or HTTP_PROXY of the environment.
        proxies={},
        ignore_configured_endpoint_urls=True,
        # We send SHA-256 with every body; other services do not all know botocore's newer default, CRC in a trailer.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={
            "addressing_style": "virtual" if endpoint_url is None else "path",
            # That checksum is among the signed headers; hashing bodies again would block the event loop.
            "payload_signing_enabled": False,
        },
    )
    return get_session().create_client(
        "s3",
        region_name=settings.s3_region,
        endpoint_url=endpoint_url,
        aws_access_key_id=None if key_id is None else key_id.get_secret_value(),
        aws_secret_access_key=None if secret is None else secret.get_secret_value(),
        config=config,
    )


def _range_header(start: int, end: int | None) -> str:
    return f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()


def _etag(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _known_sha256(answer: dict[str, Any]) -> str | None:
    recorded = answer.get("Metadata", {}).get("sha256")
    if recorded is not None:
        return str(recorded)
    checksum = answer.get("ChecksumSHA256")
    # Of an object that came in parts (its etag tells) it is a checksum of checksums and says nothing of the content.
    if checksum is None or "-" in _etag(answer):
        return None
    return base64.b64decode(checksum).hex()


def _unavailable(reason: str) -> StorageUnavailable:
    _log.warning("storage_call_failed", reason=reason)
    return StorageUnavailable("The file store does not answer at the moment.")
