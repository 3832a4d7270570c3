"""Mail to users: asked for in the transaction that makes it true, sent by the outbox.

The address is read when the letter is sent, so whoever changed it gets the letter at the new one, and whoever is gone
or deactivated gets none; only a letter about an account's end carries the address itself. A letter may be sent twice;
both have the same Message-ID.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import asyncpg

from adapters.mail import Mailer, MailRefused, compose, recipient, sender_of
from models import outbox
from settings import Settings
from tasks.outbox import GiveUp, Handler

TOPIC: Final = "mail"


def letter(key: str, *, user_id: UUID, template: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """The payload of a letter for `put(TOPIC, key, …)`; `template` is one of `adapters/mail/templates`."""
    return {"key": key, "userId": str(user_id), "template": template, "variables": dict(variables)}


def farewell(key: str, *, name: str, email: str, template: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """The payload of a letter to an address that no account has any more."""
    return {"key": key, "to": {"name": name, "email": email}, "template": template, "variables": dict(variables)}


async def put_letter(
    connection: asyncpg.Connection, key: str, *, user_id: UUID, template: str, variables: Mapping[str, str]
) -> bool:
    """Ask for a letter in the transaction of a connection; False when one with this key waits already."""
    payload = letter(key, user_id=user_id, template=template, variables=variables)
    return await outbox.put_with(connection, TOPIC, key, payload)


def sending(settings: Settings, pool: asyncpg.Pool, mailer: Mailer) -> Handler:
    """The handler of letters; raises SettingsError when MAIL_FROM is no address."""
    sender = sender_of(settings)

    async def send(payload: Mapping[str, Any]) -> None:
        user = payload.get("to") or await pool.fetchrow(
            "SELECT name, email FROM users WHERE id = $1::uuid AND is_active", UUID(payload["userId"])
        )
        if user is None:
            return
        try:
            message = await asyncio.to_thread(
                compose,
                payload["template"],
                payload["variables"],
                sender=sender,
                to=recipient(user["name"], user["email"]),
                key=payload["key"],
                base_url=settings.base_url,
            )
            await mailer.send(message)
        except MailRefused as error:
            raise GiveUp(error.message) from error

    return send
