"""What people may write where a repository, a branch or a commit is asked for.

Invariant: what passes here is safe as an argument of git after `--`, holds no credentials and no control characters,
and has one spelling. Whether such a thing exists, and whether its host may be reached, shows when it is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from adapters.addresses import DEFAULT_PORTS, AddressGuard, BlockedAddress
from errors import ValidationFailed
from settings import Settings

URL_CHARACTERS = 500
BRANCH_BYTES = 240  # a branch is a file below .git/refs/heads, and names of files end at 255 bytes

FieldPath = Sequence[str | int]

# GitHub's rules: an owner has letters, digits and single hyphens, a name has these, dots, hyphens and underscores.
_OWNER = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})"
_NAME = r"[A-Za-z0-9._-]{1,100}"
_FULL_NAME = re.compile(rf"({_OWNER})/({_NAME})")
_URL_PATH = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%(?!00|0[ADad])[0-9A-Fa-f]{2})+)+")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:::|://)")
_SCP = re.compile(r"[^/\s]+@[^/\s:]+:.+")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_COMMIT = re.compile(r"[0-9a-f]{4,63}")
# git-check-ref-format(1), rules 4, 5 and 10.
_BRANCH_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository's address: `url` is for git, `full_name` is `owner/name` on the settings' GitHub, else None."""

    url: str
    host: str
    full_name: str | None
    display: str

    @property
    def key(self) -> str:
        """Equal for two spellings of the same repository: without `.git`, and on GitHub whatever the letter case."""
        bare = self.url.removesuffix(".git")
        return bare.lower() if self.full_name is not None else bare


def normalise_repository(text: str, settings: Settings, *, path: FieldPath = ()) -> Repository:
    """Read `owner/name` on GitHub, or the URL of any repository.

    Raises ValidationFailed that says what to write instead; `path` leads to the text inside the operation's input.
    """
    text = text.strip()
    if not text or len(text) > URL_CHARACTERS:
        raise ValidationFailed(f"Enter a repository, in at most {URL_CHARACTERS} characters.", path=path)
    if not text.isascii() or not text.isprintable() or " " in text or "\\" in text:
        raise ValidationFailed(
            "A repository's address has no spaces, control characters, backslashes or letters beyond ASCII.", path=path
        )
    match = _FULL_NAME.fullmatch(text.rstrip("/"))
    if match is not None:
        return _on_github(match[1], match[2], settings, path)
    scheme = _SCHEME.match(text)
    if scheme is None and _SCP.fullmatch(text) is None:
        raise ValidationFailed(
            f"Enter owner/name for a repository on GitHub, or an address that begins with {_allowed(settings)}.",
            path=path,
        )
    if scheme is None or scheme[1].lower() not in settings.git_protocols or not scheme[0].endswith("://"):
        raise ValidationFailed(
            f"Repositories are fetched over {' or '.join(settings.git_protocols)} only: enter the address that begins "
            f"with {_allowed(settings)}.",
            path=path,
        )
    return _from_url(text, settings, path)


def check_branch(name: str, *, path: FieldPath = ()) -> str:
    """The name of a branch or tag as it is, if git allows it: git-check-ref-format(1) and its `--branch`.

    Raises ValidationFailed.
    """
    parts = name.split("/")
    if (
        not name
        or name.startswith("-")
        or name in {"@", "HEAD"}
        or name.endswith(".")
        or ".." in name
        or "@{" in name
        or _BRANCH_FORBIDDEN.search(name)
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    ):
        raise ValidationFailed("Git does not allow such a name for a branch.", path=path)
    if not _is_text(name) or len(name.encode()) > BRANCH_BYTES:
        raise ValidationFailed(f"A branch has at most {BRANCH_BYTES} bytes.", path=path)
    return name


def check_commit(text: str, *, path: FieldPath = ()) -> str:
    """The hash of a commit in lower case: 40 hexadecimal digits, or 64 in a repository that uses SHA-256.

    Raises ValidationFailed.
    """
    commit = text.strip().lower()
    if _COMMIT.fullmatch(commit):
        return commit
    if _SHORT_COMMIT.fullmatch(commit):
        raise ValidationFailed(
            "A shortened hash cannot be fetched: enter all 40 digits, which `git rev-parse HEAD` shows.", path=path
        )
    raise ValidationFailed("A commit is a hash of 40 hexadecimal digits.", path=path)


def _from_url(text: str, settings: Settings, path: FieldPath) -> Repository:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValidationFailed("The repository's address is malformed.", path=path) from None
    if "@" in parts.netloc:
        raise ValidationFailed(
            "A repository's address must not hold a user name, password or token. For private repositories connect "
            "GitHub, which keeps the token encrypted.",
            path=path,
        )
    if "?" in text or "#" in text:
        raise ValidationFailed("A repository's address has no ? and no #.", path=path)
    spelled_host = f"[{host}]" if ":" in host else host
    authority = spelled_host if port in {None, DEFAULT_PORTS[parts.scheme]} else f"{spelled_host}:{port}"
    github = urlsplit(settings.github_url)
    place = parts.path.rstrip("/")
    if (parts.scheme, authority) == (github.scheme, github.netloc.lower()) and place.startswith(f"{github.path}/"):
        match = _FULL_NAME.fullmatch(place.removeprefix(f"{github.path}/"))
        if match is None:
            raise ValidationFailed(
                f"Enter the address of the repository itself: {settings.github_url}/owner/name.", path=path
            )
        return _on_github(match[1], match[2], settings, path)
    if not _URL_PATH.fullmatch(place) or {".", ".."} & set(place.split("/")):
        raise ValidationFailed("The repository's address needs a path, without empty parts or dots alone.", path=path)
    url = f"{parts.scheme}://{authority}{place}"
    guard = AddressGuard.from_settings(settings.build_allowed_hosts)
    try:
        guard.check_url(url)
    except BlockedAddress as refusal:
        raise ValidationFailed(f"The repository cannot be fetched: {refusal.reason}.", path=path) from None
    return Repository(url=url, host=authority, full_name=None, display=f"{authority}{place.removesuffix('.git')}")


def _on_github(owner: str, name: str, settings: Settings, path: FieldPath) -> Repository:
    name = name.removesuffix(".git")
    if name in {"", ".", ".."}:
        raise ValidationFailed("A repository on GitHub has a name after the slash.", path=path)
    full_name = f"{owner}/{name}"
    return Repository(
        url=f"{settings.github_url}/{full_name}",
        host=urlsplit(settings.github_url).netloc.lower(),
        full_name=full_name,
        display=full_name,
    )


def _allowed(settings: Settings) -> str:
    return " or ".join(f"{protocol}://" for protocol in settings.git_protocols)


def _is_text(name: str) -> bool:
    """Whether it can be written as UTF-8; lone halves of surrogate pairs cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
