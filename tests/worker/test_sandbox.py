"""The bubblewrap runner as the worker uses it: phases, output, ends, limits, folders. Break-outs are next door."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters import doctor
from adapters.processes import ProcessTree
from adapters.sandbox import open_runner
from adapters.sandbox.bubblewrap import BubblewrapRunner
from adapters.sandbox.contract import Network, Phase, PhaseEnd, PhaseExit, RunnerUnavailable, StopBuild
from adapters.sandbox.docker import DockerRunner
from adapters.sandbox.kubernetes import KubernetesRunner
from tests.harness.waiting import eventually, leftover_processes
from tests.worker.sandboxes import PYTHON, Bench, Memory, folder_for_everybody, sandbox_settings, supervised

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("bwrap"), reason="bubblewrap is not installed"
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    source = tmp_path / "source"
    source.mkdir()
    return Bench(source, BubblewrapRunner(sandbox_settings()))


def phase(name: str, command: str, **fields: object) -> Phase:
    return Phase(**{"name": name, "command": command, "timeout_seconds": 20.0, **fields})  # type: ignore[arg-type]


# -- no sandbox, no build


async def test_without_bubblewrap_nothing_runs_and_the_advice_names_the_package(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunnerUnavailable, match="install the package bubblewrap"):
        await bench.run("touch ran")
    with pytest.raises(RunnerUnavailable, match="install the package bubblewrap"):
        await bench.runner.probe()
    assert not (bench.source / "ran").exists()
    monkeypatch.undo()
    assert (await bench.run("touch ran")).exit.is_success
    assert (bench.source / "ran").exists()


@contextlib.contextmanager
def stand_in(program: str) -> Iterator[str]:
    """A folder with a `bwrap` of ours."""
    with folder_for_everybody() as folder:
        file = folder / "bwrap"
        file.write_text(f"#!/bin/sh\n{program}\n")
        file.chmod(0o755)
        yield str(folder)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions to create new namespace"),
        ("echo 'bwrap: Unknown option --disable-userns' >&2; exit 1", "Unknown option --disable-userns"),
        ("exit 0", "bubblewrap cannot make a sandbox"),
    ],
)
async def test_a_sandbox_that_cannot_be_made_is_no_failure_of_the_build(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    with stand_in(program) as folder:
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        with pytest.raises(RunnerUnavailable, match=reason):
            await bench.run("touch ran")
    assert not (bench.source / "ran").exists()


async def test_a_preparation_that_is_refused_is_no_failure_of_the_build(tmp_path: Path) -> None:
    # Root of a namespace that holds no other user: there is nobody to become.
    driver = """
import asyncio, sys
from pathlib import Path
from adapters.sandbox.contract import RunnerUnavailable
from adapters.sandbox.bubblewrap import BubblewrapRunner
from tests.worker.sandboxes import Bench, sandbox_settings
async def main():
    bench = Bench(Path(sys.argv[1]), BubblewrapRunner(sandbox_settings()))
    try:
        await bench.run("touch ran")
    except (RunnerUnavailable, PermissionError, OSError) as error:
        print(type(error).__name__, error)
