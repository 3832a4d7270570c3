"""Documents as users have them read, and files that decoders must survive. Media are written as uploads leave them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from adapters import events, storage
from adapters.ocr.languages import installed
from models import database, leases, media_queries, ocr_job_queries
from models.executions import ExecutionStatus, Failure, FailureCode
from models.ids import Prefix, decode_id, encode_id, new_id
from models.ocr_job_queries import NewPage
from tasks import queue
from tests.factories import Person
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import LEASE_SECONDS, Desk, settings_of, uuid_of
from tests.harness.waiting import eventually

JOB = """
fragment J on OcrJob {
  id status stage progress attempt filename languages forceOcr defaultCurrency batchId pageCount pagesRead confidence
  candidateCount engine cancelRequestedAt finishedAt cpuSeconds peakMemoryBytes requestedBy { id }
  failure { code message stage retryable }
}
"""
ENQUEUE = "mutation ($input: EnqueueOcrInput!) { it: enqueueOcr(input: $input) { ocrJob { ...J } } }"
ENQUEUE_BATCH = (
    "mutation ($input: EnqueueOcrBatchInput!) { it: enqueueOcrBatch(input: $input) { batchId ocrJobs { ...J } } }"
)
CANCEL = "mutation ($input: CancelOcrJobInput!) { it: cancelOcrJob(input: $input) { ocrJob { ...J } } }"
DELETE = "mutation ($input: DeleteOcrJobInput!) { it: deleteOcrJob(input: $input) { deletedId } }"
ONE = "query ($id: ID!) { it: ocrJob(id: $id) { ...J } }"
PAGES = """
query ($id: ID!, $first: Int, $after: String, $words: Int!) { it: ocrJob(id: $id) { text
  pages(first: $first, after: $after) { totalCount pageInfo { hasNextPage endCursor } edges { node {
    id number source width height rotation confidence text
    words(first: $words) { text left top right bottom confidence } } } } } }
"""
LIST = """
query ($filter: OcrJobFilter, $first: Int, $after: String) {
  it: ocrJobs(filter: $filter, first: $first, after: $after) {
  totalCount edges { node { id } } pageInfo { hasNextPage endCursor } } }
"""
SEARCH = """
query ($search: String!, $first: Int, $after: String) { it: documents(search: $search, first: $first, after: $after) {
  totalCount pageInfo { hasNextPage endCursor }
  edges { node { number rank job { id } page { id number } snippet { text isMatch } } } } }
