"""CSS and XPath expressions that users give: checked before a crawl, evaluated on pages.

Both are untrusted. XPath 1.0 as libxml2 evaluates it has no `document()` and parsel's parsers resolve no entities, so
an expression reads the page and nothing else. EXSLT `re:` functions and our own `regex` run in Python's `re`, which
may take for ever on a hostile pattern: the text is capped here, and the crawler puts a deadline on every page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Self
from urllib.parse import urljoin

from cssselect import SelectorError as CssSelectorError
from parsel import Selector
from parsel.csstranslator import HTMLTranslator
from price_parser import Price

from tasks.crawl.catalogue import FieldType

MAX_TEXT_CHARACTERS: Final = 20_000
"""Of one value; what is longer is cut."""
MAX_VALUES: Final = 1_000
"""Of one list."""

_TRANSLATOR: Final = HTMLTranslator()
_PROBE: Final = (
    "<html><head><title>t</title></head><body><p id='p' class='c'>text <a href='/'>link</a></p></body></html>"
)
_NUMBER: Final = re.compile(r"-?\d+(?:\.\d+)?")


class SelectorError(Exception):
    """An expression is not valid CSS or XPath; the message says why."""


class ValueFault(Exception):
    """What a selector found is not of the field's type; the message shows it."""


def to_xpath(selector: Mapping[str, Any]) -> str:
    """The XPath of `{css: …}` or `{xpath: …}`, tried on a small page; raises SelectorError."""
    try:
        xpath = _TRANSLATOR.css_to_xpath(selector["css"]) if "css" in selector else str(selector["xpath"])
        found = Selector(text=_PROBE, type="html").xpath(xpath)
    except (CssSelectorError, ValueError, RecursionError) as error:
        raise SelectorError(f"not a valid selector: {error}") from None
    if "css" not in selector and any(
        not isinstance(each.root, str) and not hasattr(each.root, "tag") for each in found
    ):
        raise SelectorError("the expression gives a number or a truth value, not a part of the page")
    return xpath


@dataclass(frozen=True)
class Extraction:
    """A compiled selector with what to take of each match."""

    xpath: str
    attribute: str | None = None
    pattern: re.Pattern[str] | None = None

    @classmethod
    def compile(cls, rule: Mapping[str, Any]) -> Self:
        """From an input that `input_faults` found to be right."""
        pattern = rule.get("regex")
        return cls(to_xpath(rule), rule.get("attribute"), re.compile(pattern) if pattern else None)

    def texts(self, node: Selector, *, as_html: bool = False) -> Iterator[str]:
        """The texts found inside the node, trimmed, empty ones left out; raises ValueError for a faulty XPath."""
        for found in node.xpath(self.xpath)[:MAX_VALUES]:
            text = self._text(found, as_html=as_html)[:MAX_TEXT_CHARACTERS]
            if self.pattern is not None:
                match = self.pattern.search(text)
                text = "" if match is None else (match[1] or "") if match.re.groups else match[0]
            if text := text.strip():
                yield text

    def first(self, node: Selector) -> str | None:
        """The first text, or None."""
        return next(self.texts(node), None)

    def _text(self, found: Selector, *, as_html: bool) -> str:
        if self.attribute is not None:
            return str(found.xpath("@*[name() = $name]", name=self.attribute).get(""))
        if as_html or isinstance(found.root, str):
            return str(found.get())
        return " ".join(str(found.xpath("string()").get()).split())


@dataclass(frozen=True)
class FieldRule:
    """One field of a catalogue item."""

    name: str
    extraction: Extraction
    type: FieldType
    is_list: bool

    @classmethod
    def compile(cls, rule: Mapping[str, Any]) -> Self:
        """From an input that `input_faults` found to be right."""
        return cls(
            rule["name"], Extraction.compile(rule), FieldType(rule.get("type", FieldType.TEXT)), rule.get("list", False)
        )

    def value(self, node: Selector, base_url: str) -> Any:
        """What the node says, in the field's type; None if nothing. Raises ValueFault, or ValueError for bad XPath."""
        texts = self.extraction.texts(node, as_html=self.type is FieldType.HTML)
        if self.is_list:
            return [converted(text, self.type, base_url) for text in texts]
        text = next(texts, None)
        return None if text is None else converted(text, self.type, base_url)


def converted(text: str, to: FieldType, base_url: str) -> Any:
    """The text in the wanted type; raises ValueFault when it does not say one."""
    match to:
        case FieldType.TEXT | FieldType.HTML:
            return text
        case FieldType.URL:
            return urljoin(base_url, text)
        case FieldType.BOOLEAN:
            return text.casefold() not in ("0", "false", "no", "none", "off")
        case FieldType.DECIMAL:
            return format(amount(text), "f")
        case FieldType.NUMBER:
            return float(amount(text))
        case FieldType.INTEGER:
            number = amount(text)
            if number != int(number):
                raise ValueFault(f"not a whole number: {text[:80]!r}")
            return int(number)


def amount(text: str) -> Decimal:
    """The number in a text such as “£ 1,299.50”, “1.299,50 €” or “-3.5”; raises ValueFault when there is none."""
    if _NUMBER.fullmatch(text) and len(text) < 40:
        return Decimal(text)
    found = Price.fromstring(text[:200]).amount
    if found is None:
        raise ValueFault(f"no number in {text[:80]!r}")
    return Decimal(found)
