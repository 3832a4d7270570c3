"""The gate from an id to a row: one function per kind of thing, and no other way in.

Each checks, in this order, that the text is an id of that kind, that the actor may see the row, and that their
role grants what they are about to do. What an actor may not see answers like what does not exist: NOT_FOUND. A
malformed id names nothing, so it answers the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from errors import Forbidden, NotFound, Unauthorized
from models import (
    access_token_queries,
    account_queries,
    candidate_queries,
    deployments,
    documents,
    endpoint_queries,
    execution_rows,
    identity_queries,
    incident_queries,
    item_exports,
    job_queries,
    media_queries,
    notification_queries,
    product_queries,
    project_queries,
    property_queries,
    scan_queries,
    scans,
    tools,
)
from models.database import Row
from models.ids import MalformedId, Prefix, decode_id
from models.permissions import Actor, Permission
from models.users import Account, find_accounts
from tasks.crawl import kind as crawl_kind

EXECUTION_PREFIXES: Final = (Prefix.RUN, Prefix.DEPLOYMENT, Prefix.SCAN, Prefix.OCR_JOB, Prefix.EXPORT)
"""Kinds of ids that name executions."""


async def user(actor: Actor, id_text: str, *, to: Permission) -> Account:
    """A user whom the actor may know of."""
    user_id = uuid_of(id_text, Prefix.USER)
    found = (await find_accounts([user_id])).get(user_id) if sees_user(actor, user_id) else None
    if found is None:
        raise missing()
    allow(actor, to)
    return found


async def tool(actor: Actor, id_text: str, *, to: Permission, even_inactive: bool = False) -> Row:
    """A tool that the actor may see.

    Inactive ones are for administrators, and for those who know the id and get told (`even_inactive`) why not.
    """
    tool_id = uuid_of(id_text, Prefix.TOOL)
    row = (await tools.find([tool_id])).get(tool_id)
    if row is None or not sees_tool(actor, is_active=row["tool_is_active"] or even_inactive):
        raise missing()
    allow(actor, to)
    return row


async def job(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A job that the actor may see."""
    job_id = uuid_of(id_text, Prefix.JOB)
    row = (await job_queries.find([job_id])).get(job_id)
    if row is None or not sees_job(actor, row["owner_id"]):
        raise missing()
    allow(actor, to)
    return row


