"""What names, addresses, pictures and passwords of accounts may be.

Invariant: what passes here may be stored and shown; each refusal names the faulty value by its path. Whether a name is
taken only the database knows.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final
from urllib.parse import urlsplit

import email_validator

from adapters import passwords as password_rules
from errors import ValidationFailed
from resolvers import sessions

MAX_NAME_LENGTH: Final = 120
MAX_EMAIL_LENGTH: Final = 254
MAX_AVATAR_URL_LENGTH: Final = 1_024
SHORTEST_TELLING_WORD: Final = 3

_PRODUCT: Final = "switchyard"
_USERNAME: Final = re.compile(r"[A-Za-z0-9._-]{3,32}", re.ASCII)
_INTERNAL_DOMAINS: Final = frozenset({"local", "localhost", "test"})

# An installation on a private network mails to such domains; the library takes no argument for it, only its list.
email_validator.SPECIAL_USE_DOMAIN_NAMES[:] = [
    name for name in email_validator.SPECIAL_USE_DOMAIN_NAMES if name not in _INTERNAL_DOMAINS
]


def valid_email(text: str) -> str:
    """The address as it is stored; raises ValidationFailed."""
    if len(text) > MAX_EMAIL_LENGTH:
        raise ValidationFailed("An e-mail address has at most 254 characters.", path=["email"])
    try:
        checked = email_validator.validate_email(text.strip(), check_deliverability=False, globally_deliverable=False)
    except email_validator.EmailNotValidError as error:
        raise ValidationFailed(str(error), path=["email"]) from None
    return checked.normalized


def valid_username(text: str) -> str:
    """The username as it is shown; raises ValidationFailed."""
    visible = unicodedata.normalize("NFKC", text).strip()
    if not _USERNAME.fullmatch(visible):
        raise ValidationFailed(
            "A username has 3 to 32 characters: letters a to z, digits, dot, underscore and hyphen.", path=["username"]
        )
    return visible


def valid_name(text: str) -> str:
    """The name as it is shown; raises ValidationFailed."""
    name = unicodedata.normalize("NFC", text).strip()
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValidationFailed("A name has 1 to 120 characters, all of them printable.", path=["name"])
    return name


def valid_avatar_url(text: str) -> str:
    """The address of a picture, which browsers of others will ask for; raises ValidationFailed.

    Only https, and nobody's password in it.
    """
    refusal = ValidationFailed(
        "A picture is named by an https address of at most 1,024 characters.", path=["avatarUrl"]
    )
    if len(text) > MAX_AVATAR_URL_LENGTH or not text.isprintable() or any(map(str.isspace, text)):
        raise refusal
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise refusal from None
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise refusal
    return text


def check_password(password: str, *, username: str, email: str, field: str = "password") -> None:
    """Refuse what others would guess first; `field` is the input's name of it. Raises ValidationFailed.

    The whole password is compared with the list, as NIST SP 800-63B-4 §3.1.1.2 has it, and words of the context
    (the owner's names, ours) do not count towards its length. No rule asks for kinds of characters.
    """
    shortest = sessions.settings().password_min_length
    if len(password) < shortest:
        raise ValidationFailed(f"A password has at least {shortest} characters.", path=[field])
    if not password_rules.fits(password):
        raise ValidationFailed("A password has at most 1,024 bytes.", path=[field])
    if password_rules.is_common(password):
        raise ValidationFailed("This password is among the commonest ones; choose another.", path=[field])
    letters = _letters_and_digits(password)
    for word in (username, email.partition("@")[0], _PRODUCT):
        known = _letters_and_digits(word)
        if len(known) < SHORTEST_TELLING_WORD or known not in letters:
            continue
        if len(letters.replace(known, "")) < shortest:
            raise ValidationFailed("This password is little more than a name that others know.", path=[field])


def _letters_and_digits(text: str) -> str:
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))
