"""The incidents as an Atom feed (RFC 4287): one entry for each, with what was said of it, newest first.

An entry's id never changes, whatever the address of the installation is; `updated` is when it was last written to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final
from xml.sax.saxutils import quoteattr

from models.database import Row
from models.ids import Prefix, encode_id
from models.status import SERVICE_NAMES, Service
from schema.scalars import write_datetime

BEFORE_ALL: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""When a feed without entries was updated."""


def updated_at(rows: Iterable[Row]) -> datetime:
    """When the feed of these incidents last changed."""
    return max((row["updated_at"] for row in rows), default=BEFORE_ALL)


def feed(base_url: str, rows: Sequence[Row]) -> bytes:
    """The document, in UTF-8."""
    lines = [
        '<?xml version="1.0" encoding="utf-8"?>',
        '<feed xmlns="http://www.w3.org/2005/Atom" xml:lang="en">',
        "<title>Switchyard status</title>",
        "<subtitle>Incidents of this installation</subtitle>",
        f"<id>{_text(base_url)}/status.atom</id>",
        f'<link rel="self" type="application/atom+xml" href={quoteattr(f"{base_url}/status.atom")}/>',
        f'<link rel="alternate" type="text/html" href={quoteattr(f"{base_url}/status")}/>',
        f"<updated>{_moment(updated_at(rows))}</updated>",
        "<author><name>Switchyard</name></author>",
        *(line for row in rows for line in _entry(base_url, row)),
        "</feed>",
    ]
    return ("\n".join(lines) + "\n").encode()


def _entry(base_url: str, row: Row) -> list[str]:
    link = f"{base_url}/status#{encode_id(Prefix.INCIDENT, row['id'])}"
    names = ", ".join(SERVICE_NAMES[Service(service)] for service in row["services"])
    said = "".join(
        f"<p><strong>{each['state'].capitalize()}</strong> {_moment(each['at'])}<br/>{_paragraph(each['message'])}</p>"
        for each in row["updates"]
    )
    return [
        "<entry>",
        f"<id>urn:uuid:{row['id']}</id>",
        f"<title>{_text(row['title'])}</title>",
        f"<published>{_moment(row['started_at'])}</published>",
        f"<updated>{_moment(row['updated_at'])}</updated>",
        f'<link rel="alternate" type="text/html" href={quoteattr(link)}/>',
        f"<category term={quoteattr(row['impact'])}/>",
        f'<content type="html">{_text(f"<p>Affects: {names}</p>{said}")}</content>',
        "</entry>",
    ]


def _paragraph(text: str) -> str:
    return escape(text).replace("\n", "<br/>")


def _text(text: str) -> str:
    """Escaped character data; what XML 1.0 cannot hold, no text of ours has: it takes printable characters only."""
    return escape(text, quote=False)


def _moment(moment: datetime) -> str:
    return write_datetime(moment.replace(microsecond=0))
