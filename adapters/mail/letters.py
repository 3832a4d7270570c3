"""Letters: from a template and its variables to a complete message.

A letter `x` is three files in `templates/`: `x.subject.txt`, `x.txt` and `x.html`; `layout.txt` and `layout.html` stand
around the latter two. `$name` is a variable, whose values are text that anybody may have written. Invariants: in HTML
every value is escaped and a link leads to http or https; a subject is one line of printable text; a variable that is
missing is an error and never a hole. The Message-ID is made from the key of the letter, so that a letter that is sent
twice is known for the same one.
"""

from __future__ import annotations

import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from functools import cache
from pathlib import Path
from string import Template
from typing import Final

import idna

from adapters.mail.contract import MailRefused
from settings import Settings, SettingsError

MAX_SUBJECT_LENGTH: Final = 200
_TEMPLATES: Final = Path(__file__).with_name("templates")


class UnknownLetter(LookupError):
    """There is no template of this name in this version."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A letter without envelope."""

    subject: str
    text: str
    html: str


def sender_of(settings: Settings) -> Address:
    """The sender of the settings; raises SettingsError when MAIL_FROM is none."""
    name, address = parseaddr(settings.mail_from)
    local, separator, domain = address.rpartition("@")
    try:
        if not (separator and local and domain):
            raise ValueError
        return Address(name, local, domain)
    except ValueError:
        raise SettingsError("MAIL_FROM: must be an address such as Switchyard <switchyard@example.com>") from None


def recipient(name: str, email: str) -> Address:
    """Somebody's address, its domain as DNS has it (RFC 5891); raises MailRefused for one that no mail can have."""
    local, _, domain = email.rpartition("@")
    try:
        if not (local and domain):
            raise ValueError
        ascii_domain = domain if domain.isascii() else idna.encode(domain).decode("ascii")
        return Address(one_line(name), local, ascii_domain)
    except ValueError as error:
        raise MailRefused("The account has an address that mail cannot be sent to.") from error


def compose(
    template: str, variables: Mapping[str, str], *, sender: Address, to: Address, key: str, base_url: str
) -> EmailMessage:
    """A complete message; reads files, so it belongs into a thread. Raises UnknownLetter, and KeyError."""
    letter = render(template, variables, base_url=base_url)
    message = EmailMessage(policy=policy.SMTP)
    message["From"] = sender
    message["To"] = to
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{hashlib.sha256(key.encode()).hexdigest()[:40]}@{sender.domain}>"
    # RFC 3834 §5: no vacation notice answers this.
    message["Auto-Submitted"] = "auto-generated"
    # Not left to the library, which would choose bytes that some servers do not take.
    message.set_content(letter.text, cte="quoted-printable")
    message.add_alternative(letter.html, subtype="html", cte="quoted-printable")
    return message


def render(template: str, variables: Mapping[str, str], *, base_url: str) -> Rendered:
    """The letter of a name with its variables; raises UnknownLetter, and KeyError for a variable that is missing."""
    subject = one_line(_template(f"{template}.subject.txt").substitute(variables))[:MAX_SUBJECT_LENGTH]
    text = _template(f"{template}.txt").substitute(variables).strip()
    marked_up = _template(f"{template}.html").substitute(_escaped(variables)).strip()
    frame = {"subject": subject, "base_url": base_url}
    return Rendered(
        subject=subject,
        text=_template("layout.txt").substitute(frame, content=text),
        html=_template("layout.html").substitute(_escaped(frame), content=marked_up),
    )


def one_line(text: str) -> str:
    """Text as one line of printable characters."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


@cache
def _template(name: str) -> Template:
    path = _TEMPLATES / name
    if path.parent != _TEMPLATES or not path.is_file():
        raise UnknownLetter(name)
    return Template(path.read_text(encoding="utf-8"))


def _escaped(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: _markup(name, value) for name, value in variables.items()}


def _markup(name: str, value: str) -> str:
    if name.endswith("url") and not value.startswith(("https://", "http://")):
        raise ValueError(f"{name} leads nowhere that a letter may link to")
    return html.escape(value).replace("\n", "<br>\n")
