"""Worlds for the authorization matrix: one object of every kind that an id can name, made for one person.

Rows are written with the harness, without the API: a new object per call is cheap, so a command that deletes or changes
its object is tried on one of its own. All free text of a world carries its `mark`, so an answer that quotes anything of
it can be recognised. Which argument takes which kind is declared in `tests/harness/matrix.py`.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final
from uuid import UUID

import asyncpg

from adapters.secret_box import SecretBox
from adapters.webhook_sender import new_secret
from models import notification_queries, scan_queries
from models.executions import ExecutionStatus
from models.ids import Prefix, decode_id, encode_id, new_id
from models.notifications import NotificationKind
from models.permissions import TokenScope
from models.scan_queries import Findings, NewRisk
from models.scans import RiskSeverity, ScanSource, SeveritySource
from models.sealed import WEBHOOK_SECRET
from resolvers.access_token_text import hash_of, new_access_token
from tests.factories import Person
from tests.harness import deployments
from tests.harness.executions import Desk, uuid_of


@dataclass(frozen=True, slots=True)
class Kind:
    """What an id names: its prefix, and which state the object has to be in.

    `is_shared`: all who are signed in see it; `is_public`: all others too. `is_personal`: only its owner sees it,
    administrators neither.
    """

    prefix: Prefix
    state: str = ""
    is_shared: bool = False
    is_public: bool = False
    is_personal: bool = False

    def __str__(self) -> str:
        return f"{self.prefix} {self.state}".strip()


USER: Final = Kind(Prefix.USER)
SPARE_USER: Final = Kind(Prefix.USER, "without a session")
SESSION: Final = Kind(Prefix.SESSION, is_personal=True)
PRODUCT: Final = Kind(Prefix.PRODUCT, is_shared=True, is_public=True)
IDLE_PRODUCT: Final = Kind(Prefix.PRODUCT, "inactive")
INCIDENT: Final = Kind(Prefix.INCIDENT, is_shared=True, is_public=True)
TOOL: Final = Kind(Prefix.TOOL, is_shared=True)
IDLE_TOOL: Final = Kind(Prefix.TOOL, "inactive")
JOB: Final = Kind(Prefix.JOB)
SCHEDULED_JOB: Final = Kind(Prefix.JOB, "with a schedule")
RUN: Final = Kind(Prefix.RUN, "ended")
WAITING_RUN: Final = Kind(Prefix.RUN, "waiting")
ITEM: Final = Kind(Prefix.ITEM)
PROPERTY: Final = Kind(Prefix.PROPERTY)
FILE: Final = Kind(Prefix.FILE)
AUDIT_EVENT: Final = Kind(Prefix.AUDIT_EVENT)
PROJECT: Final = Kind(Prefix.PROJECT)
DEPLOYMENT: Final = Kind(Prefix.DEPLOYMENT, "built")
WAITING_DEPLOYMENT: Final = Kind(Prefix.DEPLOYMENT, "waiting")
DEPLOY_HOOK: Final = Kind(Prefix.DEPLOY_HOOK)
VARIABLE: Final = Kind(Prefix.VARIABLE)
DELIVERY: Final = Kind(Prefix.WEBHOOK_DELIVERY)
ENDPOINT: Final = Kind(Prefix.WEBHOOK_ENDPOINT)
DISPATCH: Final = Kind(Prefix.WEBHOOK_DISPATCH)
SCAN: Final = Kind(Prefix.SCAN, "ended")
WAITING_SCAN: Final = Kind(Prefix.SCAN, "waiting")
RISK: Final = Kind(Prefix.RISK)
MEDIUM: Final = Kind(Prefix.MEDIA)
OCR_JOB: Final = Kind(Prefix.OCR_JOB, "ended")
WAITING_OCR_JOB: Final = Kind(Prefix.OCR_JOB, "waiting")
ITEM_EXPORT: Final = Kind(Prefix.EXPORT, "ended")
WAITING_ITEM_EXPORT: Final = Kind(Prefix.EXPORT, "waiting")
DOCUMENT_PAGE: Final = Kind(Prefix.DOCUMENT_PAGE)
CANDIDATE: Final = Kind(Prefix.CANDIDATE, "waiting")
REJECTED_CANDIDATE: Final = Kind(Prefix.CANDIDATE, "rejected")
ACCEPTANCE: Final = Kind(Prefix.ACCEPTANCE)
NOTIFICATION: Final = Kind(Prefix.NOTIFICATION, is_personal=True)
IDENTITY: Final = Kind(Prefix.IDENTITY, is_personal=True)
ACCESS_TOKEN: Final = Kind(Prefix.ACCESS_TOKEN, is_personal=True)

FIRST_ROW: Final = 1_000_000_000
"""Rows that are numbered begin here, so that the id of one is no id of another world by chance."""


@dataclass(slots=True)
class World:
    """A person, and what is theirs."""

    person: Person
    desk: Desk
    mark: str = field(default_factory=lambda: f"only-{secrets.token_hex(8)}")
    ids: dict[Kind, str] = field(default_factory=dict)
    made: list[str] = field(default_factory=list)
    shared: set[str] = field(default_factory=set)
    public: set[str] = field(default_factory=set)

    @property
    def db(self) -> asyncpg.Pool:
        """Connections to the module's database."""
        return self.desk.pool

    @property
    def user_id(self) -> UUID:
        """The key of the person's row."""
        return uuid_of(self.person)

    async def make(self, kind: Kind) -> str:
        """A new object of a kind; its id."""
        made = encode_id(kind.prefix, await MAKERS[kind](self))
        self.made.append(made)
        if kind.is_shared:
            self.shared.add(made)
        if kind.is_public:
            self.public.add(made)
        return made

    async def fill(self) -> World:
        """One object of each kind, kept in `ids`."""
        for kind in MAKERS:
            self.ids[kind] = await self.make(kind)
        return self

    async def token(self, scope: TokenScope, *projects: str, revoked: bool = False) -> Person:
        """The person's script, with a token of this scope, for all projects or for some."""
        text = new_access_token()
        await self._insert_token(text, scope, [str(decode_id(each)[1]) for each in projects] or None, revoked=revoked)
        return replace(self.person, token=text)

    async def _insert_token(self, text: str, scope: TokenScope, projects: list[str] | None, *, revoked: bool) -> UUID:
        made: UUID = await self.db.fetchval(
            """INSERT INTO access_tokens (id, user_id, name, token_hash, last_four, scope, project_ids, created_at,
                   revoked_at)
               VALUES ($1, $2, $3, $4, $5, $6, to_jsonb($7::text[]), now(), CASE WHEN $8 THEN now() END)
               RETURNING id""",
            new_id(),
            self.user_id,
            f"Token {self.mark}",
            hash_of(text),
            text[-4:],
            scope.value,
            projects,
            revoked,
        )
        return made

    async def insert_project(self) -> UUID:
        """A project."""
        async with self.db.acquire() as connection:
            return await deployments.insert_project(
                connection,
                self.user_id,
                name=f"Site {self.mark}",
                build_command=f"make {self.mark}",
                slug=f"{self.mark}-{secrets.token_hex(4)}",
            )

    async def home(self) -> UUID:
        """The project in `ids`: what is part of it is found through it."""
        return decode_id(self.ids[PROJECT])[1] if PROJECT in self.ids else await self.insert_project()

    async def insert_deployment(self, project_id: UUID | None = None, *, is_built: bool) -> UUID:
        """A deployment, of a project of its own unless one is given; the built one has an address."""
        project = project_id or await self.insert_project()
        async with self.db.acquire() as connection:
            deployment = await deployments.insert_deployment(
                connection, project, commit_message=f"Commit {self.mark}", alias="preview-of-a-branch"
            )
            if is_built:
                await deployments.set_status(connection, deployment, ExecutionStatus.RUNNING)
                await deployments.set_status(connection, deployment, ExecutionStatus.SUCCEEDED)
        return deployment


