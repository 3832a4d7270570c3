"""Mail: the contract of both drivers, what SMTP servers say and what becomes of it, and letters from templates."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from adapters.mail import (
    FolderMailer,
    Mailer,
    MailRefused,
    SmtpMailer,
    TransientMailError,
    UnknownLetter,
    compose,
    open_mailer,
    recipient,
    render,
    sender_of,
)
from adapters.mail import folder as folder_module
from errors import ServiceUnavailable
from settings import Settings, SettingsError
from tests.harness.mail_server import PASSWORD, USERNAME, MailServer, certificate, mail_server
from tests.harness.waiting import eventually
from tests.storage_servers import make_settings

BASE_URL = "https://switchyard.example"
LETTER = {"title": "Deployment 1 of Café is live", "body": "Branch main", "site_url": "https://cafe.sites.example"}


def smtp_settings(folder: Path, server: MailServer, *, security: str = "none", **values: Any) -> Settings:
    return make_settings(
        folder, smtp_host="127.0.0.1", smtp_port=server.port, smtp_security=security, base_url=BASE_URL, **values
    )


def a_letter(settings: Settings, *, to: str = "zoe@example.com", key: str = "k", **changes: str) -> EmailMessage:
    return compose(
        "deployment_succeeded",
        {**LETTER, **changes},
        sender=sender_of(settings),
        to=recipient("Zoë, the first", to),
        key=key,
        base_url=BASE_URL,
    )


# -- the contract of both drivers


@dataclass
class Post:
    """A mailer, and what came out at the other end."""

    mailer: Mailer
    settings: Settings
    arrived: Callable[[], list[EmailMessage]]
    break_down: Callable[[], Awaitable[None]]


@pytest.fixture
async def smtp_post(tmp_path: Path) -> AsyncIterator[Post]:
    async with mail_server() as server:
        settings = smtp_settings(tmp_path, server)

        async def away() -> None:
            server.mail_answer = "421 Going down"

        yield Post(open_mailer(settings), settings, lambda: server.received, away)


@pytest.fixture
async def folder_post(tmp_path: Path) -> Post:
    def arrived() -> list[EmailMessage]:
        found = []
        for path in sorted((tmp_path / "mail").iterdir()):
            message = message_from_bytes(path.read_bytes(), policy=policy.default)
            assert isinstance(message, EmailMessage)
            found.append(message)
        return found

    async def in_the_way() -> None:
        (tmp_path / "mail").write_text("no folder")

    settings = make_settings(tmp_path)
    return Post(open_mailer(settings), settings, arrived, in_the_way)


@pytest.fixture(params=["smtp_post", "folder_post"])
def post(request: pytest.FixtureRequest) -> Post:
    found: Post = request.getfixturevalue(request.param)
    return found


async def test_a_message_arrives_whole_and_in_order(post: Post) -> None:
    for number in (1, 2, 3):
        title = f"№ {number} – “Ünïcödé”\n.\nFrom the middle"
        await post.mailer.send(a_letter(post.settings, key=str(number), title=title, body="x" * 2_000 + "\n.\n..\nend"))
    first, *others = post.arrived()
    assert [message["Subject"][:3] for message in (first, *others)] == ["№ 1", "№ 2", "№ 3"]
    assert first["Subject"] == "№ 1 – “Ünïcödé” . From the middle"
    assert first["To"].addresses[0].display_name == "Zoë, the first"
    assert first["To"].addresses[0].addr_spec == "zoe@example.com"
    text, marked_up = first.get_body(("plain",)), first.get_body(("html",))
    assert text is not None
    assert marked_up is not None
    assert "x" * 2_000 + "\n.\n..\nend" in text.get_content().replace("\r\n", "\n")
    assert "<br>\n.<br>\n..<br>\nend" in marked_up.get_content().replace("\r\n", "\n")


async def test_a_driver_that_cannot_says_so_for_now(post: Post) -> None:
    await post.break_down()
    with pytest.raises(TransientMailError) as failed:
        await post.mailer.send(a_letter(post.settings))
    assert isinstance(failed.value, ServiceUnavailable), "whoever waits for services knows it"


# -- the folder


async def test_the_folder_keeps_the_newest_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "KEPT_MESSAGES", 3)
    mailer = FolderMailer(tmp_path / "mail")
    settings = make_settings(tmp_path)
    for number in range(5):
        await mailer.send(a_letter(settings, title=f"Letter {number}"))
    texts = [path.read_text() for path in sorted((tmp_path / "mail").iterdir())]
    assert [re.findall(r"Subject: (.*)", text) for text in texts] == [["Letter 2"], ["Letter 3"], ["Letter 4"]]


async def test_the_folder_is_for_its_owner_and_shows_nothing_unfinished(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mail"
    await FolderMailer(folder).send(a_letter(make_settings(tmp_path)))
    (file,) = folder.iterdir()
    assert file.suffix == ".eml"
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


async def test_what_a_crash_left_in_the_folder_goes_after_an_hour(tmp_path: Path) -> None:
    folder = tmp_path / "mail"
    folder.mkdir()
    old, fresh = folder / f".{0:020d}-aa", folder / f".{10**19:020d}-bb"
    old.touch()
    fresh.touch()
    await FolderMailer(folder).send(a_letter(make_settings(tmp_path)))
    assert (old.exists(), fresh.exists()) == (False, True)


# -- SMTP: encryption and sign-in


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    return certificate(tmp_path_factory.mktemp("certificate"))


def encrypted_server(
    security: str, context: ssl.SSLContext, *, sign_in: bool = False
) -> AbstractAsyncContextManager[MailServer]:
    if security == "tls":
        return mail_server(tls=context, sign_in=sign_in)
    return mail_server(starttls=context, sign_in=sign_in)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_encrypted_mail_with_sign_in(
    security: str, tmp_path: Path, identity: tuple[ssl.SSLContext, Path]
) -> None:
    context, trusted = identity
    async with encrypted_server(security, context, sign_in=True) as server:
        settings = smtp_settings(tmp_path, server, security=security, smtp_username=USERNAME, smtp_password=PASSWORD)
        mailer = SmtpMailer(settings, tls_context=ssl.create_default_context(cafile=str(trusted)))
        await mailer.send(a_letter(settings))
    assert (server.were_encrypted, server.signed_in) == ([True], [True])


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_a_certificate_nobody_vouches_for_gets_no_mail(
    security: str, tmp_path: Path, identity: tuple[ssl.SSLContext, Path]
) -> None:
    async with encrypted_server(security, identity[0]) as server:
        settings = smtp_settings(tmp_path, server, security=security)
        with pytest.raises(TransientMailError, match=r"(?i)certificate"):
            await open_mailer(settings).send(a_letter(settings))
    assert server.received == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
@pytest.mark.parametrize("credentials", [{}, {"smtp_username": USERNAME, "smtp_password": PASSWORD}], ids=["", "named"])
async def test_a_server_that_cannot_encrypt_gets_neither_mail_nor_password(
    credentials: dict[str, str], security: str, tmp_path: Path
) -> None:
    async with mail_server() as server:
        settings = smtp_settings(tmp_path, server, security=security, **credentials)
        with pytest.raises(TransientMailError):
            await SmtpMailer(settings, send_seconds=2).send(a_letter(settings))
        assert server.connections == 1
    assert server.received == []


async def test_a_wrong_password_is_the_operators_matter_and_not_the_mails(
    tmp_path: Path, identity: tuple[ssl.SSLContext, Path]
) -> None:
    context, trusted = identity
    async with mail_server(starttls=context, sign_in=True) as server:
        settings = smtp_settings(
            tmp_path, server, security="starttls", smtp_username=USERNAME, smtp_password="forgotten-one"
        )
        mailer = SmtpMailer(settings, tls_context=ssl.create_default_context(cafile=str(trusted)))
        with pytest.raises(TransientMailError, match="535") as refused:
            await mailer.send(a_letter(settings))
    assert "forgotten-one" not in str(refused.value)
    assert server.received == []


async def test_plain_means_plain_where_it_is_chosen(tmp_path: Path, identity: tuple[ssl.SSLContext, Path]) -> None:
    async with mail_server() as server:
        settings = smtp_settings(tmp_path, server)
        await open_mailer(settings).send(a_letter(settings))
    assert server.were_encrypted == [False]


# -- SMTP: what servers say


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"rcpt_answer": "550 5.1.1 No such user"}, MailRefused),
        ({"rcpt_answer": "450 4.2.1 Greylisted"}, TransientMailError),
        ({"data_answer": "554 5.7.1 Looks like spam"}, MailRefused),
        ({"data_answer": "452 4.3.1 Disk full"}, TransientMailError),
        ({"mail_answer": "421 4.3.0 Going down"}, TransientMailError),
        # The sender is ours: an operator can put it right, and the mail is not lost meanwhile.
        ({"mail_answer": "550 5.7.1 Sender not allowed"}, TransientMailError),
    ],
    ids=lambda value: next(iter(value.values())) if isinstance(value, dict) else None,
)
async def test_what_a_server_says_decides_whether_to_try_again(
    answers: dict[str, str], outcome: type[Exception], tmp_path: Path
) -> None:
    async with mail_server() as server:
        for name, answer in answers.items():
            setattr(server, name, answer)
        settings = smtp_settings(tmp_path, server)
        with pytest.raises((MailRefused, TransientMailError)) as failed:
            await open_mailer(settings).send(a_letter(settings))
    assert type(failed.value) is outcome
    assert next(iter(answers.values()))[:3] in failed.value.message, "people can read what the server said"


async def test_a_connection_that_is_cut_after_the_data_is_tried_again(tmp_path: Path) -> None:
    async with mail_server() as server:
        settings = smtp_settings(tmp_path, server)
        server.cuts_after_data = True
        with pytest.raises(TransientMailError):
            await open_mailer(settings).send(a_letter(settings, key="same"))
        server.cuts_after_data = False
        await open_mailer(settings).send(a_letter(settings, key="same"))
    first, second = server.received
    assert first["Message-ID"] == second["Message-ID"], "the doubled one is known for what it is"


async def test_a_server_that_hangs_is_left_at_the_deadline(tmp_path: Path) -> None:
    async with mail_server() as server:
        server.hangs = asyncio.Event()
        settings = smtp_settings(tmp_path, server)
        with pytest.raises(TransientMailError, match="too long"):
            await SmtpMailer(settings, send_seconds=0.3).send(a_letter(settings))
        server.hangs.set()


async def test_nobody_at_the_port_is_no_reason_to_give_up(tmp_path: Path) -> None:
    async with mail_server() as server:
        settings = smtp_settings(tmp_path, server)
    with pytest.raises(TransientMailError):
        await open_mailer(settings).send(a_letter(settings))


async def test_a_cancelled_send_leaves_no_connection(tmp_path: Path) -> None:
    async with mail_server() as server:
        server.hangs = asyncio.Event()
        settings = smtp_settings(tmp_path, server)
        sending = asyncio.create_task(open_mailer(settings).send(a_letter(settings)))
        await eventually(lambda: server.connections == 1)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        server.hangs.set()


# -- addresses


async def test_domains_go_out_as_dns_has_them(tmp_path: Path) -> None:
    async with mail_server() as server:
        settings = smtp_settings(tmp_path, server)
        await open_mailer(settings).send(a_letter(settings, to="zoe@straße.example"))
    assert server.recipients == ["zoe@xn--strae-oqa.example"], "and not strasse.example, which is somebody else's"


async def test_a_name_with_accents_needs_a_server_that_takes_it(tmp_path: Path) -> None:
    async with mail_server(smtputf8=True) as server:
        settings = smtp_settings(tmp_path, server)
        await open_mailer(settings).send(a_letter(settings, to="josé@example.com"))
    assert server.recipients == ["josé@example.com"]
    async with mail_server() as server:
        settings = smtp_settings(tmp_path, server)
        with pytest.raises(MailRefused):
            await open_mailer(settings).send(a_letter(settings, to="josé@example.com"))


@pytest.mark.parametrize("address", ["nobody", "@example.com", "a@b\nBcc: c@d", "zoe@" + "ü" * 70 + ".example"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(MailRefused):
        recipient("Zoe", address)


@pytest.mark.parametrize("value", ["", "nobody", "a@", "@b"])
def test_a_sender_that_is_no_address_stops_the_start(value: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="MAIL_FROM"):
        sender_of(make_settings(tmp_path, mail_from=value))


# -- letters


class Markup(HTMLParser):
    """The text of a page, its tags and where its links lead."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize(
    "nasty",
    ["Shop\r\nBcc: everybody@example.com", "a\nb", "\x00nul", "\u2028line", "\u202egnol", "=?utf-8?q?x?=", "$title"],
)
def test_names_people_give_start_no_header_of_their_own(nasty: str, tmp_path: Path) -> None:
    plain = a_letter(make_settings(tmp_path), title="x")
    message = a_letter(make_settings(tmp_path), title=nasty)
    assert message.keys() == plain.keys()
    parsed = message_from_bytes(message.as_bytes(), policy=policy.default)
    assert parsed.keys() == plain.keys()
    assert parsed["Bcc"] is None
    assert str(parsed["Subject"]).isprintable()


