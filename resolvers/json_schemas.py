"""JSON Schemas that administrators write and inputs that users write: both are checked before they are kept.

Invariants: no reference is ever fetched, a schema that is kept refers to schemas inside of itself only, and no
number of references makes checking endless. What else a schema costs, patterns above all, its administrator answers
for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from itertools import count, islice
from typing import Any, Final

import orjson
from jsonschema import Draft202012Validator
from jsonschema import validators as jsonschema_validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from errors import Conflict, ValidationFailed
from tasks.crawl.contracts import InputFault
from tasks.crawl.input_schemas import DRAFT
from tasks.crawl.spiders import MAX_MESSAGE_CHARACTERS

MAX_SCHEMA_BYTES: Final = 65_536
MAX_FAULTS: Final = 20
_SHOWN_VALUE_CHARACTERS: Final = 80

MAX_REFERENCES_FOLLOWED: Final = 50_000
"""One takes 20 µs."""

Path = tuple[str | int, ...]
_followed: ContextVar[Iterator[int]] = ContextVar("_followed")


def checked(schema: Any, *, path: Sequence[str | int]) -> dict[str, Any]:
    """The schema, if it is one of draft 2020-12 that fits; raises ValidationFailed with the path of the fault."""
    if not isinstance(schema, dict):
        raise ValidationFailed("A JSON Schema is an object.", path=path)
    kept: dict[str, Any] = canonical(schema, path=path, max_bytes=MAX_SCHEMA_BYTES)
    if kept.get("$schema", DRAFT) != DRAFT:
        raise ValidationFailed(f"`$schema` must be {DRAFT} or be left out.", path=[*path, "$schema"])
    try:
        Draft202012Validator.check_schema(kept)
        _check_references(kept, path)
        # A reference that leads back to itself without a step down shows with any input.
        next(_validator(kept).iter_errors({}), None)
    except SchemaError as error:
        raise ValidationFailed(
            f"This is not a JSON Schema of draft 2020-12: {_message(error)}", path=[*path, *error.absolute_path]
        ) from None
    except RecursionError:
        raise ValidationFailed("The schema refers to itself without end, or too often.", path=path) from None
    return kept


def canonical(value: Any, *, path: Sequence[str | int], max_bytes: int) -> Any:
    """The value as it comes back from storage; raises ValidationFailed when it is too large for that."""
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:
        raise ValidationFailed("Whole numbers are between -2^63 and 2^64 - 1.", path=path) from None
    if len(text) > max_bytes:
        raise ValidationFailed(
            f"This has {len(text):,} bytes as JSON, which is more than {max_bytes:,}.", path=path, maximum=max_bytes
        )
    return orjson.loads(text)


def faults(schema: Mapping[str, Any], value: Any) -> list[InputFault]:
    """What is wrong with a value, at most MAX_FAULTS, sorted by path; empty if it fits.

    Something that is missing or not known has the path that it would have. Raises Conflict for a schema that
    cannot be followed.
    """
    try:
        errors = islice(_validator(schema).iter_errors(value), MAX_FAULTS)
        found = {fault.path: fault for error in errors for fault in _faults(error)}
    except (RecursionError, Unresolvable):
        raise Conflict("The tool's input schema refers to itself without end, or too often.") from None
    return sorted(found.values(), key=lambda fault: [str(step) for step in fault.path])[:MAX_FAULTS]


def _validator(schema: Mapping[str, Any]) -> Any:
    # An empty registry: the default one fetches references over the network. And no `$schema`: a reference back to it
    # would change to the library's own class, without the rule below.
    _followed.set(count())
    rules = {keyword: value for keyword, value in schema.items() if keyword != "$schema"}
    return _Validator(rules, registry=Registry())


def _faults(error: ValidationError) -> Iterator[InputFault]:
    here: Path = tuple(error.absolute_path)
    rules: Any = error.schema
    value: Any = error.instance
    if error.validator == "required":
        for name in rules["required"]:
            if name not in value:
                yield InputFault((*here, name), f"`{name}` is required")
    elif error.validator == "additionalProperties" and not rules.get("patternProperties"):
        for name in value:
            if name not in rules.get("properties", {}):
                yield InputFault((*here, name), f"`{name[:_SHOWN_VALUE_CHARACTERS]}` is not known here")
    else:
        yield InputFault(here, _message(error))


def _message(error: ValidationError | SchemaError) -> str:
    """The message with a long value cut short, or the rule that follows it would be lost."""
    if error.validator in ("oneOf", "anyOf") and error.context:
        reasons = "; ".join(dict.fromkeys(_message(inner) for inner in error.context[:4]))
        return f"fits none of the alternatives: {reasons}"[:MAX_MESSAGE_CHARACTERS]
    message, value = str(error.message), repr(error.instance)
    if len(value) > _SHOWN_VALUE_CHARACTERS:
        message = message.replace(value, f"{value[:_SHOWN_VALUE_CHARACTERS]}…", 1)
    return message[:MAX_MESSAGE_CHARACTERS]


def _check_references(schema: Mapping[str, Any], path: Sequence[str | int]) -> None:
    """Every reference leads to a schema in here, and nothing in here gives references another meaning."""
    root = DRAFT202012.create_resource(schema)
    resolver = Registry().with_resource("", root).resolver()
    # The draft does not look into places that it does not know, but a reference could lead there.
    known = {id(subschema) for subschema in _subschemas(root)}
    for place, keyword, text in _keywords(schema, ()):
        here = [*path, *place, keyword]
        if keyword in ("$id", "$schema"):
            if place:
                raise ValidationFailed(f"`{keyword}` belongs to the top of a schema.", path=here)
            continue
        if not text.startswith("#"):
            raise ValidationFailed("References lead to parts of the schema itself only.", path=here)
        try:
            target = resolver.lookup(text).contents
        except (Unresolvable, ValueError):
            target = None
        if not isinstance(target, bool) and id(target) not in known:
            raise ValidationFailed("This refers to nothing in the schema that is one.", path=here)


def _subschemas(resource: Resource[Any]) -> Iterator[Any]:
    yield resource.contents
    for inner in resource.subresources():
        yield from _subschemas(inner)


def _keywords(value: Any, path: Path) -> Iterator[tuple[Path, str, str]]:
    """Keywords about references, wherever they stand: place, keyword and text."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("$ref", "$dynamicRef", "$id", "$schema") and isinstance(item, str):
                yield path, key, item
            else:
                yield from _keywords(item, (*path, key))
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _keywords(item, (*path, position))


