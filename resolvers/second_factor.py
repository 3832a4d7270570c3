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

from adapters.events import publish
from errors import Conflict, Unauthorized, ValidationFailed
from models import account_queries, second_factor_queries
from models.audit import AuditEvent
from models.database import Row
from models.events import SessionsChanged
from models.ids import new_id
from models.permissions import Actor, Origin, Permission
from models.sealed import TOTP_SECRET
from models.sessions import RevokedReason
from models.transaction import unit_of_work
from resolvers import access, limits, proof, sessions
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
    return await _check(user_id, code, Actor(origin=origin), act=act, field=field)


async def spend(proved: Proof, *, field: str | None = None) -> None:
    """Use up what was proved, inside the unit of work that does what it was asked for.

    Raises like `check` when somebody else was faster, or when the factor has changed since. A letter tells the owner
    of a recovery code that was used.
    """
    await _spend(proved, field)
    if proved.factor is Factor.RECOVERY_CODE:
        await _tell_of_recovery_code(proved.user_id)


async def note_refusal(user_id: UUID, refusal: Unauthorized, *, origin: Origin, act: str) -> None:
    """Write down that `spend` refused, after the unit of work that it undid."""
    await _note(Actor(origin=origin), user_id, act, reason=str(refusal.details["reason"]))


# -- by whose account it is


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A secret that waits to be confirmed, in the three forms in which apps take it."""

    secret: str
    uri: str
    qr_code_svg: str


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Recovery codes as people read them, which nobody can read again, and how many sessions have ended."""

    recovery_codes: list[str]
    revoked_sessions: int


async def enrol(actor: Actor, password: str | None) -> Enrolment:
    """A new secret for the actor's account, which counts once it is confirmed; one that waited before is void.

    Raises ValidationFailed and RateLimitExceeded like `proof.prove_again`, and Conflict when the address is not
    confirmed or a factor is on.
    """
    own = await proof.prove_again(actor, password, act="enrollTotp")
    user_id: UUID = own["id"]
    if own["email_verified_at"] is None:
        raise Conflict("Confirm your e-mail address first.", reason="emailUnconfirmed")
    secret = codes.new_secret()
    async with unit_of_work():
        sealed = sessions.secret_box().seal(secret, place=TOTP_SECRET.place(user_id))
        if not await second_factor_queries.enrol(user_id, sealed):
            raise _on_already()
        await AuditEvent.record(actor, "enrollTotp", target_type="user", target_id=user_id)
    issuer = codes.issuer_of(sessions.settings().base_url)
    uri = codes.enrolment_uri(secret, account=own["username"], issuer=issuer)
    return Enrolment(secret, uri, codes.qr_code(uri))


async def confirm(actor: Actor, code: str) -> Confirmed:
    """Switch the waiting factor on by its first code, and end the actor's other sessions.

    Raises ValidationFailed with the path `code`, RateLimitExceeded after five wrong ones in fifteen minutes, and
    Conflict when none waits, one is on, or another secret took the place of the one that was checked.
    """
    found = await _own(actor)
    user_id: UUID = found["id"]
    if found["totp_confirmed_at"] is not None:
        raise _on_already()
    if found["sealed_totp"] is None:
        raise Conflict("Ask for a secret first, with enrollTotp.", reason="notEnrolled")
    async with limits.second_factor(user_id):
        step = _step_of(found, code)
        if step is None:
            await _note(actor, user_id, "confirmTotp", reason="totpWrong")
            raise _wrong("code")
    texts = codes.new_recovery_codes()
    hashes = await _hashed(texts)
    async with unit_of_work():
        if not await second_factor_queries.confirm(user_id, sealed_secret=found["sealed_totp"], step=step):
            raise Conflict("Your second factor has been changed meanwhile; nothing was done.", reason="changed")
        await second_factor_queries.replace_recovery_codes(user_id, hashes)
        ended = await _end_sessions(actor, user_id, "confirmTotp", but=actor.session_id)
        await _tell(
            user_id,
            what="Signing in now asks for a code of your app. All sessions have ended but the one in which that was "
            "switched on.",
            then="Keep the recovery codes where you find them without your phone. Each works once.",
        )
    sessions.forget(user_id)
    return Confirmed([codes.shown(text) for text in texts], ended)


