"""What a repository is made with, as forms see it that make projects; the look itself is `resolvers/detection.py`'s."""

from __future__ import annotations

from typing import Annotated

import strawberry

from models.permissions import Permission
from resolvers import detection
from schema.context import Context
from schema.permissions import requires
from tasks.build.detection import Framework

Info = strawberry.Info[Context, None]


@strawberry.type(description="How a repository would be built. People may overrule every part of it.")
class FrameworkDetection:
    """What a look at the files says."""

    framework: str = strawberry.field(description="A short name, as `Deployment.framework` has it. Expect new values.")
    name: str = strawberry.field(description="The framework's name.")
    install_command: str | None = strawberry.field(description="What installs dependencies; null for nothing.")
    build_command: str | None = strawberry.field(description="What builds; null for nothing.")
    output_directory: str = strawberry.field(description="The folder that would be served, below the root directory.")
    spa_fallback: bool = strawberry.field(description="Whether unknown paths are best answered with `index.html`.")
    package_manager: str | None = strawberry.field(
        description="What manages the packages of Node.js, if something does."
    )
    notes: list[str] = strawberry.field(description="What should be changed or known, in words.")


@strawberry.type
class DetectionQuery:
    """A look before there is a project."""

    @strawberry.field(
        description="How a repository would be built, from a look at its files: for forms that make projects. "
        "VALIDATION_ERROR says why it cannot be looked at; SERVICE_UNAVAILABLE when too many are being looked at.",
        extensions=[requires(Permission.PROJECT_CREATE)],
    )
    async def detect_framework(
        self,
        info: Info,
        repository: Annotated[str, strawberry.argument(description="As in `CreateProjectInput`.")],
        branch: Annotated[str | None, strawberry.argument(description="The branch: the repository's own.")] = None,
        root_directory: Annotated[
            str | None, strawberry.argument(description="The folder to look at: all of it.")
        ] = None,
    ) -> FrameworkDetection:
        """A look at a repository."""
        found = await detection.detect_framework(
            info.context.actor, repository, branch=branch, root_directory=root_directory
        )
        return _detected(found)


def _detected(found: Framework) -> FrameworkDetection:
    return FrameworkDetection(
        framework=found.id.value,
        name=found.name,
        install_command=found.install_command,
        build_command=found.build_command,
        output_directory=found.output_directory,
        spa_fallback=found.is_single_page,
        package_manager=None if found.package_manager is None else found.package_manager.value,
        notes=list(found.notes),
    )
