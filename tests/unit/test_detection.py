"""What a project is made with: each framework by files as its generator writes them, and files that mislead."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.build.detection import (
    Framework,
    FrameworkId,
    PackageManager,
    detect,
    detect_folder,
    names_of_interest,
    names_to_read,
)
from tests.harness.git_remote import APPS


def package(scripts: Mapping[str, str] | None = None, /, *dependencies: str, **more: Any) -> bytes:
    """A package.json."""
    return json.dumps(
        {"name": "app", "scripts": scripts or {}, "dependencies": dict.fromkeys(dependencies, "^1.0.0"), **more}
    ).encode()


def node(dependency: str, script: str | None = None, /, *others: str, **files: Any) -> dict[str, bytes | None]:
    """A project of npm with a lock file; a script named `build` if its text is given."""
    return {
        "package.json": package({"build": script} if script else {}, dependency, *others),
        "package-lock.json": None,
        **{name: text.encode() for name, text in files.items()},
    }


def answer(framework: Framework) -> tuple[FrameworkId, str | None, str | None, str, bool]:
    return (
        framework.id,
        framework.install_command,
        framework.build_command,
        framework.output_directory,
        framework.is_single_page,
    )


NEXT_EXPORT = {"next.config.mjs": "export default { output: 'export' }"}
ANGULAR_17 = json.dumps(
    {
        "projects": {
            "shop": {
                "architect": {"build": {"builder": "@angular/build:application", "options": {"browser": "src/main.ts"}}}
            }
        }
    }
)
ANGULAR_15 = json.dumps(
    {
        "projects": {
            "shop": {
                "architect": {
                    "build": {
                        "builder": "@angular-devkit/build-angular:browser",
                        "options": {"outputPath": "dist/shop-front"},
                    }
                }
            }
        }
    }
)
PIP = "python3 -m venv .venv && .venv/bin/pip install "

# files, framework, install, build, output, single page
EXAMPLES: list[tuple[dict[str, bytes | None], FrameworkId, str | None, str | None, str, bool]] = [
    (node("next", "next build", "react", **NEXT_EXPORT), FrameworkId.NEXT, "npm ci", "npm run build", "out", False),
    (
        node("nuxt", "nuxt build", "vue"),
        *(FrameworkId.NUXT, "npm ci", "npx nuxt generate", ".output/public", False),
    ),
    (
        node("nuxt", "nuxt build", **{"nuxt.config.ts": "export default defineNuxtConfig({ ssr: false })"}),
        *(FrameworkId.NUXT, "npm ci", "npx nuxt generate", ".output/public", True),
    ),
    (node("gatsby", "gatsby build", "react"), FrameworkId.GATSBY, "npm ci", "npm run build", "public", False),
    (
        node("@docusaurus/core", "docusaurus build", "react"),
        *(FrameworkId.DOCUSAURUS, "npm ci", "npm run build", "build", False),
    ),
    (node("astro", "astro build", "vite"), FrameworkId.ASTRO, "npm ci", "npm run build", "dist", False),
    (
        node("astro", "astro build", **{"astro.config.mjs": "export default { outDir: './public_html' }"}),
        *(FrameworkId.ASTRO, "npm ci", "npm run build", "public_html", False),
    ),
    (
        node("@sveltejs/kit", "vite build", "vite", "@sveltejs/adapter-static"),
        *(FrameworkId.SVELTEKIT, "npm ci", "npm run build", "build", False),
    ),
    (
        node(
            *("@sveltejs/kit", "vite build", "vite", "@sveltejs/adapter-static"),
            **{"svelte.config.js": "adapter: adapter({ pages: 'out', fallback: 'index.html' })"},
        ),
        *(FrameworkId.SVELTEKIT, "npm ci", "npm run build", "out", True),
    ),
    (
        node("react-router", "react-router build", "@react-router/dev", "vite"),
        *(FrameworkId.REACT_ROUTER, "npm ci", "npm run build", "build/client", True),
    ),
    (
        node("@angular/core", "ng build", **{"angular.json": ANGULAR_17}),
        *(FrameworkId.ANGULAR, "npm ci", "npm run build", "dist/shop/browser", True),
    ),
    (
        node("@angular/core", "ng build", **{"angular.json": ANGULAR_15}),
        *(FrameworkId.ANGULAR, "npm ci", "npm run build", "dist/shop-front", True),
    ),
    (
        {
            "package.json": package({"docs:build": "vitepress build docs"}, "vitepress", "vue"),
            "package-lock.json": None,
        },
        *(FrameworkId.VITEPRESS, "npm ci", "npm run docs:build", "docs/.vitepress/dist", False),
    ),
    (
        node("vitepress", None, **{"docs/.vitepress/config.mts": ""}),
        *(FrameworkId.VITEPRESS, "npm ci", "npx vitepress build docs", "docs/.vitepress/dist", False),
    ),
    (node("@11ty/eleventy"), FrameworkId.ELEVENTY, "npm ci", "npx eleventy", "_site", False),
    (
        node("@11ty/eleventy", "eleventy --output=public"),
        *(FrameworkId.ELEVENTY, "npm ci", "npm run build", "public", False),
    ),
    (
        node("@11ty/eleventy", "eleventy", **{".eleventy.js": 'return { dir: { input: "src", output: "www" } };'}),
        *(FrameworkId.ELEVENTY, "npm ci", "npm run build", "www", False),
    ),
    (
        node("hexo", "hexo generate", **{"_config.yml": "title: x\npublic_dir: out\n"}),
        *(FrameworkId.HEXO, "npm ci", "npm run build", "out", False),
    ),
    (
        node("react-scripts", "react-scripts build", "react"),
        *(FrameworkId.CREATE_REACT_APP, "npm ci", "npm run build", "build", True),
    ),
    (
        node("vue", "vue-cli-service build", "@vue/cli-service"),
        *(FrameworkId.VUE_CLI, "npm ci", "npm run build", "dist", True),
    ),
    (node("vite", "vite build", "react"), FrameworkId.VITE, "npm ci", "npm run build", "dist", True),
    (
        node("vite", None, **{"vite.config.ts": 'export default { appType: "mpa", build: { outDir: "out/web" } }'}),
        *(FrameworkId.VITE, "npm ci", "npx vite build", "out/web", False),
    ),
    (node("parcel"), FrameworkId.PARCEL, "npm ci", "npx parcel build index.html", "dist", False),
    ({"hugo.toml": b'baseURL = "/"\n'}, FrameworkId.HUGO, None, "hugo", "public", False),
    (
        {"config.toml": b'baseurl = "/"\npublishDir = "docs"\n'},
        *(FrameworkId.HUGO, None, "hugo", "docs", False),
    ),
    (
        {**node("autoprefixer", "hugo --minify"), "hugo.toml": b""},
        *(FrameworkId.HUGO, "npm ci", "npm run build", "public", False),
    ),
    (
        {"mkdocs.yml": b"site_name: x\ntheme:\n  name: material\nsite_dir: out\n"},
        *(FrameworkId.MKDOCS, f"{PIP}mkdocs-material", ".venv/bin/mkdocs build", "out", False),
    ),
    (
        {"mkdocs.yml": b"site_name: x\n", "requirements.txt": b"mkdocs==1.6.1\n"},
        *(FrameworkId.MKDOCS, f"{PIP}-r requirements.txt", ".venv/bin/mkdocs build", "site", False),
    ),
    (
        {"mkdocs.yml": b"site_name: x\n", "docs/requirements.txt": b"pygments\n"},
        *(FrameworkId.MKDOCS, f"{PIP}-r docs/requirements.txt mkdocs", ".venv/bin/mkdocs build", "site", False),
    ),
    (
        {
            "docs/conf.py": b"project = 'x'\nextensions = []\n",
            "pyproject.toml": b"[project]\nname = 'x'\noptional-dependencies.docs = ['sphinx>=8']\n",
        },
        *(FrameworkId.SPHINX, f"{PIP}'.[docs]'", ".venv/bin/sphinx-build docs docs/_build/html"),
        *("docs/_build/html", False),
    ),
    (
        {"conf.py": b"html_theme = 'alabaster'\n"},
        *(FrameworkId.SPHINX, "python3 -m venv _build/venv && _build/venv/bin/pip install sphinx"),
        *("_build/venv/bin/sphinx-build . _build/html", "_build/html", False),
    ),
    (
        {"pelicanconf.py": b"SITENAME = 'x'\n", "publishconf.py": b"", "requirements.txt": b"pelican[markdown]\n"},
        *(FrameworkId.PELICAN, f"{PIP}-r requirements.txt"),
        *(".venv/bin/pelican content -o output -s publishconf.py", "output", False),
    ),
    (
        {"_config.yml": b"title: x\n", "Gemfile": None, "index.html": None},
        *(FrameworkId.JEKYLL, "bundle config set --local path vendor/bundle && bundle install"),
        *("bundle exec jekyll build", "_site", False),
    ),
    (node("webpack", "webpack"), FrameworkId.NODE, "npm ci", "npm run build", "dist", False),
    ({"index.html": None}, FrameworkId.STATIC, None, None, ".", False),
    ({"public/index.html": None}, FrameworkId.STATIC, None, None, "public", False),
    ({"index.html": None, "package.json": package({}, "prettier")}, FrameworkId.STATIC, None, None, ".", False),
    ({}, FrameworkId.STATIC, None, None, ".", False),
]


@pytest.mark.parametrize(
    ("files", "expected"),
    [(files, expected) for files, *expected in EXAMPLES],
    ids=[f"{number}-{example[1]}" for number, example in enumerate(EXAMPLES)],
)
def test_a_project_is_recognised_and_built(files: dict[str, bytes | None], expected: list[Any]) -> None:
    assert list(answer(detect(files))) == expected


def test_every_framework_has_an_example() -> None:
    assert {example[1] for example in EXAMPLES} == set(FrameworkId)


def test_only_files_of_interest_are_asked_for() -> None:
    asked = {name for files, *_ in EXAMPLES for name in files}
    assert asked <= names_of_interest()
    read = {name for files, *_ in EXAMPLES for name, content in files.items() if content is not None}
    assert read <= names_to_read() <= names_of_interest()


# -- what has to be changed by people


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (node("next", "next build"), 'output: "export"'),
        (node("next", "next build", **{"next.config.js": "// output is standalone"}), 'output: "export"'),
        (node("astro", "astro build", **{"astro.config.ts": "output: 'server'"}), 'output: "static"'),
        (node("@sveltejs/kit", "vite build", "@sveltejs/adapter-auto"), "adapter-static"),
        (node("@react-router/dev", "react-router build"), "ssr: false"),
        ({"hugo.toml": b""}, "the program hugo"),
        (node("webpack", "webpack"), "output directory"),
        ({}, "no index.html"),
        ({"package.json": package(workspaces=["apps/*"])}, "root directory"),
        ({"package.json": package({}, "vite")}, "no lock file"),
        (node("vite", None, **{"pnpm-lock.yaml": ""}), "several package managers"),
    ],
)
def test_what_people_should_change_is_said(files: dict[str, bytes | None], words: str) -> None:
    notes = " ".join(detect(files).notes)
    assert words in notes


def test_a_proper_project_needs_no_advice() -> None:
    assert detect(node("next", "next build", **NEXT_EXPORT)).notes == ()
    assert detect(node("vite", "vite build")).notes == ()


# -- package managers


@pytest.mark.parametrize(
    ("files", "manager", "command"),
    [
        ({}, PackageManager.NPM, "npm install"),
        ({"package-lock.json": None}, PackageManager.NPM, "npm ci"),
        ({"npm-shrinkwrap.json": None}, PackageManager.NPM, "npm ci"),
        ({"pnpm-lock.yaml": b"lockfileVersion: '9.0'\n"}, PackageManager.PNPM, "pnpm@10 install --frozen-lockfile"),
        ({"pnpm-lock.yaml": b"lockfileVersion: 5.4\n"}, PackageManager.PNPM, "pnpm@7 install --frozen-lockfile"),
        ({"pnpm-lock.yaml": None}, PackageManager.PNPM, "pnpm@10 install --frozen-lockfile"),
        ({"yarn.lock": b"# yarn lockfile v1\n"}, PackageManager.YARN, "yarn@1.22.22 install --frozen-lockfile"),
        (
            {"yarn.lock": b"__metadata:\n  version: 8\n", ".yarnrc.yml": b"nodeLinker: node-modules\n"},
            *(PackageManager.YARN, "@yarnpkg/cli-dist@4 install --immutable"),
        ),
        ({"bun.lock": None}, PackageManager.BUN, "bun@1 install --frozen-lockfile"),
    ],
)
def test_the_lock_file_says_who_installs(files: dict[str, bytes | None], manager: PackageManager, command: str) -> None:
    framework = detect({"package.json": package({"build": "vite build"}, "vite"), **files})
    assert framework.package_manager is manager
    assert framework.install_command == (command if command.startswith("npm ") else f"npx --yes {command}")
    assert framework.build_command == "npm run build"


@pytest.mark.parametrize(
    ("named", "command"),
    [
        ("pnpm@9.15.4+sha512.aa", "npx --yes pnpm@9.15.4 install --frozen-lockfile"),
        ("pnpm@9; id", "npx --yes pnpm@10 install --frozen-lockfile"),
        ("yarn@4.5.0", "npx --yes pnpm@10 install --frozen-lockfile"),
    ],
)
def test_a_named_version_is_used_if_it_is_one(named: str, command: str) -> None:
    files = {"package.json": package({}, "vite", packageManager=named), "pnpm-lock.yaml": None}
    assert detect(files).install_command == command


def test_plug_and_play_is_warned_of() -> None:
    framework = detect({"package.json": package({}, "vite"), "yarn.lock": b"__metadata:\n"})
    assert any("nodeLinker" in note for note in framework.notes)


# -- files that mislead


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b'"vite"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000),
        *(b'{"dependencies": ["vite"]}', b'{"scripts": "build"}', b'{"scripts": {"build": 1}}'),
    ],
    ids=range(11),
)
def test_a_malformed_manifest_counts_as_absent(content: bytes) -> None:
    framework = detect({"package.json": content, "index.html": None})
    assert framework.id is FrameworkId.STATIC
    assert framework.build_command is None


def test_a_malformed_manifest_is_noted() -> None:
    assert any("package.json is malformed" in note for note in detect({"package.json": b"{"}).notes)
    files = {"mkdocs.yml": b"", "pyproject.toml": b"[["}
    assert any("pyproject.toml is malformed" in note for note in detect(files).notes)


def test_a_manifest_with_a_byte_order_mark_is_read() -> None:
    assert detect({"package.json": b"\xef\xbb\xbf" + package({}, "vite")}).id is FrameworkId.VITE


def test_a_huge_manifest_is_not_read() -> None:
    huge = package({}, "vite", description="x" * 2**20)
    framework = detect({"package.json": huge, "index.html": None})
    assert framework.id is FrameworkId.STATIC
    assert any("larger than 1 MiB" in note for note in framework.notes)


@pytest.mark.parametrize("place", ["../out", "/out", "a/../../b", "$(id)", "a;id", "~/x", "-rf", "a b", "a//b", "`id`"])
def test_an_output_that_leads_elsewhere_is_not_believed(place: str) -> None:
    config = f"export default {{ build: {{ outDir: {place!r} }} }}"
    assert detect(node("vite", "vite build", **{"vite.config.js": config})).output_directory == "dist"


def test_a_hostile_project_name_stays_out_of_paths() -> None:
    workspace = {"projects": {"../../etc": {"architect": {"build": {"builder": "x:application"}}}}}
    framework = detect(node("@angular/core", "ng build", **{"angular.json": json.dumps(workspace)}))
    assert framework.output_directory == "."
    assert any("set it" in note for note in framework.notes)


def test_a_large_hostile_settings_file_is_read_in_no_time() -> None:
    for text in ("outDir:" + " " * 10**6, "outDir" * 150_000, "outDir:'" * 120_000, "\n" * 10**6):
        assert detect(node("vite", "vite build", **{"vite.config.js": text})).output_directory == "dist"
        assert detect({"hugo.toml": text.encode(), "mkdocs.yml": text.encode()}).id is FrameworkId.HUGO


@given(st.dictionaries(st.sampled_from(sorted(names_of_interest())), st.none() | st.binary(max_size=200), max_size=6))
def test_any_files_give_an_answer(files: dict[str, bytes | None]) -> None:
    _check_answer(detect(files))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["scripts", "dependencies", "build", "vite", "projects", "architect", "options", "outputPath"]
            )
            | st.text(max_size=6),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON)
def test_any_json_gives_an_answer(manifest: Any, workspace: Any) -> None:
    _check_answer(
        detect({"package.json": json.dumps(manifest).encode(), "angular.json": json.dumps(workspace).encode()})
    )
    angular = {
        "package.json": package({}, "@angular/core"),
        "angular.json": json.dumps({"projects": workspace}).encode(),
    }
    _check_answer(detect(angular))


def _check_answer(framework: Framework) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._@+-]+(/[A-Za-z0-9._@+-]+)*", framework.output_directory)
    assert ".." not in framework.output_directory.split("/")
    for command in (framework.install_command, framework.build_command):
        assert command is None or re.fullmatch(r"[A-Za-z0-9 ._/@:&'\[\]-]+", command), command


# -- folders


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("vite-react", (FrameworkId.VITE, "npm ci", "npm run build", "dist", True)),
        ("eleventy", (FrameworkId.ELEVENTY, "npm ci", "npm run build", "_site", False)),
        ("plain", (FrameworkId.STATIC, None, None, ".", False)),
    ],
)
def test_the_applications_of_the_tests_are_recognised(app: str, expected: tuple[Any, ...]) -> None:
    framework = detect_folder(APPS / app)
    assert answer(framework) == expected
    assert answer(detect_folder(APPS, app)) == expected
    assert framework.notes == ()


def test_links_and_pipes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "package.json").symlink_to(APPS / "vite-react/package.json")
    os.mkfifo(tmp_path / "mkdocs.yml")
    (tmp_path / "index.html").write_text("Hi")
    assert detect_folder(tmp_path).id is FrameworkId.STATIC


def test_a_large_file_is_there_but_not_read(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_bytes(package({"build": "vite build"}, "vite"))
    (tmp_path / "pnpm-lock.yaml").write_bytes(b"#" * (2**20 + 1))
    assert detect_folder(tmp_path).package_manager is PackageManager.PNPM


@pytest.mark.parametrize("root", ["absent", "link", "..", "/", "link/vite-react", "index.html"])
def test_a_root_directory_that_is_no_folder_inside_is_refused(tmp_path: Path, root: str) -> None:
    (tmp_path / "link").symlink_to(APPS)
    (tmp_path / "index.html").write_text("Hi")
    with pytest.raises(FileNotFoundError):
        detect_folder(tmp_path, root)
