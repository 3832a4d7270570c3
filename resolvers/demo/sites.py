"""Projects of the demo, and what was deployed of them: built, failed, stopped, replaced, rolled back.

The garden is the practice repository, so a real deployment goes on where the history ends. The two others are at hosts
that do not exist. Pure; what their sites serve is `site_content`'s.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from models.deployments import KIND, DeploymentStep, DeploymentTrigger
from models.executions import ExecutionStatus, Failure, FailureCode
from models.logs import LogLevel
from models.projects import DeploymentEnvironment
from models.sites import PRODUCTION_ALIAS
from resolvers.demo import site_content
from resolvers.demo.past import Ended, Said
from resolvers.demo.site_content import GARDEN, GARDEN_COMMITS, HANDBOOK, STOREFRONT
from resolvers.deployment_queue import Source, alias_of
from tasks.build import failures
from tasks.build.frameworks import FrameworkId
from tasks.build.practice_garden import COMMITS

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_OK, _FAILED, _STOPPED, _REPLACED = "ok", "failed", "stopped", "replaced"


@dataclass(frozen=True, slots=True)
class Push:
    """Something that was deployed: how many days ago, at which hour, of which branch, and what came of it."""

    days_ago: float
    branch: str
    message: str
    result: str = _OK
    trigger: DeploymentTrigger = DeploymentTrigger.PUSH


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project that is to be made."""

    name: str
    slug: str
    repository: str
    framework: FrameworkId
    author: str
    install: str | None
    build: str
    output: str
    seconds: tuple[float, float, float]
    """What cloning, installing and building take."""
    said: Sequence[str]
    """What its build prints."""
    broken: Failure
    pushes: Sequence[Push]


def _pushes(days: Sequence[float], messages: Sequence[str], results: Mapping[int, str]) -> list[Push]:
    return [
        Push(day, "main", message, results.get(place, _OK))
        for place, (day, message) in enumerate(zip(days, messages, strict=True))
    ]


_MANUAL: Final = DeploymentTrigger.MANUAL
_CHAPTER_DAYS: Final = (54.2, 51.1, 47.3, 44.0, 40.2, 37.1, 33.2, 30.1, 29.9, 26.2, 23.1, 19.3, 16.1, 12.2, 9.3, 6.2,
                        5.1, 3.2, 1.3, 0.21)  # fmt: skip
_STORE_DAYS: Final = (55.3, 53.2, 50.1, 48.3, 46.1, 43.2, 41.3, 39.1, 36.2, 34.3, 32.1, 28.2, 25.3, 22.1, 20.2, 18.3,
                      15.1, 13.2, 11.3, 8.1, 7.2, 4.3, 2.2, 1.1, 0.34, 0.06)  # fmt: skip

