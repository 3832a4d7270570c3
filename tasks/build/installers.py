"""How the dependencies of a project are installed, by the lock file or requirements that it has.

Invariant: a command holds no text of the project but versions and names that match a strict pattern. Only the
installation has a network, so a package manager that the machine may lack comes through npm there; the build after it
runs scripts with `npm run`, which needs nothing but `node_modules`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tasks.build.evidence import Evidence

VIRTUAL_ENVIRONMENT = ".venv"
REQUIREMENTS = ("requirements.txt", "docs/requirements.txt", "requirements-docs.txt", "requirements/docs.txt")

YARN_CLASSIC = "1.22.22"
_VERSION = re.compile(r"(npm|pnpm|yarn|bun)@(\d{1,4}\.\d{1,4}\.\d{1,4})(?:[+-].*)?")
_PNPM_LOCK = re.compile(r"^lockfileVersion: *['\"]?(\d{1,3})", re.MULTILINE)
# The newest release that reads a lock file of this version and runs on all supported versions of Node.js.
_PNPM_OF_LOCK = {"5": "7", "6": "8", "9": "10"}
_EXTRA = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}")


class PackageManager(StrEnum):
    """Who installs."""

    NPM = "NPM"
    PNPM = "PNPM"
    YARN = "YARN"
    BUN = "BUN"
    PIP = "PIP"
    BUNDLER = "BUNDLER"


@dataclass(frozen=True, slots=True)
class Installation:
    """A command and who it belongs to; nothing to install is None and None."""

    command: str | None = None
    package_manager: PackageManager | None = None


# npm first: of several lock files its own is the one that needs no other program.
LOCK_FILES = {
    "package-lock.json": PackageManager.NPM,
    "npm-shrinkwrap.json": PackageManager.NPM,
    "pnpm-lock.yaml": PackageManager.PNPM,
    "yarn.lock": PackageManager.YARN,
    "bun.lock": PackageManager.BUN,
    "bun.lockb": PackageManager.BUN,
}


def install_node(evidence: Evidence) -> Installation:
    """Install what package.json asks for; nothing without one."""
    if evidence.package is None:
        return Installation()
    named = _VERSION.fullmatch(evidence.package.package_manager)
    present = [manager for name, manager in LOCK_FILES.items() if evidence.has(name)]
    wanted = PackageManager(named[1].upper()) if named else None
    if wanted is not None and wanted in present:
        manager = wanted
    else:
        manager = present[0] if present else PackageManager.NPM
        if len(set(present)) > 1:
            evidence.notes.append(f"There are lock files of several package managers; {manager.lower()}'s is used.")
    version = named[2] if named and wanted is manager else None
    if manager is PackageManager.NPM:
        if not present:
            evidence.notes.append("There is no lock file, so every build may install other versions: commit one.")
        return Installation("npm ci" if present else "npm install", manager)
    return Installation(_OTHERS[manager](evidence, version), manager)


def install_python(evidence: Evidence, generator: str, packages: Sequence[str], folder: str) -> Installation:
    """Make a virtual environment in `folder` with the project's requirements and, if they lack it, the generator."""
    wanted = list(_requirements(evidence, generator)) or list(packages)
    command = f"python3 -m venv {folder} && {folder}/bin/pip install {' '.join(wanted)}"
    return Installation(command, PackageManager.PIP)


def install_ruby(evidence: Evidence) -> Installation:
    """Install the gems of a Gemfile below the project; nothing without one."""
    if not evidence.has("Gemfile"):
        return Installation()
    return Installation("bundle config set --local path vendor/bundle && bundle install", PackageManager.BUNDLER)


def _requirements(evidence: Evidence, generator: str) -> Iterator[str]:
    """Arguments of `pip install`; nothing when the project says nothing about its generator."""
    mentioned = re.compile(rf"^[ \t]*{re.escape(generator)}\b", re.MULTILINE | re.IGNORECASE)
    for name in REQUIREMENTS:
        if evidence.has(name):
            yield f"-r {name}"
            if evidence.files[name] is not None and not mentioned.search(evidence.text(name)):
                yield generator
            return
    project = evidence.pyproject.get("project")
    if not isinstance(project, dict):
        return
    if _mentions(project.get("dependencies"), mentioned):
        yield "."
        return
    extras = project.get("optional-dependencies")
    for extra, dependencies in extras.items() if isinstance(extras, dict) else ():
        if _EXTRA.fullmatch(extra) and _mentions(dependencies, mentioned):
            yield f"'.[{extra}]'"
            return


def _mentions(dependencies: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(dependencies, list) and any(
        isinstance(line, str) and pattern.match(line) for line in dependencies
    )


def _pnpm(evidence: Evidence, version: str | None) -> str:
    match = _PNPM_LOCK.search(evidence.text("pnpm-lock.yaml"))
    release = version or _PNPM_OF_LOCK.get(match[1] if match else "", "10")
    return f"npx --yes pnpm@{release} install --frozen-lockfile"


def _yarn(evidence: Evidence, version: str | None) -> str:
    is_classic = "# yarn lockfile v1" in evidence.text("yarn.lock")[:1_000]
    if version is not None:
        is_classic = version.startswith("1.")
    if is_classic:
        return f"npx --yes yarn@{version or YARN_CLASSIC} install --frozen-lockfile"
    if "nodeLinker: node-modules" not in evidence.text(".yarnrc.yml"):
        evidence.notes.append(
            "Yarn keeps packages outside node_modules unless .yarnrc.yml says `nodeLinker: node-modules`, which the "
            "build command needs."
        )
    return f"npx --yes @yarnpkg/cli-dist@{version or '4'} install --immutable"


def _bun(_: Evidence, version: str | None) -> str:
    return f"npx --yes bun@{version or '1'} install --frozen-lockfile"


_OTHERS = {PackageManager.PNPM: _pnpm, PackageManager.YARN: _yarn, PackageManager.BUN: _bun}