# -- how each kind is made


async def _user(world: World) -> UUID:
    return world.user_id


async def _spare_user(world: World) -> UUID:
    """Somebody whom administrators may change and delete without an end to the world."""
    async with world.db.acquire() as connection:
        return await deployments.insert_owner(connection, name=f"Spare {world.mark}")


async def _session(world: World) -> UUID:
    made: UUID = await world.db.fetchval(
        """INSERT INTO sessions (id, user_id, refresh_counter, created_at, last_used_at, expires_at, user_agent)
           VALUES ($1, $2, 0, now(), now(), now() + interval '1 day', $3) RETURNING id""",
        new_id(),
        world.user_id,
        world.mark,
    )
    return made


async def _tool(world: World) -> UUID:
    return await world.desk.tool()


async def _idle_tool(world: World) -> UUID:
    return await world.desk.tool(is_active=False)


async def _product(world: World) -> UUID:
    return await _insert_product(world, is_active=True)


async def _idle_product(world: World) -> UUID:
    return await _insert_product(world, is_active=False)


async def _insert_product(world: World, *, is_active: bool) -> UUID:
    """A product, which is nobody's: it does not carry the mark of its world unless it is hidden."""
    made: UUID = await world.db.fetchval(
        """INSERT INTO products (id, name, slug, description, stock, attributes, is_active, version, created_at,
               updated_at)
           VALUES ($1, $2, $3, '', 5, '{}', $4, 1, now(), now()) RETURNING id""",
        new_id(),
        "A product" if is_active else f"Product {world.mark}",
        f"product-{secrets.token_hex(8)}",
        is_active,
    )
    return made


