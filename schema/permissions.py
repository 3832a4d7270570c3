"""The first gate of the schema: every root field says which permission it requires, or that it is public.

The check runs once per root field, before its resolver, and needs nothing but the actor; which rows the actor reaches
is the second gate's work (`resolvers/access.py`). Both declarations are printed in the SDL, and `undeclared_fields`
finds root fields without one, so that forgetting it fails a test instead of opening a door.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import strawberry
from strawberry.extensions.field_extension import FieldExtension
from strawberry.schema_directive import Location
from strawberry.types.enum import StrawberryEnumDefinition
from strawberry.types.field import StrawberryField
from strawberry.utils.await_maybe import await_maybe

from errors import Forbidden, Unauthorized
from models.permissions import TOKEN_SCOPES, Actor, Permission

strawberry.enum(Permission, description="What a field can require of whoever asks; roles and token scopes grant it.")
_definition: StrawberryEnumDefinition = Permission.__strawberry_definition__  # type: ignore[attr-defined]
for _value in _definition.values:
    _permission = Permission[_value.name]
    _scope = TOKEN_SCOPES.get(_permission)
    _value.description = f"`{_permission.value}`. " + (
        f"Access tokens need the scope {_scope}." if _scope else "Not for access tokens."
    )


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION],
    name="requires",
    description="The caller must be signed in and have this permission.",
)
class Requires:
    """`@requires(permission: JOB_READ)` in the SDL."""

    permission: Permission = strawberry.directive_field(name="permission")


@strawberry.schema_directive(
    locations=[Location.FIELD_DEFINITION], name="public", description="Anybody may ask, signed in or not."
)
class Public:
    """`@public` in the SDL."""


class Declared(FieldExtension):
    """A field that says who may use it."""

    directive: object

    def apply(self, field: StrawberryField) -> None:
        """Print the declaration; a field may be part of several schemas."""
        if self.directive not in field.directives:
            field.directives = [*field.directives, self.directive]


class _Required(Declared):
    def __init__(self, permission: Permission) -> None:
        self.permission = permission
        self.directive = Requires(permission=permission)

    def resolve(self, next_: Callable[..., Any], source: Any, info: strawberry.Info[Any, Any], **arguments: Any) -> Any:
        """Check, then go on."""
        check(info.context.actor, self.permission)
        return next_(source, info, **arguments)

    async def resolve_async(
        self, next_: Callable[..., Any], source: Any, info: strawberry.Info[Any, Any], **arguments: Any
    ) -> Any:
        """Check, then go on."""
        check(info.context.actor, self.permission)
        # A subscription's resolver gives its generator at once, all others something to wait for.
        return await await_maybe(next_(source, info, **arguments))


class _Open(Declared):
    def __init__(self) -> None:
        self.directive = Public()


def requires(permission: Permission) -> FieldExtension:
    """For `extensions=[…]` of a root field: UNAUTHORIZED for strangers, FORBIDDEN without the permission."""
    return _Required(permission)


def public() -> FieldExtension:
    """For `extensions=[…]` of a root field that anybody may use."""
    return _Open()


def check(actor: Actor, permission: Permission) -> None:
    """Raise Unauthorized when nobody is signed in, Forbidden when the actor lacks the permission."""
    if actor.may(permission):
        return
    if actor.is_anonymous:
        raise Unauthorized("Sign in first.")
    raise Forbidden("You may not do this.", permission=permission.value)


def undeclared_fields(schema: strawberry.Schema) -> list[str]:
    """Root fields, as `Type.field`, that say neither what they require nor that they are public."""
    core = schema._schema
    return [
        f"{root.name}.{name}"
        for root in (core.query_type, core.mutation_type, core.subscription_type)
        if root is not None
        for name, field in root.fields.items()
        if not any(isinstance(part, Declared) for part in field.extensions["strawberry-definition"].extensions)
    ]
