"""Compiled plans: selections of plain fields become straight-line Python, once per cached operation.

A plain field is an attribute, or a method of nothing but `self` that is not `async`: no arguments, no extensions, no
`Info`. A value whose selection is all plain is completed by one call; of a value with other fields too, the plain ones
are, and graphql-core executes the others. Invariant: a plan gives what graphql-core would give, or it gives up, and
graphql-core completes the same value from the start; so errors, their paths and null propagation are its own. Hence a
plain field may be read twice and must have no effect. What a client wrote enters the code only as string literals.
Left out, and so never compiled: unions, types with their own `is_type_of` or `resolve_type`, fields of the root types.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from types import CoroutineType, FunctionType
from typing import Any, Final

from graphql import (
    GraphQLBoolean,
    GraphQLError,
    GraphQLField,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLString,
    NamedTypeNode,
    NonNullTypeNode,
    OperationDefinitionNode,
    Undefined,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.execution.executor import Executor
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.schema_converter import CustomGraphQLEnumType, GraphQLCoreConverter
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.cast import TYPE_CAST_ATTRIBUTE
from strawberry.types.field import StrawberryField

CHARACTERS_PER_FIELD: Final = 4
"""Of a document, for each field that may be compiled: what plans weigh is bounded with what documents weigh."""

_MAX_VARIANTS: Final = 8
SEQUENCES: Final = frozenset({list, tuple})
"""What is a list to a plan; graphql-core takes any iterable."""

_SIMPLE: Final = frozenset({str, int, float, bool, dict, list, tuple, datetime})
"""Types whose values are neither awaitable nor exceptions, for scalars that may take anything."""

_MAX_NESTING: Final = 16
"""Of blocks in a plan; Python itself takes twenty loops in one another."""

_MAX_CLASSES: Final = 32
_DEFINITION: Final = GraphQLCoreConverter.DEFINITION_BACKREF


class GiveUp(Exception):
    """The value is unusual; graphql-core is to complete it."""


class _NotPlain(Exception):
    """The selection cannot be compiled."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What completes a value, but for the fields in `rest`, whose places in the answer it keeps."""

    run: Callable[[Any], Any]
    rest: GroupedFieldSet


Key = tuple[Any, ...]
"""A type and the ids of the selections that are merged; their nodes live as long as the operation does."""

Known = dict[Key, Plan | bool | None]
"""True for a selection that was met once, None for one that cannot be compiled."""


class Plans:
    """The plans of one operation, for each combination of its Boolean variables, as `@skip` and `@include` use those.

    `completed` and `given_up` count values.
    """

    __slots__ = ("_flags", "_variants", "completed", "fields_left", "given_up")

    def __init__(self, operation: OperationDefinitionNode, *, characters: int) -> None:
        self._flags = [
            definition.variable.name.value
            for definition in operation.variable_definitions or ()
            if isinstance(
                kind := definition.type.type if isinstance(definition.type, NonNullTypeNode) else definition.type,
                NamedTypeNode,
            )
            and kind.name.value == GraphQLBoolean.name
        ]
        self._variants: dict[Key, Known] = {}
        self.fields_left = characters // CHARACTERS_PER_FIELD
        self.completed = 0
        self.given_up = 0

    def variant(self, variables: Mapping[str, Any]) -> Known | None:
        """The plans for these variables; None when there are too many combinations."""
        key = tuple([variables.get(name) for name in self._flags])
        known = self._variants.get(key)
        if known is None and len(self._variants) < _MAX_VARIANTS:
            known = self._variants[key] = {}
        return known


def plan_of(
    executor: Executor[Any],
    plans: Plans,
    known: Known | None,
    type_: GraphQLObjectType | GraphQLList[Any],
    details: FieldDetailsList,
    *,
    at_once: bool,
) -> Plan | None:
    """The plan of a selection; it is compiled when it is met for the second time, or `at_once`."""
    if known is None:
        return None
    key = (type_, id(details[0].node)) if len(details) == 1 else (type_, *[id(each.node) for each in details])
    plan = known.get(key, False)
    if isinstance(plan, bool):
        plan = known[key] = _compile(executor, plans, type_, details) if plan or at_once else True
    return None if isinstance(plan, bool) else plan


def _compile(
    executor: Executor[Any],
    plans: Plans,
    type_: GraphQLObjectType | GraphQLList[Any],
    details: FieldDetailsList,
) -> Plan | None:
    """The plan of a selection, or None; its fields are taken from those that the operation has left."""
    writer = _Writer(executor, plans.fields_left)
    rest: GroupedFieldSet = {}
    try:
        if isinstance(type_, GraphQLObjectType):
            writer.object(type_, details, "value", "raise GiveUp", 1, rest)
        else:
            writer.value(type_, details, "value", "raise GiveUp", 1)
    except (_NotPlain, GraphQLError):
        return None
    if rest and writer.fields == len(rest):
        return None
    plans.fields_left -= writer.fields
    return Plan(writer.function(), rest)


