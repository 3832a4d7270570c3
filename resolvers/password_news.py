"""The letter about a changed password: what else opens the account still, for an owner who did not change it."""

from __future__ import annotations

from uuid import UUID

from models import account_queries
from models.ids import new_id
from tasks import mail, outbox


async def tell_of_password(user_id: UUID, username: str, *, how: str, sessions: str) -> None:
    """Write to the owner in the unit of work that changes the password; `sessions` is a sentence about those."""
    names = await account_queries.working_tokens(user_id)
    tokens = "\n".join(["Access tokens that still work:", *(f"- {name}" for name in names)])
    key = f"password-changed:{new_id()}"
    variables = {
        "username": username,
        "how": how,
        "sessions": sessions,
        "tokens": tokens if names else "There are no access tokens that work.",
    }
    payload = mail.letter(key, user_id=user_id, template="password_changed", variables=variables)
    await outbox.post(mail.TOPIC, key, payload)
