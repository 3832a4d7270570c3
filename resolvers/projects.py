"""Projects: a repository, how it is built, its variables and its deploy hooks.

Invariants: a slug is chosen once, because addresses are made of it and live for ever; values of variables are sealed
before they are stored and are never given back; a project goes with all of its deployments, but never while one of them
waits or works.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final
from uuid import UUID

from adapters import events, secret_box, storage
from adapters.git import check_branch, normalise_repository
from errors import Conflict, Unauthorized, ValidationFailed
from models import project_queries
from models.audit import AuditEvent
from models.database import Row
from models.deployments import DeploymentTrigger
from models.events import SiteChanged, TotalsChanged
from models.idempotency import earlier, once
from models.ids import new_id
from models.permissions import Actor, Origin, Permission
from models.projects import DeploymentEnvironment, SupersedePolicy
from models.sealed import ENVIRONMENT_VALUE
from models.transaction import after_commit, unit_of_work
from resolvers import access, deployment_queue, limits, sessions, texts
from resolvers.deployment_queue import Source
from tasks import outbox

MAX_NAME_LENGTH: Final = 120
MAX_SLUG_LENGTH: Final = 40
MAX_COMMAND_LENGTH: Final = 1_000
MAX_VARIABLES: Final = 200
MAX_VARIABLE_NAME_LENGTH: Final = 128
MAX_VALUE_BYTES: Final = 32_768
MAX_VALUES_BYTES: Final = 131_072
MAX_HOOKS: Final = 20
OBJECTS_PER_EFFECT: Final = 500
SLUG_TRIES: Final = 8
UPDATE_ATTEMPTS: Final = 5

_CREATE: Final = "createProject"
_SLUG: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HOOK_TOKEN_BYTES: Final = 24
# What decides how programs are found and loaded, or is the build's own to set; a build would break in odd ways.
RESERVED_VARIABLES: Final = frozenset(
    {"PATH", "HOME", "SHELL", "PWD", "IFS", "LD_PRELOAD", "LD_LIBRARY_PATH", "TMPDIR"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableChange:
    """A variable to set in these environments, or to take away where the value is None."""

    name: str
    value: str | None
    environments: tuple[DeploymentEnvironment, ...]


@dataclass(frozen=True, slots=True)
class NewHook:
    """A deploy hook and its token, which is shown this once."""

    hook_id: UUID
    token: str


async def create(
    actor: Actor, *, name: str, slug: str | None, given: Mapping[str, Any], idempotency_key: str | None
) -> Row:
    """Make a project of the actor's own; `given` are columns as clients gave them, `repository` among them.

    Raises ValidationFailed with the path of what does not fit, Conflict when the slug is taken or the actor has as many
    projects as they may.
    """
    owner_id = actor.user_id
    if owner_id is None:
        raise Unauthorized("Sign in first.")
    access.allow(actor, Permission.PROJECT_CREATE)
    valid_name = texts.line(name, path=["input", "name"], max_length=MAX_NAME_LENGTH)
    columns = {
        "name": valid_name,
        "slug": _check_slug(slug) if slug is not None else _slug_of(valid_name),
        **_checked(given),
    }
    columns.setdefault("branch", "main")
    request = {**columns, "slug": slug}
    project_id = new_id()
    made_before = await earlier(owner_id, _CREATE, idempotency_key, request=request)
    if made_before is not None:
        return await _existing(made_before)

    async def make() -> None:
        most = sessions.settings().max_projects_per_user
        if await project_queries.count_owned(owner_id) >= most:
            raise Conflict(f"You have {most:,} projects, which is the limit. Delete some first.", limit=most)
        tries = 1 if slug is not None else SLUG_TRIES
        while not await project_queries.insert(project_id, owner_id=owner_id, columns={**_DEFAULTS, **columns}):
            tries -= 1
            if not tries:
                raise Conflict(
                    f"The slug {columns['slug']} is taken: it names another project's address. Choose another one.",
                    path=["input", "slug"],
                )
            columns["slug"] = _slug_of(valid_name)
        await _record(actor, _CREATE, project_id, name=valid_name, repository=columns["repository"])
        await events.publish(TotalsChanged(owner_id))
        await _tell_hook(project_id, columns)

    async with unit_of_work():
        made = await once(owner_id, _CREATE, idempotency_key, request=request, target_id=project_id, make=make)
    return await _existing(made)


async def update(actor: Actor, project_id: str, *, name: str | None, given: Mapping[str, Any]) -> Row:
    """Change a project; deployments that exist keep the configuration they were made with.

    Raises as `create`, and Conflict when others keep changing it meanwhile.
    """
    columns = _checked(given)
    if name is not None:
        columns["name"] = texts.line(name, path=["input", "name"], max_length=MAX_NAME_LENGTH)
    for _ in range(UPDATE_ATTEMPTS):
        row = await access.project(actor, project_id, to=Permission.PROJECT_WRITE)
        if not columns:
            return row
        has_moved = columns.get("repository_key", row["repository_key"]) != row["repository_key"]
        if has_moved:
            # Builds clone with all that the owner may see at GitHub: a token for one project must not choose from it.
            access.allow(actor, Permission.PROJECT_CREATE)
        changes = {**columns, "github_hook_id": None} if has_moved else columns
        async with unit_of_work():
            if await project_queries.update(row["id"], seen_at=row["updated_at"], columns=changes):
                if has_moved:
                    await _remove_hook(row)
                await _record(actor, "updateProject", row["id"], changed=sorted(columns))
                await _tell_hook(row["id"], {**row, **columns})
                return await _existing(row["id"])
    raise Conflict("The project is being changed by others; look at it again.")


async def delete(actor: Actor, project_id: str) -> None:
    """Remove a project with all that its deployments have; raises Conflict while one of them waits or works."""
    row = await access.project(actor, project_id, to=Permission.PROJECT_WRITE)
    async with unit_of_work():
        is_idle = await project_queries.lock_idle(row["id"])
        if is_idle is None:
            raise access.missing()
        if not is_idle:
            raise Conflict("A deployment of this project waits or works; cancel it first.")
        logs = await project_queries.stored_logs(row["id"])
        await project_queries.delete(row["id"])
        await _record(actor, "deleteProject", row["id"], name=row["name"], owner=str(row["owner_id"]))
        await _remove_hook(row)
        await outbox.post("site.removal", str(row["id"]), {"projectId": str(row["id"])})
        await events.publish(SiteChanged(row["id"]))
        await events.publish(TotalsChanged(row["owner_id"]))
        for start in range(0, len(logs), OBJECTS_PER_EFFECT):
            delete_objects_after_commit(logs[start : start + OBJECTS_PER_EFFECT])


async def set_variables(actor: Actor, project_id: str, changes: Sequence[VariableChange], *, replace: bool) -> Row:
    """Set and take away variables of builds, all or none; with `replace` those that are not named go.

    Raises ValidationFailed with the path of the faulty one.
    """
    row = await access.project(actor, project_id, to=Permission.PROJECT_WRITE)
    wanted: dict[tuple[str, str], str | None] = {}
    for place, change in enumerate(changes):
        path: list[str | int] = ["input", "variables", place]
        _check_variable(change, path)
        for environment in change.environments:
            key = (environment.value, change.name)
            if key in wanted:
                raise ValidationFailed(f"{change.name} is given twice for {environment}.", path=[*path, "name"])
            wanted[key] = change.value
    box = sessions.secret_box()
    async with unit_of_work():
        present = await project_queries.lock_variables(row["id"])
        if present is None:
            raise access.missing()
        sizes = {} if replace else {key: secret_box.size_of(found["sealed_value"]) for key, found in present.items()}
        for key, value in wanted.items():
            sizes.pop(key, None)
            if value is not None:
                sizes[key] = len(value.encode())
        _check_sizes(sizes)
        sealed = []
        for (environment_name, name), value in wanted.items():
            if value is not None:
                before = present.get((environment_name, name))
                variable_id = before["id"] if before else new_id()
                text = box.seal(value, place=ENVIRONMENT_VALUE.place(variable_id))
                sealed.append((variable_id, environment_name, name, text))
        await project_queries.put_variables(row["id"], sealed)
        gone = [found["id"] for key, found in present.items() if key not in sizes]
        await project_queries.delete_variables(gone)
        await _record(
            actor,
            "setEnvironmentVariables",
            row["id"],
            set=sorted(f"{environment}:{name}" for _, environment, name, _ in sealed),
            removed=len(gone),
        )
    return row


async def create_hook(
    actor: Actor, project_id: str, *, name: str, branch: str | None, environment: DeploymentEnvironment | None
) -> NewHook:
    """Make a secret address that deploys one branch; raises Conflict when the project has as many as it may."""
    row = await access.project(actor, project_id, to=Permission.PROJECT_WRITE)
    valid_name = texts.line(name, path=["input", "name"], max_length=MAX_NAME_LENGTH)
    valid_branch = check_branch(branch, path=["input", "branch"]) if branch is not None else row["branch"]
    token = secrets.token_urlsafe(_HOOK_TOKEN_BYTES)
    async with unit_of_work():
        if not await project_queries.lock(row["id"]):
            raise access.missing()
        hook_id = await project_queries.insert_hook(
            row["id"],
            name=valid_name,
            branch=valid_branch,
            environment=environment or environment_of(row, valid_branch),
            token_hash=_hash(token),
            most=MAX_HOOKS,
        )
        if hook_id is None:
            raise Conflict(f"A project has at most {MAX_HOOKS} deploy hooks; delete one first.", limit=MAX_HOOKS)
        await _record(actor, "createDeployHook", row["id"], hook=str(hook_id), branch=valid_branch)
    return NewHook(hook_id, token)


async def delete_hook(actor: Actor, hook_id: str) -> Row:
    """Take a deploy hook away; its project."""
    hook = await access.deploy_hook(actor, hook_id, to=Permission.PROJECT_WRITE)
    async with unit_of_work():
        await project_queries.delete_hook(hook["id"])
        await _record(actor, "deleteDeployHook", hook["project_id"], hook=str(hook["id"]))
    return await _existing(hook["project_id"])


async def deploy_by_hook(token: str, origin: Origin) -> UUID:
    """Queue the deployment that a deploy hook stands for; raises NotFound for a token that is none.

    It counts as one of the project's owner; raises RateLimitExceeded when those are too many.
    """
    owner_id = await project_queries.owner_of_hook(_hash(token))
    if owner_id is None:
        raise access.missing()
    async with limits.deployment(owner_id) as slot, unit_of_work():
        slot.use()
        hook = await project_queries.use_hook(_hash(token))
        if hook is None:
            raise access.missing()
        project = await _existing(hook["project_id"])
        deployment_id = await deployment_queue.enqueue(
            project,
            Source(branch=hook["branch"]),
            environment=DeploymentEnvironment(hook["environment"]),
            trigger=DeploymentTrigger.DEPLOY_HOOK,
            requested_by=None,
        )
        await AuditEvent.record(
            Actor(origin=origin),
            "deployByHook",
            target_type="deployment",
            target_id=deployment_id,
            details={"project": str(project["id"]), "branch": hook["branch"], "hook": str(hook["id"])},
        )
        return deployment_id


async def page(actor: Actor, **conditions: Any) -> list[Row]:
    """A page of the projects that an actor may see; conditions as `models.project_queries.visible` takes them."""
    return await project_queries.visible(actor, **conditions)


async def count(actor: Actor, **conditions: Any) -> int:
    """How many there are in all."""
    return await project_queries.count_visible(actor, **conditions)


async def by_ids(actor: Actor, project_ids: Sequence[UUID]) -> dict[UUID, Row]:
    """Those of the projects that an actor may see."""
    found = await project_queries.find(project_ids)
    return {key: row for key, row in found.items() if access.sees_project(actor, row["owner_id"], row["id"])}


def environment_of(project: Row, branch: str) -> DeploymentEnvironment:
    """What a branch is deployed to when nobody says: the project's own to production, others to preview."""
    is_production = branch == project["branch"]
    return DeploymentEnvironment.PRODUCTION if is_production else DeploymentEnvironment.PREVIEW


