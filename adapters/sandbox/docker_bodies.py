"""What the Docker Engine is asked for a build: the container with all of its limits, and one command in it.

Invariant: the container has no privilege, no writable place but its volume and a sized folder in memory, and no network
unless one is named. Its first process does nothing but wait for the end of its standard input, which `holder.py` holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from adapters.sandbox.containers import TEMPORARY, USER, WORKSPACE
from adapters.sandbox.contract import BuildLimits
from adapters.sandbox.docker_api import Json

BUILD_LABEL: Final = "switchyard.build"
ATTEMPT_LABEL: Final = "switchyard.attempt"


def container(*, image: str, limits: BuildLimits, network: str | None, labels: Mapping[str, str]) -> Json:
    """The container of a build; `network` None is none at all, not even the engine's own."""
    return {
        "Image": image,
        "User": f"{USER}:{USER}",
        "WorkingDir": WORKSPACE,
        "Entrypoint": ["/bin/sh", "-c", "exec cat >/dev/null"],
        "Cmd": [],
        "Env": [],
        "Labels": dict(labels),
        # The first connection that is attached holds it: when that ends, so does the standard input (`StdinOnce`).
        "AttachStdin": True,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "HostConfig": {
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "PidsLimit": limits.processes,
            "Memory": limits.memory_bytes,
            "MemorySwap": limits.memory_bytes,  # memory and swap together: no swap
            # A volume without a name, so that it goes with the container.
            "Mounts": [
                {"Type": "volume", "Target": WORKSPACE, "VolumeOptions": {"NoCopy": True, "Labels": dict(labels)}}
            ],
            "Tmpfs": {TEMPORARY: f"rw,exec,nosuid,nodev,mode=1777,size={limits.memory_bytes // 4}"},
            "NetworkMode": network or "none",
            "IpcMode": "private",
            "Init": True,  # reaps what the build leaves behind
            "AutoRemove": False,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "none", "Config": {}},
            "Ulimits": [
                {"Name": "nofile", "Soft": limits.open_files, "Hard": limits.open_files},
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "fsize", "Soft": limits.file_bytes, "Hard": limits.file_bytes},
            ],
        },
    }


def command(line: str, *, directory: str, environment: Mapping[str, str]) -> Json:
    """One command in a running container."""
    return {
        "Cmd": ["/bin/sh", "-c", line],
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "WorkingDir": directory,
        "User": f"{USER}:{USER}",
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "Privileged": False,
    }
