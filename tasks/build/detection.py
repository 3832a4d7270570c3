"""Recognises what a project is made with and says how to build it.

Pure: the same files give the same answer, no network and no clock; `detect_folder` alone reads the disk. Invariant: the
files are a stranger's, so nothing they hold makes this raise, and commands and paths in the answer are ours but for
relative folder names without shell syntax. People may overrule every part of the answer; it decides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from adapters.git import is_folder, read_file
from tasks.build.conventions import STATIC_FOLDERS
from tasks.build.evidence import FILE_BYTES, Evidence
from tasks.build.frameworks import RECIPES, FrameworkId, Recipe, Toolchain
from tasks.build.installers import (
    LOCK_FILES,
    REQUIREMENTS,
    Installation,
    PackageManager,
    install_node,
    install_python,
    install_ruby,
)

__all__ = [
    "Framework",
    "FrameworkId",
    "PackageManager",
    "detect",
    "detect_folder",
    "names_of_interest",
    "names_to_read",
]

# An option of a build script that says where the output goes.
_OUTPUT_OPTION = re.compile(r"--(?:output|outDir|out-dir|dist-dir|dest|destination)[= ]{1,3}['\"]?([\w./-]{1,200})")
_FOLDER = re.compile(r"(?!-)[A-Za-z0-9._@+-]+(?:/(?!-)[A-Za-z0-9._@+-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """How to build a project. Commands are None where nothing is to be done; the output is relative to the root
    directory. `is_single_page`: paths without a file are best answered with index.html. Notes are for people.
    """

    id: FrameworkId
    name: str
    install_command: str | None
    build_command: str | None
    output_directory: str
    package_manager: PackageManager | None
    is_single_page: bool
    notes: tuple[str, ...] = ()


def detect(files: Mapping[str, bytes | None]) -> Framework:
    """Judge a project by its files: paths relative to its root directory, with their content.

    Only `names_of_interest` are looked at. None stands for a file whose content is not at hand, too large say.
    """
    evidence = Evidence(files)
    recipe = next(recipe for recipe in RECIPES if recipe.matches(evidence))
    installation = _installation(recipe, evidence)
    script = evidence.script(*recipe.scripts) if _runs_scripts(recipe, evidence) else None
    build_command = f"npm run {script}" if script else _command(recipe, evidence)
    output_directory = _output(recipe, evidence, script)
    evidence.notes.extend(recipe.advice(evidence))
    return Framework(
        id=recipe.id,
        name=recipe.name,
        install_command=installation.command,
        build_command=build_command,
        output_directory=output_directory,
        package_manager=installation.package_manager,
        is_single_page=recipe.is_single_page(evidence),
        notes=tuple(evidence.notes),
    )


def detect_folder(source: Path, root_directory: str = ".") -> Framework:
    """Judge the project in a checkout, without following links; blocks on the disk.

    Raises FileNotFoundError when the checkout has no such root directory, or has a link there.
    """
    if not is_folder(source, root_directory):
        raise FileNotFoundError(root_directory)
    files: dict[str, bytes | None] = {}
    for name in names_of_interest():
        is_read = name in names_to_read()
        path = PurePosixPath(root_directory, name).as_posix()
        content = read_file(source, path, limit_bytes=FILE_BYTES if is_read else 0)
        if content is not None:
            files[name] = content if isinstance(content, bytes) and is_read else None
    return detect(files)


@cache
def names_of_interest() -> frozenset[str]:
    """The files that `detect` asks about, by path relative to the root directory."""
    indexes = {"index.html" if folder == "." else f"{folder}/index.html" for folder in STATIC_FOLDERS}
    presence_alone = {"package-lock.json", "npm-shrinkwrap.json", "bun.lock", "bun.lockb"}
    presence_alone |= {"pnpm-workspace.yaml", "lerna.json", "Gemfile"}
    return names_to_read() | presence_alone | indexes


@cache
def names_to_read() -> frozenset[str]:
    """Those of `names_of_interest` whose content matters; of the others it is enough that they are there."""
    configs = {name for recipe in RECIPES for name in recipe.settings}
    locks = {name for name in LOCK_FILES if name in {"pnpm-lock.yaml", "yarn.lock"}}
    return frozenset({"package.json", "pyproject.toml", ".yarnrc.yml", *configs, *locks, *REQUIREMENTS})


def _installation(recipe: Recipe, evidence: Evidence) -> Installation:
    match recipe.toolchain:
        case Toolchain.NODE | Toolchain.PROGRAM:
            return install_node(evidence)
        case Toolchain.PYTHON:
            return install_python(
                evidence, recipe.generator, recipe.packages(evidence), folder=recipe.environment(evidence)
            )
        case Toolchain.RUBY:
            return install_ruby(evidence)
        case Toolchain.NONE:
            return Installation()


def _runs_scripts(recipe: Recipe, evidence: Evidence) -> bool:
    """A program's own command is best, unless a script of package.json calls it between other things."""
    if recipe.toolchain is Toolchain.PROGRAM:
        return str(recipe.command) in evidence.script_text(evidence.script(*recipe.scripts))
    return recipe.toolchain is Toolchain.NODE


def _command(recipe: Recipe, evidence: Evidence) -> str | None:
    command = recipe.command(evidence) if callable(recipe.command) else recipe.command
    if not command:
        return None
    return f"npx {command}" if recipe.toolchain is Toolchain.NODE else command


def _output(recipe: Recipe, evidence: Evidence, script: str | None) -> str:
    """The folder of the output: by the script's options, by the settings, by default."""
    default = recipe.output(evidence) if callable(recipe.output) else recipe.output
    option = _OUTPUT_OPTION.search(evidence.script_text(script))
    setting = evidence.search(recipe.output_setting, recipe.settings) if recipe.output_setting else None
    for candidate in (option[1] if option else None, setting, default):
        folder = _folder(candidate) if candidate else None
        if folder is not None:
            return folder
    evidence.notes.append("The output directory could not be read from the settings: set it.")
    return "."


def _folder(text: str) -> str | None:
    """A folder inside the project, in one spelling; None for anything else."""
    path = text.removeprefix("./").rstrip("/") or "."
    if not _FOLDER.fullmatch(path) or ".." in path.split("/"):
        return None
    return PurePosixPath(path).as_posix()
