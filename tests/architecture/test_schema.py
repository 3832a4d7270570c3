"""The schema keeps its conventions: everything described, permissions declared, Relay's shapes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import strawberry
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    is_introspection_type,
    is_list_type,
    is_specified_directive,
    is_specified_scalar_type,
)
from graphql.utilities import build_schema as parse_sdl

from schema import assemble, build_schema, sdl
from schema.permissions import undeclared_fields
from schema.scalars import SCALARS

SCHEMA: GraphQLSchema = build_schema()._schema
CAMEL_CASE = re.compile(r"[a-z][a-zA-Z0-9]*")
PASCAL_CASE = re.compile(r"[A-Z][a-zA-Z0-9]*")
UPPER_CASE = re.compile(r"[A-Z][A-Z0-9_]*")


def own_types(schema: GraphQLSchema = SCHEMA) -> list[GraphQLNamedType]:
    return [
        type_
        for type_ in schema.type_map.values()
        if not is_introspection_type(type_) and not is_specified_scalar_type(type_)
    ]


def fields(type_: GraphQLNamedType) -> dict[str, GraphQLField]:
    return getattr(type_, "fields", {}) if not isinstance(type_, GraphQLInputObjectType) else {}


def undescribed(schema: GraphQLSchema) -> Iterator[str]:
    for type_ in own_types(schema):
        if not type_.description:
            yield type_.name
        for name, field in fields(type_).items():
            if not field.description:
                yield f"{type_.name}.{name}"
            for argument_name, argument in field.args.items():
                if not argument.description:
                    yield f"{type_.name}.{name}({argument_name})"
        if isinstance(type_, GraphQLInputObjectType):
            yield from (f"{type_.name}.{name}" for name, field in type_.fields.items() if not field.description)
        if isinstance(type_, GraphQLEnumType):
            yield from (f"{type_.name}.{name}" for name, value in type_.values.items() if not value.description)
    for directive in schema.directives:
        if not is_specified_directive(directive) and not directive.description:
            yield f"@{directive.name}"


def misnamed(schema: GraphQLSchema) -> Iterator[str]:
    for type_ in own_types(schema):
        if not PASCAL_CASE.fullmatch(type_.name):
            yield type_.name
        members = type_.fields if isinstance(type_, GraphQLInputObjectType) else fields(type_)
        yield from (f"{type_.name}.{name}" for name in members if not CAMEL_CASE.fullmatch(name))
        for name, field in fields(type_).items():
            yield from (
                f"{type_.name}.{name}({argument})" for argument in field.args if not CAMEL_CASE.fullmatch(argument)
            )
        if isinstance(type_, GraphQLEnumType):
            yield from (f"{type_.name}.{name}" for name in type_.values if not UPPER_CASE.fullmatch(name))


def wrong_connections(schema: GraphQLSchema) -> Iterator[str]:
    """Types that are named like connections and edges but not made like them (Relay's connection specification)."""
    for type_ in own_types(schema):
        shape = {name: str(field.type) for name, field in fields(type_).items()}
        if type_.name.endswith("Connection"):
            edge = f"{type_.name.removesuffix('Connection')}Edge"
            expected = {"edges": f"[{edge}!]!", "pageInfo": "PageInfo!", "totalCount": "Int"}
            if {name: shape.get(name) for name in expected} != expected:
                yield type_.name
        elif type_.name.endswith("Edge") and (shape.get("cursor") != "String!" or "node" not in shape):
            yield type_.name
        for name, field in fields(type_).items():
            if get_named_type(field.type).name.endswith("Connection"):
                sizes = {
                    key: str(field.args[key].type) for key in ("first", "after", "last", "before") if key in field.args
                }
                if sizes != {"first": "Int", "after": "String", "last": "Int", "before": "String"}:
                    yield f"{type_.name}.{name}"


def wrong_mutations(schema: GraphQLSchema) -> Iterator[str]:
    """Mutations that take anything but one `input` of an input type, or do not answer with a payload.

    The input may be left out where all of it can come from cookies.
    """
    for name, field in schema.mutation_type.fields.items() if schema.mutation_type else ():
        given = field.args.get("input")
        takes_input = set(field.args) <= {"input"} and (
            given is None or isinstance(get_named_type(given.type), GraphQLInputObjectType)
        )
        answer = get_named_type(field.type)
        if not takes_input or not isinstance(answer, GraphQLObjectType) or not answer.name.endswith("Payload"):
            yield f"Mutation.{name}"


def test_every_root_field_declares_who_may_use_it() -> None:
    assert undeclared_fields(build_schema()) == []


def test_everything_is_described() -> None:
    assert list(undescribed(SCHEMA)) == []


def test_names_are_spelled_like_graphqls() -> None:
    assert list(misnamed(SCHEMA)) == []


def test_connections_are_relays() -> None:
    assert list(wrong_connections(SCHEMA)) == []


def test_mutations_take_one_input_and_answer_with_a_payload() -> None:
    assert list(wrong_mutations(SCHEMA)) == []


def test_lists_hold_no_holes_but_in_nodes() -> None:
    """`nodes` answers null for each id that is not to be seen."""
    holes = [
        f"{type_.name}.{name}"
        for type_ in own_types()
        for name, field in fields(type_).items()
        if is_list_type(inner := getattr(field.type, "of_type", field.type))
        and not isinstance(inner.of_type, GraphQLNonNull)
    ]
    assert set(holes) <= {"Query.nodes"}


def test_the_printed_schema_can_be_read_again() -> None:
    text = sdl()
    assert text.endswith("}\n")
    again = parse_sdl(text)
    assert set(again.type_map) == set(SCHEMA.type_map)


def test_our_scalars_name_their_specification() -> None:
    for definition in SCALARS.values():
        assert definition.description
        assert definition.specified_by_url or definition.name in ("BigInt", "Decimal")


@strawberry.type
class _Careless:
    @strawberry.field
    def open_door(self, snake: int = 1) -> int:
        return snake


@strawberry.type
class _CarelessMutation:
    @strawberry.mutation
    def do_it(self, id: strawberry.ID) -> int:
        return 1


@strawberry.type
class ThingConnection:
    edges: list[int]


@strawberry.type
class _Listing:
    @strawberry.field
    def things(self, first: int) -> ThingConnection:
        return ThingConnection(edges=[])


def test_the_checks_above_find_what_they_look_for() -> None:
    careless = assemble(queries=[_Careless, _Listing], mutations=[_CarelessMutation])
    assert set(undeclared_fields(careless)) == {"Query.openDoor", "Query.things", "Mutation.doIt"}
    found = set(undescribed(careless._schema))
    assert {"ThingConnection", "Query.openDoor", "Query.openDoor(snake)", "Mutation.doIt(id)"} <= found
    assert set(wrong_connections(careless._schema)) == {"ThingConnection", "Query.things"}
    assert list(wrong_mutations(careless._schema)) == ["Mutation.doIt"]
