"""Fuzzes every root field of the schema as one actor and judges the answers.

schemathesis writes operations, valid ones and those that break a rule; half of the arguments then travel as variables,
and values in them are exchanged for those of `values`. What may be wrong with an answer: a 5xx, an error whose code is
not of the contract or says that the fault is ours, no answer in time. Ids that answers name are used in later ones.

Nothing is left out: an actor who ended its own session, or was deactivated or deleted, is replaced by a new one.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import schemathesis
from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    GraphQLSchema,
    NameNode,
    OperationDefinitionNode,
    VariableDefinitionNode,
    VariableNode,
    parse,
    parse_type,
    print_ast,
    value_from_ast_untyped,
)
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from errors import ErrorCode
from tests.fuzz import values

ANSWER_SECONDS = 12.0
"""The deadline of a query and some room: a mutation that takes longer than that on an idle machine is a finding too."""

MAX_KNOWN = 500
CODES = {code.value for code in ErrorCode} - {ErrorCode.INTERNAL_SERVER_ERROR.value}
_ID = re.compile(r"[a-z]{3,4}_[0-7][0-9a-hjkmnp-tv-z]{25}")

SignIn = Callable[[], str | None]
"""A fresh token of the actor's kind; None for somebody anonymous."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer that should not be, and what asked for it."""

    field: str
    reason: str
    request: dict[str, Any]
    answer: str


@dataclass
class Report:
    """What a run did."""

    cases: int = 0
    replaced: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)


class Fuzzer:
    """One actor at one API; `run` in a thread, since it blocks."""

    def __init__(self, url: str, sign_in: SignIn) -> None:
        values.register_scalars()
        self.report = Report()
        self._url = url
        self._http = httpx.Client(timeout=ANSWER_SECONDS, trust_env=False)
        self._sign_in = sign_in
        self._token = sign_in()
        self._known: list[str] = []

    def run(self, examples: int, seed_number: int, *, only: str = "") -> Report:
        """So many valid and so many broken operations for each root field whose name contains `only`."""
        schema: Any = schemathesis.graphql.from_url(self._url)
        with self._http:
            for result in schema.get_all_operations():
                operation = result.ok()
                if only not in operation.label:
                    continue
                for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                    self._fuzz(operation, mode, schema.client_schema, examples, seed_number)
        return self.report

    def _fuzz(
        self, operation: Any, mode: GenerationMode, schema: GraphQLSchema, examples: int, seed_number: int
    ) -> None:
        @seed(seed_number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.data())
        def ask(data: st.DataObject) -> None:
            case = data.draw(operation.as_strategy(generation_mode=mode))
            self._ask(operation.label, spoilt(data, str(case.body), schema, self._known))

        ask()

    def _ask(self, name: str, request: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        self.report.cases += 1
        started = time.monotonic()
        try:
            answer = self._http.post(self._url, content=json.dumps(request), headers=headers)
        except httpx.HTTPError as error:
            self._found(name, f"{type(error).__name__} after {time.monotonic() - started:.0f} s", request, "")
            return
        reason = fault_of(answer)
        if reason is not None:
            self._found(name, reason, request, answer.text)
        if answer.status_code == 200 and len(self._known) < MAX_KNOWN:
            self._known += set(_ID.findall(answer.text)) - set(self._known)
        found = re.findall(r'"code":"([A-Z_]+)"', answer.text)
        self.report.codes.update(found or ["(none)"])
        if self._token is not None and answer.status_code == 401:
            self.report.replaced += 1
            self._token = self._sign_in()

    def _found(self, name: str, reason: str, request: dict[str, Any], answer: str) -> None:
        self.report.findings.setdefault((name, reason), Finding(name, reason, request, answer[:2_000]))


def fault_of(answer: httpx.Response) -> str | None:
    """What is wrong with an answer, if anything is."""
    if answer.status_code >= 500 and answer.status_code != 503:
        return f"status {answer.status_code}"
    try:
        errors = answer.json().get("errors") or []
    except ValueError:
        return "not JSON"
    for error in errors:
        code = error.get("extensions", {}).get("code")
        if code not in CODES:
            return f"code {code} at {[step for step in error.get('path', []) if isinstance(step, str)]}"
    return None


def spoilt(data: st.DataObject, text: str, schema: GraphQLSchema, known: list[str]) -> dict[str, Any]:
    """The request for a generated document, some of whose arguments became variables with bad values."""
    document = parse(text, no_location=True)
    operation = next(each for each in document.definitions if isinstance(each, OperationDefinitionNode))
    root = operation.selection_set.selections[0]
    assert isinstance(root, FieldNode)
    parent = schema.get_root_type(operation.operation)
    known_field = parent.fields.get(root.name.value) if parent else None
    if known_field is None:
        return {"query": text}
    definitions, arguments, variables = list[VariableDefinitionNode](), list[ArgumentNode](), dict[str, Any]()
    for argument in root.arguments or ():
        name = argument.name.value
        expected = known_field.args.get(name)
        if expected is None or data.draw(st.integers(0, 3)) == 0:
            arguments.append(argument)
            continue
        variable = VariableNode(name=NameNode(value=name))
        definitions.append(VariableDefinitionNode(variable=variable, type=parse_type(str(expected.type))))
        arguments.append(ArgumentNode(name=argument.name, value=variable))
        variables[name] = spoil(data, value_from_ast_untyped(argument.value), known)
    if not definitions:
        return {"query": text}
    changed = OperationDefinitionNode(
        operation=operation.operation,
        name=operation.name,
        directives=operation.directives,
        variable_definitions=tuple(definitions),
        selection_set=type(operation.selection_set)(selections=(_with(root, arguments),)),
    )
    return {"query": print_ast(DocumentNode(definitions=(changed,))), "variables": variables}


def _with(root: FieldNode, arguments: list[ArgumentNode]) -> FieldNode:
    return FieldNode(
        name=root.name,
        alias=root.alias,
        directives=root.directives,
        arguments=tuple(arguments),
        selection_set=root.selection_set,
    )


def spoil(data: st.DataObject, value: Any, known: list[str]) -> Any:
    """The value with some of its leaves exchanged, mostly for others of their kind."""
    if isinstance(value, dict):
        return {name: spoil(data, inner, known) for name, inner in value.items()}
    if isinstance(value, list):
        return [spoil(data, inner, known) for inner in value]
    choice = data.draw(st.integers(0, 9))
    if choice < 3:
        return value
    if choice == 9:
        return data.draw(values.json_values(known))
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int | float):
        return data.draw(st.sampled_from([*values.INTEGERS, *values.FLOATS]))
    return data.draw(values.texts(known))
