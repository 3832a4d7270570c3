"""The table of frameworks: how each is recognised, built, and where its output lies.

Each is one entry of RECIPES, and the first that matches wins: what builds on something else stands before it, as Astro
before Vite. Entries are data and small questions to the evidence; `detection` puts the answers together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tasks.build import conventions
from tasks.build.conventions import Answer, Question
from tasks.build.evidence import Evidence, js
from tasks.build.installers import VIRTUAL_ENVIRONMENT


class FrameworkId(StrEnum):
    """What a project is made with."""

    NEXT = "NEXT"
    NUXT = "NUXT"
    GATSBY = "GATSBY"
    DOCUSAURUS = "DOCUSAURUS"
    ASTRO = "ASTRO"
    SVELTEKIT = "SVELTEKIT"
    REACT_ROUTER = "REACT_ROUTER"
    ANGULAR = "ANGULAR"
    VITEPRESS = "VITEPRESS"
    ELEVENTY = "ELEVENTY"
    HEXO = "HEXO"
    CREATE_REACT_APP = "CREATE_REACT_APP"
    VUE_CLI = "VUE_CLI"
    VITE = "VITE"
    PARCEL = "PARCEL"
    HUGO = "HUGO"
    MKDOCS = "MKDOCS"
    SPHINX = "SPHINX"
    PELICAN = "PELICAN"
    JEKYLL = "JEKYLL"
    NODE = "NODE"
    STATIC = "STATIC"


class Toolchain(StrEnum):
    """What installs and runs the build."""

    NODE = "NODE"
    PYTHON = "PYTHON"
    RUBY = "RUBY"
    PROGRAM = "PROGRAM"  # one program that the machine has to have
    NONE = "NONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How to recognise and build one framework.

    `command` is what runs when package.json has none of `scripts`. `output` is where the result lies unless
    `output_setting`, in one of the files `settings`, says otherwise. `advice` is what people should know or change.
    """

    id: FrameworkId
    name: str
    matches: Question
    toolchain: Toolchain = Toolchain.NODE
    command: str | Answer = ""
    scripts: tuple[str, ...] = ("build",)
    output: str | Answer
    settings: tuple[str, ...] = ()
    output_setting: re.Pattern[str] | None = None
    is_single_page: Question = lambda _: False
    advice: Callable[[Evidence], Iterator[str]] = lambda _: iter(())
    generator: str = ""  # the Python package
    packages: Callable[[Evidence], tuple[str, ...]] = lambda _: ()  # what to install when the project does not say
    environment: Answer = lambda _: VIRTUAL_ENVIRONMENT


