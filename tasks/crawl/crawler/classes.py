"""From a spider's contract to the class that crawls; only crawler processes and `switchyard doctor` look it up."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from tasks.crawl import spiders
from tasks.crawl.contracts import SpiderDefinition, SpiderUnusable
from tasks.crawl.crawler.spiders.base import SessionSpider


def class_of(spider: SpiderDefinition) -> type[SessionSpider]:
    """Import the class; raises SpiderUnusable with the reason when there is none that can crawl."""
    module_name, _, class_name = spider.crawler_class.partition(":")
    try:
        found = getattr(import_module(module_name), class_name)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"[:300]
        raise SpiderUnusable(f"The class of the spider {spider.name!r} cannot be loaded: {reason}.") from error
    if not isinstance(found, type) or not issubclass(found, SessionSpider):
        raise SpiderUnusable(f"The class of the spider {spider.name!r} is no SessionSpider: {spider.crawler_class}.")
    unknown = [name for name in sorted(getattr(found, "callbacks", ())) if not callable(getattr(found, name, None))]
    if unknown or not getattr(found, "callbacks", ()):
        raise SpiderUnusable(
            f"The class of the spider {spider.name!r} names no callbacks, or some that it does not have: {unknown}."
        )
    return found


def faulty_spiders() -> Iterator[tuple[str, str, str]]:
    """Name, package and fault of each installed spider that cannot crawl."""
    for spider in spiders.installed():
        if spider.definition is None:
            yield spider.name, spider.package, spider.reason
            continue
        try:
            class_of(spider.definition)
        except SpiderUnusable as error:
            yield spider.name, spider.package, str(error)
