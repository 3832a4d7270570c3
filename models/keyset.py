"""Keyset pages in SQL: rows strictly between two sort keys, in an order that ends with something unique.

The keys come from cursors (`schema/pagination.py`); columns and casts are constants of the callers.
"""

from __future__ import annotations

from typing import Any


def between(
    columns: str,
    casts: str,
    values: list[Any],
    *,
    after: tuple[Any, ...] | None,
    before: tuple[Any, ...] | None,
    descending: bool,
    backwards: bool,
) -> tuple[list[str], str]:
    """Conditions for rows behind `after` and before `before`, and what to order by; parameters are added to `values`.

    `columns` are joined by ", "; `casts` has a place `${}` for the value of each. Backwards, from the end of the order.
    """
    conditions = []
    for bound, is_above in ((after, not descending), (before, descending)):
        if bound is not None:
            places = casts.format(*range(len(values) + 1, len(values) + 1 + len(bound)))
            values += bound
            conditions.append(f"({columns}) {'>' if is_above else '<'} ({places})")
    direction = "DESC" if descending is not backwards else "ASC"
    return conditions, ", ".join(f"{column} {direction}" for column in columns.split(", "))
