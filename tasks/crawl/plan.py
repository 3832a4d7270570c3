"""What a run asks for, and the items it brings, as the parts of a crawl pass them to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's snapshot of its job, taken when it was made. `dataset_id` is shared with the runs it goes on from."""

    run_id: UUID
    dataset_id: UUID
    job_id: UUID
    owner_id: UUID
    spider: str
    input: Mapping[str, Any]
    limits: Mapping[str, Any] = field(default_factory=dict)
    only_changes: bool = False
    saves_products: bool = False


@dataclass(frozen=True, slots=True)
class FoundItem:
    """An item that fits its spider's output: `key` is its own within the dataset, `url` the page it was found on."""

    key: str
    url: str
    data: Mapping[str, Any]
