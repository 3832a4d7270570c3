"""The spiders' contracts and the pure parts of the crawler: inputs, selectors, structured data, messages."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from lxml import html
from parsel import Selector
from scrapy.http import Response

from tasks.crawl import practice_reading, practice_site
from tasks.crawl.catalogue import FieldType
from tasks.crawl.catalogue import output_schema as catalogue_output
from tasks.crawl.contracts import SpiderDefinition
from tasks.crawl.crawler.pages import PageTooSlow, deadline, item_key, storable
from tasks.crawl.crawler.politeness import retry_after_seconds
from tasks.crawl.crawler.protocol import (
    MAX_LINE_BYTES,
    LeasedRequest,
    Limits,
    ProtocolError,
    Start,
    Throttle,
    Totals,
    decode,
    encode,
)
from tasks.crawl.crawler.spiders.listing_data import listing_from, overridden
from tasks.crawl.directory_search import collation_key, expanded, has_names_from
from tasks.crawl.property_listings import OUTPUT_SCHEMA, OVERRIDABLE
from tasks.crawl.selectors import Extraction, FieldRule, SelectorError, ValueFault, converted, to_xpath
from tasks.crawl.spiders import SPIDERS, input_faults
from tests.worker.crawler_driver import FAST, crawl, start_message

URL = "https://homes.example/offers/12-mill-lane"

# -- contracts


@pytest.fixture(params=sorted(SPIDERS))
def spider(request: pytest.FixtureRequest) -> SpiderDefinition:
    return SPIDERS[request.param]


def test_schemas_are_schemas_and_every_input_is_explained(spider: SpiderDefinition) -> None:
    Draft202012Validator.check_schema(spider.input_schema)
    Draft202012Validator.check_schema(spider.output_schema)
    assert spider.input_schema["additionalProperties"] is False
    for name, schema in spider.input_schema["properties"].items():
        assert schema["title"], name
        assert schema["description"], name


def test_the_example_is_right(spider: SpiderDefinition) -> None:
    assert input_faults(spider, spider.example_input) == []


FAULTY: list[tuple[dict[str, Any], tuple[str | int, ...]]] = [
    ({"startUrls": []}, ("startUrls",)),
    ({"startUrls": ["javascript:alert(1)"]}, ("startUrls", 0)),
    ({"startUrls": ["http://user@example.com/"]}, ("startUrls", 0)),
    ({"unknown": 1}, ()),
    ({"nextPage": {"css": "a", "xpath": "//a"}}, ("nextPage",)),
    ({"nextPage": {"css": "a["}}, ("nextPage", "css")),
    ({"maxListPages": 0}, ("maxListPages",)),
    ({"includePatterns": ["fine", "("]}, ("includePatterns", 1)),
    ({"modifiedSince": "2026-02-30"}, ("modifiedSince",)),
]


@pytest.mark.parametrize(
    ("name", "change", "path"),
    [
        (name, change, path)
        for name, spider in SPIDERS.items()
        for change, path in FAULTY
        if not path or path[0] in spider.input_schema["properties"]
    ],
)
def test_a_faulty_input_is_refused_with_its_path(
    name: str, change: Mapping[str, Any], path: tuple[str | int, ...]
) -> None:
    spider = SPIDERS[name]
    more = {"sitemaps": ["http://a.example/"]} if "sitemaps" in spider.input_schema["properties"] else {}
    faults = input_faults(spider, {**spider.example_input, **more, **change})
    assert [fault.path for fault in faults] == [path]
    assert faults[0].message


def test_all_faults_of_an_input_are_told_at_once() -> None:
    given = {"startUrls": ["http://a.example/"], "detailPattern": "(", "nextPage": {"xpath": "//a["}}
    assert {fault.path for fault in input_faults(SPIDERS["property_listings"], given)} == {
        ("detailPattern",),
        ("nextPage", "xpath"),
    }


def test_the_output_schema_of_a_catalogue_follows_its_fields() -> None:
    fields = [
        {"name": "name", "css": "h1", "required": True},
        {"name": "price", "css": "b", "type": "decimal"},
        {"name": "tags", "css": "i", "list": True, "required": True},
    ]
    check = Draft202012Validator(catalogue_output({"fields": fields}))
    right = {"url": URL, "name": "Lamp", "price": "12.50", "tags": ["a"]}
    assert check.is_valid(right)
    assert check.is_valid({**right, "price": None})
    wrongs: list[dict[str, Any]] = [{"name": None}, {"price": "12,50"}, {"price": 12.5}, {"tags": []}, {"more": 1}]
    for wrong in wrongs:
        assert not check.is_valid({**right, **wrong}), wrong


# -- directories


def directory(**more: Any) -> list[tuple[tuple[str | int, ...], str]]:
    given = {"urlTemplate": "https://a.example/people?s={state}", "state": "CA", **more}
    given = {"entries": {"css": "li"}, "name": {"css": "b"}, **given}
    faults = input_faults(
        SPIDERS["directory_search"], {key: value for key, value in given.items() if value is not None}
    )
    return [(fault.path, fault.message) for fault in faults]


@pytest.mark.parametrize(
    ("change", "path", "why"),
    [
        ({"urlTemplate": "https://a.example/{state}/{county}"}, ("urlTemplate",), "no variable {county}"),
        ({"urlTemplate": "https://a.example/{?state}{state}"}, ("urlTemplate",), "no variable {?state}"),
        ({"urlTemplate": "https://a.example/{state}/{"}, ("urlTemplate",), "brace"),
        ({"urlTemplate": "https://{state}.example/"}, ("urlTemplate",), "does not match"),
        ({"urlTemplate": "https://user:word@a.example/{state}"}, ("urlTemplate",), "does not match"),
        ({"state": None}, ("state",), "does not say which"),
        ({"states": ["NV"]}, ("state",), "one of them"),
        ({"username": "ada"}, ("username",), "does not use {username}"),
        ({"startingNames": ["A"]}, ("startingNames",), "does not use {startingName}"),
        ({"identifiedBy": ["name", "shoe"]}, ("identifiedBy", 1), "'shoe'"),
        ({"fields": [{"name": "state", "css": "i"}]}, ("fields", 0, "name"), "should not be valid"),
        (
            {"urlTemplate": "https://a.example/{state}?p={page}", "nextPage": {"css": "a"}},
            ("nextPage",),
            "{page} already",
        ),
        (
            {
                "urlTemplate": "https://a.example/{state}?n={startingName}",
                "state": None,
                "states": [f"s{number}" for number in range(101)],
                "startingNames": [f"n{number}" for number in range(100)],
            },
            ("startingNames",),
            "more than 10,000 searches",
        ),
    ],
)
def test_template_and_variables_have_to_fit(change: Mapping[str, Any], path: tuple[str | int, ...], why: str) -> None:
    [(found, message)] = directory(**change)
    assert found == path
    assert why in message


def test_a_starting_name_needs_no_variable() -> None:
    assert directory(startingName="Mercer") == []


@pytest.mark.parametrize(
    ("value", "url"),
    [
        ("New York", "https://a.example/New%20York"),
        ("a/b?c=d&e#f", "https://a.example/a%2Fb%3Fc%3Dd%26e%23f"),
        ("../@169.254.169.254", "https://a.example/..%2F%40169.254.169.254"),
        ("São ~_.-{x}", "https://a.example/S%C3%A3o%20~_.-%7Bx%7D"),
    ],
)
def test_what_stands_for_a_variable_stays_in_its_place(value: str, url: str) -> None:
    assert expanded("https://a.example/{state}", {"state": value}) == url


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("Álvarez", "Bell"), ("Ávila", "Azar"), ("abbott", "ÁBBOTTS"), ("de  la Cruz", "DE LA CRUZ, B"), ("Öz", "Pa")],
)
def test_names_are_in_the_order_of_people(earlier: str, later: str) -> None:
    assert collation_key(earlier) < collation_key(later)


@pytest.mark.parametrize(
    ("prefix", "start", "is_read"),
    [("A", "", True), ("L", "Mü", False), ("M", "Mü", True), ("MA", "mü", False), ("mu", "Mü", True), ("Z", "M", True)],
)
def test_beginnings_that_all_come_before_the_starting_name_are_left_out(prefix: str, start: str, is_read: bool) -> None:
    assert has_names_from(prefix, start) is is_read


# -- selectors


@pytest.mark.parametrize(
    ("text", "to", "value"),
    [
        ("£ 1,299.50", FieldType.DECIMAL, "1299.50"),
        ("1.299,50 €", FieldType.DECIMAL, "1299.50"),
        ("0.10", FieldType.DECIMAL, "0.10"),
        ("-3.5", FieldType.NUMBER, -3.5),
        ("12 in stock", FieldType.INTEGER, 12),
        ("../x", FieldType.URL, "https://homes.example/x"),
        ("No", FieldType.BOOLEAN, False),
        ("available", FieldType.BOOLEAN, True),
    ],
)
def test_text_becomes_the_type_that_was_asked_for(text: str, to: FieldType, value: object) -> None:
    assert converted(text, to, URL) == value


@pytest.mark.parametrize(
    ("text", "to"), [("many", FieldType.NUMBER), ("1.5", FieldType.INTEGER), ("", FieldType.DECIMAL)]
)
def test_text_of_another_type_is_a_fault(text: str, to: FieldType) -> None:
    with pytest.raises(ValueFault):
        converted(text, to, URL)


@pytest.mark.parametrize(
    "selector",
    [
        {"css": "div["},
        {"css": "a:nope()"},
        {"xpath": "//a["},
        {"xpath": "count(//p)"},
        {"xpath": "document('f')"},
        {"xpath": "$x"},
    ],
)
def test_a_bad_selector_is_refused(selector: Mapping[str, str]) -> None:
    with pytest.raises(SelectorError):
        to_xpath(selector)


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ({"css": "p"}, "one two"),
        ({"css": "p", "list": True}, ["one two", "three"]),
        ({"css": "p", "type": "html"}, "<p> one\n <b>two</b></p>"),
        ({"css": "a", "attribute": "href", "type": "url"}, "https://homes.example/next"),
        ({"css": "a::attr(href)"}, "/next"),
        ({"xpath": "//p[2]/text()"}, "three"),
        ({"css": "p", "regex": "o(n)e"}, "n"),
        ({"css": "p", "regex": "tw."}, "two"),
        ({"css": "p", "regex": "four"}, None),
        ({"css": "h6"}, None),
        ({"css": "h6", "list": True}, []),
    ],
)
def test_a_field_reads_what_its_rule_says(rule: Mapping[str, Any], value: object) -> None:
    page = Selector(text="<p> one\n <b>two</b></p><p>three</p><a href='/next'>x</a><p></p>")
    assert FieldRule.compile({"name": "field", **rule}).value(page, URL) == value


def test_a_local_file_cannot_be_read_through_an_entity() -> None:
    page = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><x>&e;</x>'
    for kind in ("xml", "html"):
        found = Selector(text=page, type=kind).xpath("string(//x)").get("")
        assert "\n" not in found.strip(), kind
        assert found.strip() in ("", "&e;"), kind


# -- listings


def listing(page: str, **more: Any) -> dict[str, Any]:
    found = listing_from(html.fromstring(page), url=URL, **{"currency": None, "area_unit": None, **more})
    Draft202012Validator(OUTPUT_SCHEMA).validate({**found, "title": found["title"] or "none"})
    return found


def test_nothing_said_is_nothing_known() -> None:
    found = listing("<p>Lovely home for only 100,000!</p>")
    assert found["sourceId"] == "12-mill-lane"
    assert {name for name, value in found.items() if value not in (None, [])} == {"url", "sourceId", "address"}


def test_open_graph_fills_in_what_structured_data_lacks() -> None:
    page = """<html><head><meta property="og:title" content="Cottage"><meta property="og:image" content="/a.jpg">
    <meta property="product:price:amount" content="250000"><meta property="product:price:currency" content="EUR">
    <script type="application/ld+json">{"@type": "House", "numberOfRooms": 4,
    "floorSize": {"value": "98.5", "unitText": "m2"}}</script></head><body></body></html>"""
    found = listing(page)
    assert (found["title"], found["price"], found["currency"]) == ("Cottage", "250000", "EUR")
    assert (found["area"], found["areaUnit"], found["bedrooms"]) == (98.5, "SQUARE_METRES", 4)
    assert found["images"] == ["https://homes.example/a.jpg"]
    assert found["propertyType"] == "House"


def test_a_graph_with_everything_wrapped_is_read() -> None:
    page = """<script type="application/ld+json">{"@context": "https://schema.org", "@graph": [
    {"@type": "BreadcrumbList", "name": "not this"},
    {"@type": ["Product", "RealEstateListing"], "name": "Loft", "sku": 77,
     "offers": [{"@type": "Offer", "price": 1234567.89, "priceCurrency": "usd"}],
     "image": [{"@type": "ImageObject", "contentUrl": "https://cdn.example/1.jpg"}, "/2.jpg", "/2.jpg"]},
    {"@type": "http://schema.org/Apartment", "numberOfBedrooms": {"@type": "QuantitativeValue", "value": 2},
     "address": {"@type": "PostalAddress", "addressCountry": {"@type": "Country", "name": "DE"}}}]}</script>"""
    found = listing(page)
    assert (found["title"], found["price"], found["currency"], found["sourceId"]) == ("Loft", "1234567.89", "USD", "77")
    assert (found["bedrooms"], found["propertyType"], found["address"]["country"]) == (2, "Apartment", "DE")
    assert found["images"] == ["https://cdn.example/1.jpg", "https://homes.example/2.jpg"]


def test_one_broken_script_spoils_no_other() -> None:
    page = """<script type="application/ld+json">{"@type": </script>
    <script type="application/ld+json">%s</script>
    <script type="application/ld+json">{"@type": "House", "name": "Fine"}</script>""" % ("[" * 100_000)
    assert listing(page)["title"] == "Fine"


def test_impossible_values_are_left_out() -> None:
    page = """<script type="application/ld+json">{"@type": "House", "name": "x",
    "floorSize": {"value": 0, "unitCode": "FTK"},
    "geo": {"latitude": 123, "longitude": "east"}, "offers": {"@type": "Offer", "price": "on request",
    "priceCurrency": "dollars"}}</script>"""
    found = listing(page, currency="USD", area_unit="SQUARE_FEET")
    assert [found[name] for name in ("area", "areaUnit", "latitude", "longitude", "price", "currency")] == [None] * 6


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("price", "£ 325,000", "325000"),
        ("bedrooms", "3 beds", 3),
        ("bathrooms", "1.5", 1.5),
        ("area", "1,167 sq ft", 1167.0),
        ("areaUnit", "sq ft", "SQUARE_FEET"),
        ("currency", "gbp", "GBP"),
        ("title", "Cottage", "Cottage"),
        ("images", "/1.jpg", ["https://homes.example/1.jpg"]),
    ],
)
def test_a_selector_replaces_what_the_page_says_of_itself(name: str, text: str, value: object) -> None:
    found = listing('<script type="application/ld+json">{"@type": "House", "name": "x"}</script>')
    overridden(found, name, [text], URL)
    assert found[name] == value


def test_every_field_that_may_be_overridden_can_be() -> None:
    samples = {"currency": "EUR", "areaUnit": "ha"}
    for name in OVERRIDABLE:
        found = listing("<p></p>")
        overridden(found, name, [samples.get(name, "12")], URL)
        Draft202012Validator(OUTPUT_SCHEMA).validate({"title": "x", **{k: v for k, v in found.items() if k != "title"}})
        assert found != listing("<p></p>"), name


@pytest.mark.parametrize(("name", "text"), [("price", "ask"), ("areaUnit", "acorns"), ("currency", "pounds")])
def test_a_selector_that_finds_something_else_is_a_fault(name: str, text: str) -> None:
    with pytest.raises(ValueFault):
        overridden(listing("<p></p>"), name, [text], URL)


# -- messages


def test_what_the_worker_says_at_the_start_arrives_as_said() -> None:
    start = Start(
        run="run_1",
        spider="catalogue",
        input={"startUrls": ["http://a.example/"], "max_pages": 1},
        user_agent="Test/1.0",
        allowed_hosts=["127.0.0.1:80"],
        ports=[80],
        limits=Limits(max_pages=3),
        throttle=Throttle(retries=1),
        totals=Totals(items=5),
        resume=True,
    )
    message = decode(encode(start.to_message()))
    assert message["limits"]["maxPages"] == 3
    assert message["input"]["max_pages"] == 1, "the spider's own words are not translated"
    assert Start.from_message(message) == start


def test_a_leased_request_arrives_as_said() -> None:
    leased = LeasedRequest(id="1", url=URL, callback="read_list", depth=2, meta={"page": 3})
    assert LeasedRequest.from_message(decode(encode({"type": "x", **leased.to_message()}))) == leased


@pytest.mark.parametrize("line", [b"", b"{", b"[]", b"{}", b'{"type": 1}'])
def test_what_is_not_a_message_is_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(line)


@pytest.mark.parametrize(
    "message", [{"type": "idle"}, {"type": "start", "version": 99}, {"type": "start", "version": 1}]
)
def test_what_is_not_a_start_is_refused(message: Mapping[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        Start.from_message(message)


@pytest.mark.parametrize("value", [object(), "\ud800", "x" * MAX_LINE_BYTES])
def test_what_does_not_fit_into_a_line_is_refused(value: object) -> None:
    with pytest.raises(ProtocolError):
        encode({"type": "log", "message": value})


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        ("a\x00b", "ab"),
        ("a\ud800b", "a?b"),
        ("größe 🏡", "größe 🏡"),
        (float("nan"), None),
        (2**60, str(2**60)),
        (Decimal("1E+3"), "1000"),
        ({1: ("x", {"y": None})}, {"1": ["x", {"y": None}]}),
        (True, True),
    ],
)
def test_what_is_sent_can_be_stored(value: object, stored: object) -> None:
    assert storable(value) == stored


def test_endless_nesting_ends() -> None:
    value: list[Any] = []
    for _ in range(500):
        value = [value]
    assert len(str(storable(value))) < 5_000


def test_an_item_has_the_same_key_whatever_else_the_page_was() -> None:
    assert item_key("f", "read", 0) == item_key("f", "read", 0)
    assert (
        len({item_key("f", "read", 0), item_key("f", "read", 1), item_key("f", "list", 0), item_key("g", "read", 0)})
        == 4
    )


# -- politeness, deadlines


@pytest.mark.parametrize(
    ("value", "seconds"), [("120", 120.0), ("0", 0.0), ("", None), ("soon", None), ("9" * 400, None)]
)
def test_retry_after_in_seconds(value: str, seconds: float | None) -> None:
    assert retry_after_seconds(Response(URL, headers={"Retry-After": value})) == seconds


def test_retry_after_as_a_date() -> None:
    when = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    seconds = retry_after_seconds(Response(URL, headers={"Retry-After": when}))
    assert seconds is not None
    assert 50 < seconds <= 60
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert retry_after_seconds(Response(URL, headers={"Retry-After": past})) == 0.0


def test_a_pattern_that_never_ends_is_ended() -> None:
    extraction = Extraction.compile({"css": "p", "regex": "^(a+)+$"})
    page = Selector(text=f"<p>{'a' * 60}!</p>")
    began = time.monotonic()
    with pytest.raises(PageTooSlow), deadline(0.2):
        extraction.first(page)
    assert time.monotonic() - began < 2


def test_a_deadline_that_was_kept_does_not_ring_later() -> None:
    before = signal.getsignal(signal.SIGALRM)
    with deadline(60):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) is before


# -- the practice site


@pytest.fixture
def practice() -> Iterator[int]:
    with practice_site.serve(port=0, delay_seconds=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join(5)


PEOPLE = sum(person.name >= "M" and person.state in ("Northmark", "Westvale") for person in practice_reading.people())


@pytest.mark.parametrize(
    ("name", "count"),
    [("catalogue", 36), ("property_listings", 24), ("directory_search", PEOPLE), ("sitemap", 36), ("articles", 4)],
)
async def test_the_examples_bring_home_the_whole_practice_site(practice: int, name: str, count: int) -> None:
    spider = SPIDERS[name]
    given = json.loads(json.dumps(spider.example_input).replace(":8900/", f":{practice}/"))
    assert given != spider.example_input
    crawler = await crawl(start_message(name, given, allowed=[f"127.0.0.1:{practice}"], throttle=FAST))
    items = list(crawler.frontier.items.values())
    assert len(items) == count
    schema = Draft202012Validator(dict(spider.narrow_output(given)))
    assert [error.message for item in items for error in schema.iter_errors(item)] == []
