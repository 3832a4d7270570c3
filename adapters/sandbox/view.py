"""What a build sees inside bubblewrap: its file system and its environment.

Invariant: of the host a build sees /usr and the tool folders of the settings, read-only, and the certificate bundle;
writable are its checkout, its cache and sized folders in memory, nothing else. The environment is made here and is
complete: nothing of ours gets in. Limits, users and the network are made by others (`bubblewrap`, `enter`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WORKSPACE: Final = "/workspace"
CACHE: Final = "/cache"
HOME: Final = "/home/build"
PROXY_PORT: Final = 3128
USER_ID: Final = 1_000

CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"
# Where systems keep the bundle that company certificates are added to: Debian, Fedora, openSUSE, Alpine.
CERTIFICATES_OF_HOSTS: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
ROOT_LINKS: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SYSTEM_FILES: Final = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl/openssl.cnf")
MADE_FILES: Final = {
    "/etc/passwd": f"root:x:0:0:root:/root:/sbin/nologin\nbuild:x:{USER_ID}:{USER_ID}:build:{HOME}:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n",
    "/etc/group": f"root:x:0:\nbuild:x:{USER_ID}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost build\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
# In memory, so that usage.py counts what they hold as memory.
MEMORY_FOLDERS: Final = ("/tmp", HOME, "/dev/shm")  # noqa: S108 - inside the sandbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where on the host the folders are that a build gets; the paths as bubblewrap will find them."""

    workspace: str
    cache: str | None
    tools: Sequence[tuple[str, str]]  # (where it is, where the build sees it)


def arguments(sources: Sources, *, files: Mapping[str, int], memory_bytes: int) -> list[str]:
    """Options of bubblewrap for the file system; `files` are descriptors with the content of MADE_FILES."""
    options = ["--ro-bind", "/usr", "/usr", *_root_links()]
    for path in SYSTEM_FILES:
        options += ["--ro-bind-try", path, path]
    for path, descriptor in files.items():
        options += ["--perms", "0444", "--file", str(descriptor), path]
    if bundle := _certificates():
        options += ["--ro-bind", bundle, CERTIFICATES]
    options += ["--proc", "/proc", "--dev", "/dev"]
    for path in MEMORY_FOLDERS:
        options += ["--size", str(max(memory_bytes // 2, 2**20)), "--tmpfs", path]
    options += ["--symlink", "/tmp", "/var/tmp"]  # noqa: S108
    for path, seen_at in sources.tools:
        options += ["--ro-bind", path, seen_at]
    options += ["--bind", sources.workspace, WORKSPACE]
    if sources.cache is not None:
        options += ["--bind", sources.cache, CACHE]
    # What bubblewrap puts all this on is in memory too, without a size: nobody writes there.
    return [*options, "--remount-ro", "/dev", "--remount-ro", "/"]


def environment(
    given: Mapping[str, str], *, tools: Sequence[str], has_cache: bool, has_proxy: bool, memory_bytes: int
) -> dict[str, str]:
    """The whole environment of a phase; what is given wins.

    Raises ValueError for a name or a value that no environment can hold.
    """
    programs = [f"{tool}/bin" for tool in tools if Path(tool, "bin").is_dir()] + list(tools)
    variables = {
        "PATH": ":".join([*programs, "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]),
        "HOME": HOME,
        "USER": "build",
        "SHELL": "/bin/sh",
        "TMPDIR": "/tmp",  # noqa: S108
        "LANG": "C.UTF-8",
        "CI": "1",
        "NODE_OPTIONS": f"--max-old-space-size={max(memory_bytes * 3 // 4 // 2**20, 32)}",
        "COREPACK_ENABLE_DOWNLOAD_PROMPT": "0",
    }
    if _certificates():
        names = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        variables |= dict.fromkeys((*names, "GIT_SSL_CAINFO"), CERTIFICATES)
    if has_cache:
        variables |= {
            "XDG_CACHE_HOME": f"{CACHE}/xdg",
            "npm_config_cache": f"{CACHE}/npm",
            "PNPM_HOME": f"{CACHE}/pnpm",
            "YARN_CACHE_FOLDER": f"{CACHE}/yarn",
            "BUN_INSTALL_CACHE_DIR": f"{CACHE}/bun",
            "COREPACK_HOME": f"{CACHE}/corepack",
            "PIP_CACHE_DIR": f"{CACHE}/pip",
        }
    if has_proxy:
        proxy = f"http://127.0.0.1:{PROXY_PORT}"
        for name in ("HTTP_PROXY", "HTTPS_PROXY"):
            variables |= {name: proxy, name.lower(): proxy}
        for name in ("npm_config_proxy", "npm_config_https_proxy", "YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"):
            variables[name] = proxy
        variables |= dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,127.0.0.1,::1")
        variables["NODE_USE_ENV_PROXY"] = "1"  # fetch of Node.js 22.21, 24 and newer
    variables |= given
    for name, value in variables.items():
        # Bubblewrap reads its options from a NUL-separated list: a NUL would start an option of the user's.
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise ValueError(f"{name!r} is no name, or its value no value, of an environment variable")
    return variables


def _root_links() -> Iterator[str]:
    """/bin and its like as the host has them: links into /usr, or folders of their own."""
    for path in ROOT_LINKS:
        if Path(path).is_symlink():
            yield from ("--symlink", str(Path(path).readlink()), path)
        elif Path(path).is_dir():
            yield from ("--ro-bind", path, path)


def _certificates() -> str | None:
    return next((str(Path(path).resolve()) for path in CERTIFICATES_OF_HOSTS if Path(path).is_file()), None)
