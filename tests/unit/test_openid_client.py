"""The OpenID client against a provider on loopback: what it believes, and how it fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from adapters import openid
from adapters.openid import REFRESHES_PER_MINUTE, CodeRefused, OpenId
from errors import ServiceUnavailable
from settings import Settings
from tests.harness.openid_server import CLIENT_ID, CLIENT_SECRET, Fault, OpenIdServer

CALLBACK = "http://127.0.0.1:1/auth/google/callback"
VERIFIER = "v" * 64


@pytest_asyncio.fixture(scope="module")
async def server() -> AsyncIterator[OpenIdServer]:
    """The provider."""
    async with OpenIdServer().running() as running:
        yield running


@pytest.fixture
async def client(server: OpenIdServer) -> AsyncIterator[OpenId]:
    """A client that has asked nothing yet."""
    async with openid.connected(settings_for(server.url)) as opened:
        server.calls.clear()
        yield opened


def settings_for(issuer: str) -> Settings:
    return Settings.model_construct(
        google_issuer=issuer, google_client_id=CLIENT_ID, google_client_secret=SecretStr(CLIENT_SECRET)
    )


async def code_of(client: OpenId, *, nonce: str = "n") -> str:
    url = await client.authorization_url(redirect_uri=CALLBACK, state="s", verifier=VERIFIER, nonce=nonce)
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(url)
    return parse_qs(urlsplit(answer.headers["location"]).query)["code"][0]


async def subject_of(client: OpenId, code: str) -> str:
    return (await client.identify(code, verifier=VERIFIER, redirect_uri=CALLBACK, nonce="n")).subject


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.HELD])
@pytest.mark.parametrize("path", ["openid-configuration", "token", "keys"])
async def test_a_provider_that_fails_is_unavailable(
    server: OpenIdServer, client: OpenId, fault: Fault, path: str
) -> None:
    if path == "openid-configuration":
        server.fail(fault, path, times=2)  # a GET that was cut off is tried again
        with pytest.raises(ServiceUnavailable):
            await code_of(client)
        server._faults.clear()
    code = await code_of(client)
    if path != "openid-configuration":
        server.fail(fault, path, times=2)
        with pytest.raises(ServiceUnavailable):
            await subject_of(client, code)
        server._faults.clear()
    assert await subject_of(client, await code_of(client)) == server.browser.subject
    assert "/o/elsewhere" not in server.calls


async def test_a_provider_that_is_away_is_unavailable() -> None:
    async with openid.connected(settings_for("http://127.0.0.1:1")) as client:
        with pytest.raises(ServiceUnavailable):
            await code_of(client)


async def test_nobody_waits_in_turn_for_a_silent_provider(server: OpenIdServer, client: OpenId) -> None:
    server.fail(Fault.HELD, "openid-configuration")
    waiting = [asyncio.create_task(code_of(client)) for _ in range(5)]
    await asyncio.wait_for(server.held.wait(), 5)
    server.release()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [ServiceUnavailable] * 5
    assert server.calls.count("/.well-known/openid-configuration") == 1
    await code_of(client)


async def test_another_issuers_document_is_not_believed(server: OpenIdServer) -> None:
    async with openid.connected(settings_for(server.url.replace("127.0.0.1", "localhost"))) as client:
        with pytest.raises(ServiceUnavailable):
            await code_of(client)


async def test_document_and_keys_are_asked_for_once(server: OpenIdServer, client: OpenId) -> None:
    for _ in range(3):
        await subject_of(client, await code_of(client))
    assert server.calls.count("/.well-known/openid-configuration") == server.calls.count("/o/keys") == 1


async def test_a_new_key_is_looked_for_but_not_without_end(server: OpenIdServer, client: OpenId) -> None:
    await subject_of(client, await code_of(client))
    for algorithm in ("ES256", "RS256"):
        server.rotate(algorithm)
        assert await subject_of(client, await code_of(client)) == server.browser.subject
    for _ in range(8):
        server.forge(lambda at, claims: at.sign(claims, kid="nobody's"))
        with pytest.raises(CodeRefused):
            await subject_of(client, await code_of(client))
    assert server.calls.count("/o/keys") == 1 + REFRESHES_PER_MINUTE


async def test_a_code_works_once_and_with_its_verifier(client: OpenId) -> None:
    code = await code_of(client)
    await subject_of(client, code)
    with pytest.raises(CodeRefused):
        await subject_of(client, code)
    code = await code_of(client)
    with pytest.raises(CodeRefused):
        await client.identify(code, verifier="w" * 64, redirect_uri=CALLBACK, nonce="n")


async def test_a_wrong_secret_is_the_operators_fault(server: OpenIdServer) -> None:
    settings = settings_for(server.url).model_copy(update={"google_client_secret": SecretStr("wrong")})
    async with openid.connected(settings) as client:
        with pytest.raises(ServiceUnavailable, match="GOOGLE_CLIENT_SECRET"):
            await subject_of(client, await code_of(client))
