"""Supervised process trees: nothing of a tree outlives its owner, its deadline, its child or the block it was made in.

Processes are recognised by a mark in their environment, which only the tree gets.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from adapters import deadman, processes
from adapters.line_streams import READ_BYTES, LineTooLong, line_batches, lines
from adapters.processes import (
    CannotStart,
    EndReason,
    Isolation,
    Limits,
    ProcessTree,
    TreeExit,
    spawn,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the trees are observed through /proc")

ROOT = Path(__file__).parents[2]
SECRET = "owner-secret-7f3a"
PYTHON = [sys.executable, "-I", "-S", "-u", "-c"]
MARK = "SWITCHYARD_TEST_MARK"

# A child with a grandchild in a session of its own and, on demand, a daemon that forked twice; none minds SIGTERM.
FAMILY = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
def stay():
    while True:
        time.sleep(60)
ready, ready_end = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(ready_end, b"x")
    stay()
if os.fork() == 0:
    if "daemon" in sys.argv:
        os.setsid()
        if os.fork():
            os._exit(0)
        for descriptor in (0, 1, 2):
            os.close(descriptor)
    os.write(ready_end, b"x")
    stay()
seen = 0
while seen < 2:
    seen += len(os.read(ready, 2))
print("ready")
if "leave" in sys.argv:
    os._exit(3)
stay()
"""

# A worker of its own process: starts the tree it is told to, says so, and waits to be killed.
OWNER = """
import asyncio, json, sys, time
from adapters.processes import Isolation, spawn
async def main():
    argv, env, seconds, isolation = json.loads(sys.argv[1])
    strongest = Isolation(isolation) if isolation else None
    async with spawn(argv, env=env, cwd="/", deadline=time.monotonic() + seconds, isolation=strongest) as tree:
        first = await tree.stdout.readline()
        print(json.dumps([first.decode().strip(), tree.isolation, tree.private_proc]), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""

Spawn = Callable[..., AbstractAsyncContextManager[ProcessTree]]
EVERY_ISOLATION = pytest.mark.parametrize("isolation", list(Isolation))
# A daemon that lost its parent is out of a process group's sight; docs/decisions/0003 says so.
EVERY_ISOLATION_AND_ITS_FAMILY = pytest.mark.parametrize(
    ("isolation", "members"),
    [(Isolation.PID_NAMESPACE, ["daemon"]), (Isolation.SUBREAPER, ["daemon"]), (Isolation.PROCESS_GROUP, [])],
)
HOLDS_DAEMONS = pytest.mark.parametrize("isolation", [Isolation.PID_NAMESPACE, Isolation.SUBREAPER])


@pytest.fixture
async def mark() -> AsyncIterator[str]:
    """The mark of this test's trees; afterwards none may live, and we hold no zombie and no open end of a pipe."""
    descriptors = len(os.listdir("/proc/self/fd"))
    children = set(psutil.Process().children())  # servers of the session, say
    value = uuid.uuid4().hex
    yield value
    left = marked(value)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left
    assert set(psutil.Process().children()) <= children
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.fixture
def start(mark: str) -> Spawn:
    """`spawn` with a marked environment and ten seconds to live."""

    def start_marked(argv: list[str], *, seconds: float = 10.0, **options: Any) -> Any:
        env = {"PATH": os.defpath, MARK: mark, **options.pop("env", {})}
        options.setdefault("cwd", "/")
        return spawn(argv, env=env, deadline=time.monotonic() + seconds, **options)

    return start_marked


def marked(mark: str) -> set[int]:
    """The living processes of a test's trees."""
    found = set()
    needle = f"{MARK}={mark}".encode()
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                environ = Path(f"/proc/{name}/environ").read_bytes()
            except OSError:  # it ended while we looked; a zombie's environment is empty
                continue
            if needle in environ.split(b"\0"):
                found.add(int(name))
    return found


