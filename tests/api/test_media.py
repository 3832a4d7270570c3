"""Media through the API: announced, sent, looked into, listed, linked, deleted; and what is sent to break it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import secrets
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import psutil
import pytest
from PIL import Image

from adapters.storage import LocalStorage, UrlSigner, open_local_storage
from models import media_queries
from models.ids import Prefix, decode_id, encode_id
from models.permissions import Role
from resolvers.media import MAX_PENDING
from tasks import media_upkeep
from tests.conftest import ApiServer, WorkerFactory
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness import media_files
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.waiting import eventually
from tests.storage_servers import moto_server

SETTINGS = {"MEDIA_QUOTA_MEGABYTES": "300", "MEDIA_MEMORY_MEGABYTES": "512"}
BOMB_MEGABYTES = 700
MEDIA = """
id status filename contentType size sha256 kind width height pages durationSeconds rejection createdAt completedAt
uploadUntil owner { id } url thumbnailUrl
"""
CREATE = f"""
mutation ($input: CreateUploadInput!) {{
  createUpload(input: $input) {{ media {{ {MEDIA} }} upload {{ url method headers {{ name value }} }} }}
}}
"""
COMPLETE = f"mutation ($input: CompleteUploadInput!) {{ completeUpload(input: $input) {{ media {{ {MEDIA} }} }} }}"
DELETE = "mutation ($input: DeleteMediaInput!) { deleteMedia(input: $input) { deletedId } }"
ONE = f"query ($id: ID!) {{ mediaItem(id: $id) {{ {MEDIA} }} }}"
LIST = """
query ($filter: MediaFilter, $first: Int, $after: String, $last: Int, $before: String) {
  media(filter: $filter, first: $first, after: $after, last: $last, before: $before) {
    totalCount edges { cursor node { id filename } } pageInfo { hasNextPage }
  }
}
"""
NODE = "query ($id: ID!) { node(id: $id) { id ... on Media { filename } } }"


def announced(content: bytes, content_type: str = "image/png", **changes: Any) -> dict[str, Any]:
    return {
        "filename": f"{secrets.token_hex(4)}.bin",
        "contentType": content_type,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        **changes,
    }


async def refused(client: GraphQLClient, document: str, variables: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    with pytest.raises(GraphQLFailure) as caught:
        await client.run(document, variables, **more)
    return {"message": caught.value.errors[0]["message"], **caught.value.extensions}


async def created(client: GraphQLClient, person: Person, content: bytes, **more: Any) -> dict[str, Any]:
    data = await client.run(CREATE, {"input": announced(content, **more)}, token=person.token)
    made: dict[str, Any] = data["createUpload"]
    return made


async def send(client: GraphQLClient, target: Mapping[str, Any], content: Any) -> httpx.Response:
    headers = {header["name"]: header["value"] for header in target["headers"]}
    return await client.http.request(target["method"], target["url"], headers=headers, content=content)


async def sent(client: GraphQLClient, person: Person, content: bytes, **more: Any) -> str:
    made = await created(client, person, content, **more)
    answer = await send(client, made["upload"], content)
    assert answer.status_code == 200, answer.text
    media_id: str = made["media"]["id"]
    return media_id


async def complete(client: GraphQLClient, person: Person, media_id: str) -> dict[str, Any]:
    data = await client.run(COMPLETE, {"input": {"id": media_id}}, token=person.token)
    media: dict[str, Any] = data["completeUpload"]["media"]
    return media


async def uploaded(client: GraphQLClient, person: Person, content: bytes, **more: Any) -> dict[str, Any]:
    return await complete(client, person, await sent(client, person, content, **more))


def key_of(media_id: str) -> UUID:
    return decode_id(media_id)[1]


@pytest.fixture(scope="module")
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
        yield pool


@pytest.fixture(scope="module")
async def storage(settings_env: dict[str, str], api_server: ApiServer) -> AsyncIterator[LocalStorage]:
    """The API's storage, seen from here."""
    signer = UrlSigner(base_url=api_server.url, keyring={"test": bytes(32)})
    async with open_local_storage(Path(settings_env["DATA_DIR"]) / "files", signer=signer) as storage:
        yield storage


