"""Candidates as they are reviewed: who sees and decides, what becomes of products, and what undoing gives back.

Candidates are inserted as reading leaves them; how they are found in pages is tested elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from models.ids import Prefix, decode_id, encode_id, new_id
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import uuid_of
from tests.harness.waiting import eventually

CANDIDATE = """
fragment C on ProductCandidate {
  id state name sku ean price currency unit decidedAt decidedBy { id }
  product { id name sku ean price currency unit stock category version }
  acceptance { id minConfidence undoneAt } }
"""
LIST = """
query ($id: ID!, $filter: CandidateFilter, $orderBy: CandidateOrder! = POSITION, $first: Int, $after: String) {
  it: ocrJob(id: $id) { candidates(filter: $filter, orderBy: $orderBy, first: $first, after: $after) {
    totalCount pageInfo { hasNextPage endCursor } edges { node { ...C } } } } }
"""
DETAILS = """
query ($id: ID!) { it: node(id: $id) { ... on ProductCandidate {
  ocrJobId position page box { left top right bottom } evidence quantity confidence
  confidences { name price sku } } } }
"""
MATCHES = """
query ($id: ID!) { it: ocrJob(id: $id) { candidates(first: 100) { edges { node { name
  match { product { id } reason score priceDifference { absolute percent } } } } } } }
"""
NODE = "query ($id: ID!) { it: node(id: $id) { id } }"
ACCEPT = """
mutation ($input: AcceptCandidateInput!) {
  it: acceptCandidate(input: $input) { candidate { ...C } product { id } acceptance { id undoneAt } } }
"""
REJECT = "mutation ($input: RejectCandidateInput!) { it: rejectCandidate(input: $input) { candidate { ...C } } }"
REOPEN = "mutation ($input: ReopenCandidateInput!) { it: reopenCandidate(input: $input) { candidate { ...C } } }"
ACCEPT_MANY = """
mutation ($input: AcceptCandidatesInput!) { it: acceptCandidates(input: $input) {
  acceptance { id minConfidence } acceptedCount skippedCount hasMore skipped { candidateId reason } } }
"""
UNDO = """
mutation ($input: UndoAcceptanceInput!) { it: undoAcceptance(input: $input) {
  acceptance { id undoneAt } undoneCount refused { candidateId productId reason } } }
