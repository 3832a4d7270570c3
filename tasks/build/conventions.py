"""Where each framework keeps its settings and its output, asked of a project's files.

Questions and answers for the table in `frameworks`. Regular expressions look at programs without understanding them, so
an answer may be wrong, and is then corrected by people; none takes more than linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from tasks.build.evidence import Evidence, js
from tasks.build.installers import VIRTUAL_ENVIRONMENT

Question = Callable[[Evidence], bool]
Answer = Callable[[Evidence], str]


def depends_on(*packages: str) -> Question:
    """Is one of these in package.json?"""
    return lambda evidence: evidence.depends_on(*packages)


def has(*names: str) -> Question:
    """Is one of these files there?"""
    return lambda evidence: evidence.has(*names)


def always(_: Evidence) -> bool:
    """Yes."""
    return True


def setting(*keys: str) -> re.Pattern[str]:
    """A key of a JavaScript object whose value is a quoted path."""
    return re.compile(rf"\b(?:{'|'.join(keys)})\s{{0,20}}[:(]\s{{0,20}}['\"`]([^'\"`\s]{{1,200}})['\"`]")


def yaml_setting(key: str) -> re.Pattern[str]:
    """A key at the top of a YAML file whose value is a path."""
    return re.compile(rf"^{key}:[ \t]*['\"]?([^'\"\s#]{{1,200}})", re.MULTILINE)


NEXT_CONFIG = js("next.config")
NUXT_CONFIG = js("nuxt.config")
ASTRO_CONFIG = js("astro.config")
SVELTE_CONFIG = js("svelte.config")
REACT_ROUTER_CONFIG = js("react-router.config")
ELEVENTY_CONFIG = (".eleventy.js", *js("eleventy.config"))
VITE_CONFIG = js("vite.config")
VITEPRESS_FOLDERS = ("docs", ".", "src", "website")
VITEPRESS_CONFIG = {
    name if folder == "." else f"{folder}/{name}": folder
    for folder in VITEPRESS_FOLDERS
    for name in js(".vitepress/config")
}
HUGO_CONFIG = ("hugo.toml", "hugo.yaml", "hugo.yml", "hugo.json")
MKDOCS_CONFIG = ("mkdocs.yml", "mkdocs.yaml")
PELICAN_CONFIG = ("publishconf.py", "pelicanconf.py")
SPHINX_CONFIG = {
    "docs/conf.py": "docs",
    "docs/source/conf.py": "docs/source",
    "doc/conf.py": "doc",
    "source/conf.py": "source",
    "conf.py": ".",
}
STATIC_FOLDERS = (".", "public", "dist", "build", "site", "www", "docs")

_NEXT_EXPORT = re.compile(r"\boutput\s{0,20}:\s{0,20}['\"`](export)['\"`]")
_SERVER_OUTPUT = re.compile(r"\boutput\s{0,20}:\s{0,20}['\"`](server|hybrid)['\"`]")
_NO_SERVER = re.compile(r"\bssr\s{0,20}:\s{0,20}(false)\b")
_INDEX_FALLBACK = re.compile(r"\bfallback\s{0,20}:\s{0,20}['\"`](index\.html)['\"`]")
_SEVERAL_PAGES = re.compile(r"\bappType\s{0,20}:\s{0,20}['\"`](mpa)['\"`]")
_VITEPRESS_FOLDER = re.compile(r"\bvitepress build ([A-Za-z0-9][\w./-]{0,100})")
_SPHINX_SETTING = re.compile(r"^(extensions|html_theme|project)[ \t]*=", re.MULTILINE)
_MATERIAL = re.compile(r"^[ \t]{1,20}name:[ \t]*['\"]?(material)\b", re.MULTILINE)
_NUXT_2 = re.compile(r"[\^~]?2\.")


def next_advice(evidence: Evidence) -> Iterator[str]:
    """Without a static export there is nothing to serve."""
    if evidence.search(_NEXT_EXPORT, NEXT_CONFIG) is None:
        yield (
            'Only a static export of Next.js can be served: set output: "export" in next.config.js. What needs a '
            "server (API routes, middleware, server actions) does not work in it."
        )


def next_output(evidence: Evidence) -> str:
    """An export goes to `out`, or where `distDir` says."""
    return evidence.search(setting("distDir"), NEXT_CONFIG) or "out"


def nuxt_output(evidence: Evidence) -> str:
    """Nuxt 3 has another place than Nuxt 2."""
    return "dist" if _NUXT_2.match(evidence.version_of("nuxt")) else ".output/public"


def nuxt_is_single_page(evidence: Evidence) -> bool:
    """Without a server all pages are one."""
    return evidence.search(_NO_SERVER, NUXT_CONFIG) is not None


def astro_advice(evidence: Evidence) -> Iterator[str]:
    """What the build needs that runs on a server is not served."""
    if evidence.search(_SERVER_OUTPUT, ASTRO_CONFIG) is not None:
        yield 'Only static sites can be served: set output: "static" in astro.config, or leave it out.'


def sveltekit_advice(evidence: Evidence) -> Iterator[str]:
    """Only one of its adapters makes files."""
    if not evidence.depends_on("@sveltejs/adapter-static"):
        yield "Only static sites can be served: install @sveltejs/adapter-static and name it in svelte.config.js."


def sveltekit_is_single_page(evidence: Evidence) -> bool:
    """The adapter writes a fallback page when told to."""
    return evidence.search(_INDEX_FALLBACK, SVELTE_CONFIG) is not None


def react_router_advice(evidence: Evidence) -> Iterator[str]:
    """Its default is a server."""
    if evidence.search(_NO_SERVER, REACT_ROUTER_CONFIG) is None:
        yield "Only static sites can be served: set ssr: false in react-router.config."


def angular_output(evidence: Evidence) -> str:
    """`dist/<project>`, and `browser` below it since the application builder of Angular 17."""
    workspace = evidence.json("angular.json") if evidence.has("angular.json") else None
    projects = workspace.get("projects") if isinstance(workspace, dict) else None
    for name, project in projects.items() if isinstance(projects, dict) else ():
        architect = project.get("architect") if isinstance(project, dict) else None
        target = architect.get("build") if isinstance(architect, dict) else None
        if not isinstance(target, dict):
            continue
        options = target.get("options")
        place = options.get("outputPath") if isinstance(options, dict) else None
        parts = place if isinstance(place, dict) else {"base": place}
        base, browser = parts.get("base"), parts.get("browser", "browser")
        if not isinstance(base, str):
            base = f"dist/{name}"
        has_browser = str(target.get("builder", "")).endswith(":application") and isinstance(browser, str)
        return f"{base}/{browser}" if has_browser and browser else base
    return "dist"


def vitepress_folder(evidence: Evidence) -> str:
    """The folder of the pages, by the script or by where the settings are."""
    match = _VITEPRESS_FOLDER.search(evidence.script_text(evidence.script("docs:build", "build")))
    if match:
        return match[1].strip("/")
    return next((folder for name, folder in VITEPRESS_CONFIG.items() if evidence.has(name)), ".")


def vitepress_command(evidence: Evidence) -> str:
    """The command with the folder of the pages."""
    return f"vitepress build {vitepress_folder(evidence)}"


def vitepress_output(evidence: Evidence) -> str:
    """Below the folder of the pages."""
    return f"{vitepress_folder(evidence)}/.vitepress/dist"


def vite_is_single_page(evidence: Evidence) -> bool:
    """It is, unless the settings say that there are several."""
    return evidence.search(_SEVERAL_PAGES, VITE_CONFIG) is None


def is_hugo(evidence: Evidence) -> bool:
    """Does it have Hugo's settings, under their new or old name?"""
    # config.toml is anybody's; Hugo's has a baseURL, in whatever letter case.
    return evidence.has(*HUGO_CONFIG) or any(key.lower() == "baseurl" for key in evidence.toml("config.toml"))


