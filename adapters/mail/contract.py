"""What every driver of outgoing mail promises, and how its failures are called.

A message that `send` returned for was taken over by the mail server, or lies in the folder. Whether it arrives, nobody
can promise; whether it was sent twice, its Message-ID tells.
"""

from __future__ import annotations

from email.message import EmailMessage
from typing import Protocol

from errors import ServiceUnavailable, SwitchyardError


class TransientMailError(ServiceUnavailable):
    """The mail could not be handed over now; the same mail may pass later."""


class MailRefused(SwitchyardError):
    """This mail will never be taken: its recipient or its content was refused for good."""


class Mailer(Protocol):
    """Hands mail over."""

    async def send(self, message: EmailMessage) -> None:
        """Hand one message over, within half a minute; raises TransientMailError or MailRefused."""
        ...