class _Writer:
    """Writes one plan. A variable holds a value until the code below it puts the completed value in its place."""

    def __init__(self, executor: Executor[Any], max_fields: int) -> None:
        self.fields = 0
        self._executor = executor
        self._max_fields = max_fields
        self._lines = ["def plan(value):"]
        self._names: dict[str, Any] = {
            "GiveUp": GiveUp,
            "SEQUENCES": SEQUENCES,
            "SIMPLE": _SIMPLE,
            "Undefined": Undefined,
            "admit": _admit,
            "isfinite": isfinite,
            "refuse": _refuse,
        }
        self._variables = 0

    def function(self) -> Callable[[Any], Any]:
        """The plan."""
        source = "\n".join([*self._lines, " return value", ""])
        exec(compile(source, "<plan>", "exec"), self._names)  # noqa: S102 - names of ours and literals, see above
        function: Callable[[Any], Any] = self._names.pop("plan")
        return function

    def value(
        self, type_: GraphQLOutputType, details: FieldDetailsList, variable: str, refuse: str, nesting: int
    ) -> None:
        """Complete a variable as a type; `refuse` is the statement for a value of a wrong type."""
        if nesting > _MAX_NESTING:
            raise _NotPlain
        if not isinstance(type_, GraphQLNonNull):
            if variable != "value":  # what is completed from outside is not null
                self._write(nesting, f"if {variable} is not None:")
                nesting += 1
        else:
            type_ = type_.of_type
        if isinstance(type_, GraphQLList):
            items, item = self._variable(), self._variable()
            self._write(nesting, f"if type({variable}) not in SEQUENCES: {refuse}")
            self._write(nesting, f"{items} = []")
            self._write(nesting, f"for {item} in {variable}:")
            self.value(type_.of_type, details, item, "raise GiveUp", nesting + 1)
            self._write(nesting + 1, f"{items}.append({item})")
            self._write(nesting, f"{variable} = {items}")
        elif isinstance(type_, GraphQLObjectType):
            self.object(type_, details, variable, refuse, nesting, None)
        elif isinstance(type_, GraphQLInterfaceType):
            table = self._name(self._table(type_, details))
            self._write(nesting, f"if type({variable}) not in {table}: {refuse}")
            self._write(nesting, f"{variable} = {table}[type({variable})]({variable})")
        else:
            self._leaf(type_, variable, refuse, nesting)

    def object(
        self,
        type_: GraphQLObjectType,
        details: FieldDetailsList,
        variable: str,
        refuse: str,
        nesting: int,
        rest: GroupedFieldSet | None,
    ) -> None:
        """Complete a variable as an object; fields that are not plain go to `rest`, if there is such."""
        definition = type_.extensions.get(_DEFINITION)
        if not isinstance(definition, StrawberryObjectDefinition) or definition.is_type_of is not None:
            raise _NotPlain
        classes: set[type] = set()
        self._write(
            nesting,
            f"if type({variable}) not in {(known := self._name(classes))}"
            f" and not admit({variable}, {self._name(type_)}, {known}): {refuse}",
        )
        if type_.is_type_of is not None:
            self._write(nesting, f"if getattr({variable}, {TYPE_CAST_ATTRIBUTE!r}, None) is not None: raise GiveUp")
        grouped, deferred, _ = self._executor.collect_subfields(type_, details)
        if deferred:
            raise _NotPlain
        entries = []
        for key, field_details in grouped.items():
            if self._executor.schema.get_field(type_, field_details[0].node.name.value) is None:
                continue
            self.fields += 1
            if self.fields > self._max_fields:
                raise _NotPlain
            written, fields = len(self._lines), self.fields
            try:
                entry = self._field(type_, field_details, variable, nesting)
            except _NotPlain:
                if rest is None:
                    raise
                del self._lines[written:]
                self.fields = fields
                rest[key] = field_details
                entry = "None"
            entries.append(f"{key!r}: {entry}")
        self._write(nesting, f"{variable} = {{{', '.join(entries)}}}")

    def _field(self, parent: GraphQLObjectType, details: FieldDetailsList, source: str, nesting: int) -> str:
        """The expression for a field, and before it the lines that it needs."""
        node = details[0].node
        if node.name.value == "__typename":
            return repr(parent.name)
        field = parent.fields.get(node.name.value)
        if field is None or field.args or node.arguments:
            raise _NotPlain
        definition = _plain(field)
        variable = self._variable()
        if definition.base_resolver is None:
            name = definition.python_name
            self._write(nesting, f"{variable} = {source}.{name}")
            is_made = f"isinstance(getattr(type({source}), {name!r}, None), property)"
        else:
            self._write(nesting, f"{variable} = {self._name(definition.base_resolver.wrapped_func)}({source})")
            is_made = "True"
        self.value(field.type, details, variable, f"refuse({variable}, {is_made})", nesting)
        return variable

    def _leaf(self, type_: GraphQLOutputType, variable: str, refuse: str, nesting: int) -> None:
        if type_ is GraphQLString or type_ is GraphQLID:
            self._write(nesting, f"if type({variable}) is not str: {refuse}")
        elif type_ is GraphQLInt:
            self._write(nesting, f"if type({variable}) is not int: {refuse}")
            self._write(nesting, f"if not -2147483648 <= {variable} <= 2147483647: raise GiveUp")
        elif type_ is GraphQLFloat:
            coerce = self._name(type_.coerce_output_value)
            self._write(nesting, f"if type({variable}) is int: {variable} = {coerce}({variable})")
            self._write(nesting, f"if type({variable}) is not float: {refuse}")
            self._write(nesting, f"if not isfinite({variable}): raise GiveUp")
        elif type_ is GraphQLBoolean:
            self._write(nesting, f"if type({variable}) is not bool: {refuse}")
        elif isinstance(type_, CustomGraphQLEnumType):
            enumeration, texts = self._name(type_.wrapped_cls), self._name(_texts(type_))
            self._write(nesting, f"if type({variable}) is not {enumeration}: {refuse}")
            self._write(nesting, f"{variable} = {texts}[{variable}._name_]")
        elif isinstance(type_, GraphQLScalarType):
            self._write(nesting, f"if type({variable}) not in SIMPLE: {refuse}")
            self._write(nesting, f"{variable} = {self._name(type_.coerce_output_value)}({variable})")
            self._write(nesting, f"if {variable} is None or {variable} is Undefined: raise GiveUp")
        else:
            raise _NotPlain

    def _table(self, type_: GraphQLInterfaceType, details: FieldDetailsList) -> dict[type, Callable[[Any], Any]]:
        """A plan for each class of ours that implements an interface."""
        interface = type_.extensions.get(_DEFINITION)
        if not isinstance(interface, StrawberryObjectDefinition) or interface.resolve_type is not None:
            raise _NotPlain
        table = {}
        for possible in self._executor.schema.get_possible_types(type_):
            definition = possible.extensions.get(_DEFINITION)
            if (
                not isinstance(definition, StrawberryObjectDefinition)
                or definition.is_graphql_generic
                or definition.concrete_of is not None
                or definition.name != possible.name
                or not issubclass(definition.origin, interface.origin)
            ):
                raise _NotPlain
            writer = _Writer(self._executor, self._max_fields - self.fields)
            writer.object(possible, details, "value", "raise GiveUp", 1, None)
            self.fields += writer.fields
            table[definition.origin] = writer.function()
        return table

    def _write(self, nesting: int, text: str) -> None:
        self._lines.append(" " * nesting + text)

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _name(self, constant: Any) -> str:
        name = f"c{len(self._names)}"
        self._names[name] = constant
        return name


