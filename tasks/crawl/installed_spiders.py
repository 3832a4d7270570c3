"""Spiders that other packages bring, through the entry point group `switchyard.spiders`.

Each entry point leads to a SpiderDefinition. Whatever is wrong with one (it cannot be imported, it is something else,
its schema is none, its name is taken) costs that spider and nothing else: it is left out and listed with the reason.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

import orjson
from jsonschema import Draft202012Validator

from tasks.crawl.contracts import SpiderDefinition, SpiderUnusable

GROUP: Final = "switchyard.spiders"
MAX_REASON_CHARACTERS: Final = 300
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_CLASS: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", re.ASCII)


@dataclass(frozen=True, slots=True)
class InstalledSpider:
    """An entry point: what it leads to, or why it cannot be used."""

    name: str
    package: str
    definition: SpiderDefinition | None
    reason: str = ""


def found(taken: Collection[str], *, only: str | None = None) -> Iterator[InstalledSpider]:
    """The spiders of all installed packages, or those of one name; `taken` are names that they cannot have."""
    entries = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, _package(entry)))
    for entry in entries:
        if only is not None and entry.name != only:
            continue
        rivals = [_package(each) for each in entries if each.name == entry.name]
        definition, reason = None, ""
        try:
            if entry.name in taken:
                raise SpiderUnusable("a spider that ships has this name")
            if len(rivals) > 1:
                raise SpiderUnusable(f"several packages bring a spider of this name: {', '.join(rivals)}")
            definition = _checked(entry.name, entry.load())
        except SpiderUnusable as error:
            reason = str(error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module may raise anything
            reason = next(iter(f"{type(error).__name__}: {error}".splitlines()))
        yield InstalledSpider(entry.name, _package(entry), definition, reason[:MAX_REASON_CHARACTERS])


def import_path(checkout: Path) -> list[str]:
    """Folders in which a crawler process looks for modules: all in which this process does, the checkout first."""
    here = str(checkout)
    return [here, *(folder for folder in sys.path if folder and folder != here and Path(folder).is_dir())]


def _checked(name: str, definition: object) -> SpiderDefinition:
    """The contract, if it is one that clients can be shown and inputs be held against; raises SpiderUnusable."""
    if not isinstance(definition, SpiderDefinition):
        raise SpiderUnusable(
            f"the entry point leads to no SpiderDefinition, but to something of type {type(definition).__name__}"
        )
    if not _NAME.fullmatch(name) or definition.name != name:
        raise SpiderUnusable(f"the contract's name is {definition.name!r}; a to z, digits and _, as the entry point's")
    if not _CLASS.fullmatch(definition.crawler_class):
        raise SpiderUnusable(f"its class must be given as package.module:Class, not {definition.crawler_class!r}")
    for schema in (definition.input_schema, definition.output_schema):
        Draft202012Validator.check_schema(dict(schema))
        orjson.dumps(schema)
    Draft202012Validator(dict(definition.input_schema)).validate(dict(definition.example_input))
    Draft202012Validator.check_schema(dict(definition.narrow_output(definition.example_input)))
    return definition


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "an unnamed package"