async def _incident(world: World) -> UUID:
    """Something that everybody is told of, so it does not carry the mark of its world."""
    made: UUID = await world.db.fetchval(
        """WITH made AS (
               INSERT INTO incidents (id, title, state, impact, services, started_at, updated_at, update_count)
               VALUES ($1, 'An incident', 'INVESTIGATING', 'MINOR', '{API}', now(), now(), 1) RETURNING id
           )
           INSERT INTO incident_updates (id, incident_id, number, state, message, is_automatic, at)
           SELECT $2, id, 1, 'INVESTIGATING', 'We look.', false, now() FROM made RETURNING incident_id""",
        new_id(),
        new_id(),
    )
    return made


async def _job(world: World) -> UUID:
    job = await world.desk.job(world.person)
    await world.db.execute("UPDATE jobs SET name = $2 WHERE id = $1", job, f"Job {world.mark}")
    return job


async def _scheduled_job(world: World) -> UUID:
    """A job with a paused schedule: it fires nothing, and can be paused, resumed and taken away."""
    job = await _job(world)
    await world.db.execute(
        """INSERT INTO job_schedules (job_id, cron_expression, time_zone, is_paused, overlap_policy, missed_run_policy,
               limits, created_at, updated_at)
           VALUES ($1, '0 6 * * *', 'UTC', true, 'SKIP', 'SKIP', '{}', now(), now())""",
        job,
    )
    return job


async def _run(world: World) -> UUID:
    hand = await world.desk.started(world.person, job=await _job(world))
    await hand.write(f"line {world.mark}")
    await hand.finish()
    return hand.id


async def _run_in_ids(world: World) -> UUID:
    """The run in `ids`: what it has is found through it."""
    return decode_id(world.ids[RUN])[1] if RUN in world.ids else await _run(world)


async def _waiting_run(world: World) -> UUID:
    return await world.desk.queued(world.person, job=await _job(world))


async def _item(world: World) -> UUID:
    run = await _run_in_ids(world)
    number = FIRST_ROW + secrets.randbelow(FIRST_ROW)
    await world.db.execute(
        """INSERT INTO items (id, dataset_id, run_id, key, url, data, scraped_at)
           VALUES ($1, $2, $2, $4, $3, '{}', now())""",
        number,
        run,
        f"https://a.example/{world.mark}",
        str(number),
    )
    return UUID(int=number)


async def _property(world: World) -> UUID:
    made: UUID = await world.db.fetchval(
        """INSERT INTO properties (id, owner_id, job_id, dataset_id, run_id, source, source_id, url, title, description,
               images, price_id, first_seen_at, last_seen_at, last_changed_at, price_changed_at)
           VALUES ($1, $2, $3, $1, $1, 'a.example', $5, 'https://a.example/1', $4, '', '[]', $1, now(), now(),
               now(), now())
           RETURNING id""",
        new_id(),
        world.user_id,
        await _job(world),
        f"House {world.mark}",
        secrets.token_hex(8),
    )
    return made


async def _file(world: World) -> UUID:
    made: UUID = await world.db.fetchval(
        """INSERT INTO output_files (id, run_id, format, key, filename, content_type, size, sha256, row_count,
               created_at)
           VALUES ($1, $2, 'JSONL', $3::text, $3::text, 'application/x-ndjson', 2, '', 1, now()) RETURNING id""",
        new_id(),
        await _run_in_ids(world),
        f"{world.mark}.jsonl",
    )
    return made


