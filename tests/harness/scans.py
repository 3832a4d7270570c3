"""Scans as users make them, and files to scan that are made here."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from reportlab.pdfgen import canvas

from adapters import events, scanner, storage
from models import database, leases, media_queries, scan_queries
from models.executions import ExecutionStatus
from models.ids import Prefix, decode_id, encode_id, new_id
from models.permissions import Actor
from models.scan_queries import Findings
from resolvers import scans, sessions
from tasks import queue
from tasks.scan import findings
from tests.factories import Person
from tests.harness.client import GraphQLClient, GraphQLFailure
from tests.harness.executions import LEASE_SECONDS, Desk, settings_of, uuid_of
from tests.harness.waiting import eventually

SCAN = """
fragment S on Scan {
  id status stage progress attempt filename contentType size source forceLlm riskCount mediaId cancelRequestedAt
  finishedAt cpuSeconds peakMemoryBytes requestedBy { id } failure { code message stage retryable }
  scanner { name version ruleset language truncated }
  summary { category count bySeverity { severity count } }
  risks(first: 500) { ...R }
}
"""
RISK = """
fragment R on ScanRisk {
  id risk category context severity severitySource confidence start end page rule cue fingerprint explanation extra
  state triage { state note decidedAt until decidedBy { id } }
}
"""
SUBMIT = "mutation ($input: SubmitScanInput!) { it: submitScan(input: $input) { scan { ...S } } }"
CANCEL = "mutation ($input: CancelScanInput!) { it: cancelScan(input: $input) { scan { ...S } } }"
DELETE = "mutation ($input: DeleteScanInput!) { it: deleteScan(input: $input) { deletedId } }"
TRIAGE = "mutation ($input: TriageRiskInput!) { it: triageRisk(input: $input) { risk { ...R } } }"
ONE = "query ($id: ID!) { it: scan(id: $id) { ...S } }"
LIST = """
query ($filter: ScanFilter, $first: Int, $after: String) {
  it: scans(filter: $filter, first: $first, after: $after) {
    totalCount edges { node { id } } pageInfo { hasNextPage endCursor } }
}
"""
COMPARE = """
query ($base: ID!, $head: ID!, $change: [RiskChange!]) {
  it: compareScans(base: $base, head: $head) {
    sameDocument counts { change count } base { id } head { id }
    entries(change: $change, first: 500) { change risk { id context } before { id } } }
}
"""
EXPORT = """
query ($id: ID!, $format: ExportFormat!) { it: exportScan(id: $id, format: $format) { filename contentType content } }
"""
NODES = "query ($ids: [ID!]!) { it: nodes(ids: $ids) { __typename id } }"
LOG = "query ($id: ID!) { it: scan(id: $id) { logs(first: 1000) { edges { node { level message stage } } } } }"
FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
_TABLES = (
    *("executions", "scans", "scan_risks", "risk_triage", "execution_events", "idempotency_keys", "audit_events"),
)


@dataclass(frozen=True)
class LocalFile:
    """A file as a request brings it."""

    path: Path
    filename: str
    content_type: str = "application/octet-stream"

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size

    @property
    def sha256(self) -> str:
        """Its checksum."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()