async def eventually(condition: Callable[[], bool], *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the kernel sets no event for us
            await asyncio.sleep(0.01)


async def ready(tree: ProcessTree) -> None:
    async with asyncio.timeout(10):
        assert await tree.stdout.readline() == b"ready\n"


async def start_owner(
    mark: str, *, argv: list[str], seconds: float, isolation: Isolation | None, prefix: tuple[str, ...] = ()
) -> tuple[subprocess.Popen[bytes], list[Any]]:
    order = json.dumps([argv, {"PATH": os.defpath, MARK: mark}, seconds, isolation])
    owner = subprocess.Popen(  # noqa: ASYNC220 - asyncio's own reaps twice when a process is killed twice
        [*prefix, sys.executable, "-c", OWNER, order],
        cwd=ROOT,
        env={"PATH": os.defpath, "OWNER_SECRET": SECRET},
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None
    async with asyncio.timeout(15):
        return owner, json.loads(await asyncio.to_thread(owner.stdout.readline))


def end_owner(owner: subprocess.Popen[bytes]) -> None:
    owner.kill()
    owner.communicate(timeout=10)


# -- the owner goes away


@EVERY_ISOLATION_AND_ITS_FAMILY
async def test_tree_is_gone_soon_after_its_owner_is_killed(mark: str, isolation: Isolation, members: list[str]) -> None:
    owner, said = await start_owner(mark, argv=[*PYTHON, FAMILY, *members], seconds=60, isolation=isolation)
    try:
        assert said[:2] == ["ready", isolation]
        assert len(marked(mark)) == 3
        owner.kill()
        await eventually(lambda: not marked(mark), seconds=2)
    finally:
        end_owner(owner)


@EVERY_ISOLATION_AND_ITS_FAMILY
async def test_tree_of_a_frozen_owner_is_gone_past_the_deadline(
    mark: str, isolation: Isolation, members: list[str]
) -> None:
    owner, said = await start_owner(mark, argv=[*PYTHON, FAMILY, *members], seconds=1.5, isolation=isolation)
    try:
        assert said[0] == "ready"
        owner.send_signal(signal.SIGSTOP)
        assert len(marked(mark)) == 3
        await eventually(lambda: not marked(mark), seconds=3.5)
    finally:
        end_owner(owner)


async def test_renewals_carry_the_tree_beyond_its_first_deadline(start: Spawn, mark: str) -> None:
    begun = time.monotonic()
    async with start([*PYTHON, FAMILY, "daemon"], seconds=1.0) as tree:
        await ready(tree)

        def past_twice_the_first_deadline() -> bool:
            tree.renew(time.monotonic() + 0.5)
            return time.monotonic() > begun + 2.0

        await eventually(past_twice_the_first_deadline, seconds=5)
        assert len(marked(mark)) == 3
        ended = await tree.wait()
        assert ended.reason is EndReason.DEADLINE
        assert 2.3 < time.monotonic() - begun < 4.0
        assert not marked(mark)
        tree.renew(time.monotonic() + 60)  # too late, and harmless


@EVERY_ISOLATION
def test_closed_control_pipe_ends_the_tree_and_says_so(mark: str, isolation: Isolation) -> None:
    control_end, control = os.pipe()
    status, status_end = os.pipe()
    with subprocess.Popen(
        [sys.executable, "-I", "-S", deadman.__file__, str(control_end), str(status_end)],
        stdout=subprocess.PIPE,
        pass_fds=(control_end, status_end),
        env={},
        start_new_session=True,
    ) as supervisor:
        os.close(control_end)
        os.close(status_end)
        os.write(
            control,
            processes._order(
                [*PYTHON, FAMILY],
                {"PATH": os.defpath, MARK: mark},
                cwd="/",
                deadline=time.monotonic() + 20,
                limits=Limits(),
                pass_fds=(),
                isolation=isolation,
            ),
        )
        with open(status, "rb") as messages:
            started = json.loads(messages.readline())
            assert supervisor.stdout is not None
            assert supervisor.stdout.readline() == b"ready\n"
            os.close(control)
            exited = json.loads(messages.readline())
            assert not marked(mark)
            assert messages.readline() == b""
        assert started["isolation"] == isolation
        assert exited == {
            "event": "exited",
            "exit_code": None,
            "signal": signal.SIGKILL,
            "reason": "orphaned",
            "tree_gone": True,
            "cpu_milliseconds": exited["cpu_milliseconds"],
            "peak_rss_bytes": exited["peak_rss_bytes"],
        }
        assert supervisor.wait(timeout=5) == 0


# -- the supervisors go away


@HOLDS_DAEMONS
@pytest.mark.parametrize("victim", ["deadman", "init"])
async def test_killing_a_supervisor_ends_the_tree(start: Spawn, mark: str, isolation: Isolation, victim: str) -> None:
    async with start([*PYTHON, FAMILY, "daemon"], isolation=isolation) as tree:
        await ready(tree)
        init = psutil.Process(tree.pid).parent()
        assert init is not None
        supervisor = init.parent()
        assert supervisor is not None
        (supervisor if victim == "deadman" else init).kill()
        async with asyncio.timeout(3):
            ended = await tree.wait()
        assert ended.reason is EndReason.LOST
        assert ended.signal == signal.SIGKILL
        assert not marked(mark)


async def test_death_of_deadman_reaches_an_init_that_cannot_read(start: Spawn, mark: str) -> None:
    async with start([*PYTHON, FAMILY, "daemon"], isolation=Isolation.PID_NAMESPACE) as tree:
        await ready(tree)
        init, supervisor = psutil.Process(tree.pid).parents()[:2]
        init.suspend()
        supervisor.kill()
        async with asyncio.timeout(3):
            assert (await tree.wait()).reason is EndReason.LOST
        assert not marked(mark)


async def test_killed_deadman_of_a_process_group_takes_the_visible_tree_along(start: Spawn, mark: str) -> None:
    async with start([*PYTHON, FAMILY], isolation=Isolation.PROCESS_GROUP) as tree:
        await ready(tree)
        psutil.Process(tree.pid).parents()[1].kill()
        async with asyncio.timeout(3):
            assert (await tree.wait()).reason is EndReason.LOST
        assert not marked(mark)


async def test_stuck_supervisor_is_killed_rather_than_waited_for(
    start: Spawn, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "KILL_SECONDS", 1.0)
    async with start([*PYTHON, FAMILY, "daemon"]) as tree:
        await ready(tree)
        psutil.Process(tree.pid).parents()[1].suspend()
        async with asyncio.timeout(5):
            assert (await tree.kill()).reason is EndReason.LOST
        assert not marked(mark)


@pytest.mark.timeout(20)
async def test_renewal_never_waits_for_a_stuck_supervisor(
    start: Spawn, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "KILL_SECONDS", 1.0)
    async with start([*PYTHON, FAMILY]) as tree:
        await ready(tree)
        psutil.Process(tree.pid).parents()[1].suspend()
        for _ in range(5_000):  # more than the pipe holds
            tree.renew(time.monotonic() + 10)
    assert not marked(mark)


async def test_signals_to_everybody_leave_the_supervisor_at_its_post(start: Spawn) -> None:
    async with start([*PYTHON, "input(); raise SystemExit(5)"]) as tree:
        supervisor = psutil.Process(tree.pid).parents()[1]
        group = os.getpgid(supervisor.pid)
        assert group == supervisor.pid, "a signal to our group would reach it, and this one would reach us"
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.killpg(group, number)
        tree.stdin.write(b"go\n")
        assert (await tree.wait()).exit_code == 5


# -- the child ends


@HOLDS_DAEMONS
async def test_end_of_the_child_takes_its_daemons_along(start: Spawn, mark: str, isolation: Isolation) -> None:
    async with start([*PYTHON, FAMILY, "daemon", "leave"], isolation=isolation) as tree:
        ended = await tree.wait()
        assert not marked(mark)
        assert (ended.exit_code, ended.signal, ended.reason) == (3, None, EndReason.EXITED)
        assert ended.isolation is isolation


async def test_process_group_takes_along_what_stayed_in_the_session(start: Spawn, mark: str) -> None:
    async with start(["/bin/sh", "-c", "sleep 60 & exit 3"], isolation=Isolation.PROCESS_GROUP) as tree:
        assert (await tree.wait()).exit_code == 3
        assert not marked(mark)


@EVERY_ISOLATION
async def test_signal_that_ended_the_child_is_told(start: Spawn, isolation: Isolation) -> None:
    async with start(["/bin/sh", "-c", "kill -SEGV $$"], isolation=isolation) as tree:
        ended = await tree.wait()
        assert (ended.exit_code, ended.signal, ended.reason) == (None, signal.SIGSEGV, EndReason.EXITED)


async def test_output_written_before_the_end_is_kept(start: Spawn) -> None:
    async with start(["/bin/sh", "-c", "echo out; echo err >&2"]) as tree:
        await tree.wait()
        assert await tree.stdout.read() == b"out\n"
        assert await tree.stderr.read() == b"err\n"


@pytest.mark.parametrize(
    ("argv", "cwd", "step", "error"),
    [
        (["/no/such/command"], "/", "exec", "No such file"),
        (["no-such-command"], "/", "exec", "No such file"),
        (["/etc/passwd"], "/", "exec", "Permission denied"),
        (["true"], "/no/such/folder", "cwd", "No such file"),
    ],
)
async def test_command_that_cannot_start_is_a_typed_error(
    start: Spawn, argv: list[str], cwd: str, step: str, error: str
) -> None:
    with pytest.raises(CannotStart, match=error) as failure:
        async with start(argv, cwd=cwd):
            pytest.fail("it started")
    assert failure.value.step == step


async def test_deadline_in_the_past_starts_nothing_that_lasts(start: Spawn) -> None:
    with pytest.raises(CannotStart):
        async with start(["sleep", "60"], seconds=-1):
            pytest.fail("it started")


async def test_text_that_no_system_call_carries_is_refused(start: Spawn) -> None:
    for argv, env in ((["true\0"], {}), (["true"], {"A": "\0"}), (["true"], {"A=B": "c"}), (["true"], {"": "c"})):
        with pytest.raises(ValueError, match="NUL"):
            async with start(argv, env=env):
                pytest.fail("it started")


# -- the owner ends it


@EVERY_ISOLATION_AND_ITS_FAMILY
async def test_kill_returns_when_nothing_is_left(
    start: Spawn, mark: str, isolation: Isolation, members: list[str]
) -> None:
    async with start([*PYTHON, FAMILY, *members], isolation=isolation) as tree:
        await ready(tree)
        assert len(marked(mark)) == 3
        ended = await tree.kill()
        assert not marked(mark)
        assert ended.reason is EndReason.KILLED
        assert await tree.kill() == ended
        assert await tree.wait() == ended


async def test_kill_outruns_a_process_that_keeps_moving_on(start: Spawn, mark: str) -> None:
    """Each process forks the next and ends: looking them up one by one would always come too late."""
    restless = "import os\nprint('ready')\nos.setsid() if os.fork() == 0 else os._exit(0)\nwhile os.fork() == 0: pass"
    child = f"import os, time\nif os.fork():\n    time.sleep(60)\nexec({restless!r})"
    async with start([*PYTHON, child], isolation=Isolation.PID_NAMESPACE) as tree:
        await ready(tree)
        async with asyncio.timeout(3):
            await tree.kill()
        assert not marked(mark)


async def test_stop_asks_twice_and_then_kills(start: Spawn, mark: str) -> None:
    stubborn = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: print('term'))\n"
        "print('ready')\n"
        "while True: time.sleep(60)"
    )
    async with start([*PYTHON, stubborn]) as tree:
        await ready(tree)
        begun = time.monotonic()
        ended = await tree.stop(grace_seconds=0.3, kill_after_seconds=0.6)
        assert 0.6 <= time.monotonic() - begun < 2
        assert ended.reason is EndReason.KILLED
        assert await tree.stdout.read() == b"term\nterm\n"
        assert not marked(mark)