async def disable(actor: Actor, *, password: str | None, code: str) -> int:
    """Switch the factor off by one of its codes, and end the actor's other sessions; how many those were.

    Raises ValidationFailed and RateLimitExceeded like `proof.prove_again` and `check`, and Conflict when none is on.
    """
    proved = await _proved_twice(actor, password, code, act="disableTotp")
    async with unit_of_work():
        await _spend(proved, "code")
        await second_factor_queries.remove(proved.user_id)
        ended = await _end_sessions(actor, proved.user_id, "disableTotp", but=actor.session_id, proved=proved)
        await _tell(
            proved.user_id,
            what="Signing in does not ask for a code any more. All sessions have ended but the one in which that was "
            "switched off.",
            then="The recovery codes that you have work no longer.",
        )
    sessions.forget(proved.user_id)
    return ended


async def renew_recovery_codes(actor: Actor, *, password: str | None, code: str) -> list[str]:
    """Ten new recovery codes in the place of all that the actor has; raises like `disable`."""
    proved = await _proved_twice(actor, password, code, act="renewRecoveryCodes")
    texts = codes.new_recovery_codes()
    hashes = await _hashed(texts)
    async with unit_of_work():
        await _spend(proved, "code")
        await second_factor_queries.replace_recovery_codes(proved.user_id, hashes)
        await AuditEvent.record(
            actor,
            "renewRecoveryCodes",
            target_type="user",
            target_id=proved.user_id,
            details={"factor": str(proved.factor)},
        )
        await _tell(
            proved.user_id,
            what="New recovery codes were made.",
            then="The recovery codes that you had before work no longer.",
        )
    return [codes.shown(text) for text in texts]


async def codes_left(user_ids: list[UUID]) -> dict[UUID, int]:
    """How many recovery codes are left to those of the users who have a second factor."""
    return await second_factor_queries.count_left(user_ids)


# -- by administrators


async def reset(actor: Actor, id_text: str) -> int:
    """Take the factor of somebody who lost it away, and end their sessions; how many those were.

    Raises NotFound like `access.user`, and Conflict for one's own and when there is none.
    """
    account = await access.user(actor, id_text, to=Permission.USER_WRITE)
    if account.id == actor.user_id:
        raise Conflict("Your own second factor is taken away with disableTotp.", reason="ownAccount")
    async with unit_of_work():
        if not await second_factor_queries.remove(account.id):
            raise _off()
        ended = await _end_sessions(actor, account.id, "resetTwoFactor")
        await _tell(
            account.id,
            what="An administrator took your second factor away. You are signed out everywhere.",
            then="Signing in asks for your password alone until you switch a second factor on again.",
        )
    sessions.forget(account.id)
    return ended


# -- inside


async def _check(user_id: UUID, code: str | None, actor: Actor, *, act: str, field: str | None) -> Proof:
    found = await second_factor_queries.find(user_id)
    if found is None or found["totp_confirmed_at"] is None:
        return Proof(user_id)
    if code is None or not code.strip():
        await _note(actor, user_id, act, reason="totpRequired")
        raise _required(field)
    async with limits.second_factor(user_id):
        proved = await _proof_of(found, code)
        if proved is None:
            await _note(actor, user_id, act, reason="totpWrong")
            raise _wrong(field)
    return proved


