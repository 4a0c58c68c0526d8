"""Whose connection it is: the peer's address, or the one that a trusted proxy names in X-Forwarded-For.

Used for limits alone, and kept nowhere. Who is not trusted may write into that header what it likes.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from lokket.relay.config import RelayConfig, network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_USER_PREFIX_V6 = 64  # what one household or server gets: its addresses count as one


class Peers:
    def __init__(self, config: RelayConfig) -> None:
        self._behind_proxy = config.behind_proxy
        self._proxies = tuple(network(entry) for entry in config.trusted_proxies)
        self._readers = tuple(network(entry) for entry in config.metrics_from)
        self._everyone = config.speaks_tls or not self._proxies

    def admits(self, peer: str) -> bool:
        """Without TLS, and on more than loopback: the listed proxies and this machine alone."""
        address = _address(peer)
        return self._everyone or (address is not None and self._trusts(address))

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The last address in the chain of proxies that no trusted one has set for itself."""
        address = _address(peer)
        if address is None:
            return peer
        if self._behind_proxy:
            named = [entry.strip() for header in forwarded for entry in header.split(",")]
            while named and self._trusts(address):
                before = _address(named.pop())
                if before is None:
                    break
                address = before
        return str(address)

    def may_read_metrics(self, client: str) -> bool:
        address = _address(client)
        if address is None:
            return False
        return address.is_loopback or any(address in reader for reader in self._readers)

    def _trusts(self, address: Address) -> bool:
        return address.is_loopback or any(address in proxy for proxy in self._proxies)


def counted_as(client: str) -> str:
    """The subject of the limit per address: an IPv6 network of one user counts as one."""
    address = _address(client)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, _USER_PREFIX_V6), strict=False))
    return client


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