async def _audit_event(world: World) -> UUID:
    made: UUID = await world.db.fetchval(
        """INSERT INTO audit_events (id, occurred_at, actor_id, action, outcome, details)
           VALUES ($1, now(), $2, 'login', 'success', jsonb_build_object('note', $3::text)) RETURNING id""",
        new_id(),
        world.user_id,
        world.mark,
    )
    return made


async def _project(world: World) -> UUID:
    return await world.insert_project()


async def _deployment(world: World) -> UUID:
    return await world.insert_deployment(is_built=True)


async def _waiting_deployment(world: World) -> UUID:
    return await world.insert_deployment(is_built=False)


async def _deploy_hook(world: World) -> UUID:
    made: UUID = await world.db.fetchval(
        """INSERT INTO deploy_hooks (id, project_id, name, branch, environment, token_hash, created_at)
           VALUES ($1, $2, $3, 'main', 'PRODUCTION', $4, now()) RETURNING id""",
        new_id(),
        await world.home(),
        f"Hook {world.mark}",
        secrets.token_hex(32),
    )
    return made


async def _variable(world: World) -> UUID:
    made: UUID = await world.db.fetchval(
        """INSERT INTO environment_variables (id, project_id, environment, name, sealed_value, created_at, updated_at)
           VALUES ($1, $2, 'PRODUCTION', $3, 'sealed', now(), now()) RETURNING id""",
        new_id(),
        await world.home(),
        f"ANSWER_{secrets.token_hex(6)}",
    )
    return made


async def _delivery(world: World) -> UUID:
    project = await world.insert_project()
    return await insert_delivery(
        world.db, world.mark, (project, await world.insert_deployment(project, is_built=False), world.mark)
    )


async def _endpoint(world: World) -> UUID:
    """A webhook endpoint at an address that is never opened, with a secret that opens."""
    endpoint = new_id()
    assert world.desk.settings is not None, "a desk of `open_desk`"
    box = SecretBox(world.desk.settings.keyring)
    await world.db.execute(
        """INSERT INTO webhook_endpoints (id, owner_id, url, description, sealed_secret, is_active, created_at,
               updated_at)
           VALUES ($1, $2, 'http://127.0.0.1/', $3, $4, true, now(), now())""",
        endpoint,
        world.user_id,
        f"Endpoint {world.mark}",
        box.seal(new_secret(), place=WEBHOOK_SECRET.place(endpoint)),
    )
    return endpoint


async def _dispatch(world: World) -> UUID:
    dispatch = new_id()
    await world.db.execute(
        """INSERT INTO webhook_dispatches (id, endpoint_id, event_id, event_type, payload, state, attempts,
               attempts_before, response_excerpt, attempt_log, created_at, finished_at)
           VALUES ($1, $2, $1, 'ping', '{}', 'DELIVERED', 1, 0, $3, '[]', now(), now())""",
        dispatch,
        await _endpoint(world),
        f"Answer {world.mark}",
    )
    return dispatch


async def _waiting_scan(world: World) -> UUID:
    return await insert_scan(world)


async def _scan(world: World) -> UUID:
    scan = await insert_scan(world)
    await insert_risk(world, scan)
    return scan


async def _risk(world: World) -> UUID:
    return await insert_risk(world, await insert_scan(world))


async def _medium(world: World) -> UUID:
    made: UUID = await world.db.fetchval(
        """INSERT INTO media (id, owner_id, status, filename, content_type, size, sha256, kind, has_thumbnail,
               created_at, completed_at)
           VALUES ($1, $2, 'READY', $3, 'application/pdf', 9, $4, 'PDF', false, now(), now()) RETURNING id""",
        new_id(),
        world.user_id,
        f"{world.mark}.pdf",
        secrets.token_hex(32),
    )
    return made


async def _ocr_job(world: World) -> UUID:
    job = await _waiting_ocr_job(world)
    await (await world.desk.claim(job)).finish()
    return job


async def _waiting_ocr_job(world: World) -> UUID:
    job = new_id()
    await world.db.execute(
        """WITH made AS (
               INSERT INTO executions (id, kind, owner_id, requested_by_id, status, progress, attempt, lost_workers,
                   max_attempts, timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
               VALUES ($1, 'OCR', $2, $2, 'QUEUED', 0, 0, 0, 3, 60, 0, now(), false, 0, 0)
           )
           INSERT INTO ocr_jobs (execution_id, filename, languages, force_ocr, pages_read, candidate_count)
           VALUES ($1, $3, '["eng"]', false, 1, 0)""",
        job,
        world.user_id,
        f"{world.mark}.pdf",
    )
    return job


