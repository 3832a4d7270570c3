"""The clone phase in the real sandbox, against real repositories: what arrives, what is refused and what leaks."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters import processes
from adapters.git import (
    CloneFailure,
    CloneFault,
    Commit,
    Remote,
    Repository,
    Revision,
    clone_failure,
    clone_phase,
    read_commit,
)
from adapters.sandbox.bubblewrap import BubblewrapRunner
from adapters.sandbox.contract import BuildLimits, BuildSpec, Phase, PhaseExit
from settings import Settings
from tests.harness.git_remote import (
    APPS,
    AUTHOR_EMAIL,
    AUTHOR_NAME,
    FIRST_COMMIT_TIME,
    Executable,
    GitRemote,
    Link,
    Submodule,
)

TOKEN = "token-0f9a7c-of-the-keeper"
MAIN = Revision(branch="main")
MEBIBYTE = 2**20
LIMITS = BuildLimits(
    memory_bytes=1024 * MEBIBYTE,
    processes=128,
    disk_bytes=128 * MEBIBYTE,
    egress_bytes=128 * MEBIBYTE,
    file_bytes=64 * MEBIBYTE,
)


@dataclass
class Listener:
    """Keeps what a build says."""

    text: str = ""
    refusals: list[str] = field(default_factory=list)

    async def phase_started(self, phase: Phase) -> None:
        pass

    async def phase_ended(self, exit: PhaseExit) -> None:
        pass

    async def output(self, data: bytes, *, is_error: bool) -> None:
        self.text += data.decode(errors="replace")

    async def refused(self, target: str, reason: str) -> None:
        self.refusals.append(target)


@dataclass(frozen=True)
class Cloned:
    """What became of a clone."""

    source: Path
    exit: PhaseExit
    listener: Listener
    failure: CloneFailure

    @property
    def fault(self) -> CloneFault:
        assert not self.exit.is_success, self.listener.text
        return self.failure.fault

    @property
    def commit(self) -> Commit:
        assert self.exit.is_success, (self.exit, self.listener.text)
        return read_commit(self.source)

    def files(self) -> list[str]:
        return sorted(
            path.relative_to(self.source).as_posix()
            for path in self.source.rglob("*")
            if path.is_symlink() or path.is_file()
        )


def settings_for(remote: GitRemote, **overrides: Any) -> Settings:
    values: dict[str, Any] = {
        "database_url": "postgres://nobody@localhost/none",
        "redis_url": "redis://localhost",
        "secret_keys": f"test:{base64.b64encode(bytes(32)).decode()}",
        "git_protocols": ("https", "http"),
        "build_allowed_hosts": (remote.allowed_host,),
        "build_clone_seconds": 20,
        **overrides,
    }
    return Settings(**values)


class Cloner:
    """Clones into folders of its own."""

    def __init__(self, remote: GitRemote, folder: Path) -> None:
        self.remote = remote
        self._folder = folder
        self._count = 0

    async def __call__(
        self,
        url: str,
        revision: Revision = MAIN,
        *,
        token: str | None = None,
        with_submodules: bool = False,
        stall_seconds: int = 10,
        **overrides: Any,
    ) -> Cloned:
        self._count += 1
        source = self._folder / f"source-{self._count}"
        source.mkdir()
        settings = settings_for(self.remote, **overrides)
        remote = Remote(repository=Repository(url=url, host="", full_name=None, display=url), token=token)
        phase = clone_phase(remote, revision, settings, with_submodules=with_submodules, stall_seconds=stall_seconds)
        spec = BuildSpec(build_id=f"clone-{self._count}", source=source, phases=[phase], limits=LIMITS)
        listener = Listener()
        spawn = partial(processes.spawn, deadline=time.monotonic() + 60)
        result = await BubblewrapRunner(settings).run(spec, listener, spawn)
        (end,) = result.exits
        return Cloned(source, end, listener, clone_failure(end, remote, revision, settings))


@pytest_asyncio.fixture(scope="module")
async def remote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GitRemote]:
    async with GitRemote(tmp_path_factory.mktemp("remote")) as server:
        yield server


@pytest.fixture
def clone(remote: GitRemote, tmp_path: Path) -> Cloner:
    remote.requests.clear()
    return Cloner(remote, tmp_path)


# -- what is not there


async def test_a_branch_that_does_not_exist_is_named(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("none/branch", {"index.html": "Hi"})
    cloned = await clone(remote.url("none/branch"), Revision(branch="nope"))
    assert cloned.fault is CloneFault.BRANCH_NOT_FOUND
    assert "no branch or tag nope" in cloned.failure.message


@pytest.mark.parametrize("is_old_server", [False, True])
async def test_a_commit_that_does_not_exist_is_named(remote: GitRemote, clone: Cloner, is_old_server: bool) -> None:
    name = f"none/commit-{is_old_server}"
    await remote.create(name, {"index.html": "Hi"})
    if is_old_server:
        remote.speak_version_0(name)
    cloned = await clone(remote.url(name), Revision(branch="main", commit="ab" * 20))
    assert cloned.fault is CloneFault.COMMIT_NOT_FOUND
    assert "abababababab" in cloned.failure.message


async def test_a_hash_of_something_else_is_no_commit(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("none/tree", {"index.html": "Hi"})
    tree = (await remote.git("none/tree", "rev-parse", "main^{tree}")).decode().strip()
    cloned = await clone(remote.url("none/tree"), Revision(branch="main", commit=tree))
    assert cloned.fault is CloneFault.COMMIT_NOT_FOUND


@pytest.mark.parametrize("revision", [Revision(branch="main"), Revision()], ids=["branch", "default"])
async def test_an_empty_repository_says_so(remote: GitRemote, clone: Cloner, revision: Revision) -> None:
    if not remote.repository("none/files").exists():
        await remote.create("none/files")
    assert (await clone(remote.url("none/files"), revision)).fault is CloneFault.EMPTY


async def test_a_repository_that_does_not_exist(remote: GitRemote, clone: Cloner) -> None:
    assert (await clone(remote.url("no/such"))).fault is CloneFault.NOT_FOUND


# -- who may have it


async def test_without_a_token_a_private_repository_asks_for_a_login(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("private/closed", {"index.html": "Hi"})
    remote.require_token("private/closed", TOKEN)
    cloned = await clone(remote.url("private/closed"))
    assert cloned.fault is CloneFault.NEEDS_LOGIN
    assert "needs a login" in cloned.failure.message


async def test_a_wrong_token_is_told_from_none(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("private/wrong", {"index.html": "Hi"})
    remote.require_token("private/wrong", TOKEN)
    cloned = await clone(remote.url("private/wrong"), token="another-token")
    assert cloned.fault is CloneFault.LOGIN_REFUSED
    assert "another-token" not in cloned.listener.text


async def test_the_token_opens_and_leaves_no_trace(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("private/open", {"index.html": "Hi"})
    remote.require_token("private/open", TOKEN)
    cloned = await clone(remote.url("private/open"), token=TOKEN)
    assert cloned.commit.message == "First light"
    assert TOKEN not in cloned.listener.text
    needles = [TOKEN.encode(), base64.b64encode(f"x-access-token:{TOKEN}".encode())]
    for path in cloned.source.rglob("*"):
        assert not path.is_file() or not any(needle in path.read_bytes() for needle in needles), path


async def test_the_token_is_in_no_command_line(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("private/watched", {"noise": os.urandom(200_000)})
    remote.require_token("private/watched", TOKEN)
    remote.stall("private/watched", after_bytes=1_000)
    remote.stalled.clear()
    running = asyncio.create_task(clone(remote.url("private/watched"), token=TOKEN))
    async with asyncio.timeout(20):
        await remote.stalled.wait()
    in_arguments, in_environments = await asyncio.to_thread(_processes_that_show, TOKEN.encode())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not in_arguments
    assert in_environments, "the look into /proc saw no process of the clone"


async def test_submodules_do_not_get_the_token(remote: GitRemote, clone: Cloner) -> None:
    secret = await remote.create("private/inner", {"secret": "of somebody else"})
    remote.require_token("private/inner", TOKEN)
    await remote.create("private/outer", _with_submodule("../inner.git", secret))
    remote.require_token("private/outer", TOKEN)
    cloned = await clone(remote.url("private/outer"), token=TOKEN, with_submodules=True)
    assert cloned.fault is CloneFault.SUBMODULE
    inner = [request for request in remote.requests if "/inner" in request.path]
    assert inner
    assert all(request.authorization is None for request in inner)


# -- where it may be


async def test_a_redirect_to_another_server_is_not_followed(remote: GitRemote, clone: Cloner, tmp_path: Path) -> None:
    async with GitRemote(tmp_path / "elsewhere") as elsewhere:
        await elsewhere.create("moved/here", {"index.html": "Hi"})
        remote.redirect("moved/away", elsewhere.url("moved/here"))
        cloned = await clone(
            remote.url("moved/away"), build_allowed_hosts=(remote.allowed_host, elsewhere.allowed_host)
        )
        assert cloned.fault is CloneFault.MOVED
        assert elsewhere.requests == []


async def test_an_address_that_needs_git_at_its_end_is_found(remote: GitRemote, clone: Cloner) -> None:
    commit = await remote.create("moved/suffix", {"index.html": "Hi"})
    remote.require_token("moved/suffix", TOKEN)
    remote.insist_on_suffix("moved/suffix")
    cloned = await clone(f"{remote.base_url}/moved/suffix", token=TOKEN)
    assert cloned.commit.hash == commit


@pytest.mark.parametrize("url", ["http://10.0.0.1/a/b", "https://169.254.169.254/a/b"])
async def test_a_private_address_is_refused_by_the_proxy(clone: Cloner, url: str) -> None:
    cloned = await clone(url)
    assert cloned.fault is CloneFault.HOST_REFUSED
    assert len(cloned.listener.refusals) == 1


@pytest.mark.parametrize("url", ["ssh://git@127.0.0.1/a/b", "git://127.0.0.1/a/b", "ext::sh -c touch% pwned", "/a/b"])
async def test_other_protocols_are_refused(clone: Cloner, url: str) -> None:
    cloned = await clone(url)
    assert cloned.fault is CloneFault.PROTOCOL_REFUSED
    assert all(path.startswith(".git/") for path in cloned.files())


async def test_http_is_refused_where_only_https_is_allowed(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("plain/http", {"index.html": "Hi"})
    cloned = await clone(remote.url("plain/http"), git_protocols=("https",))
    assert cloned.fault is CloneFault.PROTOCOL_REFUSED
    assert remote.requests == []


# -- what is dangerous in it


@pytest.mark.parametrize("url", ["file:///usr", "ssh://git@127.0.0.1/a/b", "ext::sh -c touch% /workspace/pwned"])
async def test_submodules_over_other_protocols_are_refused(remote: GitRemote, clone: Cloner, url: str) -> None:
    name = f"hostile/{url.partition(':')[0]}"
    await remote.create(name, _with_submodule(url, "ab" * 20))
    cloned = await clone(remote.url(name), with_submodules=True)
    assert cloned.fault is CloneFault.SUBMODULE
    assert "not allowed" in cloned.listener.text
    assert not (cloned.source / "pwned").exists()


async def test_a_submodule_whose_address_is_an_option_is_refused_before_use(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("hostile/option", _with_submodule("-u./payload", "ab" * 20))
    assert (await clone(remote.url("hostile/option"))).fault is CloneFault.CORRUPT


async def test_programs_that_a_repository_brings_are_not_run(remote: GitRemote, clone: Cloner) -> None:
    program = Executable("#!/bin/sh\ntouch /workspace/pwned\n")
    names = ("hooks/post-checkout", ".githooks/post-checkout", "post-checkout", "smudge")
    await remote.create(
        "hostile/programs",
        {
            **dict.fromkeys(names, program),
            ".gitattributes": "* filter=own\n",
            ".gitconfig": '[core]\n hooksPath = hooks\n[filter "own"]\n smudge = ./smudge\n',
        },
    )
    cloned = await clone(remote.url("hostile/programs"))
    assert cloned.commit.message == "First light"
    assert not (cloned.source / "pwned").exists()


async def test_links_arrive_as_links(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("hostile/links", {"passwords": Link("/etc/passwd"), "up": Link("../../..")})
    cloned = await clone(remote.url("hostile/links"))
    assert cloned.commit.message == "First light"
    assert (cloned.source / "passwords").readlink() == Path("/etc/passwd")
    assert (cloned.source / "up").readlink() == Path("../../..")


async def test_a_pointer_of_large_file_storage_stays_one(remote: GitRemote, clone: Cloner) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 12345\n"
    await remote.create("large/lfs", {".gitattributes": "*.bin filter=lfs -text\n", "a.bin": pointer})
    cloned = await clone(remote.url("large/lfs"))
    assert cloned.commit.message == "First light"
    assert (cloned.source / "a.bin").read_text() == pointer


# -- how large and how slow


async def test_more_bytes_than_allowed_are_not_fetched(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("large/noise", {"noise": os.urandom(3 * MEBIBYTE)})
    cloned = await clone(remote.url("large/noise"), git_max_megabytes=2)
    assert cloned.fault is CloneFault.TOO_LARGE
    assert "at most 2 MB" in cloned.failure.message
    assert "File too large" in cloned.listener.text  # while they came, not afterwards


@pytest.mark.parametrize(
    "files", [{"zeros": b"\0" * 3 * MEBIBYTE}, {f"{n}": "" for n in range(600)}], ids=["one", "many"]
)
async def test_a_small_pack_of_large_files_is_not_written(
    remote: GitRemote, clone: Cloner, files: dict[str, str | bytes]
) -> None:
    name = f"large/bomb-{len(files)}"
    await remote.create(name, files)
    cloned = await clone(remote.url(name), git_max_megabytes=2)
    assert cloned.fault is CloneFault.TOO_LARGE
    assert all(path.startswith(".git/") for path in cloned.files())


async def test_a_server_that_stops_sending_is_given_up(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("slow/stalls", {"noise": os.urandom(200_000)})
    remote.stall("slow/stalls", after_bytes=1_000)
    cloned = await clone(remote.url("slow/stalls"), stall_seconds=1)
    assert cloned.fault is CloneFault.STALLED
    assert cloned.failure.is_temporary
    assert cloned.exit.seconds < 8


async def test_a_server_that_breaks_off_may_be_tried_again(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("slow/cut", {"noise": os.urandom(200_000)})
    remote.cut("slow/cut", after_bytes=1_000)
    cloned = await clone(remote.url("slow/cut"))
    assert cloned.fault is CloneFault.UNAVAILABLE
    assert cloned.failure.is_temporary


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_server_may_be_tried_again(remote: GitRemote, clone: Cloner, status: int) -> None:
    remote.fail("slow/busy", status)
    assert (await clone(remote.url("slow/busy"))).fault is CloneFault.UNAVAILABLE


# -- what arrives


async def test_a_branch_arrives_with_the_facts_of_its_commit_and_no_history(remote: GitRemote, clone: Cloner) -> None:
    await remote.create("good/site", {"index.html": "old", "gone.html": "x"})
    commit = await remote.commit(
        "good/site", {"index.html": "new", "gone.html": None, "run": Executable("#!/bin/sh\n")}, message="Größer\n\nwhy"
    )
    cloned = await clone(remote.url("good/site"))
    found = cloned.commit
    assert (found.hash, found.author_name, found.author_email) == (commit, AUTHOR_NAME, AUTHOR_EMAIL)
    assert found.committed_at is not None
    assert found.committed_at.timestamp() >= FIRST_COMMIT_TIME
    assert (found.subject, found.message) == ("Größer", "Größer\n\nwhy")
    assert cloned.files() == [".git/switchyard-commit", "index.html", "run"]
    assert (cloned.source / "index.html").read_text() == "new"
    assert (cloned.source / "run").stat().st_mode & 0o100


async def test_the_default_branch_and_others_and_tags_can_be_asked_for(remote: GitRemote, clone: Cloner) -> None:
    first = await remote.create("good/refs", {"a": "1"}, branch="trunk")
    await remote.tag("good/refs", "v1.0", first, message="Released")
    second = await remote.commit("good/refs", {"a": "2"}, branch="trunk")
    third = await remote.commit("good/refs", {"a": "3"}, branch="feature/lamp", start="trunk")
    asked = [Revision(), Revision(branch="v1.0"), Revision(branch="feature/lamp")]
    found = [(await clone(remote.url("good/refs"), revision)).commit.hash for revision in asked]
    assert found == [second, first, third]


@pytest.mark.parametrize("is_old_server", [False, True])
async def test_an_older_commit_arrives_from_every_server(remote: GitRemote, clone: Cloner, is_old_server: bool) -> None:
    name = f"good/older-{is_old_server}"
    first = await remote.create(name, {"a": "1"})
    await remote.commit(name, {"a": "2"})
    if is_old_server:
        remote.speak_version_0(name)
    cloned = await clone(remote.url(name), Revision(branch="main", commit=first))
    assert cloned.commit.hash == first
    assert (cloned.source / "a").read_text() == "1"


async def test_submodules_arrive_when_asked_for(remote: GitRemote, clone: Cloner) -> None:
    inner = await remote.create("good/inner", {"inside": "x"})
    await remote.create("good/outer", _with_submodule("../inner.git", inner))
    without = await clone(remote.url("good/outer"))
    assert without.commit.message == "First light"
    assert without.files() == [".git/switchyard-commit", ".gitmodules"]
    cloned = await clone(remote.url("good/outer"), with_submodules=True)
    assert cloned.commit.message == "First light"
    assert cloned.files() == [".git/switchyard-commit", ".gitmodules", "inner/inside"]


async def test_repositories_with_sha256_arrive(remote: GitRemote, clone: Cloner) -> None:
    commit = await remote.create("good/sha256", {"a": "1"}, object_format="sha256")
    assert len(commit) == 64
    for revision in (Revision(branch="main"), Revision(commit=commit)):
        assert (await clone(remote.url("good/sha256"), revision)).commit.hash == commit


async def test_words_of_the_author_cannot_forge_facts(remote: GitRemote, clone: Cloner) -> None:
    commit = await remote.create("good/words")
    commit = await remote.commit(
        "good/words", {"a": "1"}, message=f"{'ab' * 20}\n\x01\x1b[31m", author="Eve 'ab; $(id) <eve@x>"
    )
    found = (await clone(remote.url("good/words"))).commit
    assert (found.hash, found.author_name) == (commit, "Eve 'ab; $(id)")
    assert found.subject == "ab" * 20


async def test_a_whole_application_arrives(remote: GitRemote, clone: Cloner) -> None:
    await remote.push_folder("good/app", APPS / "vite-react")
    cloned = await clone(remote.url("good/app"))
    assert cloned.commit.subject == "A folder of files"
    assert (cloned.source / "package-lock.json").read_bytes() == (APPS / "vite-react/package-lock.json").read_bytes()


def _with_submodule(url: str, commit: str) -> dict[str, str | Submodule]:
    return {
        ".gitmodules": f'[submodule "inner"]\n\tpath = inner\n\turl = "{url}"\n',
        "inner": Submodule(commit),
    }


def _processes_that_show(needle: bytes) -> tuple[list[bytes], list[bytes]]:
    """Command lines of the processes that have the needle in their arguments, and in their environment."""
    found: tuple[list[bytes], list[bytes]] = ([], [])
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
        for place, text in enumerate((command, environment)):
            if needle in text:
                found[place].append(command)
    return found
