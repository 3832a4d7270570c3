"""Compiled plans answer as graphql-core does, whatever the document and however faulty the values.

One seed makes a document of a schema with everything that we use; another makes values for it, good and bad, twice the
same: once for the stock executor, once for ours. Data with the order of its keys, errors with paths and places agree.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import random
import re
import types
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum, StrEnum
from functools import lru_cache
from typing import Annotated, Any

import asyncpg
import orjson
import pytest
import pytest_asyncio
import strawberry
from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLUnionType,
    OperationDefinitionNode,
    Undefined,
    get_named_type,
    parse,
)
from graphql.execution.collect_fields import FragmentDetails
from graphql.execution.executor import Executor, default_field_resolver, default_type_resolver
from graphql.execution.values import VariableValues
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.config import StrawberryConfig

from models.executions import ExecutionStatus, Failure, FailureCode
from models.ids import Prefix, decode_id, encode_id
from models.permissions import Actor, Role
from schema import build_schema
from schema.context import AppState, Context
from schema.documents import Operation
from schema.execution import Operations, PlannedExecutor
from schema.plans import CHARACTERS_PER_FIELD, Plans
from schema.requests import OperationRequest
from schema.scalars import JSON, SCALARS, BigInt
from tests.factories import Person
from tests.harness.executions import Desk, open_desk, settings_of

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


# -- a schema with all kinds of fields


@strawberry.enum
class Colour(Enum):
    RED = 1
    BLUE = strawberry.enum_value(2, name="AZURE")


@strawberry.enum
class Grade(StrEnum):
    LOW = "low"
    HIGH = "high"


@strawberry.type
class Leaf:
    text: str
    note: str | None
    key: strawberry.ID
    count: int
    ratio: float | None
    flag: bool
    at: datetime | None
    big: BigInt
    extra: JSON | None
    grade: Grade
    colour: Colour | None
    tags: list[str]
    grid: list[list[int | None]] | None


@strawberry.interface
class Named:
    id: strawberry.ID
    name: str | None


@strawberry.type
class Twig(Named):
    size: int
    leaf: Leaf | None

    @strawberry.field
    def doubled(self) -> int | None:
        return self.size * 2


@strawberry.type
class Branch(Named):
    leaf: Leaf
    leaves: list[Leaf]
    rare: list[Leaf | None] | None
    other: Named | None
    others: list[Named]
    either: Annotated[Leaf | Twig, strawberry.union("Either")] | None
    twigs: list[Twig] | None
    branches: list[Branch]

    @strawberry.field
    def own(self) -> list[Leaf]:
        return self.leaves

    @strawberry.field
    def broken(self) -> str | None:
        raise RuntimeError(f"broken {self.id}")

    @strawberry.field
    def promised(self) -> str | None:
        async def promise() -> str:
            return f"promised {self.id}"

        return promise()  # type: ignore[return-value] # a fault

    @strawberry.field
    async def later(self) -> Leaf | None:
        await asyncio.sleep(0)
        return self.leaf

    @strawberry.field
    async def all_later(self) -> list[Leaf]:
        return self.leaves

    @strawberry.field
    def scaled(self, by: int = 2) -> int:
        return len(str(self.id)) * by

    @strawberry.field
    def told(self, info: strawberry.Info) -> str:
        return str(info.path.key)


@strawberry.type
class Query:
    @strawberry.field
    def branch(self, info: strawberry.Info) -> Branch | None:
        found: Branch | None = info.context["branch"]
        return found

    @strawberry.field
    async def branches(self, info: strawberry.Info) -> list[Branch]:
        found: list[Branch] = info.context["branches"]
        return found

    @strawberry.field
    def leaves(self, info: strawberry.Info) -> list[Leaf | None] | None:
        found: list[Leaf | None] | None = info.context["leaves"]
        return found

    @strawberry.field
    def rows(self, info: strawberry.Info) -> list[Branch | None] | None:
        found: list[Branch | None] = info.context["rows"]
        return found

    @strawberry.field
    def named(self, info: strawberry.Info) -> list[Named] | None:
        found: list[Named] | None = info.context["named"]
        return found

    @strawberry.field
    def either(self, info: strawberry.Info) -> list[Annotated[Leaf | Twig, strawberry.union("Either")] | None]:
        found: list[Leaf | Twig | None] = info.context["either"]
        return found


SCHEMA = strawberry.Schema(query=Query, config=StrawberryConfig(scalar_map=SCALARS))._schema


# -- documents


class Documents:
    """Writes a document from a source of chance."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.fragments: list[tuple[str, str]] = []

    def write(self) -> str:
        for number in range(self.chance.randrange(4)):
            name = self.chance.choice(["Leaf", "Twig", "Branch", "Named"])
            body = self.selection(SCHEMA.type_map[name], 2)  # spreads only those written before, so there is no circle
            self.fragments.append((f"F{number}", f"on {name} {body}"))
        body = self.selection(SCHEMA.query_type, 5)
        fragments = " ".join(f"fragment {name} {text}" for name, text in self.fragments)
        return f"query ($a: Boolean!, $b: Boolean = true, $n: Int) {body} {fragments}"

    def selection(self, type_: Any, depth: int) -> str:
        return "{ " + " ".join(self.part(type_, depth) for _ in range(self.chance.randint(1, 6))) + " }"

    def part(self, type_: Any, depth: int) -> str:
        turn = self.chance.random()
        if turn < 0.08 and depth:
            return f"... {self.directive()} {self.selection(type_, depth - 1)}"
        if turn < 0.16 and depth and type_ is not SCHEMA.query_type:
            other = SCHEMA.type_map[self.chance.choice(["Leaf", "Twig", "Branch", "Named"])]
            return f"... on {other.name} {self.directive()} {self.selection(other, depth - 1)}"
        if turn < 0.26 and self.fragments and type_ is not SCHEMA.query_type:
            return f"...{self.chance.choice(self.fragments)[0]} {self.directive()}"
        alias = f"{self.chance.choice('xyz')}: " if self.chance.random() < 0.3 else ""
        if isinstance(type_, GraphQLUnionType) or self.chance.random() < 0.1:
            return f"{alias}__typename {self.directive()}"
        names = [name for name, field in type_.fields.items() if depth or not _has_fields(field.type)]
        name: str = self.chance.choice(names or ["__typename"])
        if name == "__typename":
            return name
        inner = get_named_type(type_.fields[name].type)
        arguments = self.chance.choice(["", "(by: 3)", "(by: $n)"]) if name == "scaled" else ""
        below = self.selection(inner, depth - 1) if _has_fields(inner) else ""
        return f"{alias}{name}{arguments} {self.directive()} {below}"

    def directive(self) -> str:
        if self.chance.random() < 0.85:
            return ""
        return f"@{self.chance.choice(['skip', 'include'])}(if: {self.chance.choice(['$a', '$b', 'true', 'false'])})"


