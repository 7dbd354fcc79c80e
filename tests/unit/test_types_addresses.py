"""The address guard: every private form is refused, and only what an operator names is opened."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskflow_core import addresses
from taskflow_core.addresses import AllowList, is_public

CLOSED = AllowList.parse("")
closed_v4 = st.sampled_from(addresses.CLOSED_V4).flatmap(lambda network: st.ip_addresses(network=network))


@given(closed_v4)
def test_no_closed_ipv4_address_is_public(address: IPv4Address) -> None:
    assert not is_public(address)


@given(st.ip_addresses(v=4))
def test_no_ipv6_form_that_holds_an_ipv4_address_is_public(address: IPv4Address) -> None:
    number = int(address)
    forms = [
        IPv6Address((0xFFFF << 32) | number),  # ::ffff:a.b.c.d
        IPv6Address(number),  # ::a.b.c.d
        IPv6Address((0x64FF9B << 96) | number),  # NAT64
        IPv6Address((0x64FF9B0001 << 80) | number),  # NAT64, local prefix
        IPv6Address((0x2002 << 112) | (number << 80)),  # 6to4
        IPv6Address((0x20010000 << 96) | number),  # Teredo
    ]
    assert [str(form) for form in forms if is_public(form)] == []


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: IPv4Address | IPv6Address) -> None:
    assert not (is_public(address) and (address.is_private or address.is_multicast or address.is_link_local))


@pytest.mark.parametrize(
    "text",
    ["169.254.169.254", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fe80::1", "::1", "::",
     "0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1", "64:ff9b::a00:1", "2002:7f00:1::", "::ffff:127.0.0.1"],
)  # fmt: skip
def test_metadata_and_special_addresses_are_closed(text: str) -> None:
    assert not CLOSED.admits("name", 80, ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:80b::200e"])
def test_public_addresses_are_open(text: str) -> None:
    assert CLOSED.admits("name", 80, ip_address(text))


@pytest.mark.parametrize(
    ("listed", "host", "port", "address", "opened"),
    [
        ("api.internal", "API.internal.", 80, "10.0.0.7", True),
        ("api.internal", "other.internal", 80, "10.0.0.7", False),
        ("api.internal:8080", "api.internal", 8080, "10.0.0.7", True),
        ("api.internal:8080", "api.internal", 80, "10.0.0.7", False),
        ("10.1.0.0/16", "any", 80, "10.1.2.3", True),
        ("10.1.0.0/16", "any", 80, "10.2.2.3", False),
        ("127.0.0.1:9000", "localhost", 9000, "127.0.0.1", True),
        ("127.0.0.1:9000", "localhost", 9001, "127.0.0.1", False),
        ("[::1]:9000, x", "localhost", 9000, "::1", True),
        ("::1", "localhost", 1, "::1", True),
        ("::1", "localhost", 1, "127.0.0.1", False),
    ],
)
def test_an_operator_opens_exactly_what_is_listed(
    listed: str, host: str, port: int, address: str, opened: bool
) -> None:
    assert AllowList.parse(listed).admits(host, port, ip_address(address)) is opened


@pytest.mark.parametrize("entry", ["a b", "host:", "host:99999", "host:x", "http://host", "*.internal", "[::1", "@"])
def test_an_unreadable_entry_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match=r"not a host|port must be"):
        AllowList.parse(entry)
