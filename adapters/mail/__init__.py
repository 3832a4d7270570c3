"""Mail: letters from templates, handed to a mail server or, where there is none, to a folder.

`open_mailer` gives the driver that the settings name; the promises are in `contract.py`, how a letter is made in
`letters.py`. Who gets which letter when is decided above.
"""

from __future__ import annotations

from adapters.mail.contract import Mailer, MailRefused, TransientMailError
from adapters.mail.folder import FolderMailer
from adapters.mail.letters import UnknownLetter, compose, one_line, recipient, render, sender_of
from adapters.mail.smtp import SmtpMailer
from settings import Settings

__all__ = [
    "FolderMailer",
    "MailRefused",
    "Mailer",
    "SmtpMailer",
    "TransientMailError",
    "UnknownLetter",
    "compose",
    "one_line",
    "open_mailer",
    "recipient",
    "render",
    "sender_of",
]


def open_mailer(settings: Settings) -> Mailer:
    """The driver that the settings name; no connection is made before the first message."""
    if settings.smtp_host:
        return SmtpMailer(settings)
    return FolderMailer(settings.data_dir / "mail")