@pytest.fixture
async def other(client: GraphQLClient, db: asyncpg.Connection) -> Person:
    """Another administrator, whose media are theirs."""
    return await new_user(client, role=Role.ADMIN, db=db)


# -- who


async def test_strangers_and_users_upload_nothing(client: GraphQLClient, admin: Person, db: asyncpg.Connection) -> None:
    person = await new_user(client)
    made = await created(client, admin, media_files.picture())
    attempts: list[tuple[str, dict[str, Any]]] = [
        (CREATE, {"input": announced(b"x")}),
        (COMPLETE, {"input": {"id": made["media"]["id"]}}),
        (DELETE, {"input": {"id": made["media"]["id"]}}),
    ]
    before = await db.fetch("SELECT * FROM media ORDER BY id")
    for document, variables in attempts:
        assert (await refused(client, document, variables))["code"] == "UNAUTHORIZED"
        assert (await refused(client, document, variables, token=person.token))["code"] == "FORBIDDEN"
    assert (await refused(client, LIST, {}))["code"] == "UNAUTHORIZED"
    assert (await refused(client, ONE, {"id": made["media"]["id"]}, token=person.token))["code"] == "NOT_FOUND"
    assert await client.run(NODE, {"id": made["media"]["id"]}, token=person.token) == {"node": None}
    assert (await client.run(LIST, {}, token=person.token))["media"]["totalCount"] == 0
    assert await db.fetch("SELECT * FROM media ORDER BY id") == before


@pytest.mark.parametrize("media_id", ["", "med_", encode_id(Prefix.MEDIA, NOBODYS_ID), "prod_" + "0" * 26])
async def test_what_is_no_medium_is_not_found(client: GraphQLClient, admin: Person, media_id: str) -> None:
    assert (await refused(client, ONE, {"id": media_id}, token=admin.token))["code"] == "NOT_FOUND"
    for document in (COMPLETE, DELETE):
        assert (await refused(client, document, {"input": {"id": media_id}}, token=admin.token))["code"] == "NOT_FOUND"


# -- what is announced


@pytest.mark.parametrize(
    ("changes", "path", "code"),
    [
        ({"contentType": "image/svg+xml"}, "contentType", "VALIDATION_ERROR"),
        ({"contentType": "text/html"}, "contentType", "VALIDATION_ERROR"),
        ({"contentType": "application/zip"}, "contentType", "VALIDATION_ERROR"),
        ({"contentType": "image/png; x=1"}, "contentType", "VALIDATION_ERROR"),
        ({"contentType": ""}, "contentType", "VALIDATION_ERROR"),
        ({"size": 0}, "size", "VALIDATION_ERROR"),
        ({"size": -1}, "size", "VALIDATION_ERROR"),
        ({"size": 100 * 2**20 + 1}, "size", "PAYLOAD_TOO_LARGE"),
        ({"sha256": "abc"}, "sha256", "VALIDATION_ERROR"),
        ({"sha256": "g" * 64}, "sha256", "VALIDATION_ERROR"),
        ({"filename": ""}, "filename", "VALIDATION_ERROR"),
        ({"filename": "../.."}, "filename", "VALIDATION_ERROR"),
        ({"filename": "a/"}, "filename", "VALIDATION_ERROR"),
        ({"filename": "two\nlines.png"}, "filename", "VALIDATION_ERROR"),
        ({"filename": "gnp.\u202eexe"}, "filename", "VALIDATION_ERROR"),
        ({"filename": "x" * 256}, "filename", "VALIDATION_ERROR"),
    ],
)
async def test_bad_announcements_are_refused_with_the_path(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection, changes: dict[str, Any], path: str, code: str
) -> None:
    before = await db.fetchval("SELECT count(*) FROM media")
    error = await refused(client, CREATE, {"input": announced(b"x", **changes)}, token=admin.token)
    assert (error["code"], error["details"]["path"]) == (code, ["input", path])
    assert await db.fetchval("SELECT count(*) FROM media") == before


async def test_folders_in_a_name_are_dropped(client: GraphQLClient, admin: Person) -> None:
    for filename in ("/etc/mañana.png", "C:\\Users\\me\\mañana.png"):
        made = await created(client, admin, b"x", filename=filename)
        assert made["media"]["filename"] == "mañana.png"


