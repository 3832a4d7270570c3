"""Documents, parsed, measured and validated once: the cache between a text and an operation that may run.

Invariant: whatever comes out has passed graphql-core's rules, Strawberry's and ours. Refusals are remembered too, in a
store of their own, so that a flood of bad documents costs one look-up each and never pushes a good one out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import strawberry
import structlog
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLSchema,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    VariableNode,
    parse,
    specified_rules,
    validate,
)
from graphql.execution.collect_fields import FragmentDetails
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from adapters.metrics import OTHER
from errors import SwitchyardError, ValidationFailed
from schema.errors import FormattedError, shape_refusal
from schema.guards import Cost, Limits, measure
from schema.literals import unstorable_literal
from schema.plans import Plans
from settings import Settings

_log = structlog.get_logger("switchyard.graphql")
MAX_DOCUMENT_CHARACTERS: Final = 65_536
MAX_VALIDATION_ERRORS: Final = 20
_RULES: Final = (*specified_rules, MaybeNullValidationRule, OneOfInputValidationRule)
_KEPT_DOCUMENTS: Final = 1_000
_KEPT_DOCUMENT_BYTES: Final = 32 * 2**20
_KEPT_REFUSALS: Final = 500
_KEPT_REFUSAL_BYTES: Final = 2 * 2**20
_TREE_BYTES_PER_CHARACTER: Final = 120
"""Measured: 45 for the introspection query with its white space, 111 for a minified query."""


class RequestRefused(Exception):
    """The operation was not executed; `errors` are shaped for the client and `status` is what HTTP calls it."""

    def __init__(self, errors: list[FormattedError]) -> None:
        super().__init__(errors[0]["message"])
        self.errors = errors

    @property
    def code(self) -> str:
        """The code of the first error."""
        code: str = self.errors[0]["extensions"]["code"]
        return code

    @property
    def status(self) -> int:
        """The status of the first error."""
        status: int = self.errors[0]["extensions"]["statusCode"]
        return status

    @classmethod
    def before_execution(cls, errors: list[FormattedError], request_id: str | None) -> RequestRefused:
        """The refusal of an operation that was not started; logs the codes and none of the client's words."""
        for error in errors:
            _log.info("request_refused", code=error["extensions"]["code"], request_id=request_id)
        return cls(errors)

    @classmethod
    def because_of(cls, error: SwitchyardError, request_id: str | None) -> RequestRefused:
        """The same, for one error."""
        return cls.before_execution([shape_refusal(error, request_id=request_id)], request_id)


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """One operation of a cached document, with everything that does not depend on the request."""

    definition: OperationDefinitionNode
    name: str | None
    kind: OperationType
    fragment_definitions: dict[str, FragmentDefinitionNode]
    fragments: dict[str, FragmentDetails]
    cost: Cost
    shared_variables: tuple[str, ...]
    """Variables used anywhere but in the arguments of the root field: what a shared event's answer depends on."""
    plans: Plans
    root: str = OTHER
    """The name of its root field, which is one of the schema's; `several` when there are more."""

    @property
    def variable_names(self) -> frozenset[str]:
        """The variables that the operation declares."""
        return frozenset(variable.variable.name.value for variable in self.definition.variable_definitions or ())


Stored = TypeVar("Stored")


