"""Which network addresses this platform may call on a user's behalf: public ones, and what the operator opened.

Written as an explicit list rather than `ipaddress.is_global`, whose answer differs between Python versions.
Sources: the IANA special-purpose address registries (RFC 6890) and the metadata addresses of the large clouds.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

CLOSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier NAT, and Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform address, public in form only
        "169.254.0.0/16",  # link-local, and the metadata of AWS, Google and Azure
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relay
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# Global unicast is 2000::/3. All else is closed: loopback, link-local, unique local, multicast, the forms that hold
# an IPv4 address (::ffff:0:0/96, ::/96, NAT64 64:ff9b::/96 and 64:ff9b:1::/48).
OPEN_V6 = IPv6Network("2000::/3")
CLOSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which holds an IPv4 address
        "3fff::/20",  # documentation
    )
)


def is_public(address: Address) -> bool:
    """Whether the address is one that anybody on the Internet may call."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in CLOSED_V4)
    return address in OPEN_V6 and not any(address in network for network in CLOSED_V6)


@dataclass(frozen=True, slots=True)
class Opening:
    """One entry of an allow-list: a host name or a network, with a port or without."""

    host: str | None
    network: Network | None
    port: int | None

    def admits(self, host: str, port: int, address: Address) -> bool:
        """Whether a connection to `address`, which is what `host` resolved to, is opened by this entry."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address.version == self.network.version and address in self.network
        return self.host == canonical_host(host)


@dataclass(frozen=True, slots=True)
class AllowList:
    """What the operator opened beside the public Internet."""

    openings: tuple[Opening, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "AllowList":
        """Read a comma separated list of host, host:port, address, address:port, [v6]:port or CIDR.

        Raises:
            ValueError: with a sentence that names the entry.
        """
        return cls(tuple(_opening(entry.strip()) for entry in text.split(",") if entry.strip()))

    def admits(self, host: str, port: int, address: Address) -> bool:
        """Whether a connection to `address`, which is what `host` resolved to, is allowed."""
        return is_public(address) or any(opening.admits(host, port, address) for opening in self.openings)


def canonical_host(host: str) -> str:
    """Return the host in lower case without the dot of a fully qualified name."""
    return host.lower().removesuffix(".")


def _opening(entry: str) -> Opening:
    network = _network(entry)
    if network is not None:
        return Opening(None, network, None)
    host, port = _split_port(entry)
    network = _network(host)
    if network is not None and "/" not in host:
        return Opening(None, network, port)
    if entry.startswith("[") or not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", host):
        raise ValueError(f"{entry!r} is not a host, host:port, address or CIDR")
    return Opening(canonical_host(host), None, port)


def _split_port(entry: str) -> tuple[str, int | None]:
    host, colon, digits = entry.rpartition(":")
    if not colon:
        return entry, None
    if not re.fullmatch(r"[0-9]{1,5}", digits) or not 0 < int(digits) < 65_536:
        raise ValueError(f"{entry!r}: the port must be a number from 1 to 65535")
    return host.removeprefix("[").removesuffix("]"), int(digits)


def _network(text: str) -> Network | None:
    try:
        if "/" in text:
            return ip_network(text, strict=False)
        return ip_network(ip_address(text))
    except ValueError:
        return None
