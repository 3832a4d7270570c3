"""Where browsers are sent back to from a provider: pages of this service and of allowed apps, and nowhere else.

An open redirector would give away the codes that travel in the address.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

from errors import ValidationFailed
from resolvers import sessions

MAX_REDIRECT_LENGTH: Final = 2_000


def valid_redirect(redirect_to: str) -> str:
    """The address, if it is a page of ours or of an allowed app; raises ValidationFailed."""
    settings = sessions.settings()
    own = urlsplit(settings.base_url)
    allowed = {f"{own.scheme}://{own.netloc}".lower(), *settings.allowed_origins}
    is_plain = len(redirect_to) <= MAX_REDIRECT_LENGTH and redirect_to.isascii() and redirect_to.isprintable()
    try:
        parts = urlsplit(redirect_to)
        origin = f"{parts.scheme}://{parts.netloc}".lower()
    except ValueError:
        is_plain = False
    if not is_plain or " " in redirect_to or "\\" in redirect_to or "#" in redirect_to or origin not in allowed:
        raise ValidationFailed(
            "This must be a page of this service or of an app in ALLOWED_ORIGINS, without a fragment.",
            path=["input", "redirectTo"],
        )
    return redirect_to


def with_query(address: str, **values: str) -> str:
    """An address with more parameters."""
    parts = urlsplit(address)
    query = "&".join(part for part in (parts.query, urlencode(values)) if part)
    return urlunsplit(parts._replace(query=query))
