"""Documents as people ask for them, find them and take them away. No worker runs: what one would write is written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from models import database, ocr_job_queries
from models.executions import ExecutionStatus
from models.ids import Prefix, encode_id
from models.permissions import Actor, Role
from tests.conftest import ApiServer
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.documents import (
    CANCEL,
    DELETE,
    ENQUEUE,
    ENQUEUE_BATCH,
    LIST,
    ONE,
    PAGES,
    SEARCH,
    ReadingRoom,
    open_room,
    uuid_in,
)
from tests.harness.executions import uuid_of

NODES = """
query ($ids: [ID!]!) {
  it: nodes(ids: $ids) { __typename id ... on DocumentPage { number } ... on OcrJob { filename } } }
"""
MEDIUM = "query ($id: ID!) { it: ocrJob(id: $id) { media { id status } } }"
LANGUAGES = "{ it: ocrLanguages }"
WORDS = """
query ($id: ID!, $first: Int, $skip: Int!) {
  it: node(id: $id) { ... on DocumentPage { words(first: $first, skip: $skip) { text } } } }
"""


@pytest_asyncio.fixture(scope="module")
async def room(client: GraphQLClient, settings_env: dict[str, str]) -> AsyncIterator[ReadingRoom]:
    async with open_room(client, settings_env) as opened:
        yield opened


@pytest_asyncio.fixture
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


def ids_of(found: dict[str, Any]) -> list[str]:
    return [edge["node"]["id"] for edge in found["edges"]]


# -- asking


async def test_a_document_waits_as_it_was_asked_for(room: ReadingRoom, person: Person) -> None:
    medium = await room.medium(person, filename="Lista de precios.pdf")
    fields = {"mediaId": medium, "languages": ["eng"], "forceOcr": True, "defaultCurrency": "EUR"}
    job = (await room.run(person, ENQUEUE, input=fields))["ocrJob"]
    assert job == {
        **job,
        "status": "QUEUED",
        "filename": "Lista de precios.pdf",
        "languages": ["eng"],
        "forceOcr": True,
        "defaultCurrency": "EUR",
        "batchId": None,
        "pageCount": None,
        "pagesRead": 0,
        "confidence": None,
        "candidateCount": 0,
        "engine": None,
        "failure": None,
        "requestedBy": {"id": person.id},
    }
    assert await room.run(person, ONE, id=job["id"]) == job
    assert await room.run(person, MEDIUM, id=job["id"]) == {"media": {"id": medium, "status": "READY"}}
    events = await room.pool.fetch(
        "SELECT action, target_type FROM audit_events WHERE target_id = $1", uuid_in(job["id"])
    )
    assert [tuple(event) for event in events] == [("enqueueOcr", "ocrJob")]


async def test_languages_that_are_not_named_are_the_usual_ones_that_are_there(
    room: ReadingRoom, person: Person
) -> None:
    installed = await room.run(person, LANGUAGES)
    assert installed == sorted(installed) == list(room.languages)
    assert "eng" in installed
    assert "osd" not in installed
    job = (await room.run(person, ENQUEUE, input={"mediaId": await room.medium(person)}))["ocrJob"]
    assert job["languages"] == [language for language in ("spa", "eng") if language in installed]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"languages": ["eng", "tlh"]}, "languages"),
        ({"languages": ["osd"]}, "languages"),
        ({"languages": ["../../etc/passwd"]}, "languages"),
        ({"languages": []}, "languages"),
        ({"languages": ["eng", "eng"]}, "languages"),
        ({"defaultCurrency": "euro"}, "defaultCurrency"),
        ({"defaultCurrency": "eur"}, "defaultCurrency"),
        ({"idempotencyKey": ""}, "idempotencyKey"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_place(
    room: ReadingRoom, person: Person, fields: dict[str, Any], path: str
) -> None:
    error = await room.refused(person, ENQUEUE, input={"mediaId": await room.medium(person), **fields})
    details = error.extensions["details"]
    assert (error.code, details["path"]) == ("VALIDATION_ERROR", ["input", path])
    if "installed" in details:
        assert details["installed"] == list(room.languages)
        assert all(language in error.errors[0]["message"] for language in room.languages)


async def test_only_pictures_and_pdfs_that_are_ready_and_ones_own_are_read(
    room: ReadingRoom, person: Person, client: GraphQLClient, admin: Person
) -> None:
    stranger = await new_user(client)
    theirs = await room.medium(stranger)
    nothing = encode_id(Prefix.MEDIA, NOBODYS_ID)
    for medium, code in (
        (await room.medium(person, status="PENDING"), "CONFLICT"),
        (await room.medium(person, status="REJECTED"), "CONFLICT"),
        (await room.medium(person, kind="VIDEO"), "VALIDATION_ERROR"),
        (theirs, "NOT_FOUND"),
        (nothing, "NOT_FOUND"),
        (person.id, "NOT_FOUND"),
    ):
        assert (await room.refused(person, ENQUEUE, input={"mediaId": medium})).code == code
        good = await room.medium(person)
        assert (await room.refused(person, ENQUEUE_BATCH, input={"mediaIds": [good, medium]})).code == code
    # An administrator sees all media; the reading is then the administrator's.
    job = await room.enqueue(admin, theirs)
    assert (await room.refused(stranger, ONE, id=job)).code == "NOT_FOUND"


async def test_a_key_makes_one_document_however_often_it_is_used(room: ReadingRoom, person: Person) -> None:
    fields = {"mediaId": await room.medium(person), "idempotencyKey": "once"}
    jobs = await asyncio.gather(*(room.run(person, ENQUEUE, input=fields) for _ in range(4)))
    assert len({job["ocrJob"]["id"] for job in jobs}) == 1
    error = await room.refused(person, ENQUEUE, input={**fields, "forceOcr": True})
    assert error.code == "CONFLICT"


async def test_a_batch_is_queued_whole_and_found_by_its_id(room: ReadingRoom, person: Person) -> None:
    media = [await room.medium(person, filename=f"{number}.pdf") for number in range(3)]
    fields = {"mediaIds": media, "languages": ["eng"], "idempotencyKey": "all"}
    batch = await room.run(person, ENQUEUE_BATCH, input=fields)
    assert [job["filename"] for job in batch["ocrJobs"]] == ["0.pdf", "1.pdf", "2.pdf"]
    assert {job["batchId"] for job in batch["ocrJobs"]} == {batch["batchId"]}
    again = await room.run(person, ENQUEUE_BATCH, input=fields)
    assert again["ocrJobs"] == batch["ocrJobs"]
    found = await room.run(person, LIST, filter={"batchId": batch["batchId"]})
    assert ids_of(found) == [job["id"] for job in reversed(batch["ocrJobs"])]
    for wrong in ([], [media[0], media[0]], [f"{media[0]}{number}" for number in range(101)]):
        error = await room.refused(person, ENQUEUE_BATCH, input={"mediaIds": wrong})
        assert error.code == "VALIDATION_ERROR"


async def test_documents_within_an_hour_are_limited(room: ReadingRoom, person: Person, api_server: ApiServer) -> None:
    media = [await room.medium(person) for _ in range(4)]
    other = await api_server.second(RATE_LIMITS="true", RATE_LIMIT_DOCUMENTS_PER_HOUR="3")
    async with GraphQLClient(other.graphql_url) as client:
        strict = ReadingRoom(client, room.desk, room.languages)
        # Refused ones cost nothing.
        assert (await strict.refused(person, ENQUEUE, input={"mediaId": media[0], "languages": ["tlh"]})).code
        await strict.run(person, ENQUEUE_BATCH, input={"mediaIds": media[:2]})
        await strict.run(person, ENQUEUE, input={"mediaId": media[2]})
        error = await strict.refused(person, ENQUEUE, input={"mediaId": media[3]})
        assert (error.code, error.extensions["details"]["policy"]) == ("RATE_LIMIT_EXCEEDED", "documents")


# -- looking


async def test_documents_are_listed_newest_first_by_their_filters(
    room: ReadingRoom, person: Person, client: GraphQLClient, admin: Person
) -> None:
    done = await room.finished(person, "one page", filename="Factura 7.pdf")
    medium = await room.medium(person, filename="Precios.pdf")
    waiting = await room.enqueue(person, medium)
    assert ids_of(await room.run(person, LIST)) == [waiting, done]
    assert ids_of(await room.run(person, LIST, filter={"status": ["SUCCEEDED"]})) == [done]
    assert ids_of(await room.run(person, LIST, filter={"mediaId": medium})) == [waiting]
    assert ids_of(await room.run(person, LIST, filter={"search": "FACTURA"})) == [done]
    assert ids_of(await room.run(person, LIST, filter={"batchId": "no batch"})) == []
    first = await room.run(person, LIST, first=1)
    assert (ids_of(first), first["totalCount"], first["pageInfo"]["hasNextPage"]) == ([waiting], 2, True)
    assert ids_of(await room.run(person, LIST, first=1, after=first["pageInfo"]["endCursor"])) == [done]
    assert ids_of(await room.run(await new_user(client), LIST)) == []
    assert {waiting, done} <= set(ids_of(await room.run(admin, LIST, first=100)))


async def test_pages_come_in_order_with_their_words_and_the_whole_text(room: ReadingRoom, person: Person) -> None:
    job = await room.finished(person, "uno dos tres", "four five", "six")
    found = await room.run(person, PAGES, id=job, first=2, words=2)
    assert found["text"] == "uno dos tres\ffour five\fsix"
    assert (found["pages"]["totalCount"], found["pages"]["pageInfo"]["hasNextPage"]) == (3, True)
    one, two = (edge["node"] for edge in found["pages"]["edges"])
    assert (one["number"], one["source"], one["text"], one["confidence"]) == (1, "TEXT_LAYER", "uno dos tres", None)
    assert [word["text"] for word in one["words"]] == ["uno", "dos"]
    assert one["words"][1] == {**one["words"][1], "left": pytest.approx(1 / 3), "top": 0.1, "bottom": 0.12}
    rest = await room.pages(person, job, after=found["pages"]["pageInfo"]["endCursor"])
    assert [page["number"] for page in rest] == [3]
    assert [each["text"] for each in (await room.run(person, WORDS, id=one["id"], first=5, skip=1))["words"]] == [
        "dos",
        "tres",
    ]
    nodes = await room.run(person, NODES, ids=[job, two["id"]])
    assert nodes == [
        {"__typename": "OcrJob", "id": job, "filename": "list.pdf"},
        {"__typename": "DocumentPage", "id": two["id"], "number": 2},
    ]


async def test_words_are_counted_before_they_are_loaded(
    room: ReadingRoom, person: Person, client: GraphQLClient
) -> None:
    job = await room.finished(person, "uno")
    [page] = await room.pages(person, job)
    with pytest.raises(GraphQLFailure, match="more nodes"):
        await room.run(person, PAGES, id=job, first=100, words=100)
    for arguments in ({"first": 0, "skip": 0}, {"first": 20_001, "skip": 0}, {"first": 5, "skip": -1}):
        with pytest.raises(GraphQLFailure):
            await room.run(person, WORDS, id=page["id"], **arguments)
    stranger = await new_user(client)
    assert await room.run(stranger, NODES, ids=[job, page["id"]]) == [None, None]


# -- searching


async def test_pages_are_found_by_words_whatever_their_case_and_accents(room: ReadingRoom, person: Person) -> None:
    job = await room.finished(
        person,
        "Café molido de Colombia, 250 g: $ 4.899,90. Piña en almíbar.",
        "Té verde y café en grano; café descafeinado",
        "Azúcar blanca",
    )

    async def numbers(search: str) -> list[int]:
        return [edge["node"]["number"] for edge in (await room.run(person, SEARCH, search=search))["edges"]]

    assert await numbers("CAFE") == [2, 1]
    assert await numbers("azucar") == [3]
    assert await numbers('"café molido"') == [1]
    assert await numbers("cafe -grano") == [1]
    assert sorted(await numbers("pina or azúcar")) == [1, 3]
    assert await numbers("colombia grano") == []
    found = await room.run(person, SEARCH, search="almibar")
    [hit] = [edge["node"] for edge in found["edges"]]
    assert (hit["job"], hit["page"]["number"], found["totalCount"]) == ({"id": job}, 1, 1)
    assert hit["rank"] > 0
    assert "".join(part["text"] for part in hit["snippet"]) == "… de Colombia, 250 g: $ 4.899,90. Piña en almíbar."
    assert [part["text"] for part in hit["snippet"] if part["isMatch"]] == ["almíbar."]


async def test_hits_are_ones_own_and_come_by_pages_without_gap_or_repetition(
    room: ReadingRoom, person: Person, client: GraphQLClient, admin: Person
) -> None:
    await room.finished(person, *("marmota " * (1 + number % 3) for number in range(7)))
    stranger = await new_user(client)
    foreign = await room.finished(stranger, "marmota ajena")
    seen: list[str] = []
    after = None
    while True:
        found = await room.run(person, SEARCH, search="marmota", first=2, after=after)
        assert found["totalCount"] == 7
        seen += [edge["node"]["page"]["id"] for edge in found["edges"]]
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    assert len(seen) == len(set(seen)) == 7
    [only] = (await room.run(stranger, SEARCH, search="marmota"))["edges"]
    assert only["node"]["job"]["id"] == foreign
    assert (await room.run(admin, SEARCH, search="marmota"))["totalCount"] == 8


@pytest.mark.parametrize("search", ["", "   ", "---", "'", "x" * 201])
async def test_a_search_for_nothing_is_refused(room: ReadingRoom, person: Person, search: str) -> None:
    assert (await room.refused(person, SEARCH, search=search)).code == "VALIDATION_ERROR"


@pytest.mark.parametrize("search", ["a & b | !c", '"open', "\\x", "ña:*", "or", "-word", "x' or 1=1 --"])
async def test_odd_searches_are_no_faults(room: ReadingRoom, person: Person, search: str) -> None:
    assert (await room.run(person, SEARCH, search=search))["totalCount"] == 0


async def test_searching_reads_the_index_and_not_all_pages(room: ReadingRoom, person: Person) -> None:
    job = await room.finished(person, "primera")
    query, values = ocr_job_queries.found(Actor(user_id=uuid_of(person), role=Role.ADMIN), "n4711")
    async with room.pool.acquire() as connection:
        await connection.execute(
            """INSERT INTO document_pages (id, job_id, number, source, width, height, rotation, text, words)
               SELECT gen_random_uuid(), $1, n, 'OCR', 1, 1, 0, 'relleno de la hoja n' || n, '[]'
               FROM generate_series(2, 5000) n""",
            uuid_in(job),
        )
        # New pages wait in a list beside the index until a vacuum, and the planner knows that the list is slow.
        await connection.execute("VACUUM ANALYZE document_pages")
        plan = await connection.fetch(f"EXPLAIN {query}", *values)
    assert "document_pages_search_words" in "\n".join(row[0] for row in plan)
    found = await room.run(person, SEARCH, search="hoja n4711")
    assert [edge["node"]["number"] for edge in found["edges"]] == [4711]
    await room.run(person, DELETE, input={"id": job})


# -- ending


async def test_a_document_is_deleted_with_its_pages_once_it_has_ended(
    room: ReadingRoom, person: Person, client: GraphQLClient
) -> None:
    waiting = await room.enqueue(person, await room.medium(person))
    assert (await room.refused(person, DELETE, input={"id": waiting})).code == "CONFLICT"
    assert (await room.refused(await new_user(client), DELETE, input={"id": waiting})).code == "NOT_FOUND"
    job = await room.finished(person, "efímero", status=ExecutionStatus.FAILED)
    assert (await room.run(person, DELETE, input={"id": job}))["deletedId"] == job
    assert await room.stored(job) == {}
    assert (await room.refused(person, DELETE, input={"id": job})).code == "NOT_FOUND"
    assert (await room.run(person, SEARCH, search="efimero"))["totalCount"] == 0


async def test_a_document_that_waits_is_cancelled_at_once(
    room: ReadingRoom, person: Person, client: GraphQLClient
) -> None:
    job = await room.enqueue(person, await room.medium(person))
    assert (await room.refused(await new_user(client), CANCEL, input={"id": job})).code == "NOT_FOUND"
    for _ in range(2):
        assert (await room.run(person, CANCEL, input={"id": job}))["ocrJob"]["status"] == "CANCELLED"


async def test_what_was_read_outlives_its_medium(room: ReadingRoom, person: Person) -> None:
    job = await room.finished(person, "queda")
    await database.rows(
        "DELETE FROM media WHERE id = (SELECT media_id FROM ocr_jobs WHERE execution_id = $1)", uuid_in(job)
    )
    assert (await room.run(person, ONE, id=job))["filename"] == "list.pdf"
    assert await room.run(person, MEDIUM, id=job) == {"media": None}
    assert (await room.run(person, SEARCH, search="queda"))["totalCount"] == 1