async def test_stop_of_an_obedient_child_waits_for_nothing(start: Spawn) -> None:
    obedient = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))\n"
        "print('ready')\n"
        "while True: time.sleep(60)"
    )
    async with start([*PYTHON, obedient]) as tree:
        await ready(tree)
        begun = time.monotonic()
        ended = await tree.stop(grace_seconds=5, kill_after_seconds=8)
        assert (ended.exit_code, ended.reason) == (4, EndReason.EXITED)
        assert time.monotonic() - begun < 2


@EVERY_ISOLATION
async def test_signals_reach_the_child_alone(start: Spawn, isolation: Isolation) -> None:
    child = (
        "import os, signal, sys, time\n"
        "def told(name): return lambda *_: print(name)\n"
        "signal.signal(signal.SIGINT, told('child'))\n"
        "if os.fork() == 0:\n"
        "    signal.signal(signal.SIGINT, told('grandchild'))\n"
        "    print('ready')\n"
        "while True: time.sleep(60)"
    )
    async with start([*PYTHON, child], isolation=isolation) as tree:
        await ready(tree)
        tree.interrupt()
        assert await tree.stdout.readline() == b"child\n"
        await tree.kill()
        assert await tree.stdout.read() == b""


async def test_exception_in_the_block_leaves_nothing(start: Spawn, mark: str) -> None:
    async def run() -> None:
        async with start([*PYTHON, FAMILY, "daemon"]) as tree:
            await ready(tree)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run()
    assert not marked(mark)


