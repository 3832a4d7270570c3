"""What may be asked for as a repository, a branch or a commit; what a clone phase holds; what is read of a checkout."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.git import (
    CloneFault,
    NoCommit,
    Remote,
    Repository,
    Revision,
    TooLarge,
    check_branch,
    check_commit,
    clone_failure,
    clone_phase,
    is_folder,
    normalise_repository,
    read_commit,
    read_file,
)
from adapters.sandbox.contract import Network, PhaseEnd, PhaseExit
from errors import ValidationFailed
from settings import Settings

HASH = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "token-4c1e"
SITE = Repository(url="https://github.com/octo/site", host="github.com", full_name="octo/site", display="octo/site")


def make_settings(**overrides: Any) -> Settings:
    values: dict[str, Any] = {
        "database_url": "postgres://nobody@localhost/none",
        "redis_url": "redis://localhost",
        "secret_keys": f"test:{base64.b64encode(bytes(32)).decode()}",
        **overrides,
    }
    return Settings(**values)


# -- repositories


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "site",
        "/etc",
        "./site",
        "../site",
        "-octo/site",
        "--upload-pack=id",
        "octo/site/tree",
        "octo/",
        "octo/..",
        "octo/.git",
        "oc to/site",
        "octo/si\nte",
        "octo\\site",
        "öcto/site",
        "git@github.com:octo/site.git",
        "ssh://git@github.com/octo/site",
        "git://example.com/site",
        "file:///srv/site",
        "ext::sh -c id",
        "ext::sh",
        "https::https://example.com/site",
        "https:example.com/site",
        "http://example.com/site",
        "ftp://example.com/site",
        "https://",
        "https:///site",
        "https://example.com",
        "https://example.com/",
        "https://example.com//site",
        "https://example.com/a/../b",
        "https://example.com/a/./b",
        "https://example.com/a%0ab",
        "https://example.com/a%00",
        "https://example.com/a%zz",
        "https://example.com/site?ref=main",
        "https://example.com/site?",
        "https://example.com/site#readme",
        "https://example.com:99999/site",
        "https://example.com:8443/site",
        "https://[::1/site",
        "https://[::1]/site",
        "https://127.0.0.1/site",
        "https://2130706433/site",
        "https://169.254.169.254/latest",
        "https://github.com/octo",
        "https://github.com/octo/site/tree/main",
        f"https://example.com/{'a' * 500}",
    ],
)
def test_what_is_no_address_of_a_repository_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        normalise_repository(text, make_settings(), path=["input", "repository"])
    assert refusal.value.details["path"] == ["input", "repository"]


@pytest.mark.parametrize("credentials", ["user", "user:secret", ":secret", "secret:x-oauth-basic"])
def test_credentials_in_an_address_are_refused_without_repeating_them(credentials: str) -> None:
    with pytest.raises(ValidationFailed, match="connect GitHub") as refusal:
        normalise_repository(f"https://{credentials}@github.com/octo/site", make_settings())
    assert "secret" not in str(refusal.value)


def test_ssh_is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(ValidationFailed, match="https://"):
        normalise_repository("git@github.com:octo/site.git", make_settings())


@pytest.mark.parametrize(
    "text",
    [
        "octo/site",
        " octo/site ",
        "octo/site/",
        "octo/site.git",
        "https://github.com/octo/site",
        "https://github.com/octo/site/",
        "https://github.com/octo/site.git",
        "HTTPS://GitHub.com:443/octo/site.git/",
    ],
)
def test_all_spellings_of_a_repository_on_github_are_one(text: str) -> None:
    found = normalise_repository(text, make_settings())
    assert found == SITE


def test_github_ignores_letter_case_and_others_do_not() -> None:
    assert normalise_repository("Octo/Site", make_settings()).key == SITE.key
    upper = normalise_repository("https://example.com/Octo/Site", make_settings())
    assert upper.key != normalise_repository("https://example.com/octo/site", make_settings()).key


def test_an_enterprise_server_is_github_and_github_com_is_not() -> None:
    ours = make_settings(github_url="https://git.corp.example")
    assert normalise_repository("octo/site", ours).url == "https://git.corp.example/octo/site"
    assert normalise_repository("https://git.corp.example/octo/site.git", ours).full_name == "octo/site"
    elsewhere = normalise_repository("https://github.com/octo/site", ours)
    assert (elsewhere.full_name, elsewhere.host) == (None, "github.com")


def test_other_servers_keep_their_spelling_and_compare_without_it() -> None:
    with_suffix = normalise_repository("https://GitLab.example/group/sub/site.git/", make_settings())
    without = normalise_repository("https://gitlab.example/group/sub/site", make_settings())
    assert with_suffix.url == "https://gitlab.example/group/sub/site.git"
    assert without.url == "https://gitlab.example/group/sub/site"
    assert with_suffix.key == without.key
    assert with_suffix.display == without.display == "gitlab.example/group/sub/site"
    assert with_suffix.full_name is None


def test_what_the_operator_allows_is_an_address() -> None:
    ours = make_settings(git_protocols="https,http", build_allowed_hosts="127.0.0.1:8123")
    assert normalise_repository("http://127.0.0.1:8123/octo/site", ours).host == "127.0.0.1:8123"
    with pytest.raises(ValidationFailed):
        normalise_repository("http://127.0.0.1:8124/octo/site", ours)


@given(st.text(max_size=60))
def test_any_text_is_an_address_without_surprises_or_refused(text: str) -> None:
    try:
        found = normalise_repository(text, make_settings())
    except ValidationFailed:
        return
    assert found.url.startswith("https://")
    assert found.url.isprintable()
    assert found.url.isascii()
    assert "@" not in found.url.split("/")[2]
    assert normalise_repository(found.url, make_settings()) == found


# -- branches and commits


@pytest.mark.parametrize("name", ["main", "feature/lamp", "v1.0", "a.b", "@x", "ünï", "dependabot/npm_and_yarn/x-1.2"])
def test_branches_that_git_allows_pass(name: str) -> None:
    assert check_branch(name) == name


@pytest.mark.parametrize("name", ["a" * 241, "\ud800", "refs\x00", "--upload-pack=id", "HEAD", "@", "a..b", "a b"])
def test_branches_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(ValidationFailed) as refusal:
        check_branch(name, path=["branch"])
    assert refusal.value.details["path"] == ["branch"]


@settings(max_examples=150, deadline=None)
@given(
    st.text(alphabet="ab/.-@{}~^:?*[\\\x7f \x01lock", min_size=1, max_size=12) | st.sampled_from(["a.lock", "a.lock/b"])
)
def test_branches_are_judged_as_git_does(name: str) -> None:
    judged = subprocess.run(["git", "check-ref-format", "--branch", name], capture_output=True, cwd="/", check=False)
    # `@{-1}` and the like are answers of git to another question.
    is_allowed = judged.returncode == 0 and judged.stdout.decode() == f"{name}\n"
    try:
        check_branch(name)
    except ValidationFailed:
        assert not is_allowed or name == "@"
    else:
        assert is_allowed


@pytest.mark.parametrize("text", [HASH, HASH.upper(), f" {HASH} ", "ab" * 32])
def test_full_hashes_pass_in_lower_case(text: str) -> None:
    assert check_commit(text) == text.strip().lower()


@pytest.mark.parametrize("text", ["", "main", "HEAD", "g" * 40, "-" * 40, "٣" * 40, f"{HASH}\nx"])
def test_what_is_no_hash_is_refused(text: str) -> None:
    with pytest.raises(ValidationFailed):
        check_commit(text)


@pytest.mark.parametrize("length", [7, 12, 39, 41, 63])
def test_a_shortened_hash_is_refused_with_the_reason(length: int) -> None:
    with pytest.raises(ValidationFailed, match="all 40 digits"):
        check_commit(("ab" * 32)[:length])


# -- the phase


def test_nothing_of_a_user_is_in_the_command() -> None:
    hostile = Repository(url="https://x.example/$(id);`id`", host="x.example", full_name=None, display="x")
    one = clone_phase(Remote(repository=hostile, token=TOKEN), Revision(branch="$(id)", commit=HASH), make_settings())
    other = clone_phase(Remote(repository=SITE), Revision(), make_settings(), with_submodules=True)
    assert one.command == other.command
    assert one.network is Network.EGRESS
    assert TOKEN not in repr(one)
    assert TOKEN not in repr(Remote(repository=SITE, token=TOKEN))


def test_the_command_is_plain_shell() -> None:
    phase = clone_phase(Remote(repository=SITE), Revision(), make_settings())
    checked = subprocess.run(["sh", "-n", "-c", phase.command], capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


@pytest.mark.parametrize("lacks", ["PATH", "GIT_CONFIG_COUNT"])
def test_without_a_git_that_heeds_the_configuration_nothing_starts(tmp_path: Path, lacks: str) -> None:
    phase = clone_phase(Remote(repository=SITE), Revision(), make_settings())
    environment = {"PATH": os.environ["PATH"], **phase.environment} | {lacks: ""}
    ended = subprocess.run(["/bin/sh", "-c", phase.command], env=environment, cwd=tmp_path, check=False, timeout=10)
    assert ended.returncode == CloneFault.NO_GIT
    assert list(tmp_path.iterdir()) == []


def test_without_a_token_no_helper_is_asked() -> None:
    environment = clone_phase(Remote(repository=SITE), Revision(), make_settings()).environment
    keys = [value for name, value in environment.items() if name.startswith("GIT_CONFIG_KEY_")]
    assert [key for key in keys if key.startswith("credential")] == ["credential.helper"]
    assert "GIT_PASSWORD" not in environment


@pytest.mark.parametrize("token", ["a\nb", "a\0b", "a\rpassword=x"])
def test_a_token_that_could_speak_to_git_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        clone_phase(Remote(repository=SITE, token=token), Revision(), make_settings())


# -- failures


@pytest.mark.parametrize("fault", CloneFault)
def test_every_fault_has_words(fault: CloneFault) -> None:
    exit = PhaseExit(phase="clone", end=PhaseEnd.EXITED, exit_code=fault.value)
    failure = clone_failure(exit, Remote(repository=SITE), Revision(branch="{main}", commit=HASH), make_settings())
    assert failure.fault is fault
    assert failure.message.endswith(".")


@pytest.mark.parametrize(
    ("exit", "fault"),
    [
        (PhaseExit(phase="clone", end=PhaseEnd.TIMED_OUT), CloneFault.STALLED),
        (PhaseExit(phase="clone", end=PhaseEnd.DISK_FULL), CloneFault.TOO_LARGE),
        (PhaseExit(phase="clone", end=PhaseEnd.OUT_OF_MEMORY), CloneFault.TOO_LARGE),
        (PhaseExit(phase="clone", end=PhaseEnd.EGRESS_LIMIT), CloneFault.TOO_LARGE),
        (PhaseExit(phase="clone", end=PhaseEnd.STOPPED), CloneFault.OTHER),
        (PhaseExit(phase="clone", end=PhaseEnd.EXITED, exit_code=2), CloneFault.OTHER),
        (PhaseExit(phase="clone", end=PhaseEnd.EXITED, signal=9), CloneFault.OTHER),
    ],
)
def test_every_end_of_the_phase_is_a_fault(exit: PhaseExit, fault: CloneFault) -> None:
    assert clone_failure(exit, Remote(repository=SITE), Revision(), make_settings()).fault is fault


def test_only_github_offers_to_connect() -> None:
    exit = PhaseExit(phase="clone", end=PhaseEnd.EXITED, exit_code=CloneFault.NEEDS_LOGIN)
    elsewhere = Repository(url="https://x.example/a", host="x.example", full_name=None, display="x.example/a")
    on_github = clone_failure(exit, Remote(repository=SITE), Revision(), make_settings())
    other = clone_failure(exit, Remote(repository=elsewhere), Revision(), make_settings())
    assert "connect GitHub" in on_github.message
    assert "connect GitHub" not in other.message


# -- reading a checkout


def _facts(folder: Path, content: bytes) -> Path:
    (folder / ".git").mkdir()
    (folder / ".git/switchyard-commit").write_bytes(content)
    return folder


@pytest.mark.parametrize("content", [b"", b"\0", b"nonsense\0a\0b\x001\0m", HASH.encode(), b"x" * 70_000])
def test_malformed_facts_are_no_commit(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(NoCommit):
        read_commit(_facts(tmp_path, content))


def test_a_checkout_without_facts_has_no_commit(tmp_path: Path) -> None:
    with pytest.raises(NoCommit):
        read_commit(tmp_path)


@pytest.mark.parametrize("link", [".git", ".git/switchyard-commit"])
def test_facts_behind_a_link_are_not_read(tmp_path: Path, link: str) -> None:
    real = tmp_path / "real"
    real.mkdir()
    _facts(real, f"{HASH}\0Eve\0eve@x\x001\0Hi".encode())
    source = tmp_path / "source"
    source.mkdir()
    if link != ".git":
        (source / ".git").mkdir()
    (source / link).symlink_to(real / link)
    with pytest.raises(NoCommit):
        read_commit(source)


def test_facts_are_cut_to_a_sane_length(tmp_path: Path) -> None:
    facts = f"{HASH}\0{'n' * 999}\0e\x0099999999999999999\0{'m' * 50_000}"
    commit = read_commit(_facts(tmp_path, facts.encode()))
    assert len(commit.author_name) == 200
    assert len(commit.message) == 10_000
    assert commit.committed_at is None


def test_only_plain_files_inside_are_read(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    source = tmp_path / "source"
    (source / "folder").mkdir(parents=True)
    (source / "folder/file").write_bytes(b"12345")
    (source / "link").symlink_to("../outside")
    (source / "way").symlink_to("..")
    os.mkfifo(source / "pipe")
    assert read_file(source, "folder/file", limit_bytes=5) == b"12345"
    assert isinstance(read_file(source, "folder/file", limit_bytes=4), TooLarge)
    for name in (
        "link",
        "way/outside",
        "pipe",
        "folder",
        "absent",
        "../outside",
        "/etc/hostname",
        "",
        "a\0b",
        "folder/file/x",
    ):
        assert read_file(source, name, limit_bytes=100) is None, name
    assert is_folder(source, "folder")
    assert is_folder(source, ".")
    assert not any(is_folder(source, name) for name in ("way", "link", "..", "/", "folder/file", "absent"))
