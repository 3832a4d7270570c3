"""Letters with a link that opens an account: asked for by address, whoever has it; the link is made when one is sent.

Invariants: whoever asks does the same work for any address, because only the worker looks whether it has an account;
the token of a link is in the letter and nowhere else; a letter that is sent twice has another link, the older one is
void, and another Message-ID, as readers drop one that they have seen. The topic is not `mail`, so that a flood of
requests holds no other mail back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import asyncpg

from adapters.mail import Mailer, MailRefused, compose, recipient, sender_of
from models import account_queries
from models.credentials import LinkPurpose
from settings import Settings
from tasks import outbox
from tasks.outbox import GiveUp, Handler

TOPIC: Final = "account.letter"

VERIFY_PATH: Final = "/account/verify"
RESET_PATH: Final = "/account/reset"
RESET_SECONDS: Final = 3_600.0
VERIFY_SECONDS: Final = 86_400.0


class Letter(StrEnum):
    """What a letter is about; each is a template in `adapters/mail/templates`."""

    CONFIRM_EMAIL = "confirm_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105 - no password
    REGISTRATION_TAKEN = "registration_taken"


@dataclass(frozen=True, slots=True)
class _Link:
    purpose: LinkPurpose
    path: str
    life_seconds: float


_VERIFY: Final = _Link(LinkPurpose.VERIFY_EMAIL, VERIFY_PATH, VERIFY_SECONDS)
_RESET: Final = _Link(LinkPurpose.RESET_PASSWORD, RESET_PATH, RESET_SECONDS)
# Who opened an account under somebody's address may know its password: its owner gets a link to set another.
_LINKS: Final = {Letter.CONFIRM_EMAIL: _VERIFY, Letter.RESET_PASSWORD: _RESET, Letter.REGISTRATION_TAKEN: _RESET}


async def ask(letter: Letter, email: str, *, key: str) -> None:
    """Ask for a letter to an address in the current unit of work; one that waits already, by `key`, is enough."""
    await outbox.post(TOPIC, f"{letter.value}:{key}", {"letter": letter.value, "email": email})


def sending(settings: Settings, pool: asyncpg.Pool, mailer: Mailer) -> Handler:
    """The handler of these letters; raises SettingsError when MAIL_FROM is no address."""
    sender = sender_of(settings)
    address = (settings.app_url or settings.base_url).rstrip("/")

    async def send(payload: Mapping[str, Any]) -> None:
        letter = Letter(payload["letter"])
        link = _LINKS[letter]
        async with pool.acquire() as connection, connection.transaction():
            user = await account_queries.find_by_email(connection, payload["email"])
            if user is None or (letter is Letter.CONFIRM_EMAIL and user["email_verified_at"] is not None):
                return
            token = await account_queries.renew_link(
                connection, user["id"], link.purpose, email=user["email"], life_seconds=link.life_seconds
            )
        try:
            message = await asyncio.to_thread(
                compose,
                letter.value,
                {"username": user["username"], "url": f"{address}{link.path}?token={token}"},
                sender=sender,
                to=recipient(user["name"], user["email"]),
                key=account_queries.link_hash(token),
                base_url=settings.base_url,
            )
            await mailer.send(message)
        except MailRefused as error:
            raise GiveUp(error.message) from error

    return send
