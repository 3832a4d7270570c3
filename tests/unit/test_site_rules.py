"""`_redirects` and `_headers`: what is read, what is refused and told, which rule takes a request, where it leads."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.site_paths import alias_label, is_fingerprinted, may_be_fingerprinted, read_label
from models.site_rule_files import (
    MAX_FILE_BYTES,
    MAX_HEADER_BLOCKS,
    MAX_PROBLEMS,
    MAX_REDIRECTS,
    parse_headers,
    parse_redirects,
)
from models.site_rules import HeaderRule, RedirectRule, Router, SiteRules


def router(redirects: str = "", headers: str = "") -> Router:
    rules, problems = parse_redirects(redirects)
    blocks, header_problems = parse_headers(headers)
    assert not problems + header_problems
    # As a deployment keeps them, so that everything here also holds after storage.
    return Router(SiteRules.from_json(SiteRules(tuple(rules), tuple(blocks)).to_json()))


def leads_to(redirects: str, path: str, query: str = "") -> str | None:
    match = router(redirects).redirect(path, query)
    if match is None:
        return None
    return match.location(query) if match.rule.is_redirect else match.file_path()


# -- reading redirects


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("/home /", RedirectRule("/home", "/")),
        ("  /home\t/  \r", RedirectRule("/home", "/")),
        ("/a/* /b/:splat 302", RedirectRule("/a/*", "/b/:splat", 302)),
        ("/old/:y/:s /new/:s/:y 301!", RedirectRule("/old/:y/:s", "/new/:s/:y", 301, True)),
        ("/store id=:id /blog/:id 301", RedirectRule("/store", "/blog/:id", 301, False, (("id", ":id"),))),
        ("/s a=1 b=:b /t/:b", RedirectRule("/s", "/t/:b", 301, False, (("a", "1"), ("b", ":b")))),
        ("/app/* /index.html 200", RedirectRule("/app/*", "/index.html", 200)),
        ("/gone /gone.html 404", RedirectRule("/gone", "/gone.html", 404)),
        ("/ext https://example.com:8443/x?y=1#z", RedirectRule("/ext", "https://example.com:8443/x?y=1#z")),
        ("/c /d # why", RedirectRule("/c", "/d")),
        ("/q /z?x=1 301!", RedirectRule("/q", "/z?x=1", 301, True)),
        ("/p%20q /r", RedirectRule("/p q", "/r")),
    ],
)
def test_a_line_becomes_a_rule(line: str, rule: RedirectRule) -> None:
    assert parse_redirects(line) == ([rule], [])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/proxy/* https://api.example.com/:splat 200", "not fetched"),
        ("/proxy/* http://169.254.169.254/ 404", "not fetched"),
        ("/es/* /spain 302 Country=es", "conditions are not supported"),
        ("/en /e 302 Language=en,fr", "conditions are not supported"),
        ("/admin/* /x 200 Role=admin", "conditions are not supported"),
        ("nope /x", "must begin with /"),
        ("https://old.example/* /x", "other host names"),
        ("/missing", "does not say where"),
        ("/x y", "must begin with / or https"),
        ("/x javascript:alert(1)", "must begin with / or https"),
        ("/x /y 999", "status 999"),
        ("/x /y 301 junk", "not understood"),
        ("/mid/*/x /y", "stands alone"),
        ("/foo* /bar", "stands alone"),
        ("/x //evil.example/y", "another host"),
        ("/x /\\evil.example", "no address has"),
        ("/x https://:splat/y", "written out"),
        ("/:host/* https://:host.example/:splat", "written out"),
        ("/:host https://good.example:host/", "written out"),
        ("/x https://a@evil.example/", "written out"),
        ("/a?b=1 /c", "parameters are written after it"),
        ("/:a/:a /c", "used twice"),
        ("/:splat /c", ":splat"),
        ("/:1 /c", "no name"),
        ("/x a=:1 /c", "no name"),
        ("/%ff /c", "not UTF-8"),
        ("/%00 /c", "no address has"),
        ("/x /y " + "z" * 2_000, "at most 2000 characters"),
    ],
)
def test_a_line_that_is_no_rule_is_left_out_and_told(line: str, reason: str) -> None:
    rules, (problem,) = parse_redirects(f"# first\n{line}\n/ok /fine")
    assert rules == [RedirectRule("/ok", "/fine")]
    assert problem.line == 2
    assert reason in str(problem)


def test_rules_past_the_limit_are_not_read() -> None:
    rules, (problem,) = parse_redirects("\n".join(f"/{number} /x" for number in range(MAX_REDIRECTS + 5)))
    assert len(rules) == MAX_REDIRECTS
    assert problem.line == MAX_REDIRECTS + 1


def test_a_thousand_bad_lines_make_a_bounded_report() -> None:
    _, problems = parse_redirects("nope /x\n" * 1_000)
    assert len(problems) == MAX_PROBLEMS + 1


@given(st.text(max_size=200))
def test_any_text_is_read(text: str) -> None:
    rules, _ = parse_redirects(text)
    blocks, _ = parse_headers(text)
    found = Router(SiteRules(tuple(rules), tuple(blocks)))
    for path in ("/", "/a", "/a/b/"):
        match = found.redirect(path, "a=1")
        if match is not None and match.rule.is_redirect:
            match.location("a=1").encode("ascii")
        found.headers(path)


# -- matching


@pytest.mark.parametrize(
    ("rules", "path", "goal"),
    [
        ("/home /", "/home", "/"),
        ("/home /", "/home/", "/"),
        ("/home/ /", "/home", "/"),
        ("/home /", "/homes", None),
        ("/home /", "/Home", None),
        ("/a/* /b/:splat", "/a/x/y", "/b/x/y"),
        ("/a/* /b/:splat", "/a/x/", "/b/x/"),
        ("/a/* /b/:splat", "/a", "/b/"),
        ("/a/* /b/:splat", "/ab", None),
        ("/* /b", "/", "/b"),
        ("/:y/:s /n/:s-:y", "/2024/p", "/n/p-2024"),
        ("/:y/:s /n/:s/:y", "/2024/", None),
        ("/:y /n/:other", "/x", "/n/:other"),
        ("/a /b\n/a /c", "/a", "/b"),
        ("/:x /b\n/a /c", "/a", "/b"),
        ("/a/* /b\n/a/x /c", "/a/x", "/b"),
        ("/a /b#top", "/a", "/b#top"),
        ("/ä /ö", "/ä", "/%C3%B6"),
        ("/a/* https://x.example/:splat", "/a/b c", "https://x.example/b%20c"),
    ],
)
def test_the_first_rule_that_fits_decides(rules: str, path: str, goal: str | None) -> None:
    assert leads_to(rules, path) == goal


@pytest.mark.parametrize(
    ("rules", "query", "goal"),
    [
        ("/s id=:id /b/:id", "id=7", "/b/7"),
        ("/s id=:id /b/:id", "", None),
        ("/s id=:id /b/:id", "id=7&more=1", "/b/7"),
        ("/s id=7 /seven\n/s /any", "id=8", "/any?id=8"),
        ("/s id=:id /b/:id", "id=a%2Fb%3Fc", "/b/a/b%3Fc"),
        ("/s id=:id /b?x=:id", "id=1%26y=2", "/b?x=1%26y%3D2"),
        ("/s /t", "a=1&b=%20", "/t?a=1&b=%20"),
        ("/s /t?own=1", "a=1", "/t?own=1"),
        ("/s /t#f", "a=1", "/t?a=1#f"),
        ("/s id=:id /b/:id", "&".join(f"a{number}=1" for number in range(500)) + "&id=1", None),
    ],
)
def test_parameters_of_the_query_count_and_travel(rules: str, query: str, goal: str | None) -> None:
    assert leads_to(rules, "/s", query) == goal


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/go//evil.example", "/evil.example"),
        ("/go///evil.example/", "/evil.example/"),
        ("/go/\\evil.example", "/%5Cevil.example"),
        ("/go/\r\nSet-Cookie: a=b", "/%0D%0ASet-Cookie:%20a=b"),
        ("/go/a?b#c", "/a%3Fb%23c"),
    ],
)
def test_a_visitor_cannot_choose_the_host_or_the_head(path: str, location: str) -> None:
    assert leads_to("/go/* /:splat", path) == location


def test_forced_rules_are_found_alone() -> None:
    found = router("/a /b\n/* /c 302!")
    plain, forced = found.redirect("/a", ""), found.redirect("/a", "", only_forced=True)
    assert plain is not None
    assert forced is not None
    assert (plain.location(""), forced.location("")) == ("/b", "/c")


def test_two_thousand_rules_take_no_time() -> None:
    lines = []
    for number in range(MAX_REDIRECTS):
        bits = format(number, "011b")
        lines.append("/" + "/".join("a" if bit == "1" else f":n{place}" for place, bit in enumerate(bits)) + "/z /x")
    found = router("\n".join(lines))
    started = time.thread_time()
    for _ in range(10):
        assert found.redirect("/a" * 11 + "/y", "") is None
        assert found.redirect("/" + "a" * 4_000, "") is None
    assert time.thread_time() - started < 0.5


# -- headers


def test_blocks_are_read_as_the_format_has_them() -> None:
    rules, problems = parse_headers(
        "/*\n  X-Frame-Options: DENY\n  Cache-Control: a\n  cache-control: b\n# why\n/x/:y\nX-Z:1\n/empty\n"
    )
    assert rules == [
        HeaderRule("/*", (("X-Frame-Options", "DENY"), ("cache-control", "a, b"))),
        HeaderRule("/x/:y", (("X-Z", "1"),)),
    ]
    assert problems == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Set-Cookie: a=b", "beyond this site"),
        ("Clear-Site-Data: *", "beyond this site"),
        ("Content-Length: 5", "belongs to the server"),
        ("Content-Encoding: br", "belongs to the server"),
        ("Transfer-Encoding: chunked", "belongs to the server"),
        ("Connection: close", "belongs to the server"),
        ("ETag: x", "belongs to the server"),
        ("Vary: *", "belongs to the server"),
        ("Location: https://evil.example", "belongs to the server"),
        ("Proxy-Authenticate: x", "belongs to the server"),
        ("X-Switchyard-Deployment: dep_0", "belongs to the server"),
        ("Basic-Auth: a:b", "not supported"),
        ("no colon", "Name: value"),
        ("Bad name: x", "no name"),
        ("X-A:", "empty"),
        ("X-A: a\rX-B: b", "printable ASCII"),
        ("X-A: é", "printable ASCII"),
        ("X-A: a\x00b", "printable ASCII"),
        ("X-A: " + "a" * 2_001, "at most"),
    ],
)
def test_a_header_that_may_not_be_set_is_left_out_and_told(line: str, reason: str) -> None:
    rules, (problem,) = parse_headers(f"/*\n{line}\nX-Ok: 1")
    assert rules == [HeaderRule("/*", (("X-Ok", "1"),))]
    assert problem.line == 2
    assert reason in str(problem)


def test_headers_of_a_bad_path_do_not_go_to_the_one_before() -> None:
    rules, problems = parse_headers("/a\n  X: 1\nhttps://x.example/b\n  Y: 2\n")
    assert rules == [HeaderRule("/a", (("X", "1"),))]
    assert [problem.line for problem in problems] == [3, 4]


def test_header_blocks_and_bytes_are_bounded() -> None:
    rules, problems = parse_headers("\n".join(f"/{number}\nX: 1" for number in range(MAX_HEADER_BLOCKS + 1)))
    assert len(rules) == MAX_HEADER_BLOCKS
    assert [problem.line for problem in problems] == [401, 402]
    _, (problem,) = parse_headers("/*\n" + "\n".join(f"X-{number}: {'v' * 1_000}" for number in range(50)))
    assert "bytes of headers" in problem.reason


@pytest.mark.parametrize(
    ("pattern", "path", "covers"),
    [
        ("/*", "/", True),
        ("/*", "/a/b", True),
        ("/a/*", "/a", True),
        ("/a/*", "/a/b", True),
        ("/a/*", "/ab", False),
        ("/a", "/a/", True),
        ("/a", "/a/b", False),
        ("/*.js", "/x/y.js", True),
        ("/*.js", "/x/y.css", False),
        ("/a/*a", "/a/a", True),
        ("/aa*aa", "/aaa", False),
        ("/:x/b", "/a/b", True),
        ("/:x/b", "//b", False),
        ("/:x/b", "/a/c", False),
    ],
)
def test_a_block_covers_paths(pattern: str, path: str, covers: bool) -> None:
    assert bool(router(headers=f"{pattern}\n X-A: 1").headers(path)) is covers


def test_of_two_blocks_the_later_one_counts() -> None:
    found = router(headers="/*\n X-A: 1\n X-B: 1\n/a\n x-a: 2").headers("/a")
    assert found == {"x-a": "2", "x-b": "1"}


def test_a_file_of_any_size_is_read_in_no_time() -> None:
    started = time.thread_time()
    parse_redirects("/a " * (MAX_FILE_BYTES // 3))
    parse_headers("/*\n" + "x" * MAX_FILE_BYTES)
    parse_redirects("\n".join(["/" + ":a/" * 300 + "*  /x"] * 1_000))
    assert time.thread_time() - started < 2


# -- names


@pytest.mark.parametrize(
    "path",
    [
        *("assets/index-BCOJk9TN.css", "main.3f2a1b9c.js", "main.3f2a1b9c0d1e2f3a4b5c.js", "chunk-7XQ2KPLN.js"),
        *("_next/static/chunks/webpack-0123456789abcdef.js", "_astro/about.BCOJk9TN.css", "_next/static/media/a.js"),
        *("assets/main-DhGKqRSt.js", "immutable/chunks/D3abcXyz.js", "img/logo.8f3e2d1c.svg", "index-BCOJk9TN.js.map"),
    ],
)
def test_names_with_a_fingerprint_are_known(path: str) -> None:
    assert is_fingerprinted(path)
    assert may_be_fingerprinted(path)


@pytest.mark.parametrize(
    "path",
    [
        *("index.html", "app.js", "my-component.js", "settings-dashboard.js", "photo-IMG12345.jpg", "en-US.json"),
        *("report-20240101.pdf", "data-20240101.json", "assets/list-UserList.js", "jquery-3.7.1.min.js"),
        *("index-BCOJk9TN.html", "a/b", "", "polyfills.bundle.js", "deadbeef.js/x", "fooBarBaz.js", "robots.txt"),
    ],
)
def test_names_made_of_words_are_not_kept_for_ever(path: str) -> None:
    assert not is_fingerprinted(path)


@pytest.mark.parametrize(
    ("label", "read"),
    [
        ("shop", (None, None, "shop", "production")),
        ("feat-x--shop", (None, None, "shop", "feat-x")),
        ("a--b--shop", (None, None, "shop", "a--b")),
        ("0123456789abcdef-shop", ("0123456789abcdef", "shop", "0123456789abcdef-shop", "production")),
        ("0123456789abcdef--shop", (None, None, "shop", "0123456789abcdef")),
    ],
)
def test_a_label_is_read(label: str, read: tuple[object, ...]) -> None:
    found = read_label(label)
    assert found is not None
    assert (found.site_key, found.keyed_slug, found.slug, found.alias) == read


@pytest.mark.parametrize("label", ["", "-", "a.b", "a-", "-a", "--a", "a--", "A", "a_b", "a" * 64, "é", "a\n", "-x--a"])
def test_other_labels_are_nobodys(label: str) -> None:
    assert read_label(label) is None


def test_an_alias_that_no_host_name_holds_is_refused() -> None:
    assert alias_label("production", "shop") == "shop"
    assert alias_label("pr-7", "shop") == "pr-7--shop"
    for alias in ("a" * 60, "feat/x", "-x", ""):
        with pytest.raises(ValueError, match="no part"):
            alias_label(alias, "shop")