"""
UPDATE_PRODUCT = "mutation ($input: UpdateProductInput!) { it: updateProduct(input: $input) { product { version } } }"
DELETE_PRODUCT = "mutation ($input: DeleteProductInput!) { it: deleteProduct(input: $input) { deletedId } }"
_TABLES = (
    "products",
    "product_prices",
    "product_candidates",
    "candidate_acceptances",
    "audit_events",
    "idempotency_keys",
)
EAN = "4006381333931"


class Desk:
    """What reviewers do, and what the database then holds."""

    def __init__(self, client: GraphQLClient, pool: asyncpg.Pool) -> None:
        self.client = client
        self.pool = pool

    async def run(self, person: Person | None, document: str, **variables: Any) -> Any:
        """The answer of an operation's field `it`."""
        document += CANDIDATE if "...C" in document else ""
        return (await self.client.run(document, variables, token=person.token if person else None))["it"]

    async def refused(self, person: Person | None, document: str, **variables: Any) -> GraphQLFailure:
        """The error of an operation that leaves everything as it was."""
        before = await self.state()
        with pytest.raises(GraphQLFailure) as failure:
            await self.run(person, document, **variables)
        assert await self.state() == before
        return failure.value

    async def state(self) -> list[Any]:
        """All that a decision can change."""
        return [await self.pool.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in _TABLES]

    async def job(self, person: Person, *lines: dict[str, Any]) -> tuple[str, list[str]]:
        """A document of somebody that was read, with these candidates; the ids."""
        job = new_id()
        await self.pool.execute(
            """WITH made AS (
                   INSERT INTO executions (id, kind, owner_id, requested_by_id, status, progress, attempt, lost_workers,
                       max_attempts, timeout_seconds, worked_seconds, queued_at, started_at, finished_at,
                       failure_retryable, log_sequence, log_bytes)
                   VALUES ($1, 'OCR', $2, $2, 'SUCCEEDED', 1, 1, 0, 3, 60, 0, now(), now(), now(), false, 0, 0)
               )
               INSERT INTO ocr_jobs (execution_id, filename, languages, force_ocr, pages_read, candidate_count)
               VALUES ($1, 'list.pdf', '["eng"]', false, 1, $3)""",
            job,
            uuid_of(person),
            len(lines),
        )
        ids = [new_id() for _ in lines]
        for position, (key, line) in enumerate(zip(ids, lines, strict=True), start=1):
            given = {"price": "10.50", "currency": "EUR", "confidence": 0.9, **line}
            await self.pool.execute(
                """INSERT INTO product_candidates (id, job_id, position, page, box, evidence, name, sku, ean, price,
                       currency, quantity, unit, confidences, confidence, state)
                   VALUES ($1, $2, $3, 2, '[0.1, 0.2, 0.9, 0.25]', $4::text || ' …', $4::text, $5, $6, $7, $8, 6, $9,
                       '{"name": 0.97, "price": 0.9}', $10, 'PENDING')""",
                key,
                job,
                position,
                given["name"],
                given.get("sku"),
                given.get("ean"),
                None if given["price"] is None else Decimal(given["price"]),
                given["currency"],
                given.get("unit"),
                given["confidence"],
            )
        return encode_id(Prefix.OCR_JOB, job), [encode_id(Prefix.CANDIDATE, key) for key in ids]

    async def product(self, name: str, **given: Any) -> str:
        """A product that is there; its id."""
        key = new_id()
        sku = given.get("sku")
        await self.pool.execute(
            """INSERT INTO products (id, name, slug, sku, sku_key, ean, description, price, currency, attributes,
                   is_active, version, created_at, updated_at)
               VALUES ($1, $2, $3, $4, $5, $6, '', $7, $8, '{}', $9, 1, now(), now())""",
            key,
            name,
            f"p-{key.hex}",
            sku,
            sku and sku.lower(),
            given.get("ean"),
            None if given.get("price") is None else Decimal(given["price"]),
            given.get("currency"),
            given.get("is_active", True),
        )
        return encode_id(Prefix.PRODUCT, key)

    async def columns(self, product_id: str) -> dict[str, Any]:
        """A product as it is stored, without what each change changes; empty when it is gone."""
        row = await self.pool.fetchrow(
            """SELECT name, sku, ean, price::text, currency, unit, stock::text, category
               FROM products WHERE id = $1""",
            key_of(product_id),
        )
        return dict(row) if row else {}

    async def prices(self, product_id: str) -> list[tuple[str | None, str]]:
        """The price history of a product, oldest first."""
        rows = await self.pool.fetch(
            "SELECT trim_scale(price)::text, source FROM product_prices WHERE product_id = $1 ORDER BY id",
            key_of(product_id),
        )
        return [tuple(row) for row in rows]

    async def actions(self, id_text: str) -> list[str]:
        """What the audit trail says was done to something."""
        rows = await self.pool.fetch(
            "SELECT action FROM audit_events WHERE target_id = $1 ORDER BY id", key_of(id_text)
        )
        return [row["action"] for row in rows]

    async def clear(self) -> None:
        """Take all products away."""
        await self.pool.execute("DELETE FROM products")


def key_of(id_text: str) -> UUID:
    return decode_id(id_text)[1]


def names_of(found: dict[str, Any]) -> list[str]:
    return [edge["node"]["name"] for edge in found["candidates"]["edges"]]


def path_of(error: GraphQLFailure) -> tuple[str | None, list[str]]:
    return error.code, error.extensions["details"]["path"]


@pytest_asyncio.fixture(scope="module")
async def pool(settings_env: dict[str, str]) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(settings_env["DATABASE_URL"], min_size=1, max_size=3) as opened:
        yield opened


@pytest_asyncio.fixture
async def desk(client: GraphQLClient, pool: asyncpg.Pool) -> AsyncIterator[Desk]:
    opened = Desk(client, pool)
    await opened.clear()
    yield opened


@pytest_asyncio.fixture(scope="module")
async def person(client: GraphQLClient) -> Person:
    return await new_user(client)


@pytest_asyncio.fixture(scope="module")
async def stranger(client: GraphQLClient) -> Person:
    return await new_user(client)


# -- who


async def test_a_user_sees_what_is_in_their_documents_and_decides_nothing(desk: Desk, person: Person) -> None:
    job, [candidate] = await desk.job(person, {"name": "Lámpara"})
    assert names_of(await desk.run(person, LIST, id=job)) == ["Lámpara"]
    for document, fields in (
        (ACCEPT, {"id": candidate, "create": True}),
        (REJECT, {"id": candidate}),
        (REOPEN, {"id": candidate}),
        (ACCEPT_MANY, {"ocrJobId": job, "minConfidence": 0, "onMatch": "SKIP"}),
        (UNDO, {"acceptanceId": encode_id(Prefix.ACCEPTANCE, NOBODYS_ID)}),
    ):
        assert (await desk.refused(person, document, input=fields)).code == "FORBIDDEN"
        assert (await desk.refused(None, document, input=fields)).code == "UNAUTHORIZED"


