"""Codes of a second factor: those that an app shows for thirty seconds, and those that a person keeps on paper.

Invariants: a code of an app stands for one step of time, so that whoever compares knows which; two recovery codes of
one set never share their first four characters, by which they are found; how somebody types a code changes nothing.
What a code opens, and that it does so once, is `resolvers/second_factor.py`'s.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final
from urllib.parse import urlsplit

import pyotp
import segno

STEP_SECONDS: Final = 30
"""RFC 6238 §5.2: the default, which every app knows."""
WINDOW_STEPS: Final = 1
"""Steps that a clock may be off, either way; RFC 6238 §5.2 advises at most one for the network's delay."""
DIGITS: Final = 6
SECRET_CHARACTERS: Final = 32
"""160 bits in base32: RFC 4226 §4 recommends as much."""

RECOVERY_CODES: Final = 10
RECOVERY_CHARACTERS: Final = 16
"""80 bits, five in each character."""
PREFIX_CHARACTERS: Final = 4
MAX_TYPED_CHARACTERS: Final = 64

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base32: without i, l, o and u
_LOOKALIKES: Final = str.maketrans({"o": "0", "i": "1", "l": "1"})
_BETWEEN: Final = str.maketrans({"-": None, "‐": None, "–": None})


def new_secret() -> str:
    """A new secret of 160 bits, in base32."""
    return pyotp.random_base32(SECRET_CHARACTERS)


def matching_step(secret: str, code: str, *, now_seconds: float) -> int | None:
    """The step of time, of the present one and its neighbours, whose code this is; the latest, or None.

    Every candidate is compared in constant time, and always all of them.
    """
    totp = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_SECONDS)
    present = int(now_seconds // STEP_SECONDS)
    steps = range(max(0, present - WINDOW_STEPS), present + WINDOW_STEPS + 1)
    matching = [step for step in steps if hmac.compare_digest(totp.generate_otp(step), code)]
    return max(matching, default=None)


def issuer_of(base_url: str) -> str:
    """What an app calls the installation: its host name, else its own name."""
    return urlsplit(base_url).hostname or "Switchyard"


def enrolment_uri(secret: str, *, account: str, issuer: str) -> str:
    """The `otpauth` address that an app reads; SHA-1, six digits and thirty seconds are what every app takes."""
    # Without the address of a host a colon would end the name of the issuer (an IPv6 literal has some).
    named = issuer.replace(":", ".")
    totp = pyotp.TOTP(secret, digits=DIGITS, interval=STEP_SECONDS)
    return totp.provisioning_uri(name=account, issuer_name=named)


def qr_code(text: str) -> str:
    """A QR code as SVG text, which a page can hold as it is."""
    return segno.make(text, error="m", micro=False).svg_inline(scale=4, border=4, light="#fff")


def typed_totp(code: str) -> str | None:
    """The six digits that somebody typed, with or without spaces; None for what is no such code."""
    digits = "".join(code.split())
    return digits if len(digits) == DIGITS and digits.isascii() and digits.isdigit() else None


def typed_recovery(code: str) -> str | None:
    """A recovery code in the form that is hashed, however it was typed; None for what is none."""
    if len(code) > MAX_TYPED_CHARACTERS:
        return None
    normal = "".join(code.casefold().split()).translate(_BETWEEN).translate(_LOOKALIKES)
    fits = len(normal) == RECOVERY_CHARACTERS and all(character in _ALPHABET for character in normal)
    return normal if fits else None


def prefix_of(recovery_code: str) -> str:
    """By what a recovery code, in the form that is hashed, is found among those of an account."""
    return recovery_code[:PREFIX_CHARACTERS]


def new_recovery_codes() -> list[str]:
    """Ten new codes of 80 bits, in the form that is hashed, no two with one prefix."""
    codes: dict[str, str] = {}
    while len(codes) < RECOVERY_CODES:
        code = "".join(secrets.choice(_ALPHABET) for _ in range(RECOVERY_CHARACTERS))
        codes.setdefault(prefix_of(code), code)
    return list(codes.values())


def shown(recovery_code: str) -> str:
    """A recovery code as people read it: `xxxx-xxxx-xxxx-xxxx`."""
    return "-".join(
        recovery_code[start : start + PREFIX_CHARACTERS] for start in range(0, RECOVERY_CHARACTERS, PREFIX_CHARACTERS)
    )
