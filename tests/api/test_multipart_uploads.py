"""Files in forms: who may send them, how large they are, and forms that are made to be misread or never to end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from schema.uploads import FORMS_AT_ONCE, FORMS_OF_ONE_USER, PREFLIGHT_HEADERS
from tests.conftest import ApiServer
from tests.factories import Person, new_user
from tests.harness import media_files
from tests.harness.client import GraphQLClient, bearer
from tests.harness.waiting import eventually

SETTINGS = {"BODY_TIMEOUT_SECONDS": "3"}
UPLOAD = """
mutation ($input: UploadMediaInput!) {
  uploadMedia(input: $input) { media { id status filename contentType size sha256 url } }
}
"""
OPERATION = {"query": UPLOAD, "variables": {"input": {"file": None}}}
LISTED = {"query": "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", "variables": {"ids": [None]}}
MAP = {"0": ["variables.input.file"]}
MAX_FORM_MEGABYTES = 53
PREFLIGHT = {"GraphQL-Preflight": "1"}
PICTURE = ("ä.png", media_files.picture(), "image/png")
File = tuple[str, Any, str]


async def post(
    client: GraphQLClient,
    person: Person | None,
    *,
    operations: Any = OPERATION,
    places: Any = MAP,
    files: Sequence[tuple[str, File]] = (("0", PICTURE),),
    headers: Mapping[str, str] = PREFLIGHT,
) -> httpx.Response:
    parts: list[tuple[str, Any]] = [("operations", (None, json.dumps(operations))), ("map", (None, json.dumps(places)))]
    token = None if person is None else person.token
    return await client.http.post(client.url, files=[*parts, *files], headers={**bearer(token), **headers})


def error_of(answer: httpx.Response) -> dict[str, Any]:
    (error,) = answer.json()["errors"]
    return {"message": error["message"], **error["extensions"]}


@pytest.fixture(scope="module")
def folder(settings_env: dict[str, str]) -> Path:
    """Where files are while their request lasts."""
    return Path(settings_env["DATA_DIR"]) / "uploads"


@pytest.fixture(autouse=True)
async def nothing_left_behind(folder: Path) -> AsyncIterator[None]:
    """Every test ends with an empty folder, whatever was sent."""
    yield
    await eventually(lambda: not folder.exists() or not list(folder.iterdir()), what=f"an empty {folder}")


@pytest.fixture
async def unchanged(db: asyncpg.Connection) -> AsyncIterator[None]:
    """What is refused leaves no medium."""
    before = await db.fetchval("SELECT count(*) FROM media")
    yield
    assert await db.fetchval("SELECT count(*) FROM media") == before


# -- who


@pytest.mark.parametrize("header", PREFLIGHT_HEADERS)
async def test_a_small_file_comes_with_its_operation(client: GraphQLClient, admin: Person, header: str) -> None:
    answer = await post(client, admin, headers={header: "yes"})
    media = answer.json()["data"]["uploadMedia"]["media"]
    assert (media["status"], media["filename"], media["contentType"]) == ("READY", "ä.png", "image/png")
    assert (media["size"], media["sha256"]) == (len(PICTURE[1]), hashlib.sha256(PICTURE[1]).hexdigest())
    assert (await client.http.get(media["url"])).content == PICTURE[1]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("headers", [{}, {"GraphQL-Preflight": ""}, {"X-Other": "1"}])
async def test_a_form_that_any_page_could_send_is_refused(
    client: GraphQLClient, admin: Person, headers: dict[str, str]
) -> None:
    answer = await post(client, admin, headers=headers)
    assert answer.status_code == 403
    assert error_of(answer)["code"] == "FORBIDDEN"


@pytest.mark.usefixtures("unchanged")
async def test_strangers_are_refused_before_their_file_is_read(client: GraphQLClient, api_server: ApiServer) -> None:
    async with raw_form(api_server, None, length=10_000_000) as (reader, _):
        status = await asyncio.wait_for(reader.readline(), 5)  # none of the body was sent
    assert status.startswith(b"HTTP/1.1 401")
    assert error_of(await post(client, None))["code"] == "UNAUTHORIZED"


@pytest.mark.usefixtures("unchanged")
async def test_users_upload_no_media(client: GraphQLClient) -> None:
    person = await new_user(client)
    assert error_of(await post(client, person))["code"] == "FORBIDDEN"


# -- forms that are none


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"operations": [OPERATION]}, "Batches"),
        ({"operations": "x"}, "JSON object"),
        ({"operations": {"query": UPLOAD}}, "place in `map`"),
        ({"operations": {**OPERATION, "variables": {"input": {"file": "x"}}}}, "place in `map`"),
        ({"operations": {"query": "{ nothing }"}}, "nothing"),
        ({"operations": {"query": "subscription { notifications { id } }"}}, "subscription"),
        ({"places": []}, "`map`"),
        ({"places": {}}, "`map`"),
        ({"places": {str(number): [f"variables.f.{number}"] for number in range(6)}}, "1 to 5"),
        ({"places": {"0": "variables.input.file"}}, "lists of places"),
        ({"places": {"0": ["variables.input"]}}, "place in `map`"),
        ({"places": {"0": ["variables.other"]}}, "place in `map`"),
        ({"places": {"0": ["query"]}}, "place in `map`"),
        ({"places": {"0": ["variables.input.file.path"]}}, "place in `map`"),
        ({"places": {"0": ["variables.input.__class__"]}}, "place in `map`"),
        ({"operations": LISTED, "places": {"0": ["variables.ids." + "9" * 5_000]}}, "place in `map`"),
        ({"operations": LISTED, "places": {"0": ["variables.ids.00"]}}, "place in `map`"),
        ({"places": {"0": ["variables.input.file", "variables.input.file"]}}, "twice"),
        ({"places": {"0": ["variables.input.file"], "1": ["variables.input.file"]}}, "twice"),
        ({"files": ()}, "missing"),
        ({"files": (("1", PICTURE),)}, "does not name"),
        ({"files": (("0", PICTURE), ("0", PICTURE))}, "does not name"),
        # Too many parts, or one without a place: it depends on how much of the form arrives at once.
        ({"files": [(str(number), PICTURE) for number in range(9)]}, "The form has"),
    ],
)
async def test_wrong_forms_are_refused(
    client: GraphQLClient, admin: Person, changes: dict[str, Any], told: str
) -> None:
    answer = await post(client, admin, **changes)
    error = error_of(answer)
    assert (error["code"], error["statusCode"]) == ("VALIDATION_ERROR", 400)
    assert told in error["message"]


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b--\r\n",
        b'--b\r\nContent-Disposition: form-data; name="0"; filename="x"\r\n\r\nfirst\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="operations"\r\n\r\n{"query":"{me{id}}"}\r\n--b--\r\n',
        b'--b\r\nContent-Disposition: form-data; name="operations"\r\n\r\n{"query":',
        b'--b\r\nContent-Disposition: form-data; name="operations"\r\n\r\n\xff\xfe\r\n--b--\r\n',
        b"--b\r\n" + b"X: y\r\n" * 5_000,
    ],
    ids=lambda body: body[:40].decode("latin-1"),
)
async def test_what_is_no_form_is_refused(client: GraphQLClient, admin: Person, body: bytes) -> None:
    headers = {**bearer(admin.token), **PREFLIGHT, "Content-Type": "multipart/form-data; boundary=b"}
    answer = await client.http.post(client.url, content=body, headers=headers)
    assert (answer.status_code, error_of(answer)["code"]) == (400, "VALIDATION_ERROR")


@pytest.mark.usefixtures("unchanged")
async def test_only_a_form_brings_files(client: GraphQLClient, admin: Person) -> None:
    for value in ("x", {"path": "/etc/passwd"}, None):
        answer = await client.raw(UPLOAD, {"input": {"file": value}}, token=admin.token)
        assert answer.json()["errors"][0]["extensions"]["code"] == "VALIDATION_ERROR"
    literal = 'mutation { uploadMedia(input: {file: "x"}) { media { id } } }'
    assert (await client.raw(literal, token=admin.token)).json()["errors"][0]["extensions"]["code"] == (
        "VALIDATION_ERROR"
    )


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize(("name", "kind"), [("x.svg", "image/svg+xml"), ("x.html", "text/html"), ("x", "text/plain")])
async def test_types_that_are_not_taken_are_refused(client: GraphQLClient, admin: Person, name: str, kind: str) -> None:
    error = error_of(await post(client, admin, files=(("0", (name, b"<svg/>", kind)),)))
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", "file"])


async def test_a_file_that_lies_about_itself_is_refused(client: GraphQLClient, admin: Person) -> None:
    error = error_of(await post(client, admin, files=(("0", ("x.jpg", PICTURE[1], "image/jpeg")),)))
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", "file"])


@pytest.mark.parametrize("name", ["../../etc/x.png", "C:\\x\\x.png", "..", "x\u202egnp.png"])
async def test_names_have_no_folders_and_no_marks(client: GraphQLClient, admin: Person, name: str) -> None:
    answer = await post(client, admin, files=(("0", (name, PICTURE[1], "image/png")),))
    filename = answer.json()["data"]["uploadMedia"]["media"]["filename"]
    assert filename in ("x.png", "file", "xgnp.png")


# -- size and time


@pytest.mark.usefixtures("unchanged")
async def test_a_file_is_counted_while_it_arrives(client: GraphQLClient, api_server: ApiServer, admin: Person) -> None:
    process = psutil.Process(api_server.pid)
    peak = before = process.memory_info().rss
    for size, status in ((10 * 2**20, 200), (10 * 2**20 + 1, 413)):
        asking = asyncio.create_task(post(client, admin, files=(("0", ("x.png", os.urandom(size), "image/png")),)))
        while not asking.done():
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.01)
        answer = await asking
        assert answer.status_code == status
        assert error_of(answer)["code"] == ("VALIDATION_ERROR" if status == 200 else "PAYLOAD_TOO_LARGE")
        if status == 200:
            media_id = error_of(answer)["details"]["mediaId"]
            delete = "mutation ($input: DeleteMediaInput!) { deleteMedia(input: $input) { deletedId } }"
            await client.run(delete, {"input": {"id": media_id}}, token=admin.token)
    assert peak - before < 20 * 2**20


async def test_texts_of_a_form_are_as_large_as_other_bodies(client: GraphQLClient, admin: Person) -> None:
    answer = await post(client, admin, operations={**OPERATION, "extensions": {"x": "y" * 2**20}})
    assert (answer.status_code, error_of(answer)["code"]) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("is_after", [False, True])
async def test_a_form_that_never_ends_is_refused(api_server: ApiServer, admin: Person, is_after: bool) -> None:
    async with raw_form(api_server, admin, length=10**12) as (reader, writer):
        answering = asyncio.create_task(reader.readline())
        if is_after:
            writer.write(begun_form() + b"\r\n--b--\r\n")
        for _ in range(MAX_FORM_MEGABYTES):
            writer.write(b"x" * 2**20)
            await writer.drain()
            if answering.done():
                break
        assert (await asyncio.wait_for(answering, 10)).startswith(b"HTTP/1.1 413")


@pytest.mark.usefixtures("unchanged")
async def test_a_form_that_stops_is_given_up(api_server: ApiServer, admin: Person, folder: Path) -> None:
    async with raw_form(api_server, admin, length=10_000_000) as (reader, writer):
        writer.write(begun_form())
        await writer.drain()
        await eventually(lambda: list(folder.iterdir()))
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 408")


@pytest.mark.usefixtures("unchanged")
async def test_a_client_that_leaves_leaves_nothing(api_server: ApiServer, admin: Person, folder: Path) -> None:
    async with raw_form(api_server, admin, length=10_000_000) as (_, writer):
        writer.write(begun_form())
        await writer.drain()
        await eventually(lambda: list(folder.iterdir()))


@pytest.mark.usefixtures("unchanged")
async def test_few_forms_arrive_at_once(
    client: GraphQLClient, api_server: ApiServer, admin: Person, folder: Path
) -> None:
    last = await new_user(client)
    people = [await new_user(client) for _ in range(FORMS_AT_ONCE // FORMS_OF_ONE_USER - 1)]
    async with asyncio.TaskGroup() as group:
        full, done = asyncio.Event(), asyncio.Event()
        begun = 0

        async def hold(person: Person) -> None:
            nonlocal begun
            async with raw_form(api_server, person, length=10_000_000) as (_, writer):
                writer.write(begun_form())
                await writer.drain()
                begun += 1
                if begun == FORMS_AT_ONCE:
                    full.set()
                await done.wait()

        for _ in range(FORMS_OF_ONE_USER):
            group.create_task(hold(admin))
        await eventually(lambda: folder.exists() and len(list(folder.iterdir())) == FORMS_OF_ONE_USER)
        one_too_many = await post(client, admin)
        others = await post(client, people[0])
        for person in people:
            for _ in range(FORMS_OF_ONE_USER):
                group.create_task(hold(person))
        await full.wait()
        await eventually(lambda: len(list(folder.iterdir())) == FORMS_AT_ONCE)
        stranger = await post(client, last)
        done.set()
    assert (one_too_many.status_code, error_of(one_too_many)["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "your forms" in error_of(one_too_many)["message"]
    assert error_of(others)["code"] == "FORBIDDEN"  # it was read, though users upload no media
    assert (stranger.status_code, error_of(stranger)["code"]) == (503, "SERVICE_UNAVAILABLE")
    await eventually(lambda: not list(folder.iterdir()))


# -- sending by hand


def begun_form() -> bytes:
    """A form up to the middle of its file."""
    parts = (("operations", json.dumps(OPERATION)), ("map", json.dumps(MAP)))
    texts = "".join(f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in parts)
    head = '--b\r\nContent-Disposition: form-data; name="0"; filename="x.png"\r\nContent-Type: image/png\r\n\r\n'
    return (texts + head).encode() + b"\x89PNG" * 1_000


class raw_form:
    """A connection that has sent the head of a form, and nothing of the body."""

    def __init__(self, api: ApiServer, person: Person | None, *, length: int) -> None:
        self._address = httpx.URL(api.graphql_url)
        token = "" if person is None else f"Authorization: Bearer {person.token}\r\n"
        self._head = (
            f"POST /graphql HTTP/1.1\r\nHost: x\r\n{token}GraphQL-Preflight: 1\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {length}\r\n\r\n"
        )

    async def __aenter__(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, self._writer = await asyncio.open_connection(self._address.host, self._address.port)
        self._writer.write(self._head.encode())
        await self._writer.drain()
        return reader, self._writer

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
