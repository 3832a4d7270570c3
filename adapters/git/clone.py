"""The clone phase: what runs in the sandbox to fetch one commit, and what its exit code means.

Invariant: the command is the same for everybody (`clone.sh`); what a user wrote, and the token, travel in the
environment. Git reads no configuration but `_CONFIGURATION`, runs no hook, filter or program of the repository, speaks
only the protocols of the settings, follows no redirect and asks nobody. The token is for the one repository it was
given for: submodules, on the same host too, are fetched without, or a stranger's pull request could fetch and publish
what its owner may read. Afterwards the checkout has no history, of `.git` only the facts about the commit are left, for
`read_commit`: a clone of depth one has no history to show, takes as much disk as the files, and would be published with
a site whose output is the checkout itself.

It leaves out which addresses may be reached, which is the egress proxy's business, and all limits of the sandbox.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path

from adapters.git.names import Repository
from adapters.sandbox.contract import Network, Phase, PhaseEnd, PhaseExit
from settings import Settings

PHASE_NAME = "clone"
STALL_SECONDS = 30
STALL_BYTES_PER_SECOND = 100  # a server that still counts objects sends five bytes every five seconds
TOKEN_USERNAME = "x-access-token"  # noqa: S105 - GitHub takes any name beside a token, others take this one


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A repository and how to get in: `token` is a password for HTTP, None for a public repository."""

    repository: Repository
    token: str | None = field(default=None, repr=False)
    username: str = TOKEN_USERNAME


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What to check out: a commit (full hash), or the tip of a branch or tag, or of the default branch.

    With a commit, the branch is where to look for it on servers that give no commits by their hash.
    """

    branch: str | None = None
    commit: str | None = None


class CloneFault(IntEnum):
    """Why a clone failed, as exit codes of the phase; those of the shell and of signals are left to them."""

    OTHER = 64
    NEEDS_LOGIN = 65
    LOGIN_REFUSED = 66
    NOT_FOUND = 67
    BRANCH_NOT_FOUND = 68
    COMMIT_NOT_FOUND = 69
    EMPTY = 70
    MOVED = 71
    PROTOCOL_REFUSED = 72
    HOST_REFUSED = 73
    UNREACHABLE = 74
    NOT_TRUSTED = 75
    TOO_LARGE = 76
    STALLED = 77
    CORRUPT = 78
    UNAVAILABLE = 79
    SUBMODULE = 80
    NO_GIT = 81


@dataclass(frozen=True, slots=True, kw_only=True)
class CloneFailure:
    """A failed clone: why, what to tell people, and whether the same clone may well work later."""

    fault: CloneFault
    message: str
    is_temporary: bool


def clone_phase(
    remote: Remote,
    revision: Revision,
    settings: Settings,
    *,
    with_submodules: bool = False,
    stall_seconds: int = STALL_SECONDS,
) -> Phase:
    """The phase that checks out `revision` in the folder where it starts, which must be empty.

    `stall_seconds` is how long a server may send next to nothing.
    """
    environment = {
        **_ENVIRONMENT,
        "GIT_ALLOW_PROTOCOL": ":".join(settings.git_protocols),
        "CLONE_URL": remote.repository.url,
        "CLONE_BRANCH": revision.branch or "",
        "CLONE_COMMIT": revision.commit or "",
        "CLONE_OBJECT_FORMAT": "sha256" if len(revision.commit or "") == 64 else "sha1",
        "CLONE_LIMIT_BYTES": str(settings.git_max_megabytes * 2**20),
        "CLONE_SUBMODULES": "yes" if with_submodules else "",
    }
    if remote.token is not None:
        if not (remote.token + remote.username).isprintable():
            raise ValueError("a token or user name holds a control character")
        environment |= {"GIT_USERNAME": remote.username, "GIT_PASSWORD": remote.token}
    configuration = list(_configuration(remote, settings, stall_seconds))
    environment["GIT_CONFIG_COUNT"] = str(len(configuration))
    for number, (key, value) in enumerate(configuration):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return Phase(
        name=PHASE_NAME,
        command=_command(),
        environment=environment,
        network=Network.EGRESS,
        timeout_seconds=settings.build_clone_seconds,
    )


def clone_failure(exit: PhaseExit, remote: Remote, revision: Revision, settings: Settings) -> CloneFailure:
    """What to make of a clone phase that did not succeed."""
    fault = _fault(exit)
    template = _MESSAGES[fault]
    if fault is CloneFault.NEEDS_LOGIN and remote.repository.full_name is None:
        template = _NEEDS_LOGIN_ELSEWHERE
    message = template.format(
        repository=remote.repository.display,
        branch=revision.branch or "the default branch",
        commit=(revision.commit or "")[:12],
        megabytes=settings.git_max_megabytes,
        seconds=settings.build_clone_seconds,
        protocols=" or ".join(f"{protocol}://" for protocol in settings.git_protocols),
    )
    return CloneFailure(fault=fault, message=message, is_temporary=fault in _TEMPORARY)


_MESSAGES = {
    CloneFault.OTHER: "{repository} could not be fetched; the log says what git had to say.",
    CloneFault.NEEDS_LOGIN: "{repository} needs a login, or does not exist: connect GitHub, or check that the address "
    "is right.",
    CloneFault.LOGIN_REFUSED: "The server refuses access to {repository}: connect GitHub again, with an account that "
    "may read it.",
    CloneFault.NOT_FOUND: "There is no repository at {repository}, or the connected account may not see it: check the "
    "address.",
    CloneFault.BRANCH_NOT_FOUND: "{repository} has no branch or tag {branch}: check its name, or push it first.",
    CloneFault.COMMIT_NOT_FOUND: "{repository} has no commit {commit} that can be fetched: it may have been replaced "
    "by a forced push. Deploy a commit that is on a branch.",
    CloneFault.EMPTY: "{repository} is empty: push a first commit.",
    CloneFault.MOVED: "{repository} has moved to another address: enter the new one.",
    CloneFault.PROTOCOL_REFUSED: "{repository} cannot be fetched: its address must begin with {protocols}.",
    CloneFault.HOST_REFUSED: "The host of {repository} may not be reached from builds: its address is not public, or "
    "its port is not open.",
    CloneFault.UNREACHABLE: "The host of {repository} does not answer: check the address, or try again later.",
    CloneFault.NOT_TRUSTED: "The host of {repository} has no certificate that can be trusted.",
    CloneFault.TOO_LARGE: "{repository} is too large: at most {megabytes} MB are checked out. Keep large files "
    "elsewhere.",
    CloneFault.STALLED: "{repository} did not arrive in time (the limit is {seconds} seconds), or its server stopped "
    "sending: try again later.",
    CloneFault.CORRUPT: "{repository} holds objects that git calls corrupt or dangerous; the log names them. "
    "`git fsck` shows them too.",
    CloneFault.UNAVAILABLE: "The server of {repository} broke off or is overloaded: try again later.",
    CloneFault.SUBMODULE: "A submodule of {repository} could not be fetched; the log says which. Submodules must be "
    "public and have addresses that begin with {protocols}, or are relative to the repository's.",
    CloneFault.NO_GIT: "The build environment has no git 2.31 or newer: its operator has to install it.",
}

_NEEDS_LOGIN_ELSEWHERE = (
    "{repository} needs a login, or does not exist: check the address. Private repositories can be fetched from GitHub "
    "only, once it is connected."
)

_TEMPORARY = frozenset({CloneFault.UNREACHABLE, CloneFault.STALLED, CloneFault.UNAVAILABLE})

_ENDS = {
    PhaseEnd.TIMED_OUT: CloneFault.STALLED,
    PhaseEnd.OUT_OF_MEMORY: CloneFault.TOO_LARGE,
    PhaseEnd.DISK_FULL: CloneFault.TOO_LARGE,
    PhaseEnd.EGRESS_LIMIT: CloneFault.TOO_LARGE,
    PhaseEnd.STOPPED: CloneFault.OTHER,
}


def _fault(exit: PhaseExit) -> CloneFault:
    if exit.end is not PhaseEnd.EXITED:
        return _ENDS[exit.end]
    try:
        return CloneFault(exit.exit_code or 0)
    except ValueError:
        return CloneFault.OTHER


_ENVIRONMENT = {
    "LC_ALL": "C",  # the script reads what git says
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_PAGER": "cat",
    # Builds reach their own loopback past the proxy; a clone's 127.0.0.1 is what the operator opened, outside.
    "NO_PROXY": "",
    "no_proxy": "",
}

# Git exports these to the processes it starts, those for submodules included.
_CONFIGURATION = (
    ("protocol.allow", "never"),
    ("http.followRedirects", "false"),  # by default the first one is, to wherever
    ("http.lowSpeedLimit", str(STALL_BYTES_PER_SECOND)),
    ("transfer.credentialsInUrl", "die"),
    ("transfer.bundleURI", "false"),  # a server's hint to load from elsewhere
    ("credential.helper", ""),
    # Objects are judged before use: .gitmodules with options for URLs, .git in other spellings, … Three old faults
    # of otherwise sound histories are let through, as GitLab does; they are about dates and modes.
    ("transfer.fsckObjects", "true"),
    ("fetch.fsckObjects", "true"),
    ("fetch.fsck.badTimezone", "ignore"),
    ("fetch.fsck.missingSpaceBeforeDate", "ignore"),
    ("fetch.fsck.zeroPaddedFilemode", "ignore"),
    ("fetch.unpackLimit", "1"),  # always one pack, so that a limit on files limits it
    ("core.bigFileThreshold", "64m"),  # larger ones are streamed instead of held in memory
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("core.fsync", "none"),  # a checkout that a crash would throw away
    ("filter.lfs.smudge", ""),
    ("filter.lfs.clean", ""),
    ("filter.lfs.process", ""),
    ("filter.lfs.required", "false"),
    ("submodule.recurse", "false"),
    ("safe.directory", "*"),  # the folder may belong to who made it; nothing in it is from elsewhere
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("advice.detachedHead", "false"),
    ("init.defaultBranch", "main"),
)

# `test` fails for the other things that git tells a helper: to store or to forget what it gave.
_CREDENTIAL_HELPER = (
    """!f() { test "$1" = get && printf 'username=%s\\npassword=%s\\n' "$GIT_USERNAME" "$GIT_PASSWORD"; }; f"""
)


def _configuration(remote: Remote, settings: Settings, stall_seconds: int) -> Iterator[tuple[str, str]]:
    yield from _CONFIGURATION
    yield "http.lowSpeedTime", str(stall_seconds)
    for protocol in settings.git_protocols:
        yield f"protocol.{protocol}.allow", "always"
    if remote.token is not None:
        url = remote.repository.url.removesuffix(".git")
        for spelling in (url, f"{url}.git"):
            yield f"credential.{spelling}.helper", _CREDENTIAL_HELPER


@cache
def _command() -> str:
    codes = "".join(f"{fault.name}={fault.value}\n" for fault in CloneFault)
    return codes + Path(__file__).with_name("clone.sh").read_text(encoding="utf-8")