asyncio.run(main())
"""
    said = await run_driver(driver, str(tmp_path), prefix=["unshare", "--user", "--map-root-user"])
    assert said.startswith("RunnerUnavailable ")
    assert "become another user" in said
    assert not (tmp_path / "ran").exists()


async def test_the_probe_runs_a_sandbox_and_says_what_it_found(bench: Bench) -> None:
    found = await bench.runner.probe()
    assert found.runner == "sandbox"
    assert "bubblewrap" in found.detail


async def test_doctor_tells_whether_builds_can_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = sandbox_settings()
    finding = await doctor.check_builds(settings)
    assert finding.ok, finding
    assert finding.detail.startswith("sandbox: bubblewrap")
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = await doctor.check_builds(settings)
    assert not finding.ok
    assert "install the package bubblewrap" in finding.detail
    assert (await doctor.check_builds(sandbox_settings(worker_build_slots=0))).ok


@pytest.mark.parametrize(
    ("kind", "runner"),
    [("sandbox", BubblewrapRunner), ("docker", DockerRunner), ("kubernetes", KubernetesRunner)],
)
def test_the_settings_choose_the_runner(kind: str, runner: type) -> None:
    assert type(open_runner(sandbox_settings(build_runner=kind))) is runner


# -- phases and their ends


async def test_phases_run_in_order_until_one_fails(bench: Bench) -> None:
    ran = await bench.build(
        [phase("one", "echo 1 > one; echo first"), phase("two", "cat one; exit 7"), phase("three", "touch three")]
    )
    assert [(each.phase, each.end, each.exit_code) for each in ran.result.exits] == [
        ("one", PhaseEnd.EXITED, 0),
        ("two", PhaseEnd.EXITED, 7),
    ]
    assert ran.listener.ended == list(ran.result.exits)
    assert ran.listener.calls == ["started one", "output", "ended one", "started two", "output", "ended two"]
    assert ran.listener.stdout == b"first\n1\n"
    assert ran.result.output is None
    assert not (bench.source / "three").exists()


async def test_all_of_the_output_is_told_before_the_end_each_stream_in_order(bench: Bench) -> None:
    ran = await bench.run("seq 200000; seq 300000 >&2; printf 'no newline'")
    assert ran.exit.is_success
    assert ran.listener.stdout == b"".join(b"%d\n" % n for n in range(1, 200_001)) + b"no newline"
    assert ran.listener.stderr == b"".join(b"%d\n" % n for n in range(1, 300_001))
    assert ran.listener.calls[-1] == "ended probe"


async def test_a_listener_that_is_busy_when_the_command_ends_misses_nothing(bench: Bench) -> None:
    mark = f"busy-{os.getpid()}"

    class Busy(Memory):
        async def output(self, data: bytes, *, is_error: bool) -> None:
            await super().output(data, is_error=is_error)
            if self.stdout == b"one\n":
                await eventually(lambda: not leftover_processes(mark), 10)

    ran = await bench.run(f"echo one; sleep 0.3; echo two; : {mark}", listener=Busy())
    assert ran.exit.is_success
    assert ran.listener.stdout == b"one\ntwo\n"
    assert ran.listener.calls[-1] == "ended probe"


async def test_a_command_that_is_missing_fails_like_in_any_shell(bench: Bench) -> None:
    ran = await bench.run("no-such-program")
    assert ran.exit.exit_code == 127
    assert "not found" in ran.text


async def test_a_command_reads_no_input(bench: Bench) -> None:
    assert (await bench.run("cat; echo end")).text == "end"


async def test_a_phase_past_its_time_ends_and_its_last_words_are_told(bench: Bench) -> None:
    ran = await bench.run("echo waiting; trap '' TERM; sleep 60", timeout_seconds=0.5)
    assert (ran.exit.end, ran.exit.exit_code) == (PhaseEnd.TIMED_OUT, None)
    assert ran.exit.seconds < 5
    assert ran.text == "waiting"


class Stopping(Memory):
    """Stops the build in one of its calls."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def stop_at(self, place: str) -> None:
        if place == self.place:
            raise StopBuild

    async def phase_started(self, phase: Phase) -> None:
        await super().phase_started(phase)
        self.stop_at("started")

    async def output(self, data: bytes, *, is_error: bool) -> None:
        await super().output(data, is_error=is_error)
        self.stop_at("output")

    async def refused(self, target: str, reason: str) -> None:
        await super().refused(target, reason)
        self.stop_at("refused")

    async def phase_ended(self, exit: PhaseExit) -> None:
        await super().phase_ended(exit)
        self.stop_at("ended")


