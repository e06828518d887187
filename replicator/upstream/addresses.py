"""Which network an address belongs to, and whether an upstream may send us there.

A redirect or a token realm is a URL that somebody else chose. Followed blindly it reaches the metadata service of the
cloud, or the administration port on our own loopback (server-side request forgery: CVE-2020-13788, CVE-2025-59346).
The decision is taken on the address that is about to be connected to, not on a name that may resolve otherwise a
moment later.
"""

from __future__ import annotations

import enum
import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

_NEAR: Collection[ipaddress.IPv4Network] = (
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocol assignments; a metadata service lives there
    ipaddress.IPv4Network("168.63.129.16/32"),  # public by its number, and a cloud's own service on the machine's link
)
"""What is near us although its numbers do not say so."""


class Network(enum.StrEnum):
    """Kinds of network, as far as it matters who may send us there."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"
    RESERVED = "reserved"


_REACHABLE_FROM: Mapping[Network, frozenset[Network]] = {
    Network.PUBLIC: frozenset({Network.PUBLIC}),
    Network.PRIVATE: frozenset({Network.PUBLIC, Network.PRIVATE}),
    Network.LOOPBACK: frozenset({Network.PUBLIC, Network.PRIVATE, Network.LOOPBACK}),
    Network.LINK_LOCAL: frozenset({Network.PUBLIC, Network.LINK_LOCAL}),
    Network.RESERVED: frozenset({Network.PUBLIC}),
}


def network_of(address: str) -> Network:
    """Return the network of an IP address; an address within an address counts as the inner one.

    Raises ValueError when `address` is not an IP address.
    """
    ip = _innermost(ipaddress.ip_address(address.partition("%")[0]))
    if ip.is_loopback or ip.is_unspecified:  # 0.0.0.0 and :: connect to this machine
        return Network.LOOPBACK
    if ip.is_link_local:
        return Network.LINK_LOCAL
    if ip.is_multicast or ip.is_reserved:
        return Network.RESERVED
    return Network.PUBLIC if ip.is_global and not _is_near(ip) else Network.PRIVATE


def is_address(host: str) -> bool:
    """Tell whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def is_local_name(host: str) -> bool:
    """Tell whether `host` is a name of this machine, whatever a resolver says (RFC 6761 §6.3)."""
    name = host.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def home_network(addresses: Collection[str]) -> Network:
    """Return the network a registry with these addresses is at: public as soon as one of them is.

    A registry that mixes public and internal addresses gets no way into the internal network by it.
    """
    networks = {network_of(address) for address in addresses}
    return networks.pop() if len(networks) == 1 else Network.PUBLIC


def may_reach(home: Network, address: str) -> bool:
    """Tell whether a registry at `home` may send us to `address`."""
    return network_of(address) in _REACHABLE_FROM[home]


def _is_near(ip: IpAddress) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        return ip.is_site_local  # deprecated, and routed in old networks all the same
    return any(ip in network for network in _NEAR)


def _innermost(ip: IpAddress) -> IpAddress:
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or ip