def _plain(field: GraphQLField) -> StrawberryField:
    """The definition of a field that is read from its object and from nothing else; raises _NotPlain."""
    definition = field.extensions.get(_DEFINITION)
    if (
        not isinstance(definition, StrawberryField)
        or definition.extensions
        or definition.is_subscription
        or type(definition).get_result is not StrawberryField.get_result
    ):
        raise _NotPlain
    resolver = definition.base_resolver
    if resolver is None:
        name = definition.python_name
        is_plain = definition.default_resolver is getattr and name.isidentifier() and not keyword.iskeyword(name)
    else:
        is_plain = (
            isinstance(resolver.wrapped_func, FunctionType)
            and not resolver.is_async
            and resolver.self_parameter is not None
            and resolver.info_parameter is resolver.root_parameter is resolver.parent_parameter is None
        )
    if not is_plain:
        raise _NotPlain
    return definition


def _texts(type_: CustomGraphQLEnumType) -> dict[str, str]:
    """What the members of an enum are written as."""
    texts = {}
    member: Any
    for member in type_.wrapped_cls:
        try:
            texts[member._name_] = type_.coerce_output_value(member)
        except (GraphQLError, ValueError):  # of such a member graphql-core reports more
            continue
    return texts


def _admit(value: Any, type_: GraphQLObjectType, classes: set[type]) -> bool:
    """Whether a value is an object of the type as far as its class can tell; then remember the class."""
    kind = type(value)
    if (
        value is None
        or value is Undefined
        or isinstance(value, Exception)
        or optimized_is_awaitable(value)
        or hasattr(kind, "__getattr__")  # a stand-in: what it is differs from value to value
        or len(classes) >= _MAX_CLASSES
        or (type_.is_type_of is not None and not type_.is_type_of(value, None))  # type: ignore[arg-type] # unused
    ):
        return False
    classes.add(kind)
    return True


def _refuse(value: Any, is_made: bool) -> None:
    """Give up; a coroutine that was made by reading the field will be made again."""
    if is_made and type(value) is CoroutineType:
        value.close()
    raise GiveUp
