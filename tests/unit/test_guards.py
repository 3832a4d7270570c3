"""Documents are measured in linear time, refused by each limit, and cost what they may ask for."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import strawberry
from graphql import FragmentDefinitionNode, OperationDefinitionNode, get_introspection_query, parse
from hypothesis import given
from hypothesis import strategies as st

from errors import ValidationFailed
from schema import build_schema
from schema.documents import OperationCache, RequestRefused
from schema.guards import CEILING, Cost, Limits, measure
from tests.api.surface import build, settings

LIMITS = Limits(depth=5, aliases=3, cost=1_000, introspection=True, fields=20, mutations=2, directives=4, repetitions=6)


@pytest.fixture(scope="module")
def schema() -> strawberry.Schema:
    return build()


def refused_by(query: str, limits: Limits = LIMITS) -> str | None:
    try:
        measure(parse(query), limits)
    except ValidationFailed as error:
        name: str = error.details["limit"]
        return name
    return None


def nested(levels: int) -> str:
    return "{" * levels + "a" + "}" * levels if levels == 1 else "{a" * (levels - 1) + "{a" + "}" * levels


@pytest.mark.parametrize(
    ("within", "beyond", "limit"),
    [
        (nested(5), nested(6), "depth"),
        ("{...F} fragment F on T{a{b{c{d{e}}}}}", "{a{...F}} fragment F on T{a{b{c{d{e}}}}}", "depth"),
        ("{...on T{a{...on T{b}}}}", "{...on T{a{b{c{d{...on T{e{f}}}}}}}}", "depth"),
        ("{" + " ".join(f"f{i}" for i in range(20)) + "}", "{" + " ".join(f"f{i}" for i in range(21)) + "}", "fields"),
        (
            "{a{...F}} fragment F on T{b c}",
            "{" + "".join(f"a{i}{{...F}}" for i in range(8)) + "} fragment F on T{b c}",
            "fields",
        ),
        ("{a:x b:x c:x}", "{a:x b:x c:x d:x}", "aliases"),
        ("{p{...F}} fragment F on T{a:x b:x c:x}", "{p{...F} q{...F}} fragment F on T{a:x b:x}", "aliases"),
        ("mutation{a b}", "mutation{a b c}", "mutations"),
        ("mutation{...F} fragment F on M{a b}", "mutation{c ...F} fragment F on M{a b}", "mutations"),
        ("{a @x @y @z @w}", "{a @x @y b @z @w c @v}", "directives"),
        ("query @x{a @y}", "query($v:Int @x){...F @y} fragment F on T @z {...on T @v{a @w}}", "directives"),
        ("{a a a a a a}", "{a a a a a a a}", "repetitions"),
        ("{...F ...F a} fragment F on T{a a}", "{...F ...F ...F a} fragment F on T{a a}", "repetitions"),
    ],
)
def test_each_limit_is_exact(within: str, beyond: str, limit: str) -> None:
    assert refused_by(within) is None
    assert refused_by(beyond) == limit


def test_directives_of_one_node_are_limited_by_themselves() -> None:
    limits = Limits(depth=5, aliases=3, cost=1, introspection=True, directives_per_node=2)
    assert refused_by("{a @x @y b @z}", limits) is None
    assert refused_by("{a @x @y @z}", limits) == "directivesPerNode"


def test_fragments_that_nothing_spreads_are_measured_too() -> None:
    assert refused_by("{a} fragment F on T{" + " ".join(f"f{i}" for i in range(21)) + "}") == "fields"


def test_introspection_is_exempt_from_depth_only() -> None:
    deep = "{__schema{types{fields{type{ofType{ofType{ofType{name}}}}}}}}"
    assert refused_by(deep) is None
    assert refused_by(deep.replace("name", " ".join(f"f{i}" for i in range(20)))) == "fields"
    off = Limits(depth=5, aliases=3, cost=1, introspection=False)
    assert refused_by("{a{...F}} fragment F on T{__type(name:1){name}}", off) == "introspection"
    assert refused_by("{__typename}", off) is None


@pytest.mark.parametrize(
    "query",
    [
        "{...A} fragment A on T{...A}",
        "{...A} fragment A on T{a{...B}} fragment B on T{a{...A}}",
        "{...Unknown}",
        "fragment F on T{a}",
    ],
)
def test_circles_and_unknown_fragments_are_left_to_validation(query: str) -> None:
    assert refused_by(query) is None


def test_a_chain_of_fragments_deeper_than_the_stack_is_refused() -> None:
    fragments = " ".join(f"fragment F{i} on T{{...on T{{...F{i + 1}}}}}" for i in range(2_000))
    assert refused_by(f"{{...F0}} {fragments} fragment F2000 on T{{a}}") == "depth"


@pytest.fixture
def without_garbage_of_others() -> Iterator[None]:
    """What this process has collected of other tests is frozen, as the server freezes what it starts with.

    A look through all of it is no part of a document's cost.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def least_seconds(work: Callable[[], object], times: int = 3) -> float:
    """Of this thread, as the machine may be busy; the least of several, as what disturbs a thread only adds to it."""
    taken = []
    for _ in range(times):
        started = time.thread_time()
        work()
        taken.append(time.thread_time() - started)
    return min(taken)


