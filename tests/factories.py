"""The least valid objects that tests need, made as users make them: through the API."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from models.permissions import Role
from tests.harness.client import GraphQLClient

REGISTER = """
mutation Register($input: RegisterInput!) {
  register(input: $input) { accessToken refreshToken user { id username email role } }
}
"""
LOGIN = """
mutation Login($input: LoginInput!) {
  login(input: $input) { accessToken refreshToken user { id username email role } }
}
"""


NOBODYS_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
"""An id that nothing has; always the same, because the names of tests must be."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user with a session; `id` is the typed one that clients see."""

    id: str
    email: str
    username: str
    role: Role
    password: str = field(repr=False)
    token: str = field(repr=False)
    refresh_token: str = field(repr=False)


async def new_user(
    client: GraphQLClient, *, role: Role = Role.USER, db: asyncpg.Connection | None = None, password: str | None = None
) -> Person:
    """Register a user nobody has seen before. An administrator needs `db`, because no API makes the first one."""
    username = f"user-{secrets.token_hex(5)}"
    chosen = password or secrets.token_urlsafe(12)
    fields = {"username": username, "email": f"{username}@example.com", "password": chosen, "name": username.title()}
    data = await client.run(REGISTER, {"input": fields})
    if role is Role.USER:
        return _person(data["register"], chosen)
    assert db is not None, "an administrator is made in the database"
    await db.execute("UPDATE users SET role = $2 WHERE username = $1", username, role.value)
    return await sign_in(client, username, chosen)


async def sign_in(client: GraphQLClient, identifier: str, password: str) -> Person:
    """A new session of an existing user, named by e-mail address or username."""
    data = await client.run(LOGIN, {"input": {"identifier": identifier, "password": password}})
    return _person(data["login"], password)


def _person(granted: dict[str, object], password: str) -> Person:
    user = granted["user"]
    assert isinstance(user, dict)
    return Person(
        id=user["id"],
        email=user["email"],
        username=user["username"],
        role=Role(user["role"]),
        password=password,
        token=str(granted["accessToken"]),
        refresh_token=str(granted["refreshToken"]),
    )