async def test_anothers_candidates_are_not_there(desk: Desk, person: Person, stranger: Person, admin: Person) -> None:
    job, [candidate] = await desk.job(person, {"name": "Lámpara"})
    assert (await desk.refused(stranger, LIST, id=job)).code == "NOT_FOUND"
    assert await desk.run(stranger, NODE, id=candidate) is None
    assert await desk.run(person, NODE, id=candidate) == {"id": candidate}
    nothing = encode_id(Prefix.CANDIDATE, NOBODYS_ID)
    for wrong in (nothing, job, "x"):
        assert (await desk.refused(admin, ACCEPT, input={"id": wrong, "create": True})).code == "NOT_FOUND"
        assert (await desk.refused(admin, REJECT, input={"id": wrong})).code == "NOT_FOUND"
        assert (await desk.refused(admin, REOPEN, input={"id": wrong})).code == "NOT_FOUND"
        assert (await desk.refused(admin, UNDO, input={"acceptanceId": wrong})).code == "NOT_FOUND"
    fields = {"ocrJobId": candidate, "minConfidence": 0, "onMatch": "SKIP"}
    assert (await desk.refused(admin, ACCEPT_MANY, input=fields)).code == "NOT_FOUND"
    unknown = encode_id(Prefix.PRODUCT, NOBODYS_ID)
    assert (await desk.refused(admin, ACCEPT, input={"id": candidate, "productId": unknown})).code == "NOT_FOUND"


# -- lists


async def test_candidates_are_listed_by_place_or_by_confidence_page_by_page(desk: Desk, person: Person) -> None:
    lines = [{"name": f"n{place}", "confidence": value} for place, value in enumerate((0.5, 0.9, 0.5, 0.7))]
    job, ids = await desk.job(person, *lines)
    for order, names in (("POSITION", ["n0", "n1", "n2", "n3"]), ("CONFIDENCE", ["n1", "n3", "n2", "n0"])):
        seen, after = [], None
        for _ in range(2):
            found = (await desk.run(person, LIST, id=job, orderBy=order, first=2, after=after))["candidates"]
            seen += [edge["node"]["name"] for edge in found["edges"]]
            after = found["pageInfo"]["endCursor"]
        assert (seen, found["totalCount"], found["pageInfo"]["hasNextPage"]) == (names, 4, False)
    assert await desk.run(person, DETAILS, id=ids[1]) == {
        "ocrJobId": job,
        "position": 2,
        "page": 2,
        "box": {"left": 0.1, "top": 0.2, "right": 0.9, "bottom": 0.25},
        "evidence": "n1 …",
        "quantity": "6",
        "confidence": 0.9,
        "confidences": {"name": 0.97, "price": 0.9, "sku": None},
    }


async def test_candidates_are_found_by_state_confidence_and_text(desk: Desk, person: Person, admin: Person) -> None:
    job, [first, *_] = await desk.job(
        person,
        {"name": "Café molido", "confidence": 0.4},
        {"name": "Té 100%", "sku": "TE_1", "confidence": 0.8},
        {"name": "Azúcar", "ean": EAN, "confidence": 0.9},
    )
    await desk.run(admin, REJECT, input={"id": first})
    for wanted, names in (
        ({"state": "REJECTED"}, ["Café molido"]),
        ({"state": "PENDING"}, ["Té 100%", "Azúcar"]),
        ({"minConfidence": 0.8}, ["Té 100%", "Azúcar"]),
        ({"search": "CAFE"}, ["Café molido"]),
        ({"search": "%"}, ["Té 100%"]),
        ({"search": "te_1"}, ["Té 100%"]),
        ({"search": EAN}, ["Azúcar"]),
        ({"search": "azucar", "minConfidence": 0.95}, []),
    ):
        assert names_of(await desk.run(person, LIST, id=job, filter=wanted)) == names
    for wanted, path in (({"minConfidence": 1.1}, ["filter", "minConfidence"]), ({"search": "x" * 201}, ["search"])):
        assert path_of(await desk.refused(person, LIST, id=job, filter=wanted)) == ("VALIDATION_ERROR", path)


# -- matches


