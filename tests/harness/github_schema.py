"""GitHub's published descriptions, trimmed (`tests/data/github`): what requests, answers and webhooks look like."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

DATA = Path(__file__).resolve().parents[1] / "data" / "github"


@cache
def _description(name: str) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((DATA / name).read_text(encoding="utf-8"))
    return description


def payload(name: str) -> dict[str, Any]:
    """An example of a webhook's payload, to be changed freely."""
    return copy.deepcopy(_description(f"{name}.json"))


def operations() -> list[tuple[str, str]]:
    """Methods and path templates of the API that are described."""
    paths = _description("openapi.json")["paths"]
    return [(method.upper(), template) for template, methods in paths.items() for method in methods]


def example(method: str, template: str, *, name: str | None = None) -> Any:
    """The description's own example of an answer, to be changed freely."""
    answers = _operation(method, template)["answers"]
    answer = next(answers[status] for status in ("200", "201") if status in answers)
    return copy.deepcopy(answer["examples"][name] if name else answer["example"])


def request_faults(method: str, template: str, body: Any, query: dict[str, str]) -> list[str]:
    """What is wrong with a request."""
    operation = _operation(method, template)
    found = [f"no such parameter: {name}" for name in query if name not in operation["query"]]
    schema = operation.get("request")
    if schema is None:
        return found + (["a body that nobody expects"] if body is not None else [])
    return found + _faults(schema, body, "openapi.json")


def answer_faults(method: str, template: str, status: int, body: Any) -> list[str]:
    """What is wrong with a successful answer."""
    answer = _operation(method, template)["answers"].get(str(status))
    if answer is None:
        return [f"{status} is no success of this operation"]
    if "schema" not in answer:
        return [] if body is None else ["a body where there is none"]
    return _faults(answer["schema"], body, "openapi.json")


def webhook_faults(event: str, body: dict[str, Any]) -> list[str]:
    """What is wrong with a webhook's payload."""
    events = _description("webhooks.json")["events"]
    schema = events.get(event) or events[f"{event}.{body.get('action')}"]
    return _faults({"$ref": f"#/components/schemas/{schema}"}, body, "webhooks.json")


def _operation(method: str, template: str) -> dict[str, Any]:
    operation: dict[str, Any] = _description("openapi.json")["paths"][template][method.lower()]
    return operation


def _faults(schema: dict[str, Any], body: Any, description: str) -> list[str]:
    validator = _validator(json.dumps(schema, sort_keys=True), description)
    return [f"{'/'.join(map(str, error.path))}: {error.message[:200]}" for error in validator.iter_errors(body)]


@cache
def _validator(schema: str, description: str) -> Draft202012Validator:
    components = _description(description)["components"]
    return Draft202012Validator({"allOf": [json.loads(schema)], "components": components})