"""
LOG = "query ($id: ID!) { it: ocrJob(id: $id) { logs(first: 1000) { edges { node { message } } } } }"
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
_TABLES = (
    *("executions", "ocr_jobs", "document_pages", "product_candidates", "execution_events", "idempotency_keys"),
    "audit_events",
)
BOMB_MEGABYTES = 1_200


class ReadingRoom:
    """What users do with documents, and what the database then holds."""

    def __init__(self, client: GraphQLClient, desk: Desk, languages: Sequence[str]) -> None:
        self.client = client
        self.desk = desk
        self.pool: asyncpg.Pool = desk.pool
        self.languages = tuple(languages)

    async def run(self, person: Person | None, document: str, **variables: Any) -> Any:
        """The answer of an operation's field `it`."""
        document += JOB if "...J" in document else ""
        return (await self.client.run(document, variables, token=person.token if person else None))["it"]

    async def refused(self, person: Person | None, document: str, **variables: Any) -> GraphQLFailure:
        """The error of an operation that leaves everything as it was."""
        before = await self.state()
        with pytest.raises(GraphQLFailure) as failure:
            await self.run(person, document, **variables)
        assert await self.state() == before
        return failure.value

    async def state(self) -> list[Any]:
        """All that a command on documents can change."""
        return [await self.pool.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in _TABLES]

    async def medium(
        self,
        person: Person,
        content: bytes = b"",
        *,
        kind: str = "PDF",
        status: str = "READY",
        filename: str = "list.pdf",
        pages: int | None = None,
    ) -> str:
        """A medium of somebody, as an upload leaves it; its id."""
        medium_id = new_id()
        if content:
            await storage.current().put(
                media_queries.object_key(medium_id), content, content_type="application/octet-stream"
            )
        await self.pool.execute(
            """INSERT INTO media (id, owner_id, status, filename, content_type, size, sha256, kind, pages,
                   has_thumbnail, created_at, completed_at, upload_until)
               VALUES ($1, $2, $3, $4, 'application/octet-stream', $5, $6, $7, $8, false, now(), now(),
                   CASE WHEN $9 THEN now() END)""",
            medium_id,
            uuid_of(person),
            status,
            filename,
            len(content),
            hashlib.sha256(content).hexdigest(),
            kind if status == "READY" else None,
            pages,
            status == "PENDING",
        )
        return encode_id(Prefix.MEDIA, medium_id)

    async def enqueue(self, person: Person, medium: str, **fields: Any) -> str:
        """A reading that waits; its id."""
        job: str = (await self.run(person, ENQUEUE, input={"mediaId": medium, **fields}))["ocrJob"]["id"]
        return job

    async def read(self, person: Person, content: bytes, *, kind: str = "PDF", **fields: Any) -> dict[str, Any]:
        """The reading of a document once it has ended."""
        return await self.ended(
            person, await self.enqueue(person, await self.medium(person, content, kind=kind), **fields)
        )

    async def ended(self, person: Person, job_id: str, within: float = 60) -> dict[str, Any]:
        """A reading once it is final."""

        async def final() -> dict[str, Any] | None:
            found: dict[str, Any] = await self.run(person, ONE, id=job_id)
            return found if found["status"] in FINAL else None

        return await eventually(final, within, what=f"the end of {job_id}")

    async def pages(
        self, person: Person, job_id: str, *, words: int = 1_000, first: int = 4, **page: Any
    ) -> list[dict[str, Any]]:
        """Pages of a document."""
        found = await self.run(person, PAGES, id=job_id, words=words, first=first, **page)
        return [edge["node"] for edge in found["pages"]["edges"]]

    async def stored(self, job_id: str) -> dict[int, UUID]:
        """The rows of a document's pages, by number."""
        rows = await self.pool.fetch("SELECT number, id FROM document_pages WHERE job_id = $1", uuid_in(job_id))
        return {row["number"]: row["id"] for row in rows}

    async def has_pages(self, job_id: str, count: int, within: float = 30) -> dict[int, UUID]:
        """The rows of pages once there are so many."""

        async def enough() -> dict[int, UUID] | None:
            found = await self.stored(job_id)
            return found if len(found) >= count else None

        return await eventually(enough, within, what=f"{count} pages of {job_id}")

    async def messages(self, person: Person, job_id: str) -> list[str]:
        """The lines of a reading's log."""
        logs = (await self.run(person, LOG, id=job_id))["logs"]
        return [edge["node"]["message"] for edge in logs["edges"]]

    async def finished(
        self,
        person: Person,
        *texts: str,
        filename: str = "list.pdf",
        status: ExecutionStatus = ExecutionStatus.SUCCEEDED,
    ) -> str:
        """A document with pages of these texts, read without a worker; its id."""
        job_id = await self.enqueue(person, await self.medium(person, filename=filename))
        hand = await self.desk.claim(uuid_in(job_id))
        async with self.pool.acquire() as connection, connection.transaction():
            new = [page_of(number, text) for number, text in enumerate(texts, start=1)]
            await ocr_job_queries.add_pages(connection, hand.id, new, page_count=len(new))
            failure = Failure(FailureCode.INTERNAL, "A fault") if status is ExecutionStatus.FAILED else None
            await leases.finish(
                connection, hand.claim, status, failure=failure, compact_log_after_seconds=LEASE_SECONDS
            )
        await hand.tell_change()
        return job_id