async def test_the_ean_decides_then_the_sku_then_the_name_that_is_most_alike(
    desk: Desk, person: Person, admin: Person
) -> None:
    by_ean = await desk.product("Something else", ean=EAN, price="10.00", currency="EUR")
    by_sku = await desk.product("Another thing", sku="CAF-01", price="0", currency="EUR")
    by_name = await desk.product("Cafetera italiana 6 tazas", price="21", currency="USD")
    await desk.product("Cafetera italiana 6 tazas roja", price="1", currency="EUR")
    hidden = await desk.product("Trípode ligero", is_active=False)
    job, [_, _, _, _, tripod] = await desk.job(
        person,
        {"name": "Cafetera italiana 6 tazas", "sku": "caf-01", "ean": EAN},
        {"name": "Cafetera italiana 6 tazas", "sku": "CAF -01"},
        {"name": "CAFETERA ITALIANA 6 TAZAS"},
        {"name": "Cuchillo"},
        {"name": "Tripode ligero"},
    )

    async def found(viewer: Person) -> list[Any]:
        edges = (await desk.run(viewer, MATCHES, id=job))["candidates"]["edges"]
        return [edge["node"]["match"] for edge in edges]

    first, second, third, *others = await found(person)
    difference = {"absolute": "0.5", "percent": "5"}
    assert first == {"product": {"id": by_ean}, "reason": "EAN", "score": 1, "priceDifference": difference}
    free = {"absolute": "10.5", "percent": None}
    assert second == {"product": {"id": by_sku}, "reason": "SKU", "score": 1, "priceDifference": free}
    assert third == {"product": {"id": by_name}, "reason": "NAME", "score": 1, "priceDifference": None}
    assert others == [None, None]
    assert (await found(admin))[-1]["product"] == {"id": hidden}
    await desk.run(admin, REJECT, input={"id": tripod})
    assert (await found(admin))[-1] is None


async def test_matches_of_a_page_take_one_statement(desk: Desk, person: Person) -> None:
    await desk.product("Manta azul")
    job, _ = await desk.job(person, *({"name": f"Manta azul {number}"} for number in range(20)))
    names = {edge["node"]["name"] for edge in (await desk.run(person, MATCHES, id=job))["candidates"]["edges"]}
    assert len(names) == 20
    async with desk.pool.acquire() as watcher:
        # A table that somebody holds lets one statement wait, and all that the page needs is in that one.
        async with watcher.transaction():
            await watcher.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
            asked = asyncio.create_task(desk.run(person, MATCHES, id=job))
            waiting = await eventually(lambda: waiting_statements(desk), 5, what="a statement that waits")
        found = await asked
    assert waiting == 1
    assert all(edge["node"]["match"] for edge in found["candidates"]["edges"])


async def waiting_statements(desk: Desk) -> int:
    """How many statements wait for a lock on products."""
    return int(
        await desk.pool.fetchval("SELECT count(*) FROM pg_locks WHERE relation = 'products'::regclass AND NOT granted")
    )


# -- accepting one


async def test_an_accepted_candidate_is_a_new_product_with_what_was_edited(
    desk: Desk, person: Person, admin: Person
) -> None:
    _, [candidate] = await desk.job(person, {"name": "Lampara", "sku": "L-1", "unit": "pza"})
    edits = {"name": "Lámpara", "ean": EAN, "price": "12", "stock": "4", "category": "Luz"}
    done = await desk.run(admin, ACCEPT, input={"id": candidate, "create": True, "edits": edits})
    product = done["candidate"]["product"]
    assert product == {
        **{"id": done["product"]["id"], "version": 1, "sku": "L-1", "currency": "EUR", "unit": "pza"},
        **edits,
    }
    assert done["candidate"]["state"] == "ACCEPTED"
    assert done["candidate"]["decidedBy"] == {"id": admin.id}
    assert done["candidate"]["acceptance"] == {"id": done["acceptance"]["id"], "minConfidence": None, "undoneAt": None}
    # What was read stays as it was read, and a user does not learn which administrator it was.
    mine = await desk.run(person, "query ($id: ID!) { it: node(id: $id) { ...C } }", id=candidate)
    assert (mine["name"], mine["price"], mine["decidedBy"]) == ("Lampara", "10.5", None)
    assert await desk.prices(product["id"]) == [("12", "DOCUMENT")]
    assert await desk.actions(candidate) == ["acceptCandidate"]
    assert await desk.actions(product["id"]) == ["createProduct"]