async def test_a_repeated_announcement_makes_one_medium(client: GraphQLClient, other: Person) -> None:
    wanted = announced(media_files.picture(), idempotencyKey="once")
    first, second = [(await client.run(CREATE, {"input": wanted}, token=other.token))["createUpload"] for _ in range(2)]
    assert first["media"]["id"] == second["media"]["id"]
    assert second["upload"]["method"] == "PUT"
    error = await refused(client, CREATE, {"input": {**wanted, "size": 7}}, token=other.token)
    assert (error["code"], error["details"]["path"]) == ("CONFLICT", ["input", "idempotencyKey"])
    assert (await send(client, first["upload"], media_files.picture())).status_code == 200
    await complete(client, other, first["media"]["id"])
    third = (await client.run(CREATE, {"input": wanted}, token=other.token))["createUpload"]
    assert (third["media"]["status"], third["upload"]) == ("READY", None)


async def test_a_race_does_not_go_past_the_quota(client: GraphQLClient, other: Person, db: asyncpg.Connection) -> None:
    large = announced(b"x", size=90 * 2**20)
    answers = await asyncio.gather(*(client.raw(CREATE, {"input": large}, token=other.token) for _ in range(8)))
    errors = [answer.json()["errors"][0]["extensions"] for answer in answers if answer.json().get("errors")]
    assert len(errors) == 5
    assert {(error["code"], error["details"]["quotaBytes"]) for error in errors} == {("CONFLICT", 300 * 2**20)}
    owner_id = decode_id(other.id)[1]
    assert await db.fetchval("SELECT sum(size) FROM media WHERE owner_id = $1", owner_id) == 270 * 2**20


async def test_uploads_that_are_not_completed_are_few(
    client: GraphQLClient, other: Person, db: asyncpg.Connection
) -> None:
    made = await created(client, other, b"x")
    await db.execute(
        """INSERT INTO media (id, owner_id, status, filename, content_type, size, sha256, has_thumbnail, created_at,
               upload_until)
           SELECT gen_random_uuid(), owner_id, status, filename, content_type, size, sha256, false, now(), upload_until
           FROM media, generate_series(2, $2) WHERE id = $1""",
        key_of(made["media"]["id"]),
        MAX_PENDING,
    )
    error = await refused(client, CREATE, {"input": announced(b"x")}, token=other.token)
    assert (error["code"], error["details"]["path"]) == ("CONFLICT", ["input"])
    await db.execute("DELETE FROM media WHERE owner_id = $1", decode_id(other.id)[1])


# -- what is sent


@pytest.mark.parametrize(
    ("content_type", "kind", "size", "pages", "seconds"),
    [
        ("image/png", "IMAGE", (640, 320), None, None),
        ("image/avif", "IMAGE", (640, 320), None, None),
        ("application/pdf", "PDF", (None, None), 2, None),
        ("video/mp4", "VIDEO", (160, 96), None, 2.0),
        ("video/webm", "VIDEO", (160, 96), None, 2.0),
    ],
)
async def test_a_sound_file_becomes_a_medium(
    client: GraphQLClient,
    admin: Person,
    content_type: str,
    kind: str,
    size: tuple[int | None, int | None],
    pages: int | None,
    seconds: float | None,
) -> None:
    content = (
        media_files.document()
        if kind == "PDF"
        else media_files.video(content_type)
        if kind == "VIDEO"
        else media_files.picture(content_type)
    )
    made = await created(client, admin, content, content_type=content_type, filename="año.bin")
    assert (made["media"]["status"], made["media"]["kind"], made["media"]["url"]) == ("PENDING", None, None)
    assert (await send(client, made["upload"], content)).status_code == 200
    media = await complete(client, admin, made["media"]["id"])
    assert (media["status"], media["kind"], media["uploadUntil"]) == ("READY", kind, None)
    assert ((media["width"], media["height"]), media["pages"], media["durationSeconds"]) == (size, pages, seconds)
    assert media["owner"] == {"id": admin.id}
    assert (await client.run(NODE, {"id": media["id"]}, token=admin.token))["node"]["filename"] == "año.bin"

    answer = await client.http.get(media["url"])
    assert answer.content == content
    assert answer.headers["content-type"] == content_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["content-disposition"].startswith("attachment" if kind == "PDF" else "inline")
    answer = await client.http.get(media["thumbnailUrl"])
    assert (answer.headers["content-type"], answer.headers["content-disposition"][:6]) == ("image/webp", "inline")
    with Image.open(io.BytesIO(answer.content), formats=["WEBP"]) as thumbnail:
        assert max(thumbnail.size) <= 512