async def test_cancellation_in_the_block_leaves_nothing_even_when_repeated(start: Spawn, mark: str) -> None:
    running = asyncio.Event()

    async def run() -> None:
        async with start([*PYTHON, FAMILY, "daemon"]) as tree:
            await ready(tree)
            running.set()
            await tree.wait()

    task = asyncio.create_task(run())
    await running.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    assert task.cancelled()
    assert not marked(mark)


async def test_cancellation_at_any_step_of_the_start_leaves_nothing(start: Spawn, mark: str) -> None:
    large = {"LARGE": "x" * 100_000}  # more than the control pipe takes at once
    for step in range(14):

        async def run() -> None:
            async with start([*PYTHON, FAMILY, "daemon"], env=large) as tree:
                await tree.wait()

        task = asyncio.create_task(run())
        for _ in range(step):
            await asyncio.sleep(0)
        task.cancel()
        begun = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - begun < 2
        assert not marked(mark)


# -- what the child is given


async def test_environment_is_exactly_the_one_given(start: Spawn, mark: str) -> None:
    given_env = {"EMPTY": "", "LINES": "a\nb", "BYTES": "ü\udcff", "LD_PRELOAD": ""}
    child = "import os, sys; sys.stdout.buffer.write(open('/proc/self/environ', 'rb').read())"
    async with start([*PYTHON, child], env=given_env) as tree:
        variables = dict(line.split(b"=", 1) for line in (await tree.stdout.read()).rstrip(b"\0").split(b"\0"))
    expected = {"PATH": os.defpath, MARK: mark, **given_env}
    assert variables == {os.fsencode(name): os.fsencode(value) for name, value in expected.items()}


