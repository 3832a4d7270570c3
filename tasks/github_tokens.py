"""Tokens of GitHub for work that no request waits for: an owner's, opened in the worker that needs it.

Invariant: a token that GitHub refused is noted once and not tried again; the owner sees that GitHub has to be connected
anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg
import structlog

from adapters.github import TokenRefused
from adapters.secret_box import CannotOpen, SecretBox
from models import github_queries
from models.github_queries import Executor
from models.sealed import CONNECTION_TOKEN
from settings import Settings

_log = structlog.get_logger("switchyard.github")


@dataclass(frozen=True, slots=True)
class OwnerToken:
    """An owner's token and the connection it belongs to."""

    connection_id: UUID
    token: str = field(repr=False)


async def token_of(pool: asyncpg.Pool, settings: Settings, owner_id: UUID) -> OwnerToken | None:
    """The token of a user's connection; None when there is none that holds."""
    row = await github_queries.connection_with(pool, owner_id)
    if row is None:
        return None
    try:
        token = SecretBox(settings.keyring).open(row["sealed_token"], place=CONNECTION_TOKEN.place(row["id"]))
    except CannotOpen as error:
        _log.error("github_token_does_not_open", connection=str(row["id"]), error=str(error))
        return None
    return OwnerToken(row["id"], token)


@asynccontextmanager
async def noting_refusal(connection: Executor, owner: OwnerToken) -> AsyncIterator[None]:
    """Note when GitHub refuses the token; TokenRefused passes on."""
    try:
        yield
    except TokenRefused:
        await github_queries.mark_refused_with(connection, owner.connection_id)
        raise