async def _item_export(world: World) -> UUID:
    export = await _waiting_item_export(world)
    await (await world.desk.claim(export)).finish()
    return export


async def _waiting_item_export(world: World) -> UUID:
    export = new_id()
    await world.db.execute(
        """WITH made AS (
               INSERT INTO executions (id, kind, owner_id, requested_by_id, status, progress, attempt, lost_workers,
                   max_attempts, timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
               VALUES ($1, 'EXPORT', $2, $2, 'QUEUED', 0, 0, 0, 3, 60, 0, now(), false, 0, 0)
           )
           INSERT INTO item_exports (execution_id, run_id, format, options, filename, content_type)
           VALUES ($1, $3, 'CSV', jsonb_build_object('fields', $4::text), $4::text || '.csv', 'text/csv')""",
        export,
        world.user_id,
        await _run(world),
        world.mark,
    )
    return export


async def _document_page(world: World) -> UUID:
    made: UUID = await world.db.fetchval(
        """INSERT INTO document_pages (id, job_id, number, source, width, height, rotation, text, words)
           VALUES ($1, $2, 1, 'OCR', 1, 1, 0, $3, '[]') RETURNING id""",
        new_id(),
        await _ocr_job(world),
        f"Text {world.mark}",
    )
    return made


async def _candidate(world: World) -> UUID:
    return await insert_candidate(world, await _ocr_job(world))


async def _rejected_candidate(world: World) -> UUID:
    return await insert_candidate(world, await _ocr_job(world), state="REJECTED")


async def _acceptance(world: World) -> UUID:
    """An acceptance of one candidate, whose product is gone."""
    job = await _ocr_job(world)
    made: UUID = await world.db.fetchval(
        """INSERT INTO candidate_acceptances (id, job_id, accepted_by_id, accepted_at, changes)
           VALUES ($1, $2, $3, now(), '[]') RETURNING id""",
        new_id(),
        job,
        world.user_id,
    )
    await insert_candidate(world, job, state="ACCEPTED", acceptance=made)
    return made


async def _notification(world: World) -> UUID:
    deployment = await world.insert_deployment(is_built=True)
    return await insert_notification(world, deployment)


async def _identity(world: World) -> UUID:
    # One per provider and user: the first is kept, later ones take turns.
    provider = "GOOGLE" if IDENTITY in world.ids else "GITHUB"
    await world.db.execute("DELETE FROM identities WHERE user_id = $1 AND provider = $2", world.user_id, provider)
    made: UUID = await world.db.fetchval(
        """INSERT INTO identities (id, user_id, provider, subject, email, login, created_at)
           VALUES ($1, $2, $5, $3::text, $3::text || '@example.com', $4, now()) RETURNING id""",
        new_id(),
        world.user_id,
        secrets.token_hex(6),
        world.mark,
        provider,
    )
    return made


async def _access_token(world: World) -> UUID:
    return await world._insert_token(new_access_token(), TokenScope.READ, None, revoked=False)


MAKERS: Final[dict[Kind, Callable[[World], Awaitable[UUID]]]] = {
    USER: _user,
    SPARE_USER: _spare_user,
    SESSION: _session,
    TOOL: _tool,
    PRODUCT: _product,
    IDLE_PRODUCT: _idle_product,
    INCIDENT: _incident,
    IDLE_TOOL: _idle_tool,
    JOB: _job,
    SCHEDULED_JOB: _scheduled_job,
    RUN: _run,
    WAITING_RUN: _waiting_run,
    PROPERTY: _property,
    ITEM: _item,
    FILE: _file,
    AUDIT_EVENT: _audit_event,
    PROJECT: _project,
    DEPLOYMENT: _deployment,
    WAITING_DEPLOYMENT: _waiting_deployment,
    DEPLOY_HOOK: _deploy_hook,
    VARIABLE: _variable,
    DELIVERY: _delivery,
    ENDPOINT: _endpoint,
    DISPATCH: _dispatch,
    SCAN: _scan,
    WAITING_SCAN: _waiting_scan,
    RISK: _risk,
    MEDIUM: _medium,
    OCR_JOB: _ocr_job,
    WAITING_OCR_JOB: _waiting_ocr_job,
    ITEM_EXPORT: _item_export,
    WAITING_ITEM_EXPORT: _waiting_item_export,
    DOCUMENT_PAGE: _document_page,
    CANDIDATE: _candidate,
    REJECTED_CANDIDATE: _rejected_candidate,
    ACCEPTANCE: _acceptance,
    NOTIFICATION: _notification,
    IDENTITY: _identity,
    ACCESS_TOKEN: _access_token,
}
"""Every kind of id, and how one is made."""