async def test_a_product_gets_the_price_and_what_it_has_not(desk: Desk, person: Person, admin: Person) -> None:
    product = await desk.product("Lámpara de pie", sku="OLD", price="9", currency="USD")
    _, [candidate] = await desk.job(person, {"name": "Lampara", "sku": "NEW", "ean": EAN})
    await desk.run(admin, ACCEPT, input={"id": candidate, "productId": product})
    stored = await desk.columns(product)
    assert stored == {
        **stored,
        "name": "Lámpara de pie",
        "sku": "OLD",
        "ean": EAN,
        "price": "10.5000",
        "currency": "EUR",
        "stock": None,
    }
    assert await desk.prices(product) == [("10.5", "DOCUMENT")]


async def test_keys_that_are_taken_are_conflicts_with_their_place(desk: Desk, person: Person, admin: Person) -> None:
    await desk.product("Other", sku="taken", ean=EAN)
    mine = await desk.product("Mine")
    _, [by_sku, by_ean, free] = await desk.job(
        person, {"name": "a", "sku": "TAKEN"}, {"name": "b", "ean": EAN}, {"name": "c"}
    )
    for fields, field in (
        ({"id": by_sku, "create": True}, "sku"),
        ({"id": by_ean, "create": True}, "ean"),
        ({"id": by_ean, "productId": mine}, "ean"),
        ({"id": free, "create": True, "edits": {"sku": "Taken"}}, "sku"),
        ({"id": free, "productId": mine, "edits": {"ean": EAN}}, "ean"),
    ):
        error = await desk.refused(admin, ACCEPT, input=fields)
        assert path_of(error) == ("CONFLICT", ["input", "edits", field])
    done = await desk.run(admin, ACCEPT, input={"id": by_sku, "create": True, "edits": {"sku": None}})
    assert done["candidate"]["product"]["sku"] is None


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, ["input", "productId"]),
        ({"create": True, "productId": "mine"}, ["input", "productId"]),
        ({"create": True, "edits": {"name": " "}}, ["input", "edits", "name"]),
        ({"create": True, "edits": {"price": "-1"}}, ["input", "edits", "price"]),
        ({"create": True, "edits": {"currency": None}}, ["input", "edits", "currency"]),
        ({"create": True, "edits": {"ean": "4006381333930"}}, ["input", "edits", "ean"]),
        ({"create": True, "idempotencyKey": ""}, ["input", "idempotencyKey"]),
    ],
)
async def test_what_is_no_product_is_refused_with_its_place(
    desk: Desk, person: Person, admin: Person, fields: dict[str, Any], path: list[str]
) -> None:
    _, [candidate] = await desk.job(person, {"name": "Lámpara"})
    given = {"id": candidate, **fields}
    if "productId" in given:
        given["productId"] = await desk.product("Mine")
    assert path_of(await desk.refused(admin, ACCEPT, input=given)) == ("VALIDATION_ERROR", path)


async def test_a_candidate_is_decided_once(desk: Desk, person: Person, admin: Person) -> None:
    _, [accepted, rejected] = await desk.job(person, {"name": "a"}, {"name": "b"})
    await desk.run(admin, ACCEPT, input={"id": accepted, "create": True})
    await desk.run(admin, REJECT, input={"id": rejected, "reason": "a subtotal"})
    for candidate, state in ((accepted, "ACCEPTED"), (rejected, "REJECTED")):
        for document, fields in ((ACCEPT, {"create": True}), (REJECT, {})):
            error = await desk.refused(admin, document, input={"id": candidate, **fields})
            assert path_of(error) == ("CONFLICT", ["input", "id"])
            assert error.extensions["details"]["state"] == state
    assert (await desk.refused(admin, REOPEN, input={"id": accepted})).code == "CONFLICT"
    assert (await desk.run(admin, REOPEN, input={"id": rejected}))["candidate"]["state"] == "PENDING"
    assert (await desk.refused(admin, REOPEN, input={"id": rejected})).code == "CONFLICT"
    assert await desk.actions(rejected) == ["rejectCandidate", "reopenCandidate"]
    error = await desk.refused(admin, REJECT, input={"id": rejected, "reason": "x" * 256})
    assert path_of(error) == ("VALIDATION_ERROR", ["input", "reason"])


async def test_a_candidate_whose_product_is_gone_can_be_opened_again(desk: Desk, person: Person, admin: Person) -> None:
    _, [candidate] = await desk.job(person, {"name": "a"})
    done = await desk.run(admin, ACCEPT, input={"id": candidate, "create": True})
    await desk.run(admin, DELETE_PRODUCT, input={"id": done["product"]["id"]})
    assert (await desk.run(admin, REOPEN, input={"id": candidate}))["candidate"]["state"] == "PENDING"
    again = await desk.run(admin, ACCEPT, input={"id": candidate, "create": True})
    # The first acceptance holds nothing any more; undoing it leaves what a later one made.
    await desk.run(admin, UNDO, input={"acceptanceId": done["acceptance"]["id"]})
    assert await desk.columns(again["product"]["id"])