async def test_a_thumbnail_is_upright_and_tells_no_place(client: GraphQLClient, admin: Person) -> None:
    content = media_files.picture("image/jpeg", is_sideways=True)
    assert media_files.SECRET_PLACE.encode() in content
    media = await uploaded(client, admin, content, content_type="image/jpeg")
    assert (media["width"], media["height"]) == (320, 640)
    thumbnail = (await client.http.get(media["thumbnailUrl"])).content
    assert media_files.SECRET_PLACE.encode() not in thumbnail
    assert b"EXIF" not in thumbnail
    with Image.open(io.BytesIO(thumbnail)) as image:
        assert image.size == (256, 512)
        red, _, blue = image.convert("RGB").getpixel((128, 20))  # type: ignore[misc] # a pixel of three colours
        assert red > 200 > blue


async def test_what_is_sent_is_what_was_announced(client: GraphQLClient, admin: Person) -> None:
    content = media_files.picture()
    made = await created(client, admin, content)
    for wrong in (content[:-1], content + b"x", content[:-1] + b"x"):
        assert (await send(client, made["upload"], wrong)).status_code in (400, 413)
    error = await refused(client, COMPLETE, {"input": {"id": made["media"]["id"]}}, token=admin.token)
    assert (error["code"], error["details"]["path"]) == ("CONFLICT", ["input", "id"])
    assert (await send(client, made["upload"], content)).status_code == 200
    assert (await send(client, made["upload"], content)).status_code == 409
    await complete(client, admin, made["media"]["id"])


BAD = {
    "html": ("image/jpeg", "no JPEG"),
    "polyglot": ("application/pdf", "no PDF"),
    "cut off": ("image/png", "no PNG"),
    "pixels": ("image/png", "pixels"),
    "flate bomb": ("application/pdf", "memory"),
    "pages": ("application/pdf", "200,000"),
    "locked": ("application/pdf", "password"),
    "sound": ("video/mp4", "no moving picture"),
}


def bad_file(name: str) -> bytes:
    match name:
        case "html":
            return b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0<script>alert(1)</script>"
        case "polyglot":
            return b"<script>alert(1)</script>\n" + media_files.document()
        case "cut off":
            return media_files.picture()[:-100]
        case "pixels":
            return media_files.pixel_bomb()
        case "flate bomb":
            return media_files.flate_bomb(BOMB_MEGABYTES)
        case "pages":
            return media_files.many_pages(200_000)
        case "locked":
            return media_files.locked_document()
        case _:
            return media_files.sound()


@pytest.mark.parametrize("name", BAD)
async def test_what_is_not_what_it_says_is_refused_and_goes(
    client: GraphQLClient,
    api_server: ApiServer,
    admin: Person,
    db: asyncpg.Connection,
    pool: asyncpg.Pool,
    storage: LocalStorage,
    name: str,
) -> None:
    content_type, told = BAD[name]
    content = bad_file(name)
    rss = psutil.Process(api_server.pid).memory_info().rss
    media_id = await sent(client, admin, content, content_type=content_type)
    for _ in range(2):
        error = await refused(client, COMPLETE, {"input": {"id": media_id}}, token=admin.token)
        assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["input", "id"])
        assert error["details"]["mediaId"] == media_id
        assert told in error["message"]
    media = (await client.run(ONE, {"id": media_id}, token=admin.token))["mediaItem"]
    assert (media["status"], media["kind"], media["url"]) == ("REJECTED", None, None)
    assert media["rejection"] == error["message"]
    assert psutil.Process(api_server.pid).memory_info().rss - rss < 40 * 2**20
    events = await db.fetch("SELECT outcome FROM audit_events WHERE target_id = $1 ORDER BY id", key_of(media_id))
    assert [event["outcome"] for event in events] == ["success", "VALIDATION_ERROR"]

    assert await storage.head(media_queries.object_key(key_of(media_id))) is not None
    payload = await db.fetchval(
        "SELECT payload::text FROM outbox_messages WHERE topic = 'media.removal' AND key = $1", str(key_of(media_id))
    )
    assert str(key_of(media_id)) in payload
    await media_upkeep.remove(pool, storage, {"mediaId": str(key_of(media_id))})
    assert await storage.head(media_queries.object_key(key_of(media_id))) is None


