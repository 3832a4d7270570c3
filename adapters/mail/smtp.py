"""Mail over SMTP: one connection per message, protected as the settings say or not at all.

Invariants: with `starttls` and `tls` nothing is said before the certificate is verified, and a server that cannot
encrypt gets no mail; a send ends within its deadline. What a server says about the message or its recipient for good
(5xx to RCPT and DATA, RFC 5321 §4.2.1) is MailRefused; what it says about us (connection, encryption, sign-in, sender)
an operator can put right, so it is TransientMailError like all else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.message import EmailMessage
from typing import Final
from urllib.parse import urlsplit

from aiosmtplib import (
    SMTP,
    SMTPException,
    SMTPHeloError,
    SMTPNotSupported,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPSenderRefused,
)

from adapters.mail.contract import MailRefused, TransientMailError
from settings import Settings, SmtpSecurity

SEND_SECONDS: Final = 25.0
COMMAND_SECONDS: Final = 15.0
_QUIT_SECONDS: Final = 1.0
_MAX_ANSWER_LENGTH: Final = 200


class SmtpMailer:
    """Hands mail to the server of the settings; raises ValueError when they name none."""

    def __init__(
        self,
        settings: Settings,
        *,
        tls_context: ssl.SSLContext | None = None,
        send_seconds: float = SEND_SECONDS,
    ) -> None:
        if settings.smtp_host is None:
            raise ValueError("the settings name no mail server")
        self._settings = settings
        self._host = settings.smtp_host
        self._tls_context = tls_context
        self._send_seconds = send_seconds

    async def send(self, message: EmailMessage) -> None:
        """Hand one message over; raises TransientMailError or MailRefused."""
        await self._connected(lambda client: self._hand_over(client, message))

    async def probe(self) -> None:
        """Connect and sign in as for a message, and send none; raises TransientMailError."""
        await self._connected(None)

    async def _connected(self, work: Callable[[SMTP], Awaitable[None]] | None) -> None:
        if self._tls_context is None and self._settings.smtp_security is not SmtpSecurity.NONE:
            self._tls_context = await asyncio.to_thread(ssl.create_default_context)
        client = self._client()
        try:
            async with asyncio.timeout(self._send_seconds):
                await self._connect(client)
                if work is not None:
                    await work(client)
            # It is the server's now: how the connection ends changes nothing.
            with suppress(SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(_QUIT_SECONDS):
                    await client.quit()
        except TimeoutError as error:
            raise TransientMailError("The mail server took too long.") from error
        except (SMTPException, OSError) as error:
            # What the library's own deadlines and a cut connection raise.
            raise TransientMailError(f"The mail server is away: {type(error).__name__}.") from error
        finally:
            client.close()

    def _client(self) -> SMTP:
        settings = self._settings
        password = settings.smtp_password
        return SMTP(
            hostname=self._host,
            port=settings.smtp_port,
            username=settings.smtp_username,
            password=password.get_secret_value() if password else None,
            # The library would look its own name up, which can take as long as DNS likes.
            local_hostname=urlsplit(settings.base_url).hostname,
            timeout=COMMAND_SECONDS,
            use_tls=settings.smtp_security is SmtpSecurity.TLS,
            # True and not None: None takes what the server offers, and whoever is in between can take that away.
            start_tls=settings.smtp_security is SmtpSecurity.STARTTLS,
            tls_context=self._tls_context,
        )

    async def _connect(self, client: SMTP) -> None:
        try:
            await client.connect()
        except SMTPResponseException as error:
            raise TransientMailError(f"The mail server does not take us: {_said(error)}") from error
        except (SMTPException, ssl.SSLError) as error:
            raise TransientMailError(f"No connection to the mail server as it is set up: {_short(error)}") from error

    async def _hand_over(self, client: SMTP, message: EmailMessage) -> None:
        try:
            await client.send_message(message)
        except SMTPRecipientsRefused as error:
            refusals = error.recipients
            is_final = all(refusal.code >= 500 for refusal in refusals)
            raise (MailRefused if is_final else TransientMailError)(
                f"The recipient was refused: {_said(refusals[0])}"
            ) from error
        except (SMTPHeloError, SMTPSenderRefused) as error:
            raise TransientMailError(f"The mail server does not take us: {_said(error)}") from error
        except SMTPResponseException as error:
            raise (MailRefused if error.code >= 500 else TransientMailError)(
                f"The mail was refused: {_said(error)}"
            ) from error
        except SMTPNotSupported as error:
            raise MailRefused("The mail server does not take addresses with such letters.") from error


def _said(error: SMTPResponseException) -> str:
    return f"{error.code} {_short(error.message)}"


def _short(text: object) -> str:
    return " ".join(str(text).split())[:_MAX_ANSWER_LENGTH]
