"""A git server for tests: bare repositories over smart HTTP, by git's own server program, on loopback.

    async with GitRemote(tmp_path) as remote:
        commit = await remote.create("octo/site", {"index.html": "<h1>Hi</h1>"})
        later = await remote.commit("octo/site", {"index.html": "<h1>Ho</h1>", "old.html": None})
        await remote.push_folder("octo/app", APPS / "vite-react")
        remote.require_token("octo/site", "s3cret")
        ...  # clone remote.url("octo/site"); remote.requests tells who asked for what

Repositories are named `owner/name` and answer with and without `.git` at the end of their address, as GitHub does, so
`GITHUB_URL=remote.base_url` works too. Programs under test need `GIT_PROTOCOLS=https,http` and
`BUILD_ALLOWED_HOSTS=remote.allowed_host`. A commit takes about ten milliseconds: one `git fast-import`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from aiohttp import web

APPS = Path(__file__).resolve().parents[1] / "sites" / "apps"
"""Small real applications: `vite-react`, `eleventy` (both with a lock file) and `plain`."""

AUTHOR_NAME = "Ada Keeper"
AUTHOR_EMAIL = "ada@keeper.example"
FIRST_COMMIT_TIME = 1_700_000_000
"""Seconds; each commit of a remote comes one second after the one before."""

_ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
}
_COMMAND_SECONDS = 30.0
_CHUNK_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link as the content of a file."""

    target: str


@dataclass(frozen=True, slots=True)
class Executable:
    """The content of a file that may be executed."""

    content: str | bytes


@dataclass(frozen=True, slots=True)
class Submodule:
    """A submodule's place: the commit it is at. The address belongs into `.gitmodules`."""

    commit: str


Content = str | bytes | Link | Executable | Submodule | None
"""What a path holds after a commit; None removes it."""


@dataclass(frozen=True, slots=True)
class GitRequest:
    """One HTTP request that the server saw."""

    method: str
    path: str
    authorization: str | None
    is_version_2: bool


@dataclass(slots=True)
class _Manners:
    """How a repository answers."""

    token: str | None = None
    redirect: str | None = None
    status: int | None = None
    cut_after: int | None = None
    stalls_after: int | None = None
    speaks_version_2: bool = True
    insists_on_suffix: bool = False