PROJECTS: Final = (
    Project(
        name="Garden",
        slug="demo-garden",
        repository=GARDEN,
        framework=FrameworkId.STATIC,
        author="The gardener",
        install=None,
        build="sh build.sh",
        output="public",
        seconds=(1.2, 0.0, 0.5),
        said=("Planting 404.html", "Planting index.html", "Planting seeds.html"),
        broken=Failure(
            FailureCode.CLONE_FAILED,
            "The host of 127.0.0.1:8900/git/garden does not answer: check the address, or try again later.",
            DeploymentStep.CLONING,
            retryable=True,
        ),
        pushes=(
            Push(42.4, "main", COMMITS[0].message, trigger=_MANUAL),
            Push(35.3, "main", COMMITS[1].message, _FAILED, _MANUAL),
            Push(35.2, "main", COMMITS[1].message, trigger=_MANUAL),
            Push(21.3, "main", COMMITS[2].message, trigger=_MANUAL),
            Push(14.1, "spring", COMMITS[3].message, trigger=_MANUAL),
            Push(10.2, "spring", COMMITS[3].message, _STOPPED, _MANUAL),
            Push(4.1, "main", COMMITS[2].message, trigger=DeploymentTrigger.REDEPLOY),
        ),
    ),
    Project(
        name="Handbook",
        slug="demo-handbook",
        repository=HANDBOOK,
        framework=FrameworkId.MKDOCS,
        author="Ines Calder",
        install="pip install -r requirements.txt",
        build="mkdocs build",
        output="site",
        seconds=(1.9, 14.0, 6.5),
        said=(
            "INFO    -  Cleaning site directory",
            "INFO    -  Building documentation to directory: site",
            "INFO    -  Documentation built in 1.84 seconds",
        ),
        broken=Failure(
            FailureCode.COMMAND_FAILED,
            "The build command ended with exit code 1. It said: Config value 'nav': 'on-call.md' was not found.",
            DeploymentStep.BUILDING,
            exit_code=1,
        ),
        pushes=_pushes(
            _CHAPTER_DAYS,
            (
                *("A first page", "Who sits where", "The first week", "Plainer words", "On call", "A link that works"),
                *("Releases", "Typos", "Typos, the others", "What to do when the pager is lost", "A better order"),
                *("Incidents", "Say who to ask", "Shorter", "New colleagues", "On call, corrected", "Move on-call"),
                *("Move on-call, all of it", "Holidays", "Spelling"),
            ),
            {5: _FAILED, 8: _REPLACED, 16: _FAILED},
        ),
    ),
    Project(
        name="Storefront",
        slug="demo-storefront",
        repository=STOREFRONT,
        framework=FrameworkId.VITE,
        author="Silas Orme",
        install="npm ci",
        build="npm run build",
        output="dist",
        seconds=(2.4, 21.0, 17.0),
        said=("> vite build", "✓ 214 modules transformed.", "✓ built in 4.31s"),
        broken=Failure(
            FailureCode.INSTALL_FAILED,
            "Installing dependencies ended with exit code 1. It said: npm error code ERESOLVE",
            DeploymentStep.INSTALLING,
            exit_code=1,
        ),
        pushes=(
            *_pushes(
                _STORE_DAYS,
                (
                    *("Empty shelves", "Six things to sell", "Pictures load late", "Prices with cents", "A basket"),
                    *("The basket remembers", "Faster first page", "Filters", "Filters by material", "Footer"),
                    *("Sale", "End of sale", "Accessible buttons", "Upgrade the bundler", "Upgrade, second try"),
                    *("Shorter titles", "Search", "Search without accents", "Smaller pictures", "Basket on phones"),
                    *("Gift cards", "Fix gift cards", "Two columns", "Delivery dates", "Upgrade everything"),
                    *("Upgrade one thing at a time",),
                ),
                {13: _FAILED, 15: _STOPPED, 20: _FAILED, 24: _FAILED},
            ),
            Push(44.6, "checkout", "Checkout in one page"),
            Push(31.4, "checkout", "Checkout, with addresses"),
            Push(17.2, "dark-mode", "Dark"),
            Push(5.6, "dark-mode", "Dark, and readable"),
        ),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment that has ended."""

    ended: Ended
    project: Project
    project_id: UUID
    number: int
    push: Push
    commit: str
    alias: str
    new_bytes: int
    """What of its files no earlier one had."""

    @property
    def environment(self) -> DeploymentEnvironment:
        """What it was for."""
        is_production = self.alias == PRODUCTION_ALIAS
        return DeploymentEnvironment.PRODUCTION if is_production else DeploymentEnvironment.PREVIEW

    @property
    def is_built(self) -> bool:
        """Whether it serves a site."""
        return self.ended.status is ExecutionStatus.SUCCEEDED

    @property
    def files(self) -> site_content.Files:
        """The output of its build."""
        return site_content.files_of(
            self.project.repository, number=self.number, branch=self.push.branch, commit=self.commit
        )


def deployments_of(
    project: Project, project_id: UUID, slug: str, *, now: datetime, timeout_seconds: float
) -> list[Deployment]:
    """All deployments of a project, oldest first."""
    made: list[Deployment] = []
    stored: set[bytes] = set()
    for number, push in enumerate(sorted(project.pushes, key=lambda push: -push.days_ago), start=1):
        source = Source(branch=push.branch)
        is_production = push.branch == "main"
        environment = DeploymentEnvironment.PRODUCTION if is_production else DeploymentEnvironment.PREVIEW
        alias = alias_of(slug, source, environment)
        commit = _commit(project, push)
        files = site_content.served(
            site_content.files_of(project.repository, number=number, branch=push.branch, commit=commit)
        )
        fresh = {hashlib.sha256(data).digest(): len(data) for data in files.values()}
        fresh_sizes = [size for digest, size in fresh.items() if digest not in stored]
        ended = _ended(
            project,
            push,
            number=number,
            commit=commit,
            queued_at=_moment(now, push.days_ago),
            turn_key=f"{project_id}:{alias}",
            timeout_seconds=timeout_seconds,
            file_count=len(files),
            size=sum(map(len, files.values())),
            fresh=fresh_sizes,
        )
        if push.result == _OK:
            stored |= fresh.keys()
        made.append(
            Deployment(
                ended=ended,
                project=project,
                project_id=project_id,
                number=number,
                push=push,
                commit=commit,
                alias=alias,
                new_bytes=sum(fresh_sizes),
            )
        )
    return made


def _ended(
    project: Project,
    push: Push,
    *,
    number: int,
    commit: str,
    queued_at: datetime,
    turn_key: str,
    timeout_seconds: float,
    file_count: int,
    size: int,
    fresh: Sequence[int],
) -> Ended:
    chance = random.Random(f"{project.slug}:{number}")  # noqa: S311 - a story, not a secret
    waits = Ended(
        kind=KIND,
        queued_at=queued_at,
        status=ExecutionStatus.CANCELLED,
        timeout_seconds=timeout_seconds,
        waited_seconds=41.0,
        progress=0,
        is_asked_for=False,
        turn_key=turn_key,
    )
    if push.result == _REPLACED:
        return waits
    clone, install, build = (seconds * chance.uniform(0.8, 1.5) for seconds in project.seconds)
    place = project.repository.removeprefix("https://").removeprefix("http://").removesuffix(".git")
    steps: list[tuple[float, str]] = [(0.1, DeploymentStep.CLONING)]
    lines = [Said(0.1, DeploymentStep.CLONING, f"Cloning {place}, branch {push.branch}.")]

    def end(status: ExecutionStatus, seconds: float, *, progress: int, failure: Failure | None = None) -> Ended:
        return replace(
            waits,
            status=status,
            waited_seconds=chance.uniform(0.1, 2.5),
            worked_seconds=seconds,
            stages=steps,
            lines=lines,
            progress=progress,
            failure=failure,
            is_asked_for=push.trigger is not DeploymentTrigger.PUSH,
            cpu_seconds=seconds * 0.7,
            peak_megabytes=round(40 + 9 * sum(project.seconds) * chance.uniform(0.9, 1.2)),
        )

    def fail(seconds: float, said: str, *, progress: int) -> Ended:
        lines.append(Said(seconds, str(project.broken.stage), said, LogLevel.ERROR))
        return end(ExecutionStatus.FAILED, seconds + 0.2, progress=progress, failure=project.broken)

    is_broken = push.result == _FAILED
    if is_broken and project.broken.stage == DeploymentStep.CLONING:
        return fail(clone + 10, "fatal: unable to access the repository: Failed to connect", progress=3)
    lines.append(Said(clone, DeploymentStep.CLONING, f"Checked out commit {commit}"))
    lines.append(Said(clone + 0.05, DeploymentStep.CLONING, f"At {commit[:12]}: {push.message}"))
    name = {FrameworkId.STATIC: "Static files", FrameworkId.MKDOCS: "MkDocs", FrameworkId.VITE: "Vite"}
    lines.append(Said(clone + 0.1, DeploymentStep.CLONING, f"Framework: {name[project.framework]}."))
    at = clone + 0.2
    if project.install is not None:
        steps.append((at, DeploymentStep.INSTALLING))
        lines.append(Said(at, DeploymentStep.INSTALLING, f"$ {project.install}"))
        if is_broken and project.broken.stage == DeploymentStep.INSTALLING:
            return fail(at + install / 2, "npm error code ERESOLVE", progress=15)
        if push.result == _STOPPED:
            return end(ExecutionStatus.CANCELLED, at + install / 2, progress=15)
        at += install
    steps.append((at, DeploymentStep.BUILDING))
    lines.append(Said(at, DeploymentStep.BUILDING, f"$ {project.build}"))
    if push.result == _STOPPED:
        return end(ExecutionStatus.CANCELLED, at + 0.3, progress=45)
    if is_broken:
        said = project.broken.message.partition("It said: ")[2]
        return fail(at + build, said, progress=45)
    lines += [Said(at + build / 2, DeploymentStep.BUILDING, said) for said in project.said]
    at += build
    steps.append((at, DeploymentStep.COLLECTING))
    said = f"The output has {file_count:,} files with {failures.size(size)}."
    lines.append(Said(at, DeploymentStep.COLLECTING, said))
    steps.append((at + 0.1, DeploymentStep.UPLOADING))
    kept = f"{failures.size(size - sum(fresh))} were there already."
    said = f"Stored {len(fresh):,} new files with {failures.size(sum(fresh))}; {kept}"
    lines.append(Said(at + 0.3, DeploymentStep.UPLOADING, said))
    steps.append((at + 0.4, DeploymentStep.PUBLISHING))
    return end(ExecutionStatus.SUCCEEDED, at + 0.5, progress=100)


def _moment(now: datetime, days_ago: float) -> datetime:
    """So long ago, and of what is older than two days by daylight."""
    if days_ago < 2:
        return now - timedelta(days=days_ago)
    days = int(days_ago)
    day = (now - timedelta(days=days)).replace(hour=0, minute=0, second=0)
    return day + timedelta(hours=18 - 20 * (days_ago - days))


def _commit(project: Project, push: Push) -> str:
    if project.repository == GARDEN:
        return GARDEN_COMMITS[[commit.message for commit in COMMITS].index(push.message)]
    return hashlib.sha1(f"{project.slug}:{push.message}".encode(), usedforsecurity=False).hexdigest()


# -- rows


def deployment_rows(deployments: Sequence[Deployment], configuration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of `deployments` of one project, oldest first."""
    rows = []
    for place, each in enumerate(deployments):
        files = site_content.served(each.files) if each.is_built else {}
        built = each.is_built
        # A push names its commit, a person a branch: of theirs nothing is known before the clone.
        has_commit = len(each.ended.lines) > 2 or each.push.trigger is DeploymentTrigger.PUSH
        again = each.push.trigger is DeploymentTrigger.REDEPLOY
        earlier = [one.ended.id for one in deployments[:place] if one.is_built and one.commit == each.commit]
        newer = deployments[place + 1].ended.id if each.push.result == _REPLACED else None
        collecting = next((at for at, step in each.ended.stages if step == DeploymentStep.COLLECTING), None)
        rows.append(
            {
                "execution_id": each.ended.id,
                "project_id": each.project_id,
                "number": each.number,
                "environment": each.environment.value,
                "trigger": each.push.trigger.value,
                "branch": each.push.branch,
                "commit_hash": each.commit if has_commit else None,
                "commit_message": each.push.message if has_commit else None,
                "commit_author": each.project.author if has_commit else None,
                "committed_at": each.ended.queued_at - timedelta(minutes=2) if has_commit else None,
                "is_fork": False,
                "clone_url": each.project.repository,
                "configuration": configuration,
                "site_key": "".join(secrets.choice(_ALPHABET) for _ in range(16)),
                "alias": each.alias,
                "framework": each.project.framework.value if built else None,
                "routing": site_content.rules_of(each.files).to_json() if built else None,
                "file_count": len(files) if built else None,
                "artifact_size": sum(map(len, files.values())) if built else None,
                "uploaded_bytes": each.new_bytes if built else None,
                "build_seconds": round(collecting - 0.1, 3) if built and collecting is not None else None,
                "redeploy_of_id": earlier[-1] if again and earlier else None,
                "superseded_by_id": newer,
            }
        )
    return rows


def publication_rows(deployments: Sequence[Deployment]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of `site_publications` and of `site_aliases`: each address moved with each deployment that was built."""
    moves: list[dict[str, Any]] = []
    aliases: dict[str, dict[str, Any]] = {}
    for each in deployments:
        if not each.is_built:
            continue
        before = aliases.get(each.alias)
        moves.append(
            {
                "project_id": each.project_id,
                "alias": each.alias,
                "deployment_id": each.ended.id,
                "previous_id": before and before["deployment_id"],
                "reason": each.push.trigger.value,
                "at": each.ended.finished_at,
            }
        )
        aliases[each.alias] = {
            "project_id": each.project_id,
            "name": each.alias,
            "deployment_id": each.ended.id,
            "decided_at": each.ended.queued_at,
            "updated_at": each.ended.finished_at,
        }
    return moves, list(aliases.values())
