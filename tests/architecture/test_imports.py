"""What may import what, and where the edges are: read from the source, so that a slip fails before it runs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("schema", "resolvers", "tasks", "adapters", "models")
ENTRY_POINTS = ("app.py", "cli.py", "maintenance.py")
LEAVES = ("settings.py", "errors.py")
OURS = {*PACKAGES, "app", "cli", "maintenance", "settings", "errors", "tests"}

# Settings are read once and handed down. Those who may look at the environment themselves: the settings, the command
# line that fills in what `make run` does not ask for, and the supervisor that gives its children a clean one.
READS_ENVIRONMENT = ("settings.py", "cli.py", "maintenance.py", "adapters/embedded/")

# The edges where nothing may escape: shaping of errors for clients, the loops of the engine, the outbox and the
# scheduler, the sending of webhooks, the flush of effects, the child whose decoders raise whatever a stranger's file
# makes them raise, and the imports of spiders that other packages bring.
CATCHES_EVERYTHING = (
    *("schema/execution.py", "tasks/executions.py", "tasks/outbox.py", "tasks/scheduler.py", "models/transaction.py"),
    *("tasks/webhook_sending.py", "adapters/decoding/child.py"),
    "tasks/crawl/installed_spiders.py",
)


def our_modules() -> list[Path]:
    """Every module that ships; not the tests, not what a build or the migration tool wrote."""
    found = [CHECKOUT / name for name in (*ENTRY_POINTS, *LEAVES)]
    for package in PACKAGES:
        found += sorted((CHECKOUT / package).rglob("*.py"))
    skipped = ("schema/console/", "schema/static/", "models/migrations/")
    return [path for path in found if not relative(path).startswith(skipped)]


def relative(path: Path) -> str:
    return path.relative_to(CHECKOUT).as_posix()


def syntax_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def broad_handlers(tree: ast.Module) -> Iterator[int]:
    """Lines of handlers for everything, alone or among others, that keep what they do not know.

    Two forms are fine: to raise again at the end, and to begin with `if not …: raise`.
    """
    for node in ast.walk(tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        is_broad = any(
            kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"})
            for kind in caught
        )
        first, last = node.body[0], node.body[-1]
        is_filter = isinstance(first, ast.If) and len(first.body) == 1 and isinstance(first.body[0], ast.Raise)
        if is_broad and not is_filter and not isinstance(last, ast.Raise):
            yield node.lineno


def environment_reads(tree: ast.Module) -> Iterator[int]:
    """Lines that use `os.environ`, `os.getenv` or names imported from there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}:
            yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (node.lineno for alias in node.names if alias.name in {"environ", "environb", "getenv"})


@pytest.mark.slow
def test_imports_point_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_import_nothing_of_ours(name: str) -> None:
    roots = {imported.partition(".")[0] for imported in imported_names(syntax_tree(CHECKOUT / name))}
    assert not roots & OURS


def test_imports_are_absolute() -> None:
    relative_imports = {
        relative(path): [name for name in imported_names(syntax_tree(path)) if name.startswith(".")]
        for path in our_modules()
    }
    assert not {path: names for path, names in relative_imports.items() if names}


def test_environment_is_read_in_named_places_only() -> None:
    reads = {
        relative(path): lines
        for path in our_modules()
        if not relative(path).startswith(READS_ENVIRONMENT) and (lines := list(environment_reads(syntax_tree(path))))
    }
    assert not reads


def test_everything_is_caught_at_the_edges_only() -> None:
    handlers = {
        relative(path): lines
        for path in our_modules()
        if relative(path) not in CATCHES_EVERYTHING and (lines := list(broad_handlers(syntax_tree(path))))
    }
    assert not handlers


def test_edges_that_are_named_exist() -> None:
    assert [name for name in CATCHES_EVERYTHING if not (CHECKOUT / name).is_file()] == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("try:\n    pass\nexcept Exception:\n    pass", [3]),
        ("try:\n    pass\nexcept:\n    pass", [3]),
        ("try:\n    pass\nexcept (ValueError, BaseException):\n    pass", [3]),
        ("try:\n    pass\nexcept BaseException:\n    clean()\n    raise", []),
        ("try:\n    pass\nexcept Exception as error:\n    if not known(error):\n        raise\n    log(error)", []),
        ("try:\n    pass\nexcept Exception as error:\n    if known(error):\n        log(error)", [3]),
        ("try:\n    pass\nexcept ValueError:\n    pass", []),
    ],
)
def test_broad_handlers_are_found(source: str, lines: list[int]) -> None:
    assert list(broad_handlers(ast.parse(source))) == lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("import os\nos.environ['A']", [2]),
        ("import os\nos.getenv('A')", [2]),
        ("from os import environ", [1]),
        ("import os\nos.path.join('a')", []),
    ],
)
def test_environment_reads_are_found(source: str, lines: list[int]) -> None:
    assert list(environment_reads(ast.parse(source))) == lines