def _has_fields(type_: Any) -> bool:
    return isinstance(get_named_type(type_), GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType)


# -- values, good and bad


class Thing:
    """Something that no scalar takes, and that looks the same in every message."""

    def __repr__(self) -> str:
        return "<a thing>"


class Later:
    """Awaitable, and no coroutine: nobody minds if it is not awaited."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        yield from asyncio.sleep(0).__await__()
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def __repr__(self) -> str:
        return "<later>"


class Everything:
    """Has every attribute that is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return name

    def __repr__(self) -> str:
        return "<everything>"


class Row:
    """Stands in for a type of the schema; not a dataclass, and with slots."""

    __slots__ = tuple(Leaf.__annotations__)

    def __init__(self, values: dict[str, Any]) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def __repr__(self) -> str:
        return "<row>"


Make = Callable[["Values"], Any]
FAULTS: list[Make] = [
    lambda values: None,
    lambda values: Undefined,
    lambda values: RuntimeError("a value that is an exception"),
    lambda values: Thing(),
    lambda values: Everything(),
    lambda values: Later(values.chance.choice([None, "later", 5, RuntimeError("late")])),
    lambda values: Later(values.leaf()),
    lambda values: Later([values.leaf(), Later(values.leaf())]),
    lambda values: values.chance.choice([True, False, 0, -1, 2**31, -(2**31), 2**53, 2**70]),
    lambda values: values.chance.choice([float("nan"), float("inf"), 1.0, 1.5]),
    lambda values: values.chance.choice(["", "5", "low", "RED", "LOW", b"bytes"]),
    lambda values: values.chance.choice([Colour.RED, Colour.BLUE, Grade.HIGH, 1, [2]]),
    lambda values: values.chance.choice([datetime(2026, 1, 1), MOMENT.astimezone(timezone(timedelta(hours=5)))]),  # noqa: DTZ001
    lambda values: values.chance.choice([[], (), {}, [None], [[None]], [Thing()], {"text": "in a dict"}]),
    lambda values: tuple(values.leaf() for _ in range(2)),
    lambda values: deque([values.leaf()]),
    lambda values: (values.leaf() for _ in range(2)),
    lambda values: values.failing(),
    lambda values: values.twig(),
    lambda values: values.leaf(),
    lambda values: [values.twig(), values.leaf(), Later(values.leaf())],
    lambda values: strawberry.cast(Twig, types.SimpleNamespace(id="cast", name="cast", size=1, leaf=None)),
    lambda values: strawberry.cast(Branch, values.twig()),
    lambda values: type("Heir", (Twig,), {})(id="heir", name=None, size=1, leaf=None),
]


