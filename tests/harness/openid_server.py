"""An OpenID provider on loopback: discovery, the page where people sign in, tokens, keys that rotate, and every fault.

It is real HTTP and real signatures; only the person is played: `browser` says who signs in. What a test wants to be
wrong with the next ID token it says with `forge`, what is wrong with the next answer with `fail`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CLIENT_ID = "client-0123456789.apps.example"
CLIENT_SECRET = "stand-in-openid-secret"
HUGE_BYTES = 6 * 2**20
Claims = dict[str, Any]
Forgery = Callable[["OpenIdServer", Claims], str]


class Fault(StrEnum):
    """How an answer can be bad."""

    BROKEN = "BROKEN"
    HTML = "HTML"
    MOVED = "MOVED"
    CUT_OFF = "CUT_OFF"
    HUGE = "HUGE"
    OTHER_SHAPE = "OTHER_SHAPE"
    HELD = "HELD"


@dataclass(frozen=True)
class Somebody:
    """A person with an account at the provider."""

    subject: str
    email: str
    email_verified: Any = True
    name: str = "Ada Lovelace"


@dataclass
class _Key:
    kid: str
    algorithm: str
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    def public_jwk(self) -> dict[str, Any]:
        maker = jwt.get_algorithm_by_name(self.algorithm)
        return {**maker.to_jwk(self.private.public_key(), as_dict=True), "kid": self.kid, "use": "sig"}


class OpenIdServer:
    """The stand-in. Its state is there to be read and changed by tests."""

    def __init__(self) -> None:
        self.url = ""
        self.browser = Somebody("1", "ada@example.com")
        self.calls: list[str] = []
        self.keys: list[_Key] = []
        self._codes: dict[str, tuple[dict[str, str], Somebody]] = {}
        self._faults: list[tuple[Fault, re.Pattern[str]]] = []
        self._forgery: Forgery | None = None
        self.held = asyncio.Event()
        self._released = asyncio.Event()
        self.rotate()

    @property
    def settings(self) -> dict[str, str]:
        """What a program that uses this provider has in its environment."""
        return {"GOOGLE_ISSUER": self.url, "GOOGLE_CLIENT_ID": CLIENT_ID, "GOOGLE_CLIENT_SECRET": CLIENT_SECRET}

    def rotate(self, algorithm: str = "RS256") -> None:
        """Sign with a new key from now on, and show only that one."""
        private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
        if algorithm == "RS256":
            private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        else:
            private = ec.generate_private_key(ec.SECP256R1())
        self.keys = [_Key(secrets.token_hex(8), algorithm, private)]

    def forge(self, forgery: Forgery) -> None:
        """Make the next ID token in another way: from the claims that an honest one would have."""
        self._forgery = forgery

    def fail(self, fault: Fault, path: str = "", *, times: int = 1) -> None:
        """Answer the next requests whose path matches badly."""
        self._faults += [(fault, re.compile(path))] * times

    def release(self) -> None:
        """Let go of what is held: it is answered with an error."""
        self._released.set()

    def sign(self, claims: Claims, **headers: Any) -> str:
        """An ID token with these claims, by the key in use."""
        key = self.keys[0]
        return jwt.encode(claims, key.private, algorithm=key.algorithm, headers={"kid": key.kid, **headers})

    def public_pem(self) -> bytes:
        """The public key in use, as everybody can have it."""
        return (
            self.keys[0]
            .private.public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )

    # -- what it answers

    async def _discovery(self, request: web.Request) -> web.StreamResponse:
        return await self._bad(request) or web.json_response(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/o/authorize",
                "token_endpoint": f"{self.url}/o/token",
                "jwks_uri": f"{self.url}/o/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        """The page on which `browser` agrees at once."""
        query = dict(request.query)
        expected = {"client_id": CLIENT_ID, "response_type": "code", "code_challenge_method": "S256"}
        if any(query.get(name) != wanted for name, wanted in expected.items()) or not query.get("nonce"):
            return web.Response(status=400, text="This app has sent an invalid request.")
        if set(query["scope"].split()) != {"openid", "email", "profile"}:
            return web.Response(status=400, text="Other scopes were expected.")
        code = f"4/{secrets.token_urlsafe(24)}"
        self._codes[code] = (query, self.browser)
        answer = {"code": code, "state": query["state"], "iss": self.url, "scope": query["scope"]}
        raise web.HTTPFound(f"{query['redirect_uri']}?{urlencode(answer)}")

    async def _token(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        if (bad := await self._bad(request)) is not None:
            return bad
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return web.json_response({"error": "invalid_client"}, status=401)
        asked, person = self._codes.pop(form.get("code", ""), (None, None))
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            asked is None
            or person is None
            or form.get("grant_type") != "authorization_code"
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form.get("redirect_uri")
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims: Claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "azp": CLIENT_ID,
            "sub": person.subject,
            "email": person.email,
            "email_verified": person.email_verified,
            "name": person.name,
            "nonce": asked["nonce"],
            "iat": now,
            "exp": now + 3_600,
        }
        forgery, self._forgery = self._forgery, None
        token = forgery(self, claims) if forgery is not None else self.sign(claims)
        return web.json_response(
            {"access_token": "ya29.x", "expires_in": 3_599, "token_type": "Bearer", "id_token": token}
        )

    async def _keys(self, request: web.Request) -> web.StreamResponse:
        return await self._bad(request) or web.json_response({"keys": [key.public_jwk() for key in self.keys]})

    async def _bad(self, request: web.Request) -> web.StreamResponse | None:
        self.calls.append(request.path)
        for number, (fault, path) in enumerate(self._faults):
            if path.search(request.path):
                del self._faults[number]
                if fault is Fault.HELD:
                    self.held.set()
                    await self._released.wait()
                return self._badly(fault, request)
        return None

    def _badly(self, fault: Fault, request: web.Request) -> web.StreamResponse:
        if fault is Fault.CUT_OFF and request.transport is not None:
            request.transport.abort()
        answers = {
            Fault.BROKEN: (503, "<html>Error 503</html>", {}),
            Fault.HTML: (200, "<html>Sorry…</html>", {}),
            Fault.MOVED: (302, "", {"Location": f"{self.url}/o/elsewhere"}),
            Fault.HUGE: (200, json.dumps({"id_token": "x" * HUGE_BYTES}), {}),
            Fault.OTHER_SHAPE: (200, '{"issuer": 7, "keys": {}, "id_token": null}', {}),
        }
        status, text, headers = answers.get(fault, (500, "", {}))
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[OpenIdServer]:
        """Serve on a free port while the block lasts."""
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/o/authorize", self._authorize)
        app.router.add_post("/o/token", self._token)
        app.router.add_get("/o/keys", self._keys)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self._released.set()
            await runner.cleanup()