class Lab:
    """What users do with scans, and what the database and the storage then hold."""

    def __init__(self, client: GraphQLClient, desk: Desk, folder: Path) -> None:
        self.client = client
        self.desk = desk
        self.pool: asyncpg.Pool = desk.pool
        self.folder = folder

    async def run(self, person: Person | None, document: str, **variables: Any) -> Any:
        """The answer of an operation's field `it`."""
        if "...S" in document:
            document += SCAN
        if "...R" in document:
            document += RISK
        return (await self.client.run(document, variables, token=person.token if person else None))["it"]

    async def refused(self, person: Person | None, document: str, **variables: Any) -> GraphQLFailure:
        """The error of an operation that leaves everything as it was: rows and objects."""
        before = await self.state()
        with pytest.raises(GraphQLFailure) as failure:
            await self.run(person, document, **variables)
        assert await self.state() == before
        return failure.value

    async def state(self) -> list[Any]:
        """All that a command on scans can change."""
        rows = [await self.pool.fetch(f"SELECT t::text FROM {table} t ORDER BY 1") for table in _TABLES]
        return [*rows, await self.objects()]

    async def objects(self, prefix: str = "scans/") -> list[str]:
        """Keys in storage."""
        return [each.key async for each in storage.current().list(prefix)]

    async def submit(self, person: Person, **fields: Any) -> dict[str, Any]:
        """A scan that waits, asked for through the API."""
        scan: dict[str, Any] = (await self.run(person, SUBMIT, input=fields))["scan"]
        return scan

    def file(self, content: bytes, filename: str) -> LocalFile:
        """A file on disk."""
        path = self.folder / hashlib.sha256(content + filename.encode()).hexdigest()
        path.write_bytes(content)
        return LocalFile(path, filename)

    async def upload(self, person: Person, content: bytes, filename: str, **fields: Any) -> str:
        """A scan of a file, asked for as the API does once it has the file; its id."""
        arguments = {"text": None, "media_id": None, "filename": None, "force_llm": False, "idempotency_key": None}
        scan_id = await scans.submit(
            Actor(user_id=uuid_of(person)), **{**arguments, **fields}, upload=self.file(content, filename)
        )
        return encode_id(Prefix.SCAN, scan_id)

    async def medium(self, person: Person, content: bytes, filename: str = "plan.pdf") -> str:
        """A PDF among somebody's media; its id."""
        medium = new_id()
        digest = hashlib.sha256(content).hexdigest()
        await storage.current().put(media_queries.object_key(medium), content, content_type="application/pdf")
        await self.pool.execute(
            """INSERT INTO media (id, owner_id, status, filename, content_type, size, sha256, kind, pages,
                   has_thumbnail, created_at, completed_at)
               VALUES ($1, $2, 'READY', $3, 'application/pdf', $4, $5, 'PDF', 1, false, now(), now())""",
            medium,
            uuid_of(person),
            filename,
            len(content),
            digest,
        )
        return encode_id(Prefix.MEDIA, medium)

    async def forget_object(self, key: str) -> None:
        """Lose an object."""
        await storage.current().delete([key])

    async def read(self, person: Person, scan_id: str) -> dict[str, Any]:
        """A scan now."""
        found: dict[str, Any] = await self.run(person, ONE, id=scan_id)
        return found

    async def ended(self, person: Person, scan_id: str, within: float = 30) -> dict[str, Any]:
        """A scan once it is final."""

        async def final() -> dict[str, Any] | None:
            found = await self.read(person, scan_id)
            return found if found["status"] in FINAL else None

        return await eventually(final, within, what=f"the end of {scan_id}")

    async def scanned(self, person: Person, **fields: Any) -> dict[str, Any]:
        """A scan of a text that a worker ends with success."""
        return await self.ended(person, (await self.submit(person, **fields))["id"])

    async def messages(self, person: Person, scan_id: str) -> list[str]:
        """The lines of a scan's log."""
        logs = (await self.run(person, LOG, id=scan_id))["logs"]
        return [edge["node"]["message"] for edge in logs["edges"]]

    async def finish(
        self,
        scan_id: str,
        found: Findings | None = None,
        status: ExecutionStatus = ExecutionStatus.SUCCEEDED,
    ) -> None:
        """End a scan as a worker does, with what the embedded scanner finds in its text unless something is given."""
        uuid = uuid_in(scan_id)
        hand = await self.desk.claim(uuid)
        if found is None:
            text = await self.pool.fetchval("SELECT text FROM scans WHERE execution_id = $1", uuid)
            found = findings.of_embedded(scanner.scan(text or ""), is_cut=False)
        async with self.pool.acquire() as connection, connection.transaction():
            if status is ExecutionStatus.SUCCEEDED:
                await scan_queries.record(connection, uuid, found)
            await leases.finish(connection, hand.claim, status, failure=None, compact_log_after_seconds=LEASE_SECONDS)
        await hand.tell_change()

    async def finished(self, person: Person, **fields: Any) -> dict[str, Any]:
        """A scan that succeeded, without a worker."""
        scan_id = (await self.submit(person, **fields))["id"]
        await self.finish(scan_id)
        return await self.read(person, scan_id)


@asynccontextmanager
async def open_lab(client: GraphQLClient, environment: Mapping[str, str], folder: Path) -> AsyncIterator[Lab]:
    """A lab in the environment of a module's programs."""
    settings = settings_of(environment)
    async with (
        database.connected(settings),
        events.connected(settings),
        queue.connected(settings),
        sessions.opened(settings),
        storage.open_storage(settings),
        asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=1, max_size=5) as pool,
    ):
        yield Lab(client, Desk(pool, events.publish), folder)


def uuid_in(id_text: str) -> UUID:
    """The UUID of a typed id."""
    return decode_id(id_text)[1]


def pdf_of(*pages: str) -> bytes:
    """A PDF with a line of text on each page."""
    file = io.BytesIO()
    drawing = canvas.Canvas(file)
    for page in pages:
        for number, line in enumerate(page.split("\n")):
            drawing.drawString(72, 720 - 16 * number, line)
        drawing.showPage()
    drawing.save()
    return file.getvalue()