async def project(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A project that the actor may see."""
    project_id = uuid_of(id_text, Prefix.PROJECT)
    row = (await project_queries.find([project_id])).get(project_id)
    if row is None or not sees_project(actor, row["owner_id"], row["id"]):
        raise missing()
    allow(actor, to)
    return row


async def product(actor: Actor, id_text: str, *, to: Permission | None = None) -> Row:
    """A product that the actor may see, which takes no permission: anybody sees the active ones, administrators all."""
    product_id = uuid_of(id_text, Prefix.PRODUCT)
    row = (await product_queries.find([product_id])).get(product_id)
    if row is None or not sees_product(actor, is_active=row["is_active"]):
        raise missing()
    if to is not None:
        allow(actor, to)
    return row


async def listing(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A property, which a crawl has found listed, that the actor may see."""
    property_id = uuid_of(id_text, Prefix.PROPERTY)
    row = (await property_queries.find([property_id])).get(property_id)
    if row is None or not sees_work(actor, row["owner_id"], None):
        raise missing()
    allow(actor, to)
    return row


async def incident(actor: Actor, id_text: str, *, to: Permission | None = None) -> Row:
    """An incident, which everybody may see."""
    incident_id = uuid_of(id_text, Prefix.INCIDENT)
    row = (await incident_queries.find([incident_id])).get(incident_id)
    if row is None:
        raise missing()
    if to is not None:
        allow(actor, to)
    return row


async def deploy_hook(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A deploy hook of a project that the actor may see."""
    row = await project_queries.hook(uuid_of(id_text, Prefix.DEPLOY_HOOK))
    if row is None or not sees_project(actor, row["owner_id"], row["project_id"]):
        raise missing()
    allow(actor, to)
    return row


async def access_token(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """An access token of the actor's own; nobody sees another's, administrators neither."""
    row = await access_token_queries.find(uuid_of(id_text, Prefix.ACCESS_TOKEN))
    if row is None or actor.user_id != row["user_id"]:
        raise missing()
    allow(actor, to)
    return row


async def identity(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """An identity of the actor's own; nobody sees another's, administrators neither."""
    row = await identity_queries.find(uuid_of(id_text, Prefix.IDENTITY))
    if row is None or actor.user_id != row["user_id"]:
        raise missing()
    allow(actor, to)
    return row


async def notifications(actor: Actor, id_texts: Sequence[str], *, to: Permission) -> list[UUID]:
    """Notifications, all of them the actor's own; nobody reads another's, administrators neither."""
    allow(actor, to)
    ids = [uuid_of(id_text, Prefix.NOTIFICATION) for id_text in id_texts]
    if actor.user_id is None or len(await notification_queries.find(actor.user_id, ids)) < len(set(ids)):
        raise missing()
    return ids


async def session(actor: Actor, id_text: str, *, to: Permission) -> UUID:
    """A session of the actor's own, ended or not; nobody ends another's, administrators neither."""
    session_id = uuid_of(id_text, Prefix.SESSION)
    if actor.user_id is None or not await account_queries.owns_session(actor.user_id, session_id):
        raise missing()
    allow(actor, to)
    return session_id


async def visible_execution(actor: Actor, execution_id: UUID, *, to: Permission, kind: str | None = None) -> Row:
    """An execution that the actor may see, of any kind unless one is said."""
    row = (await execution_rows.find([execution_id])).get(execution_id)
    if row is None or not sees_execution(actor, row) or kind not in {None, row["kind"]}:
        raise missing()
    allow(actor, to)
    return row


async def run(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A job run that the actor may see."""
    return await visible_execution(actor, uuid_of(id_text, Prefix.RUN), to=to, kind=crawl_kind.KIND)


async def deployment(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A deployment that the actor may see."""
    return await visible_execution(actor, uuid_of(id_text, Prefix.DEPLOYMENT), to=to, kind=deployments.KIND)


async def scan(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A scan that the actor may see."""
    return await visible_execution(actor, uuid_of(id_text, Prefix.SCAN), to=to, kind=scans.KIND)


async def risk(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A risk of a scan that the actor may see."""
    risk_id = uuid_of(id_text, Prefix.RISK)
    row = (await scan_queries.find_risks([risk_id])).get(risk_id)
    if row is None or not sees_work(actor, row["owner_id"], None):
        raise missing()
    allow(actor, to)
    return row


async def medium(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A medium that the actor may see."""
    media_id = uuid_of(id_text, Prefix.MEDIA)
    row = (await media_queries.find([media_id])).get(media_id)
    if row is None or not sees_work(actor, row["owner_id"], None):
        raise missing()
    allow(actor, to)
    return row


async def ocr_job(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A reading of a document that the actor may see."""
    return await visible_execution(actor, uuid_of(id_text, Prefix.OCR_JOB), to=to, kind=documents.KIND)


async def item_export(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """An export of a run's items that the actor may see."""
    return await visible_execution(actor, uuid_of(id_text, Prefix.EXPORT), to=to, kind=item_exports.KIND)


async def candidate(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A product candidate of a document that the actor may see."""
    candidate_id = uuid_of(id_text, Prefix.CANDIDATE)
    row = (await candidate_queries.find([candidate_id])).get(candidate_id)
    if row is None or not sees_work(actor, row["owner_id"], None):
        raise missing()
    allow(actor, to)
    return row


async def acceptance(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """An act of accepting candidates of a document that the actor may see."""
    acceptance_id = uuid_of(id_text, Prefix.ACCEPTANCE)
    row = (await candidate_queries.find_acceptances([acceptance_id])).get(acceptance_id)
    if row is None or not sees_work(actor, row["owner_id"], None):
        raise missing()
    allow(actor, to)
    return row


async def webhook_endpoint(actor: Actor, id_text: str, *, to: Permission, of_own: bool = False) -> Row:
    """A webhook endpoint that the actor may see; with `of_own` only the actor's own, as its secret is shown."""
    endpoint_id = uuid_of(id_text, Prefix.WEBHOOK_ENDPOINT)
    row = (await endpoint_queries.find([endpoint_id])).get(endpoint_id)
    if row is None or not sees_work(actor, row["owner_id"], None) or (of_own and row["owner_id"] != actor.user_id):
        raise missing()
    allow(actor, to)
    return row


async def webhook_dispatch(actor: Actor, id_text: str, *, to: Permission) -> Row:
    """A dispatch of a webhook endpoint that the actor may see."""
    dispatch_id = uuid_of(id_text, Prefix.WEBHOOK_DISPATCH)
    row = (await endpoint_queries.find_dispatches([dispatch_id])).get(dispatch_id)
    if row is None or not sees_work(actor, row["owner_id"], None):
        raise missing()
    allow(actor, to)
    return row


def execution_uuid(id_text: str) -> UUID:
    """The UUID in an id of an execution of any kind."""
    return uuid_of(id_text, *EXECUTION_PREFIXES)


def sees_tool(actor: Actor, *, is_active: bool) -> bool:
    """Whether an actor may see a tool: whoever is signed in sees the active ones, administrators all."""
    return actor.is_admin or (is_active and not actor.is_anonymous)


def sees_job(actor: Actor, owner_id: UUID) -> bool:
    """Whether an actor may see a job of this owner."""
    return actor.is_admin or (owner_id == actor.user_id and actor.covers(None))


def sees_project(actor: Actor, owner_id: UUID, project_id: UUID) -> bool:
    """Whether an actor may see this project of this owner."""
    return actor.is_admin or (actor.user_id is not None and owner_id == actor.user_id and actor.covers(project_id))


def sees_product(actor: Actor, *, is_active: bool) -> bool:
    """Whether an actor may see a product: everybody sees the active ones, administrators all."""
    return actor.is_admin or is_active


def sees_execution(actor: Actor, row: Row) -> bool:
    """Whether an actor may see the execution in a row of `models.execution_rows`."""
    return sees_work(actor, row["owner_id"], row["project_id"])


def sees_work(actor: Actor, owner_id: UUID, project_id: UUID | None) -> bool:
    """Whether an actor may see what this owner let run, for a project or, as jobs do, for none."""
    return actor.is_admin or (actor.user_id is not None and owner_id == actor.user_id and actor.covers(project_id))


def sees_user(actor: Actor, user_id: UUID) -> bool:
    """Whether an actor may know of a user: oneself, or anybody for administrators."""
    return actor.is_admin or user_id == actor.user_id


def uuid_of(id_text: str, *prefixes: Prefix) -> UUID:
    """The UUID in an id of one of these kinds; raises NotFound for ids of other kinds and for what is no id."""
    try:
        found, value = decode_id(id_text)
    except MalformedId:
        raise missing() from None
    if found not in prefixes:
        raise missing()
    return value


def allow(actor: Actor, to: Permission) -> None:
    """Let the actor pass if their role, and the token they show, grants `to`.

    Raises Unauthorized for nobody, Forbidden for others.
    """
    if actor.is_anonymous:
        raise Unauthorized("Sign in first.")
    if not actor.may(to):
        raise Forbidden("Your role or your access token does not allow this.", permission=to.value)


def missing() -> NotFound:
    """The one answer for what does not exist and for what is not the actor's."""
    return NotFound("There is no such thing, or it is not yours.")
