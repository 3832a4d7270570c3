"""The few steps between fork and exec of a child that must not outlive us; a script, run by file name.

It takes on the wanted identity, asks the kernel to signal it when the parent dies, and becomes the program.
It runs as `python -I -S launch.py PARENT SIGNAL IDENTITY FOLDER PROGRAM ARGUMENT…` so that nothing but the
standard library is loaded (about 25 ms) and no Python code runs in a forked copy of a threaded process.
The order matters: Linux forgets the death signal when credentials change, so it is asked for last, and a
parent that died before it was asked for is noticed by its missing id. Other systems have no death signal:
there, the next start finds and stops the leftover.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)
CLONE_NEWUSER = 0x10000000  # unshare(2)
UID_INSIDE = 1000


def take_identity(identity: str, libc: ctypes.CDLL) -> None:
    """Become `same` (no change), `namespace` (not root, in a user namespace of one entry) or `uid:gid`."""
    if identity == "same":
        return
    if identity == "namespace":
        # Seen from inside we are an ordinary user, which PostgreSQL insists on; files still belong to whom we were.
        uid, gid = os.geteuid(), os.getegid()
        if libc.unshare(CLONE_NEWUSER) != 0:
            raise OSError(ctypes.get_errno(), "user namespaces are not allowed here")
        for name, content in (
            ("setgroups", "deny"),  # user_namespaces(7): before a group may be mapped without privilege
            ("uid_map", f"{UID_INSIDE} {uid} 1"),
            ("gid_map", f"{UID_INSIDE} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(content)
        return
    uid_text, _, gid_text = identity.partition(":")
    os.setgroups([])
    os.setgid(int(gid_text))
    os.setuid(int(uid_text))


def die_with_parent(parent: int, signal_number: int, libc: ctypes.CDLL) -> None:
    """Have the kernel send the signal when the parent ends; Linux only."""
    if sys.platform != "linux":
        return
    if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
    if os.getppid() != parent:
        sys.exit("the parent ended before its child was ready")


def main() -> None:
    """Read the arguments, prepare, become the program."""
    parent, signal_number, identity, folder, *command = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        take_identity(identity, libc)
        die_with_parent(int(parent), int(signal_number), libc)
        os.chdir(folder)
        if identity != "same" and not os.access(".", os.W_OK | os.X_OK):
            sys.exit(f"{folder} cannot be written as {identity}")
        os.execv(command[0], command)  # noqa: S606 — becoming the given program is this script's purpose
    except OSError as error:
        sys.exit(f"cannot start {command[0]}: {error}")


if __name__ == "__main__":
    main()
