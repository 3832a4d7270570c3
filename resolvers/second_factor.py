"""The second factor of an account: asked for after the first, switched on and off, and what helps when it is lost.

Invariants: a code opens something once, whoever races for it; what was checked is spent in the transaction that does
what it was checked for; a missing code is no failed attempt, a wrong one is, and is in the audit trail. Whoever signs
somebody in, or lets them do what needs proof, calls `check` before its unit of work and `spend` inside of it:

    proof = await second_factor.check(user_id, code, origin=origin, act="login")
    async with unit_of_work():
        await second_factor.spend(proof)

What codes look like is in `resolvers/second_factor_codes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from errors import Unauthorized, ValidationFailed
from models import second_factor_queries
from models.audit import AuditEvent
from models.database import Row
from models.ids import new_id
from models.permissions import Actor, Origin
from models.sealed import TOTP_SECRET
from models.transaction import unit_of_work
from resolvers import limits, sessions
from resolvers import second_factor_codes as codes
from tasks import mail, outbox

_WRONG: Final = "The code is wrong, or was used already."


class Factor(StrEnum):
    """What somebody proved themselves with beside a password."""

    TOTP = "totp"
    RECOVERY_CODE = "recoveryCode"


@dataclass(frozen=True, slots=True)
class Proof:
    """What was checked and is still to be spent; all but the user is None when the account has no second factor."""

    user_id: UUID
    confirmed_at: datetime | None = None
    step: int | None = None
    recovery_code_id: UUID | None = None

    @property
    def factor(self) -> Factor | None:
        """What was used."""
        if self.step is not None:
            return Factor.TOTP
        return None if self.recovery_code_id is None else Factor.RECOVERY_CODE


async def check(user_id: UUID, code: str | None, *, origin: Origin, act: str, field: str | None = None) -> Proof:
    """What a code proves of an account whose first factor was right; call it before the unit of work.

    An account without a second factor needs no code and gets a proof of that, which `spend` holds it to. `act` is the
    field that asks, for the audit trail. Raises Unauthorized with the reason `totpRequired` without a code and
    `totpWrong` with a wrong one, and RateLimitExceeded after five of those in fifteen minutes. With `field` both are
    ValidationFailed with that path: for somebody who is signed in, whose session is not in doubt.
    """
    found = await second_factor_queries.find(user_id)
    if found is None or found["totp_confirmed_at"] is None:
        return Proof(user_id)
    if code is None or not code.strip():
        await _note(user_id, act, origin, reason="totpRequired")
        raise _required(field)
    async with limits.second_factor(user_id):
        proof = await _proof_of(found, code)
        if proof is None:
            await _note(user_id, act, origin, reason="totpWrong")
            raise _wrong(field)
    return proof


async def spend(proof: Proof, *, field: str | None = None) -> None:
    """Use up what was proved, inside the unit of work that does what it was asked for.

    Raises like `check` when somebody else was faster, or when the factor has changed since. A letter tells the owner
    of a recovery code that was used.
    """
    if proof.confirmed_at is None:
        if not await second_factor_queries.has_none(proof.user_id):
            raise _required(field)
    elif not await _is_spent_now(proof, proof.confirmed_at):
        raise _wrong(field)
    if proof.factor is Factor.RECOVERY_CODE:
        await _tell_of_recovery_code(proof.user_id)


# -- inside


async def _proof_of(found: Row, code: str) -> Proof | None:
    user_id, confirmed_at = found["id"], found["totp_confirmed_at"]
    digits = codes.typed_totp(code)
    if digits is not None:
        step = codes.matching_step(_secret_of(found), digits, now_seconds=found["now_seconds"])
        last = found["totp_last_step"]
        if step is None or (last is not None and step <= last):
            return None
        return Proof(user_id, confirmed_at, step=step)
    typed = codes.typed_recovery(code)
    if typed is None:
        return None
    known = await second_factor_queries.find_recovery_code(user_id, codes.prefix_of(typed))
    if known is None:
        # Or the time of an answer would tell which codes begin as one that was tried.
        await sessions.passwords().verify_nothing(typed)
        return None
    if not await sessions.passwords().verify(known["code_hash"], typed):
        return None
    return Proof(user_id, confirmed_at, recovery_code_id=known["id"])


async def _is_spent_now(proof: Proof, confirmed_at: datetime) -> bool:
    if proof.step is not None:
        return await second_factor_queries.spend_step(proof.user_id, proof.step, confirmed_at=confirmed_at)
    if proof.recovery_code_id is not None:
        return await second_factor_queries.spend_recovery_code(
            proof.user_id, proof.recovery_code_id, confirmed_at=confirmed_at
        )
    return False


def _secret_of(found: Row) -> str:
    return sessions.secret_box().open(found["sealed_totp"], place=TOTP_SECRET.place(found["id"]))


def _required(field: str | None) -> Unauthorized | ValidationFailed:
    text = "Give the code that your app shows, or one of your recovery codes."
    if field is not None:
        return ValidationFailed(text, path=[field], reason="totpRequired")
    return limits.MoreAsked(text, reason="totpRequired")


def _wrong(field: str | None) -> Unauthorized | ValidationFailed:
    if field is not None:
        return ValidationFailed(_WRONG, path=[field], reason="totpWrong")
    return Unauthorized(_WRONG, reason="totpWrong")


async def _note(user_id: UUID, act: str, origin: Origin, *, reason: str) -> None:
    async with unit_of_work():
        await AuditEvent.record(
            Actor(origin=origin),
            act,
            target_type="user",
            target_id=user_id,
            outcome=Unauthorized.code.value,
            details={"reason": reason},
        )


async def _tell_of_recovery_code(user_id: UUID) -> None:
    left = (await second_factor_queries.count_left([user_id])).get(user_id, 0)
    await _tell(
        user_id,
        what="A recovery code was used up in place of the code of an app.",
        then=f"{left} of your recovery codes are left. New ones take the place of all of them.",
    )


async def _tell(user_id: UUID, *, what: str, then: str) -> None:
    """Write to the owner in the unit of work that makes it true; both are sentences."""
    found = await second_factor_queries.find(user_id)
    if found is None:
        return
    key = f"two-factor-changed:{new_id()}"
    variables = {"username": found["username"], "what": what, "then": then}
    payload = mail.letter(key, user_id=user_id, template="two_factor_changed", variables=variables)
    await outbox.post(mail.TOPIC, key, payload)
