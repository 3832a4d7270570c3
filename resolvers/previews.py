"""Previews: a few pages crawled in this process's own child, for somebody who looks at an input.

Nothing is written, so there is no audit event either; what they cost is counted by the rate limits. Few run at once in
a process, and one for each user, because each is a process of a second of start and up to half a gigabyte.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

from adapters.processes import CannotStart
from errors import NotFound, RateLimitExceeded, ServiceUnavailable, Unauthorized, ValidationFailed
from models.permissions import Actor, Permission
from resolvers import access, job_inputs, jobs, limits, sessions
from resolvers.job_inputs import Parts
from tasks.crawl import preview
from tasks.crawl.preview import Preview

RETRY_SECONDS: Final = 5.0

_running: set[UUID] = set()
"""Whose previews this process runs."""


async def run(actor: Actor, *, job_id: str | None, tool_id: str | None, parts: Parts, pages: int) -> Preview:
    """Crawl up to so many pages of a job, with parts of its input changed, or of an input that is no job yet.

    Raises NotFound and ValidationFailed as `jobs.create`, RateLimitExceeded when too many run or too much was asked.
    """
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    if not 1 <= pages <= preview.MAX_PAGES:
        raise ValidationFailed(f"`pages` must be between 1 and {preview.MAX_PAGES}.", path=["input", "pages"])
    if (job_id is None) == (tool_id is None):
        raise ValidationFailed("Give `jobId` or `toolId`, and not both.", path=["input", "toolId"])
    given = job_inputs.canonical(parts)
    if job_id is not None:
        tool = await _job(actor, job_id)
        stored = await jobs.input_of(tool["id"])
    else:
        tool = await jobs.usable_tool(actor, str(tool_id))
        stored = {}
    if not tool["tool_is_active"]:
        raise jobs.inactive()
    spider_input = await jobs.checked_input(tool, job_inputs.merged(given, stored=stored), given)
    with _slot(actor.user_id):
        await limits.count_preview(actor)
        try:
            return await preview.crawl(
                sessions.settings(), spider=tool["tool_spider"], spider_input=spider_input, pages=pages
            )
        except CannotStart as error:
            raise ServiceUnavailable("The preview could not be started; try again.") from error


async def _job(actor: Actor, job_id: str) -> Any:
    try:
        return await access.job(actor, job_id, to=Permission.JOB_RUN)
    except NotFound as error:
        raise NotFound(error.message, path=["input", "jobId"]) from None


@contextmanager
def _slot(user_id: UUID) -> Iterator[None]:
    if user_id in _running:
        raise RateLimitExceeded("A preview of yours is at work; wait for its end.", retry_after_seconds=RETRY_SECONDS)
    if len(_running) >= sessions.settings().preview_slots:
        raise RateLimitExceeded("Too many previews are at work; try again.", retry_after_seconds=RETRY_SECONDS)
    _running.add(user_id)
    try:
        yield
    finally:
        _running.discard(user_id)