class Values:
    """Makes objects from a source of chance; `faults` is how likely a value is a bad one."""

    def __init__(self, seed: int, faults: float) -> None:
        self.chance: random.Random = random.Random(seed)
        self.faults = faults
        self.depth = 0

    def roots(self) -> dict[str, Any]:
        return {
            "branch": self.value(self.branch),
            "branches": self.value(lambda: self.many(self.branch)),
            "leaves": self.value(lambda: self.many(self.leaf)),
            "rows": self.value(lambda: self.many(self.branch)),
            "named": self.value(lambda: self.many(self.named)),
            "either": self.value(lambda: self.many(self.chance.choice([self.leaf_of_ours, self.twig]))),
        }

    def value(self, good: Callable[[], Any]) -> Any:
        if self.chance.random() >= self.faults or self.depth > 4:
            return good()
        self.depth += 1
        try:
            return self.chance.choice(FAULTS)(self)
        finally:
            self.depth -= 1

    def many(self, make: Callable[[], Any]) -> list[Any]:
        return [self.value(make) for _ in range(self.chance.randrange(4))]

    def made(self, cls: type, values: dict[str, Any]) -> Any:
        """An instance; now and then one of a class of its own, where an attribute is code that fails or waits."""
        if self.chance.random() >= self.faults or self.depth > 4:
            return cls(**values)
        name = self.chance.choice(list(values))
        value, way = values.pop(name), self.chance.randrange(3)

        def read(_self: Any) -> Any:
            if way == 0:
                raise RuntimeError(f"{name} cannot be read")
            return waiting(value) if way == 1 else value

        strange: Any = object.__new__(type(f"Strange{cls.__name__}", (cls,), {name: property(read)}))
        strange.__dict__.update(values)
        return strange

    def leaf_values(self) -> dict[str, Any]:
        return {
            "text": self.value(lambda: "text \" ' \\ ü"),
            "note": self.value(lambda: self.chance.choice([None, "note"])),
            "key": self.value(lambda: strawberry.ID("k_1")),
            "count": self.value(lambda: self.chance.choice([0, 7, 2**31 - 1])),
            "ratio": self.value(lambda: self.chance.choice([None, 0.5, 3])),
            "flag": self.value(lambda: self.chance.random() < 0.5),
            "at": self.value(lambda: self.chance.choice([None, MOMENT])),
            "big": self.value(lambda: self.chance.choice([0, 2**40])),
            "extra": self.value(lambda: self.chance.choice([None, {"a": [1, None]}, [1.5], "x", False])),
            "grade": self.value(lambda: self.chance.choice(list(Grade))),
            "colour": self.value(lambda: self.chance.choice([None, *Colour])),
            "tags": self.value(lambda: self.many(lambda: "tag")),
            "grid": self.value(lambda: self.chance.choice([None, self.many(lambda: self.many(lambda: 1))])),
        }

    def leaf(self) -> Any:
        values = self.leaf_values()
        return Row(values) if self.chance.random() < 0.3 else self.made(Leaf, values)

    def leaf_of_ours(self) -> Any:
        return self.made(Leaf, self.leaf_values())

    def twig(self) -> Any:
        values = {
            "id": self.value(lambda: "twig"),
            "name": self.value(lambda: "a twig"),
            "size": self.value(lambda: 3),
            "leaf": self.value(self.leaf),
        }
        return self.made(Twig, values)

    def named(self) -> Any:
        return self.twig() if self.chance.random() < 0.5 or self.depth > 1 else self.branch()

    def branch(self) -> Any:
        self.depth += 1
        try:
            values = {
                "id": self.value(lambda: "branch"),
                "name": self.value(lambda: None),
                "leaf": self.value(self.leaf),
                "leaves": self.value(lambda: self.many(self.leaf)),
                "rare": self.value(lambda: [None, *self.many(self.leaf)]),
                "other": self.value(self.named),
                "others": self.value(lambda: self.many(self.named)),
                "either": self.value(self.leaf_of_ours),
                "twigs": self.value(lambda: self.many(self.twig)),
                "branches": self.value(lambda: self.many(self.branch) if self.depth < 2 else []),
            }
            return self.made(Branch, values)
        finally:
            self.depth -= 1

    def failing(self) -> Iterator[Any]:
        yield self.leaf()
        raise RuntimeError("no further")


