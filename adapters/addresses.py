"""The address guard: which URLs and which IP addresses the service may open on behalf of a user.

Invariant: nothing that a user names reaches an address outside the public internet, however it is spelled, unless the
operator listed exactly that host and port. A URL is checked before it is queued (`check_url`), and every connection
again with the address it is about to use (`check_address`, `resolve`): only that second check stops names which
resolve to a private address, redirects and rebinding. Connect to what was checked, never to a second look-up.

The tables are our own because `ipaddress.is_global` calls multicast, 168.63.129.16, 64:ff9b::7f00:1 and others global,
and changes from one Python to the next. The module imports nothing of the project, so that crawlers can use it too; it
leaves out proxies and redirects, which every client has to switch off or bring here hop by hop.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

DEFAULT_PORTS = {"http": 80, "https": 443}
RESOLVE_SECONDS = 10.0

# IANA IPv4 Special-Purpose Address Registry (RFC 6890), with the entries called globally reachable too: anycast
# services of DNS and multicast relays have no pages. Then multicast (RFC 5771) and the clouds' own.
NOT_PUBLIC_V4 = tuple(
    (IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "it means this host"),
        ("10.0.0.0/8", "it is private"),
        ("100.64.0.0/10", "it is shared by a carrier's customers"),  # and 100.100.100.200, metadata at Alibaba
        ("127.0.0.0/8", "it is this machine"),
        ("168.63.129.16/32", "it is a cloud's internal service"),  # Azure's wire server
        ("169.254.0.0/16", "it is link-local, where clouds keep their metadata"),
        ("172.16.0.0/12", "it is private"),
        ("192.0.0.0/24", "it is reserved for protocols"),  # and 192.0.0.192, metadata at Oracle
        ("192.0.2.0/24", "it is for documentation"),
        ("192.31.196.0/24", "it is reserved for AS112"),
        ("192.52.193.0/24", "it is reserved for multicast relays"),
        ("192.88.99.0/24", "it is a retired relay"),
        ("192.168.0.0/16", "it is private"),
        ("192.175.48.0/24", "it is reserved for AS112"),
        ("198.18.0.0/15", "it is for benchmarks"),
        ("198.51.100.0/24", "it is for documentation"),
        ("203.0.113.0/24", "it is for documentation"),
        ("224.0.0.0/4", "it is multicast"),
        ("240.0.0.0/4", "it is reserved"),
    )
)

# Global unicast is 2000::/3 (IANA IPv6 address space registry), less the special-purpose entries inside it.
GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
NOT_PUBLIC_V6 = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("2001::/23", "it is reserved for protocols"),
        ("2001:db8::/32", "it is for documentation"),
        ("2620:4f:8000::/48", "it is reserved for AS112"),
        ("3ffe::/16", "it belonged to the 6bone"),
        ("3fff::/20", "it is for documentation"),
    )
)
V6_REASONS = tuple(
    (IPv6Network(network), reason)
    for network, reason in (
        ("fc00::/7", "it is private"),  # and fd00:ec2::254, metadata at Amazon
        ("fe80::/10", "it is link-local"),
        ("fec0::/10", "it is site-local"),
        ("ff00::/8", "it is multicast"),
        ("64:ff9b:1::/48", "it is a local translation prefix"),
    )
)

# Prefixes whose addresses carry an IPv4 address in their last 32 bits.
V4_IN_TAIL = (
    IPv6Network("::/96"),  # IPv4-compatible, with :: and ::1
    IPv6Network("::ffff:0:0/96"),  # IPv4-mapped
    IPv6Network("64:ff9b::/96"),  # NAT64, RFC 6052
)
SIX_TO_FOUR = IPv6Network("2002::/16")
TEREDO = IPv6Network("2001::/32")

AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:@%]+))(?::(?P<port>[0-9]{0,5}))?", re.ASCII)
HOST_NAME = re.compile(r"[0-9a-z_](?:[0-9a-z_.-]*[0-9a-z_])?", re.ASCII)
NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.ASCII)


class BlockedAddress(Exception):
    """The guard refused; `target` is the URL or host, `reason` a clause for people."""

    def __init__(self, target: str, reason: str) -> None:
        shown = "".join(character if character.isprintable() else "?" for character in target[:200])
        super().__init__(f"{shown} may not be opened: {reason}")
        self.target = target
        self.reason = reason


class UnknownHost(Exception):
    """The name has no address, or the resolver did not answer in time."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(f"{host} has no address: {reason}")
        self.host = host
        self.reason = reason


