"""Exports as users have them made, and runs with items to export."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from adapters import events, storage
from models import database
from models.database import to_json
from models.ids import Prefix, decode_id, encode_id
from tasks import queue
from tests.factories import Person
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import Desk, settings_of
from tests.harness.waiting import eventually

EXPORT = """
fragment X on ItemExport {
  id status stage progress attempt format filename contentType rowCount size sha256 expiresAt downloadUrl options
  run { id } requestedBy { id } cancelRequestedAt cpuSeconds peakMemoryBytes failure { code message stage retryable }
}
"""
ASK = "mutation ($input: ExportItemsInput!) { it: exportItems(input: $input) { export { ...X } } }"
CANCEL = "mutation ($input: CancelItemExportInput!) { it: cancelItemExport(input: $input) { export { ...X } } }"
DELETE = "mutation ($input: DeleteItemExportInput!) { it: deleteItemExport(input: $input) { deletedId } }"
DELETE_JOB = "mutation ($input: DeleteJobInput!) { it: deleteJob(input: $input) { deletedId } }"
ONE = "query ($id: ID!) { it: itemExport(id: $id) { ...X } }"
LIST = """
query ($filter: ItemExportFilter, $first: Int, $after: String) {
  it: itemExports(filter: $filter, first: $first, after: $after) {
    totalCount edges { node { id run { id } } } pageInfo { hasNextPage endCursor } }
}
"""
ITEMS = """
query ($id: ID!, $filter: ItemFilter, $first: Int, $after: String, $last: Int) { it: jobRun(id: $id) {
  items(filter: $filter, first: $first, after: $after, last: $last) {
    totalCount edges { node { data } } pageInfo { hasNextPage endCursor } } } }
"""
LOG = "query ($id: ID!) { it: itemExport(id: $id) { logs(first: 1000) { edges { node { message } } } } }"
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
_TABLES = (*("executions", "item_exports", "jobs", "execution_events", "idempotency_keys", "audit_events"),)


class Office:
    """What users do with exports, and what the database and the storage then hold."""

    def __init__(self, client: GraphQLClient, desk: Desk) -> None:
        self.client = client
        self.desk = desk
        self.pool: asyncpg.Pool = desk.pool

    async def run(self, person: Person | None, document: str, **variables: Any) -> Any:
        """The answer of an operation's field `it`."""
        document += EXPORT if "...X" in document else ""
        return (await self.client.run(document, variables, token=person.token if person else None))["it"]

    async def refused(self, person: Person | None, document: str, **variables: Any) -> GraphQLFailure:
        """The error of an operation that leaves everything as it was: rows and objects."""
        before = await self.state()
        with pytest.raises(GraphQLFailure) as failure:
            await self.run(person, document, **variables)
        assert await self.state() == before
        return failure.value

    async def state(self) -> list[Any]:
        """All that a command on exports can change."""
        rows = [await self.pool.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in _TABLES]
        return [*rows, await self.objects()]

    async def objects(self) -> list[str]:
        """Keys of exports in storage."""
        return [each.key async for each in storage.current().list("exports/")]

    async def crawled(self, person: Person, items: Sequence[Mapping[str, Any]], *, job: UUID | None = None) -> str:
        """A run that has ended, with these items; its id."""
        hand = await self.desk.started(person, job=job)
        await self.pool.execute(
            """INSERT INTO items (dataset_id, run_id, key, url, data, scraped_at)
               SELECT $1, $1, number::text, 'https://a.example/' || number, item::jsonb, now()
               FROM unnest($2::text[]) WITH ORDINALITY AS given (item, number)""",
            hand.id,
            [to_json(dict(item)) for item in items],
        )
        await self.pool.execute("UPDATE job_runs SET items_scraped = $2 WHERE execution_id = $1", hand.id, len(items))
        await hand.finish()
        return encode_id(Prefix.RUN, hand.id)

    async def ask(self, person: Person, run_id: str, format: str = "JSONL", **fields: Any) -> dict[str, Any]:
        """An export that waits."""
        asked = await self.run(person, ASK, input={"runId": run_id, "format": format, **fields})
        export: dict[str, Any] = asked["export"]
        return export

    async def ended(self, person: Person, export_id: str, within: float = 60) -> dict[str, Any]:
        """An export once it is final."""

        async def final() -> dict[str, Any] | None:
            found: dict[str, Any] = await self.run(person, ONE, id=export_id)
            return found if found["status"] in FINAL else None

        return await eventually(final, within, what=f"the end of {export_id}")

    async def made(self, person: Person, run_id: str, format: str = "JSONL", **fields: Any) -> bytes:
        """The content of an export, as it is downloaded."""
        export = await self.ended(person, (await self.ask(person, run_id, format, **fields))["id"])
        assert export["status"] == "SUCCEEDED", export["failure"]
        return await download(export)

    async def failed(self, person: Person, run_id: str, format: str, **fields: Any) -> dict[str, Any]:
        """Why an export failed; it has no file."""
        export = await self.ended(person, (await self.ask(person, run_id, format, **fields))["id"])
        assert export["status"] == "FAILED"
        assert (export["size"], export["downloadUrl"]) == (None, None)
        failure: dict[str, Any] = export["failure"]
        return failure

    async def messages(self, person: Person, export_id: str) -> list[str]:
        """The lines of an export's log."""
        found = (await self.run(person, LOG, id=export_id))["logs"]
        return [edge["node"]["message"] for edge in found["edges"]]


async def download(export: Mapping[str, Any]) -> bytes:
    """What the link of an export leads to."""
    async with httpx.AsyncClient() as http:
        response = await http.get(export["downloadUrl"])
    assert response.status_code == 200, response.text
    return response.content


@asynccontextmanager
async def open_office(client: GraphQLClient, environment: Mapping[str, str]) -> AsyncIterator[Office]:
    """An office in the environment of a module's programs."""
    settings = settings_of(environment)
    async with (
        database.connected(settings),
        events.connected(settings),
        queue.connected(settings),
        storage.open_storage(settings),
        asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=5) as pool,
    ):
        yield Office(client, Desk(pool, events.publish))


def uuid_in(id_text: str) -> UUID:
    """The UUID of a typed id."""
    return decode_id(id_text)[1]
