"""The files of the practice repository: a small garden, commit by commit.

Only data, and the same for everybody, so that the hashes of its commits are too. The build needs nothing but a shell
and sed. Made into a repository by `practice_repository`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

MAIN: Final = "main"
SPRING: Final = "spring"


@dataclass(frozen=True, slots=True, kw_only=True)
class GardenCommit:
    """A commit on top of the one before it in the list; `files` are all that the tree then holds."""

    branch: str
    message: str
    files: Mapping[str, str]


_BUILD: Final = r"""#!/bin/sh
# Builds the garden into public/: the pages, with what differs from build to build written into them.
set -eu

# Whatever people write becomes text, never markup.
text() { printf '%s' "$1" | sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g'; }

greeting=$(text "${GREETING:-Welcome to the garden}")
commit=$(printf '%.7s' "${SWITCHYARD_COMMIT:-unknown}")
sign="Deployment ${SWITCHYARD_DEPLOYMENT_NUMBER:-0}, commit $commit of $(text "${SWITCHYARD_BRANCH:-nowhere}")"

fill_in() {
    while IFS= read -r line; do
        case $line in
        *'<!-- greeting -->'*) printf '<h1>%s</h1>\n' "$greeting" ;;
        *'<!-- sign -->'*) printf '<p class="sign">%s</p>\n' "$sign" ;;
        *) printf '%s\n' "$line" ;;
        esac
    done
}

mkdir -p public
cp *.svg *.css public/
if [ -f _redirects ]; then cp _redirects public/; fi
for page in *.html; do
    echo "Planting $page"
    fill_in <"$page" >"public/$page"
done
echo "The garden is watered: $sign"
"""

_STYLE: Final = """\
body { font: 1.05rem/1.6 system-ui, sans-serif; max-width: 44rem; margin: 0 auto; padding: 2rem 1.5rem; }
body { color: #2c3a2e; background: #f6f7ef; }
a { color: #2f6b3a; }
h1 { line-height: 1.2; }
img { display: block; width: 100%; height: auto; border-radius: 1rem; }
.sign { color: #6a7566; font-size: .85rem; }
"""

_SUNFLOWER: Final = (
    '<g id="flower"><path d="M0 0v92M0 60q-20-4-26-22 22 0 26 22M0 76q20-4 26-22-22 0-26 22" stroke="#4f8a4c" '
    'stroke-width="5" fill="#6aa663"/><circle r="30" fill="none" stroke="#f2b632" stroke-width="20" '
    'stroke-dasharray="11 4.7"/><circle r="19" fill="#7a4a25"/></g>'
)
_TULIP: Final = (
    '<g id="flower"><path d="M0 20v72M0 92q-26-16-24-58 22 24 24 58" stroke="#4f8a4c" stroke-width="5" '
    'fill="#6aa663"/><path d="M-22-24l11 14 11-20 11 20 11-14q6 46-22 46t-22-46" fill="#d8527c"/></g>'
)
_SEEDLING: Final = (
    '<g id="flower"><path d="M0 92V52M0 66q-18-2-22-18 20 0 22 18M0 58q18-2 22-18-20 0-22 18" stroke="#4f8a4c" '
    'stroke-width="5" fill="#6aa663"/></g>'
)


def _picture(flower: str) -> str:
    places = ((80, 128, 1.0), (185, 104, 1.25), (300, 120, 1.08), (410, 98, 1.3), (520, 126, 1.02))
    bed = "".join(f'<use href="#flower" transform="translate({x} {y}) scale({scale})"/>' for x, y, scale in places)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 260"><defs>{flower}</defs>'
        '<path fill="#d9ecf2" d="M0 0h600v260H0z"/><circle cx="548" cy="48" r="24" fill="#ffe08a"/>'
        '<path fill="#b9d6a3" d="M0 190q150-44 300-14t300-10v94H0z"/>'
        f'{bed}<path fill="#7b5b3f" d="M0 222q300-20 600 0v38H0z"/></svg>\n'
    )


def _page(title: str, *lines: str) -> str:
    head = (
        "<!doctype html>",
        '<html lang="en">',
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>{title}</title>",
        '<link rel="stylesheet" href="/style.css">',
    )
    return "\n".join((*head, *lines, ""))


def _bed(flower: str, text: str, *more: str) -> Mapping[str, str]:
    """The front page and its picture."""
    picture = '<img src="/bed.svg" width="600" height="260" alt="A bed in the garden">'
    page = _page("The garden", "<!-- greeting -->", picture, f"<p>{text}</p>", *more, "<!-- sign -->")
    return {"index.html": page, "bed.svg": _picture(flower)}


_PATH: Final = '<p><a href="/seeds">The box of seeds</a></p>'
_TOOLS: Final = {"build.sh": _BUILD, "style.css": _STYLE}
_PATHS: Final = {
    **_TOOLS,
    "seeds.html": _page(
        "The box of seeds",
        "<h1>The box of seeds</h1>",
        "<p>Sunflowers, tulips, peas. Take some, and bring back what is left.</p>",
        '<p><a href="/">Back to the bed</a></p>',
        "<!-- sign -->",
    ),
    "404.html": _page(
        "Off the path", "<h1>Off the path</h1>", '<p>Nothing grows here. <a href="/">Back to the bed</a></p>'
    ),
    "_redirects": "/packets/*  /seeds  301\n",
}

COMMITS: Final[Sequence[GardenCommit]] = (
    GardenCommit(
        branch=MAIN,
        message="A bed, and seedlings in it",
        files={**_TOOLS, **_bed(_SEEDLING, "Seedlings. Come back in summer.")},
    ),
    GardenCommit(
        branch=MAIN,
        message="A path to the seeds, and a page for those who leave it",
        files={**_PATHS, **_bed(_SEEDLING, "Seedlings. Come back in summer.", _PATH)},
    ),
    GardenCommit(
        branch=MAIN,
        message="Sunflowers",
        files={**_PATHS, **_bed(_SUNFLOWER, "Sunflowers, taller than the fence.", _PATH)},
    ),
    GardenCommit(
        branch=SPRING,
        message="Tulips, for next spring",
        files={**_PATHS, **_bed(_TULIP, "Tulips, as early as they dare.", _PATH)},
    ),
)