async def waiting(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


# -- both executors


def plans_of(document: str, *, characters: int | None = None) -> Plans:
    operation = next(node for node in parse(document).definitions if isinstance(node, OperationDefinitionNode))
    return Plans(operation, characters=len(document) if characters is None else characters)


@lru_cache(maxsize=1)
def parsed(document: str) -> DocumentNode:
    """The same nodes for as long as a document is in use, as operations keep them."""
    return parse(document)


def answer(document: str, roots: dict[str, Any], variables: dict[str, Any], plans: Plans | None) -> tuple[str, Any]:
    """Data and errors; data as text, which shows types and order."""
    nodes = parsed(document).definitions
    fragments = {node.name.value: node for node in nodes if isinstance(node, FragmentDefinitionNode)}
    arguments = (
        SCHEMA,
        fragments,
        {name: FragmentDetails(node) for name, node in fragments.items()},
        None,
        roots,
        next(node for node in nodes if isinstance(node, OperationDefinitionNode)),
        VariableValues({}, variables),
        default_field_resolver,
        default_type_resolver,
        default_field_resolver,
    )
    options: dict[str, Any] = {"is_awaitable": optimized_is_awaitable}
    executor = Executor(*arguments, **options) if plans is None else PlannedExecutor(*arguments, **options, plans=plans)

    async def execute() -> Any:
        result: Any = executor.execute_operation()
        return await result if optimized_is_awaitable(result) else result

    with asyncio.Runner() as runner:
        result = runner.run(execute())
    errors = [(without_addresses(error.message), error.path, error.locations) for error in result.errors or ()]
    return without_addresses(repr(result.data)), errors


def without_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x", text)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # the stock executor's, too
def test_plans_answer_as_the_stock_executor_does() -> None:
    tally: Counter[str] = Counter()

    @settings(max_examples=150, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
    @given(
        document=st.integers(0, 2**32),
        values=st.integers(0, 2**32),
        faults=st.sampled_from([0.0, 0.003, 0.02, 0.1]),
        variables=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=3, max_size=3),
    )
    def compare(document: int, values: int, faults: float, variables: list[tuple[bool, bool]]) -> None:
        text = Documents(random.Random(document)).write()
        plans = plans_of(text)
        for number, (a, b) in enumerate(variables):
            named = {"a": a, "b": b, "n": 4}
            expected = answer(text, Values(values + number, faults).roots(), named, None)
            assert answer(text, Values(values + number, faults).roots(), named, plans) == expected, text
        tally.update(completed=plans.completed, given_up=plans.given_up)

    compare()
    gc.collect()
    assert tally["completed"] > 300
    assert tally["given_up"] > 100


# Each of these in the place of each attribute: what chance finds rarely, and each guard of a plan must refuse.
ODD: list[Callable[[], Any]] = [
    *(lambda make=make, seed=seed: make(Values(seed, 0.0)) for make in FAULTS for seed in range(3)),
    *(lambda value=value: value for value in (True, False, 0, 2**31, -(2**31) - 1, 2**53, -(2**70))),
    *(lambda value=value: value for value in (float("nan"), float("inf"), 1.0, 1.5, 10**400)),
    *(lambda value=value: value for value in ("", "low", "RED", b"bytes", Colour.RED, Colour.BLUE, Grade.HIGH, 1, [2])),
    lambda: MOMENT.replace(tzinfo=None),
    lambda: MOMENT.astimezone(timezone(timedelta(hours=5))),
    lambda: strawberry.cast(Branch, Values(0, 0.0).twig()),
    lambda: [strawberry.cast(Branch, Values(0, 0.0).twig())],
    lambda: [Everything()],
    lambda: [RuntimeError("in a list")],
    lambda: [[None, Undefined, 2**31, "7"]],
]


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")  # the stock executor's, too
@pytest.mark.parametrize(
    ("root", "make", "selection"),
    [
        ("leaves", lambda: Values(1, 0.0).leaf_of_ours(), "{ %s }"),
        (
            "rows",
            lambda: Values(1, 0.0).branch(),
            "{ id name leaf { __typename } leaves { __typename } rare { __typename } other { __typename id }"
            " others { __typename } twigs { __typename } branches { __typename } } # %s",
        ),
        ("rows", lambda: Values(1, 0.0).branch(), "{ id either { __typename } leaf { text } %s: told } "),
    ],
    ids=["leaves", "branches", "beside"],
)
def test_each_odd_value_in_each_place_has_the_stock_executors_answer(
    root: str, make: Callable[[], Any], selection: str
) -> None:
    good = make()  # once: building such a tree for every row took nine tenths of the time
    for name in vars(good):
        document = f"{{ {root} {selection % name}\n }}"

        def roots(name: str = name) -> dict[str, Any]:
            rows = [copy.copy(good) for _ in ODD]
            for row, odd in zip(rows, ODD, strict=True):
                setattr(row, name, odd())
            return {root: rows}

        plans = plans_of(document, characters=10_000)
        expected = answer(document, roots(), {}, None)
        for _ in range(2):
            assert answer(document, roots(), {}, plans) == expected, name
        assert plans.completed > 0
    gc.collect()


# -- what is compiled, and what is not

LEAF = "{ text note key count ratio flag at big extra grade colour tags grid }"
BRANCH = "{ __typename id name leaf %s leaves %s rare { text } other { id } twigs { id doubled leaf { count } } }"


def test_good_values_of_plain_fields_are_completed_by_one_plan() -> None:
    document = f"{{ branches {BRANCH % (LEAF, LEAF)} }}"
    plans = plans_of(document)
    roots = {"branches": [Values(seed, 0.0).branch() for seed in range(10)]}
    assert answer(document, roots, {}, plans) == answer(document, roots, {}, None)
    assert (plans.completed, plans.given_up) == (1, 0)


def test_fields_with_resolvers_leave_the_plain_ones_beside_them_compiled() -> None:
    document = "{ branches { id later { text } name scaled told leaf { text } } }"
    plans = plans_of(document)
    roots = {"branches": [Values(seed, 0.0).branch() for seed in range(10)]}
    assert answer(document, roots, {}, plans) == answer(document, roots, {}, None)
    assert plans.given_up == 0
    assert plans.completed == 9 + 1 + 8  # branches but the first, its leaf, and leaves that came later


def test_a_method_that_raises_has_its_error_from_the_stock_executor() -> None:
    document = "{ branches { id broken } }"
    plans = plans_of(document)
    roots = {"branches": [Values(seed, 0.0).branch() for seed in range(10)]}
    data, errors = answer(document, roots, {}, plans)
    assert (data, errors) == answer(document, roots, {}, None)
    assert [path for _, path, _ in errors] == [["branches", place, "broken"] for place in range(10)]
    assert plans.given_up == 1 + 9  # the list, and each branch but the first


def test_a_plan_is_made_once() -> None:
    plans = plans_of(document := f"{{ leaves {LEAF} }}")
    roots = {"leaves": [Values(seed, 0.0).leaf_of_ours() for seed in range(10)]}
    left = []
    for _ in range(3):
        answer(document, roots, {}, plans)
        left.append(plans.fields_left)
    assert left[0] == left[1] == left[2] == len(document) // CHARACTERS_PER_FIELD - 13
    assert plans.completed == 3


def test_a_document_has_as_many_compiled_fields_as_its_length_allows() -> None:
    document = "query { a: leaves { ...F } b: leaves { ...F } } fragment F on Leaf { text note key count flag big at }"
    plans = plans_of(document, characters=10 * CHARACTERS_PER_FIELD)
    roots = {"leaves": [Values(seed, 0.0).leaf_of_ours() for seed in range(10)]}
    assert answer(document, roots, {}, plans) == answer(document, roots, {}, None)
    assert plans.fields_left == 3
    assert plans.completed == 1


def test_every_combination_of_conditions_has_plans_of_its_own_up_to_a_number() -> None:
    names = "abcdef"
    parameters = ", ".join(f"${name}: Boolean!" for name in names)
    fields = " ".join(f"{name}: text @include(if: ${name})" for name in names)
    document = f"query ({parameters}) {{ leaves {{ {fields} flag }} }}"
    plans = plans_of(document, characters=10_000)
    roots = {"leaves": [Values(seed, 0.0).leaf_of_ours() for seed in range(10)]}
    for bits in range(2 ** len(names)):
        named = {name: bool(bits >> place & 1) for place, name in enumerate(names)}
        assert answer(document, roots, named, plans) == answer(document, roots, named, None)
    assert plans.completed == 8


def test_a_coroutine_that_a_plan_cannot_use_is_closed_and_made_again() -> None:
    made = []

    async def text() -> str:
        made.append("awaited")
        return "late"

    class Lazy:
        @property
        def text(self) -> Any:
            made.append("made")
            return text()

    document = "{ leaves { text } branch { promised } }"
    plans = plans_of(document)
    expected = answer(document, {"leaves": [Lazy()] * 10, "branch": Values(0, 0.0).branch()}, {}, None)
    made.clear()
    assert answer(document, {"leaves": [Lazy()] * 10, "branch": Values(0, 0.0).branch()}, {}, plans) == expected
    gc.collect()  # what was neither awaited nor closed says so now, and fails the test
    assert made.count("awaited") == 10
    assert made.count("made") > 10


# -- the real schema


@pytest_asyncio.fixture(scope="module")
async def desk(settings_env: dict[str, str]) -> AsyncIterator[Desk]:
    async with open_desk(settings_env) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module")
async def owner(db: asyncpg.Connection) -> Person:
    user_id = await db.fetchval("SELECT id FROM users")
    return Person(encode_id(Prefix.USER, user_id), "", "", Role.ADMIN, "", "", "")


RUNS = """{ jobRuns(first: 50) { edges { cursor node { id status stage progress attempt queuedAt startedAt finishedAt
    trigger closeReason itemsScraped pagesCrawled errorsCount durationSeconds input limits retryOfId
    failure { code message retryable } job { id name tool { slug } } tool { id slug name states exampleInput }
    requestedBy { id username name role email } } } pageInfo { hasNextPage endCursor } } }"""
LOGS = """subscription ($id: ID!) { logs(executionId: $id) { complete lastSequence
    lines { sequence timestamp level message stage isContinuation } } }"""


async def test_a_list_of_runs_is_one_plan(desk: Desk, owner: Person, settings_env: dict[str, str]) -> None:
    await desk.finished(owner)
    hand = await desk.started(owner)
    await hand.finish(ExecutionStatus.FAILED, failure=Failure(FailureCode.TIMED_OUT, "Too slow."))
    await desk.queued(owner)
    operations, operation = _operation(RUNS, settings_env)
    answers = [await operations.execute(operation, {}, _context(owner, settings_env)) for _ in range(2)]
    assert len(orjson.loads(answers[0])["data"]["jobRuns"]["edges"]) == 3
    assert (operation.plans.completed, operation.plans.given_up) == (2, 0)  # the edges; then the whole page
    assert answers[1] == answers[0]


async def test_a_page_of_log_lines_is_one_plan(desk: Desk, owner: Person, settings_env: dict[str, str]) -> None:
    run_id = await desk.finished(owner, lines=20)
    operations, operation = _operation(LOGS, settings_env)
    for completed in (1, 2):  # the lines; then the whole batch
        stream = operations.subscribe(operation, {"id": encode_id(Prefix.RUN, run_id)}, _context(owner, settings_env))
        async with aclosing(stream):
            pages = [orjson.loads(frame.payload)["data"]["logs"] async for frame in stream]
        assert [len(page["lines"]) for page in pages] == [20]
        assert (operation.plans.completed, operation.plans.given_up) == (completed, 0)


def _operation(document: str, environment: dict[str, str]) -> tuple[Operations, Operation]:
    operations = Operations(build_schema(), settings_of(environment))
    request = OperationRequest(query=document, variables={}, operation_name=None)
    return operations, operations.prepare(request, request_id=None)


def _context(owner: Person, environment: dict[str, str]) -> Context:
    actor = Actor(user_id=decode_id(owner.id)[1], role=Role.ADMIN)
    return Context(actor=actor, settings=settings_of(environment), state=AppState())
