"""Documents for the authorization matrix, derived from the schema: root fields, where they take ids, what they select.

Nothing here knows what a field means. Invariant: a root field or an id argument that the schema has is in what
`root_fields` and `id_arguments` give, inside of inputs and lists too, so that none can be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    Undefined,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_required_argument,
    is_required_input_field,
)

from models.permissions import Permission
from schema import build_schema
from schema.permissions import Declared, Requires

_OPERATIONS: Final = {"Query": "query", "Mutation": "mutation", "Subscription": "subscription"}
_LOOKS_LIKE_AN_ID: Final = re.compile(r"ids?|.*(Id|Ids|ID)")


@dataclass(frozen=True, slots=True)
class SentFile:
    """A value of the scalar Upload: a file that goes with the operation."""

    name: str
    content: bytes
    content_type: str


DEFAULTS: Final[Mapping[str, Any]] = {
    "String": "sample",
    "Int": 1,
    "Float": 1.0,
    "Boolean": True,
    "JSON": {},
    "BigInt": 1,
    "DateTime": "2036-01-01T00:00:00Z",
    "Upload": SentFile("sample.txt", b"sample", "text/plain"),
}
"""What a required argument of each scalar is given unless a table says otherwise."""

Sample = Callable[[str, str], Any]
"""The value that a table has for an argument of an input type or of a root field; `Undefined` without one."""


@dataclass(frozen=True, slots=True)
class IdArgument:
    """A place that takes an id, or a list of them: `input.projectIds` and the name of the type that has it."""

    path: str
    is_list: bool

    def given(self, *ids: str) -> str | list[str]:
        """Ids as this place takes them: all of them for a list, else the last."""
        return list(ids) if self.is_list else ids[-1]


@dataclass(frozen=True, slots=True)
class RootField:
    """A field of Query, Mutation or Subscription; `permission` is None for a public one."""

    root: str
    name: str
    field: GraphQLField

    @property
    def key(self) -> str:
        """Its name in tables: `Query.job`."""
        return f"{self.root}.{self.name}"

    @property
    def permission(self) -> Permission | None:
        """What it requires."""
        for part in self.field.extensions["strawberry-definition"].extensions:
            if isinstance(part, Declared) and isinstance(part.directive, Requires):
                return part.directive.permission
        return None

    @property
    def id_arguments(self) -> list[IdArgument]:
        """All places that take an id."""
        found: list[IdArgument] = []
        for name, argument in self.field.args.items():
            found += _ids_in(name, name, argument.type, ())
        return found

    def document(self, given: Collection[str], selection: str = "") -> str:
        """The operation that selects this field as `it`, with the given arguments as variables."""
        variables = ", ".join(f"${name}: {self.field.args[name].type}" for name in given)
        arguments = ", ".join(f"{name}: ${name}" for name in given)
        chosen = selection or ("" if is_leaf_type(get_named_type(self.field.type)) else "{ __typename }")
        return (
            f"{_OPERATIONS[self.root]} Matrix{f'({variables})' if variables else ''}"
            f" {{ it: {self.name}{f'({arguments})' if arguments else ''} {chosen} }}"
        )

    def variables(self, ids: Mapping[str, Any], sample: Sample) -> dict[str, Any]:
        """The fewest arguments that are valid, and these ids by their path; the others are left out."""
        return {
            name: value
            for name, argument in self.field.args.items()
            if (value := _value(self.key, name, name, argument, ids, sample)) is not Undefined
        }


@cache
def core_schema() -> GraphQLSchema:
    """The schema that the API serves."""
    return build_schema()._schema


def root_fields(schema: GraphQLSchema | None = None) -> list[RootField]:
    """Every root field, in the order of the schema."""
    core = schema or core_schema()
    return [
        RootField(root.name, name, field)
        for root in (core.query_type, core.mutation_type, core.subscription_type)
        if root is not None
        for name, field in root.fields.items()
    ]


def input_places(schema: GraphQLSchema | None = None) -> set[tuple[str, str]]:
    """Every argument: (input type or root field, name)."""
    core = schema or core_schema()
    found = {(field.key, name) for field in root_fields(core) for name in field.field.args}
    for type_ in core.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            found |= {(type_.name, name) for name in type_.fields}
    return found


def texts_like_ids(schema: GraphQLSchema | None = None) -> list[str]:
    """Arguments that are called like ids but have another type: the matrix would not see them."""
    core = schema or core_schema()
    found = []
    for field in root_fields(core):
        found += [f"{field.key}({name})" for name, each in field.field.args.items() if _hides_an_id(name, each)]
    for type_ in core.type_map.values():
        if isinstance(type_, GraphQLInputObjectType):
            found += [f"{type_.name}.{name}" for name, each in type_.fields.items() if _hides_an_id(name, each)]
    return found


def _hides_an_id(name: str, place: GraphQLArgument | GraphQLInputField) -> bool:
    return bool(_LOOKS_LIKE_AN_ID.fullmatch(name)) and get_named_type(place.type).name != "ID"


def _ids_in(path: str, name: str, type_: Any, above: tuple[str, ...]) -> Iterator[IdArgument]:
    inner = get_named_type(type_)
    if inner.name == "ID":
        yield IdArgument(path, is_list=is_list_type(get_nullable_type(type_)))
    elif isinstance(inner, GraphQLInputObjectType) and inner.name not in above:
        for key, each in inner.fields.items():
            yield from _ids_in(f"{path}.{key}", key, each.type, (*above, inner.name))


def _value(
    owner: str,
    name: str,
    path: str,
    place: GraphQLArgument | GraphQLInputField,
    ids: Mapping[str, Any],
    sample: Sample,
) -> Any:
    """The value of an argument; Undefined when it may be left out."""
    if path in ids:
        return ids[path]
    is_required = is_required_argument(place) if isinstance(place, GraphQLArgument) else is_required_input_field(place)
    inner = get_named_type(place.type)
    has_ids = any(each.startswith(f"{path}.") for each in ids)
    known = Undefined if has_ids else sample(owner, name)
    if known is not Undefined:
        return known
    if not is_required and not has_ids:
        return Undefined
    value = _inner_value(inner, path, ids, sample)
    return [value] if is_list_type(get_nullable_type(place.type)) else value


def _inner_value(inner: GraphQLNamedType, path: str, ids: Mapping[str, Any], sample: Sample) -> Any:
    if isinstance(inner, GraphQLInputObjectType):
        return {
            key: value
            for key, each in inner.fields.items()
            if (value := _value(inner.name, key, f"{path}.{key}", each, ids, sample)) is not Undefined
        }
    if isinstance(inner, GraphQLEnumType):
        return next(iter(inner.values))
    if inner.name not in DEFAULTS:
        raise AssertionError(f"{path} needs a value of type {inner.name}: say it in SAMPLES of tests/harness/matrix.py")
    return DEFAULTS[inner.name]


# -- deep selections


def deep_selection(type_: Any, *, depth: int, page: int = 3) -> str:
    """All that can be selected so many objects deep; pages inside have `page` entries. Edges and nodes count as one."""
    named = get_named_type(type_)
    if is_leaf_type(named):
        return ""
    return "{ " + " ".join(["__typename", *_selected(named, depth, page)]) + " }"


def _selected(type_: GraphQLNamedType, depth: int, page: int, clashing: frozenset[str] = frozenset()) -> Iterator[str]:
    if isinstance(type_, GraphQLUnionType | GraphQLInterfaceType):
        possible = core_schema().get_possible_types(type_)
        shapes: dict[str, set[str]] = {}
        for each in possible:
            for name, field in each.fields.items():
                shapes.setdefault(name, set()).add(str(field.type))
        # Two types that call different things the same cannot be asked for both under that name.
        clashes = frozenset(name for name, shape in shapes.items() if len(shape) > 1)
        for each in possible:
            yield f"... on {each.name} {{ {' '.join(_selected(each, depth, page, clashes))} }}"
        return
    assert isinstance(type_, GraphQLObjectType)
    for name, field in type_.fields.items():
        inner = get_named_type(field.type)
        if any(is_required_argument(argument) for argument in field.args.values()):
            continue
        shown = f"{name}Of{type_.name}: {name}" if name in clashing else name
        if is_leaf_type(inner):
            yield shown
        elif depth > 0 or inner.name == "PageInfo":
            sizes = f"(first: {page})" if "first" in field.args else ""
            is_wrapping = inner.name.endswith(("Connection", "Edge"))
            yield f"{shown}{sizes} {deep_selection(inner, depth=depth - (not is_wrapping), page=page)}"
