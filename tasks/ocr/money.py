"""Amounts of money as paper writes them: which currency, which amount, and how sure that is.

Invariant: an amount is positive, at most MAX_AMOUNT and has at most four decimals. A number alone does not tell whether
"1.250" is a thousand or one: the whole document votes first (`convention`). Nothing here guesses a currency: a bare "$"
is that of the document if it uses a dollar or peso, and none otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

MAX_AMOUNT: Final = Decimal(9_999_999_999)
MAX_DECIMALS: Final = 4
MAX_TEXT: Final = 48
"""Characters of a text that may be an amount; longer ones are none."""

_SIGNS: Final = {
    "€": "EUR", "£": "GBP", "¥": "JPY", "₡": "CRC", "₲": "PYG", "₱": "PHP", "₹": "INR", "₩": "KRW", "₺": "TRY",
    "zł": "PLN", "Kč": "CZK", "R$": "BRL", "US$": "USD", "U$S": "USD", "U$D": "USD", "u$s": "USD", "USD$": "USD",
    "MX$": "MXN", "MXN$": "MXN", "Mex$": "MXN", "AR$": "ARS", "ARS$": "ARS", "CLP$": "CLP", "CL$": "CLP",
    "COL$": "COP", "COP$": "COP", "$U": "UYU", "UY$": "UYU", "RD$": "DOP", "C$": "NIO", "CA$": "CAD", "A$": "AUD",
    "NZ$": "NZD", "HK$": "HKD", "S$": "SGD", "S/.": "PEN", "S/": "PEN", "Bs.": "BOB", "Bs": "BOB", "B/.": "PAB",
    "Q.": "GTQ", "Q": "GTQ", "Lps.": "HNL", "L.": "HNL", "L": "HNL", "Gs.": "PYG", "Gs": "PYG", "Fr.": "CHF",
    "Euros": "EUR", "euros": "EUR", "euro": "EUR", "Euro": "EUR",
}  # fmt: skip
"""Signs of one currency."""
_BEFORE_ONLY: Final = frozenset({"Q", "Q.", "L", "L.", "S/", "S/.", "C$", "S$", "Fr."})
"""Behind a number "L" is litres, and the others are something else too."""
CODES: Final = frozenset(
    (
        *("ARS", "AUD", "BOB", "BRL", "CAD", "CHF", "CLP", "CNY", "COP", "CRC", "CZK", "DKK", "DOP", "EUR", "GBP"),
        *("GTQ", "HKD", "HNL", "HUF", "INR", "JPY", "MXN", "NIO", "NOK", "NZD", "PAB", "PEN", "PLN", "PYG", "SEK"),
        *("SGD", "TRY", "USD", "UYU", "VES"),
    )
)
DOLLARS: Final = frozenset(
    ("ARS", "AUD", "CAD", "CLP", "COP", "CUP", "DOP", "HKD", "MXN", "NIO", "NZD", "SGD", "USD", "UYU")
)
"""Currencies that people write with a bare "$"."""
_POINTS: Final = frozenset(
    ("AUD", "CAD", "CHF", "CNY", "DOP", "GBP", "GTQ", "HKD", "HNL", "INR", "JPY", "MXN", "NIO", "NZD", "PAB", "PEN")
) | {"SGD", "USD"}
"""Currencies of places that write decimals behind a point."""

_WHOLE: Final = frozenset(("CLP", "JPY", "KRW", "PYG"))
"""Currencies without a smaller unit (ISO 4217): three digits behind a sign are thousands, whatever the paper does."""

_LOOKALIKES: Final = str.maketrans("lI|OoSBZ", "11100582")
_CURRENCY: Final = "|".join(
    re.escape(sign) for sign in sorted({*_SIGNS, *CODES, *(code.lower() for code in CODES), "$"}, key=len, reverse=True)
)
_MONEY: Final = re.compile(
    rf"(?:(?P<count>[0-9]{{1,4}})\s?[xX×]\s?)?(?:(?P<before>{_CURRENCY})\s?)?"
    r"(?P<number>[0-9lI|OoSBZ](?:[0-9lI|OoSBZ.,'’`´ \u00a0\u202f]*[0-9lI|OoSBZ])?)(?P<even>[.,][-–—]{1,2})?"
    rf"(?:\s?(?P<after>{_CURRENCY}))?(?:\s?(?:/|c/|por |per )\s?(?P<per>[a-zA-Z]{{1,8}})\.?)?[*†]?",
)
_NUMBER_WORD: Final = re.compile(r"[0-9]+(?:[.,][0-9]+)+")
_DATE: Final = re.compile(r"[0-9]{1,2}[.][0-9]{1,2}[.](?:[0-9]{2}|[0-9]{4})")
_SEPARATORS: Final = re.compile(r"[.,]")
_THOUSANDS: Final = re.compile(r"[0-9]{1,3}(?:[.,][0-9]{3})+")


@dataclass(frozen=True, slots=True)
class Convention:
    """How a document writes decimals: behind a point or a comma, None where nothing tells.

    `share` is how many of its numbers agree, 0 to 1; 0 where only the currency's habit speaks.
    """

    decimal: str | None = None
    share: float = 0.0


@dataclass(frozen=True, slots=True)
class Money:
    """An amount. `sign` is what stood beside it ("$" for a bare one), `currency` what that means by itself."""

    amount: Decimal
    sign: str | None
    currency: str | None
    certainty: float
    decimals: int
    per: str | None = None
    is_even: bool = False

    @property
    def looks_priced(self) -> bool:
        """Whether it is a price wherever it stands: it has a sign, or two decimals."""
        return self.sign is not None or self.decimals == 2 or self.is_even


def convention(words: Iterable[str], default_currency: str | None) -> Convention:
    """What the numbers of a document say by majority; the currency's own habit where they say nothing."""
    votes = {".": 0, ",": 0}
    for word in words:
        token = word.strip("$€£()*:;")
        if len(token) > MAX_TEXT or not _NUMBER_WORD.fullmatch(token) or _DATE.fullmatch(token):
            continue
        sign = _decimal_by_shape(token)
        if sign is not None:
            votes[sign] += 1
    total = votes["."] + votes[","]
    if votes["."] != votes[","]:
        winner = "." if votes["."] > votes[","] else ","
        return Convention(winner, votes[winner] / total)
    if default_currency is None:
        return Convention()
    return Convention("." if default_currency in _POINTS else ",", 0.0)


