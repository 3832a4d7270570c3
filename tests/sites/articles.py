"""Article pages in varied markup, written for these tests, with what a reader must make of each of them.

Every page has things around its article that are none of it: menus, banners, comments, related links, newsletters.
`must` are phrases from the beginning, the middle and the end of the article, `must_not` are from around it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.sites.server import Answer, Asked


@dataclass(frozen=True)
class Page:
    """One page and what it says; `author` and `date` are None where the page does not say them."""

    path: str
    html: str
    title: str
    author: str | None
    date: str | None
    must: tuple[str, ...]
    must_not: tuple[str, ...]
    encoding: str = "utf-8"
    language: str | None = "en"
    site_name: str | None = None
    images: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


GULLS = (
    "Gulls are the first thing that a harbour town sees in the morning and the last that it hears at night. They wait "
    "on the roofs of Quay Street and know each boat by its engine.",
    "Nobody has counted them since the old pier burnt down. Those who live above the chandler's say that there are "
    "more of them than people, that they eat better, and that they have the view.",
    "The council has discussed them at length. A motion to forbid the feeding of gulls was carried by one vote, and "
    "the member who cast it was seen with a bag of chips the same evening.",
)
CLOCK = (
    "The tower clock of Greenholm has been four minutes fast since the summer of the great storm, when lightning "
    "struck the weathercock and went to earth through the striking train.",
    "Three clockmakers have corrected it and three times it has gained its four minutes back within a week, which the "
    "last of them called, in his bill, the clock's considered opinion.",
    "The trains leave by the station's clock, the shops open by the tower's, and the town has learnt to live in the "
    "four minutes between them as others live beside a river.",
)
KILN = (
    "A kiln is loaded for the fire and not for the eye. Tall pieces stand where the flame turns, flat ones where it "
    "rests, and between any two of them there has to be room for a finger.",
    "The first six hours are slow, because the clay still holds water that nobody can see, and water that boils inside "
    "a wall of clay has only one way out.",
    "What comes out in the end is never what went in. A potter who is asked whether a firing went well will open the "
    "door a hand's breadth, look, and talk about the weather.",
)


def _paragraphs(texts: tuple[str, ...], opening: str = "<p>", closing: str = "</p>") -> str:
    return "".join(f"{opening}{text}{closing}" for text in texts)


def _linked(**data: Any) -> str:
    return f'<script type="application/ld+json">{json.dumps({"@context": "https://schema.org", **data})}</script>'


PAGES = (
    Page(
        "/plain/gulls",
        "<!doctype html><html lang=en><head><title>The opinion of gulls | Harbour Post</title>"
        + _linked(
            **{
                "@type": "NewsArticle",
                "headline": "The opinion of gulls",
                "datePublished": "2024-03-05T08:00:00+01:00",
            },
            author={"@type": "Person", "name": "Ines Calder"},
            publisher={"@type": "Organization", "name": "Harbour Post"},
            keywords="birds, harbour",
        )
        + "</head><body><nav><a href=/>Home</a> <a href=/tides>Tide tables</a></nav><article>"
        + "<h1>The opinion of gulls</h1><p>By Ines Calder</p>"
        + _paragraphs(GULLS)
        + "</article><footer>Printed at the old customs house. All rights reserved.</footer></body></html>",
        "The opinion of gulls",
        "Ines Calder",
        "2024-03-05T08:00:00+01:00",
        ("know each boat by its engine", "above the chandler's", "bag of chips the same evening"),
        ("Tide tables", "All rights reserved", "By Ines Calder"),
        site_name="Harbour Post",
        tags=("birds", "harbour"),
    ),
    Page(
        "/microdata/clock",
        "<html lang='en-GB'><head><title>Four minutes fast</title></head><body><div id=cookie-notice "
        "class=cookie-consent>"
        "<p>We value your privacy and store cookies on your device. Manage preferences.</p></div>"
        "<main itemscope itemtype='https://schema.org/BlogPosting'><h1 itemprop=headline>Four minutes fast</h1>"
        "<span itemprop=author itemscope itemtype='https://schema.org/Person'><b itemprop=name>Silas Orme</b></span>"
        "<time itemprop=datePublished datetime='2023-11-18'>18 November</time><div itemprop=articleBody>"
        + _paragraphs(CLOCK)
        + "</div></main><aside><h3>Most read</h3><ul><li><a href=/1>Mayor opens a door</a></li></ul></aside>"
        "</body></html>",
        "Four minutes fast",
        "Silas Orme",
        "2023-11-18",
        ("lightning struck the weathercock", "the clock's considered opinion", "as others live beside a river"),
        ("value your privacy", "Mayor opens a door"),
        language="en-GB",
    ),
    Page(
        "/open-graph/kiln",
        "<html><head><title>Loading a kiln — Earth &amp; Fire</title><meta property=og:title content='Loading a kiln'>"
        "<meta property=og:site_name content='Earth &amp; Fire'><meta property=og:locale content=en_GB>"
        "<meta property=og:image content='/pictures/kiln.jpg'><meta property=article:published_time "
        "content='2022-06-01'>"
        "<meta property=article:tag content=Clay><meta property=article:tag content=Craft>"
        "<meta name=author content='Mara Lund'></head><body><div class=topbar>Subscribe for the price of a cup</div>"
        "<div class=wrap><div class=post-content>"
        + _paragraphs(KILN)
        + "</div><div class=share-buttons>Share this on every network</div></div></body></html>",
        "Loading a kiln",
        "Mara Lund",
        "2022-06-01",
        ("loaded for the fire", "The first six hours are slow", "talk about the weather"),
        ("price of a cup", "Share this on"),
        language="en-GB",
        site_name="Earth & Fire",
        images=("/pictures/kiln.jpg",),
        tags=("Clay", "Craft"),
    ),
    Page(
        "/bare/gulls",
        "<html><head><title>What the gulls know</title></head><body><div id=header><ul>"
        "<li>News<li>Sport<li>Weather</ul></div>"
        "<div id=story><h1>What the gulls know</h1><p class=byline>By <a rel=author href=/staff/ruth>Ruth "
        "Penrose</a></p>"
        "<p><time datetime='2021-09-30T17:45:00Z'>30 September 2021</time></p>"
        + _paragraphs(GULLS)
        + "</div><div id=footer><p>Contact the newsroom. Terms and conditions apply.</p></div></body></html>",
        "What the gulls know",
        "Ruth Penrose",
        "2021-09-30",
        ("They wait on the roofs", "more of them than people", "carried by one vote"),
        ("Terms and conditions", "Weather"),
        language=None,
    ),
    Page(
        "/blog/clock",
        "<html lang=en><head><title>Living beside the clock &#8211; Greenholm Notes</title></head><body class='single'>"
        "<header class=site-header><p class=site-title>Greenholm Notes</p></header><div class=content-area>"
        "<article class='post type-post hentry'><header class=entry-header><h1 class=entry-title>Living "
        "beside the clock"
        "</h1><div class=entry-meta><span class=posted-on><time class='entry-date published' "
        "datetime='2020-02-29T07:30:00+00:00'>February 29, 2020</time></span> <span class='author vcard'>"
        "<a class='url fn n' href=/author/otto>Otto Voss</a></span></div></header><div class=entry-content>"
        + _paragraphs(CLOCK)
        + "</div><footer class=entry-footer><a href=/tag/time rel=tag>Time</a></footer></article>"
        "<div id=comments class=comments-area><h2>2 thoughts on this</h2><ol class=comment-list>"
        "<li class=comment><p>My grandmother set her watch by the baker and was never late for anything in "
        "her life.</p>"
        "<li class=comment><p>Lovely post, please visit my page about cheap watches and clocks of all "
        "kinds.</p></ol></div>"
        "</div><aside class=widget-area><h2>Recent Posts</h2><a href=/x>A bridge too narrow</a></aside></body></html>",
        "Living beside the clock",
        "Otto Voss",
        "2020-02-29",
        ("struck the weathercock", "corrected it and three times", "the town has learnt"),
        ("My grandmother set her watch", "cheap watches", "A bridge too narrow"),
        tags=("Time",),
    ),
    Page(
        "/graph/ofen",
        "<html lang=de-DE><head><title>Der Ofen von Stonebridge - Werkstatt</title>"
        + _linked(
            **{
                "@graph": [
                    {"@type": "WebSite", "name": "Werkstatt"},
                    {"@type": "Person", "@id": "#p", "name": "Jörg Björk"},
                    {
                        "@type": "Article",
                        "headline": "Der Ofen von Stonebridge",
                        "author": {"name": "Jörg Björk", "@id": "#p"},
                        "datePublished": "2024-12-24T06:00:00+0100",
                        "dateModified": "2025-01-02",
                    },
                ]
            }
        )
        + "</head><body><nav>Startseite Impressum Datenschutz</nav><div role=main><h1>Der Ofen von Stonebridge</h1>"
        "<p>Von Jörg Björk</p><p>Ein Ofen wird für das Feuer beladen und nicht für das Auge. Hohe Stücke "
        "stehen dort, wo die "
        "Flamme umkehrt, flache dort, wo sie ruht, und zwischen zweien muss Platz für einen Finger sein.</p>"
        "<p>Die ersten sechs Stunden gehen langsam, denn im Ton ist noch Wasser, das niemand sieht, und "
        "Wasser, das in einer "
        "Wand aus Ton kocht, kennt nur einen Weg hinaus.</p><p>Was am Ende herauskommt, ist nie das, was "
        "hineinging, und wer "
        "fragt, ob der Brand gelungen sei, hört etwas über das Wetter.</p></div>"
        "<div class=newsletter>Jetzt den Newsletter abonnieren und nichts verpassen</div></body></html>",
        "Der Ofen von Stonebridge",
        "Jörg Björk",
        "2024-12-24T06:00:00+01:00",
        ("für das Feuer beladen", "Die ersten sechs Stunden", "etwas über das Wetter"),
        ("Datenschutz", "Newsletter abonnieren"),
        language="de-DE",
    ),
    Page(
        "/latin/gaviotas",
        "<html lang=es><head><meta charset=iso-8859-1><title>La opinión de las gaviotas</title>"
        "<meta name=author content='Clara Núñez'><meta name=date content='2019-05-04'></head><body>"
        "<div class=menu>Inicio Economía Deportes</div><div class=noticia><h1>La opinión de las gaviotas</h1>"
        "<p>Las gaviotas son lo primero que un pueblo de puerto ve por la mañana y lo último que oye por la "
        "noche. Esperan en "
        "los tejados y conocen cada barco por su motor.</p><p>Nadie las ha contado desde que ardió el viejo "
        "muelle. Quienes "
        "viven sobre la tienda de cabos dicen que son más que las personas y que comen mejor.</p><p>El "
        "ayuntamiento ha hablado "
        "de ellas largo rato, y la prohibición de darles de comer se aprobó por un solo voto.</p></div>"
        "<div class=pie>Aviso legal y política de cookies</div></body></html>",
        "La opinión de las gaviotas",
        "Clara Núñez",
        "2019-05-04",
        ("conocen cada barco", "ardió el viejo muelle", "por un solo voto"),
        ("Aviso legal", "Deportes"),
        encoding="iso-8859-1",
        language="es",
    ),
    Page(
        "/lists/kiln",
        "<html lang=en><head><title>Ten rules of the kiln</title><meta property=article:author content='Edmund Rowan'>"
        "<meta itemprop=datePublished content='2018-08-08'><meta name=author content='Edmund Rowan'></head><body><main>"
        "<article><h1>Ten rules of the kiln</h1><p>"
        + KILN[0]
        + "</p><h2>Before the fire</h2><ul><li>Dry every piece for a fortnight, longer if the wind is from the "
        "sea.</li>"
        "<li>Sweep the floor of the kiln, since crumbs of glaze become part of whatever stands on them.</li></ul>"
        "<h2>The temperatures</h2><table><tr><th>Cone</th><th>Degrees</th></tr><tr><td>Cone 06</td><td>999</td></tr>"
        "<tr><td>Cone 6</td><td>1222</td></tr></table><p>"
        + KILN[2]
        + "</p></article></main><div class='ad sponsored'>Advertisement: gloves that last</div></body></html>",
        "Ten rules of the kiln",
        "Edmund Rowan",
        "2018-08-08",
        ("room for a finger", "crumbs of glaze", "1222", "a hand's breadth"),
        ("gloves that last",),
    ),
    Page(
        "/banners/clock",
        "<html lang=en><head><title>A considered opinion</title>"
        + _linked(**{"@type": "Article", "headline": "A considered opinion", "datePublished": "2025-04-01"})
        + "</head><body><div class='cookie-banner' role=dialog aria-label='Cookie consent'><h2>Your cookies, "
        "your choice</h2>"
        "<p>This site and its 214 partners use cookies to measure audiences and to personalise what you see here.</p>"
        "<button>Accept all</button></div><div class='story-body'><h1>A considered opinion</h1><p>"
        + CLOCK[0]
        + "</p><div class='newsletter-signup'><p>Enjoying this? Get the weekly letter in your inbox.</p></div><p>"
        + CLOCK[1]
        + "</p><div class='related-articles'><h3>Related</h3><a href=/r>The bridge that was painted twice</a></div><p>"
        + CLOCK[2]
        + "</p></div></body></html>",
        "A considered opinion",
        None,
        "2025-04-01",
        ("summer of the great storm", "Three clockmakers", "as others live beside a river"),
        ("214 partners", "weekly letter in your inbox", "painted twice"),
    ),
    Page(
        "/comments/gulls",
        "<html lang=en><head><title>Gulls: the vote</title><meta name=author content='Wren Hollis'>"
        "<meta property=article:published_time content='2024-07-01T10:00:00Z'></head><body><article>"
        "<h1>Gulls: the vote</h1>"
        + _paragraphs(GULLS)
        + "</article><section id=comments><h2>57 comments</h2>"
        + "".join(
            f"<div class=comment><b>reader{number}</b><p>I have lived here for {number} years and nobody has ever "
            f"asked me "
            "what I think about the gulls, which is a scandal that somebody ought to write about at last.</p></div>"
            for number in range(20, 45)
        )
        + "</section></body></html>",
        "Gulls: the vote",
        "Wren Hollis",
        "2024-07-01T10:00:00Z",
        ("last that it hears at night", "since the old pier burnt down", "bag of chips"),
        ("nobody has ever asked me", "reader21"),
    ),
    Page(
        "/several/kiln",
        "<html lang=en><head><title>Two potters</title>"
        + _linked(
            **{
                "@type": ["ReportageNewsArticle", "NewsArticle"],
                "headline": "Two potters",
                "datePublished": "2017-01-31",
            },
            author=[{"@type": "Person", "name": "Flora Nyberg"}, {"@type": "Person", "name": "Jonah Abell"}],
            image={"@type": "ImageObject", "url": "https://pictures.example/potters.jpg"},
        )
        + "</head><body><article><h1>Two potters</h1><p class=byline>By Flora Nyberg and Jonah Abell</p>"
        + _paragraphs(KILN)
        + "<figure><img src='/pictures/door.jpg' alt='A door'><figcaption>The door of the kiln</figcaption></figure>"
        "</article><nav class=pagination><a href=/older>Older stories</a></nav></body></html>",
        "Two potters",
        "Flora Nyberg, Jonah Abell",
        "2017-01-31",
        ("Tall pieces stand", "has only one way out", "whether a firing went well"),
        ("Older stories", "By Flora Nyberg"),
        images=("https://pictures.example/potters.jpg", "/pictures/door.jpg"),
    ),
    Page(
        "/tables/gulls",
        "<html><head><title>THE DAILY GULL: Motion carried</title></head><body bgcolor=#ffffff><table width=800><tr>"
        "<td width=150 valign=top><a href=/a>Archive</a><br><a href=/b>Guest book</a></td><td><font size=5>"
        "<b>Motion carried"
        "</b></font><br><i>Published: May 12, 2003</i><br><br>"
        + _paragraphs(GULLS)
        + "</td></tr></table><center><font size=1>Best viewed at 800 by 600</font></center></body></html>",
        "Motion carried",
        None,
        "2003-05-12",
        ("know each boat", "they eat better", "forbid the feeding"),
        ("Guest book", "800 by 600"),
        language=None,
    ),
    Page(
        "/release/clock",
        "<html lang=en><head><title>Greenholm keeps its clock | Press office</title><meta name=description "
        "content='Short.'>"
        "<link rel=canonical href='/press/2026/clock'></head><body><header><a href=/press>Press office</a></header>"
        "<main><h1>Greenholm keeps its clock</h1><p class=date>Published on 3 February 2026</p>"
        + _paragraphs(CLOCK)
        + "<h2>Notes to editors</h2><p>The tower may be visited on the first Sunday of each month, except when "
        "it rains, "
        "because the stairs are outside.</p></main><footer>Call 01632 960000 for enquiries</footer></body></html>",
        "Greenholm keeps its clock",
        None,
        "2026-02-03",
        ("went to earth through the striking train", "within a week", "stairs are outside"),
        ("01632 960000",),
    ),
    Page(
        "/sections/kiln",
        "<html lang=en><head><title>The long firing</title><meta property=og:type content=article>"
        "<meta property=og:title content='The long firing'></head><body><div class=app><div class=rail><ul>"
        "<li><a href=/p>"
        "Podcasts</a></ul></div><div role=main class=reader><header><h1>The long firing</h1><div class=meta><span "
        "class=author-name>Tamsin Gray</span> · <time datetime=2025-10-10>Oct 10</time></div></header><section><p>"
        + "</p></section><section><p>".join(KILN)
        + "</p></section></div><div class='modal paywall'>You have read two of three free stories this "
        "month</div></div></body>"
        "</html>",
        "The long firing",
        "Tamsin Gray",
        "2025-10-10",
        ("loaded for the fire", "still holds water", "never what went in"),
        ("Podcasts", "free stories this month"),
    ),
)

SHORT = "/short/notice"
NOTICE = (
    "<html><head><title>Closed</title></head><body><article><h1>Closed</h1><p>Back on Monday.</p>"
    "</article></body></html>"
)


class ArticleSite:
    """A list of all pages, a feed and the pages themselves, below a prefix that the server has taken off."""

    def __call__(self, asked: Asked) -> Answer:
        path = asked.target
        if path == "/list":
            links = "".join(f'<li><a href="/articles{page.path}">{page.title}</a></li>' for page in PAGES)
            return Answer(
                f'<ul>{links}<li><a href="/articles{SHORT}">Closed</a></li></ul><a href="/articles/about">About</a>'
            )
        if path == "/feed.xml":
            base = f"http://{asked.headers['host']}/articles"
            items = "".join(f"<item><title>x</title><link>{base}{page.path}</link></item>" for page in PAGES[:3])
            feed = f'<rss version="2.0"><channel><link>{base}/</link>{items}</channel></rss>'
            return Answer(feed, headers={"Content-Type": "application/rss+xml"})
        if path == SHORT:
            return Answer(NOTICE)
        for page in PAGES:
            if page.path == path:
                kind = "text/html" if page.encoding != "utf-8" else "text/html; charset=utf-8"
                return Answer(page.html.encode(page.encoding), headers={"Content-Type": kind})
        return Answer("<p>No such page.</p>", status=404)
