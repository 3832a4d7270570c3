"""Preferences as clients see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import strawberry

from models.database import Row
from models.notification_queries import CHOICES
from models.notifications import Theme
from models.permissions import Permission
from resolvers import preferences
from schema.context import Context
from schema.enums import publish
from schema.permissions import requires

Info = strawberry.Info[Context, None]

publish(
    Theme,
    "How apps look.",
    LIGHT="Dark text on a light ground.",
    DARK="Light text on a dark ground.",
    SYSTEM="As the device has it.",
)


@strawberry.type(description="How apps look to you, and what you want to be told.")
class Preferences:
    """Somebody's choices."""

    theme: Theme = strawberry.field(description="How apps look.")
    email_notifications: bool = strawberry.field(
        description="Whether you are also told by e-mail what you are told in the app."
    )
    deployment_success: bool = strawberry.field(description="Whether you are told when a deployment is done.")
    deployment_failure: bool = strawberry.field(description="Whether you are told when a deployment failed.")
    job_notifications: bool = strawberry.field(description="Whether you are told of your jobs.")
    updated_at: datetime | None = strawberry.field(
        description="When you last changed them; null while they are as everybody begins."
    )


@strawberry.input(description="Changes of your preferences; what is left out stays as it is.")
class UpdatePreferencesInput:
    """What changes."""

    theme: strawberry.Maybe[Theme] = strawberry.field(description="As in `Preferences`.")
    email_notifications: strawberry.Maybe[bool] = strawberry.field(description="As in `Preferences`.")
    deployment_success: strawberry.Maybe[bool] = strawberry.field(description="As in `Preferences`.")
    deployment_failure: strawberry.Maybe[bool] = strawberry.field(description="As in `Preferences`.")
    job_notifications: strawberry.Maybe[bool] = strawberry.field(description="As in `Preferences`.")

    def changes(self) -> dict[str, Any]:
        """The given columns."""
        given = {name: getattr(self, name) for name in CHOICES}
        return {name: some.value for name, some in given.items() if some is not None}


@strawberry.type(description="Preferences that changed.")
class UpdatePreferencesPayload:
    """Preferences that changed."""

    preferences: Preferences = strawberry.field(description="All of them, as they are now.")


@strawberry.type
class PreferencesQuery:
    """What you want."""

    @strawberry.field(
        description="Your preferences, or the defaults if you never changed them.",
        extensions=[requires(Permission.ACCOUNT_READ)],
    )
    async def preferences(self, info: Info) -> Preferences:
        """The actor's own."""
        return _preferences_of(await preferences.of(info.context.actor))


@strawberry.type
class PreferencesMutation:
    """Changing one's mind."""

    @strawberry.mutation(
        description="Change some of your preferences. They hold for what happens from then on.",
        extensions=[requires(Permission.ACCOUNT_WRITE)],
    )
    async def update_preferences(
        self, info: Info, input: Annotated[UpdatePreferencesInput, strawberry.argument(description="What changes.")]
    ) -> UpdatePreferencesPayload:
        """All of them, afterwards."""
        row = await preferences.update(info.context.actor, input.changes())
        return UpdatePreferencesPayload(preferences=_preferences_of(row))


def _preferences_of(row: Row) -> Preferences:
    return Preferences(
        theme=Theme(row["theme"]),
        email_notifications=row["email_notifications"],
        deployment_success=row["deployment_success"],
        deployment_failure=row["deployment_failure"],
        job_notifications=row["job_notifications"],
        updated_at=row["updated_at"],
    )
