"""What the files of a project say, read with distrust: the raw material of `detection`.

Invariant: whatever the files hold, nothing here raises and nothing takes more than linear time. What cannot be read
counts as absent and is noted for people. It leaves out what the facts mean.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

FILE_BYTES = 2**20
JS_EXTENSIONS = ("js", "mjs", "cjs", "ts", "mts", "cts")

_PACKAGE = re.compile(r"(?:@[a-z0-9._~-]{1,100}/)?[a-z0-9._~-]{1,200}", re.IGNORECASE)


def js(*stems: str) -> tuple[str, ...]:
    """The names that a configuration file of a JavaScript tool may have."""
    return tuple(f"{stem}.{extension}" for stem in stems for extension in JS_EXTENSIONS)


@dataclass(frozen=True, slots=True)
class PackageJson:
    """What counts of a package.json (npm docs, `package.json`)."""

    dependencies: Mapping[str, str]
    scripts: Mapping[str, str]
    package_manager: str
    has_workspaces: bool


@dataclass(frozen=True)
class Evidence:
    """The files of a project by path relative to its root directory; None is a file whose content is not known."""

    files: Mapping[str, bytes | None]
    notes: list[str] = field(default_factory=list)

    def has(self, *names: str) -> bool:
        """Whether one of these files is there."""
        return any(name in self.files for name in names)

    def text(self, *names: str) -> str:
        """The content of the first of these that can be read; "" when there is none."""
        for name in names:
            content = self.files.get(name)
            if content is None:
                continue
            if len(content) > FILE_BYTES:
                self._note(f"{name} is larger than {FILE_BYTES // 2**20} MiB and was not read.")
                continue
            return content.decode("utf-8-sig", "replace")
        return ""

    def search(self, pattern: re.Pattern[str], names: Iterable[str]) -> str | None:
        """The first group of the first match in the first of these files that is there."""
        match = pattern.search(self.text(*names))
        return match[1] if match else None

    def depends_on(self, *packages: str) -> bool:
        """Whether package.json asks for one of these."""
        return self.package is not None and any(name in self.package.dependencies for name in packages)

    def version_of(self, package: str) -> str:
        """The version that package.json asks for; "" when it does not."""
        return self.package.dependencies.get(package, "") if self.package is not None else ""

    def script(self, *names: str) -> str | None:
        """The name of the first of these scripts that package.json has."""
        return next((name for name in names if self.package is not None and name in self.package.scripts), None)

    def script_text(self, name: str | None) -> str:
        """What a script runs."""
        return self.package.scripts.get(name or "", "") if self.package is not None else ""

    @cached_property
    def package(self) -> PackageJson | None:
        """The package.json, None when there is none or it is malformed."""
        if "package.json" not in self.files:
            return None
        value = self.json("package.json")
        if not isinstance(value, dict):
            return None
        dependencies = _texts(value.get("devDependencies")) | _texts(value.get("dependencies"))
        manager = value.get("packageManager")
        return PackageJson(
            dependencies={name: version for name, version in dependencies.items() if _PACKAGE.fullmatch(name)},
            scripts=_texts(value.get("scripts")),
            package_manager=manager if isinstance(manager, str) else "",
            has_workspaces="workspaces" in value or self.has("pnpm-workspace.yaml", "lerna.json"),
        )

    @cached_property
    def pyproject(self) -> Mapping[str, Any]:
        """The pyproject.toml, empty when there is none or it is malformed."""
        try:
            return tomllib.loads(self.text("pyproject.toml"))
        except (tomllib.TOMLDecodeError, RecursionError):
            self._note("pyproject.toml is malformed and was ignored.")
            return {}

    def toml(self, *names: str) -> Mapping[str, Any]:
        """A TOML file; empty when there is none or it is malformed."""
        try:
            return tomllib.loads(self.text(*names))
        except (tomllib.TOMLDecodeError, RecursionError):
            return {}

    def json(self, name: str) -> Any:
        """A JSON file's value; None, with a note, when it is malformed."""
        try:
            return json.loads(self.text(name))
        except (ValueError, RecursionError):
            self._note(f"{name} is malformed and was ignored.")
            return None

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def _texts(value: Any) -> dict[str, str]:
    """The pairs of texts in what should be an object of texts."""
    if not isinstance(value, dict):
        return {}
    return {key: text for key, text in value.items() if isinstance(text, str)}