def parse_money(text: str, habit: Convention, *, has_spaces: bool = True) -> Money | None:
    """The amount that a whole text is; None if it is none. Letters among digits are read, and hardly believed.

    "2 x $15.00" is fifteen: counts are taken off. Without `has_spaces` a number has no blanks between thousands.
    """
    text = text.strip()
    if not text or len(text) > MAX_TEXT:
        return None
    found = _MONEY.fullmatch(text)
    if found is None:
        return None
    before, after, number = found["before"], found["after"], found["number"]
    if after in _BEFORE_ONLY or (
        before and after and "$" not in (before, after) and _meaning(before) != _meaning(after)
    ):
        return None
    sign = after if before in (None, "$") and after else before
    certainty = 0.6 if found["count"] else 1.0
    plain = number.translate(_LOOKALIKES)
    if plain != number:
        if not any(map(str.isdecimal, number)) or not (sign or _SEPARATORS.search(number)):
            return None
        certainty *= 0.3
    currency = None if sign is None else _meaning(sign)
    if currency in _WHOLE and _THOUSANDS.fullmatch(plain):
        plain = _SEPARATORS.sub("", plain)
    value = parse_number(plain, habit, has_spaces=has_spaces)
    if value is None or not 0 < value[0] <= MAX_AMOUNT:
        return None
    return Money(
        amount=value[0],
        sign=sign,
        currency=currency,
        certainty=certainty * value[2],
        decimals=value[1],
        per=found["per"],
        is_even=found["even"] is not None,
    )


def parse_number(text: str, habit: Convention, *, has_spaces: bool = True) -> tuple[Decimal, int, float] | None:
    """A number with how many decimals it has and how sure it is; None where its separators make no sense."""
    text = re.sub(r"(?<=[0-9])['’`´](?=[0-9]{3}(?![0-9]))", "", text)
    closed = re.sub(r"(?<=[0-9])[ \u00a0\u202f](?=[0-9]{3}(?![0-9]))", "", text)
    if closed != text and not has_spaces:
        return None
    if not re.fullmatch(r"[0-9]+(?:[.,][0-9]+)*", closed) or _DATE.fullmatch(closed):
        return None
    parts, signs = _SEPARATORS.split(closed), _SEPARATORS.findall(closed)
    if not signs:
        return Decimal(closed), 0, 1.0
    decimal = _decimal_by_shape(closed)
    if decimal is None and len(signs) == 1:  # 1.250: only the document knows
        sure = (0.9 if habit.share >= 0.8 else 0.8) if habit.share else 0.6
        return _number(parts, has_decimals=habit.decimal == signs[0], sure=sure)
    if decimal is None:
        return _number(parts, has_decimals=False, sure=1.0)
    if decimal in signs[:-1]:  # 1.250.00: one of them was misread
        return _number(parts, has_decimals=True, sure=0.5)
    return _number(parts, has_decimals=True, sure=0.7 if habit.share and habit.decimal != decimal else 1.0)


def currency_of(money: Money, default: str | None) -> tuple[str | None, float]:
    """The currency of an amount in a document with this default, and how sure that is."""
    if money.sign == "$":
        return (default, 0.95) if default in DOLLARS else (None, 0.0)
    if money.sign is not None:
        return money.currency, 1.0
    return default, 0.9 if default else 0.0


def _number(parts: list[str], *, has_decimals: bool, sure: float) -> tuple[Decimal, int, float] | None:
    whole, rest = (parts[:-1], parts[-1]) if has_decimals else (parts, "")
    is_grouped = len(whole) == 1 or (len(whole[0]) <= 3 and all(len(group) == 3 for group in whole[1:]))
    if len(rest) > MAX_DECIMALS or not is_grouped:
        return None
    return Decimal("".join(whole) + (f".{rest}" if rest else "")), len(rest), sure


def _decimal_by_shape(token: str) -> str | None:
    """Which sign stands before the decimals, as far as a number tells by itself; None where it has none or may not."""
    signs = _SEPARATORS.findall(token)
    last = len(_SEPARATORS.split(token)[-1])
    if len(set(signs)) == 2:
        return signs[-1] if signs.count(signs[-1]) == 1 else None
    if len(signs) > 1:
        return signs[-1] if last != 3 else None
    return signs[0] if last != 3 or token.startswith("0") else None


def _meaning(sign: str) -> str | None:
    return None if sign == "$" else _SIGNS.get(sign) or (sign.upper() if sign.upper() in CODES else None)