RECIPES = (
    Recipe(
        id=FrameworkId.NEXT,
        name="Next.js",
        matches=conventions.depends_on("next"),
        command="next build",
        output=conventions.next_output,
        settings=conventions.NEXT_CONFIG,
        advice=conventions.next_advice,
    ),
    Recipe(
        id=FrameworkId.NUXT,
        name="Nuxt",
        matches=conventions.depends_on("nuxt", "nuxt3"),
        scripts=("generate",),
        command="nuxt generate",
        output=conventions.nuxt_output,
        settings=conventions.NUXT_CONFIG,
        is_single_page=conventions.nuxt_is_single_page,
    ),
    Recipe(
        id=FrameworkId.GATSBY,
        name="Gatsby",
        matches=conventions.depends_on("gatsby"),
        command="gatsby build",
        output="public",
    ),
    Recipe(
        id=FrameworkId.DOCUSAURUS,
        name="Docusaurus",
        matches=conventions.depends_on("@docusaurus/core"),
        command="docusaurus build",
        output="build",
    ),
    Recipe(
        id=FrameworkId.ASTRO,
        name="Astro",
        matches=conventions.depends_on("astro"),
        command="astro build",
        output="dist",
        settings=conventions.ASTRO_CONFIG,
        output_setting=conventions.setting("outDir"),
        advice=conventions.astro_advice,
    ),
    Recipe(
        id=FrameworkId.SVELTEKIT,
        name="SvelteKit",
        matches=conventions.depends_on("@sveltejs/kit"),
        command="vite build",
        output="build",
        settings=conventions.SVELTE_CONFIG,
        output_setting=conventions.setting("pages"),
        is_single_page=conventions.sveltekit_is_single_page,
        advice=conventions.sveltekit_advice,
    ),
    Recipe(
        id=FrameworkId.REACT_ROUTER,
        name="React Router",
        matches=conventions.depends_on("@react-router/dev"),
        command="react-router build",
        output="build/client",
        settings=conventions.REACT_ROUTER_CONFIG,
        is_single_page=conventions.always,
        advice=conventions.react_router_advice,
    ),
    Recipe(
        id=FrameworkId.ANGULAR,
        name="Angular",
        matches=conventions.depends_on("@angular/core"),
        command="ng build",
        output=conventions.angular_output,
        settings=("angular.json",),
        is_single_page=conventions.always,
    ),
    Recipe(
        id=FrameworkId.VITEPRESS,
        name="VitePress",
        matches=conventions.depends_on("vitepress"),
        scripts=("docs:build", "build"),
        command=conventions.vitepress_command,
        output=conventions.vitepress_output,
        settings=tuple(conventions.VITEPRESS_CONFIG),
    ),
    Recipe(
        id=FrameworkId.ELEVENTY,
        name="Eleventy",
        matches=conventions.depends_on("@11ty/eleventy"),
        command="eleventy",
        output="_site",
        settings=conventions.ELEVENTY_CONFIG,
        output_setting=conventions.setting("output", "setOutputDirectory"),
    ),
    Recipe(
        id=FrameworkId.HEXO,
        name="Hexo",
        matches=conventions.depends_on("hexo"),
        command="hexo generate",
        output="public",
        settings=("_config.yml",),
        output_setting=conventions.yaml_setting("public_dir"),
    ),
    Recipe(
        id=FrameworkId.CREATE_REACT_APP,
        name="Create React App",
        matches=conventions.depends_on("react-scripts"),
        command="react-scripts build",
        output="build",
        is_single_page=conventions.always,
    ),
    Recipe(
        id=FrameworkId.VUE_CLI,
        name="Vue CLI",
        matches=conventions.depends_on("@vue/cli-service"),
        command="vue-cli-service build",
        output="dist",
        settings=js("vue.config"),
        output_setting=conventions.setting("outputDir"),
        is_single_page=conventions.always,
    ),
    Recipe(
        id=FrameworkId.VITE,
        name="Vite",
        matches=conventions.depends_on("vite"),
        command="vite build",
        output="dist",
        settings=conventions.VITE_CONFIG,
        output_setting=conventions.setting("outDir"),
        is_single_page=conventions.vite_is_single_page,
    ),
    Recipe(
        id=FrameworkId.PARCEL,
        name="Parcel",
        matches=conventions.depends_on("parcel"),
        command="parcel build index.html",
        output="dist",
    ),
    Recipe(
        id=FrameworkId.HUGO,
        name="Hugo",
        matches=conventions.is_hugo,
        toolchain=Toolchain.PROGRAM,
        command="hugo",
        output="public",
        settings=(*conventions.HUGO_CONFIG, "config.toml"),
        output_setting=re.compile(r"^publish[dD]ir[ \t]*[=:][ \t]*['\"]?([^'\"\s#]{1,200})", re.MULTILINE),
        advice=conventions.hugo_advice,
    ),
    Recipe(
        id=FrameworkId.MKDOCS,
        name="MkDocs",
        matches=conventions.has(*conventions.MKDOCS_CONFIG),
        toolchain=Toolchain.PYTHON,
        command=f"{VIRTUAL_ENVIRONMENT}/bin/mkdocs build",
        output="site",
        settings=conventions.MKDOCS_CONFIG,
        output_setting=conventions.yaml_setting("site_dir"),
        generator="mkdocs",
        packages=conventions.mkdocs_packages,
    ),
    Recipe(
        id=FrameworkId.PELICAN,
        name="Pelican",
        matches=conventions.has(*conventions.PELICAN_CONFIG),
        toolchain=Toolchain.PYTHON,
        command=conventions.pelican_command,
        output="output",
        settings=conventions.PELICAN_CONFIG,
        generator="pelican",
        packages=lambda _: ("'pelican[markdown]'",),
    ),
    Recipe(
        id=FrameworkId.SPHINX,
        name="Sphinx",
        matches=conventions.is_sphinx,
        toolchain=Toolchain.PYTHON,
        command=conventions.sphinx_command,
        output=conventions.sphinx_output,
        settings=tuple(conventions.SPHINX_CONFIG),
        generator="sphinx",
        packages=lambda _: ("sphinx",),
        environment=conventions.sphinx_environment,
    ),
    Recipe(
        id=FrameworkId.JEKYLL,
        name="Jekyll",
        matches=conventions.has("_config.yml"),
        toolchain=Toolchain.RUBY,
        command=conventions.jekyll_command,
        output="_site",
        settings=("_config.yml",),
        output_setting=conventions.yaml_setting("destination"),
        advice=conventions.jekyll_advice,
    ),
    Recipe(
        id=FrameworkId.NODE,
        name="Node.js",
        matches=lambda evidence: evidence.script("build") is not None,
        output="dist",
        advice=conventions.node_advice,
    ),
    Recipe(
        id=FrameworkId.STATIC,
        name="Static files",
        matches=conventions.always,
        toolchain=Toolchain.NONE,
        output=conventions.static_folder,
        advice=conventions.static_advice,
    ),
)
