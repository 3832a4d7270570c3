"""The npm registry of this machine, for tests and benchmarks whose builds install real packages.

Its address is asked of npm each time and written down nowhere, because machines differ: some have a mirror, some an
address that is not public, some none at all. Asking is done by npm itself, so the tests' own process stays on loopback.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

_PING_SECONDS = 15
_PORTS = {"https": 443, "http": 80}


class NoRegistry(Exception):
    """No npm here, or no registry that it reaches."""


@dataclass(frozen=True, slots=True)
class NpmRegistry:
    """A registry that answered."""

    url: str
    is_default: bool

    @property
    def allowed_host(self) -> str:
        """The registry as `host:port`, for `BUILD_ALLOWED_HOSTS`."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port or _PORTS[parts.scheme]}"

    @property
    def settings(self) -> dict[str, str]:
        """Further settings of programs whose builds use it: where Node.js is, if not where builds see it anyway."""
        node = shutil.which("node")
        home = Path(node).resolve().parents[1] if node else Path("/usr")
        return {} if home.is_relative_to("/usr") else {"BUILD_TOOL_PATHS": str(home)}

    @property
    def variables(self) -> dict[str, str]:
        """Variables that a project needs, because a build does not see this machine's configuration of npm."""
        return {} if self.is_default else {"npm_config_registry": self.url}


def find_registry() -> NpmRegistry:
    """Ask npm for its registry, and the registry whether it is there; raises NoRegistry with the reason."""
    url = _npm("config", "get", "registry")
    bare = {name: value for name, value in os.environ.items() if not name.lower().startswith("npm_config_")}
    nothing = (f"--userconfig={os.devnull}", "--globalconfig=/nonexistent")
    unconfigured = _npm("config", "get", "registry", *nothing, environment=bare)
    _npm("ping", "--fetch-retries=0", "--fetch-timeout=5000")
    return NpmRegistry(url, url == unconfigured)


def require_registry() -> NpmRegistry:
    """The registry; without one the tests that need it are skipped, or fail where `REQUIRE_NPM_REGISTRY` is set."""
    try:
        return find_registry()
    except NoRegistry as error:
        reason = f"REAL APPLICATIONS NOT TESTED: {error}"
        if os.environ.get("REQUIRE_NPM_REGISTRY"):
            pytest.fail(reason)
        pytest.skip(reason)


def _npm(*arguments: str, environment: Mapping[str, str] | None = None) -> str:
    program = shutil.which("npm")
    if program is None:
        raise NoRegistry("npm is not installed")
    try:
        # In a folder of no project, whose .npmrc would count.
        done = subprocess.run(
            [program, *arguments],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoRegistry(f"`npm {arguments[0]}` takes longer than {_PING_SECONDS} s") from None
    if done.returncode != 0:
        raise NoRegistry(f"`npm {arguments[0]}` ended with {done.returncode}")
    return done.stdout.strip()