def hugo_advice(_: Evidence) -> Iterator[str]:
    """Hugo is no package of npm or pip."""
    yield "The machine that runs builds needs the program hugo."


def jekyll_advice(_: Evidence) -> Iterator[str]:
    """Ruby is not everywhere."""
    yield "The machine that runs builds needs Ruby and Bundler."


def jekyll_command(evidence: Evidence) -> str:
    """With the versions of the Gemfile, if there is one."""
    return "bundle exec jekyll build" if evidence.has("Gemfile") else "jekyll build"


def mkdocs_packages(evidence: Evidence) -> tuple[str, ...]:
    """The theme most used is a package of its own, which brings MkDocs along."""
    return ("mkdocs-material",) if evidence.search(_MATERIAL, MKDOCS_CONFIG) else ("mkdocs",)


def sphinx_folder(evidence: Evidence) -> str | None:
    """The folder with Sphinx's conf.py; other programs have files of that name too."""
    return next((folder for name, folder in SPHINX_CONFIG.items() if _SPHINX_SETTING.search(evidence.text(name))), None)


def is_sphinx(evidence: Evidence) -> bool:
    """Is there a conf.py of Sphinx?"""
    return sphinx_folder(evidence) is not None


def sphinx_output(evidence: Evidence) -> str:
    """In `_build`, as Sphinx's own Makefile has it."""
    folder = sphinx_folder(evidence)
    return "_build/html" if folder in {None, "."} else f"{folder}/_build/html"


def sphinx_environment(evidence: Evidence) -> str:
    """Sphinx reads every page below its folder but those in _build, which its own template for conf.py leaves out."""
    return "_build/venv" if sphinx_folder(evidence) == "." else VIRTUAL_ENVIRONMENT


def sphinx_command(evidence: Evidence) -> str:
    """The builder of HTML, from folder to folder."""
    return f"{sphinx_environment(evidence)}/bin/sphinx-build {sphinx_folder(evidence)} {sphinx_output(evidence)}"


def pelican_command(evidence: Evidence) -> str:
    """With the settings for publishing, if there are any."""
    config = next(name for name in PELICAN_CONFIG if evidence.has(name))
    return f"{VIRTUAL_ENVIRONMENT}/bin/pelican content -o output -s {config}"


def node_advice(_: Evidence) -> Iterator[str]:
    """The output directory is a guess."""
    yield "The framework is not known: check where the build puts its files and set the output directory."


def static_folder(evidence: Evidence) -> str:
    """Where the front page is."""
    return next((folder for folder in STATIC_FOLDERS if evidence.has(index(folder))), ".")


def static_advice(evidence: Evidence) -> Iterator[str]:
    """Nothing to serve may be the wrong folder."""
    if not any(evidence.has(index(folder)) for folder in STATIC_FOLDERS):
        yield "There is no index.html: set the root directory, or a build command and its output directory."
    if evidence.package is not None and evidence.package.has_workspaces:
        yield "This looks like several projects in one repository: set the root directory to the one to deploy."


def index(folder: str) -> str:
    """The front page of a folder."""
    return "index.html" if folder == "." else f"{folder}/index.html"