class _Store(Generic[Stored]):
    """The latest used values, bounded by number and by weight."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self._entries: OrderedDict[str, tuple[Stored, int]] = OrderedDict()
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._bytes = 0

    def get(self, text: str) -> Stored | None:
        entry = self._entries.get(text)
        if entry is None:
            return None
        self._entries.move_to_end(text)
        return entry[0]

    def put(self, text: str, value: Stored, size_bytes: int) -> None:
        self._entries[text] = (value, size_bytes)
        self._bytes += size_bytes
        while len(self._entries) > self._max_entries or self._bytes > self._max_bytes:
            _, (_, freed) = self._entries.popitem(last=False)
            self._bytes -= freed

    def __len__(self) -> int:
        return len(self._entries)


class OperationCache:
    """The operations of the documents that clients send."""

    def __init__(self, schema: strawberry.Schema, settings: Settings) -> None:
        self.schema: GraphQLSchema = schema._schema
        self.limits = Limits.of(settings)
        self.hides_suggestions = not settings.introspection
        self._max_tokens = settings.max_tokens
        self._documents: _Store[Mapping[str, Operation]] = _Store(
            max_entries=_KEPT_DOCUMENTS, max_bytes=_KEPT_DOCUMENT_BYTES
        )
        self._refusals: _Store[list[FormattedError]] = _Store(max_entries=_KEPT_REFUSALS, max_bytes=_KEPT_REFUSAL_BYTES)

    def knows(self, query: str) -> bool:
        """Whether a document need not be read again."""
        return self._documents.get(query) is not None or self._refusals.get(query) is not None

    def get(self, query: str, operation_name: str | None, *, request_id: str | None = None) -> Operation:
        """The operation of a document; raises RequestRefused when it must not run or there is none of that name."""
        operations = self._documents.get(query)
        if operations is None:
            operations = self._read(query, request_id)
        if operation_name is None and len(operations) == 1:
            return next(iter(operations.values()))
        operation = operations.get(operation_name) if operation_name is not None else None
        if operation is None:
            message = (
                "The document has several operations: `operationName` must say which."
                if operation_name is None
                else "The document has no operation of that name."
            )
            raise RequestRefused.because_of(ValidationFailed(message, path=["operationName"]), request_id)
        return operation

    def _read(self, query: str, request_id: str | None) -> Mapping[str, Operation]:
        errors = self._refusals.get(query)
        if errors is None:
            try:
                operations = self._compile(query)
            except _Refused as refused:
                errors = refused.errors
                # An error is about 400 characters beside the values that it quotes from the document.
                if len(query) <= MAX_DOCUMENT_CHARACTERS:
                    self._refusals.put(query, errors, 2 * len(query) + 400 * len(errors))
            else:
                self._documents.put(query, operations, _TREE_BYTES_PER_CHARACTER * len(query))
                return operations
        raise RequestRefused.before_execution([_of_request(error, request_id) for error in errors], request_id)

    def _compile(self, query: str) -> Mapping[str, Operation]:
        if len(query) > MAX_DOCUMENT_CHARACTERS:
            raise _Refused.one(
                ValidationFailed(
                    f"The document is longer than {MAX_DOCUMENT_CHARACTERS} characters; put large values in variables.",
                    path=["query"],
                    limit="characters",
                    maximum=MAX_DOCUMENT_CHARACTERS,
                )
            )
        try:
            document = parse(query, max_tokens=self._max_tokens)
            measure(document, self.limits)
        except (GraphQLError, SwitchyardError) as error:
            raise _Refused.one(error) from None
        if "\\u" in query and (path := unstorable_literal(document)) is not None:
            raise _Refused.one(ValidationFailed("Text must not contain the character NUL.", path=path))
        faults = validate(
            self.schema, document, _RULES, max_errors=MAX_VALIDATION_ERRORS, hide_suggestions=self.hides_suggestions
        )
        if faults:
            raise _Refused([shape_refusal(fault, request_id=None, document=document) for fault in faults])
        return _operations(self.schema, document, len(query))


class _Refused(Exception):
    def __init__(self, errors: list[FormattedError]) -> None:
        super().__init__()
        self.errors = errors

    @classmethod
    def one(cls, error: GraphQLError | SwitchyardError) -> _Refused:
        return cls([shape_refusal(error, request_id=None)])


def _of_request(error: FormattedError, request_id: str | None) -> FormattedError:
    return {**error, "extensions": {**error["extensions"], "requestId": request_id}}


def _operations(schema: GraphQLSchema, document: DocumentNode, characters: int) -> Mapping[str, Operation]:
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    details = {name: FragmentDetails(definition) for name, definition in fragments.items()}
    definitions = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    operations: dict[str, Operation] = {}
    for definition in definitions:
        name = definition.name.value if definition.name else None
        operations[name or ""] = Operation(
            definition=definition,
            name=name,
            kind=definition.operation,
            fragment_definitions=fragments,
            fragments=details,
            cost=Cost(schema, definition, fragments),
            shared_variables=_shared_variables(definition, fragments)
            if definition.operation is OperationType.SUBSCRIPTION
            else (),
            plans=Plans(definition, characters=characters // len(definitions)),
            root=_root_of(definition, fragments),
        )
    return operations


def _root_of(operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]) -> str:
    """What an operation is counted under: never a word of the client's."""
    found: set[str] = set()
    visited: set[str] = set()
    stack = [operation.selection_set]
    while stack:
        for selection in stack.pop().selections:
            if isinstance(selection, FieldNode):
                found.add(selection.name.value)
            elif isinstance(selection, InlineFragmentNode):
                stack.append(selection.selection_set)
            elif isinstance(selection, FragmentSpreadNode) and selection.name.value not in visited:
                visited.add(selection.name.value)
                stack.append(fragments[selection.name.value].selection_set)
    if all(name.startswith("__") for name in found):
        return "introspection"
    return found.pop() if len(found) == 1 else "several"


def _shared_variables(
    operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> tuple[str, ...]:
    """Names of the variables used beside the root field's own arguments."""
    found: set[str] = set()
    visited: set[str] = set()
    stack: list[tuple[Node, bool]] = [(operation.selection_set, True)]
    while stack:
        node, is_root = stack.pop()
        if isinstance(node, VariableNode):
            found.add(node.name.value)
            continue
        if isinstance(node, FragmentSpreadNode) and node.name.value not in visited:
            visited.add(node.name.value)
            stack.append((fragments[node.name.value].selection_set, is_root))
        for key in node.keys:
            child: Any = getattr(node, key, None)
            if key == "arguments" and is_root and isinstance(node, FieldNode):
                continue
            stays_at_root = is_root and isinstance(node, SelectionSetNode | InlineFragmentNode)
            children = child if isinstance(child, list | tuple) else (child,)
            stack.extend((item, stays_at_root) for item in children if isinstance(item, Node))
    return tuple(sorted(found))
