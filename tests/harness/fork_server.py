"""A process that has our modules loaded and forks a child whenever a test needs a program.

Loading the schema takes two seconds of processor time, and tests start hundreds of programs: forked, they begin at
once. What runs in the child is the same program with the same arguments, environment and streams, in a session of its
own; only the interpreter's start is left out, which `tests/worker/test_run_command.py` and others go through as users
do.

The server has one thread and never looks at a clock, a random number or a socket but the one to its owner, so a child
begins with nothing that another one has. It ends with its owner, and its children with it.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]
ANSWER_SECONDS: Final = 60.0
_PR_SET_PDEATHSIG: Final = 1
_WIDEST_MESSAGE: Final = 1 << 20


class ForkServer:
    """The owner's side."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno()), str(os.getpid())],
                cwd=CHECKOUT,
                env={**_kept_environment(), "PYTHONPATH": str(CHECKOUT)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        ours.settimeout(ANSWER_SECONDS)
        self._socket = ours

    def spawn(self, argv: Sequence[str], *, environment: Mapping[str, str], log: Path) -> ForkedProcess:
        """Start `python argv…` with both its output streams going to the end of `log`."""
        log.touch()
        answer = self._ask({"argv": list(argv), "environment": dict(environment), "log": str(log)})
        return ForkedProcess(self, answer["pid"])

    def exit_code(self, pid: int) -> int | None:
        """The exit code of a child, negative for a signal; None while it lives."""
        code: int | None = self._ask({"poll": pid})["code"]
        return code

    def close(self) -> None:
        """End the server, and its children with it."""
        self._socket.close()
        self._process.wait(ANSWER_SECONDS)

    def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        self._socket.send(json.dumps(question).encode())
        answer: dict[str, Any] = json.loads(self._socket.recv(_WIDEST_MESSAGE))
        return answer


class ForkedProcess:
    """A child of the server, as `subprocess.Popen` would show it."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.pid = pid
        self._server = server
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        if self._code is None:
            self._code = self._server.exit_code(self.pid)
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing to a child that has ended, whose id may be another's by now."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _kept_environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}


# -- the server's side


def _load() -> None:
    import app
    import cli
    import tasks.worker
    from schema import build_schema

    build_schema()
    for module in (app, cli, tasks.worker):
        assert module.__name__ in sys.modules


def _serve(connection: socket.socket) -> None:
    ended: dict[int, int] = {}
    while question := connection.recv(_WIDEST_MESSAGE):
        asked = json.loads(question)
        if "poll" in asked:
            answer: dict[str, Any] = {"code": _poll(asked["poll"], ended)}
        else:
            pid = os.fork()
            if pid == 0:
                connection.close()
                _become(asked)
            answer = {"pid": pid}
        connection.send(json.dumps(answer).encode())


def _poll(pid: int, ended: dict[int, int]) -> int | None:
    if pid not in ended:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found == pid:
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended.get(pid)


def _become(asked: Mapping[str, Any]) -> None:
    """Run the program in this process, and end with its exit code."""
    server = os.getppid()
    _end_with_parent(server)
    os.setsid()
    output = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = list(asked["argv"])
    # The interpreter would have read this variable at its start.
    folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[1:1] = [folder for folder in folders if folder and folder not in sys.path]
    code = 0
    try:
        if sys.argv[0] == "-m":
            del sys.argv[0]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        elif sys.argv[0] == "-c":
            code_text = sys.argv.pop(1)
            exec(compile(code_text, "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - the interpreter's own last resort, which a forked child does not come by
        sys.excepthook(*sys.exc_info())
        code = 1
    _leave(code)


def _leave(code: int) -> None:
    # As the interpreter ends: threads, exit handlers, streams. There is no public name for it.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)  # it ended before the kernel was told


def main() -> None:
    """Load, then fork until the owner is gone."""
    descriptor, owner = int(sys.argv[1]), int(sys.argv[2])
    _end_with_parent(owner)
    sys.path[0] = str(CHECKOUT)
    gc.disable()
    _load()
    gc.freeze()
    gc.enable()
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would be missing in every child"
    _serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main()
