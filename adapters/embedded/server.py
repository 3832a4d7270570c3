"""One server process of a data folder: started, watched, stopped, or crashed on purpose.

What PostgreSQL and Redis have in common lives here: the folder's lock, the leftovers of a crash, the identity,
the free port and the proof that the server which answers is the one we started. `postgres_server` and
`redis_server` add what is their own. A server listens on 127.0.0.1 only and asks for a password that only
its folder knows; no password is ever an argument.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, ClassVar

from adapters.embedded import children
from adapters.embedded.children import EmbeddedError, FolderLock

PROBE_SECONDS = 15
PORT_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Installation:
    """A server's program below `root`; `parts` are the folders of `root` it needs, none when it is the system's own."""

    root: Path
    program: Path
    parts: tuple[str, ...] = ()


class Server(ABC):
    """A server of one data folder; `start` first, then `url`, `pid` and `port` hold until `stop`.

    `durable=False` is for tests: faster, and safe when a server crashes but not when the machine does.
    """

    title: ClassVar[str]
    folder_name: ClassVar[str]
    process_names: ClassVar[frozenset[str]]
    crash_signal: ClassVar[signal.Signals]
    death_signal: ClassVar[signal.Signals]
    stop_steps: ClassVar[tuple[tuple[signal.Signals, float], ...]]

    def __init__(
        self,
        data_dir: Path,
        *,
        durable: bool = True,
        installation: Installation | None = None,
        start_seconds: float = 60,
    ) -> None:
        self.folder = data_dir.resolve() / self.folder_name
        self.log_path = data_dir.resolve() / "logs" / f"{self.folder_name}.log"
        self.durable = durable
        self.start_seconds = start_seconds
        self._given = installation
        self._lock: FolderLock | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None
        self._identity = children.SAME

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._started().pid

    @property
    def port(self) -> int:
        """Its port on 127.0.0.1."""
        if self._port is None:
            raise EmbeddedError(f"{self.title} is not started")
        return self._port

    @property
    @abstractmethod
    def url(self) -> str:
        """How clients reach it, password included."""

    async def start(self) -> None:
        """Start on a free port and return once it answers.

        Raises FolderBusy when another process has the folder, EmbeddedError when the server does not come up.
        """
        if self._lock is not None:
            raise EmbeddedError(f"{self.title} is already started")
        self._lock = FolderLock(self.folder, what=self.title)
        try:
            await self._clear_leftovers()
            await self._prepare_programs()
            await self._launch(None)
        except BaseException:
            self._give_up()
            raise

    async def stop(self) -> None:
        """Stop cleanly, by force past the deadline; nothing happens when it is not started."""
        if self._process is not None:
            await children.end(self._process, self.stop_steps)
        self._give_up()

    async def kill(self) -> None:
        """SIGKILL the server and wait until it is gone; `restart_immediate` brings it back."""
        await children.end(self._started(), ())

    async def restart_immediate(self) -> None:
        """Crash the server unless it is dead already, and start it again on the same port.

        Raises EmbeddedError when it does not come up again.
        """
        await children.end(self._started(), ((self.crash_signal, 10),))
        await self._clear_leftovers()
        await self._launch(self.port)

    async def exited(self) -> int:
        """Wait until the server ends by itself; its exit code, negative for a signal."""
        return await children.exited(self._started(), poll_seconds=0.2)

    # -- what a kind of server adds

    @property
    @abstractmethod
    def work_folder(self) -> Path:
        """The server's working directory."""

    @property
    @abstractmethod
    def pid_file(self) -> Path:
        """Where the server records its process id."""

    @abstractmethod
    def find_installation(self) -> Installation:
        """Where its programs are; raises EmbeddedError that says how to get them."""

    @abstractmethod
    async def prepare(self, program: Path, version: str) -> None:
        """Make the folder ready for a start."""

    @abstractmethod
    def command(self, program: Path, port: int) -> list[str]:
        """The server's command line."""

    @abstractmethod
    async def answers(self, pid: int, port: int) -> bool:
        """Whether the server with this process id, and no other, accepts clients on the port."""

    @abstractmethod
    async def greet(self) -> None:
        """What is done once the server answers."""

    # -- the common part

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise EmbeddedError(f"{self.title} is not started")
        return self._process

    def _give_up(self) -> None:
        if self._process is not None:
            children.kill_group(self._process)
            self._process.wait(timeout=10)
        self._process = self._port = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _clear_leftovers(self) -> None:
        await children.stop_leftovers(self.work_folder, self.process_names, self.pid_file, self.stop_steps[0][0])

    async def _prepare_programs(self) -> None:
        installation = self._given or self.find_installation()
        program, version = await self._choose(installation)
        self._program = program
        await self.prepare(program, version)

    async def _choose(self, installation: Installation) -> tuple[Path, str]:
        """Find an identity under which the program runs and can write its folder; its path and version text."""
        complaint = ""
        owner = self.folder.stat()
        for identity in children.identities(self.folder):
            children.hand_over(self.folder, identity)
            if identity.uid is not None and self.folder.parent.stat().st_uid == os.geteuid():
                # Its servant must be able to pass through the folder; what is private in it has mode 0600.
                self.folder.parent.chmod(0o711)
            programs = [installation.program]
            if identity.uid is not None and installation.parts:
                copy = children.copy_folder(installation.program, self.folder / "programs")
                programs.append(copy / installation.program.relative_to(installation.root))
            for program in programs:
                if program != installation.program:
                    await asyncio.to_thread(children.readable_copy, installation.root, installation.parts, copy)
                    children.hand_over(self.folder, identity)
                self._identity = identity
                code, output = await self._run([program, "--version"], PROBE_SECONDS)
                if code == 0:
                    return program, output
                complaint = output.strip()
        if os.geteuid() == 0:
            children.hand_over(self.folder, children.user(owner.st_uid, owner.st_gid))
        raise EmbeddedError(
            f"{self.title} cannot run in {self.folder}: {complaint or 'its program fails'}. Run as an ordinary user, "
            "choose a data folder that other users can enter, or name a server of your own in the environment."
        )

    async def _run(self, argv: Sequence[str | Path], seconds: float) -> tuple[int, str]:
        """Run a helper program of the server to its end; its code and output."""
        path = self.folder / "output"
        with path.open("w+b") as output:
            process = self._spawn(argv, folder=self.folder, output=output, death_signal=signal.SIGKILL)
            try:
                async with asyncio.timeout(seconds):
                    code = await children.exited(process)
            except TimeoutError:
                raise EmbeddedError(f"{argv[0]} did not end within {seconds:.0f} s") from None
            finally:
                children.kill_group(process)
                process.wait(timeout=10)
            output.seek(0)
            text = output.read().decode("utf-8", "replace")
        path.unlink()
        return code, text

    def _spawn(
        self, argv: Sequence[str | Path], *, folder: Path, output: IO[bytes], death_signal: signal.Signals
    ) -> subprocess.Popen[bytes]:
        # A clean environment: PGOPTIONS and the like of the caller must not reach the server, nor our secrets.
        environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(self.folder), "LC_ALL": "C", "TZ": "UTC"}
        return children.spawn(
            argv,
            folder=folder,
            environment=environment,
            death_signal=death_signal,
            identity=self._identity,
            output=output,
        )

    async def _launch(self, port: int | None) -> None:
        for _ in range(PORT_ATTEMPTS):
            self._port = port or children.free_port()
            with children.open_log(self.log_path) as log:
                since_byte = log.tell()
                self._process = self._spawn(
                    self.command(self._program, self._port),
                    folder=self.work_folder,
                    output=log,
                    death_signal=self.death_signal,
                )
            if await self._came_up(self._process, self._port):
                await self.greet()
                return
            if port is not None or children.port_is_free("127.0.0.1", self._port):
                break
        raise EmbeddedError(
            f"{self.title} does not start ({self.log_path}):\n{children.log_tail(self.log_path, since_byte)}"
        )

    async def _came_up(self, process: subprocess.Popen[bytes], port: int) -> bool:
        try:
            async with asyncio.timeout(self.start_seconds):
                while process.poll() is None:
                    if await self.answers(process.pid, port):
                        return True
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise EmbeddedError(f"{self.title} does not answer after {self.start_seconds:.0f} s") from None
        return False
