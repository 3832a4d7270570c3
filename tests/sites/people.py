"""A directory of 537 invented people in 56 states and territories, searched as real directories are, with their quirks.

Lists are in the order of names, without regard to case and accents. Pages overlap by one entry, as they do where
somebody was added while a list was read; numbers beyond the last page bring the last page again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.sites.server import Answer, Asked

COUNT = 537
STATES = (
    *(
        "AK",
        "AL",
        "AR",
        "AS",
        "AZ",
        "CA",
        "CO",
        "CT",
        "DC",
        "DE",
        "FL",
        "GA",
        "GU",
        "HI",
        "IA",
        "ID",
        "IL",
        "IN",
        "KS",
        "KY",
    ),
    *(
        "LA",
        "MA",
        "MD",
        "ME",
        "MI",
        "MN",
        "MO",
        "MP",
        "MS",
        "MT",
        "NC",
        "ND",
        "NE",
        "NH",
        "NJ",
        "NM",
        "NV",
        "NY",
        "OH",
        "OK",
    ),
    *("OR", "PA", "PR", "RI", "SC", "SD", "TN", "TX", "UT", "VA", "VI", "VT", "WA", "WI", "WV", "WY"),
)
PAGE_SIZE = 20
_SURNAMES = (
    *(
        "Álvarez",
        "Abbott",
        "adler",
        "Björk",
        "Brandt",
        "Çelik",
        "Calder",
        "de la Cruz",
        "Dvořák",
        "Ellis",
        "Évans",
        "Fisher",
    ),
    *(
        "García",
        "Hughes",
        "Ibáñez",
        "Jensen",
        "Kovač",
        "Lindqvist",
        "MacAdam",
        "Mercer",
        "Müller",
        "Núñez",
        "O'Brien",
        "Öz",
    ),
    *("Peña", "Quirk", "Rousseau", "Şahin", "Smith", "Tóth", "Udall", "van Dyke", "Wójcik", "Young", "Žukov", "Zimmer"),
)
_GIVEN = (
    "Ada",
    "Bea",
    "Carl",
    "Dina",
    "Émile",
    "Fay",
    "Gus",
    "Hana",
    "Ivo",
    "Jo",
    "Kai",
    "Lea",
    "Max",
    "Nora",
    "Olaf",
    "Pia",
)
# What each accented letter is sorted as; written out, so that the tests do not prove the rule by itself.
_PLAIN = str.maketrans("ÁÇÉÍÖŞŽáčçéíñöřšüóúž", "ACEIOSZacceinorsuouz")


@dataclass(frozen=True)
class Member:
    """Somebody in the directory."""

    number: int
    name: str
    state: str
    district: int

    @property
    def order(self) -> str:
        """What the directory sorts by."""
        return self.name.translate(_PLAIN).lower()

    def item(self, base: str) -> dict[str, Any]:
        """What the directory spider must make of the entry, but for the page."""
        return {
            "name": self.name,
            "state": self.state,
            "district": self.district,
            "profile": f"{base}/people/{self.number}",
        }


class PeopleSite:
    """Answers below `/people`; `state`, `from` (a name), `prefix` and `page` choose, `/people/7` is somebody's page."""

    @cached_property
    def members(self) -> list[Member]:
        """All of them, in the directory's order."""
        chance = random.Random(537)
        names = chance.sample([f"{surname}, {given}" for surname in _SURNAMES for given in _GIVEN], COUNT - 20)
        names += chance.sample(names, 20)  # namesakes
        states = [*STATES, *chance.choices(STATES, weights=range(1, len(STATES) + 1), k=COUNT - len(STATES))]
        found = [
            Member(number, name, state, chance.randrange(1, 9))
            for number, (name, state) in enumerate(zip(names, states, strict=True), start=1)
        ]
        return sorted(found, key=lambda member: (member.order, member.number))

    def expected(self, base: str, *, states: tuple[str, ...] = STATES, start: str = "") -> list[dict[str, Any]]:
        """The items of a crawl of some states from a name on, which is written without accents and in lower case."""
        return [member.item(base) for member in self.members if member.state in states and member.order >= start]

    def __call__(self, asked: Asked) -> Answer:
        parts = urlsplit(asked.target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        tail = parts.path.removeprefix("/people").strip("/")
        if tail:
            member = next((each for each in self.members if str(each.number) == tail), None)
            if member is None:
                return Answer("<p>Nobody.</p>", status=404)
            return Answer(f"<h1>{escape(member.name)}</h1><p class=seat>District {member.district}</p>")
        found = [
            member
            for member in self.members
            if query.get("state", member.state) == member.state
            and member.order >= query.get("from", "").translate(_PLAIN).lower()
            and member.order.startswith(query.get("prefix", "").lower())
        ]
        last = max(0, len(found) - 2) // (PAGE_SIZE - 1) + 1
        page = min(int(query.get("page", "1")), last)
        begin = (page - 1) * (PAGE_SIZE - 1)
        return Answer(self._list(found[begin : begin + PAGE_SIZE], query, page, last))

    def _list(self, shown: list[Member], query: dict[str, str], page: int, last: int) -> str:
        rows = "".join(
            f"<tr class=entry><td><a class=name href='/people/{member.number}'>{escape(member.name)}</a></td>"
            f"<td class=state>{member.state}</td><td class=district>District {member.district}</td></tr>"
            for member in shown
        )
        following = urlencode({**query, "page": page + 1})
        link = f"<a class=next href='/people?{following}'>Next</a>" if page < last else ""
        return f"<table><tr class=entry><th>Name</th></tr>{rows}</table>{link}"
