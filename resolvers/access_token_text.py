"""How access tokens are written: `swp_`, 30 characters that nobody can guess, and 6 that check the others.

As a regular expression: `swp_[0-9A-Za-z]{36}`. The last six are the CRC-32 of the thirty in base 62, so what was
mistyped, cut off or made up is told from a token without asking anybody, and scanners of published code find the
real ones. The sum proves nothing: whether a token exists is known by its hash alone, in `resolvers/access_tokens.py`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from typing import Final

PREFIX: Final = "swp_"
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH: Final = 30
_SUM_LENGTH: Final = 6
_FORM: Final = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{_RANDOM_LENGTH}}})([0-9A-Za-z]{{{_SUM_LENGTH}}})", re.ASCII)


def new_access_token() -> str:
    """A token that nobody has: 178 bits from the system's generator."""
    body = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return f"{PREFIX}{body}{_sum_of(body)}"


def looks_like_access_token(text: str) -> bool:
    """Whether a text claims to be an access token, well formed or not."""
    return text.startswith(PREFIX)


def is_well_formed(text: str) -> bool:
    """Whether a text has the form and the check sum of an access token."""
    parts = _FORM.fullmatch(text)
    return parts is not None and _sum_of(parts[1]) == parts[2]


def hash_of(token: str) -> str:
    """What is kept of a token: SHA-256 in hex. The token has entropy enough, so nothing slower is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def _sum_of(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    digits = ""
    for _ in range(_SUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