async def _proof_of(found: Row, code: str) -> Proof | None:
    user_id, confirmed_at = found["id"], found["totp_confirmed_at"]
    typed = codes.typed_recovery(code)
    if typed is None:
        step = _step_of(found, code)
        return None if step is None else Proof(user_id, confirmed_at, step=step)
    known = await second_factor_queries.find_recovery_code(user_id, codes.prefix_of(typed))
    if known is None:
        # Or the time of an answer would tell which codes begin as one that was tried.
        await sessions.passwords().verify_nothing(typed)
        return None
    if not await sessions.passwords().verify(known["code_hash"], typed):
        return None
    return Proof(user_id, confirmed_at, recovery_code_id=known["id"])


def _step_of(found: Row, code: str) -> int | None:
    """The step whose code was typed, unless it or a later one was used."""
    digits = codes.typed_totp(code)
    if digits is None:
        return None
    secret = sessions.secret_box().open(found["sealed_totp"], place=TOTP_SECRET.place(found["id"]))
    step = codes.matching_step(secret, digits, now_seconds=found["now_seconds"])
    last = found["totp_last_step"]
    return None if step is None or (last is not None and step <= last) else step


async def _spend(proved: Proof, field: str | None) -> None:
    if proved.confirmed_at is None:
        if not await second_factor_queries.has_none(proved.user_id):
            raise _required(field)
    elif not await _is_spent_now(proved, proved.confirmed_at):
        raise _wrong(field)


async def _is_spent_now(proved: Proof, confirmed_at: datetime) -> bool:
    if proved.step is not None:
        return await second_factor_queries.spend_step(proved.user_id, proved.step, confirmed_at=confirmed_at)
    if proved.recovery_code_id is not None:
        return await second_factor_queries.spend_recovery_code(
            proved.user_id, proved.recovery_code_id, confirmed_at=confirmed_at
        )
    return False


async def _own(actor: Actor) -> Row:
    found = None if actor.user_id is None else await second_factor_queries.find(actor.user_id)
    if found is None:
        raise Unauthorized("Sign in first.")
    return found


async def _proved_twice(actor: Actor, password: str | None, code: str, *, act: str) -> Proof:
    own = await proof.prove_again(actor, password, act=act)
    proved = await _check(own["id"], code, actor, act=act, field="code")
    if proved.factor is None:
        raise _off()
    return proved


async def _hashed(texts: list[str]) -> list[tuple[str, str]]:
    """Prefix and hash of each; one at a time, so that whoever signs in meanwhile waits for one hash and not for ten."""
    return [(codes.prefix_of(text), await sessions.passwords().hash(text)) for text in texts]


async def _end_sessions(
    actor: Actor, user_id: UUID, act: str, *, but: UUID | None = None, proved: Proof | None = None
) -> int:
    """End a user's sessions, and write down the act that ended them."""
    ended = await account_queries.revoke_sessions(user_id, reason=RevokedReason.TWO_FACTOR_CHANGED, but=but)
    used = {} if proved is None else {"factor": str(proved.factor)}
    await AuditEvent.record(
        actor, act, target_type="user", target_id=user_id, details={"revokedSessions": ended, **used}
    )
    await publish(SessionsChanged(user_id))
    return ended


def _on_already() -> Conflict:
    return Conflict("Your account has a second factor already.", reason="enrolledAlready")


def _off() -> Conflict:
    return Conflict("The account has no second factor.", reason="notEnrolled")


def _required(field: str | None) -> Unauthorized | ValidationFailed:
    text = "Give the code that your app shows, or one of your recovery codes."
    if field is not None:
        return ValidationFailed(text, path=[field], reason="totpRequired")
    return limits.MoreAsked(text, reason="totpRequired")


def _wrong(field: str | None) -> Unauthorized | ValidationFailed:
    if field is not None:
        return ValidationFailed(_WRONG, path=[field], reason="totpWrong")
    return Unauthorized(_WRONG, reason="totpWrong")


async def _note(actor: Actor, user_id: UUID, act: str, *, reason: str) -> None:
    async with unit_of_work():
        await AuditEvent.record(
            actor,
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
