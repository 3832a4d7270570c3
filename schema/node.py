"""Any object by its id: the prefix of the id says which loader finds it.

A missing object, one of somebody else and an id of no kind at all look alike: null. Each loader goes through the gate
of `resolvers/access.py`; `nodes` asks them together, so those that load through `Context.load` are batched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final
from uuid import UUID

import strawberry

from errors import Forbidden, NotFound, ValidationFailed
from models.ids import MalformedId, decode_id
from schema.context import Context
from schema.permissions import public

MAX_IDS: Final = 100

NodeLoader = Callable[[Context, UUID], Awaitable[Any]]
_loaders: dict[str, NodeLoader] = {}


@strawberry.interface(description="Anything that has an id.")
class Node:
    """Relay's Node."""

    id: strawberry.ID = strawberry.field(
        description="Opaque and unique in this installation; its prefix tells the kind."
    )


def register_node(prefix: str) -> Callable[[NodeLoader], NodeLoader]:
    """Decorate the loader of a kind: it answers with an instance of a type that implements Node, or None.

    It may raise NotFound and Forbidden, which clients see as null. Raises ValueError for a prefix that is taken.
    """

    def register(loader: NodeLoader) -> NodeLoader:
        if prefix in _loaders:
            raise ValueError(f"two loaders for the prefix {prefix}")
        _loaders[prefix] = loader
        return loader

    return register


async def load_node(context: Context, id_: str) -> Any:
    """The object of an id, or None."""
    try:
        prefix, uuid = decode_id(id_)
    except MalformedId:
        return None
    loader = _loaders.get(prefix)
    if loader is None:
        return None
    try:
        return await loader(context, uuid)
    except (NotFound, Forbidden):
        return None


@strawberry.type
class NodeQuery:
    """`node` and `nodes`."""

    @strawberry.field(
        description="The object of an id; null when there is none that you may see.", extensions=[public()]
    )
    async def node(
        self,
        info: strawberry.Info[Context, None],
        id: Annotated[strawberry.ID, strawberry.argument(description="The object's id.")],
    ) -> Node | None:
        """Loads one."""
        found: Node | None = await load_node(info.context, id)
        return found

    @strawberry.field(
        description="The objects of up to 100 ids, in their order; null for each that you may not see.",
        extensions=[public()],
    )
    async def nodes(
        self,
        info: strawberry.Info[Context, None],
        ids: Annotated[list[strawberry.ID], strawberry.argument(description="The objects' ids.")],
    ) -> list[Node | None]:
        """Loads many, at once."""
        if len(ids) > MAX_IDS:
            raise ValidationFailed(f"At most {MAX_IDS} ids at once.", path=["ids"])
        found: list[Node | None] = await asyncio.gather(*(load_node(info.context, id_) for id_ in ids))
        return found
