"""Connecting an account at the stand-in for GitHub, as an app and a browser do it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.factories import Person
from tests.harness.client import GraphQLClient
from tests.harness.github_server import GitHubServer

ACCOUNT = "login avatarUrl scopes connectedAt needsReconnecting"
CONNECT = "mutation ($input: ConnectGithubInput!) { connectGithub(input: $input) { authorizationUrl } }"
COMPLETE = f"""
mutation ($input: CompleteGithubConnectionInput!) {{
  completeGithubConnection(input: $input) {{ connection {{ {ACCOUNT} }} }}
}}
"""


async def begin(client: GraphQLClient, person: Person, *, redirect_to: str | None = None) -> str:
    """The address at GitHub that the app sends the browser to."""
    target = redirect_to or f"{client.url.removesuffix('/graphql')}/app"
    data = await client.run(CONNECT, {"input": {"redirectTo": target}}, token=person.token)
    url: str = data["connectGithub"]["authorizationUrl"]
    return url


async def allow(authorization_url: str) -> str:
    """The address of our callback that GitHub sends the browser to, once the person has agreed."""
    return await location_of(authorization_url)


async def location_of(url: str) -> str:
    """Where a browser without cookies is sent on to."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(url)
    assert answer.is_redirect, answer.text
    return answer.headers["location"]


def parameter(url: str, name: str) -> str:
    """A parameter of an address."""
    return parse_qs(urlsplit(url).query)[name][0]


async def code_for(client: GraphQLClient, person: Person) -> str:
    """What the app finds in its address once the browser is back."""
    return parameter(await location_of(await allow(await begin(client, person))), "code")


async def complete(client: GraphQLClient, person: Person, code: str) -> dict[str, Any]:
    """Redeem a code."""
    data = await client.run(COMPLETE, {"input": {"code": code}}, token=person.token)
    connection: dict[str, Any] = data["completeGithubConnection"]["connection"]
    return connection


async def connect(client: GraphQLClient, person: Person, github: GitHubServer, login: str) -> dict[str, Any]:
    """Connect an account at the stand-in."""
    github.browser_login = login
    return await complete(client, person, await code_for(client, person))