# Half a second of a processor: of a child that is waited for, of a daemon that nobody waits for, of the command itself.
BUSY = """
import os, sys, time
def burn(seconds):
    while time.process_time() < seconds:
        pass
read, write = os.pipe()
waited = os.fork()
if waited == 0:
    burn(0.2)
    os._exit(0)
os.waitpid(waited, 0)
if os.fork() == 0:
    os.setsid()
    burn(0.2)
    if "stay" in sys.argv:
        os.write(write, b"x")
        time.sleep(60)
    os._exit(0)
os.close(write)
os.read(read, 1)
burn(0.1)
if "stay" in sys.argv:
    print("busy no more", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("end", [PhaseEnd.EXITED, PhaseEnd.STOPPED])
async def test_processor_time_inside_the_sandbox_is_counted_however_it_ends(bench: Bench, end: PhaseEnd) -> None:
    trees = []

    @contextlib.asynccontextmanager
    async def remembering(*arguments: Any, **named: Any) -> AsyncIterator[ProcessTree]:
        async with supervised()(*arguments, **named) as tree:
            trees.append(tree)
            yield tree

    (bench.source / "busy.py").write_text(BUSY)
    command = f"{PYTHON} -I -S busy.py" + (" stay" if end is PhaseEnd.STOPPED else "")
    ran = await bench.run(command, spawn=remembering, listener=Stopping("output"))
    assert ran.exit.end is end, (ran.exit, ran.text)
    [tree] = trees
    assert tree.ended is not None
    assert 460 < tree.ended.cpu_milliseconds < 1_500


@pytest.mark.parametrize("place", ["started", "output", "refused", "ended"])
async def test_a_listener_stops_the_build_wherever_it_says_so(bench: Bench, place: str) -> None:
    mark = f"stop-{os.getpid()}-{place}"
    command = {
        "started": "touch ran",
        "output": f"echo now; : {mark}; sleep 60",
        "refused": f'{PYTHON} -I -S -c \'import socket; s = socket.create_connection(("127.0.0.1", 3128)); '
        f's.sendall(b"CONNECT 10.0.0.1:443 HTTP/1.1\\r\\n\\r\\n"); s.recv(9)\'; : {mark}; sleep 60',
        "ended": "true",
    }[place]
    phases = [phase("one", command, network=Network.EGRESS), phase("two", "touch two")]
    ran = await bench.build(phases, listener=Stopping(place))
    assert [each.end for each in ran.result.exits] == [PhaseEnd.STOPPED]
    assert ran.result.output is None
    assert ran.listener.started == ["one"]
    assert [each.phase for each in ran.listener.ended] == ["one"]
    assert not (bench.source / "ran").exists()
    assert not (bench.source / "two").exists()
    assert leftover_processes(mark) == {}


async def test_what_a_listener_raises_ends_the_build_and_comes_out_as_it_was(bench: Bench) -> None:
    class Failing(Memory):
        async def output(self, data: bytes, *, is_error: bool) -> None:
            raise LookupError("the log is gone")

    mark = f"fail-{os.getpid()}"
    with pytest.raises(LookupError, match="the log is gone"):
        await bench.run(f"echo now; : {mark}; sleep 60", network=Network.EGRESS, listener=Failing())
    assert leftover_processes(mark) == {}


async def test_cancelling_a_build_leaves_nothing_running(bench: Bench) -> None:
    mark = f"cancel-{os.getpid()}"
    listener = Memory()
    tasks = asyncio.all_tasks()
    build = asyncio.ensure_future(bench.run(f"echo now; : {mark}; sleep 60", network=Network.EGRESS, listener=listener))
    async with asyncio.timeout(10):
        await listener.printed.wait()
    assert leftover_processes(mark)
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert leftover_processes(mark) == {}
    assert asyncio.all_tasks() <= tasks


async def test_a_slow_listener_holds_up_the_build(bench: Bench) -> None:
    class Slow(Memory):
        """Takes one piece and then nothing until it is told to."""

        def __init__(self) -> None:
            super().__init__()
            self.go_on = asyncio.Event()

        async def output(self, data: bytes, *, is_error: bool) -> None:
            await super().output(data, is_error=is_error)
            await self.go_on.wait()

    listener = Slow()
    command = "for n in $(seq 200); do head -c 65536 /dev/zero; echo $n > written; done"
    build = asyncio.ensure_future(bench.run(command, listener=listener))
    await listener.printed.wait()
    seen = [-2, -1]

    def stands_still() -> bool:
        with contextlib.suppress(OSError, ValueError):  # not yet there, or just being written
            seen.append(int((bench.source / "written").read_text()))
        return len(set(seen[-10:])) == 1

    await eventually(stands_still, 10)
    assert seen[-1] < 100, "all of it fitted somewhere"
    listener.go_on.set()
    assert (await build).exit.is_success
    assert len(listener.stdout) == 200 * 65_536


# -- environment


async def test_the_environment_is_whole_and_the_phases_own_wins(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWNER_SECRET", "hunter2")
    bench.cache = tmp_path / "cache"
    bench.cache.mkdir()
    bench.environment = {"CI": "mine", "GREETING": "two words\nand 'lines' — ¿sí?", "npm_config_loglevel": "silent"}
    ran = await bench.run("env", network=Network.EGRESS)
    assert "hunter2" not in ran.text
    lines = ran.text.splitlines()
    assert {"CI=mine", "GREETING=two words", "and 'lines' — ¿sí?", "npm_config_loglevel=silent"} <= set(lines)
    assert {"HOME=/home/build", "LANG=C.UTF-8", "TMPDIR=/tmp", "NODE_OPTIONS=--max-old-space-size=192"} <= set(lines)
    assert {"HTTPS_PROXY=http://127.0.0.1:3128", "https_proxy=http://127.0.0.1:3128"} <= set(lines)
    assert {"npm_config_cache=/cache/npm", "PIP_CACHE_DIR=/cache/pip"} <= set(lines)
    assert "proxy" not in (await bench.run("env")).text.lower()


@pytest.mark.parametrize(
    "environment",
    [{"A": "x\0--bind\0/\0/workspace/host"}, {"A\0--share-net": "x"}, {"": "x"}, {"A=B": "x"}],
)
async def test_a_variable_cannot_become_an_option_of_the_sandbox(bench: Bench, environment: dict[str, str]) -> None:
    bench.environment = environment
    with pytest.raises(ValueError, match="of an environment variable"):
        await bench.run("touch ran")
    assert not (bench.source / "ran").exists()


async def test_a_preload_of_the_build_acts_only_inside(bench: Bench) -> None:
    bench.environment = {"LD_PRELOAD": "/workspace/none.so", "PYTHONHOME": "/none", "BASH_ENV": "/none"}
    ran = await bench.run("echo inside")
    assert ran.exit.is_success
    assert ran.listener.stdout == b"inside\n"
    # The loader complains once for each program: the shell, and the shell in it. Not for `enter`, nor for bubblewrap.
    assert ran.listener.stderr.count(b"none.so") == 2


# -- folders


async def test_the_output_is_the_folder_below_the_working_directory(bench: Bench) -> None:
    (bench.source / "web").mkdir()
    ran = await bench.build(
        [phase("build", "pwd; mkdir -p out/dist; echo page > out/dist/index.html")],
        working_directory="web",
        output_directory="out/dist",
    )
    assert ran.text == "/workspace/web"
    assert ran.result.output == bench.source / "web/out/dist"
    assert (bench.source / "web/out/dist/index.html").read_text() == "page\n"


@pytest.mark.parametrize(
    "command",
    ["true", "echo > dist", "ln -s / dist", "mkdir real; ln -s real dist", "ln -s /etc dist", "mkfifo dist"],
)
async def test_without_a_real_output_folder_there_is_no_output(bench: Bench, command: str) -> None:
    ran = await bench.build([phase("build", command)], output_directory="dist")
    assert ran.exit.is_success
    assert ran.result.output is None


async def test_an_output_folder_behind_a_link_is_no_output(bench: Bench) -> None:
    command = "mkdir -p web; rm -rf web; mkdir -p real/dist; ln -s real web"
    ran = await bench.build([phase("build", command)], output_directory="web/dist")
    assert ran.exit.is_success
    assert ran.result.output is None


@pytest.mark.parametrize("path", ["/etc", "../other", "a/../../b"])
async def test_paths_that_lead_out_are_refused_before_anything_runs(bench: Bench, path: str) -> None:
    with pytest.raises(ValueError, match="is no path inside"):
        await bench.build([phase("build", "touch ran")], working_directory=path)
    with pytest.raises(ValueError, match="is no path inside"):
        await bench.build([phase("build", "touch ran")], output_directory=path)
    assert not (bench.source / "ran").exists()


async def test_a_working_directory_that_is_missing_fails_the_build_and_not_the_runner(bench: Bench) -> None:
    ran = await bench.build([phase("build", "touch ran")], working_directory="nowhere")
    assert ran.exit.exit_code not in (0, None)
    assert "nowhere" in ran.text
    assert not (bench.source / "ran").exists()


async def test_a_cache_survives_and_memory_folders_do_not(bench: Bench, tmp_path: Path) -> None:
    bench.cache = tmp_path / "cache"
    bench.cache.mkdir()
    await bench.run("echo kept > /cache/file; echo gone > /tmp/file; echo gone > ~/file")
    ran = await bench.run("cat /cache/file; ls /tmp ~")
    assert ran.text.split() == ["kept", "/home/build:", "/tmp:"]
    bench.cache = None
    assert (await bench.run("ls /cache")).exit.exit_code != 0


async def test_phases_of_a_build_share_nothing_but_the_folders(bench: Bench) -> None:
    ran = await bench.build([phase("one", "echo x > /tmp/file; echo y > file"), phase("two", "ls /tmp; cat file")])
    assert ran.text == "y"


async def test_a_build_of_ours_works_as_an_ordinary_user() -> None:
    """The worker of production: nobody's root. What the build closes can be removed afterwards."""
    driver = """
import asyncio, os, shutil, sys
from pathlib import Path
from adapters.sandbox.bubblewrap import BubblewrapRunner
from adapters.sandbox.contract import Network
from tests.worker.sandboxes import Bench, sandbox_settings
from adapters.sandbox.enter import MS_BIND, MS_PRIVATE, MS_REC, CLONE_NEWNS, mount, unshare
def open_the_way(*folders):
    "Let every user come to these folders, in a mount namespace of ours."
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    kept = [(folder, os.open(folder, os.O_PATH)) for folder in folders]
    for folder in folders:
        for parent in reversed(Path(folder).parents):
            if not parent.exists():  # hidden by an earlier one
                break
            if not parent.stat().st_mode & 1:
                mount("tmpfs", str(parent), "tmpfs", 0, "mode=755")
                break
    for folder, descriptor in kept:
        if not os.path.exists(folder):
            os.makedirs(folder)
            mount(f"/proc/self/fd/{descriptor}", folder, None, MS_BIND)
    os.chdir(folders[-1])
async def main():
    source = Path(sys.argv[1], "source")
    source.mkdir()
    bench = Bench(source, BubblewrapRunner(sandbox_settings(build_tool_paths=())))
    print((await bench.runner.probe()).detail)
    ran = await bench.run("id -u; mkdir -p a/b; echo > a/b/c; chmod 000 a/b a; sleep 0.3", network=Network.EGRESS)
    print(ran.exit.end, ran.exit.exit_code, ran.text)
    ran = await bench.run("for i in $(seq 200); do sleep 5 & done; echo made all", timeout_seconds=10)
    print("bounded" if "made all" not in ran.text else ran.text)
    shutil.rmtree(source)
if os.geteuid() == 0:
    open_the_way(sys.base_prefix, sys.prefix, os.getcwd())
    os.setgroups([])
    os.setresgid(61900, 61900, 61900)
    os.setresuid(61900, 61900, 61900)
asyncio.run(main())
"""
    with folder_for_everybody() as folder:
        if os.geteuid() == 0:
            os.chown(folder, 61_900, 61_900)
        said = await run_driver(driver, str(folder))
        left = os.listdir(folder)
    probe, ended, bounded = said.splitlines()
    assert "as the worker's own user" in probe
    assert ended == "DISK_FULL None 1000"  # what nobody can measure counts as full
    assert bounded == "bounded"
    assert left == []


async def run_driver(program: str, *arguments: str, prefix: list[str] | None = None) -> str:
    """A process of its own that runs builds; what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(prefix or []), sys.executable, "-c", program, *arguments,
        cwd=Path(__file__).parents[2],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ".", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60):
        out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode().strip()