def test_markup_people_write_is_text(tmp_path: Path) -> None:
    nasty = '<script>alert(1)</script><img src=x onerror="y"> & "$body" \'</title>'
    letter = render("deployment_failed", {"title": nasty, "body": nasty, "failure": nasty}, base_url=BASE_URL)
    page = Markup(letter.html)
    assert not {"script", "img"} & page.tags
    assert page.text.count(nasty) == 4, "title, heading, body and failure show it as it was written"
    assert nasty in letter.text


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//example.com", ""])
def test_a_letter_links_to_the_web_only(url: str) -> None:
    with pytest.raises(ValueError, match="site_url"):
        render("deployment_succeeded", {**LETTER, "site_url": url}, base_url=BASE_URL)


def test_a_letter_needs_no_pictures_and_nothing_from_elsewhere() -> None:
    page = Markup(render("deployment_succeeded", LETTER, base_url=BASE_URL).html)
    assert set(page.links) == {LETTER["site_url"], BASE_URL}
    assert not {"img", "link", "script", "iframe"} & page.tags


def test_a_missing_variable_is_no_hole_in_the_letter() -> None:
    with pytest.raises(KeyError):
        render("deployment_succeeded", {"title": "x", "body": "y"}, base_url=BASE_URL)


@pytest.mark.parametrize("name", ["nothing", "../letters", "", "/etc/passwd", "layout"])
def test_only_letters_are_letters(name: str) -> None:
    with pytest.raises(UnknownLetter):
        render(name, LETTER, base_url=BASE_URL)


def test_headers_say_what_programs_need(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, mail_from="Our Switchyard <post@yard.example>")
    message = a_letter(settings, key="one")
    assert str(message["From"]) == "Our Switchyard <post@yard.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert re.fullmatch(r"<[0-9a-f]{40}@yard\.example>", message["Message-ID"])
    assert parsedate_to_datetime(message["Date"]).tzinfo is not None
    assert message.get_content_type() == "multipart/alternative"
    assert all(part.get_content_charset() == "utf-8" for part in message.iter_parts())
    assert a_letter(settings, key="one")["Message-ID"] == message["Message-ID"] != a_letter(settings)["Message-ID"]
    assert all(len(line) <= 998 and line.isascii() for line in message.as_bytes().decode().splitlines())
