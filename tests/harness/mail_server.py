"""A mail server of our own: the real protocol on a loopback port, with the faults that mail servers have."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USERNAME, PASSWORD = "switchyard", "its-password"


@dataclass
class MailServer:
    """What arrived, and what the server shall answer; `None` lets the server itself answer."""

    port: int = 0
    asks_to_sign_in: bool = False
    received: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    were_encrypted: list[bool] = field(default_factory=list)
    signed_in: list[bool] = field(default_factory=list)
    connections: int = 0
    mail_answer: str | None = None
    rcpt_answer: str | None = None
    data_answer: str | None = None
    cuts_after_data: bool = False
    hangs: asyncio.Event | None = None

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.mail_answer:
            return self.mail_answer
        if self.asks_to_sign_in and not session.authenticated:
            return "530 5.7.0 Authentication required"
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.rcpt_answer:
            return self.rcpt_answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.hangs is not None:
            await self.hangs.wait()
        if self.data_answer:
            return self.data_answer
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.received.append(message)
        self.recipients += envelope.rcpt_tos
        assert server.transport is not None
        self.were_encrypted.append(server.transport.get_extra_info("ssl_object") is not None)
        self.signed_in.append(bool(session.authenticated))
        if self.cuts_after_data:
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return "250 OK"


@asynccontextmanager
async def mail_server(
    *,
    starttls: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    sign_in: bool = False,
    smtputf8: bool = False,
) -> AsyncIterator[MailServer]:
    """A server; with `sign_in` it takes mail of nobody but USERNAME."""
    inbox = MailServer(asks_to_sign_in=sign_in)
    connections: set[asyncio.BaseTransport] = set()

    class Connection(SMTP):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            inbox.connections += 1
            connections.add(transport)
            super().connection_made(transport)

    def authenticate(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        # handled=False: the server is to answer, or a client that is refused waits for ever.
        assert isinstance(data, LoginPassword)
        is_right = (data.login, data.password) == (USERNAME.encode(), PASSWORD.encode())
        return AuthResult(success=is_right, handled=False)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(
            inbox,
            hostname="mail.test",
            enable_SMTPUTF8=smtputf8,
            tls_context=starttls,
            require_starttls=starttls is not None,
            authenticator=authenticate if sign_in else None,
            # The library does not know its own TLS from the start: who must sign in is asked below.
            auth_require_tls=tls is None,
            loop=loop,
        ),
        "127.0.0.1",
        0,
        ssl=tls,
    )
    inbox.port = server.sockets[0].getsockname()[1]
    try:
        yield inbox
    finally:
        server.close()
        for transport in connections:
            if isinstance(transport, asyncio.Transport):
                transport.abort()
        await server.wait_closed()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A certificate for loopback that nobody knows: the server's context, and a file for whoever shall trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    trusted, secret = folder / "certificate.pem", folder / "key.pem"
    trusted.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(trusted, secret)
    return context, trusted
