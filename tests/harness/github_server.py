"""A GitHub on loopback: OAuth with PKCE, repositories, webhooks, deployments and statuses, and every way to fail.

It is real HTTP, and each request and each success is held against GitHub's published description; what breaks it is
kept in `violations`, which fixtures look at in the end. It is a stand-in and no proof: what GitHub does beyond its
description is not here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from tests.harness import github_schema

CLIENT_ID = "Iv1.0123456789abcdef"
CLIENT_SECRET = "stand-in-client-secret"
HUGE_BYTES = 50 * 2**20
_PREFIX = "/api/v3"


class Fault(StrEnum):
    """How an answer can be bad."""

    UNAUTHORIZED = "UNAUTHORIZED"
    FORBIDDEN = "FORBIDDEN"
    RATE_LIMITED = "RATE_LIMITED"
    SECONDARY_LIMIT = "SECONDARY_LIMIT"
    NOT_FOUND = "NOT_FOUND"
    MOVED = "MOVED"
    BROKEN = "BROKEN"
    HANGING = "HANGING"
    HELD = "HELD"
    CUT_OFF = "CUT_OFF"
    GARBAGE = "GARBAGE"
    OTHER_SHAPE = "OTHER_SHAPE"
    HUGE = "HUGE"


@dataclass
class Repository:
    """A repository: its branches with their commits, and files that all of them have."""

    full_name: str
    is_private: bool = False
    branches: dict[str, str] = field(default_factory=lambda: {"main": "a" * 40})
    default_branch: str = "main"
    pushed_at: str | None = "2026-01-02T03:04:05Z"
    members: set[str] = field(default_factory=set)
    files: dict[str, str] = field(default_factory=dict)
    hooks: dict[int, dict[str, Any]] = field(default_factory=dict)
    deployments: dict[int, dict[str, Any]] = field(default_factory=dict)
    deployment_statuses: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    commit_statuses: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """What the API was asked."""

    method: str
    path: str
    token: str | None
    body: Any


class _Refusal(Exception):
    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status, self.headers, self.body = status, headers or {}, {"message": message, **more}


class GitHubServer:
    """The stand-in. Its state is there to be read and changed by tests."""

    def __init__(self) -> None:
        self.url = ""
        self.repositories: dict[str, Repository] = {}
        self.users: dict[str, int] = {}
        self.tokens: dict[str, str] = {}
        self.browser_login = "octocat"
        self.granted_scopes: str | None = None
        self.emails: dict[str, list[dict[str, Any]]] = {}
        self.calls: list[Call] = []
        self.violations: list[str] = []
        self.hanging = asyncio.Event()
        self._codes: dict[str, dict[str, str]] = {}
        self._faults: list[tuple[Fault, re.Pattern[str]]] = []
        self._ids = itertools.count(1_000)
        self._released = asyncio.Event()

    @property
    def api_url(self) -> str:
        """Base of the API."""
        return self.url + _PREFIX

    @property
    def settings(self) -> dict[str, str]:
        """What a program that uses this GitHub has in its environment."""
        return {
            "GITHUB_URL": self.url,
            "GITHUB_API_URL": self.api_url,
            "GITHUB_CLIENT_ID": CLIENT_ID,
            "GITHUB_CLIENT_SECRET": CLIENT_SECRET,
        }

    def add_user(self, login: str) -> str:
        """Somebody with an account, and a token of theirs with the scope `repo`."""
        self.users.setdefault(login, next(self._ids))
        token = f"gho_{secrets.token_hex(18)}"
        self.tokens[token] = login
        return token

    def add_repository(self, full_name: str, **changes: Any) -> Repository:
        """A repository; its owner is a member."""
        repository = Repository(full_name, **changes)
        repository.members.add(full_name.partition("/")[0])
        self.repositories[full_name.lower()] = repository
        return repository

    def fail(self, fault: Fault, path: str = "", *, times: int = 1) -> None:
        """Answer the next calls whose path, with its query, matches badly."""
        self._faults += [(fault, re.compile(path))] * times

    def release(self) -> None:
        """Let go of what is held: it is answered well."""
        self._released.set()

    def calls_of(self, method: str, path: str) -> list[Call]:
        """The calls whose path matches."""
        return [call for call in self.calls if call.method == method and re.search(path, call.path)]

    # -- OAuth

    async def _authorize(self, request: web.Request) -> web.StreamResponse:
        """The page on which `browser_login` agrees at once."""
        query = dict(request.query)
        if query.get("client_id") != CLIENT_ID or query.get("code_challenge_method") != "S256":
            return web.json_response({"error": "application_suspended"}, status=400)
        code = secrets.token_hex(10)
        self._codes[code] = query
        raise web.HTTPFound(f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}")

    async def _access_token(self, request: web.Request) -> web.StreamResponse:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.calls.append(Call("POST", request.path, None, form))
        if (bad := await self._bad(request)) is not None:
            return bad
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return web.json_response({"error": "incorrect_client_credentials"})
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if asked is None or asked["code_challenge"] != challenge or asked["redirect_uri"] != form.get("redirect_uri"):
            return web.json_response({"error": "bad_verification_code", "error_description": "incorrect or expired"})
        token = self.add_user(self.browser_login)
        scopes = asked["scope"].replace(" ", ",") if self.granted_scopes is None else self.granted_scopes
        return web.json_response({"access_token": token, "scope": scopes, "token_type": "bearer"})

    # -- the API

    async def _api(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix(_PREFIX)
        body = await request.json() if request.can_read_body else None
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or None
        self.calls.append(Call(request.method, path, token, body))
        if (bad := await self._bad(request)) is not None:
            return bad
        found = _route(request.method, path)
        if found is None:
            return web.json_response({"message": "Not Found"}, status=404)
        template, arguments = found
        for header, expected in (("Accept", "application/vnd.github+json"), ("X-GitHub-Api-Version", "2022-11-28")):
            if request.headers.get(header) != expected:
                self.violations.append(f"{request.method} {path}: {header} is {request.headers.get(header)}")
        for fault in github_schema.request_faults(request.method, template, body, dict(request.query)):
            self.violations.append(f"{request.method} {path}: {fault}")
        try:
            login = self._login(request, token)
            status, answer = _HANDLERS[request.method, template](self, login, arguments, body, dict(request.query))
        except _Refusal as refusal:
            return web.json_response(refusal.body, status=refusal.status, headers=refusal.headers)
        for fault in github_schema.answer_faults(request.method, template, status, answer):
            self.violations.append(f"answer to {request.method} {path}: {fault}")
        return web.Response(status=204) if answer is None else web.json_response(answer, status=status)

    def _login(self, request: web.Request, token: str | None) -> str:
        authorization = request.headers.get("Authorization", "")
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if authorization == f"Basic {basic}":
            return ""
        if token not in self.tokens:
            raise _Refusal(401, "Bad credentials")
        return self.tokens[token]

    async def _bad(self, request: web.Request) -> web.StreamResponse | None:
        for number, (fault, path) in enumerate(self._faults):
            if path.search(request.path_qs):
                del self._faults[number]
                return await self._badly(fault, request)
        return None

    async def _badly(self, fault: Fault, request: web.Request) -> web.StreamResponse | None:
        if fault in (Fault.HANGING, Fault.HELD):
            self.hanging.set()
            await self._released.wait()
        if fault is Fault.HELD:
            return None
        if fault in (Fault.CUT_OFF, Fault.HANGING) and request.transport is not None:
            request.transport.abort()
        reset = str(int(time.time()) + 120)
        answers: dict[Fault, tuple[int, str, dict[str, str]]] = {
            Fault.UNAUTHORIZED: (401, '{"message": "Bad credentials"}', {}),
            Fault.FORBIDDEN: (
                403,
                '{"message": "Must have admin rights to Repository."}',
                {"X-RateLimit-Remaining": "9"},
            ),
            Fault.RATE_LIMITED: (
                403,
                '{"message": "API rate limit exceeded"}',
                {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset},
            ),
            Fault.SECONDARY_LIMIT: (429, '{"message": "Slow down"}', {"Retry-After": "7"}),
            Fault.NOT_FOUND: (404, '{"message": "Not Found"}', {}),
            Fault.MOVED: (301, '{"message": "Moved Permanently"}', {"Location": f"{self.api_url}/user"}),
            Fault.BROKEN: (502, "<html>Unicorn!</html>", {}),
            Fault.GARBAGE: (200, '{"id": 1, "login"', {}),
            Fault.OTHER_SHAPE: (200, '{"id": "one", "login": 7}', {}),
            Fault.HUGE: (200, "[" + " " * HUGE_BYTES + "]", {}),
        }
        status, text, headers = answers.get(fault, (500, "", {}))
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")

    # -- what the handlers below share

    def repository(self, login: str, arguments: dict[str, str]) -> Repository:
        """The repository of a path, if the account may see it."""
        found = self.repositories.get(f"{arguments['owner']}/{arguments['repo']}".lower())
        if found is None or (found.is_private and login not in found.members):
            raise _Refusal(404, "Not Found")
        return found

    def administered(self, login: str, arguments: dict[str, str]) -> Repository:
        """The same, if the account may change it."""
        found = self.repository(login, arguments)
        if login not in found.members:
            raise _Refusal(404, "Not Found")
        return found

    def next_id(self) -> int:
        """An id that nothing has."""
        return next(self._ids)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[GitHubServer]:
        """Serve on a free port while the block lasts."""
        app = web.Application()
        app.router.add_get("/login/oauth/authorize", self._authorize)
        app.router.add_post("/login/oauth/access_token", self._access_token)
        app.router.add_route("*", _PREFIX + "/{path:.*}", self._api)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            self._released.set()
            await runner.cleanup()


Handler = Callable[[GitHubServer, str, dict[str, str], Any, dict[str, str]], tuple[int, Any]]
_HANDLERS: dict[tuple[str, str], Handler] = {}


def _route(method: str, path: str) -> tuple[str, dict[str, str]] | None:
    for known_method, template in _HANDLERS:
        # A ref and a path may hold slashes.
        pattern = re.sub(
            r"\{(\w+)\}", lambda m: f"(?P<{m[1]}>{'.*' if m[1] in ('path', 'ref') else '[^/]+'})", template
        )
        if known_method == method and (match := re.fullmatch(pattern, path)):
            return template, match.groupdict()
    return None


def _answers(method: str, template: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _HANDLERS[method, template] = handler
        return handler

    return register


def _page(entries: list[Any], query: dict[str, str]) -> list[Any]:
    size, number = int(query.get("per_page", "30")), int(query.get("page", "1"))
    return entries[(number - 1) * size : number * size]


@_answers("GET", "/user")
def _user(server: GitHubServer, login: str, *_: Any) -> tuple[int, Any]:
    return 200, {**github_schema.example("GET", "/user"), "login": login, "id": server.users[login]}


@_answers("GET", "/user/emails")
def _emails(server: GitHubServer, login: str, *_: Any) -> tuple[int, Any]:
    entry = github_schema.example("GET", "/user/emails")[0]
    if login in server.emails:
        return 200, [{**entry, **each} for each in server.emails[login]]
    others = {**entry, "email": "old@example.com", "primary": False}
    return 200, [others, {**entry, "email": f"{login}@example.com", "primary": True, "verified": True}]


@_answers("GET", "/user/repos")
def _user_repos(server: GitHubServer, login: str, _: Any, _body: Any, query: dict[str, str]) -> tuple[int, Any]:
    mine = [each for each in server.repositories.values() if login in each.members]
    mine.sort(key=lambda each: each.pushed_at or "", reverse=True)
    shape = github_schema.example("GET", "/user/repos")[0]
    return 200, [{**shape, **_fields(server, each)} for each in _page(mine, query)]


@_answers("GET", "/repos/{owner}/{repo}")
def _repo(server: GitHubServer, login: str, arguments: dict[str, str], *_: Any) -> tuple[int, Any]:
    shape = github_schema.example("GET", "/repos/{owner}/{repo}")
    for left_out in ("source", "parent"):
        shape.pop(left_out, None)
    return 200, {**shape, "language": None, **_fields(server, server.repository(login, arguments))}


def _fields(server: GitHubServer, repository: Repository) -> dict[str, Any]:
    return {
        "full_name": repository.full_name,
        "name": repository.full_name.rpartition("/")[2],
        "private": repository.is_private,
        "default_branch": repository.default_branch,
        "pushed_at": repository.pushed_at,
        "clone_url": f"{server.url}/{repository.full_name}.git",
    }


@_answers("GET", "/repos/{owner}/{repo}/branches")
def _branches(
    server: GitHubServer, login: str, arguments: dict[str, str], _: Any, query: dict[str, str]
) -> tuple[int, Any]:
    shape = github_schema.example("GET", "/repos/{owner}/{repo}/branches")[0]
    shape.pop("protection")
    branches = server.repository(login, arguments).branches
    entries = [
        {**shape, "name": name, "protected": name == "main", "commit": {**shape["commit"], "sha": commit}}
        for name, commit in sorted(branches.items())
    ]
    return 200, _page(entries, query)


@_answers("GET", "/repos/{owner}/{repo}/commits/{ref}/status")
def _combined_status(
    server: GitHubServer, login: str, arguments: dict[str, str], _: Any, query: dict[str, str]
) -> tuple[int, Any]:
    answer = github_schema.example("GET", "/repos/{owner}/{repo}/commits/{ref}/status")
    shape = answer["statuses"][0]
    latest: dict[str, Any] = {}
    for status in server.repository(login, arguments).commit_statuses.get(arguments["ref"], []):
        latest[status["context"].lower()] = {**shape, **status}
    return 200, {**answer, "statuses": _page(list(latest.values()), query), "total_count": len(latest)}


@_answers("GET", "/repos/{owner}/{repo}/commits/{ref}")
def _commit(server: GitHubServer, login: str, arguments: dict[str, str], *_: Any) -> tuple[int, Any]:
    repository = server.repository(login, arguments)
    commit = repository.branches.get(arguments["ref"].removeprefix("heads/"))
    if commit is None:
        raise _Refusal(422, f"No commit found for SHA: {arguments['ref']}")
    answer = github_schema.example("GET", "/repos/{owner}/{repo}/commits/{ref}")
    answer.pop("files")
    return 200, {**answer, "sha": commit, "commit": {**answer["commit"], "message": "Say hello"}}


@_answers("GET", "/repos/{owner}/{repo}/contents/{path}")
def _contents(server: GitHubServer, login: str, arguments: dict[str, str], *_: Any) -> tuple[int, Any]:
    files, path = server.repository(login, arguments).files, arguments["path"].strip("/")
    template = "/repos/{owner}/{repo}/contents/{path}"
    if path in files:
        content = files[path].encode()
        shape = github_schema.example("GET", template, name="file")
        return 200, {
            **shape,
            "name": path.rpartition("/")[2],
            "path": path,
            "size": len(content),
            "content": base64.encodebytes(content).decode(),
        }
    below = {name.removeprefix(f"{path}/" if path else "") for name in files if not path or name.startswith(f"{path}/")}
    if not below:
        raise _Refusal(404, "Not Found")
    shape = github_schema.example("GET", template, name="directory")[0]
    names = {name.partition("/")[0]: "dir" if "/" in name else "file" for name in sorted(below)}
    return 200, [{**shape, "name": name, "type": kind} for name, kind in names.items()]


@_answers("GET", "/repos/{owner}/{repo}/hooks")
def _hooks(server: GitHubServer, login: str, arguments: dict[str, str], *_: Any) -> tuple[int, Any]:
    return 200, list(server.administered(login, arguments).hooks.values())


@_answers("POST", "/repos/{owner}/{repo}/hooks")
def _create_hook(server: GitHubServer, login: str, arguments: dict[str, str], body: Any, _: Any) -> tuple[int, Any]:
    repository = server.administered(login, arguments)
    if any(hook["config"]["url"] == body["config"]["url"] for hook in repository.hooks.values()):
        errors = [{"resource": "Hook", "code": "custom", "message": "Hook already exists on this repository"}]
        raise _Refusal(422, "Validation Failed", errors=errors)
    shape = github_schema.example("POST", "/repos/{owner}/{repo}/hooks")
    hook = {**shape, **body, "id": server.next_id()}
    repository.hooks[hook["id"]] = hook
    return 201, hook


@_answers("PATCH", "/repos/{owner}/{repo}/hooks/{hook_id}")
def _update_hook(server: GitHubServer, login: str, arguments: dict[str, str], body: Any, _: Any) -> tuple[int, Any]:
    hook = server.administered(login, arguments).hooks.get(int(arguments["hook_id"]))
    if hook is None:
        raise _Refusal(404, "Not Found")
    hook.update(body)
    return 200, hook


@_answers("DELETE", "/repos/{owner}/{repo}/hooks/{hook_id}")
def _delete_hook(server: GitHubServer, login: str, arguments: dict[str, str], *_: Any) -> tuple[int, Any]:
    if server.administered(login, arguments).hooks.pop(int(arguments["hook_id"]), None) is None:
        raise _Refusal(404, "Not Found")
    return 204, None


@_answers("GET", "/repos/{owner}/{repo}/deployments")
def _deployments(
    server: GitHubServer, login: str, arguments: dict[str, str], _: Any, query: dict[str, str]
) -> tuple[int, Any]:
    found = [
        each
        for each in reversed(server.repository(login, arguments).deployments.values())
        if each["sha"] == query.get("sha", each["sha"])
        and each["environment"] == query.get("environment", each["environment"])
    ]
    return 200, _page(found, query)


@_answers("POST", "/repos/{owner}/{repo}/deployments")
def _create_deployment(
    server: GitHubServer, login: str, arguments: dict[str, str], body: Any, _: Any
) -> tuple[int, Any]:
    repository = server.administered(login, arguments)
    if body["ref"] not in repository.branches.values():
        raise _Refusal(422, f"No ref found for: {body['ref']}")
    shape = github_schema.example("POST", "/repos/{owner}/{repo}/deployments")
    kept = {name: body[name] for name in ("ref", "environment", "payload", "description", "transient_environment")}
    made = {**shape, **kept, "sha": body["ref"], "id": server.next_id()}
    repository.deployments[made["id"]] = made
    return 201, made


@_answers("GET", "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses")
def _deployment_statuses(
    server: GitHubServer, login: str, arguments: dict[str, str], _: Any, query: dict[str, str]
) -> tuple[int, Any]:
    statuses = server.repository(login, arguments).deployment_statuses.get(int(arguments["deployment_id"]), [])
    return 200, _page(statuses[::-1], query)


@_answers("POST", "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses")
def _create_deployment_status(
    server: GitHubServer, login: str, arguments: dict[str, str], body: Any, _: Any
) -> tuple[int, Any]:
    repository, deployment_id = server.administered(login, arguments), int(arguments["deployment_id"])
    if deployment_id not in repository.deployments:
        raise _Refusal(404, "Not Found")
    shape = github_schema.example("POST", "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses")
    kept = {name: body[name] for name in ("state", "description", "log_url", "environment_url") if name in body}
    status = {**shape, "environment_url": "", **kept, "id": server.next_id()}
    repository.deployment_statuses.setdefault(deployment_id, []).append(status)
    return 201, status


@_answers("POST", "/repos/{owner}/{repo}/statuses/{sha}")
def _create_status(server: GitHubServer, login: str, arguments: dict[str, str], body: Any, _: Any) -> tuple[int, Any]:
    repository = server.administered(login, arguments)
    shape = github_schema.example("POST", "/repos/{owner}/{repo}/statuses/{sha}")
    status = {**shape, **body, "id": server.next_id()}
    repository.commit_statuses.setdefault(arguments["sha"], []).append(
        {name: status[name] for name in ("context", "state", "description", "target_url", "id")}
    )
    return 201, status


@_answers("DELETE", "/applications/{client_id}/token")
def _delete_token(server: GitHubServer, login: str, _: Any, body: Any, _query: Any) -> tuple[int, Any]:
    if login:
        raise _Refusal(401, "Bad credentials")
    if server.tokens.pop(body["access_token"], None) is None:
        raise _Refusal(404, "Not Found")
    return 204, None