@dataclass(frozen=True)
class AllowedHost:
    """A host and port that the operator opened although the address is not public.

    It holds for the host as spelled here (letter case apart): 127.0.0.1 does not open localhost, nor 0x7f.1.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> AllowedHost:
        """Read `host:port` or `[v6]:port`; raises ValueError."""
        match = AUTHORITY.fullmatch(text)
        if match is None or not match["port"] or not 0 < int(match["port"]) < 65_536:
            raise ValueError(f"{text!r} is not host:port")
        return cls(_spelling(match["v6"] or match["name"]), int(match["port"]))


@dataclass(frozen=True)
class AddressGuard:
    """What may be opened: public addresses on `ports`, and `allowed`. Comes from settings, never from users."""

    allowed: frozenset[AllowedHost] = frozenset()
    ports: frozenset[int] = frozenset({80, 443})

    @classmethod
    def from_settings(cls, allowed_hosts: Iterable[str], *, ports: Iterable[int] = (80, 443)) -> AddressGuard:
        """Build from texts like `localhost:8080`; raises ValueError that names the bad one."""
        return cls(frozenset(AllowedHost.parse(text) for text in allowed_hosts), frozenset(ports))

    def check_url(self, url: str) -> None:
        """Refuse a URL that is unfit by its text alone: scheme, credentials, port, or an address in any spelling.

        A name passes here and is judged by its addresses later. Raises BlockedAddress.
        """
        if any(character.isspace() or not character.isprintable() or character == "\\" for character in url):
            raise BlockedAddress(url, "it holds a space, a backslash or a control character")
        try:
            parts = urlsplit(url)
        except ValueError:
            raise BlockedAddress(url, "it is not a URL") from None
        if parts.scheme not in DEFAULT_PORTS:
            raise BlockedAddress(url, "only http and https are opened")
        if "@" in parts.netloc:
            # Without the credentials: the message ends up in logs.
            raise BlockedAddress(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", "it holds credentials")
        match = AUTHORITY.fullmatch(parts.netloc)
        if match is None:
            raise BlockedAddress(url, "its host or port is malformed")
        port = int(match["port"]) if match["port"] else DEFAULT_PORTS[parts.scheme]
        self._check_host(match["v6"] or match["name"], port, target=url)

    def check_address(self, host: str, port: int, address: Address | str) -> None:
        """Judge an address that a connection to `host` and `port` is about to use; raises BlockedAddress.

        `host` is what the URL said, for the allow-list; where only the address is known, give it twice.
        """
        if self.allows(host, port):
            return
        if port not in self.ports:
            raise BlockedAddress(f"{host}:{port}", f"port {port} is not open")
        try:
            judged = ip_address(address)
        except ValueError:
            raise BlockedAddress(host, "its address is malformed") from None
        reason = _why_not_public(judged)
        if reason is not None:
            raise BlockedAddress(host, f"of its address {judged}, {reason}")

    def allows(self, host: str, port: int) -> bool:
        """Whether the operator opened exactly this host and port."""
        return AllowedHost(_spelling(host), port) in self.allowed

    def _check_host(self, host: str, port: int, *, target: str) -> None:
        if self.allows(host, port):
            return
        if port not in self.ports:
            raise BlockedAddress(target, f"port {port} is not open")
        for address in _literal_readings(host, target):
            reason = _why_not_public(address)
            if reason is not None:
                raise BlockedAddress(target, f"of its address {address}, {reason}")


async def resolve(
    guard: AddressGuard, host: str, port: int, *, timeout_seconds: float = RESOLVE_SECONDS
) -> list[Address]:
    """The addresses of a host, all of them checked; one bad answer blocks the host.

    Raises BlockedAddress, or UnknownHost when there is no answer.
    """
    guard._check_host(host, port, target=host)
    try:
        async with asyncio.timeout(timeout_seconds):
            answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise UnknownHost(host, f"no answer in {timeout_seconds:g} s") from None
    except (OSError, UnicodeError) as error:
        raise UnknownHost(host, str(error)) from None
    addresses = list(dict.fromkeys(ip_address(answer[4][0]) for answer in answers))
    if not addresses:
        raise UnknownHost(host, "the answer is empty")
    for address in addresses:
        guard.check_address(host, port, address)
    return addresses


def host_and_port(text: str) -> tuple[str, int]:
    """Read `host:port` or `[v6]:port`; raises ValueError for what is neither."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not host:port")
    return host.strip("[]"), int(port)


