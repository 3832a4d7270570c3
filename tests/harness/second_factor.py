"""People whose second factor is on, as the API switches it on, and the codes that their apps show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pyotp

from models.ids import decode_id
from tests.factories import Person, new_user
from tests.harness.client import GraphQLClient

PASSWORD = "correct horse battery staple"
ENROL = "mutation ($input: EnrollTotpInput!) { it: enrollTotp(input: $input) { secret uri qrCodeSvg } }"
CONFIRM = "mutation ($input: ConfirmTotpInput!) { it: confirmTotp(input: $input) { recoveryCodes revokedSessions } }"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A person whose second factor is on."""

    person: Person
    secret: str
    recovery: list[str]

    @property
    def id(self) -> UUID:
        return decode_id(self.person.id)[1]

    def code(self, *, steps_off: int = 0) -> str:
        return pyotp.TOTP(self.secret).at(int(time.time()) + 30 * steps_off)

    def wrong_code(self) -> str:
        """No code of any step near."""
        near = {self.code(steps_off=steps) for steps in range(-3, 4)}
        return next(
            code for code in ("000000", "111111", "222222", *map(str, range(333333, 333343))) if code not in near
        )


async def confirmed_person(client: GraphQLClient, db: asyncpg.Connection) -> Person:
    person = await new_user(client, password=PASSWORD)
    await db.execute("UPDATE users SET email_verified_at = now() WHERE username = $1", person.username)
    return person


async def guard(client: GraphQLClient, db: asyncpg.Connection, person: Person) -> Guarded:
    """Switch the second factor on, and forget that its first code was used, so that tests need not wait for another."""
    secret = (await client.run(ENROL, {"input": {"password": PASSWORD}}, token=person.token))["it"]["secret"]
    code = pyotp.TOTP(secret).now()
    given = (await client.run(CONFIRM, {"input": {"code": code}}, token=person.token))["it"]
    guarded = Guarded(person, secret, given["recoveryCodes"])
    await forget_step(db, guarded)
    return guarded


async def forget_step(db: asyncpg.Connection, guarded: Guarded) -> None:
    await db.execute("UPDATE users SET totp_last_step = NULL WHERE id = $1", guarded.id)


async def standing(db: asyncpg.Connection, guarded: Guarded) -> tuple[Any, ...]:
    """All that a sign-in or a change of the factor would change."""
    row = await db.fetchrow(
        """SELECT sealed_totp, totp_confirmed_at, totp_last_step, last_login_at, password_hash,
                  (SELECT count(*) FROM sessions WHERE user_id = u.id AND revoked_at IS NULL) AS sessions,
                  (SELECT array_agg(code_hash || coalesce(used_at::text, '') ORDER BY id) FROM recovery_codes
                   WHERE user_id = u.id) AS codes
           FROM users u WHERE id = $1""",
        guarded.id,
    )
    return tuple(row)
