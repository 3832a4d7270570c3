"""Names and shapes of modules: our generic top-level names are nobody else's, and no module outgrows its reader."""

from __future__ import annotations

import ast
import re
from importlib.metadata import packages_distributions

from tests.architecture.test_imports import OURS, our_modules, relative, syntax_tree

MAX_LINES = 500
NAMES_THAT_SAY_NOTHING = {"utils", "util", "common", "helpers", "services", "managers", "misc"}
_LEFT_UNDONE = re.compile(r"\b(TODO|FIXME|XXX)\b")


def test_no_installed_distribution_owns_our_names() -> None:
    owners = packages_distributions()
    taken = {name: owners[name] for name in OURS if set(owners.get(name, ())) - {"switchyard"}}
    assert not taken


def test_modules_stay_readable() -> None:
    sizes = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in our_modules()}
    assert not {path: size for path, size in sizes.items() if size > MAX_LINES}


def test_modules_are_named_after_what_they_know() -> None:
    assert [relative(path) for path in our_modules() if path.stem in NAMES_THAT_SAY_NOTHING] == []


def test_modules_say_what_they_are_responsible_for() -> None:
    silent = [
        relative(path)
        for path in our_modules()
        if path.read_text(encoding="utf-8").strip() and ast.get_docstring(syntax_tree(path)) is None
    ]
    assert not silent


def test_nothing_is_left_undone() -> None:
    undone = [relative(path) for path in our_modules() if _LEFT_UNDONE.search(path.read_text(encoding="utf-8"))]
    assert not undone
