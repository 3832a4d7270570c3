"""Browsers that sign in at the stand-ins for GitHub and Google, step by step, as an app and a person do it."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.harness.client import GraphQLClient
from tests.harness.github_accounts import location_of, parameter
from tests.harness.openid_server import Somebody

IDENTITY = "id provider email login createdAt lastUsedAt"
START = "mutation ($input: StartOAuthInput!) { startOAuth(input: $input) { authorizationUrl } }"
COMPLETE = f"""
mutation ($input: CompleteOAuthInput!) {{
  completeOAuth(input: $input) {{
    accessToken refreshToken expiresAt isNewAccount identity {{ {IDENTITY} }}
    user {{ id username name email emailVerified }}
  }}
}}
"""


class Browser(GraphQLClient):
    """A browser on a page of the API's own origin: it keeps cookies and says where a request comes from."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        parts = urlsplit(url)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.http.headers["origin"] = self.origin

    async def __aenter__(self) -> Browser:
        return self

    async def start(self, provider: str, *, token: str | None = None, **given: Any) -> str:
        """The address at the provider."""
        given = {"provider": provider, "redirectTo": f"{self.origin}/app?page=1", **given}
        url: str = (await self.run(START, {"input": given}, token=token))["startOAuth"]["authorizationUrl"]
        return url

    async def callback(self, provider: str, *, token: str | None = None, **given: Any) -> str:
        """The address of our callback that the provider sends the browser to, once the person has agreed."""
        return await location_of(await self.start(provider, token=token, **given))

    async def visit(self, url: str) -> httpx.Response:
        """Open an address, as a link does."""
        return await self.http.get(url, headers={"origin": ""}, follow_redirects=False)

    async def code(self, provider: str, *, token: str | None = None, **given: Any) -> str:
        """What the app finds in its address once the browser is back."""
        answer = await self.visit(await self.callback(provider, token=token, **given))
        assert answer.status_code == 303, answer.text
        return parameter(answer.headers["location"], "code")

    async def complete(self, code: str, *, token: str | None = None, **given: Any) -> dict[str, Any]:
        """Redeem a code."""
        data = await self.run(COMPLETE, {"input": {"code": code, **given}}, token=token)
        done: dict[str, Any] = data["completeOAuth"]
        return done

    async def sign_in(self, provider: str, *, token: str | None = None, **given: Any) -> dict[str, Any]:
        """The whole journey."""
        return await self.complete(await self.code(provider, token=token), token=token, **given)


def somebody(**changes: Any) -> Somebody:
    """A person whom nobody has seen."""
    name = f"ada-{secrets.token_hex(5)}"
    return Somebody(**{"subject": secrets.token_hex(10), "email": f"{name}@example.com", **changes})
