"""What the demo's sites serve: the practice repository's garden as its build makes it, and two small sites. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from html import escape
from typing import Final

from models.site_rule_files import HEADERS_FILE, REDIRECTS_FILE, parse_redirects
from models.site_rules import SiteRules
from tasks.build.practice_garden import COMMITS

Files = Mapping[str, str]

GARDEN: Final = "http://127.0.0.1:8900/git/garden"
HANDBOOK: Final = "https://git.example.com/acme/handbook.git"
STOREFRONT: Final = "https://git.example.com/acme/storefront.git"

GARDEN_COMMITS: Final = (
    "ac45e3cfab9ede54ce9a6c25d1dccd4a9df9dc40",
    "0344bbd65a2e3363a0e1c07f52bb362f64dc92b8",
    "4283c174ce2f48b8432468839241313921be40a5",
    "790c503faa41d34038e424a54a9c0f627ccb5406",
)
"""What git calls the commits of the practice repository."""

_STYLE: Final = """\
body { font: 1.05rem/1.6 system-ui, sans-serif; max-width: 46rem; margin: 0 auto; padding: 2rem 1.5rem; }
nav a { margin-right: 1rem; }
footer { margin-top: 3rem; color: #667; font-size: .85rem; }
"""
_CHAPTERS: Final = (
    ("index", "Handbook", "How we work, for those who start and those who forget."),
    (
        "first-week",
        "The first week",
        "A desk, a key, everybody's name, and one small change that ships on day three.",
    ),
    ("on-call", "On call", "Who is called first, what may wait until morning, and when to wake the others."),
    ("releases", "Releases", "Every merge goes out. What must not go out is behind a switch."),
    ("incidents", "Incidents", "Say what is known, every half hour, to everybody. Look for causes, not for people."),
)
_GOODS: Final = ("Oak lamp", "Linen throw", "Copper bowl", "Slate bench", "Walnut bowl", "Wool throw")


def files_of(repository: str, *, number: int, branch: str, commit: str) -> Files:
    """The output of a build, rule files included; the same for the same deployment whoever asks."""
    if repository == GARDEN:
        return _garden(number, branch, commit)
    return _handbook(number, commit) if repository == HANDBOOK else _storefront(number, branch, commit)


def served(files: Files) -> dict[str, bytes]:
    """Those of the files that visitors get."""
    return {path: text.encode() for path, text in files.items() if path not in (REDIRECTS_FILE, HEADERS_FILE)}


def rules_of(files: Files) -> SiteRules:
    """The rules that a build brought."""
    return SiteRules(redirects=tuple(parse_redirects(files.get(REDIRECTS_FILE, ""))[0]))


def _garden(number: int, branch: str, commit: str) -> Files:
    tree = COMMITS[GARDEN_COMMITS.index(commit)].files
    sign = f'<p class="sign">Deployment {number}, commit {commit[:7]} of {escape(branch)}</p>'
    filled = {"<!-- greeting -->": "<h1>Welcome to the garden</h1>", "<!-- sign -->": sign}
    return {
        path: "\n".join(filled.get(line, line) for line in text.split("\n")) if path.endswith(".html") else text
        for path, text in sorted(tree.items())
        if path.endswith((".html", ".svg", ".css")) or path == REDIRECTS_FILE
    }


def _handbook(number: int, commit: str) -> Files:
    shown = _CHAPTERS[: min(len(_CHAPTERS), 2 + number // 4)]
    links = "".join(f'<a href="/{"" if name == "index" else name}">{title}</a>' for name, title, _ in shown)
    pages = {
        f"{name}.html": _page(title, f"<nav>{links}</nav><h1>{title}</h1><p>{text}</p>", commit)
        for name, title, text in shown
    }
    return {**pages, "style.css": _STYLE, "404.html": _page("Not found", "<h1>No such chapter</h1>", commit)}


def _storefront(number: int, branch: str, commit: str) -> Files:
    goods = "".join(f"<li>{name}</li>" for name in _GOODS[: 3 + number % 4])
    script = f"document.documentElement.dataset.release = {commit[:12]!r};\n" + "// Filters and the basket.\n" * 60
    name = f"assets/app-{hashlib.sha256(script.encode()).hexdigest()[:8]}.js"
    note = "" if branch == "main" else f"<p>Preview of {escape(branch)}</p>"
    body = f'<h1>Things for the house</h1>{note}<ul>{goods}</ul><script type="module" src="/{name}"></script>'
    return {
        "index.html": _page("Storefront", body, commit),
        name: script,
        "style.css": _STYLE,
        REDIRECTS_FILE: "/sale/*  /  302\n",
    }


def _page(title: str, body: str, commit: str) -> str:
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<link rel="stylesheet" href="/style.css">{body}<footer>Built from {commit[:7]}</footer></html>\n'
    )
