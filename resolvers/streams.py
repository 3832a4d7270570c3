"""What subscriptions yield: events that one process may send to many subscribers.

Invariant: everybody who receives one `SharedEvent` of an audience may see the same of it, so that the surface may
execute and encode a selection once and send the same bytes to all of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, eq=False)
class SharedEvent:
    """One event for many subscribers: yield the same object to each of them.

    `value` is what the subscription's field answers with. `audience` names the rights under which it was read: two
    subscribers share an answer only if theirs are equal. `encodings` belongs to the surface.
    """

    value: Any
    audience: Hashable
    encodings: dict[Hashable, Any] = field(default_factory=dict, repr=False)