async def test_tree_in_a_namespace_finds_no_secret_of_its_owner_in_proc(mark: str) -> None:
    child = (
        "import glob\n"
        "texts = {}\n"
        "for name in glob.glob('/proc/[0-9]*/environ'):\n"
        "    texts[name] = open(name, 'rb').read()\n"
        f"assert texts.pop('/proc/1/environ') == b'', 'init'\n"
        f"print('leak' if any(b'{SECRET}' in text for text in texts.values()) else 'clean', len(texts))"
    )
    owner, said = await start_owner(mark, argv=[*PYTHON, child], seconds=10, isolation=None)
    try:
        assert said == ["clean 1", Isolation.PID_NAMESPACE, True]
    finally:
        end_owner(owner)


@EVERY_ISOLATION
async def test_supervisors_carry_no_environment(start: Spawn, isolation: Isolation) -> None:
    async with start(["sleep", "60"], isolation=isolation) as tree:
        for supervisor in psutil.Process(tree.pid).parents()[:2]:
            assert supervisor.environ() == {}


async def test_child_begins_with_clean_signals_descriptors_and_folder(start: Spawn, tmp_path: Path) -> None:
    # A shell, because Python itself ignores SIGPIPE and SIGXFSZ.
    shell = "grep -E 'Sig(Blk|Ign)' /proc/self/status | cut -f2; pwd; ls /proc/self/fd | tr '\\n' ' '"
    async with start(["/bin/sh", "-c", shell], cwd=tmp_path) as tree:
        said = (await tree.stdout.read()).decode().splitlines()
    blocked, ignored, folder, descriptors = said
    # Signals 32 and 33 belong to the C library, which lets nobody change them, not even back.
    assert (int(blocked, 16), int(ignored, 16) & ~(0b11 << 31)) == (0, 0)
    assert (folder, descriptors) == (str(tmp_path), "0 1 2 3 ")  # 3 is the listing itself


