"""A small program that prepares the surroundings of a sandbox and then becomes bubblewrap.

Run by the runner, below `adapters/deadman.py`, as

    python -I -S enter.py <socket fd> [uid=N] [port=N] [limit=NAME:N]… [stage=PATH]… -- bwrap …

It does what bubblewrap cannot: it makes the network namespace, hands a socket that listens in there to the worker
outside, and, where the worker is root, gives up root after staging folders that only root may reach.
Like deadman it imports nothing of the project and little of the standard library.

Invariant: bubblewrap is executed only after every step has succeeded; a step that fails is told and ends the program,
so nothing ever runs less isolated than asked. Its own environment is empty and stays so: bubblewrap remains in the
sandbox as process 1, and `/proc/1/environ` shows what it was started with.

On the socket, one message (SOCK_SEQPACKET): `ready`, with the listening socket as SCM_RIGHTS when a port was asked for,
or `failed <step> <errno>`. After it the socket is bubblewrap's, for `--json-status-fd`.
"""

from __future__ import annotations

import _socket
import ctypes
import fcntl
import os
import resource
import struct
import sys

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000  # linux/sched.h
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 0x1000, 0x4000, 0x40000  # linux/mount.h
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1  # linux/sockios.h, linux/if.h
INTERFACE_REQUEST = struct.Struct("16sH22x")  # struct ifreq with ifr_flags

STAGE = "/tmp"  # noqa: S108 - a folder that every system has; only this mount namespace sees what is put over it
BACKLOG = 128


class StepFailed(Exception):
    """A step of the preparation was refused."""

    def __init__(self, step: str, errno: int) -> None:
        super().__init__(step, errno)
        self.step = step
        self.errno = errno


class Order:
    """What to prepare, from the command line."""

    def __init__(self, arguments: list[str]) -> None:
        end = arguments.index("--")
        self.argv = arguments[end + 1 :]
        self.handover = int(arguments[0])
        self.uid = 0
        self.port = 0
        self.limits: list[tuple[int, int]] = []
        self.stages: list[str] = []
        for argument in arguments[1:end]:
            key, _, value = argument.partition("=")
            if key == "uid":
                self.uid = int(value)
            elif key == "port":
                self.port = int(value)
            elif key == "limit":
                name, _, number = value.partition(":")
                self.limits.append((getattr(resource, f"RLIMIT_{name}"), int(number)))
            elif key == "stage":
                self.stages.append(value)


def main(arguments: list[str]) -> None:
    """Prepare, say so, become bubblewrap."""
    order = Order(arguments)
    handover = _socket.socket(fileno=order.handover)
    try:
        listening = prepare(order)
        # The command must not read what the worker holds open for deadman's child.
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        sent = [] if listening is None else [listening.fileno()]
        handover.sendmsg(
            [b"ready"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(sent)}i", *sent))] if sent else []
        )
        with step("exec"):
            os.execve(order.argv[0], order.argv, {})  # noqa: S606 - becoming bubblewrap is the purpose
    except StepFailed as failure:
        handover.send(f"failed {failure.step} {failure.errno}".encode())
        os._exit(125)


def prepare(order: Order) -> _socket.socket | None:
    """Everything before the exec; returns the socket that listens inside, if one was asked for."""
    if order.uid:
        with step("mount"):
            stage(order.stages)
        with step("network"):
            unshare(CLONE_NEWNET)
    else:
        with step("network"):
            enter_user_and_network_namespace()
    with step("loopback"):
        raise_loopback()
        listening = listen(order.port) if order.port else None
    with step("limits"):
        # Those of processes are counted for the user in the innermost user namespace: after it was made.
        for kind, value in order.limits:
            ceiling = resource.getrlimit(kind)[1]
            bounded = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
            resource.setrlimit(kind, (bounded, bounded))
    if order.uid:
        with step("user"):
            os.setgroups([])
            os.setresgid(order.uid, order.uid, order.uid)
            os.setresuid(order.uid, order.uid, order.uid)
    return listening


def stage(folders: list[str]) -> None:
    """Show folders as STAGE/0, STAGE/1 …, because the user to come may not be allowed down the path to them."""
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Opened first: they may lie below STAGE.
    descriptors = [os.open(folder, os.O_PATH | os.O_DIRECTORY) for folder in folders]
    mount("tmpfs", STAGE, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=0755")
    for place, descriptor in enumerate(descriptors):
        os.mkdir(f"{STAGE}/{place}")
        mount(f"/proc/self/fd/{descriptor}", f"{STAGE}/{place}", None, MS_BIND | MS_REC)
        os.close(descriptor)


def enter_user_and_network_namespace() -> None:
    """Without privilege a network namespace takes a user namespace, in which user and group keep their numbers."""
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER | CLONE_NEWNET)
    # user_namespaces(7): setgroups has to be denied before a group may be mapped without privilege
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def raise_loopback() -> None:
    """A new network namespace has nothing but a loopback interface that is down."""
    control = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    request = fcntl.ioctl(control.fileno(), SIOCGIFFLAGS, INTERFACE_REQUEST.pack(b"lo", 0))
    flags = INTERFACE_REQUEST.unpack(request)[1]
    fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, INTERFACE_REQUEST.pack(b"lo", flags | IFF_UP))
    control.close()


def listen(port: int) -> _socket.socket:
    """Listen on loopback, which here is the sandbox's own."""
    listening = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    listening.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(BACKLOG)
    return listening


class step:
    """Names what fails inside the block."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise StepFailed(self.name, error.errno or 0) from error


libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """unshare(2); raises OSError."""
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2); raises OSError."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    if libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


if __name__ == "__main__":
    main(sys.argv[1:])