async def test_a_repeated_call_accepts_once(desk: Desk, person: Person, admin: Person) -> None:
    _, [candidate, other] = await desk.job(person, {"name": "a"}, {"name": "b"})
    fields = {"id": candidate, "create": True, "idempotencyKey": "accept-a"}
    first = await desk.run(admin, ACCEPT, input=fields)
    assert await desk.run(admin, ACCEPT, input=fields) == first
    error = await desk.refused(admin, ACCEPT, input={**fields, "id": other})
    assert path_of(error) == ("CONFLICT", ["input", "idempotencyKey"])


async def test_of_two_who_decide_at_once_one_wins(desk: Desk, person: Person, admin: Person) -> None:
    _, ids = await desk.job(person, *({"name": f"n{number}"} for number in range(4)))
    for candidate in ids:
        answers = await asyncio.gather(
            desk.run(admin, ACCEPT, input={"id": candidate, "create": True}),
            desk.run(admin, REJECT, input={"id": candidate}),
            desk.run(admin, ACCEPT, input={"id": candidate, "create": True}),
            return_exceptions=True,
        )
        refused = [answer for answer in answers if isinstance(answer, GraphQLFailure)]
        assert [error.code for error in refused] == ["CONFLICT", "CONFLICT"]
        assert len(await desk.actions(candidate)) == 1
    rows = await desk.pool.fetchrow(
        """SELECT count(*) FILTER (WHERE state = 'ACCEPTED') AS accepted, (SELECT count(*) FROM products) AS products
           FROM product_candidates WHERE id = ANY($1::uuid[])""",
        [key_of(candidate) for candidate in ids],
    )
    assert rows["accepted"] == rows["products"]


# -- accepting many


async def test_many_are_accepted_at_once_and_nothing_new_by_a_second_call(
    desk: Desk, person: Person, admin: Person
) -> None:
    job, ids = await desk.job(
        person,
        {"name": "Lámpara", "sku": "L-1"},
        {"name": "Silla", "confidence": 0.79},
        {"name": "Mesa", "price": None, "currency": None},
        {"name": "Cojín", "currency": None},
        {"name": "LÁMPARA", "sku": "l-1"},
        {"name": "Manta", "sku": "L-1"},
        {"name": "Botella", "ean": "4006381333930"},
        {"name": "Teclado"},
    )
    fields = {"ocrJobId": job, "minConfidence": 0.8, "onMatch": "UPDATE"}
    done = await desk.run(admin, ACCEPT_MANY, input={**fields, "idempotencyKey": f"all of {job}"})
    assert done == {
        "acceptance": {"id": done["acceptance"]["id"], "minConfidence": 0.8},
        "acceptedCount": 2,
        "skippedCount": 5,
        "hasMore": False,
        "skipped": [
            {"candidateId": ids[place], "reason": reason}
            for place, reason in (
                (2, "INCOMPLETE"),
                (3, "INCOMPLETE"),
                (4, "REPEATED"),
                (5, "TAKEN"),
                (6, "INVALID"),
            )
        ],
    }
    assert await desk.pool.fetchval("SELECT count(*) FROM products") == 2
    repeated = await desk.run(admin, ACCEPT_MANY, input={**fields, "idempotencyKey": f"all of {job}"})
    assert repeated == {**done, "skipped": []}
    again = await desk.run(admin, ACCEPT_MANY, input=fields)
    assert (again["acceptedCount"], again["skippedCount"]) == (0, 5)
    assert await desk.pool.fetchval("SELECT count(*) FROM products") == 2
    assert await desk.actions(done["acceptance"]["id"]) == ["acceptCandidates"]