async def insert_delivery(db: asyncpg.Pool, text: str, *effects: tuple[UUID, UUID | None, str]) -> UUID:
    """A webhook's delivery that had effects: project, deployment, message."""
    delivery: UUID = await db.fetchval(
        """INSERT INTO webhook_deliveries (id, provider, delivery_id, event, repository, body, status, message,
               attempts, received_at, processed_at)
           VALUES ($1, 'GITHUB', $2, 'push', 'team/site', to_jsonb($3::text)::text, 'PROCESSED', $3::text, 1,
               now(), now())
           RETURNING id""",
        new_id(),
        secrets.token_hex(12),
        text,
    )
    for project, deployment, message in effects:
        await db.execute(
            "INSERT INTO webhook_effects (delivery_id, project_id, deployment_id, message) VALUES ($1, $2, $3, $4)",
            delivery,
            project,
            deployment,
            message,
        )
    return delivery


async def insert_scan(world: World) -> UUID:
    """A scan of a text that waits."""
    scan = new_id()
    await world.db.execute(
        """WITH made AS (
               INSERT INTO executions (id, kind, owner_id, requested_by_id, status, progress, attempt, lost_workers,
                   max_attempts, timeout_seconds, worked_seconds, queued_at, failure_retryable, log_sequence, log_bytes)
               VALUES ($1, 'SCAN', $2, $2, 'QUEUED', 0, 0, 0, 3, 60, 0, now(), false, 0, 0)
           )
           INSERT INTO scans (execution_id, filename, content_type, size, text, document_key, force_llm, is_truncated,
               risk_count)
           VALUES ($1, $3::text, 'text/plain', 9, $3::text, 'name:' || $3::text, false, false, 0)""",
        scan,
        world.user_id,
        f"Plan {world.mark}",
    )
    return scan


async def insert_risk(world: World, scan: UUID) -> UUID:
    """End a scan with a risk."""
    hand = await world.desk.claim(scan)
    risk = NewRisk(
        category="schedule",
        risk=f"Risk {world.mark}",
        context=f"Context {world.mark}",
        severity=RiskSeverity.HIGH,
        severity_source=SeveritySource.RULE,
        confidence=None,
        start=None,
        end=None,
        page=None,
        rule=None,
        cue=None,
        fingerprint=secrets.token_hex(32),
        extra=None,
    )
    async with world.db.acquire() as connection, connection.transaction():
        await scan_queries.record(connection, scan, Findings((risk,), ScanSource.MODEL, {}, is_truncated=False))
    await hand.finish()
    found: UUID = await world.db.fetchval("SELECT id FROM scan_risks WHERE scan_id = $1", scan)
    return found


async def insert_notification(world: World, execution: UUID) -> UUID:
    """Tell the person of a world something about an execution."""
    async with world.db.acquire() as connection, connection.transaction():
        made = await notification_queries.add_with(
            connection,
            world.user_id,
            key=secrets.token_hex(8),
            kind=NotificationKind.DEPLOYMENT_SUCCEEDED,
            title=f"Told {world.mark}",
            body="",
            execution_id=execution,
        )
    assert made is not None
    return made


async def insert_candidate(world: World, job: UUID, *, state: str = "PENDING", acceptance: UUID | None = None) -> UUID:
    """A candidate of a reading."""
    made: UUID = await world.db.fetchval(
        """INSERT INTO product_candidates (id, job_id, position, page, box, evidence, name, price, currency,
               confidences, confidence, state, acceptance_id, decided_at)
           VALUES ($1, $2, 1, 1, '[0, 0, 1, 1]', $3::text, $3::text, 1, 'EUR', '{"name": 1}', 1, $4::text, $5,
               CASE WHEN $4::text <> 'PENDING' THEN now() END) RETURNING id""",
        new_id(),
        job,
        f"Line {world.mark}",
        state,
        acceptance,
    )
    return made
