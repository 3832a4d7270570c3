"""What a resolver knows of its operation: who asks, from where, under which id, and what loads rows in batches.

One context per operation. Invariant: loaders never outlive the operation, or the event of a subscription, that filled
them, so that no answer shows what an earlier one read. How the actor is found is `schema/credentials.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.cookies import SimpleCookie
from typing import Any, TypeVar, cast

from strawberry.dataloader import DataLoader

from errors import ValidationFailed
from models.permissions import Actor, Origin
from settings import Settings

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")
Fetch = Callable[["Context", list[Key]], Awaitable[Sequence[Value]]]
"""Loads many rows at once: one value per key, in the order of the keys."""


@dataclass(slots=True)
class AppState:
    """What lives as long as the process and is counted by the surface."""

    open_sockets: int = 0
    open_subscriptions: int = 0


@dataclass(slots=True)
class ResponseHeaders:
    """Headers that a mutation adds to the HTTP answer."""

    values: list[tuple[bytes, bytes]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Context:
    """`info.context` of every resolver.

    `cookies` are empty unless the browser vouches that our own page or an allowed one made the request. `response` is
    None where there is no HTTP answer to carry headers, that is on a WebSocket. `cost` is the static cost of the
    operation, in nodes. A WebSocket replaces `actor` when its credentials are renewed.
    """

    actor: Actor
    settings: Settings
    state: AppState
    cookies: Mapping[str, str] = field(default_factory=dict)
    response: ResponseHeaders | None = None
    cost: int = 0
    request_id: str | None = None
    left: Callable[[], Awaitable[None]] | None = None
    """Ends when whoever asked has hung up; None where nobody can tell, or the work is cancelled then anyway."""
    _loaders: dict[Any, DataLoader[Any, Any]] = field(default_factory=dict)

    @property
    def origin(self) -> Origin:
        """Where the request came from, for the audit trail."""
        return self.actor.origin

    def load(self, fetch: Fetch[Key, Value], key: Key) -> Awaitable[Value]:
        """The value of one key; keys asked for in the same turn of the loop reach `fetch` together."""
        loader = self._loaders.get(fetch)
        if loader is None:
            loader = self._loaders[fetch] = DataLoader(load_fn=cast(Any, partial(fetch, self)), max_batch_size=1_000)
        return loader.load(key)

    def forget_loaded(self) -> None:
        """Start over with empty loaders: what they hold was read for an earlier event."""
        self._loaders = {}

    def set_header(self, name: str, value: str) -> None:
        """Add a header to the HTTP answer; on a WebSocket it is dropped."""
        if self.response is not None:
            self.response.values.append((name.lower().encode("latin-1"), value.encode("latin-1")))

    def set_cookie(self, name: str, value: str, *, max_age_seconds: int) -> None:
        """Give the browser a cookie that scripts cannot read; zero seconds delete it.

        `name` is one of `schema.credentials`. Raises ValidationFailed on a WebSocket, which cannot set cookies.
        """
        if self.response is None:
            raise ValidationFailed("Cookies can be set over HTTP only.", path=["cookies"])
        cookie: SimpleCookie = SimpleCookie({name: value})
        morsel = cookie[name]
        morsel["path"] = "/"
        morsel["max-age"] = max_age_seconds
        morsel["httponly"] = True
        morsel["samesite"] = "Lax"
        if self.settings.base_url.startswith("https://"):
            morsel["secure"] = True
        self.response.values.append((b"set-cookie", morsel.OutputString().encode("latin-1")))
