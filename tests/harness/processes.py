"""Our own programs as child processes: watched by their log, ended by their id.

They start as in production, or are forked from a process that has their modules loaded already (`fork_server.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters.embedded import children
from tests.harness.fork_server import ForkedProcess, ForkServer
from tests.harness.waiting import eventually

CHECKOUT = Path(__file__).resolve().parents[2]
CLI = CHECKOUT / "cli.py"
START_SECONDS = 20.0
STOP_SECONDS = 10.0
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "COVERAGE_PROCESS_START")


class Program:
    """One child process. Both its output streams go to `log`; it dies with the test session."""

    def __init__(
        self,
        argv: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        log: Path,
        server: ForkServer | None = None,
    ) -> None:
        self.argv = [sys.executable, *map(str, argv)]
        self.environment = dict(environment)
        self.log = log
        self._process: subprocess.Popen[bytes] | ForkedProcess
        if server is not None:
            self._process = server.spawn(self.argv[1:], environment=self.environment, log=log)
            return
        with log.open("ab") as output:
            self._process = children.spawn(
                self.argv,
                folder=CHECKOUT,
                environment=self.environment,
                death_signal=signal.SIGKILL,
                output=output,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it lives."""
        return self._process.poll()

    def terminate(self) -> None:
        """SIGTERM: what an orderly stop sends."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what a crash or the kernel does."""
        self._process.send_signal(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: the process, not its children, stands still."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    async def wait_exit(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for the end; its exit code."""
        await eventually(
            lambda: self.exit_code is not None, timeout_seconds, what=f"the end of {self.argv}\n{self.log_tail()}"
        )
        code = self.exit_code
        assert code is not None
        return code

    async def stop(self) -> int:
        """SIGTERM, and SIGKILL past ten seconds, which is an AssertionError; the exit code."""
        if self.exit_code is not None:
            return self.exit_code
        self.thaw()
        self.terminate()
        try:
            return await self.wait_exit(STOP_SECONDS)
        finally:
            if self.exit_code is None:
                self.kill()
                await self.wait_exit()

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """The JSON lines of the log so far, all or those of one event; other text is left out."""
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").split("\n"):
            if not line.startswith("{"):
                continue
            try:
                event = json.loads(line)
            except ValueError:
                continue  # half a line: it is being written
            if name is None or event.get("event") == name:
                found.append(event)
        return found

    async def wait_event(self, name: str, timeout_seconds: float = START_SECONDS, **fields: object) -> dict[str, Any]:
        """The first line of an event with these fields; AssertionError with the log's end when none comes."""

        def first() -> dict[str, Any] | None:
            matching = (event for event in self.events(name) if fields.items() <= event.items())
            event = next(matching, None)
            if event is None and self.exit_code is not None:
                raise AssertionError(f"{self.argv} ended with {self.exit_code}:\n{self.log_tail()}")
            return event

        found = await eventually(first, timeout_seconds, what=f"{name} in the log of {self.argv}")
        assert found is not None
        return found

    def log_tail(self, lines: int = 40) -> str:
        """The end of the log, to show when a test fails."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


class Api(Program):
    """An API process; `url` and `ws_url` hold once `ready` returned."""

    port = 0

    async def ready(self) -> None:
        """Wait until it listens."""
        listening = await self.wait_event("api_listening")
        self.port = listening["port"]

    @property
    def url(self) -> str:
        """Address of the API, no slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def graphql_url(self) -> str:
        """Where operations go."""
        return f"{self.url}/graphql"

    @property
    def ws_url(self) -> str:
        """Where WebSockets go."""
        return f"ws://127.0.0.1:{self.port}/graphql"


def child_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child: the settings given and nothing else of ours, so that no variable leaks in."""
    inherited = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {**inherited, "PYTHONPATH": str(CHECKOUT), "PYTHONUNBUFFERED": "1", **settings}


def run_cli(*arguments: str, environment: Mapping[str, str], stdin: str = "", timeout_seconds: float = 60) -> str:
    """Run a subcommand to its end and return what it printed; AssertionError with its errors when it fails."""
    done = subprocess.run(
        [sys.executable, str(CLI), *arguments],
        env=dict(environment),
        cwd=CHECKOUT,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    assert done.returncode == 0, f"cli.py {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}"
    return done.stdout
