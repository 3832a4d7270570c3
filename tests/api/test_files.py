"""Signed URLs of the local driver over real HTTP: what they allow, and everything they do not."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, quote, urlencode, urlsplit

import httpx
import psutil
import pytest

from adapters.storage import LocalStorage, PresignedPut, UrlSigner, open_local_storage, open_storage
from tests.storage_servers import KEYS, FileServer, file_server, make_settings, s3_settings

DATA = b"0123456789"
SHA256 = hashlib.sha256(DATA).hexdigest()


class Clock:
    """The signer's time."""

    def __init__(self) -> None:
        self.seconds = 1_800_000_000.0

    def __call__(self) -> float:
        return self.seconds


@dataclass
class Site:
    """A storage, the address of its links, the clock they expire by, and a browser."""

    storage: LocalStorage
    base_url: str
    clock: Clock
    client: httpx.AsyncClient
    folder: Path

    def signer(self, keyring: dict[str, bytes]) -> UrlSigner:
        return UrlSigner(base_url=self.base_url, keyring=keyring, now=self.clock)

    async def link(self, key: str = "runs/1/items.csv", **options: object) -> str:
        await self.storage.put(key, DATA, content_type="text/csv")
        return await self.storage.presigned_get(key, expires_seconds=60, **options)  # type: ignore[arg-type]  # forwarded

    async def upload(self, key: str = "pending/1", *, data: bytes = DATA) -> PresignedPut:
        return await self.storage.presigned_put(
            key,
            expires_seconds=60,
            size=len(data),
            content_type="image/png",
            sha256=hashlib.sha256(data).hexdigest(),
        )

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FileServer]:
    async with file_server() as server:
        yield server