async def test_passed_descriptor_belongs_to_the_child_alone(start: Spawn) -> None:
    received, given_end = os.pipe()
    child = f"import os, time; os.write({given_end}, b'hello'); os.close({given_end}); time.sleep(60)"
    try:
        async with start([*PYTHON, child], pass_fds=[given_end]):
            os.close(given_end)
            async with asyncio.timeout(5):
                assert await asyncio.to_thread(os.read, received, 16) == b"hello"
                assert await asyncio.to_thread(os.read, received, 16) == b""  # though the child lives
    finally:
        os.close(received)


async def test_limits_bind_the_tree(start: Spawn, tmp_path: Path) -> None:
    command = f"ulimit -n; ulimit -c; exec dd if=/dev/zero of={tmp_path}/big bs=1024 count=64 2>/dev/null"
    async with start(["/bin/sh", "-c", command], limits=Limits(open_files=77, file_bytes=8_192)) as tree:
        ended = await tree.wait()
        assert (await tree.stdout.read()).split() == [b"77", b"0"]
    assert ended.signal == signal.SIGXFSZ
    assert (tmp_path / "big").stat().st_size == 8_192


async def test_limit_above_ours_is_lowered_not_refused(start: Spawn) -> None:
    ceiling = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    async with start(["/bin/sh", "-c", "ulimit -n"], limits=Limits(open_files=ceiling + 1)) as tree:
        assert int(await tree.stdout.read()) >= ceiling


@HOLDS_DAEMONS
async def test_memory_of_the_whole_tree_is_counted(start: Spawn, isolation: Isolation) -> None:
    child = (
        "import os, time\n"
        "block = bytearray(60_000_000) if os.fork() else bytearray(40_000_000)\n"
        "for i in range(0, len(block), 4096): block[i] = 1\n"
        "os.write(1, b'ready\\n')\n"
        "time.sleep(60)"
    )
    async with start([*PYTHON, child], isolation=isolation) as tree:
        await ready(tree)
        await ready(tree)
        assert 100_000_000 < await tree.memory_bytes() < 160_000_000
        ended = await tree.kill()
        assert await tree.memory_bytes() == 0
    assert 60_000_000 < ended.peak_rss_bytes < 100_000_000


# Three processes that each take 200 ms of a processor: one that is waited for, a daemon that nobody of the tree waits
# for, and the child itself, which lives on.
BUSY = """
import os, sys, time
def burn():
    while time.process_time() < 0.2:
        pass
waited = os.fork()
if waited == 0:
    burn()
    os._exit(0)
os.waitpid(waited, 0)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        burn()
        os.write(1, b"ready\\n")
    os._exit(0)
burn()
os.write(1, b"ready\\n")
sys.stdin.read()
"""


