"""Words of searches: what people type, brought to the form in which generated columns have it.

Letters are compared without case and accents; a word finds itself, what begins with it, and what has its Spanish or
English stem. The database does it, which has the dictionaries.
"""

# ruff: noqa: S608 - the statement is joined from constants of this module; values travel as parameters

from __future__ import annotations

import re
import unicodedata
from typing import Final

from models import database

MAX_WORDS: Final = 8
"""Words of a search; those that follow are not looked at."""

_SHORTEST_PREFIX: Final = 2

# Words that say nothing in Spanish or English; they count only when there are no others.
_EMPTY_WORDS: Final = {
    *("a", "al", "con", "de", "del", "el", "en", "la", "las", "los", "o", "para", "por", "un", "una", "y"),
    *("an", "and", "for", "in", "of", "on", "or", "the", "to", "with"),
}
_WORD_CHARACTERS: Final = re.compile(r"[^\W_]+")

# The form of each text, and what finds it as a word: as it is, or as the start of one, or by its stem in a language.
# What the dictionary of accents turns into punctuation would end the quotes.
_FORMS: Final = rf"""
SELECT form, (
    CASE WHEN bare = '' THEN ''::tsquery
         ELSE ($q$'$q$ || bare || CASE WHEN length(bare) >= {_SHORTEST_PREFIX} THEN $q$':*$q$ ELSE $q$'$q$ END)::tsquery
    END || plainto_tsquery('spanish', bare) || plainto_tsquery('english', bare)
)::text AS query
FROM (
    SELECT place, form, regexp_replace(form, '[!-/:-@\[-`{{-~\s]+', '', 'g') AS bare
    FROM (
        SELECT place, search_form(given) AS form FROM unnest($1::text[]) WITH ORDINALITY AS texts(given, place)
    ) AS formed
) AS bared
ORDER BY place
"""


async def forms(search: str) -> list[tuple[str, str]]:
    """The form of the whole text, then of each word, each with the tsquery that finds it, empty where none does."""
    text = plain(search)
    rows = await database.rows(_FORMS, [text, *_words(text)])
    return [(row["form"], row["query"]) for row in rows]


def all_of(forms: list[tuple[str, str]]) -> str | None:
    """The text of a tsquery for all words; None where there is no word to look for."""
    queries = [f"({query})" for _, query in forms[1:] if query]
    return " & ".join(queries) or None


def plain(search: str) -> str:
    """The text in one form of its characters, with single spaces."""
    return " ".join(unicodedata.normalize("NFKC", search).split())


def _words(text: str) -> list[str]:
    """The words to look for: letters and digits without marks, in their order, each once, empty ones left out."""
    plain = "".join(
        character for character in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(character)
    )
    words = list(dict.fromkeys(_WORD_CHARACTERS.findall(plain)))
    return ([word for word in words if word not in _EMPTY_WORDS] or words)[:MAX_WORDS]