def bomb(inside: str, last: str, count: int = 22) -> str:
    fragments = " ".join(f"fragment F{i} on Thing{{{inside.replace('@', f'F{i + 1}')}}}" for i in range(count - 1))
    return f"{{thing{{...F0}}}} {fragments} fragment F{count - 1} on Thing{{{last}}}"


@pytest.mark.parametrize(
    "document",
    [
        bomb("...@ ...@", "id"),
        bomb("a:parent{...@} b:parent{...@}", "id"),
        bomb("things(first:2){edges{node{...@ ...@}}}", "id", count=5),
        "{" + "thing{id} " * 480 + "}",
        "{" + ("thing{" + "id " * 19 + "} ") * 20 + "}",
        "{" + "hello " * 1_900 + "}",
        "#" + "x" * 1_000_000 + "\n{hello}",
    ],
)
@pytest.mark.usefixtures("without_garbage_of_others")
def test_no_document_costs_more_than_a_moment(schema: strawberry.Schema, document: str) -> None:
    """The first of these costs stock guards seconds."""
    cache = OperationCache(schema, settings())

    def ask(cache: OperationCache) -> None:
        with suppress(RequestRefused):
            cache.get(document, None)

    first = least_seconds(lambda: ask(OperationCache(schema, settings())))
    assert first < (0.05 if document.startswith("{thing{...") else 0.25)
    ask(cache)
    assert least_seconds(lambda: ask(cache)) < 0.01


def test_the_fragment_bomb_of_846_characters_is_refused(schema: strawberry.Schema) -> None:
    document = bomb("...@ ...@", "id")
    assert len(document) < 846
    with pytest.raises(RequestRefused) as refused:
        OperationCache(schema, settings()).get(document, None)
    assert refused.value.errors[0]["extensions"]["details"]["limit"] == "repetitions"


@given(st.integers(1, 8), st.integers(0, 3), st.integers(0, 3), st.integers(1, 4))
def test_memory_changes_nothing(levels: int, spreads: int, fields: int, own: int) -> None:
    """Against the plain recursion that the guard must not be: the same numbers for small documents."""
    selections = [
        " ".join(
            [f"x{j}:a" for j in range(own)]
            + [f"y{j}{{...F{i + 1}}}" for j in range(fields)]
            + [f"...F{i + 1}"] * spreads
        )
        for i in range(levels)
    ]
    fragments = " ".join(f"fragment F{i} on T{{{text}}}" for i, text in enumerate(selections))
    document = parse(f"{{...F0}} {fragments} fragment F{levels} on T{{z}}")

    def expanded(level: int) -> tuple[int, int]:
        if level == levels:
            return 1, 1
        depth, count = expanded(level + 1)
        total = own + fields * (1 + count) + spreads * count
        return max(1, depth + 1 if fields else 0, depth if spreads else 0), total

    depth, count = expanded(0)
    generous: dict[str, Any] = {"aliases": CEILING, "cost": 1, "introspection": True, "repetitions": CEILING}
    measure(document, Limits(depth=depth, fields=count, **generous))
    with pytest.raises(ValidationFailed, match="nested deeper"):
        measure(document, Limits(depth=depth - 1, fields=count, **generous))
    with pytest.raises(ValidationFailed, match="more fields"):
        measure(document, Limits(depth=depth, fields=count - 1, **generous))


def cost_of(schema: strawberry.Schema, query: str, **variables: Any) -> int:
    document = parse(query)
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    fragments = {
        definition.name.value: definition
        for definition in document.definitions
        if isinstance(definition, FragmentDefinitionNode)
    }
    return Cost(schema._schema, operation, fragments).of(variables)


