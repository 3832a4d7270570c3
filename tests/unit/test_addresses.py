"""The address guard: every spelling of an inner address is refused, the public internet stays open."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.addresses import AddressGuard, AllowedHost, BlockedAddress, UnknownHost, is_public, resolve

GUARD = AddressGuard()

# IANA's special-purpose registries, multicast, site-local, and single addresses of clouds, written out apart from the
# module's own tables. The transition prefixes are missing: they are judged by what they carry.
SPECIAL = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.0.0/29", "192.0.0.8/32", "192.0.0.9/32", "192.0.0.10/32", "192.0.0.170/31", "192.0.2.0/24"),
    *("192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32"),
    *("168.63.129.16/32", "169.254.169.254/32", "100.100.100.200/32", "192.0.0.192/32"),
    *("::/128", "::1/128", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001:1::/32", "2001:2::/48", "2001:3::/32"),
    *("2001:4:112::/48", "2001:10::/28", "2001:20::/28", "2001:30::/28", "2001:db8::/32", "2620:4f:8000::/48"),
    *("3ffe::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fd00:ec2::254/128", "fe80::/10", "fec0::/10", "ff00::/8"),
    "::ffff:0:0:0/96",
]

BAD_URLS = [
    # the scheme and the shape
    "file:///etc/passwd",
    "ftp://example.com/",
    "data:text/html,hello",
    "gopher://example.com/",
    "//example.com/",
    "example.com",
    "",
    "http:///etc/passwd",
    "http:example.com",
    "http://",
    "http://.",
    "http://a..b/",
    "http://exa mple.com/",
    "http://example.com/a b",
    "http://example.com/a\\b",
    "http://exa!mple.com/",
    "http://-example.com/",
    "http://" + "a." * 130 + "com/",
    "http://example.com/\r\nHost: inner",
    "http://example.com\\@127.0.0.1/",
    "http://\u200bexample.com/",
    "http://user:secret@example.com/",
    "http://example.com@127.0.0.1/",
    "http://@example.com/",
    "http://127.0.0.1%00.example.com/",
    "http://%31%32%37.0.0.1/",
    "http://[::1/",
    "http://[::1]example.com/",
    "http://[v1.x]/",
    "http://example.com:80:80/",
    "http://" + "a" * 5_000 + ".com/",
    # the port
    "http://example.com:22/",
    "http://example.com:6379/",
    "http://example.com:0/",
    "http://example.com:65616/",
    "http://example.com:٨٠/",
    # this machine, by name and by every notation of IPv4
    "http://localhost/",
    "http://LOCALHOST./",
    "http://app.localhost/",
    "http://127.0.0.1/",
    "http://127.0.0.1./",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0X7F.1/",
    "http://0x7f.0x0.0x0.0x1/",
    "http://017700000001/",
    "http://0177.0.0.1/",
    "http://0177.0.0.0x1/",
    "http://00000177.0.0.1/",
    "http://0/",
    "http://0x/",
    "http://0.0.0.0/",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://①②⑦.0.0.1/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    # private to one client, public to another: both readings have to be public
    "http://010.0.0.1/",
    "http://012.8.8.8/",
    # numbers that are no address
    "http://256.256.256.256/",
    "http://4294967296/",
    "http://1.2.3.4.5/",
    "http://09.1.1.1.1/",
    "http://example.1/",
    # networks
    "http://10.1.2.3/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://168.63.129.16/",
    "http://100.100.100.200/",
    "http://192.0.0.192/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    # IPv6
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::808:808]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:808:808::80ff:fffe]/",
    "http://[2001:0:7f00:1::f7f7:f7f7]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[2606:4700::1111%251]/",
    "http://[fec0::1]/",
    "http://[fd00:ec2::254]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[100::1]/",
]

GOOD_URLS = [
    "http://example.com",
    "https://example.com/",
    "HTTPS://Example.COM/a?b=c@d#e",
    "https://example.com:443/",
    "http://example.com:/",
    "http://example.com./",
    "http://1.1.1.1/",
    "http://8.8.8.8:80/",
    "http://134744072/",
    "http://[2606:4700:4700::1111]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[64:ff9b::8.8.8.8]/",
    "http://[2002:808:808::1]/",
    "http://bücher.example/",
    "http://a_b.example/path/ünïcode",
    "http://1password.com/",
    "http://4.example/",
    "http://localhost.example.com/",
    "http://169.254.169.254.example.com/",
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_url_is_refused(url: str) -> None:
    with pytest.raises(BlockedAddress) as refusal:
        GUARD.check_url(url)
    assert refusal.value.reason in str(refusal.value)


@pytest.mark.parametrize("url", GOOD_URLS)
def test_public_url_passes(url: str) -> None:
    GUARD.check_url(url)


def test_refusal_neither_repeats_credentials_nor_breaks_the_line() -> None:
    with pytest.raises(BlockedAddress) as refusal:
        GUARD.check_url("http://user:secret@example.com/")
    assert "secret" not in str(refusal.value)
    assert "secret" not in refusal.value.target
    with pytest.raises(BlockedAddress) as refusal:
        GUARD.check_url("http://example.com/\nERROR forged")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/",
        "http://127.0.0.1:8081/",
        "http://0x7f.1:8080/",
        "http://127.1:8080/",
        "http://[::ffff:127.0.0.1]:8080/",
        "http://127.0.0.1/",
        "https://127.0.0.1/",
        "http://user@127.0.0.1:8080/",
        "ftp://127.0.0.1:8080/",
        "http://127.0.0.1.:8080/",
    ],
)
def test_allow_list_opens_nothing_but_the_spelled_host_and_port(url: str) -> None:
    guard = AddressGuard.from_settings(["127.0.0.1:8080"])
    with pytest.raises(BlockedAddress):
        guard.check_url(url)


def test_allow_list_opens_the_listed_host_whatever_its_address() -> None:
    guard = AddressGuard.from_settings(["127.0.0.1:8080", "Shop.Test:9000", "[::1]:7000"])
    guard.check_url("http://127.0.0.1:8080/page")
    guard.check_url("https://shop.test:9000/")
    guard.check_url("http://[::1]:7000/")
    guard.check_address("shop.test", 9000, "10.0.0.5")
    with pytest.raises(BlockedAddress):
        guard.check_address("shop.test", 80, "10.0.0.5")


@pytest.mark.parametrize(
    "text", ["localhost", "localhost:", "localhost:0", "localhost:70000", ":80", "a@b:80", "::1:80"]
)
def test_malformed_allow_list_entry_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not host:port"):
        AllowedHost.parse(text)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::1", "fe80::1%eth0", "2606:4700::1111%1", "10.0.0.1", "not an address"]
)
def test_public_name_with_an_inner_address_is_refused_at_connect(address: str) -> None:
    with pytest.raises(BlockedAddress):
        GUARD.check_address("example.com", 443, address)


def test_connection_to_another_port_is_refused_even_to_a_public_address() -> None:
    with pytest.raises(BlockedAddress, match="port 22"):
        GUARD.check_address("example.com", 22, "8.8.8.8")
    GUARD.check_address("example.com", 443, "8.8.8.8")


@pytest.mark.parametrize("text", SPECIAL)
def test_both_ends_of_a_special_purpose_network_are_refused(text: str) -> None:
    network = ip_network(text)
    assert not is_public(network[0])
    assert not is_public(network[-1])


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("fd00::1", "private"),
        ("fe80::1", "link-local"),
        ("fec0::1", "site-local"),
        ("ff02::1", "multicast"),
        ("64:ff9b:1::1", "translation"),
        ("4000::1", "not global unicast"),
        ("::ffff:127.0.0.1", "this machine"),
    ],
)
def test_refusal_says_why(address: str, reason: str) -> None:
    with pytest.raises(BlockedAddress, match=reason):
        GUARD.check_address("example.com", 80, address)


@given(st.sampled_from(SPECIAL).flatmap(lambda network: st.ip_addresses(network=network)))
def test_every_special_purpose_address_is_refused(address: IPv4Address | IPv6Address) -> None:
    assert not is_public(address)


CARRIERS: list[Callable[[int], int]] = [
    lambda v4: v4,  # IPv4-compatible
    lambda v4: 0xFFFF << 32 | v4,  # IPv4-mapped
    lambda v4: int(IPv6Address("64:ff9b::")) | v4,
    lambda v4: int(IPv6Address("2002::")) | v4 << 80 | 1,
    lambda v4: int(IPv6Address("2001:0:808:808::")) | v4 ^ 0xFFFFFFFF,  # Teredo client behind a public server
    lambda v4: int(IPv6Address("2001::")) | v4 << 64 | 0x08080808 ^ 0xFFFFFFFF,  # the server of a public client
]
PUBLIC_MOSTLY = st.binary(min_size=4, max_size=4).map(IPv4Address)
V4_ADDRESSES = PUBLIC_MOSTLY | st.one_of(
    *(st.ip_addresses(network=network) for network in SPECIAL if ip_network(network).version == 4),
)


@given(V4_ADDRESSES, st.sampled_from(CARRIERS))
def test_carried_address_is_judged_like_the_bare_one(address: IPv4Address, carry: Callable[[int], int]) -> None:
    assert is_public(IPv6Address(carry(int(address)))) == is_public(address)


@given(st.ip_addresses(v=6))
def test_ipv6_outside_global_unicast_is_public_only_as_a_carrier(address: IPv6Address) -> None:
    carriers = [IPv6Network("::/96"), IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96")]
    if address not in IPv6Network("2000::/3") and not any(address in network for network in carriers):
        assert not is_public(address)


@st.composite
def spelled_v4(draw: st.DrawFn) -> tuple[IPv4Address, str]:
    """An IPv4 address and one of the texts that inet_aton(3) reads as it."""
    address = draw(V4_ADDRESSES)
    octets = list(address.packed)
    count = draw(st.integers(1, 4))
    numbers = [*octets[: count - 1], int.from_bytes(bytes(octets[count - 1 :]))]
    formats = st.sampled_from(["{}", "0x{:x}", "0X{:X}", "0{:o}", "000{:o}", "0x00{:x}"])
    return address, ".".join(draw(formats).format(number) for number in numbers)


@given(spelled_v4())
def test_no_spelling_of_an_inner_address_passes(spelled: tuple[IPv4Address, str]) -> None:
    address, text = spelled
    assert socket.inet_aton(text) == address.packed
    if not is_public(address):
        with pytest.raises(BlockedAddress):
            GUARD.check_url(f"http://{text}/")


# -- the whole guard against a model of its own

PROTOCOLS = "2001::/23"
"""Of the registry too; a Teredo address, which lies in it, is judged by what it carries all the same."""


def is_public_by_the_registries(address: IPv4Address | IPv6Address) -> bool:
    """What the registries and the RFCs of the transition prefixes say, written without a look at the module."""
    if any(address in ip_network(network) for network in SPECIAL if not network.startswith("::ffff:")):
        return False
    if isinstance(address, IPv4Address):
        return True
    groups = [int(group, 16) for group in address.exploded.split(":")]
    tail = IPv4Address(groups[6] << 16 | groups[7])
    if groups[:6] in ([0] * 6, [0] * 5 + [0xFFFF], [0x64, 0xFF9B, 0, 0, 0, 0]):
        return is_public_by_the_registries(tail)
    if groups[0] == 0x2002:
        return is_public_by_the_registries(IPv4Address(groups[1] << 16 | groups[2]))
    if groups[:2] == [0x2001, 0]:
        server, client = IPv4Address(groups[2] << 16 | groups[3]), IPv4Address(int(tail) ^ 0xFFFFFFFF)
        return is_public_by_the_registries(server) and is_public_by_the_registries(client)
    return 0x2000 <= groups[0] <= 0x3FFF and address not in ip_network(PROTOCOLS)


@st.composite
def near_a_border(draw: st.DrawFn) -> IPv4Address | IPv6Address:
    """An address within a few of where a network begins or ends, on both sides."""
    network = ip_network(draw(st.sampled_from([*SPECIAL, PROTOCOLS, "2002::/16", "64:ff9b::/96", "::/96", "2000::/3"])))
    place = int(draw(st.sampled_from([network[0], network[-1]]))) + draw(st.integers(-3, 3))
    return type(network[0])(place % 2**network.max_prefixlen)


V6_ADDRESSES = st.one_of(
    st.builds(lambda carry, v4: IPv6Address(carry(int(v4))), st.sampled_from(CARRIERS), V4_ADDRESSES),
    st.integers(0, 2**125 - 1).map(lambda rest: IPv6Address(1 << 125 | rest)),
    st.ip_addresses(v=6),
)


@given(st.one_of(near_a_border(), V4_ADDRESSES, V6_ADDRESSES))
@settings(max_examples=500)
def test_guard_agrees_with_the_registries(address: IPv4Address | IPv6Address) -> None:
    assert is_public(address) == is_public_by_the_registries(address)


@given(spelled_v4())
@settings(max_examples=60, deadline=None)
async def test_resolver_reads_every_spelling_as_the_address_that_is_judged(spelled: tuple[IPv4Address, str]) -> None:
    """The system's resolver takes the texts of inet_aton(3): what it returns has passed, or nothing is returned."""
    address, text = spelled
    try:
        found = await resolve(GUARD, text, 80)
    except BlockedAddress:
        return
    assert found == [address]
    assert is_public_by_the_registries(address)


