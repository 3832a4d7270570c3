"""The end of an account: by its owner, who proves who they are again, or by an administrator.

Invariants: from the commit on the account opens nothing, names nobody and shows no site; its address and its username
are free; an active administrator is always left. What it had is removed later (`tasks/account_purge.py`).
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from adapters import events
from errors import Unauthorized, ValidationFailed
from models import github_queries, user_queries
from models.audit import AuditEvent
from models.events import SessionsChanged, SiteChanged
from models.ids import new_id
from models.permissions import Actor, Permission
from models.transaction import after_commit, unit_of_work
from resolvers import access, github, proof, second_factor, sessions
from resolvers.second_factor import Proof
from resolvers.user_administration import lock_target, stop_work
from tasks import account_purge, mail, outbox

_OWN: Final = "deleteAccount"


async def delete_own(actor: Actor, *, password: str | None, totp_code: str | None) -> None:
    """End the actor's account.

    Raises ValidationFailed with the path of what does not prove them, RateLimitExceeded after too many tries, Conflict
    when no active administrator would be left.
    """
    if actor.user_id is None:
        raise Unauthorized("Sign in first.")
    await proof.prove_again(actor, password, act=_OWN)
    code = await second_factor.check(actor.user_id, totp_code, origin=actor.origin, act=_OWN, field="totpCode")
    await _end(actor, actor.user_id, action=_OWN, how="as you asked", code=code)


async def delete_user(actor: Actor, id_text: str) -> None:
    """End another's account; raises Conflict like `delete_own`, ValidationFailed for one's own, which takes proof."""
    account = await access.user(actor, id_text, to=Permission.USER_WRITE)
    if account.id == actor.user_id:
        raise ValidationFailed("This is your own account; use deleteAccount, which asks for proof.", path=["id"])
    await _end(actor, account.id, action="deleteUser", how="by an administrator")


async def delete_quietly(user_id: UUID, *, action: str, purge_in_seconds: float) -> None:
    """End an account whose address nobody reads, for an operator: without a letter, and its purge begins later.

    Whoever calls does the purge until then. Raises Conflict like `delete_own`.
    """
    await _end(Actor(user_id=user_id), user_id, action=action, how=None, purge_in_seconds=purge_in_seconds)


async def _end(
    actor: Actor,
    user_id: UUID,
    *,
    action: str,
    how: str | None,
    code: Proof | None = None,
    purge_in_seconds: float = 0,
) -> None:
    async with unit_of_work():
        target = await lock_target(actor, user_id, is_lost=True)
        if code is not None:
            if not target["is_active"]:
                raise access.missing()
            await second_factor.spend(code, field="totpCode")
        connection = await github_queries.delete_connection(user_id)
        await stop_work(user_id, by=actor.user_id)
        await user_queries.delete_belongings(user_id, email=target["email"])
        await user_queries.anonymise(user_id)
        if how is not None:
            key = f"account-deleted:{new_id()}"
            letter = mail.farewell(
                key,
                name=target["name"],
                email=target["email"],
                template="account_deleted",
                variables={"username": target["username"], "how": how},
            )
            await outbox.post(mail.TOPIC, key, letter)
        purge = {"userId": str(user_id)}
        await outbox.post(account_purge.TOPIC, str(user_id), purge, due_in_seconds=purge_in_seconds)
        await AuditEvent.record(actor, action, target_type="user", target_id=user_id)
        await events.publish(SessionsChanged(user_id))
        for project_id in await user_queries.project_ids(user_id):
            await events.publish(SiteChanged(project_id))
        if connection is not None:
            after_commit(lambda: github.revoke(connection))
    sessions.forget(user_id)