async def test_a_race_to_complete_decodes_once(client: GraphQLClient, admin: Person, db: asyncpg.Connection) -> None:
    media_id = await sent(client, admin, media_files.picture())
    answers = await asyncio.gather(*(complete(client, admin, media_id) for _ in range(6)))
    stable = [{name: value for name, value in each.items() if not name.lower().endswith("url")} for each in answers]
    assert all(each == stable[0] for each in stable)
    count = "SELECT count(*) FROM audit_events WHERE target_id = $1 AND action = 'completeUpload'"
    assert await db.fetchval(count, key_of(media_id)) == 1
    assert (await complete(client, admin, media_id))["completedAt"] == stable[0]["completedAt"]


async def test_an_api_that_dies_while_it_looks_can_be_asked_again(
    client: GraphQLClient, api_server: ApiServer, admin: Person
) -> None:
    media_id = await sent(client, admin, media_files.flate_bomb(BOMB_MEGABYTES), content_type="application/pdf")
    victim = await api_server.second()
    async with GraphQLClient(victim.graphql_url) as doomed:
        asking = asyncio.create_task(complete(doomed, admin, media_id))
        process = psutil.Process(victim.pid)
        children = await eventually(lambda: process.children(recursive=True))
        victim.kill()
        with pytest.raises(httpx.HTTPError):
            await asking
    psutil.wait_procs(children, timeout=10)
    assert not any(child.is_running() for child in children)
    assert (await client.run(ONE, {"id": media_id}, token=admin.token))["mediaItem"]["status"] == "PENDING"
    assert (await refused(client, COMPLETE, {"input": {"id": media_id}}, token=admin.token))["code"] == (
        "VALIDATION_ERROR"
    )


async def test_a_large_file_passes_through_without_being_held(
    client: GraphQLClient, api_server: ApiServer, other: Person
) -> None:
    size = 100 * 2**20
    block = os.urandom(2**20)
    digest = hashlib.sha256()
    for _ in range(100):
        digest.update(block)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield block

    made = await created(client, other, b"", size=size, sha256=digest.hexdigest())
    process = psutil.Process(api_server.pid)
    before, peak = process.memory_info().rss, 0
    transfer = asyncio.create_task(send(client, made["upload"], body()))
    while not transfer.done():
        peak = max(peak, process.memory_info().rss)
        await asyncio.sleep(0.02)
    assert (await transfer).status_code == 200
    asking = asyncio.create_task(refused(client, COMPLETE, {"input": {"id": made["media"]["id"]}}, token=other.token))
    while not asking.done():
        peak = max(peak, process.memory_info().rss)
        await asyncio.sleep(0.02)
    assert (await asking)["code"] == "VALIDATION_ERROR"  # random bytes are no picture
    assert peak - before < 20 * 2**20


# -- what there is


async def test_media_are_listed_newest_first_and_filtered(client: GraphQLClient, other: Person) -> None:
    names = [f"{index}-{secrets.token_hex(3)}.png" for index in range(3)]
    ids = [(await created(client, other, b"x", filename=name))["media"]["id"] for name in names]
    ready = (await uploaded(client, other, media_files.document(), content_type="application/pdf"))["id"]

    async def found(**variables: Any) -> list[str]:
        page = (await client.run(LIST, variables, token=other.token))["media"]
        return [edge["node"]["id"] for edge in page["edges"]]

    everything = await found(first=100)
    assert everything[:4] == [ready, *ids[::-1]]
    assert (await found(filter={"kind": "PDF"}))[0] == ready
    assert ready not in await found(filter={"status": "PENDING"}, first=100)
    assert await found(filter={"search": names[1].upper()}) == [ids[1]]
    assert await found(filter={"search": "100%_"}) == []
    page = (await client.run(LIST, {"first": 2}, token=other.token))["media"]
    assert page["pageInfo"]["hasNextPage"]
    assert (await found(first=2, after=page["edges"][1]["cursor"]))[0] == everything[2]


