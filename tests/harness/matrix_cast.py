"""Who asks in the authorization matrix: people and their worlds, their scripts, and those whose time is over."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters import events
from models.events import SessionsChanged
from models.ids import Prefix, decode_id, encode_id
from models.permissions import Permission, Role, TokenScope
from tests.factories import NOBODYS_ID, Person, new_user
from tests.harness import matrix
from tests.harness import matrix_world as worlds
from tests.harness.client import GraphQLClient
from tests.harness.executions import Desk, open_desk, settings_of, uuid_of
from tests.harness.matrix_calls import Call, Caller, Witness, ask
from tests.harness.matrix_documents import IdArgument, RootField, root_fields
from tests.harness.matrix_world import Kind, World
from tests.harness.waiting import eventually

GARBAGE: Final = "no-id-at-all"
MALFORMED: Final = ("a foreign id with the prefix of another kind", "garbage")
"""What is wrong with ids that cannot name what an argument takes."""


@dataclass(slots=True)
class Cast:
    """The people of the matrix."""

    client: GraphQLClient
    desk: Desk
    witness: Witness
    owner: World
    other: World
    admin: World
    shared_delivery: str

    async def person(self, role: Role = Role.USER) -> World:
        """Somebody new, who has nothing yet."""
        return World(await _somebody(self.client, self.desk.pool, role), self.desk)

    async def ended(self) -> list[Caller]:
        """Callers who were somebody until now: by a session, by a token, by an account."""
        signed_out, inactive, scripter = [await self.person() for _ in range(3)]
        revoked = await scripter.token(TokenScope.WRITE, revoked=True)
        callers = [
            Caller("a revoked session", signed_out.person.token),
            Caller("a deactivated user's session", inactive.person.token),
            Caller("a deactivated user's token", (await inactive.token(TokenScope.WRITE)).token),
            Caller("a revoked token", revoked.token),
        ]
        # Known to the process before they end: what it remembers must be forgotten.
        for caller in callers[:3]:
            assert not (await ask(self.client, self.call(caller, field("Query.me")))).codes
        await self.desk.pool.execute(
            "UPDATE sessions SET revoked_at = now(), revoked_reason = 'REVOKED' WHERE user_id = $1", signed_out.user_id
        )
        await self.desk.pool.execute("UPDATE users SET is_active = false WHERE id = $1", inactive.user_id)
        for world in (signed_out, inactive):
            await self.desk.tell(SessionsChanged(world.user_id))
        for caller in callers:
            await eventually(partial(self._is_refused, caller), what=f"the end of {caller.name}")
        return callers

    async def _is_refused(self, caller: Caller) -> bool:
        return bool((await ask(self.client, self.call(caller, field("Query.me")))).codes)

    def call(
        self,
        caller: Caller,
        asked: RootField,
        ids: Mapping[str, Any] | None = None,
        *,
        person: Person | None = None,
        about: str = "",
        probe: str | None = None,
        selection: str = "",
    ) -> Call:
        """A call with samples of a person, the owner unless one is named."""
        given = asked.variables(ids or {}, matrix.sample_for(person or self.owner.person))
        return Call(caller, asked, given, about=about, probe=probe, selection=selection)


def field(key: str) -> RootField:
    """A root field by its name in tables."""
    return next(each for each in root_fields() if each.key == key)


def kinds_of(asked: RootField, argument: IdArgument) -> tuple[Kind, ...]:
    """What an argument takes; AssertionError that says what to do where nobody has declared it."""
    kinds = matrix.ID_ARGUMENTS.get((asked.key, argument.path))
    assert kinds, (
        f"{asked.key} takes an id in {argument.path!r} and nobody has said of what: add"
        f' ("{asked.key}", "{argument.path}") to ID_ARGUMENTS in tests/harness/matrix.py'
    )
    return kinds


def together(asked: RootField, chosen: str = "") -> list[IdArgument]:
    """The id arguments of a field that can be given at once: of alternatives `chosen`, or the first."""
    alternatives = matrix.ALTERNATIVES.get(asked.key, ())
    one = chosen if chosen in alternatives else next(iter(alternatives), "")
    return [each for each in asked.id_arguments if each.path not in alternatives or each.path == one]


def ids_of(asked: RootField, world: World, *, required_only: bool = False, chosen: str = "") -> dict[str, Any]:
    """For each id argument of a field, the object of a world that it takes first."""
    return {
        argument.path: argument.given(world.ids[kinds_of(asked, argument)[0]])
        for argument in together(asked, chosen)
        if not (required_only and (asked.key, argument.path) in matrix.QUIET)
    }


def like_nothing(kind: Kind, taken: Sequence[Kind], foreign: str) -> dict[str, str]:
    """Ids that name nothing of a kind where an argument takes these, by what is wrong with them."""
    prefixes = {each.prefix for each in taken}
    others = [prefix for prefix in Prefix if prefix not in prefixes]
    found = {"an id of nothing": encode_id(kind.prefix, NOBODYS_ID)}
    if others:  # where every kind is taken there is no wrong prefix
        found[MALFORMED[0]] = encode_id(others[0], decode_id(foreign)[1])
    found[MALFORMED[1]] = GARBAGE
    return found


def session(name: str, world: World) -> Caller:
    """A person as they are signed in."""
    return Caller(name, world.person.token)


async def script(name: str, world: World, scope: TokenScope, *projects: str) -> Caller:
    """A person's script."""
    return Caller(name, (await world.token(scope, *projects)).token)


@asynccontextmanager
async def open_cast(client: GraphQLClient, environment: Mapping[str, str]) -> AsyncIterator[Cast]:
    """An owner, another user and an administrator, each with one object of every kind, in a module's database.

    Owner and other share a repository, as people of one team do: one delivery had an effect on a project of each. And
    the other has a notification about what is the owner's, as if it had been theirs once.
    """
    settings = settings_of(environment)
    redis = events.open_redis(settings)
    try:
        async with open_desk(environment) as desk:
            people = [await _somebody(client, desk.pool, role) for role in (Role.USER, Role.USER, Role.ADMIN)]
            owner, other, admin = [await World(person, desk).fill() for person in people]
            shared = await worlds.insert_delivery(
                desk.pool,
                "a push",
                *[(_key(world, worlds.PROJECT), None, f"effect {world.mark}") for world in (owner, other)],
            )
            await worlds.insert_notification(other, _key(owner, worlds.DEPLOYMENT))
            yield Cast(
                client=client,
                desk=desk,
                witness=Witness(client, desk.pool, redis, settings.redis_namespace),
                owner=owner,
                other=other,
                admin=admin,
                shared_delivery=encode_id(Prefix.WEBHOOK_DELIVERY, shared),
            )
    finally:
        await redis.aclose()


async def _somebody(client: GraphQLClient, pool: asyncpg.Pool, role: Role) -> Person:
    person = await new_user(client)
    # A second factor is for those whose address is known to be theirs.
    await pool.execute("UPDATE users SET email_verified_at = now() WHERE id = $1", uuid_of(person))
    if role is Role.ADMIN:
        # The session was not asked about yet, so no process remembers another role.
        await pool.execute("UPDATE users SET role = 'ADMIN' WHERE id = $1", uuid_of(person))
        person = replace(person, role=role)
    return person


def _key(world: World, kind: Kind) -> UUID:
    return decode_id(world.ids[kind])[1]


def lacking(permission: Permission | None, scopes: Mapping[Permission, TokenScope | None]) -> list[TokenScope]:
    """The scopes that do not grant a permission."""
    needed = None if permission is None else scopes.get(permission)
    return [scope for scope in TokenScope if needed not in scope.included]