@given(st.one_of(V6_ADDRESSES, near_a_border().filter(lambda address: address.version == 6)))
def test_every_text_of_an_ipv6_address_is_judged_alike(address: IPv6Address) -> None:
    tail = IPv4Address(int(address) & 0xFFFFFFFF)
    mixed = f"{':'.join(address.exploded.split(':')[:6])}:{tail}"
    for text in (address.compressed, address.exploded, address.compressed.upper(), mixed):
        try:
            GUARD.check_url(f"http://[{text}]/")
        except BlockedAddress:
            assert not is_public_by_the_registries(address)
        else:
            assert is_public_by_the_registries(address)


async def test_resolve_refuses_a_name_of_this_machine() -> None:
    with pytest.raises(BlockedAddress):
        await resolve(GUARD, "localhost", 80)
    with pytest.raises(BlockedAddress):
        await resolve(GUARD, "010.0.0.1", 80)  # octal here, decimal and private elsewhere


async def test_resolve_answers_for_an_allowed_host() -> None:
    guard = AddressGuard.from_settings(["localhost:8080"])
    addresses = await resolve(guard, "localhost", 8080)
    assert addresses
    assert all(address.is_loopback for address in addresses)


async def test_resolve_returns_a_public_literal() -> None:
    assert await resolve(GUARD, "8.8.8.8", 443) == [ip_address("8.8.8.8")]


@pytest.mark.parametrize("bad", ["127.0.0.1", "::ffff:10.0.0.1", "fe80::1%2"])
async def test_one_bad_answer_blocks_the_name(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver of the system is replaced: a public name with mixed answers cannot be had without a network."""

    async def answer(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (address, port)) for address in ("8.8.8.8", bad, "1.1.1.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", answer)
    with pytest.raises(BlockedAddress):
        await resolve(GUARD, "mixed.example", 80)


async def test_unknown_name_is_not_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deny(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", deny)
    with pytest.raises(UnknownHost, match="not known"):
        await resolve(GUARD, "nothing.invalid", 80)


async def test_silent_resolver_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    with pytest.raises(UnknownHost, match=r"0\.05 s"):
        await resolve(GUARD, "slow.example", 80, timeout_seconds=0.05)


def test_module_loads_without_settings_or_installed_packages() -> None:
    """A crawler imports it in a process of its own, with nothing of the service configured."""
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); import adapters.addresses; "
        "own = {'settings', 'errors'} & set(sys.modules); assert not own, own"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], env={}, check=True, timeout=20)
