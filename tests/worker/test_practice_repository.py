"""The practice repository as a clone meets it, and as nobody else should: real git, over HTTP, on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import cli
from adapters.embedded import children
from tasks.build import practice_repository
from tasks.build.practice_garden import COMMITS, SPRING
from tasks.build.practice_repository import NoRepository, PracticeRepository
from tasks.crawl import practice_site
from tests.harness.processes import Program, child_environment
from tests.harness.waiting import eventually

REFS = f"{practice_repository.PREFIX}/info/refs?service=git-upload-pack"


@contextmanager
def served(repository: PracticeRepository | None) -> Iterator[str]:
    with practice_site.serve(port=0, delay_seconds=0, repository=repository) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(5)


@pytest.fixture(scope="module")
def repository() -> Iterator[PracticeRepository]:
    with practice_repository.made() as made:
        yield made


@pytest.fixture(scope="module")
def site(repository: PracticeRepository) -> Iterator[str]:
    with served(repository) as url:
        yield url


def git(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def ask(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, refusal.read().decode("utf-8", "replace")


# -- refusals


def test_nothing_can_be_pushed(site: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    assert git("clone", "--quiet", f"{site}/git/garden", str(clone)).returncode == 0
    before = git("ls-remote", f"{site}/git/garden").stdout
    pushed = git("push", "origin", "HEAD:refs/heads/weeds", folder=clone)
    assert pushed.returncode != 0
    assert "403" in pushed.stderr
    assert git("ls-remote", f"{site}/git/garden").stdout == before != ""


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/git/garden/info/refs?service=git-receive-pack", 403),
        ("/git/garden/info/refs", 404),
        ("/git/garden/HEAD", 404),
        ("/git/garden.git/config", 404),
        ("/git/garden/../../etc/passwd", 404),
        ("/git/garden/%2e%2e/info/refs?service=git-upload-pack", 404),
        ("/git/meadow/info/refs?service=git-upload-pack", 404),
        (f"{REFS}&service=git-receive-pack", 403),
    ],
)
def test_only_what_a_clone_asks_for_is_answered(site: str, path: str, status: int) -> None:
    assert ask(site + path)[0] == status


@pytest.mark.parametrize(
    ("path", "header", "status"),
    [
        ("/git/garden/git-receive-pack", "Content-Length: 0", 403),
        ("/git/garden/git-upload-pack", "Content-Length: 0\r\nContent-Type: text/plain", 415),
        ("/git/garden/git-upload-pack", f"Content-Length: {practice_repository.REQUEST_BYTES + 1}", 413),
        ("/git/garden/git-upload-pack", "Content-Length: -1", 411),
        ("/git/garden/git-upload-pack", "Transfer-Encoding: chunked", 411),
        ("/shop", "Content-Length: 4", 405),
    ],
)
def test_no_other_body_is_taken(site: str, path: str, header: str, status: int) -> None:
    host, _, port = site.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: garden\r\n{header}\r\n\r\n".encode())
        assert connection.makefile("rb").readline().startswith(b"HTTP/1.1 %d " % status)


def test_a_slow_git_ends_with_all_it_started_and_holds_up_no_page(tmp_path: Path) -> None:
    program, marker = tmp_path / "git", tmp_path / "started"
    program.write_text(f'#!/bin/sh\nsleep 600 &\necho "$!" >"{marker}.new"\nmv "{marker}.new" "{marker}"\nwait\n')
    program.chmod(0o755)
    stuck = PracticeRepository(git=str(program), folder=tmp_path, commits=(), answer_seconds=1.5)
    answers: list[int] = []
    with served(stuck) as url:
        clones = [threading.Thread(target=lambda: answers.append(ask(url + REFS)[0])) for _ in range(7)]
        for clone in clones:
            clone.start()
        assert ask(f"{url}/shop")[0] == 200
        for clone in clones:
            clone.join(10)
    assert sorted(answers) == [503] * 3 + [504] * practice_repository.ANSWERS_AT_ONCE
    assert not psutil.pid_exists(int(marker.read_text())) or (
        psutil.Process(int(marker.read_text())).status() == psutil.STATUS_ZOMBIE
    )


def test_git_gets_none_of_our_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEYS", "k:secret")
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    program = tmp_path / "git"
    program.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nenv\n")
    program.chmod(0o755)
    nosy = PracticeRepository(git=str(program), folder=tmp_path, commits=())
    said = nosy.answer("GET", REFS, {"Git-Protocol": "version=2", "X-Extra": "1"}, b"").body.decode()
    assert "PATH_INFO=/garden.git/info/refs" in said
    assert "GIT_PROTOCOL=version=2" in said
    assert "SECRET_KEYS" not in said
    assert "GIT_DIR" not in said
    assert "X_EXTRA" not in said


# -- without git


def test_without_git_there_is_no_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoRepository, match="git is not installed"), practice_repository.made():
        pass


async def test_without_git_the_site_says_so_and_serves_the_rest(tmp_path: Path) -> None:
    port, log = children.free_port(), tmp_path / "log"
    environment = {**child_environment({}), "PATH": "/nowhere"}
    program = Program(("-m", "tasks.crawl.practice_site", "--port", str(port)), environment=environment, log=log)
    try:
        await eventually(lambda: "Practice site on" in log.read_text(), 20, what=program.log_tail())
        assert "goes without its repository: git is not installed" in log.read_text()
        assert ask(f"http://127.0.0.1:{port}/shop")[0] == 200
        assert ask(f"http://127.0.0.1:{port}{REFS}")[0] == 404
        assert ask(f"http://127.0.0.1:{port}/git/garden")[0] == 404
    finally:
        await program.stop()


# -- what `make run` opens for it


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> str:
    """The host and port that `make run` opens, nothing being set yet."""
    for variable in ("CRAWL_ALLOWED_HOSTS", "BUILD_ALLOWED_HOSTS", "GIT_PROTOCOLS"):
        # Set first, so that what is set meanwhile goes afterwards.
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    port = children.free_port()
    monkeypatch.setattr(cli, "PRACTICE_PORT", port)
    return f"127.0.0.1:{port}"


def test_builds_reach_exactly_the_practice_site_beside_what_was_set(
    opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.offer_practice_site() == f"http://{opened}"
    assert (os.environ["BUILD_ALLOWED_HOSTS"], os.environ["GIT_PROTOCOLS"]) == (opened, "https,http")
    monkeypatch.setenv("BUILD_ALLOWED_HOSTS", "mirror.internal:443")
    cli.offer_practice_site()
    assert os.environ["BUILD_ALLOWED_HOSTS"] == f"mirror.internal:443,{opened}"


def test_whoever_allows_https_only_keeps_it_and_builds_reach_nothing(
    opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_PROTOCOLS", "https")
    assert cli.offer_practice_site() == f"http://{opened}"
    assert os.environ["GIT_PROTOCOLS"] == "https"
    assert "BUILD_ALLOWED_HOSTS" not in os.environ


def test_without_git_builds_reach_nothing(opened: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.offer_practice_site() == f"http://{opened}"
    assert not {"BUILD_ALLOWED_HOSTS", "GIT_PROTOCOLS"} & os.environ.keys()


def test_what_others_serve_on_its_port_is_not_opened(opened: str) -> None:
    host, _, port = opened.partition(":")
    with socket.create_server((host, int(port))):
        assert cli.offer_practice_site() is None
    assert not {"CRAWL_ALLOWED_HOSTS", "BUILD_ALLOWED_HOSTS", "GIT_PROTOCOLS"} & os.environ.keys()


# -- what a clone gets


def test_a_shallow_clone_of_each_branch_has_its_flowers(site: str, tmp_path: Path) -> None:
    for branch, flowers in (("main", "Sunflowers"), (SPRING, "Tulips")):
        clone = tmp_path / branch
        done = git("clone", "--quiet", "--depth=1", f"--branch={branch}", f"{site}/git/garden.git", str(clone))
        assert done.returncode == 0, done.stderr
        assert flowers in (clone / "index.html").read_text()
        assert os.access(clone / "build.sh", os.X_OK)
        assert git("rev-list", "--count", "HEAD", folder=clone).stdout.strip() == "1"


def test_an_older_commit_can_be_fetched_by_its_hash(site: str, repository: PracticeRepository, tmp_path: Path) -> None:
    git("init", "--quiet", str(tmp_path))
    _, first, message = repository.commits[0]
    done = git("fetch", "--quiet", "--depth=1", f"{site}/git/garden", first, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert git("log", "-1", "--format=%s", "FETCH_HEAD", folder=tmp_path).stdout.strip() == message


def test_the_commits_are_the_same_for_everybody(repository: PracticeRepository) -> None:
    with practice_repository.made() as another:
        assert another.commits == repository.commits
    assert [(branch, message) for branch, _, message in repository.commits] == [
        (commit.branch, commit.message) for commit in COMMITS
    ]


def test_it_is_made_anew_where_one_is_left_over(repository: PracticeRepository, tmp_path: Path) -> None:
    with practice_repository.made(tmp_path) as first:
        (tmp_path / "garden.git" / "refs" / "heads" / "main").write_text("spoilt")
    with practice_repository.made(tmp_path) as second:
        assert second.commits == first.commits == repository.commits
        assert second.answer("GET", REFS, {}, b"").status == 200


def test_its_page_lists_every_commit_in_full(site: str, repository: PracticeRepository) -> None:
    status, page = ask(f"{site}/git/garden")
    assert status == 200
    assert all(name in page for _, name, _ in repository.commits)


def test_the_build_writes_what_people_wrote_as_text(site: str, tmp_path: Path) -> None:
    git("clone", "--quiet", f"{site}/git/garden", str(tmp_path / "clone"))
    subprocess.run(
        ["sh", "build.sh"],
        cwd=tmp_path / "clone",
        env={"PATH": os.defpath, "GREETING": "<b>Hi & 'bye' \\n %s", "SWITCHYARD_COMMIT": "0123456789"},
        capture_output=True,
        timeout=10,
        check=True,
    )
    made = tmp_path / "clone" / "public"
    assert {path.name for path in made.iterdir()} == {
        *("404.html", "_redirects", "bed.svg", "index.html", "seeds.html", "style.css")
    }
    page = (made / "index.html").read_text()
    assert "<h1>&lt;b&gt;Hi &amp; 'bye' \\n %s</h1>" in page
    assert "commit 0123456" in page


async def test_ending_the_site_leaves_no_folder_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    environment = {**child_environment({}), "TMPDIR": str(tmp_path)}
    for number in (signal.SIGTERM, signal.SIGINT):
        program = Program(
            ("-m", "tasks.crawl.practice_site", "--port", str(children.free_port())), environment=environment, log=log
        )
        await eventually(lambda: "Practice site on" in log.read_text(), 20, what=program.log_tail())
        assert any(name.startswith("switchyard-practice-") for name in os.listdir(tmp_path))
        os.kill(program.pid, number)
        assert await program.wait_exit() == 0
        assert os.listdir(tmp_path) == ["log"]
        log.write_text("")
