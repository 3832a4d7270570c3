"""Who asks and what they may do: the actor, the permissions, the tables of roles and of access tokens.

Permissions guard fields (the schema's first gate); which rows they reach is decided by `resolvers/access.py`
(the second gate). Nothing else compares roles or scopes. Invariant: an access token never may more than its owner,
and a permission that the table of tokens does not know is for sessions alone.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID


class Role(StrEnum):
    """What a user is to the installation."""

    USER = "USER"
    ADMIN = "ADMIN"


class TokenScope(StrEnum):
    """What an access token may do; the wider ones include the narrower."""

    READ = "READ"
    WRITE = "WRITE"
    ADMIN = "ADMIN"

    @property
    def included(self) -> tuple[TokenScope, ...]:
        """This one and those it includes, the narrowest first."""
        scopes = tuple(TokenScope)
        return scopes[: scopes.index(self) + 1]


class Permission(StrEnum):
    """Each thing that a field can require, as `resource:action`."""

    ACCOUNT_READ = "account:read"
    ACCOUNT_WRITE = "account:write"
    ANALYTICS_READ = "analytics:read"
    AUDIT_READ = "audit:read"
    EXECUTION_READ = "execution:read"
    EXECUTION_CANCEL = "execution:cancel"
    DEPLOYMENT_READ = "deployment:read"
    DEPLOYMENT_WRITE = "deployment:write"
    JOB_READ = "job:read"
    JOB_WRITE = "job:write"
    JOB_RUN = "job:run"
    DOCUMENT_READ = "document:read"
    DOCUMENT_WRITE = "document:write"
    MEDIA_READ = "media:read"
    MEDIA_WRITE = "media:write"
    PRODUCT_WRITE = "product:write"
    PROFILE_READ = "profile:read"
    PROJECT_CREATE = "project:create"
    PROJECT_READ = "project:read"
    PROJECT_WRITE = "project:write"
    PROPERTY_READ = "property:read"
    REPOSITORY_READ = "repository:read"
    SCAN_READ = "scan:read"
    SCAN_WRITE = "scan:write"
    STATUS_WRITE = "status:write"
    SYSTEM_READ = "system:read"
    TOOL_READ = "tool:read"
    TOOL_WRITE = "tool:write"
    USER_READ = "user:read"
    USER_WRITE = "user:write"
    WEBHOOK_READ = "webhook:read"
    WEBHOOK_WRITE = "webhook:write"


_USER = frozenset(Permission) - {
    Permission.MEDIA_WRITE,
    Permission.PRODUCT_WRITE,
    Permission.STATUS_WRITE,
    Permission.SYSTEM_READ,
    Permission.TOOL_WRITE,
    Permission.USER_READ,
    Permission.USER_WRITE,
}
ROLE_PERMISSIONS: dict[Role, frozenset[Permission]] = {Role.USER: _USER, Role.ADMIN: frozenset(Permission)}

TOKEN_SCOPES: dict[Permission, TokenScope | None] = {
    Permission.ACCOUNT_READ: None,
    Permission.ACCOUNT_WRITE: None,
    Permission.ANALYTICS_READ: TokenScope.READ,
    Permission.AUDIT_READ: TokenScope.ADMIN,
    Permission.EXECUTION_READ: TokenScope.READ,
    Permission.EXECUTION_CANCEL: TokenScope.WRITE,
    Permission.DEPLOYMENT_READ: TokenScope.READ,
    Permission.DEPLOYMENT_WRITE: TokenScope.WRITE,
    Permission.JOB_READ: TokenScope.READ,
    Permission.JOB_WRITE: TokenScope.WRITE,
    Permission.JOB_RUN: TokenScope.WRITE,
    Permission.DOCUMENT_READ: TokenScope.READ,
    Permission.DOCUMENT_WRITE: TokenScope.WRITE,
    Permission.MEDIA_READ: TokenScope.READ,
    Permission.MEDIA_WRITE: TokenScope.ADMIN,
    Permission.PRODUCT_WRITE: TokenScope.ADMIN,
    Permission.PROFILE_READ: TokenScope.READ,
    Permission.PROJECT_CREATE: TokenScope.WRITE,
    Permission.PROJECT_READ: TokenScope.READ,
    Permission.PROJECT_WRITE: TokenScope.WRITE,
    Permission.PROPERTY_READ: TokenScope.READ,
    Permission.REPOSITORY_READ: TokenScope.READ,
    Permission.SCAN_READ: TokenScope.READ,
    Permission.SCAN_WRITE: TokenScope.WRITE,
    Permission.STATUS_WRITE: TokenScope.ADMIN,
    Permission.SYSTEM_READ: TokenScope.ADMIN,
    Permission.TOOL_READ: TokenScope.READ,
    Permission.TOOL_WRITE: TokenScope.ADMIN,
    Permission.USER_READ: TokenScope.ADMIN,
    Permission.USER_WRITE: TokenScope.ADMIN,
    Permission.WEBHOOK_READ: TokenScope.READ,
    Permission.WEBHOOK_WRITE: TokenScope.WRITE,
}
"""The narrowest scope that grants a permission to an access token; None for what only a session may."""

PROJECT_PERMISSIONS = frozenset(
    {
        Permission.ANALYTICS_READ,
        Permission.EXECUTION_READ,
        Permission.EXECUTION_CANCEL,
        Permission.DEPLOYMENT_READ,
        Permission.DEPLOYMENT_WRITE,
        Permission.PROJECT_READ,
        Permission.PROJECT_WRITE,
    }
)
"""All that a token for certain projects may, of what its scope grants."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request came from, for the audit trail."""

    ip: str | None = None
    user_agent: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever makes a request; anonymous when `user_id` is None.

    With an access token `scope` is not None; `project_ids` are then the only projects it is good for, None for all, and
    `valid_until` is when it stops to hold by itself. `role` is the account's, whatever the token's scope is.
    """

    user_id: UUID | None = None
    role: Role = Role.USER
    session_id: UUID | None = None
    origin: Origin = Origin()
    access_token_id: UUID | None = None
    scope: TokenScope | None = None
    project_ids: frozenset[UUID] | None = None
    valid_until: datetime | None = None

    @property
    def is_anonymous(self) -> bool:
        """Whether nobody is signed in."""
        return self.user_id is None

    @property
    def is_admin(self) -> bool:
        """Whether rows of all users are visible to the actor."""
        return (
            self.user_id is not None
            and self.role is Role.ADMIN
            and self.scope in (None, TokenScope.ADMIN)
            and self.project_ids is None
        )

    @property
    def view(self) -> Hashable:
        """Equal for actors who see the same of everything: what is read for one may be shown to the other."""
        return ("admins" if self.is_admin else self.user_id, self.scope, self.project_ids)

    def may(self, permission: Permission) -> bool:
        """Whether the actor's role grants a permission, and so does the access token that is shown, if one is."""
        role = Role.ADMIN if self.is_admin else Role.USER
        if self.user_id is None or permission not in ROLE_PERMISSIONS[role]:
            return False
        if self.project_ids is not None and permission not in PROJECT_PERMISSIONS:
            return False
        return self.scope is None or TOKEN_SCOPES.get(permission) in self.scope.included

    def covers(self, project_id: UUID | None) -> bool:
        """Whether what belongs to a project, or to none, is within the bounds of the token that is shown."""
        return self.project_ids is None or project_id in self.project_ids
