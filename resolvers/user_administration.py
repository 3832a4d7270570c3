"""Users as administrators keep them: who there is, what they may, whether their accounts open.

Invariants: an active administrator is always left; what is so already is written down by nobody; an account that is
switched off has no session and nothing that waits or works. Ending an account is `resolvers/account_deletion.py`'s.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from adapters import events
from errors import Conflict, Forbidden
from models import account_queries, execution_commands, user_queries
from models.audit import AuditEvent
from models.database import Row
from models.events import CancelRequested, ExecutionChanged, SessionsChanged
from models.permissions import Actor, Permission, Role
from models.sessions import RevokedReason
from models.transaction import unit_of_work
from models.users import Account, to_account
from resolvers import access, sessions


async def page(**conditions: Any) -> list[Row]:
    """A page of all users; conditions as `models.user_queries.visible` takes them."""
    return await user_queries.visible(**conditions)


async def count(**conditions: Any) -> int:
    """How many there are in all."""
    return await user_queries.count(**conditions)


async def set_role(actor: Actor, id_text: str, role: Role) -> Account:
    """Give a user a role; raises Conflict when no active administrator would be left."""
    account = await access.user(actor, id_text, to=Permission.USER_WRITE)
    async with unit_of_work():
        target = await lock_target(actor, account.id, is_lost=role is not Role.ADMIN)
        if target["role"] != role:
            await user_queries.set_role(account.id, role)
            await _record(actor, "setUserRole", account.id, before=target["role"], after=role.value)
            await events.publish(SessionsChanged(account.id))
    sessions.forget(account.id)
    return await access.user(actor, id_text, to=Permission.USER_READ)


async def set_active(actor: Actor, id_text: str, is_active: bool) -> Account:
    """Switch an account on or off; raises Conflict when no active administrator would be left.

    Off ends its sessions and what works for it, and its access tokens are refused while it lasts; sites stay.
    """
    account = await access.user(actor, id_text, to=Permission.USER_WRITE)
    async with unit_of_work():
        target = await lock_target(actor, account.id, is_lost=not is_active)
        if target["is_active"] != is_active:
            await user_queries.set_active(account.id, is_active)
            if not is_active:
                await account_queries.revoke_sessions(account.id, reason=RevokedReason.DEACTIVATED)
                await stop_work(account.id, by=actor.user_id)
            await _record(actor, "setUserActive", account.id, before=target["is_active"], after=is_active)
            await events.publish(SessionsChanged(account.id))
    sessions.forget(account.id)
    return account


async def lock_target(actor: Actor, user_id: UUID, *, is_lost: bool) -> Row:
    """An account as it is now and stays until the unit of work ends, which may take its administrator's rights.

    Raises NotFound when it is gone, Conflict when nobody would administer the installation, and Forbidden when the
    actor, acting on another, is no administrator any more.
    """
    target, admins = await user_queries.lock_with_admins(user_id)
    if target is None:
        raise access.missing()
    if is_lost and admins == {user_id}:
        raise Conflict("This is the last active administrator; make another one first.", reason="lastAdmin")
    if actor.user_id not in admins and actor.user_id != user_id:
        raise Forbidden("You are no administrator any more.", permission=Permission.USER_WRITE.value)
    return target


async def stop_work(user_id: UUID, *, by: UUID | None) -> None:
    """Cancel what waits for a user, and ask what runs to stop, in the current unit of work."""
    for row in await execution_commands.request_cancel_all(user_id, by=by):
        await events.publish(CancelRequested(row["id"]))
        await events.publish(ExecutionChanged(row["id"], user_id))


def account_of(row: Row) -> Account:
    """The account in a row of `page`."""
    return to_account(row)


async def _record(actor: Actor, action: str, user_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="user", target_id=user_id, details=details)