@EVERY_ISOLATION
@pytest.mark.parametrize("is_killed", [True, False])
async def test_processor_time_of_the_whole_tree_is_counted(start: Spawn, isolation: Isolation, is_killed: bool) -> None:
    async with start([*PYTHON, BUSY], isolation=isolation) as tree:
        await ready(tree)
        await ready(tree)
        tree.stdin.close()
        ended = await (tree.kill() if is_killed else tree.wait())
    # A daemon that is gone before the end is out of a process group's sight; /proc counts in steps of 10 ms.
    least = 350 if isolation is Isolation.PROCESS_GROUP else 550
    assert least < ended.cpu_milliseconds < 1_500


async def test_processor_time_of_a_lost_tree_is_not_known(start: Spawn) -> None:
    async with start([*PYTHON, BUSY]) as tree:
        await ready(tree)
        psutil.Process(tree.pid).parents()[1].kill()
        ended = await tree.wait()
    assert (ended.reason, ended.cpu_milliseconds, ended.peak_rss_bytes) == (EndReason.LOST, 0, 0)


# -- what isolation there is


async def test_owner_without_privilege_gets_a_namespace_too(mark: str) -> None:
    if shutil.which("setpriv") is None or os.geteuid() != 0:
        pytest.skip("needs root, to give it up")
    prefix = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    owner, said = await start_owner(mark, argv=[*PYTHON, FAMILY, "daemon"], seconds=60, isolation=None, prefix=prefix)
    try:
        assert said == ["ready", Isolation.PID_NAMESPACE, True]
        owner.kill()
        await eventually(lambda: not marked(mark), seconds=2)
    finally:
        end_owner(owner)


async def test_denied_namespaces_fall_back_to_a_subreaper(mark: str) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare(1)")
    prefix = ("unshare", "-Ur", "sh", "-c", 'echo 0 > /proc/sys/user/max_pid_namespaces && exec "$@"', "sh")
    owner, said = await start_owner(mark, argv=[*PYTHON, FAMILY, "daemon"], seconds=60, isolation=None, prefix=prefix)
    try:
        assert said == ["ready", Isolation.SUBREAPER, False]
        owner.kill()
        await eventually(lambda: not marked(mark), seconds=2)
    finally:
        end_owner(owner)


def test_ps_shows_the_same_processes_as_proc() -> None:
    """The table used where there is no /proc."""
    with subprocess.Popen(["/bin/sleep", "60"], start_new_session=True) as child:
        try:
            expected = (child.pid, os.getpid(), child.pid, False)
            assert expected in deadman.processes_of_ps()
            assert expected in deadman.processes_of_proc()
        finally:
            child.kill()


# -- the pipes


async def test_large_output_flows_with_flat_memory(start: Spawn) -> None:
    total = 200_000_000
    child = f"import sys\nfor _ in range({total} // 100_000): sys.stdout.buffer.write((b'x' * 99 + b'\\n') * 1_000)"
    me = psutil.Process()
    async with start([*PYTHON, child], seconds=60) as tree:
        before = peak = me.memory_info().rss
        count = 0
        async for batch in line_batches(tree.stdout, limit_bytes=1_000):
            count += len(batch)
            if count % 1_000 < len(batch):
                peak = max(peak, me.memory_info().rss)
        assert (await tree.wait()).exit_code == 0
    assert count == total // 100
    assert peak - before < 30_000_000


