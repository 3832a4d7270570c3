"""Sessions: a sign-in on one device, from its start to its end.

Invariants: a session belongs to one user, its refresh counter only grows, and a revoked session stays revoked.
Refresh tokens are not stored: a token is the session and a counter, signed, and the counter that the row holds
says which token is the current one. A session is live while it is not revoked, younger than its absolute end,
used within the idle time, and its user is active. All times are PostgreSQL's.
"""

# ruff: noqa: S608 - statements are joined from constants of this module; values travel as parameters

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from tortoise import fields
from tortoise.fields import CASCADE
from tortoise.indexes import Index
from tortoise.migrations.constraints import CheckConstraint
from tortoise.models import Model

from models.database import Row, row, rows
from models.ids import new_id
from models.permissions import Origin
from models.users import ACCOUNT_COLUMNS, Account, User, to_account

ROTATION_GRACE_SECONDS: Final = 10.0


class RevokedReason(StrEnum):
    """Why a session ended before its time."""

    LOGOUT = "LOGOUT"
    REFRESH_REUSED = "REFRESH_REUSED"
    REVOKED = "REVOKED"
    PASSWORD_CHANGED = "PASSWORD_CHANGED"  # noqa: S105 - no password
    TWO_FACTOR_CHANGED = "TWO_FACTOR_CHANGED"
    ACCOUNT_LINKED = "ACCOUNT_LINKED"
    DEACTIVATED = "DEACTIVATED"
    DELETED = "DELETED"


class Session(Model):
    """A sign-in on one device: lives until it is revoked, idle too long or too old."""

    id = fields.UUIDField(primary_key=True, default=new_id)
    user: fields.ForeignKeyRelation[User] = fields.ForeignKeyField("models.User", related_name=False, on_delete=CASCADE)
    refresh_counter = fields.IntField(default=0)
    rotated_at = fields.DatetimeField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    last_used_at = fields.DatetimeField(auto_now_add=True)
    expires_at = fields.DatetimeField()
    revoked_at = fields.DatetimeField(null=True)
    revoked_reason = fields.CharField(max_length=32, null=True)
    ip = fields.CharField(max_length=45, null=True)
    user_agent = fields.CharField(max_length=512, null=True)

    class Meta:
        """Table and indexes."""

        table = "sessions"
        indexes = (Index(fields=("user_id",), name="sessions_user"),)
        constraints = (CheckConstraint(check="refresh_counter >= 0", name="sessions_counter_check"),)


@dataclass(frozen=True, slots=True)
class LiveSession:
    """A session that holds now, its user, and the counter of its current refresh token."""

    id: UUID
    account: Account
    counter: int
    refresh_until: datetime


_COLUMNS = (
    f"s.id AS session_id, s.refresh_counter, least(s.expires_at, s.last_used_at + make_interval(days => $2))"
    f" AS refresh_until, {ACCOUNT_COLUMNS}"
)
_LIVE = (
    "s.revoked_at IS NULL AND s.expires_at > clock_timestamp()"
    " AND s.last_used_at > clock_timestamp() - make_interval(days => $2) AND u.is_active"
)


async def open_session(account: Account, *, idle_days: int, absolute_days: int, origin: Origin) -> LiveSession:
    """Start a session of a user who has just proved who they are."""
    [opened] = await rows(
        "INSERT INTO sessions (id, user_id, refresh_counter, created_at, last_used_at, expires_at, ip, user_agent)"
        " VALUES ($1, $3, 0, now(), now(), now() + make_interval(days => $4), $5, $6)"
        " RETURNING id, least(expires_at, now() + make_interval(days => $2)) AS refresh_until",
        new_id(),
        idle_days,
        account.id,
        absolute_days,
        origin.ip,
        origin.user_agent and origin.user_agent[:512],
    )
    return LiveSession(id=opened["id"], account=account, counter=0, refresh_until=opened["refresh_until"])


async def find_live(session_id: UUID, *, idle_days: int) -> LiveSession | None:
    """A session that holds now, or None."""
    found = await row(
        f"SELECT {_COLUMNS} FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1 AND {_LIVE}",
        session_id,
        idle_days,
    )
    return None if found is None else _to_live(found)


async def rotate(session_id: UUID, counter: int, *, idle_days: int) -> LiveSession | None:
    """Make the next refresh token the current one, if `counter` is current and the session lives.

    One statement: of any number of calls with one counter exactly one gets the session, the others None.
    """
    found = await row(
        "UPDATE sessions s SET refresh_counter = s.refresh_counter + 1, rotated_at = clock_timestamp(),"
        " last_used_at = clock_timestamp() FROM users u"
        f" WHERE s.id = $1 AND s.refresh_counter = $3 AND u.id = s.user_id AND {_LIVE} RETURNING {_COLUMNS}",
        session_id,
        idle_days,
        counter,
    )
    return None if found is None else _to_live(found)


async def find_successor(session_id: UUID, counter: int, *, idle_days: int) -> LiveSession | None:
    """The session, if `counter` was current until at most ten seconds ago; call it inside a unit of work.

    `rotated_at` is the moment when `counter` was replaced, and asking again does not move it, so the grace
    cannot be stretched. The row stays locked: what the caller decides next holds.
    """
    found = await row(
        f"SELECT {_COLUMNS} FROM sessions s JOIN users u ON u.id = s.user_id"
        f" WHERE s.id = $1 AND {_LIVE} AND s.refresh_counter = $3 + 1"
        " AND s.rotated_at > clock_timestamp() - make_interval(secs => $4) FOR UPDATE OF s",
        session_id,
        idle_days,
        counter,
        ROTATION_GRACE_SECONDS,
    )
    return None if found is None else _to_live(found)


async def revoke_if_replaced(session_id: UUID, counter: int) -> UUID | None:
    """End a session for which a replaced refresh token was shown; its user, or None when nothing was to end.

    A counter that the row has not reached yet is no theft: it comes from before a database was restored.
    """
    found = await row(
        "UPDATE sessions SET revoked_at = now(), revoked_reason = $3"
        " WHERE id = $1 AND refresh_counter > $2 AND revoked_at IS NULL RETURNING user_id",
        session_id,
        counter,
        RevokedReason.REFRESH_REUSED.value,
    )
    return None if found is None else found["user_id"]


async def revoke(session_id: UUID, *, reason: RevokedReason) -> UUID | None:
    """End a session; its user, or None when it had ended before."""
    found = await row(
        "UPDATE sessions SET revoked_at = now(), revoked_reason = $2"
        " WHERE id = $1 AND revoked_at IS NULL RETURNING user_id",
        session_id,
        reason.value,
    )
    return None if found is None else found["user_id"]


def _to_live(found: Row) -> LiveSession:
    return LiveSession(
        id=found["session_id"],
        account=to_account(found),
        counter=found["refresh_counter"],
        refresh_until=found["refresh_until"],
    )