@pytest.fixture
async def site(tmp_path: Path, server: FileServer) -> AsyncIterator[Site]:
    clock = Clock()
    signer = UrlSigner(base_url=server.base_url, keyring=KEYS, now=clock)
    async with (
        open_local_storage(tmp_path / "files", signer=signer) as storage,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        server.storage = storage
        yield Site(storage, server.base_url, clock, client, tmp_path / "files")


def assert_refused(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    (error,) = answer.json()["errors"]
    assert error["message"]
    assert error["extensions"]["code"] == code
    assert error["extensions"]["statusCode"] == status
    assert error["extensions"]["requestId"] == answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def altered(url: str, **changes: str | None) -> str:
    """The URL with query parameters set, or dropped where the value is None."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()} | changes
    return parts._replace(query=urlencode({name: value for name, value in query.items() if value is not None})).geturl()


# -- reading


async def test_a_download_carries_protective_headers(site: Site) -> None:
    answer = await site.client.get(await site.link(filename="ítems.csv"))
    assert (answer.status_code, answer.content) == (200, DATA)
    assert answer.headers["content-type"] == "text/csv"
    assert answer.headers["content-length"] == "10"
    assert (
        answer.headers["content-disposition"] == "attachment; filename=\"_tems.csv\"; filename*=UTF-8''%C3%ADtems.csv"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["cache-control"] == "private"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["etag"] == f'"{SHA256}"'


async def test_head_tells_without_sending(site: Site) -> None:
    answer = await site.client.head(await site.link())
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "10")


@pytest.mark.parametrize(
    ("asked", "content", "content_range"),
    [
        ("bytes=0-3", b"0123", "bytes 0-3/10"),
        ("bytes=4-", b"456789", "bytes 4-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-100", b"89", "bytes 8-9/10"),
        ("bytes=-100", DATA, "bytes 0-9/10"),
    ],
)
async def test_a_range_is_answered_in_part(site: Site, asked: str, content: bytes, content_range: str) -> None:
    answer = await site.client.get(await site.link(), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (206, content)
    assert answer.headers["content-range"] == content_range


@pytest.mark.parametrize("asked", ["bytes=10-", "bytes=50-60", "bytes=-0"])
async def test_a_range_outside_the_file_is_unsatisfiable(site: Site, asked: str) -> None:
    answer = await site.client.get(await site.link(), headers={"Range": asked})
    assert_refused(answer, 416, "VALIDATION_ERROR")
    assert answer.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize("asked", ["bytes=", "bytes=-", "bytes=3-1", "lines=0-1", "bytes=0-1,3-4", "bytes=x-y"])
async def test_a_range_we_do_not_serve_is_ignored(site: Site, asked: str) -> None:
    answer = await site.client.get(await site.link(), headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, DATA)


async def test_a_range_of_a_changed_file_gives_the_whole(site: Site) -> None:
    link = await site.link()
    changed = await site.client.get(link, headers={"Range": "bytes=0-3", "If-Range": '"other"'})
    unchanged = await site.client.get(link, headers={"Range": "bytes=0-3", "If-Range": f'"{SHA256}"'})
    assert (changed.status_code, unchanged.status_code) == (200, 206)


@pytest.mark.parametrize("known", [f'"{SHA256}"', f'W/"{SHA256}"', f'"other", "{SHA256}"', "*"])
async def test_what_the_browser_has_is_not_sent_again(site: Site, known: str) -> None:
    answer = await site.client.get(await site.link(), headers={"If-None-Match": known})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{SHA256}"'


async def test_an_empty_file_is_served(site: Site) -> None:
    await site.storage.put("empty", b"", content_type="text/csv")
    answer = await site.client.get(await site.storage.presigned_get("empty", expires_seconds=60))
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_valid_link_to_nothing_is_not_found(site: Site) -> None:
    assert_refused(
        await site.client.get(await site.storage.presigned_get("absent", expires_seconds=60)), 404, "NOT_FOUND"
    )


async def test_a_reader_that_leaves_lets_go_of_the_file(site: Site) -> None:
    await site.storage.put("big", bytes(8 * 2**20), content_type="text/csv")
    link = urlsplit(await site.storage.presigned_get("big", expires_seconds=60))
    async with connected(link) as (reader, writer):
        writer.write(f"GET {link.path}?{link.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readexactly(100)
        assert _open_contents(site.folder) == 1
    async with asyncio.timeout(1.5):  # less than it takes to be found stalling
        while _open_contents(site.folder):
            await site.client.head(site.base_url)


async def test_a_reader_that_stalls_is_cut_off(site: Site) -> None:
    await site.storage.put("big", bytes(32 * 2**20), content_type="text/csv")
    link = urlsplit(await site.storage.presigned_get("big", expires_seconds=60))
    with socket.create_connection((str(link.hostname), int(link.port or 0))) as connection:
        connection.sendall(f"GET {link.path}?{link.query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        async with asyncio.timeout(10):
            while not _open_contents(site.folder):
                await site.client.get(await site.link("other"))
            while _open_contents(site.folder):
                await site.client.get(await site.link("other"))


def _open_contents(folder: Path) -> int:
    """How many stored files this process has open."""
    return sum(Path(file.path).is_relative_to(folder / "objects") for file in psutil.Process().open_files())


# -- forged, tampered with, expired


async def test_an_expired_link_reads_nothing(site: Site) -> None:
    link = await site.link()
    site.clock.seconds += 59
    assert (await site.client.get(link)).status_code == 200
    site.clock.seconds += 1
    assert_refused(await site.client.get(link), 403, "FORBIDDEN")


@pytest.mark.parametrize(
    "changes",
    [
        {"expires": "9999999999"},
        {"disposition": "inline"},
        {"type": "text/html"},
        {"kid": "old"},
        {"kid": "unknown"},
        {"kid": None},
        {"signature": None},
        {"signature": ""},
        {"signature": "0" * 64},
        {"signature": "ñ"},
        {"extra": "1"},
        {"expires": None},
    ],
    ids=str,
)
async def test_a_link_that_was_altered_reads_nothing(site: Site, changes: dict[str, str | None]) -> None:
    assert_refused(await site.client.get(altered(await site.link(), **changes)), 403, "FORBIDDEN")


async def test_a_link_leads_to_its_own_file_only(site: Site) -> None:
    link = await site.link("runs/1/items.csv")
    await site.storage.put("runs/2/items.csv", b"secret", content_type="text/csv")
    assert_refused(await site.client.get(link.replace("runs/1", "runs/2")), 403, "FORBIDDEN")


async def test_a_parameter_given_twice_is_refused(site: Site) -> None:
    assert_refused(await site.client.get(f"{await site.link()}&expires=9999999999"), 403, "FORBIDDEN")


async def test_a_forged_link_does_not_tell_what_exists(site: Site) -> None:
    there, absent = await site.link(), await site.storage.presigned_get("absent", expires_seconds=60)
    headers = {"X-Request-ID": "the-same-for-both"}
    answers = [await site.client.get(altered(url, signature="0" * 64), headers=headers) for url in (there, absent)]
    assert answers[0].content == answers[1].content
    assert answers[0].status_code == answers[1].status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%252e%252e/x",
        "a/../../x",
        "a%00b",
        "%2Fetc/passwd",
        "a//b",
        "%ff%fe",
        "",
    ],
)
async def test_paths_that_climb_lead_nowhere(site: Site, path: str) -> None:
    query = urlsplit(await site.link()).query
    # http.client sends the path as it is; httpx would tidy it up.
    connection = http.client.HTTPConnection(urlsplit(site.base_url).netloc, timeout=10)

    def ask() -> int:
        connection.request("GET", f"/files/{path}?{query}")
        return connection.getresponse().status

    try:
        assert await asyncio.to_thread(ask) == 403
    finally:
        connection.close()


async def test_links_of_an_older_key_live_through_a_rotation(site: Site) -> None:
    await site.link("k")
    options = {"expires_seconds": 60, "filename": None, "content_type": None, "inline": False}
    before = site.signer({"old": KEYS["old"]}).read_url("k", **options)  # type: ignore[arg-type]  # forwarded
    stranger = site.signer({"old": b"x" * 32}).read_url("k", **options)  # type: ignore[arg-type]  # forwarded
    assert (await site.client.get(before)).status_code == 200
    assert_refused(await site.client.get(stranger), 403, "FORBIDDEN")


async def test_other_methods_are_refused(site: Site) -> None:
    link = await site.link()
    for method in ("POST", "DELETE", "PATCH"):
        assert (await site.client.request(method, link)).status_code == 405
    assert (await site.client.get(link)).content == DATA


# -- creating


async def send(site: Site, put: PresignedPut, **changes: object) -> httpx.Response:
    request = {"content": DATA, "headers": dict(put.headers), **changes}
    return await site.client.put(put.url, **request)  # type: ignore[arg-type]  # forwarded


@asynccontextmanager
async def connected(url: SplitResult) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection, for requests that no HTTP library would send."""
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        yield reader, writer
    finally:
        writer.close()


def _upload_head(url: SplitResult, *, length: int) -> bytes:
    lines = [f"PUT {url.path}?{url.query} HTTP/1.1", "Host: x", "Content-Type: image/png", f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_an_upload_stores_what_was_announced(site: Site) -> None:
    answer = await send(site, await site.upload())
    assert answer.status_code == 200
    assert answer.headers["etag"] == f'"{SHA256}"'
    stored = await site.storage.head("pending/1")
    assert stored is not None
    assert (stored.size, stored.sha256, stored.content_type) == (10, SHA256, "image/png")


async def test_an_empty_upload_is_an_upload(site: Site) -> None:
    assert (await send(site, await site.upload(data=b""), content=b"")).status_code == 200
    assert await site.storage.head("pending/1") is not None


async def test_a_longer_body_is_refused(site: Site) -> None:
    assert_refused(await send(site, await site.upload(), content=DATA + b"x"), 413, "PAYLOAD_TOO_LARGE")
    assert site.files() == []


async def test_a_longer_body_of_unknown_length_is_refused(site: Site) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield DATA

    assert_refused(await send(site, await site.upload(), content=chunks()), 413, "PAYLOAD_TOO_LARGE")
    assert site.files() == []


async def test_a_longer_body_is_refused_before_it_is_sent(site: Site) -> None:
    url = urlsplit((await site.upload()).url)
    async with connected(url) as (reader, writer):
        writer.write(_upload_head(url, length=11))
        async with asyncio.timeout(5):
            assert b" 413 " in await reader.readline()


async def test_a_shorter_body_is_refused(site: Site) -> None:
    answer = await send(site, await site.upload(), content=DATA[:-1])
    assert_refused(answer, 400, "VALIDATION_ERROR")
    assert answer.json()["errors"][0]["extensions"]["details"] == {"path": [], "size": 10, "received": 9}
    assert site.files() == []


async def test_a_body_of_other_bytes_is_refused(site: Site) -> None:
    answer = await send(site, await site.upload(), content=b"9876543210")
    assert_refused(answer, 400, "VALIDATION_ERROR")
    assert answer.json()["errors"][0]["extensions"]["details"] == {"path": ["sha256"]}
    assert site.files() == []


@pytest.mark.parametrize("content_type", ["text/html", "image/png; charset=x", None])
async def test_another_type_is_refused(site: Site, content_type: str | None) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert_refused(await send(site, await site.upload(), headers=headers), 400, "VALIDATION_ERROR")
    assert site.files() == []


async def test_nothing_is_overwritten(site: Site) -> None:
    await site.storage.put("pending/1", b"mine", content_type="text/plain")
    assert_refused(await send(site, await site.upload()), 409, "CONFLICT")
    assert b"".join([chunk async for chunk in site.storage.get("pending/1")]) == b"mine"


async def test_one_of_two_uploads_at_once_wins(site: Site) -> None:
    put = await site.upload()
    answers = await asyncio.gather(*(send(site, put) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409, 409]
    assert len(site.files()) == 2


async def test_an_expired_upload_stores_nothing(site: Site) -> None:
    put = await site.upload()
    site.clock.seconds += 60
    assert_refused(await send(site, put), 403, "FORBIDDEN")
    assert site.files() == []


@pytest.mark.parametrize("changes", [{"size": "9999"}, {"type": "text/html"}, {"sha256": "0" * 64}, {"kid": "old"}])
async def test_an_upload_that_was_altered_stores_nothing(site: Site, changes: dict[str, str | None]) -> None:
    put = await site.upload()
    answer = await site.client.put(altered(put.url, **changes), content=DATA, headers=put.headers)
    assert_refused(answer, 403, "FORBIDDEN")
    assert site.files() == []


async def test_reading_and_creating_are_different_rights(site: Site) -> None:
    link, put = await site.link(), await site.upload()
    answer = await site.client.put(link, content=DATA, headers={"Content-Type": "text/csv"})
    assert_refused(answer, 403, "FORBIDDEN")
    await send(site, put)
    assert_refused(await site.client.get(put.url), 403, "FORBIDDEN")


async def test_an_upload_that_breaks_off_leaves_nothing(site: Site) -> None:
    put = await site.upload(data=bytes(2**20))
    url = urlsplit(put.url)
    async with connected(url) as (_, writer):
        writer.write(_upload_head(url, length=2**20) + bytes(600_000))
        await writer.drain()
        async with asyncio.timeout(5):
            while not site.files():
                await site.client.head(site.base_url)
    async with asyncio.timeout(1.5):  # less than it takes to be found stalling
        while site.files():
            await site.client.head(site.base_url)


async def test_an_upload_that_stalls_is_given_up(site: Site) -> None:
    url = urlsplit((await site.upload()).url)
    async with connected(url) as (reader, writer):
        writer.write(_upload_head(url, length=10) + b"01234")
        async with asyncio.timeout(5):
            assert b" 400 " in await reader.readline()
        assert site.files() == []


async def test_keys_of_any_script_travel(site: Site) -> None:
    key = "ñandú/año 2026 +&%41?#=.png"
    assert (await send(site, await site.upload(key))).status_code == 200
    link = await site.storage.presigned_get(key, expires_seconds=60)
    assert quote(key) in link
    assert (await site.client.get(link)).content == DATA


async def test_with_s3_there_is_nothing_here(site: Site, server: FileServer, tmp_path: Path) -> None:
    link = await site.link()
    settings = s3_settings(tmp_path, endpoint_url="http://127.0.0.1:9", bucket="bucket")
    async with open_storage(settings) as server.storage:
        assert_refused(await site.client.get(link), 404, "NOT_FOUND")


async def test_links_begin_with_the_public_address(tmp_path: Path) -> None:
    async with open_storage(make_settings(tmp_path, base_url="https://api.example.com/")) as storage:
        link = await storage.presigned_get("a b", expires_seconds=60)
    assert link.startswith("https://api.example.com/files/a%20b?")