async def test_unread_output_holds_the_child_back(start: Spawn) -> None:
    total = 20_000_000
    child = f"import sys\nfor _ in range({total} // 100_000): sys.stdout.buffer.write(b'x' * 100_000)"
    async with start([*PYTHON, child]) as tree:
        process = psutil.Process(tree.pid)
        await eventually(lambda: process.io_counters().write_chars > 500_000, seconds=5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await tree.wait()
        assert process.io_counters().write_chars < 2_000_000
        received = 0
        while chunk := await tree.stdout.read(READ_BYTES):
            received += len(chunk)
        assert received == total
        assert (await tree.wait()).exit_code == 0


async def test_child_that_does_not_read_holds_the_owner_back(start: Spawn) -> None:
    async with start(["sleep", "60"]) as tree:
        tree.stdin.write(b"x" * 1_000_000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await tree.stdin.drain()


async def test_messages_reach_the_child_and_its_end_breaks_the_pipe(start: Spawn) -> None:
    async with start(["/bin/sh", "-c", 'read line; echo "$line"; exec 0<&-; read _; sleep 60']) as tree:
        tree.stdin.write(b"hello\n")
        assert await tree.stdout.readline() == b"hello\n"

        async def write_on() -> None:
            while True:
                tree.stdin.write(b"x" * 1_000)
                await tree.stdin.drain()
                await asyncio.sleep(0)

        async with asyncio.timeout(3):
            with pytest.raises(ConnectionError):  # we hold no reading end ourselves
                await write_on()


async def test_long_line_passes_up_to_the_limit(start: Spawn) -> None:
    async with start([*PYTHON, "print('x' * 16_000_000); print('last', end='')"]) as tree:
        assert [len(line) async for line in lines(tree.stdout, limit_bytes=16_000_000)] == [16_000_000, 4]


def feed(*chunks: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    for chunk in chunks:
        reader.feed_data(chunk)
    reader.feed_eof()
    return reader


@pytest.mark.parametrize("data", [b"a\nb\nfour\n\nmore\n", b"a\nb\nfour", b"a\nb\nfo" + b"ur" * 300_000])
async def test_overlong_line_is_an_error_after_the_lines_before_it(data: bytes) -> None:
    seen: list[bytes] = []

    async def read() -> None:
        async for batch in line_batches(feed(data), limit_bytes=3):
            seen.extend(line for line in batch)

    with pytest.raises(LineTooLong, match="3 bytes"):
        await read()
    assert seen == [b"a", b"b"]


class Pieces(asyncio.StreamReader):
    """A reader that hands out exactly the pieces it was given."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__()
        self.pieces = [piece for piece in pieces if piece]

    async def read(self, n: int = -1) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


@given(st.lists(st.text("ab\n", max_size=8).map(str.encode), max_size=12))
def test_lines_do_not_depend_on_where_reads_end(pieces: list[bytes]) -> None:
    async def collect() -> list[list[bytes]]:
        return [batch async for batch in line_batches(Pieces(pieces), limit_bytes=1_000)]

    batches = run_in_thread(collect)
    whole = b"".join(pieces)
    assert all(batches)
    assert [line for batch in batches for line in batch] == (whole.removesuffix(b"\n").split(b"\n") if whole else [])


def run_in_thread(main: Callable[[], Any], *, loop_factory: Callable[[], Any] | None = None) -> Any:
    """Run a coroutine function on a loop of its own, beside the one of the tests."""
    results = []

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            results.append(runner.run(main()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(timeout=30)
    return results[0]


@pytest.fixture
def uvloop_opened_its_own() -> None:
    """The first loop opens two descriptors for the life of the process, which are not ours to count."""

    async def nothing() -> None: ...

    run_in_thread(nothing, loop_factory=uvloop.new_event_loop)


@pytest.mark.usefixtures("uvloop_opened_its_own")
def test_trees_work_on_uvloop(start: Spawn, mark: str) -> None:
    async def main() -> tuple[TreeExit, TreeExit]:
        async with start([*PYTHON, "print(input() * 1_000_000)"]) as tree:
            tree.stdin.write(b"x\n")
            assert [len(line) async for line in lines(tree.stdout, limit_bytes=2_000_000)] == [1_000_000]
            first = await tree.wait()
        async with start([*PYTHON, FAMILY, "daemon"]) as tree:
            await ready(tree)
            second = await tree.stop(grace_seconds=0.1, kill_after_seconds=0.2)
        return first, second

    exited, killed = run_in_thread(main, loop_factory=uvloop.new_event_loop)
    assert (exited.exit_code, killed.reason) == (0, EndReason.KILLED)
    assert not marked(mark)
