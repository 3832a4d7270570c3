"""The contract of object storage, kept by both drivers; and what holds for one of them alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import httpx
import pytest

import errors
from adapters.storage import (
    MIN_PART_BYTES,
    PART_BYTES,
    ChecksumMismatch,
    InvalidKey,
    LocalStorage,
    MultipartUpload,
    ObjectNotFound,
    S3Limits,
    Storage,
    StorageConflict,
    StorageUnavailable,
    UploadedPart,
    open_s3_storage,
    open_storage,
)
from adapters.storage.disk import ABANDONED_INCOMING_SECONDS
from tests.storage_servers import FaultyS3, FileServer, file_server, make_settings, moto_server, s3_settings

MIB = 2**20
TEXT = "text/plain"
QUICK = S3Limits(connect_seconds=0.3, read_seconds=0.3, call_seconds=0.8, attempts=2)


@dataclass
class Store:
    """A storage under test, and a look behind its back."""

    storage: Storage
    leftovers: Callable[[], Awaitable[list[str]]]


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
async def bucket(moto_url: str) -> str:
    name = f"test-{uuid4().hex}"
    async with httpx.AsyncClient(trust_env=False) as client:
        (await client.put(f"{moto_url}/{name}")).raise_for_status()
    return name


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as server:
        yield server


@pytest.fixture
async def local_store(tmp_path: Path, server: FileServer) -> AsyncIterator[Store]:
    async def files() -> list[str]:
        return [str(path) for path in (tmp_path / "files").rglob("*") if path.is_file()]

    async with open_storage(make_settings(tmp_path, base_url=server.base_url)) as storage:
        server.storage = storage
        yield Store(storage, files)


@pytest.fixture(scope="session")
async def shared_s3_store(moto_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    """One for all tests: making a client takes botocore a quarter of a second."""
    bucket = f"test-{uuid4().hex}"
    settings = s3_settings(tmp_path_factory.mktemp("s3"), endpoint_url=moto_url, bucket=bucket)
    async with httpx.AsyncClient(trust_env=False, base_url=moto_url) as client, open_storage(settings) as storage:
        (await client.put(f"/{bucket}")).raise_for_status()

        async def uploads_and_objects() -> list[str]:
            listings = [(await client.get(f"/{bucket}?uploads")).text, (await client.get(f"/{bucket}")).text]
            return [text for text in listings if "<UploadId>" in text or "<Contents>" in text]

        yield Store(storage, uploads_and_objects)


@pytest.fixture
async def s3_store(shared_s3_store: Store) -> AsyncIterator[Store]:
    yield shared_s3_store
    # Another test's objects would be seen by the next one.
    await shared_s3_store.storage.delete([info.key async for info in shared_s3_store.storage.list("")])


@pytest.fixture(params=["local_store", "s3_store"])
def store(request: pytest.FixtureRequest) -> Store:
    found: Store = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def storage(store: Store) -> Storage:
    return store.storage


async def read(storage: Storage, key: str, *, start: int | None = None, end: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in storage.get(key, start=start, end=end)])


async def keys_under(storage: Storage, prefix: str) -> list[str]:
    return [info.key async for info in storage.list(prefix)]


async def in_chunks(data: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for offset in range(0, len(data), size):
        yield data[offset : offset + size]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- reading and writing


@pytest.mark.parametrize("data", [b"", b"hello", os.urandom(3 * MIB)], ids=["empty", "small", "3 MiB"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_what_was_put_is_described_and_read_back(storage: Storage, data: bytes, streamed: bool) -> None:
    stored = await storage.put("runs/1/items.jsonl", in_chunks(data) if streamed else data, content_type=TEXT)

    assert (stored.key, stored.size, stored.sha256) == ("runs/1/items.jsonl", len(data), sha256(data))
    described = await storage.head("runs/1/items.jsonl")
    assert described is not None
    assert (described.size, described.content_type, described.sha256) == (len(data), TEXT, sha256(data))
    assert described.etag == stored.etag
    assert await read(storage, "runs/1/items.jsonl") == data


async def test_an_absent_object_is_none_or_not_found(storage: Storage) -> None:
    assert await storage.head("absent") is None
    with pytest.raises(ObjectNotFound):
        await read(storage, "absent")
    with pytest.raises(ObjectNotFound):
        await read(storage, "absent", start=3, end=3)


@pytest.mark.parametrize(
    ("start", "end"), [(0, 4), (3, 7), (5, None), (None, 2), (8, 100), (10, 12), (50, None), (4, 4), (6, 2)]
)
async def test_ranges_are_those_of_a_slice(storage: Storage, start: int | None, end: int | None) -> None:
    data = b"0123456789"
    await storage.put("digits", data, content_type=TEXT)
    assert await read(storage, "digits", start=start, end=end) == data[slice(start, end)]


async def test_a_range_of_an_empty_object_is_empty(storage: Storage) -> None:
    await storage.put("empty", b"", content_type=TEXT)
    assert await read(storage, "empty", start=0, end=10) == b""


async def test_negative_offsets_are_refused(storage: Storage) -> None:
    await storage.put("digits", b"0123456789", content_type=TEXT)
    with pytest.raises(errors.ValidationFailed):
        await read(storage, "digits", start=-4)


@pytest.mark.parametrize("key", ["ñandú/año 2026 +&%41?#=.txt", "日本/🦊.bin", "x" * 512, "a..b/...", "A/a", "a\\b"])
async def test_any_printable_key_works(storage: Storage, key: str) -> None:
    await storage.put(key, b"content", content_type=TEXT)
    assert await read(storage, key) == b"content"
    assert await keys_under(storage, key[:3]) == [key]


@pytest.mark.parametrize(
    "key", ["", "/a", "a//b", "a/", "..", "a/../b", "./a", "a/.", "a\nb", "a\x00b", "x" * 513, "é" * 257, "a\ud800"]
)
async def test_unsound_keys_are_refused_everywhere(store: Store, key: str) -> None:
    storage = store.storage
    with pytest.raises(InvalidKey):
        await storage.put(key, b"x", content_type=TEXT)
    with pytest.raises(InvalidKey):
        await storage.head(key)
    with pytest.raises(InvalidKey):
        await read(storage, key)
    with pytest.raises(InvalidKey):
        await storage.delete([key])
    with pytest.raises(InvalidKey):
        await storage.presigned_get(key, expires_seconds=60)
    with pytest.raises(InvalidKey):
        await storage.create_multipart(key, content_type=TEXT)
    assert await store.leftovers() == []


async def test_keys_that_differ_only_in_case_or_depth_are_different_objects(storage: Storage) -> None:
    for key in ("a", "A", "a/b", "a/b/c"):
        await storage.put(key, key.encode(), content_type=TEXT)
    assert [await read(storage, key) for key in ("a", "A", "a/b", "a/b/c")] == [b"a", b"A", b"a/b", b"a/b/c"]


async def test_putting_again_replaces_content_and_description(store: Store) -> None:
    await store.storage.put("k", b"first, longer", content_type=TEXT)
    files_before = len(await store.leftovers())
    await store.storage.put("k", b"second", content_type="application/json")

    described = await store.storage.head("k")
    assert described is not None
    assert (described.size, described.content_type) == (6, "application/json")
    assert await read(store.storage, "k") == b"second"
    assert len(await store.leftovers()) == files_before


async def test_concurrent_puts_of_one_key_leave_one_whole_object(store: Store) -> None:
    contents = [bytes([letter]) * 50_000 for letter in b"abcdefghijklmnopqrstuvwx"]
    await asyncio.gather(*(store.storage.put("k", content, content_type=TEXT) for content in contents))
    described = await store.storage.head("k")
    assert described is not None
    content = await read(store.storage, "k")
    assert content in contents
    assert described.sha256 == sha256(content)
    # Of the local driver that is one record and one content: what was replaced is gone.
    assert len(await store.leftovers()) == (2 if isinstance(store.storage, LocalStorage) else 1)


async def test_leaving_a_read_early_is_fine(storage: Storage) -> None:
    await storage.put("big", os.urandom(2 * MIB), content_type=TEXT)
    async with aclosing(storage.get("big")) as chunks:
        assert await anext(chunks)
    assert len(await read(storage, "big")) == 2 * MIB


async def test_a_file_is_stored_with_its_checksum(storage: Storage, tmp_path: Path) -> None:
    data = os.urandom(PART_BYTES + 12_345)
    (tmp_path / "source").write_bytes(data)
    stored = await storage.put_file("from-file", tmp_path / "source", content_type=TEXT)
    described = await storage.head("from-file")
    assert described is not None
    assert stored.sha256 == described.sha256 == sha256(data)
    assert await read(storage, "from-file") == data


async def test_an_absent_file_is_the_callers_fault(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await storage.put_file("from-file", tmp_path / "nowhere", content_type=TEXT)


@pytest.mark.parametrize("size", [10, PART_BYTES + 10], ids=["one part", "two parts"])
@pytest.mark.parametrize("source", ["bytes", "stream", "file"])
async def test_a_wrong_checksum_stores_nothing(store: Store, tmp_path: Path, size: int, source: str) -> None:
    data = bytes(size)
    (tmp_path / "source").write_bytes(data)
    wrong = sha256(b"other")

    async def put() -> None:
        if source == "file":
            await store.storage.put_file("k", tmp_path / "source", content_type=TEXT, sha256=wrong)
        else:
            sent = data if source == "bytes" else in_chunks(data)
            await store.storage.put("k", sent, content_type=TEXT, sha256=wrong)

    with pytest.raises(ChecksumMismatch):
        await put()
    assert await store.storage.head("k") is None
    assert await store.leftovers() == []


async def test_a_failed_replacement_leaves_the_old_object(storage: Storage) -> None:
    await storage.put("k", b"old", content_type=TEXT)
    with pytest.raises(ChecksumMismatch):
        await storage.put("k", b"new", content_type=TEXT, sha256=sha256(b"other"))
    assert await read(storage, "k") == b"old"


@pytest.mark.parametrize("sent", [100, PART_BYTES + 100], ids=["in the first part", "in the second part"])
async def test_a_put_cancelled_half_way_leaves_nothing(store: Store, sent: int) -> None:
    reached = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(sent)
        yield b"more"
        reached.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(store.storage.put("k", endless(), content_type=TEXT))
    async with asyncio.timeout(20):
        await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await store.storage.head("k") is None
    assert await store.leftovers() == []


async def test_a_producer_that_fails_leaves_nothing(store: Store) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield bytes(PART_BYTES + 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.storage.put("k", failing(), content_type=TEXT)
    assert await store.leftovers() == []


@pytest.mark.parametrize("content_type", ["", "text", "text/html\r\nX-Evil: 1", "a/b" * 100])
async def test_a_content_type_that_cannot_be_a_header_is_refused(store: Store, content_type: str) -> None:
    with pytest.raises(errors.ValidationFailed):
        await store.storage.put("k", b"x", content_type=content_type)
    assert await store.leftovers() == []


# -- listing and deleting


async def test_a_hundred_objects_are_listed_in_order_by_prefix(storage: Storage) -> None:
    keys = [f"runs/{number % 3}/{number:03}" for number in range(98)] + ["runs", "runs-old/1"]
    await asyncio.gather(*(storage.put(key, key.encode(), content_type=TEXT) for key in reversed(keys)))

    assert await keys_under(storage, "") == sorted(keys)
    assert await keys_under(storage, "runs/1/") == sorted(key for key in keys if key.startswith("runs/1/"))
    assert await keys_under(storage, "runs/1/0") == sorted(key for key in keys if key.startswith("runs/1/0"))
    assert await keys_under(storage, "runs-") == ["runs-old/1"]
    assert await keys_under(storage, "nothing/here/") == []
    assert [info.size async for info in storage.list("runs-")] == [len("runs-old/1")]


async def test_deleting_twice_is_fine(store: Store) -> None:
    storage = store.storage
    for key in ("a/b/1", "a/b/2", "c"):
        await storage.put(key, b"x", content_type=TEXT)
    await storage.delete(["a/b/1", "c", "never-there"])
    await storage.delete(["a/b/1", "c"])
    assert await keys_under(storage, "") == ["a/b/2"]
    assert await storage.head("a/b/1") is None
    await storage.delete(["a/b/2"])
    assert await store.leftovers() == []


async def test_any_number_of_objects_is_deleted_in_one_call(storage: Storage) -> None:
    await storage.put("last", b"x", content_type=TEXT)
    await storage.delete([])
    await storage.delete([*(f"never/there/{number}" for number in range(1_000)), "last"])
    assert await storage.head("last") is None


# -- uploads in parts


async def test_three_parts_become_one_object(storage: Storage) -> None:
    chunks = [os.urandom(MIN_PART_BYTES), os.urandom(MIN_PART_BYTES + 1), b"the end"]
    upload = await storage.create_multipart("big/one", content_type="application/json")
    # In any order, and the second one twice, as after a crash.
    await storage.upload_part(upload, 2, os.urandom(MIN_PART_BYTES))
    parts = [await storage.upload_part(upload, number, chunks[number - 1]) for number in (3, 1, 2)]
    assert await storage.head("big/one") is None

    info = await storage.complete_multipart(upload, sorted(parts, key=lambda part: part.number))

    assert info.size == sum(len(chunk) for chunk in chunks)
    described = await storage.head("big/one")
    assert described is not None
    assert (described.size, described.content_type, described.etag) == (info.size, "application/json", info.etag)
    assert await read(storage, "big/one") == b"".join(chunks)


async def test_an_aborted_upload_leaves_nothing_and_cannot_go_on(store: Store) -> None:
    upload = await store.storage.create_multipart("big/one", content_type=TEXT)
    part = await store.storage.upload_part(upload, 1, b"part")
    await store.storage.abort_multipart(upload)
    await store.storage.abort_multipart(upload)

    assert await store.leftovers() == []
    # moto answers 500 where S3 says NoSuchUpload; that answer has a test of its own below.
    over = StorageConflict if isinstance(store.storage, LocalStorage) else StorageUnavailable
    with pytest.raises(over):
        await store.storage.upload_part(upload, 2, b"part")
    with pytest.raises(over):
        await store.storage.complete_multipart(upload, [part])
    assert await store.storage.head("big/one") is None
    assert await store.leftovers() == []


async def test_a_part_that_is_not_there_completes_nothing(storage: Storage) -> None:
    upload = await storage.create_multipart("big/one", content_type=TEXT)
    part = await storage.upload_part(upload, 1, b"part")
    missing = UploadedPart(number=2, size=4, etag="0" * 64, sha256="0" * 64)
    with pytest.raises(errors.SwitchyardError):
        await storage.complete_multipart(upload, [part, missing])
    assert await storage.head("big/one") is None
    await storage.abort_multipart(upload)


@pytest.mark.parametrize(("numbers", "first_size"), [((), 0), ((2, 1), MIN_PART_BYTES), ((1, 2), MIN_PART_BYTES - 1)])
async def test_parts_that_s3_would_refuse_are_refused(
    storage: Storage, numbers: tuple[int, ...], first_size: int
) -> None:
    upload = MultipartUpload(key="k", upload_id="0" * 32)
    parts = [UploadedPart(number=number, size=first_size, etag="e", sha256="0" * 64) for number in numbers]
    with pytest.raises(errors.ValidationFailed):
        await storage.complete_multipart(upload, parts)


@pytest.mark.parametrize("number", [0, 10_001])
async def test_part_numbers_have_bounds(storage: Storage, number: int) -> None:
    with pytest.raises(errors.ValidationFailed):
        await storage.upload_part(MultipartUpload(key="k", upload_id="0" * 32), number, b"x")


# -- signed URLs


async def test_a_signed_url_reads_by_plain_http(storage: Storage) -> None:
    await storage.put("exports/ñ 1.csv", b"a;b\n1;2\n", content_type="text/csv")
    url = await storage.presigned_get(
        "exports/ñ 1.csv", expires_seconds=60, filename='año "2026"/x.csv', content_type="application/octet-stream"
    )
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
        part = await client.get(url, headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (200, b"a;b\n1;2\n")
    assert answer.headers["content-type"] == "application/octet-stream"
    disposition = answer.headers["content-disposition"]
    assert disposition == "attachment; filename=\"a_o _2026__x.csv\"; filename*=UTF-8''a%C3%B1o%20_2026__x.csv"
    assert (part.status_code, part.content) == (206, b"b\n1")


@pytest.mark.parametrize(
    ("content_type", "inline", "shown"),
    [
        ("image/png", True, "inline"),
        ("image/png", False, "attachment"),
        ("image/svg+xml", True, "attachment"),
        ("text/html", True, "attachment"),
        (None, True, "attachment"),
    ],
)
async def test_only_what_cannot_carry_script_is_shown_inline(
    storage: Storage, content_type: str | None, inline: bool, shown: str
) -> None:
    await storage.put("media/1", b"<script>", content_type="text/html")
    url = await storage.presigned_get("media/1", expires_seconds=60, content_type=content_type, inline=inline)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(url)
    assert answer.headers["content-disposition"] == shown
    assert answer.headers["content-type"].startswith(content_type or "text/html")


async def test_a_signed_put_stores_once(storage: Storage) -> None:
    data = b"\x89PNG of a kind"
    put = await storage.presigned_put(
        "pending/1", expires_seconds=60, size=len(data), content_type="image/png", sha256=sha256(data)
    )
    assert put.method == "PUT"
    async with httpx.AsyncClient(trust_env=False) as client:
        first = await client.put(put.url, content=data, headers=put.headers)
        second = await client.put(put.url, content=data, headers=put.headers)
    assert first.status_code == 200
    assert second.status_code in {409, 412}
    described = await storage.head("pending/1")
    assert described is not None
    assert (described.size, described.content_type) == (len(data), "image/png")
    assert await read(storage, "pending/1") == data


async def test_links_that_cannot_be_meant_are_refused(storage: Storage) -> None:
    digest = sha256(b"x")
    with pytest.raises(errors.ValidationFailed):
        await storage.presigned_get("k", expires_seconds=0)
    with pytest.raises(errors.ValidationFailed):
        await storage.presigned_get("k", expires_seconds=604_801)
    with pytest.raises(errors.ValidationFailed):
        await storage.presigned_get("k", expires_seconds=60, content_type="text/html\r\nX-Evil: 1")
    with pytest.raises(errors.ValidationFailed):
        await storage.presigned_put("k", expires_seconds=60, size=-1, content_type=TEXT, sha256=digest)
    with pytest.raises(errors.ValidationFailed):
        await storage.presigned_put("k", expires_seconds=60, size=1, content_type=TEXT, sha256=digest.upper())


# -- memory and the event loop


async def test_big_objects_take_little_memory(storage: Storage) -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(64 * 4):
            yield bytes(MIB // 4)

    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        stored = await storage.put("big", stream(), content_type=TEXT)
        received = 0
        async with aclosing(storage.get("big")) as chunks:
            async for chunk in chunks:
                received += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stored.size == received == 64 * MIB
    assert stored.sha256 == sha256(bytes(64 * MIB))
    assert peak - before < 24 * MIB, peak / MIB


# -- S3 alone


async def test_s3_signs_everything_that_bounds_an_upload(tmp_path: Path) -> None:
    settings = s3_settings(tmp_path, endpoint_url="http://127.0.0.1:9", bucket="bucket")
    async with open_storage(settings) as storage:
        put = await storage.presigned_put(
            "k", expires_seconds=60, size=3, content_type="image/png", sha256=sha256(b"abc")
        )
        get = await storage.presigned_get("k", expires_seconds=60, filename="x")
    query = parse_qs(urlsplit(put.url).query)
    signed = set(query["X-Amz-SignedHeaders"][0].split(";"))
    assert signed >= {"content-length", "content-type", "x-amz-checksum-sha256", "if-none-match", "host"}
    assert query["X-Amz-Expires"] == ["60"]
    assert {name.lower() for name in put.headers} | {"content-length", "host"} == signed
    for url in (put.url, get):
        assert "AKIDTEST" in url
        assert "very-secret-value" not in url


async def test_s3_links_lead_to_the_public_address(tmp_path: Path) -> None:
    settings = s3_settings(
        tmp_path, endpoint_url="http://127.0.0.1:9", bucket="bucket", s3_public_url="https://files.example.com"
    )
    async with open_storage(settings) as storage:
        assert (await storage.presigned_get("k", expires_seconds=60)).startswith("https://files.example.com/bucket/k?")


async def test_an_s3_that_hangs_is_unavailable_in_time(moto_url: str, bucket: str, tmp_path: Path) -> None:
    async with FaultyS3(moto_url, hangs=True) as faulty:
        settings = s3_settings(tmp_path, endpoint_url=faulty.url, bucket=bucket)
        async with open_s3_storage(settings, limits=QUICK) as storage:
            for call in (
                storage.head("k"),
                storage.put("k", b"x", content_type=TEXT),
                read(storage, "k"),
                storage.delete(["k"]),
                keys_under(storage, ""),
                storage.create_multipart("k", content_type=TEXT),
            ):
                began = time.monotonic()
                with pytest.raises(StorageUnavailable):
                    await call
                assert time.monotonic() - began < 2


async def test_an_s3_that_hangs_is_given_up_despite_retries(moto_url: str, bucket: str, tmp_path: Path) -> None:
    patient_retries = S3Limits(connect_seconds=1, read_seconds=10, call_seconds=0.5, attempts=10)
    async with FaultyS3(moto_url, hangs=True) as faulty:
        settings = s3_settings(tmp_path, endpoint_url=faulty.url, bucket=bucket)
        async with open_s3_storage(settings, limits=patient_retries) as storage:
            began = time.monotonic()
            with pytest.raises(StorageUnavailable):
                await storage.head("k")
            assert time.monotonic() - began < 2


async def test_an_overloaded_s3_is_tried_again(moto_url: str, bucket: str, tmp_path: Path) -> None:
    async with FaultyS3(moto_url, failures=1) as faulty:
        settings = s3_settings(tmp_path, endpoint_url=faulty.url, bucket=bucket)
        async with open_s3_storage(settings) as storage:
            await storage.put("k", b"content", content_type=TEXT)
            assert await read(storage, "k") == b"content"
    assert faulty.connections >= 2


async def test_an_s3_that_stays_overloaded_is_unavailable(moto_url: str, bucket: str, tmp_path: Path) -> None:
    async with FaultyS3(moto_url, failures=1_000) as faulty:
        settings = s3_settings(tmp_path, endpoint_url=faulty.url, bucket=bucket)
        async with open_s3_storage(settings) as storage:
            with pytest.raises(StorageUnavailable):
                await storage.put("k", b"content", content_type=TEXT)
    assert faulty.connections == 3


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (404, "NoSuchUpload", StorageConflict),
        (400, "InvalidPart", StorageConflict),
        (409, "ConditionalRequestConflict", StorageConflict),
        (404, "NoSuchKey", ObjectNotFound),
        (404, "NoSuchBucket", StorageUnavailable),
        (403, "AccessDenied", StorageUnavailable),
        (400, "BadDigest", StorageUnavailable),
    ],
)
async def test_answers_of_s3_become_typed_errors(
    tmp_path: Path, status: int, code: str, expected: type[errors.SwitchyardError]
) -> None:
    async with FaultyS3("http://127.0.0.1:9", failures=1_000, status=status, code=code) as faulty:
        settings = s3_settings(tmp_path, endpoint_url=faulty.url, bucket="bucket")
        async with open_s3_storage(settings, limits=QUICK) as storage:
            with pytest.raises(expected):
                await storage.upload_part(MultipartUpload(key="k", upload_id="u"), 1, b"part")


async def test_an_absent_s3_or_bucket_is_unavailable(moto_url: str, tmp_path: Path) -> None:
    for endpoint_url in ("http://127.0.0.1:9", moto_url):
        settings = s3_settings(tmp_path, endpoint_url=endpoint_url, bucket="no-such-bucket")
        async with open_s3_storage(settings, limits=QUICK) as storage:
            with pytest.raises(StorageUnavailable):
                await storage.put("k", b"x", content_type=TEXT)


# -- the local driver alone


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[LocalStorage]:
    async with open_storage(make_settings(tmp_path)) as storage:
        assert isinstance(storage, LocalStorage)
        yield storage


async def test_a_reader_keeps_the_object_it_opened(local: LocalStorage) -> None:
    old, new = os.urandom(MIB), b"new"
    await local.put("k", old, content_type=TEXT)
    async with aclosing(local.get("k")) as chunks:
        received = await anext(chunks)
        await local.put("k", new, content_type=TEXT)
        await local.delete(["k"])
        received += b"".join([chunk async for chunk in chunks])
    assert received == old


async def test_another_process_s_objects_are_seen(local: LocalStorage, tmp_path: Path) -> None:
    async with open_storage(make_settings(tmp_path)) as other:
        await other.put("k", b"theirs", content_type=TEXT)
        assert await read(local, "k") == b"theirs"


async def test_files_are_for_the_service_alone(local: LocalStorage, tmp_path: Path) -> None:
    await local.put("a/b/c", b"x", content_type=TEXT)
    for path in (tmp_path / "files").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0


async def test_damage_is_unavailable_rather_than_short_or_endless(local: LocalStorage, tmp_path: Path) -> None:
    await local.put("k", b"content", content_type=TEXT)
    content = next(
        path for path in (tmp_path / "files/objects").rglob("*") if path.is_file() and path.suffix != ".json"
    )
    content.write_bytes(b"con")
    with pytest.raises(StorageUnavailable):
        await read(local, "k")
    content.unlink()
    with pytest.raises(StorageUnavailable):
        await read(local, "k")


async def test_a_store_that_cannot_be_written_is_unavailable(local: LocalStorage, tmp_path: Path) -> None:
    (tmp_path / "files/incoming").rmdir()
    with pytest.raises(StorageUnavailable):
        await local.put("k", b"x", content_type=TEXT)
    assert await local.head("k") is None


async def test_only_old_leftovers_are_cleared_at_the_start(tmp_path: Path) -> None:
    incoming = tmp_path / "files/incoming"
    incoming.mkdir(parents=True)
    for name, age_seconds in (("old", ABANDONED_INCOMING_SECONDS + 60), ("young", 60)):
        (incoming / name).touch()
        then = time.time() - age_seconds
        os.utime(incoming / name, (then, then))
    async with open_storage(make_settings(tmp_path)):
        assert [path.name for path in incoming.iterdir()] == ["young"]