def check_folder(text: str, *, path: Sequence[str | int]) -> str:
    """A relative POSIX path in its shortest form, `.` for the top; raises ValidationFailed."""
    stripped = text.strip().strip("/") or "."
    parts = PurePosixPath(stripped).parts
    if len(stripped) > 255 or ".." in parts or "\\" in stripped or not stripped.isprintable():
        raise ValidationFailed("This takes a folder inside the repository, such as apps/web.", path=path)
    return "/".join(parts) or "."


def delete_objects_after_commit(keys: Sequence[str]) -> None:
    """Remove objects from storage once the unit of work is committed."""

    async def delete_objects() -> None:
        await storage.current().delete(keys)

    after_commit(delete_objects)


_DEFAULTS: Final[Mapping[str, Any]] = {
    "root_directory": ".",
    "auto_deploy": True,
    "preview_deployments": True,
    "supersede": SupersedePolicy.QUEUED.value,
    "install_scripts": False,
    "build_network": True,
    "submodules": False,
}


def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Columns from what clients gave; raises ValidationFailed with the path of what does not fit."""
    columns = dict(given)
    if "repository" in given:
        repository = normalise_repository(given["repository"], sessions.settings(), path=["input", "repository"])
        columns["repository"] = repository.url
        columns["repository_key"] = repository.key
        columns["repository_full_name"] = repository.full_name
    if "branch" in given:
        columns["branch"] = check_branch(given["branch"], path=["input", "branch"])
    if "root_directory" in given:
        columns["root_directory"] = check_folder(given["root_directory"], path=["input", "rootDirectory"])
    if given.get("output_directory") is not None:
        columns["output_directory"] = check_folder(given["output_directory"], path=["input", "outputDirectory"])
    for column, field in (("install_command", "installCommand"), ("build_command", "buildCommand")):
        if given.get(column) is not None:
            columns[column] = _command(given[column], ["input", field])
    return columns


def _command(text: str, path: list[str | int]) -> str:
    """A line for the shell, empty for none; raises ValidationFailed."""
    stripped = text.strip()
    if len(stripped) > MAX_COMMAND_LENGTH or not stripped.isprintable():
        raise ValidationFailed(
            f"This takes one line of up to {MAX_COMMAND_LENGTH} characters; join commands with &&.", path=path
        )
    return stripped


def _check_slug(slug: str) -> str:
    if len(slug) > MAX_SLUG_LENGTH or not _SLUG.fullmatch(slug):
        raise ValidationFailed(
            f"A slug has up to {MAX_SLUG_LENGTH} lower-case letters, digits and single hyphens between them: "
            "it becomes part of the site's address.",
            path=["input", "slug"],
        )
    return slug


def _slug_of(name: str) -> str:
    """A slug made from a name, with a random end that mostly keeps it from being taken."""
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[: MAX_SLUG_LENGTH - 5].strip("-")
    return f"{stem}-{secrets.token_hex(2)}" if stem else f"project-{secrets.token_hex(4)}"


def _check_variable(change: VariableChange, path: list[str | int]) -> None:
    if len(change.name) > MAX_VARIABLE_NAME_LENGTH or not _VARIABLE_NAME.fullmatch(change.name):
        raise ValidationFailed(
            "A variable's name has up to 128 letters, digits and underscores and does not begin with a digit.",
            path=[*path, "name"],
        )
    if change.name.upper() in RESERVED_VARIABLES:
        raise ValidationFailed(f"{change.name} is set by the build itself.", path=[*path, "name"])
    if not change.environments:
        raise ValidationFailed("Name at least one environment.", path=[*path, "environments"])
    if change.value is not None and len(change.value.encode()) > MAX_VALUE_BYTES:
        raise ValidationFailed("A value has at most 32 KiB.", path=[*path, "value"])


def _check_sizes(sizes: Mapping[tuple[str, str], int]) -> None:
    """Bytes of all variables by environment and name: programs are handed them as a whole (execve(2), E2BIG)."""
    for environment in DeploymentEnvironment:
        values = [size for (of, _), size in sizes.items() if of == environment.value]
        if len(values) > MAX_VARIABLES:
            raise ValidationFailed(
                f"A project has at most {MAX_VARIABLES} variables in each environment.", path=["input", "variables"]
            )
        if sum(values) > MAX_VALUES_BYTES:
            raise ValidationFailed(
                "The values of an environment have at most 128 KiB together.", path=["input", "variables"]
            )


async def _remove_hook(project: Row) -> None:
    """Let the webhook at GitHub be removed, if there is one."""
    if project["github_hook_id"] is not None:
        await outbox.post(
            "github.hook",
            f"remove:{project['github_hook_id']}",
            {
                "remove": project["github_hook_id"],
                "repository": project["repository_full_name"],
                "ownerId": str(project["owner_id"]),
            },
        )


async def _tell_hook(project_id: UUID, columns: Mapping[str, Any]) -> None:
    """Let the webhook at GitHub be made, if the project wants one and has none."""
    if columns.get("repository_full_name") and sessions.settings().github_webhook_secret is not None:
        await outbox.post("github.hook", f"ensure:{project_id}:{new_id()}", {"projectId": str(project_id)})


async def _existing(project_id: UUID) -> Row:
    row = (await project_queries.find([project_id])).get(project_id)
    if row is None:
        raise access.missing()
    return row


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


async def _record(actor: Actor, action: str, project_id: UUID, **details: Any) -> None:
    await AuditEvent.record(actor, action, target_type="project", target_id=project_id, details=details)