def is_public(address: Address) -> bool:
    """Whether an address is global unicast, judged by the IPv4 address inside where it carries one."""
    return _why_not_public(address) is None


def _why_not_public(address: Address) -> str | None:
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return "it has a zone"
        inner = _carried_v4(address)
        if inner:
            return next((reason for carried in inner if (reason := _why_not_public(carried))), None)
        if address not in GLOBAL_UNICAST_V6:
            return next((reason for network, reason in V6_REASONS if address in network), "it is not global unicast")
        return next((reason for network, reason in NOT_PUBLIC_V6 if address in network), None)
    return next((reason for network, reason in NOT_PUBLIC_V4 if address in network), None)


def _carried_v4(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that a transition mechanism would send to.

    64:ff9b:1::/48 (RFC 8215) is absent and so refused: where the address sits in it is each network's own choice.
    """
    bits = int(address)
    if any(address in network for network in V4_IN_TAIL):
        return (IPv4Address(bits & 0xFFFFFFFF),)
    if address in SIX_TO_FOUR:  # RFC 3056: 2002:V4ADDR::/48
        return (IPv4Address(bits >> 80 & 0xFFFFFFFF),)
    if address in TEREDO:  # RFC 4380 §4: the server, and the client with its bits flipped
        return (IPv4Address(bits >> 64 & 0xFFFFFFFF), IPv4Address(~bits & 0xFFFFFFFF))
    return ()


def _literal_readings(host: str, target: str) -> list[Address]:
    """The addresses that clients might read in a host; empty for a name. Raises BlockedAddress for what is neither."""
    if ":" in host:
        try:
            return [IPv6Address(host)]
        except AddressValueError:
            raise BlockedAddress(target, "its address is malformed") from None
    if len(host) > 1_000:
        raise BlockedAddress(target, "its host name is malformed")  # the codec below is slow on long ones
    try:
        # As clients do: full-width digits and ideographic full stops become plain ones (RFC 3490, 3491).
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        raise BlockedAddress(target, "its host name is malformed") from None
    if HOST_NAME.fullmatch(name) is None or len(name) > 253:
        raise BlockedAddress(target, "its host name is malformed")
    labels = name.split(".")
    if labels[-1] == "localhost":  # RFC 6761 §6.3
        raise BlockedAddress(target, "it is this machine")
    if NUMBER.fullmatch(labels[-1]) is None:
        return []
    # A host that ends in a number is an IPv4 address or an error (WHATWG URL, "ends in a number checker").
    readings = {reading for octal in (True, False) if (reading := _read_v4(labels, octal=octal)) is not None}
    if not readings:
        raise BlockedAddress(target, "its address is malformed")
    return sorted(readings)


def _read_v4(labels: list[str], *, octal: bool) -> IPv4Address | None:
    """Read like inet_aton(3): one to four parts, the last fills the rest; a leading 0 means octal, to some clients."""
    if len(labels) > 4:
        return None
    numbers = []
    for label in labels:
        if NUMBER.fullmatch(label) is None:
            return None
        base = 16 if label.startswith("0x") else 8 if octal and label.startswith("0") else 10
        try:
            numbers.append(int(label.removeprefix("0x") or "0", base))
        except ValueError:  # a digit 8 or 9 in an octal number
            return None
    *head, last = numbers
    if any(number > 255 for number in head) or last >= 256 ** (5 - len(numbers)):
        return None
    return IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(head)) + last)


def _spelling(host: str) -> str:
    return host.strip("[]").lower()
