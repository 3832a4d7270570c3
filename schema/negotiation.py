"""Media types of GraphQL over HTTP: what a body is, and which form of answer the client takes.

Follows the GraphQL-over-HTTP draft §4 and §6. Clients repeat the same few headers, so both questions are remembered.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Final


class Form(StrEnum):
    """The forms of an answer, by media type."""

    JSON = "application/json"
    RESPONSE = "application/graphql-response+json"
    EVENTS = "text/event-stream"


_JSON_FORMS: Final = (Form.JSON, Form.RESPONSE)


@lru_cache(maxsize=256)
def is_json(content_type: str) -> bool:
    """Whether a body is `application/json` in UTF-8; nothing else can be sent by a form of a foreign page."""
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    return media_type == "application/json" and all(
        parameter.replace(" ", "") in ("charset=utf-8", 'charset="utf-8"', "") for parameter in parameters
    )


@lru_cache(maxsize=256)
def accepted_forms(accept: str) -> tuple[Form, ...]:
    """The forms that a client takes, the preferred first; empty when it takes none of ours.

    Without preference JSON is first, since a client that does not know the newer type expects status 200 with it.
    """
    weights: dict[Form, tuple[float, int]] = {}
    for position, media_range in enumerate(accept.split(",") if accept.strip() else ["*/*"]):
        name, *parameters = (part.strip().lower() for part in media_range.split(";"))
        weight = _weight(parameters)
        if name in ("*/*", "application/*"):
            # A range is weaker than a type that is named, and no client means streams by it.
            for form in _JSON_FORMS:
                weights.setdefault(form, (weight, -1_000 - position))
        elif name in set(Form):
            weights[Form(name)] = (weight, -position)
    ordered = sorted((form for form in Form if form in weights), key=lambda form: weights[form], reverse=True)
    return tuple(form for form in ordered if weights[form][0] > 0)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