def page_of(number: int, text: str) -> NewPage:
    """A page as it comes from a text layer, all words in one row."""
    words = text.split()
    part = 1 / max(1, len(words))
    return NewPage(
        number=number,
        source="TEXT_LAYER",
        engine=None,
        width=595.0,
        height=842.0,
        rotation=0.0,
        confidence=None,
        text=text,
        words=[[word, place * part, 0.1, (place + 1) * part, 0.12, None] for place, word in enumerate(words)],
    )


@asynccontextmanager
async def open_room(client: GraphQLClient, environment: Mapping[str, str]) -> AsyncIterator[ReadingRoom]:
    """A reading room in the environment of a module's programs."""
    settings = settings_of(environment)
    async with (
        database.connected(settings),
        events.connected(settings),
        queue.connected(settings),
        storage.open_storage(settings),
        asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=5) as pool,
    ):
        yield ReadingRoom(client, Desk(pool, events.publish), installed(settings))


def uuid_in(id_text: str) -> UUID:
    """The UUID of a typed id."""
    return decode_id(id_text)[1]


# -- files that decoders must survive


def raw_pdf(*objects: bytes) -> bytes:
    """A PDF of these objects, numbered from 1; the first is the catalogue."""
    out = b"%PDF-1.7\n"
    places = []
    for number, each in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n%b\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    tail = b"xref\n0 %d\n0000000000 65535 f \n%btrailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF"
    return out + tail % (size, table, size, len(out))


@cache
def flate_bomb_pdf(*, good_pages: tuple[str, ...] = ()) -> bytes:
    """A megabyte that a page inflates to more than a gigabyte, among pages with a line of text each."""
    bomb = _inflating(BOMB_MEGABYTES)
    contents = [_stream(b"BT /F 12 Tf 50 700 Td (%b) Tj ET" % text.encode()) for text in good_pages]
    contents.insert(len(good_pages) // 2, b"<</Filter/FlateDecode/Length %d>>stream\n%b\nendstream" % (len(bomb), bomb))
    count = len(contents)
    kids = b" ".join(b"%d 0 R" % (4 + number) for number in range(count))
    pages = [
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Resources<</Font<</F 3 0 R>>>>/Contents %d 0 R>>"
        % (4 + count + number)
        for number in range(count)
    ]
    return raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%b]/Count %d>>" % (kids, count),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        *pages,
        *contents,
    )


def huge_page_pdf() -> bytes:
    """433 bytes that ask for a page of 150 million metres."""
    return raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 2000000 2000000]/UserUnit 75000/Contents 4 0 R>>",
        _stream(b"0 0 99999 99999 re f "),
    )


def many_pages_pdf(count: int) -> bytes:
    """One page, listed so many times."""
    return raw_pdf(
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Count %d/Kids[%b]>>" % (count, b"3 0 R " * count),
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]>>",
    )


@cache
def huge_png(side: int = 30_000) -> bytes:
    """A white square of so many pixels a side, a thousandth of that in bytes."""
    packed = zlib.compressobj(9)
    row = b"\0" * (1 + side // 8)
    data = b"".join(packed.compress(row) for _ in range(side)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _stream(data: bytes) -> bytes:
    return b"<</Length %d>>stream\n%b\nendstream" % (len(data), data)


def _inflating(megabytes: int) -> bytes:
    """So many zeros, deflated: a block that ends with a full flush can be repeated, so nobody has to compress them."""
    packed = zlib.compressobj(9)
    block = packed.compress(b"\0" * 2**20) + packed.flush(zlib.Z_FULL_FLUSH)
    head, block = block[:2], block[2:]
    # An empty last block, and the checksum of zeros (RFC 1950 §9): one, and their number modulo 65521.
    return head + block * megabytes + b"\x03\x00" + struct.pack(">HH", megabytes * 2**20 % 65_521, 1)
