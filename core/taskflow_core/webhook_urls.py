"""Which URLs a webhook may have, as far as their form tells; what a name resolves to is checked at each delivery."""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address

from taskflow_core.addresses import Address, AllowList, canonical_host
from taskflow_core.errors import FieldProblem, Invalid


@dataclass(frozen=True, slots=True)
class UrlRules:
    """Which URLs a webhook may have: what the operator opened beside the Internet, and whether http is enough."""

    allow: AllowList
    allow_http: bool

    def check(self, url: str) -> str:
        """Return the URL as it will be called. What its name resolves to is checked at each delivery.

        Raises:
            Invalid: it cannot be called, is http, or names a private address; names the field.
        """
        # It brings a whole HTTP client: an API process whose users have no webhooks needs none.
        from taskflow_core.fetch import FetchRefused, checked_url

        try:
            parsed = checked_url(url)
        except FetchRefused as error:
            raise _bad_url(str(error)) from None
        if parsed.scheme == "http" and not self.allow_http:
            raise _bad_url("the URL must start with https://")
        port = parsed.port or (443 if parsed.scheme == "https" else 80)
        address = _literal(canonical_host(parsed.host))
        if address is not None and not self.allow.admits(parsed.host, port, address):
            raise _bad_url("the URL names an address that is not public; use the name of a public host")
        return str(parsed)


def _literal(host: str) -> Address | None:
    """Return the address that a host is written as, in any form that a resolver reads, or None for a name."""
    if host == "localhost" or host.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    try:
        return ip_address(host)
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))  # 127.1, 0x7f000001, 2130706433
    except OSError:
        return None


def _bad_url(why: str) -> Invalid:
    return Invalid("the webhook's URL may not be called", [FieldProblem("url", why)])
