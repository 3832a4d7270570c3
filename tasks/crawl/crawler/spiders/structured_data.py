"""What a page says of itself to machines: schema.org in JSON-LD and microdata, and Open Graph; readers of it.

A page may say one thing in several places, so the readers take several nodes and give the first value among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import urljoin

from extruct.jsonld import JsonLdExtractor
from extruct.opengraph import OpenGraphExtractor
from extruct.w3cmicrodata import MicrodataExtractor
from lxml.html import HtmlElement

MAX_NODES: Final = 2_000
MAX_IMAGES: Final = 200

Node = Mapping[str, Any]


def linked_data(root: HtmlElement) -> Iterator[Node]:
    """Every object in the page's JSON-LD, nested ones after those that hold them; a broken script spoils no other."""
    extractor = JsonLdExtractor()
    for script in root.iter("script"):
        try:
            found = extractor.extract_items(script)
        except (ValueError, RecursionError):
            continue
        yield from _flat(found)


def microdata(root: HtmlElement, url: str) -> Iterator[Node]:
    """Every microdata item, in the shape of JSON-LD."""
    try:
        yield from _flat([_as_linked_data(each) for each in MicrodataExtractor().extract_items(root, url)])
    except (ValueError, RecursionError):
        return


def _as_linked_data(item: Any) -> Any:
    if isinstance(item, list):
        return [_as_linked_data(each) for each in item]
    if not isinstance(item, dict):
        return item
    properties = {name: _as_linked_data(value) for name, value in item.get("properties", {}).items()}
    return {"@type": item.get("type", ""), **properties}


def open_graph(root: HtmlElement) -> dict[str, str]:
    """The first value of each property that is not empty."""
    values: dict[str, str] = {}
    for block in OpenGraphExtractor().extract_items(root):
        for name, value in block["properties"]:
            if isinstance(value, str) and value.strip():
                values.setdefault(name, value.strip())
    return values


def types_of(node: Node) -> set[str]:
    """The node's types without their namespace."""
    given = node.get("@type", "")
    names = given if isinstance(given, list) else [given]
    return {str(name).rsplit("/", 1)[-1].rsplit(":", 1)[-1] for name in names}


def first(nodes: Iterable[Node], *names: str) -> Any:
    """The first value that any of the nodes has under any of the names, in order of the names."""
    nodes = list(nodes)
    for name in names:
        for node in nodes:
            value = node.get(name)
            if isinstance(value, list):
                value = next((each for each in value if each), None)
            if value not in (None, "", {}):
                return value
    return None


def nodes_under(nodes: Iterable[Node], name: str) -> list[Node]:
    """The first object that one of the nodes has under a name, as a list of at most one."""
    found = first([node for node in nodes if isinstance(node.get(name), (dict, list))], name)
    return [found] if isinstance(found, dict) else []


def first_node(nodes: Iterable[Node], *names: str) -> Node | None:
    """The first object that one of the nodes has under one of the names, in order of the names."""
    return next((found for name in names for found in nodes_under(nodes, name)), None)


def text_of(value: Any) -> str:
    """Text of a value: of `{"@value": …}`, `{"name": …}` or PropertyValue too; empty if there is none."""
    if isinstance(value, dict):
        value = first([value], "@value", "value", "name", "@id")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return json.dumps(value)
    return " ".join(value.split()) if isinstance(value, str) else ""


def images_of(nodes: list[Node], graph: Mapping[str, str], url: str) -> list[str]:
    """Absolute addresses of the nodes' pictures, Open Graph's when they have none."""
    found: list[str] = []
    for node in nodes:
        given = node.get("image") or node.get("photo") or []
        for each in given if isinstance(given, list) else [given]:
            address = first([each], "contentUrl", "url", "@id") if isinstance(each, dict) else each
            if isinstance(address, str) and address:
                found.append(urljoin(url, address))
    if not found and "og:image" in graph:
        found = [urljoin(url, graph["og:image"])]
    return list(dict.fromkeys(found))[:MAX_IMAGES]


def _flat(value: Any) -> Iterator[Node]:
    waiting, seen = [value], 0
    while waiting and seen < MAX_NODES:
        current = waiting.pop(0)
        seen += 1
        if isinstance(current, list):
            waiting[:0] = current
        elif isinstance(current, dict):
            yield current
            waiting.extend(each for each in current.values() if isinstance(each, (dict, list)))
