"""The headers that say how many calls are left: `RateLimit-Policy`, `RateLimit` and `Retry-After`.

Written as draft-ietf-httpapi-ratelimit-headers-11 has them, about one bucket: that which refused, else the one with the
least left. `r` is what may be spent at once, `t` the seconds until the bucket is full again. Answers that nothing was
counted for have none, and neither have streams, whose headers leave before the operation starts.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resolvers import limits
from resolvers.limits import Notes


class RateLimitHeaders:
    """Add to an answer how the buckets stand that were charged on its way."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        notes = Notes()

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start" and (tightest := notes.tightest) is not None:
                name, policy = tightest.policy.name, tightest.policy
                headers = list(message.get("headers", ()))
                headers += [
                    (b"ratelimit-policy", f'"{name}";q={policy.limit};w={policy.window_seconds}'.encode()),
                    (b"ratelimit", f'"{name}";r={tightest.remaining};t={tightest.reset_seconds}'.encode()),
                ]
                if tightest.retry_after_seconds and not any(key.lower() == b"retry-after" for key, _ in headers):
                    headers.append((b"retry-after", str(tightest.retry_after_seconds).encode()))
                message["headers"] = headers
            await send(message)

        token = limits.notes.set(notes)
        try:
            await self.app(scope, receive, send_with_limits)
        finally:
            limits.notes.reset(token)
