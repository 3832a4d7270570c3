"""Who asks and what they may do: the actor, the permissions, the role table.

Permissions guard fields (the schema's first gate); which rows they reach is decided by `resolvers/access.py`
(the second gate). Nothing else compares roles.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a user is to the installation."""

    USER = "USER"
    ADMIN = "ADMIN"


class Permission(StrEnum):
    """Each thing that a field can require, as `resource:action`."""

    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    EXECUTION_READ = "execution:read"
    EXECUTION_CANCEL = "execution:cancel"
    DEPLOYMENT_READ = "deployment:read"
    DEPLOYMENT_WRITE = "deployment:write"
    JOB_READ = "job:read"
    JOB_WRITE = "job:write"
    JOB_RUN = "job:run"
    PROJECT_READ = "project:read"
    PROJECT_WRITE = "project:write"
    TOOL_READ = "tool:read"
    TOOL_WRITE = "tool:write"
    USER_READ = "user:read"


_USER = frozenset(Permission) - {Permission.TOOL_WRITE, Permission.USER_READ}
ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {Role.USER: _USER, Role.ADMIN: frozenset(Permission)}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, for the audit trail."""

    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever makes a request; anonymous when `user_id` is None."""

    user_id: UUID | None = None
    role: Role = Role.USER
    session_id: UUID | None = None
    origin: Origin = Origin()

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody is signed in."""
        return self.user_id is None

    @property
    def is_admin(self) -> bool:
        """Whether rows of all users are visible to the actor."""
        return self.user_id is not None and self.role is Role.ADMIN

    def may(self, permission: Permission) -> bool:
        """Whether the actor's role grants a permission."""
        return self.user_id is not None and permission in ROLE_PERMISSIONS[self.role]
