"""Which network an address is in, and where a registry may send us."""

from __future__ import annotations

import pytest

from replicator.upstream.addresses import Network, home_network, is_address, may_reach, network_of


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("1.1.1.1", Network.PUBLIC),
        ("2606:4700:4700::1111", Network.PUBLIC),
        ("10.1.2.3", Network.PRIVATE),
        ("172.16.0.1", Network.PRIVATE),
        ("192.168.1.1", Network.PRIVATE),
        ("100.64.0.1", Network.PRIVATE),
        ("fd00::1", Network.PRIVATE),
        ("fec0::1", Network.PRIVATE),
        ("192.0.0.192", Network.PRIVATE),
        ("168.63.129.16", Network.PRIVATE),
        ("::ffff:168.63.129.16", Network.PRIVATE),
        ("127.0.0.1", Network.LOOPBACK),
        ("127.9.9.9", Network.LOOPBACK),
        ("::1", Network.LOOPBACK),
        ("0.0.0.0", Network.LOOPBACK),  # noqa: S104 -- not bound to
        ("::", Network.LOOPBACK),
        ("169.254.169.254", Network.LINK_LOCAL),
        ("fe80::1%eth0", Network.LINK_LOCAL),
        ("224.0.0.1", Network.RESERVED),
        ("240.0.0.1", Network.RESERVED),
        ("255.255.255.255", Network.RESERVED),
        ("ff02::1", Network.RESERVED),
        ("::ffff:127.0.0.1", Network.LOOPBACK),
        ("::ffff:169.254.169.254", Network.LINK_LOCAL),
        ("::ffff:10.0.0.1", Network.PRIVATE),
        ("64:ff9b::7f00:1", Network.LOOPBACK),
        ("64:ff9b::a9fe:a9fe", Network.LINK_LOCAL),
        ("2002:7f00:1::", Network.LOOPBACK),
    ],
)
def test_network_of_an_address(address: str, network: Network) -> None:
    assert network_of(address) is network


@pytest.mark.parametrize("text", ["localhost", "127.1", "0x7f000001", "2130706433", "", "example.org"])
def test_name_is_no_address(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize(
    ("home", "reachable"),
    [
        (Network.PUBLIC, {"1.1.1.1"}),
        (Network.PRIVATE, {"1.1.1.1", "10.0.0.1"}),
        (Network.LOOPBACK, {"1.1.1.1", "10.0.0.1", "127.0.0.1"}),
        (Network.LINK_LOCAL, {"1.1.1.1", "169.254.169.254"}),
    ],
)
def test_registry_sends_us_no_closer_than_it_is(home: Network, reachable: set[str]) -> None:
    addresses = ("1.1.1.1", "10.0.0.1", "127.0.0.1", "169.254.169.254", "224.0.0.1", "::ffff:127.0.0.1")
    expected = reachable | ({"::ffff:127.0.0.1"} if home is Network.LOOPBACK else set())
    assert {address for address in addresses if may_reach(home, address)} == expected


def test_registry_that_mixes_public_and_internal_addresses_counts_as_public() -> None:
    assert home_network(["127.0.0.1", "1.1.1.1"]) is Network.PUBLIC
    assert home_network(["10.0.0.1", "127.0.0.1"]) is Network.PUBLIC
    assert home_network(["10.0.0.1", "10.0.0.2"]) is Network.PRIVATE
    assert home_network([]) is Network.PUBLIC