@pytest.mark.parametrize(
    ("query", "variables", "cost"),
    [
        ("{hello}", {}, 0),
        ("{thing{parent{id}}}", {}, 0),
        ("{things{edges{node{id}}}}", {}, 20),
        ("{things(first:7){edges{node{id}}}}", {}, 7),
        ("{things(last:7){edges{node{id}}}}", {}, 7),
        ("{things(first:null,last:7){edges{node{id}}}}", {}, 7),
        ("{things(first:-5){edges{node{id}}}}", {}, 0),
        ("{things(first:10){edges{node{things(first:5){edges{node{id}}}}}}}", {}, 60),
        ("{a:things(first:10){totalCount} b:things(first:5){totalCount}}", {}, 15),
        ("query($n:Int){things(first:$n){totalCount}}", {"n": 9}, 9),
        ("query($n:Int){things(first:$n){totalCount}}", {"n": None}, 20),
        ("query($n:Int){things(first:$n){totalCount}}", {}, 20),
        ("query($n:Int,$m:Int){things(first:$n,last:$m){totalCount}}", {"m": 3}, 3),
        ("{thing{parts{id}}}", {}, 10),
        ("{thing{parts{things(first:3){totalCount}}}}", {}, 40),
        ("{thing{...F}} fragment F on Thing{things(first:3){totalCount}}", {}, 3),
        ("{thing{...F ...on Thing{...F}}} fragment F on Thing{things(first:3){totalCount}}", {}, 6),
        ("{__schema{types{fields{name}}}}", {}, 0),
        ("{shapes{name}}", {}, 10),
    ],
)
def test_the_cost_is_the_product_of_page_sizes(
    schema: strawberry.Schema, query: str, variables: dict[str, Any], cost: int
) -> None:
    assert cost_of(schema, query, **variables) == cost


def test_the_length_of_ids_is_their_cost() -> None:
    assert cost_of(build_schema(), "query($ids:[ID!]!){nodes(ids:$ids){id}}", ids=["a", "b", "c"]) == 3
    assert cost_of(build_schema(), '{nodes(ids:["a","b"]){id}}') == 2


def test_the_cost_stops_growing_and_is_found_at_once(schema: strawberry.Schema) -> None:
    inside = "things(first:$n){edges{node{...@ ...@}}}"
    fragments = " ".join(f"fragment F{i} on Thing{{{inside.replace('@', f'F{i + 1}')}}}" for i in range(40))
    query = f"query($n:Int){{thing{{...F0}}}} {fragments} fragment F40 on Thing{{id}}"
    assert cost_of(schema, query, n=100) == CEILING
    assert least_seconds(lambda: cost_of(schema, query, n=100)) < 0.2


def test_an_operation_without_variable_pages_has_a_constant_cost(schema: strawberry.Schema) -> None:
    cache = OperationCache(schema, settings())
    assert cache.get("{things(first:7){totalCount}}", None).cost.constant == 7
    assert cache.get("query($n:Int){things(first:$n){totalCount}}", None).cost.constant is None


def test_the_whole_introspection_query_is_within_the_limits(schema: strawberry.Schema) -> None:
    query = get_introspection_query(
        specified_by_url=True, directive_is_repeatable=True, schema_description=True, input_value_deprecation=True
    )
    OperationCache(schema, settings()).get(query, None)


def test_good_documents_are_kept_through_a_flood_of_bad_ones(schema: strawberry.Schema) -> None:
    cache = OperationCache(schema, settings())
    kept = cache.get("{hello}", None)
    for number in range(1_500):
        with pytest.raises(RequestRefused):
            cache.get(f"{{nope{number}", None)
    assert cache.get("{hello}", None) is kept
    assert len(cache._refusals) <= 500


def test_the_cache_is_bounded(schema: strawberry.Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schema.documents._KEPT_DOCUMENTS", 5)
    cache = OperationCache(schema, settings())
    first = cache.get("{a0:hello}", None)
    for number in range(1, 6):
        cache.get(f"{{a{number}:hello}}", None)
    assert len(cache._documents) == 5
    assert cache.get("{a0:hello}", None) is not first


def test_a_refusal_that_is_remembered_carries_the_id_of_each_request(schema: strawberry.Schema) -> None:
    cache = OperationCache(schema, settings())
    for request_id in ("one", "two"):
        with pytest.raises(RequestRefused) as refused:
            cache.get("{nope}", None, request_id=request_id)
        assert refused.value.errors[0]["extensions"]["requestId"] == request_id