@pytest.mark.parametrize(
    ("on_match", "created", "prices", "reasons"),
    [
        ("UPDATE", 1, ["10.5", "10.5", "10.5", "1"], ["UNSURE"]),
        ("SKIP", 1, ["1", "1", "1", "1"], ["MATCHED"] * 4),
        ("CREATE", 3, ["1", "1", "1", "1"], ["TAKEN", "TAKEN"]),
    ],
)
async def test_what_is_taken_for_a_product_is_dealt_with_as_asked(
    desk: Desk, person: Person, admin: Person, on_match: str, created: int, prices: list[str], reasons: list[str]
) -> None:
    there = [
        await desk.product("By EAN", ean=EAN, price="1", currency="EUR"),
        await desk.product("By SKU", sku="S-1", price="1", currency="EUR"),
        await desk.product("Cafetera italiana roja", price="1", currency="EUR"),
        await desk.product("Tornillo inoxidable 4x40", price="1", currency="EUR"),
    ]
    job, _ = await desk.job(
        person,
        {"name": "x", "ean": EAN},
        {"name": "y", "sku": "s-1"},
        {"name": "cafetera italiana roja"},
        {"name": "Tornillo inoxidable 4x50"},
        {"name": "Nuevo"},
    )
    done = await desk.run(admin, ACCEPT_MANY, input={"ocrJobId": job, "minConfidence": 0.5, "onMatch": on_match})
    assert [each["reason"] for each in done["skipped"]] == reasons
    assert await desk.pool.fetchval("SELECT count(*) FROM products") == len(there) + created
    assert [str(Decimal((await desk.columns(each))["price"]).normalize()) for each in there] == prices


async def test_many_are_bounded_and_told_that_there_are_more(desk: Desk, person: Person, admin: Person) -> None:
    job, [first] = await desk.job(person, {"name": "first"})
    await desk.pool.execute(
        """INSERT INTO product_candidates (id, job_id, position, page, box, evidence, name, price, currency,
               confidences, confidence, state)
           SELECT gen_random_uuid(), job_id, n, 1, '[0, 0, 1, 1]', 'x', 'Artículo ' || md5(n::text), 1, 'EUR', '{}', 1,
               'PENDING' FROM product_candidates, generate_series(2, 1005) n WHERE id = $1""",
        key_of(first),
    )
    fields = {"ocrJobId": job, "minConfidence": 0.5, "onMatch": "SKIP"}
    done = await desk.run(admin, ACCEPT_MANY, input=fields)
    assert (done["acceptedCount"], done["skippedCount"], done["hasMore"]) == (1000, 0, True)
    rest = await desk.run(admin, ACCEPT_MANY, input=fields)
    assert (rest["acceptedCount"], rest["skippedCount"], rest["hasMore"]) == (5, 0, False)
    undone = await desk.run(admin, UNDO, input={"acceptanceId": done["acceptance"]["id"]})
    assert (undone["undoneCount"], undone["refused"]) == (1000, [])
    assert await desk.pool.fetchval("SELECT count(*) FROM products") == 5


async def test_two_who_accept_many_at_once_accept_each_once(desk: Desk, person: Person, admin: Person) -> None:
    job, _ = await desk.job(person, *({"name": f"Unique {number * 7919}", "sku": f"{number}"} for number in range(20)))
    fields = {"ocrJobId": job, "minConfidence": 0.5, "onMatch": "SKIP"}
    answers = await asyncio.gather(*(desk.run(admin, ACCEPT_MANY, input=fields) for _ in range(2)))
    assert sorted(answer["acceptedCount"] for answer in answers) == [0, 20]
    assert await desk.pool.fetchval("SELECT count(*) FROM products") == 20


@pytest.mark.parametrize("confidence", [-0.1, 1.5])
async def test_a_confidence_is_from_0_to_1(desk: Desk, person: Person, admin: Person, confidence: float) -> None:
    job, _ = await desk.job(person, {"name": "a"})
    fields = {"ocrJobId": job, "minConfidence": confidence, "onMatch": "SKIP"}
    error = await desk.refused(admin, ACCEPT_MANY, input=fields)
    assert path_of(error) == ("VALIDATION_ERROR", ["input", "minConfidence"])


# -- undoing


async def test_undoing_deletes_what_was_made_and_restores_what_was_changed(
    desk: Desk, person: Person, admin: Person
) -> None:
    there = await desk.product("Cafetera", sku="C-1", price="8", currency="USD")
    before = await desk.columns(there)
    job, ids = await desk.job(person, {"name": "Cafetera nueva", "sku": "C-1", "ean": EAN}, {"name": "Silla"})
    done = await desk.run(admin, ACCEPT_MANY, input={"ocrJobId": job, "minConfidence": 0, "onMatch": "UPDATE"})
    assert done["acceptedCount"] == 2
    assert await desk.columns(there) != before
    fields = {"acceptanceId": done["acceptance"]["id"]}
    undone = await desk.run(admin, UNDO, input=fields)
    assert (undone["undoneCount"], undone["refused"]) == (2, [])
    assert undone["acceptance"]["undoneAt"] is not None
    assert await desk.columns(there) == before
    assert await desk.prices(there) == [("10.5", "DOCUMENT"), ("8", "MANUAL")]
    assert await desk.pool.fetchval("SELECT count(*) FROM products") == 1
    found = await desk.run(person, LIST, id=job, filter={"state": "PENDING"})
    assert [edge["node"]["id"] for edge in found["candidates"]["edges"]] == ids
    assert path_of(await desk.refused(admin, UNDO, input=fields)) == ("CONFLICT", ["input", "acceptanceId"])
    assert await desk.actions(done["acceptance"]["id"]) == ["acceptCandidates", "undoAcceptance"]