def _unique_items(_validator: Any, is_wanted: Any, value: Any, _schema: Any) -> Iterator[ValidationError]:
    """As the draft has it, in linear time: jsonschema compares each pair of what it cannot sort."""
    if not is_wanted or not isinstance(value, list):
        return
    seen: set[bytes] = set()
    for item in value:
        key = orjson.dumps(_with_plain_numbers(item), option=orjson.OPT_SORT_KEYS)
        if key in seen:
            yield ValidationError("holds something twice")
            return
        seen.add(key)


def _with_plain_numbers(value: Any) -> Any:
    """1.0 and 1 are the same number in JSON Schema."""
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**53 else value
    if isinstance(value, list):
        return [_with_plain_numbers(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_plain_numbers(item) for key, item in value.items()}
    return value


def _reference(validator: Any, reference: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    """As the draft has it, so many times: references to references double the work at each step."""
    if next(_followed.get()) >= MAX_REFERENCES_FOLLOWED:
        raise RecursionError
    found: Iterator[ValidationError] = _follow(validator, reference, value, schema)
    yield from found


_follow: Any = Draft202012Validator.VALIDATORS["$ref"]
_extend: Any = jsonschema_validators.extend
_Validator: Any = _extend(Draft202012Validator, {"uniqueItems": _unique_items, "$ref": _reference})