@pytest.mark.parametrize("seconds", [59, 604_801, -1])
async def test_links_live_within_bounds(client: GraphQLClient, admin: Person, seconds: int) -> None:
    made = await created(client, admin, b"x")
    document = "query ($id: ID!, $seconds: Int) { mediaItem(id: $id) { url(expiresIn: $seconds) } }"
    error = await refused(client, document, {"id": made["media"]["id"], "seconds": seconds}, token=admin.token)
    assert (error["code"], error["details"]["path"]) == ("VALIDATION_ERROR", ["expiresIn"])


async def test_a_deleted_medium_is_gone_with_its_objects(
    client: GraphQLClient,
    admin: Person,
    db: asyncpg.Connection,
    pool: asyncpg.Pool,
    storage: LocalStorage,
    worker_factory: WorkerFactory,
) -> None:
    media = await uploaded(client, admin, media_files.picture())
    key = key_of(media["id"])
    await media_upkeep.remove(pool, storage, {"mediaId": str(key)})
    assert await storage.head(media_queries.object_key(key)) is not None  # one that is there keeps what it has
    data = await client.run(DELETE, {"input": {"id": media["id"]}}, token=admin.token)
    assert data["deleteMedia"]["deletedId"] == media["id"]
    assert (await refused(client, ONE, {"id": media["id"]}, token=admin.token))["code"] == "NOT_FOUND"

    async def objects() -> list[str]:
        return [stored.key async for stored in storage.list(f"media/{key}/")]

    assert len(await objects()) == 2
    worker_factory()

    async def is_told() -> bool:
        return not await db.fetchval("SELECT count(*) FROM outbox_messages WHERE topic = 'media.removal'")

    await eventually(is_told, 20)
    assert await objects() == []
    await media_upkeep.remove(pool, storage, {"mediaId": str(key)})


async def test_what_nobody_completes_is_swept(
    client: GraphQLClient, admin: Person, db: asyncpg.Connection, pool: asyncpg.Pool, storage: LocalStorage
) -> None:
    old, fresh = [await sent(client, admin, media_files.picture()) for _ in range(2)]
    late = await sent(client, admin, media_files.picture())
    for media_id, minutes in ((old, 61), (late, 45)):
        await db.execute(
            "UPDATE media SET upload_until = now() - make_interval(mins => $2) WHERE id = $1", key_of(media_id), minutes
        )
    assert (await refused(client, COMPLETE, {"input": {"id": late}}, token=admin.token))["code"] == "CONFLICT"
    ready = await uploaded(client, admin, media_files.picture())
    await storage.put(media_queries.object_key(NOBODYS_ID), b"orphan", content_type="image/png")
    await media_upkeep.sweep_once(pool, storage)
    assert await storage.head(media_queries.object_key(NOBODYS_ID)) is None
    assert await storage.head(media_queries.object_key(key_of(old))) is None
    assert (await refused(client, ONE, {"id": old}, token=admin.token))["code"] == "NOT_FOUND"
    for kept in (fresh, late, ready["id"]):
        assert await storage.head(media_queries.object_key(key_of(kept))) is not None
        assert (await client.run(ONE, {"id": kept}, token=admin.token))["mediaItem"]["id"] == kept


async def test_uploads_work_with_s3(api_server: ApiServer, admin: Person) -> None:
    content = media_files.picture()
    with moto_server() as endpoint:
        async with httpx.AsyncClient(trust_env=False) as http:
            await http.put(f"{endpoint}/media-bucket")
        second = await api_server.second(
            STORAGE_BACKEND="s3",
            S3_ENDPOINT_URL=endpoint,
            S3_BUCKET="media-bucket",
            S3_ACCESS_KEY_ID="AKIDTEST",
            S3_SECRET_ACCESS_KEY="very-secret-value",
        )
        async with GraphQLClient(second.graphql_url) as client:
            made = await created(client, admin, content)
            headers = {header["name"].lower() for header in made["upload"]["headers"]}
            assert headers == {"content-type", "x-amz-checksum-sha256", "if-none-match"}
            media = await uploaded(client, admin, content)
            assert (media["status"], media["width"]) == ("READY", 640)
            assert (await client.http.get(media["url"])).content == content
            assert (await client.http.get(media["thumbnailUrl"])).content[8:12] == b"WEBP"
        await second.stop()
