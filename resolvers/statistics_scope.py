"""Whose numbers an actor gets: their own, everybody's for administrators, certain projects' with a token for those."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from errors import Unauthorized
from models.analytics_queries import Scope
from models.permissions import Actor, Permission
from resolvers import access


@dataclass(frozen=True, slots=True)
class Whose:
    """A scope, and whose changes make its views old; None for everybody's."""

    scope: Scope
    owner_id: UUID | None


async def whose(actor: Actor, *, mine: bool = False, project_id: str | None = None) -> Whose:
    """The numbers of a project, else of all that the actor sees, else, with `mine`, of what is the actor's own.

    Raises NotFound for a project that the actor does not see.
    """
    access.allow(actor, Permission.ANALYTICS_READ)
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    if project_id is not None:
        project = await access.project(actor, project_id, to=Permission.ANALYTICS_READ)
        return Whose(Scope(project_ids=frozenset({project["id"]})), project["owner_id"])
    if actor.project_ids is not None:
        return Whose(Scope(owner_id=actor.user_id, project_ids=actor.project_ids), actor.user_id)
    if actor.is_admin and not mine:
        return Whose(Scope(), None)
    return Whose(Scope(owner_id=actor.user_id), actor.user_id)