async def test_what_changed_since_is_left_alone_and_told(desk: Desk, person: Person, admin: Person) -> None:
    gone = await desk.product("Cafetera", sku="C-1", price="8", currency="EUR")
    job, [_, second, third, first] = await desk.job(
        person, {"name": "Silla"}, {"name": "Mesa"}, {"name": "Banco"}, {"name": "Cafetera", "sku": "C-1"}
    )
    done = await desk.run(admin, ACCEPT_MANY, input={"ocrJobId": job, "minConfidence": 0, "onMatch": "UPDATE"})
    assert done["acceptedCount"] == 4
    made = {
        edge["node"]["id"]: edge["node"]["product"]["id"]
        for edge in (await desk.run(admin, LIST, id=job))["candidates"]["edges"]
    }
    await desk.run(admin, UPDATE_PRODUCT, input={"id": made[second], "description": "By hand"})
    await desk.run(admin, DELETE_PRODUCT, input={"id": made[third]})
    await desk.run(admin, DELETE_PRODUCT, input={"id": gone})
    fields = {"acceptanceId": done["acceptance"]["id"]}
    undone = await desk.run(admin, UNDO, input=fields)
    # The chair is taken back, and of the bench, which is gone already, nothing is left to do.
    assert undone == {
        "acceptance": {"id": fields["acceptanceId"], "undoneAt": None},
        "undoneCount": 2,
        "refused": [
            {"candidateId": second, "productId": made[second], "reason": "CHANGED"},
            {"candidateId": first, "productId": gone, "reason": "GONE"},
        ],
    }
    assert (await desk.columns(made[second]))["name"] == "Mesa"
    states = [edge["node"]["state"] for edge in (await desk.run(admin, LIST, id=job))["candidates"]["edges"]]
    assert states == ["PENDING", "ACCEPTED", "PENDING", "ACCEPTED"]
    again = await desk.run(admin, UNDO, input=fields)
    assert (again["undoneCount"], len(again["refused"])) == (0, 2)
    # Once the changed product is deleted, that part can be undone; what was only changed is gone for good.
    await desk.run(admin, DELETE_PRODUCT, input={"id": made[second]})
    last = await desk.run(admin, UNDO, input=fields)
    assert (last["undoneCount"], [each["reason"] for each in last["refused"]]) == (1, ["GONE"])


async def test_a_key_that_another_has_by_now_is_not_given_back(desk: Desk, person: Person, admin: Person) -> None:
    product = await desk.product("Cafetera", sku="C-1")
    _, [candidate] = await desk.job(person, {"name": "Cafetera"})
    done = await desk.run(
        admin, ACCEPT, input={"id": candidate, "productId": product, "edits": {"sku": "C-2", "name": "Cafetera roja"}}
    )
    await desk.product("Other", sku="C-1")
    before = await desk.columns(product)
    undone = await desk.run(admin, UNDO, input={"acceptanceId": done["acceptance"]["id"]})
    assert [each["reason"] for each in undone["refused"]] == ["TAKEN"]
    assert await desk.columns(product) == before


async def test_of_two_who_undo_at_once_one_wins(desk: Desk, person: Person, admin: Person) -> None:
    _, [candidate] = await desk.job(person, {"name": "Silla"})
    done = await desk.run(admin, ACCEPT, input={"id": candidate, "create": True})
    fields = {"acceptanceId": done["acceptance"]["id"]}
    answers = await asyncio.gather(*(desk.run(admin, UNDO, input=fields) for _ in range(2)), return_exceptions=True)
    assert sorted(getattr(answer, "code", "done") for answer in answers) == ["CONFLICT", "done"]
    assert await desk.actions(done["product"]["id"]) == ["createProduct", "deleteProduct"]


async def test_the_trail_has_no_text_of_documents(desk: Desk, person: Person, admin: Person) -> None:
    job, [candidate] = await desk.job(person, {"name": "Confidential line"})
    await desk.run(admin, ACCEPT, input={"id": candidate, "create": True, "edits": {"name": "Public name"}})
    texts = await desk.pool.fetch("SELECT details::text FROM audit_events")
    assert not any("Confidential" in row[0] for row in texts)
    assert job