@dataclass(slots=True)
class GitRemote:
    """The server; its repositories live below `folder`. All methods may be called while it answers."""

    folder: Path
    requests: list[GitRequest] = field(default_factory=list)
    port: int = 0
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once an answer stands still because of `stall`."""
    _manners: dict[str, _Manners] = field(default_factory=dict)
    _commits: int = 0
    _closing: asyncio.Event = field(default_factory=asyncio.Event)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=256 * 2**20)
        application.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=5.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        assert self._runner is not None
        await self._runner.cleanup()

    # -- addresses

    @property
    def base_url(self) -> str:
        """The server, no slash at the end; a stand-in for `GITHUB_URL`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def allowed_host(self) -> str:
        """The server as `host:port`, for `BUILD_ALLOWED_HOSTS`."""
        return f"127.0.0.1:{self.port}"

    def url(self, name: str) -> str:
        """Where a repository is."""
        return f"{self.base_url}/{name}.git"

    def repository(self, name: str) -> Path:
        """The bare repository on disk."""
        return self.folder / f"{name}.git"

    # -- repositories and commits

    async def create(
        self,
        name: str,
        files: Mapping[str, Content] | None = None,
        *,
        branch: str = "main",
        message: str = "First light",
        object_format: str = "sha1",
    ) -> str:
        """Make a repository whose default branch is `branch`; its first commit, "" and an empty one without files."""
        repository = self.repository(name)
        repository.parent.mkdir(parents=True, exist_ok=True)
        await _git(
            *("init", "--quiet", "--bare", "--template=", f"--initial-branch={branch}"),
            *(f"--object-format={object_format}", "--", str(repository)),
        )
        self._manners[name] = _Manners()
        return await self.commit(name, files, branch=branch, message=message) if files is not None else ""

    async def commit(
        self,
        name: str,
        files: Mapping[str, Content],
        *,
        branch: str = "main",
        message: str = "Keep the lamp burning",
        start: str | None = None,
        author: str = f"{AUTHOR_NAME} <{AUTHOR_EMAIL}>",
    ) -> str:
        """Push a commit that changes these files and leaves the others; its hash.

        A branch that is new begins at `start` (a branch or commit), or with nothing.
        """
        moment = FIRST_COMMIT_TIME + self._commits
        self._commits += 1
        parent: str | None = start
        with suppress(AssertionError):
            parent = await self.tip(name, branch)
        lines = [
            f"commit refs/heads/{branch}\nmark :1\n".encode(),
            f"author {author} {moment} +0000\ncommitter {author} {moment} +0000\n".encode(),
            _data(message.encode()),
            f"from {parent}^0\n".encode() if parent else b"",
            *(_change(path, content) for path, content in files.items()),
            b"\nget-mark :1\ndone\n",
        ]
        said = await self.git(
            name, *("-c", "fastimport.unpackLimit=0", "fast-import", "--quiet"), stdin=b"".join(lines)
        )
        return said.decode().strip()

    async def push_folder(
        self, name: str, folder: Path, *, branch: str = "main", message: str = "A folder of files"
    ) -> str:
        """Commit all of a folder, without following links; makes the repository if there is none; the hash.

        `node_modules`, `.git` and outputs of earlier builds beside the sources (`dist`, `_site`) stay behind.
        """
        files = await asyncio.to_thread(_read_folder, folder)
        if not self.repository(name).exists():
            return await self.create(name, files, branch=branch, message=message)
        return await self.commit(name, files, branch=branch, message=message)

    async def tag(self, name: str, tag: str, commit: str, *, message: str | None = None) -> None:
        """Make a tag, an annotated one if it has a message."""
        who = {"GIT_COMMITTER_NAME": AUTHOR_NAME, "GIT_COMMITTER_EMAIL": AUTHOR_EMAIL}
        kind = ("-a", "-m", message) if message else ()
        await _git("-C", str(self.repository(name)), "tag", *kind, tag, commit, environment=who)

    async def tip(self, name: str, branch: str = "main") -> str:
        """The newest commit of a branch; AssertionError when there is no such branch."""
        said = await self.git(name, "rev-parse", "--verify", "--quiet", f"refs/heads/{branch}")
        return said.decode().strip()

    async def configure(self, name: str, key: str, value: str) -> None:
        """Set the server's git configuration, such as `uploadpack.allowReachableSHA1InWant`."""
        await self.git(name, "config", key, value)

    async def git(self, name: str, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run git in the bare repository; what it printed. AssertionError with its complaint when it fails."""
        return await _git("-C", str(self.repository(name)), *arguments, stdin=stdin)

    # -- manners

    def require_token(self, name: str, token: str | None) -> None:
        """Answer 401 unless the password is this token, whatever the user name; None opens the repository."""
        self._manners[name].token = token

    def redirect(self, name: str, url: str | None) -> None:
        """Send every request of a repository that exists or not to another address, with 301."""
        self._manners.setdefault(name, _Manners()).redirect = url

    def insist_on_suffix(self, name: str) -> None:
        """Send requests without `.git` in their address to the one with it, as GitLab does."""
        self._manners[name].insists_on_suffix = True

    def fail(self, name: str, status: int | None) -> None:
        """Answer everything with this HTTP status."""
        self._manners.setdefault(name, _Manners()).status = status

    def cut(self, name: str, *, after_bytes: int) -> None:
        """Close the connection after so many bytes of objects."""
        self._manners[name].cut_after = after_bytes

    def stall(self, name: str, *, after_bytes: int = 0) -> None:
        """Send so many bytes of objects and then nothing more, until the client gives up."""
        self._manners[name].stalls_after = after_bytes

    def speak_version_0(self, name: str) -> None:
        """Answer as git servers did before 2018, which give no commit that is not the tip of something."""
        self._manners[name].speaks_version_2 = False

    # -- HTTP

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(
            GitRequest(
                method=request.method,
                path=request.path_qs,
                authorization=request.headers.get("Authorization"),
                is_version_2=request.headers.get("Git-Protocol") == "version=2",
            )
        )
        name, has_suffix, rest = _split(request.path)
        manners = self._manners.get(name)
        elsewhere = manners.redirect if manners is not None else None
        if elsewhere is None and manners is not None and manners.insists_on_suffix and not has_suffix:
            elsewhere = self.url(name)
        if elsewhere is not None:
            return web.Response(status=301, headers={"Location": f"{elsewhere}{rest}?{request.query_string}"})
        if manners is not None and manners.status is not None:
            return web.Response(status=manners.status, text="No.\n")
        if manners is None or not rest:
            return web.Response(status=404, text="Not found.\n")
        if manners.token is not None and _password(request) != manners.token:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'}, text="Log in.\n")
        return await self._run_backend(request, manners, f"/{name}.git{rest}")

    async def _run_backend(self, request: web.Request, manners: _Manners, path: str) -> web.StreamResponse:
        # aiohttp has undone the compression of the body, so the server program must not hear of it.
        environment = {
            **_ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "REQUEST_METHOD": request.method,
            "QUERY_STRING": request.query_string,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if manners.speaks_version_2 and "Git-Protocol" in request.headers:
            environment["HTTP_GIT_PROTOCOL"] = request.headers["Git-Protocol"]
        body = await request.read()
        environment["CONTENT_LENGTH"] = str(len(body))
        backend = await asyncio.create_subprocess_exec(
            *("git", "http-backend"),
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert backend.stdin is not None
        assert backend.stdout is not None
        try:
            backend.stdin.write(body)
            backend.stdin.close()
            status, headers = 200, {}
            while line := (await backend.stdout.readline()).strip():
                key, _, value = line.decode().partition(":")
                if key == "Status":
                    status = int(value.split()[0])
                elif key != "Content-Length":
                    headers[key] = value.strip()
            response = web.StreamResponse(status=status, headers=headers)
            await response.prepare(request)
            await self._stream(request, response, backend.stdout, manners)
            if request.transport is not None and not request.transport.is_closing():
                await response.write_eof()
            return response
        finally:
            # Reads what an answer that was cut left over, or it would wait for ever.
            async with asyncio.timeout(_COMMAND_SECONDS):
                await backend.communicate()

    async def _stream(
        self, request: web.Request, response: web.StreamResponse, source: asyncio.StreamReader, manners: _Manners
    ) -> None:
        # Bytes of objects come in answers to POST; the advertisement is left whole.
        limits = [manners.cut_after, manners.stalls_after] if request.method == "POST" else [None, None]
        limit = next((limit for limit in limits if limit is not None), None)
        if limit is not None and _asks_for_refs(await request.read()):
            limit = None
        sent = 0
        while chunk := await source.read(_CHUNK_BYTES):
            if limit is not None and sent + len(chunk) >= limit:
                if limit > sent:
                    await response.write(chunk[: limit - sent])
                if manners.stalls_after is not None:
                    self.stalled.set()
                    await self._until_gone(request)
                if request.transport is not None:
                    request.transport.abort()
                return
            await response.write(chunk)
            sent += len(chunk)

    async def _until_gone(self, request: web.Request) -> None:
        """Until the client has closed the connection or the server closes."""
        while not self._closing.is_set() and request.transport is not None and not request.transport.is_closing():
            try:
                async with asyncio.timeout(0.1):
                    await self._closing.wait()
            except TimeoutError:
                continue


def _split(path: str) -> tuple[str, bool, str]:
    """`/owner/name.git/info/refs` as name, whether it has `.git`, and what the protocol adds."""
    for rest in ("/info/refs", "/git-upload-pack", "/git-receive-pack"):
        if path.endswith(rest):
            name = path.removesuffix(rest).strip("/")
            return name.removesuffix(".git"), name.endswith(".git"), rest
    return path.strip("/").removesuffix(".git"), path.endswith(".git"), ""


def _asks_for_refs(body: bytes) -> bool:
    return b"command=ls-refs" in body


def _password(request: web.Request) -> str | None:
    kind, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if kind != "Basic":
        return None
    try:
        return base64.b64decode(encoded).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _data(content: bytes) -> bytes:
    return b"data %d\n%b\n" % (len(content), content)


def _change(path: str, content: Content) -> bytes:
    """A line of git-fast-import(1) that gives a path its content."""
    quoted = b'"%b"' % path.encode("utf-8", "surrogateescape").replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(
        b"\n", b"\\n"
    )
    match content:
        case None:
            return b"D %b\n" % quoted
        case Submodule(commit=commit):
            return b"M 160000 %b %b\n" % (commit.encode(), quoted)
        case Link(target=target):
            return b"M 120000 inline %b\n%b" % (quoted, _data(target.encode()))
        case Executable(content=inner):
            return b"M 100755 inline %b\n%b" % (quoted, _data(_bytes(inner)))
        case _:
            return b"M 100644 inline %b\n%b" % (quoted, _data(_bytes(content)))


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _read_folder(folder: Path) -> dict[str, Content]:
    files: dict[str, Content] = {}
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in {"node_modules", ".git", "dist", "_site"}]
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for path in (Path(parent) / name for name in [*names, *links]):
            key = path.relative_to(folder).as_posix()
            if path.is_symlink():
                files[key] = Link(str(path.readlink()))
            elif os.access(path, os.X_OK) and path.stat().st_mode & 0o100:
                files[key] = Executable(path.read_bytes())
            else:
                files[key] = path.read_bytes()
    return files


async def _git(*arguments: str, stdin: bytes = b"", environment: Mapping[str, str] | None = None) -> bytes:
    program = shutil.which("git")
    assert program, "tests need git"
    process = await asyncio.create_subprocess_exec(
        *(program, *arguments),
        env={**_ENVIRONMENT, **(environment or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            output, complaint = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"git {arguments}: {complaint.decode(errors='replace')}"
    return output
