"""How large an operation may be: depth, fields, fragments, aliases, directives, repetitions, mutations, cost in nodes.

Both measures visit every selection set once and remember fragments, so a document that spreads fragments in
fragments costs as much as it has characters and not as much as it would expand to; sums stop growing at a ceiling.
`measure` needs no schema and runs before validation, whose own rules are quadratic in repeated fields. The cost
needs types, so it is compiled after validation, once per document; per request it takes one short loop.

Sources of the limits: research/graphql.md §7, OWASP API4:2023. Left out: rate limits, which resolvers charge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

from errors import ValidationFailed
from settings import Settings

CEILING: Final = 10**9
"""Sums stop here; every limit is far below."""

DEFAULT_PAGE: Final = 20
"""What a connection gives when neither `first` nor `last` is there."""

LIST_SIZE: Final = 10
"""Assumed length of a list that has no page: such lists are short by convention."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest document that is executed."""

    depth: int
    aliases: int
    cost: int
    introspection: bool
    fields: int = 500
    mutations: int = 10
    directives: int = 30
    directives_per_node: int = 4
    fragments: int = 100
    """How many fragments: those that meet in one place are compared with each other by validation."""

    repetitions: int = 20
    """How often one name may be selected in one place: merging them is quadratic in this number."""

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits of an installation."""
        return cls(settings.max_depth, settings.max_aliases, settings.max_cost, settings.introspection)


@dataclass(frozen=True, slots=True)
class _Size:
    """What a selection set expands to; `names` counts the response names of its first level."""

    depth: int
    fields: int
    aliases: int
    introspects: bool
    names: Mapping[str, int]


_EMPTY: Final = _Size(0, 0, 0, False, {})


def measure(document: DocumentNode, limits: Limits) -> None:
    """Refuse a parsed document that is too large; raises ValidationFailed, whose details name the limit.

    Takes documents that are not valid too: unknown or circular fragments count as nothing, validation reports them.
    """
    ruler = _Ruler(document, limits)
    try:
        ruler.measure_fragments()
        for operation in document.definitions:
            if isinstance(operation, OperationDefinitionNode):
                ruler.measure_operation(operation)
    except RecursionError:
        # Raised anew outside of the handler, or all frames of the recursion would hang on it.
        pass
    else:
        return
    raise _refusal("depth", limits.depth, None)


class _Ruler:
    def __init__(self, document: DocumentNode, limits: Limits) -> None:
        self.limits = limits
        self.directives = 0
        self.fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self.sizes: dict[str, _Size] = {}

    def measure_fragments(self) -> None:
        """Measure those too that nothing spreads: the rules of validation walk them all."""
        for name in self.fragments:
            size = self.fragment(name)
            self.check("fields", self.limits.fields, size.fields)
        self.check("fragments", self.limits.fragments, len(self.fragments))

    def measure_operation(self, operation: OperationDefinitionNode) -> None:
        """Check one operation, fragments expanded."""
        self.count_directives(operation.directives)
        for variable in operation.variable_definitions or ():
            self.count_directives(variable.directives)
        size = self.selection_set(operation.selection_set)
        if size.introspects and not self.limits.introspection:
            raise ValidationFailed("Introspection is switched off.", limit="introspection")
        self.check("depth", self.limits.depth, size.depth)
        self.check("fields", self.limits.fields, size.fields)
        self.check("aliases", self.limits.aliases, size.aliases)
        if operation.operation is OperationType.MUTATION:
            self.check("mutations", self.limits.mutations, sum(size.names.values()))

    def fragment(self, name: str) -> _Size:
        """The size of a fragment, measured once."""
        size = self.sizes.get(name)
        if size is None:
            self.sizes[name] = _EMPTY  # a circle ends here
            definition = self.fragments.get(name)
            if definition is None:
                return _EMPTY
            self.count_directives(definition.directives)
            size = self.sizes[name] = self.selection_set(definition.selection_set)
        return size

    def selection_set(self, selection_set: SelectionSetNode) -> _Size:
        """Add up one selection set."""
        depth = fields = aliases = 0
        introspects = False
        names: dict[str, int] = {}
        for selection in selection_set.selections:
            self.count_directives(selection.directives)
            if isinstance(selection, FieldNode):
                response_name = selection.alias.value if selection.alias else selection.name.value
                names[response_name] = names.get(response_name, 0) + 1
                fields += 1
                aliases += selection.alias is not None
                if selection.selection_set is None:
                    depth = max(depth, 1)
                    continue
                below = self.selection_set(selection.selection_set)
                is_introspection = selection.name.value in ("__schema", "__type")
                introspects = introspects or is_introspection or below.introspects
                # graphql-core bounds the depth of introspection by a rule of its own.
                depth = max(depth, 1 if is_introspection else below.depth + 1)
            else:
                if isinstance(selection, FragmentSpreadNode):
                    below = self.fragment(selection.name.value)
                elif isinstance(selection, InlineFragmentNode):
                    below = self.selection_set(selection.selection_set)
                else:
                    continue
                introspects = introspects or below.introspects
                depth = max(depth, below.depth)
                for name, count in below.names.items():
                    names[name] = min(names.get(name, 0) + count, CEILING)
            fields = min(fields + below.fields, CEILING)
            aliases = min(aliases + below.aliases, CEILING)
        self.check("repetitions", self.limits.repetitions, max(names.values(), default=0))
        return _Size(depth, fields, aliases, introspects, names)

    def count_directives(self, directives: Sequence[Any] | None) -> None:
        """Count what one node carries, and all nodes together."""
        if directives:
            self.check("directivesPerNode", self.limits.directives_per_node, len(directives))
            self.directives += len(directives)
            self.check("directives", self.limits.directives, self.directives)

    @staticmethod
    def check(name: str, maximum: int, actual: int) -> None:
        """Refuse what is over a limit."""
        if actual > maximum:
            raise _refusal(name, maximum, actual)


_MEANINGS: Final = {
    "depth": "is nested deeper than",
    "fields": "selects more fields than",
    "fragments": "defines more fragments than",
    "aliases": "has more aliases than",
    "mutations": "runs more mutations than",
    "directives": "has more directives than",
    "directivesPerNode": "has more directives in one place than",
    "repetitions": "selects one name in one place more often than",
    "cost": "may ask for more nodes than",
}


def _refusal(name: str, maximum: int, actual: int | None) -> ValidationFailed:
    details: dict[str, Any] = {"limit": name, "maximum": maximum}
    if actual is not None and actual < CEILING:
        details["actual"] = actual
    return ValidationFailed(f"The operation {_MEANINGS[name]} {maximum}.", **details)


def refuse_costly(cost: int, limits: Limits) -> None:
    """Refuse an operation whose cost is over the limit; raises ValidationFailed."""
    if cost > limits.cost:
        raise _refusal("cost", limits.cost, cost)


@dataclass(frozen=True, slots=True)
class _Page:
    """A length that the variables decide: of the first of these values that is there."""

    values: tuple[int | str, ...]

    def size(self, variables: Mapping[str, Any]) -> int:
        for value in self.values:
            given = variables.get(value) if isinstance(value, str) else value
            if isinstance(given, list):
                return len(given)
            if isinstance(given, int):
                return max(given, 0)
        return DEFAULT_PAGE


@dataclass(frozen=True, slots=True)
class _Part:
    """`size` nodes (`own` is 1) or a fragment (`own` is 0), each with what the term at `below` costs."""

    size: int | _Page
    own: int
    below: int


class Cost:
    """How many nodes an operation may ask for: along every path the product of its page sizes, summed up.

    Lists without a page count as ten; single objects are free. Compiled to terms, each of which refers to earlier
    ones only, so evaluating is one pass, and an operation whose pages are all literal is a constant.
    """

    def __init__(
        self, schema: GraphQLSchema, operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._fragment_terms: dict[str, int] = {}
        self._terms: list[tuple[_Part, ...]] = []
        root = schema.get_root_type(operation.operation)
        self._compile(root, operation.selection_set)
        self.constant: int | None = None
        if all(isinstance(part.size, int) for term in self._terms for part in term):
            self.constant = self._evaluate({})

    def of(self, variables: Mapping[str, Any]) -> int:
        """The cost with these coerced variables."""
        return self.constant if self.constant is not None else self._evaluate(variables)

    def _evaluate(self, variables: Mapping[str, Any]) -> int:
        values: list[int] = []
        for term in self._terms:
            total = 0
            for part in term:
                size = part.size if isinstance(part.size, int) else part.size.size(variables)
                total += size * (part.own + values[part.below])
            values.append(min(total, CEILING))
        return values[-1]

    def _compile(self, parent: GraphQLNamedType | None, selection_set: SelectionSetNode) -> int:
        parts: list[_Part] = []
        for selection in selection_set.selections:
            if isinstance(selection, FragmentSpreadNode):
                parts.append(_Part(1, 0, self._fragment(selection.name.value)))
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                narrowed = self._schema.get_type(condition.name.value) if condition else parent
                parts.append(_Part(1, 0, self._compile(narrowed, selection.selection_set)))
            elif isinstance(selection, FieldNode) and selection.selection_set is not None:
                field = self._schema.get_field(parent, selection.name.value) if parent else None  # type: ignore[arg-type]
                if field is not None and not selection.name.value.startswith("__"):
                    parts.append(self._field(parent, field, selection, selection.selection_set))
        self._terms.append(tuple(parts))
        return len(self._terms) - 1

    def _fragment(self, name: str) -> int:
        term = self._fragment_terms.get(name)
        if term is None:
            definition = self._fragments[name]
            condition = self._schema.get_type(definition.type_condition.name.value)
            term = self._fragment_terms[name] = self._compile(condition, definition.selection_set)
        return term

    def _field(
        self, parent: GraphQLNamedType | None, field: GraphQLField, node: FieldNode, selection_set: SelectionSetNode
    ) -> _Part:
        below = self._compile(get_named_type(field.type), selection_set)
        if "first" in field.args or "last" in field.args:
            return _Part(_page(node, ("first", "last")), 1, below)
        if not is_list_type(get_nullable_type(field.type)):
            return _Part(1, 0, below)
        if "ids" in field.args:
            return _Part(_page(node, ("ids",)), 1, below)
        if parent is not None and parent.name.endswith("Connection"):
            return _Part(1, 0, below)  # the page was counted where the connection was asked for
        return _Part(LIST_SIZE, 1, below)


def _page(node: FieldNode, names: tuple[str, ...]) -> int | _Page:
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    values = tuple(value for name in names if name in given for value in _lengths(given[name]))
    if any(isinstance(value, str) for value in values):
        return _Page(values)
    return _Page(values).size({})


def _lengths(value: ValueNode) -> tuple[int | str, ...]:
    if isinstance(value, VariableNode):
        return (value.name.value,)
    if isinstance(value, IntValueNode):
        return (min(int(value.value), CEILING),)
    if isinstance(value, ListValueNode):
        return (len(value.values),)
    return ()
