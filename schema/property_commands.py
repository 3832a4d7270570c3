"""What people do with properties; what is allowed is decided in `resolvers/properties.py` and at the gate."""

from __future__ import annotations

from typing import Annotated

import strawberry

from models.permissions import Permission
from resolvers import properties
from schema.context import Context
from schema.permissions import requires

Info = strawberry.Info[Context, None]


@strawberry.input(description="Which property to delete.")
class DeletePropertyInput:
    """A property."""

    id: strawberry.ID = strawberry.field(description="The property.")


@strawberry.type(description="A property that is gone.")
class DeletePropertyPayload:
    """A property that is gone."""

    deleted_id: strawberry.ID = strawberry.field(description="The id that it had.")


@strawberry.type
class PropertiesMutation:
    """What is done with properties."""

    @strawberry.mutation(
        description="Delete a property with its prices. Items of runs stay, and a crawl that sees the listing again "
        "adds it anew.",
        extensions=[requires(Permission.JOB_WRITE)],
    )
    async def delete_property(
        self, info: Info, input: Annotated[DeletePropertyInput, strawberry.argument(description="Which property.")]
    ) -> DeletePropertyPayload:
        """The end of a property."""
        await properties.delete(info.context.actor, input.id)
        return DeletePropertyPayload(deleted_id=input.id)
