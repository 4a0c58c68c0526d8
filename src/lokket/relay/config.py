"""What an operator may choose, and which choices would show people's metadata to the network.

Where the values come from is ``settings``. Everything else has one value, in ``lokket.limits``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lokket import limits
from lokket.errors import LocalError
from lokket.relay.budgets import RATES, Rate

DEFAULT_PORT: Final = 7677


@dataclass(frozen=True, slots=True)
class Admission:
    """New accounts only while this machine has room. 0 switches a limit off."""

    load_max: float = limits.ADMISSION_LOAD_MAX  # per processor, the average of five minutes
    memory_min_bytes: int = limits.ADMISSION_MEMORY_MIN_BYTES  # available
    disk_min_bytes: int = limits.ADMISSION_DISK_MIN_BYTES  # free, where the data is


EVERYONE: Final = Admission(0, 0, 0)


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """``origin``: what invites and logins bind, printable ASCII; the address that clients are told."""

    origin: str = ""  # empty: ``serve`` makes it of host and port
    open: bool = False  # registration without a token
    data: Path | None = None  # None: in memory, gone with the process
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  # 0: any free one
    tls_cert: Path | None = None  # PEM, the whole chain
    tls_key: Path | None = None
    behind_proxy: bool = False  # believe X-Forwarded-For, from this machine and ``trusted_proxies``
    trusted_proxies: tuple[str, ...] = ()  # addresses or networks
    metrics_from: tuple[str, ...] = ()  # who may read /metrics, beside this machine
    mail_days: int = limits.MAILBOX_TTL_DAYS  # until undelivered mail is deleted
    mailbox_count_max: int = limits.MAILBOX_COUNT_MAX  # per device
    mailbox_max_bytes: int = limits.MAILBOX_MAX_BYTES
    blob_days: int = limits.BLOB_DAYS  # until a backup that was left here is deleted
    blobs_max_bytes: int = limits.BLOBS_MAX_BYTES  # of one account's together; 0: this relay keeps none
    storage_max_bytes: int = 0  # 0: what the disk has, less ``limits.DISK_RESERVE_BYTES``
    connections_max: int = limits.CONNECTIONS_MAX
    connections_per_address_max: int = limits.CONNECTIONS_PER_ADDRESS_MAX
    admission: Admission = Admission()
    rates: Mapping[str, Rate] = field(default_factory=lambda: RATES)

    @property
    def speaks_tls(self) -> bool:
        return self.tls_cert is not None


def require_safe(config: RelayConfig) -> None:
    """LocalError: with these choices connections would cross a network without TLS, or reach nobody."""
    if (config.tls_cert is None) != (config.tls_key is None):
        raise LocalError("TLS needs both, a certificate and its key: give --tls-cert and --tls-key")
    for entry in (*config.trusted_proxies, *config.metrics_from):
        network(entry)
    if config.trusted_proxies and not config.behind_proxy:
        raise LocalError("trusted proxies are listed, and the relay is behind none: give --behind-proxy")
    only_proxies = config.behind_proxy and bool(config.trusted_proxies)
    if not (config.speaks_tls or only_proxies or is_loopback(config.host)):
        raise LocalError(
            f"the relay would speak without TLS and will not listen on {config.host}: give --tls-cert and "
            "--tls-key, or listen on 127.0.0.1 behind a proxy with TLS (--behind-proxy)"
        )
    if not config.origin and (config.behind_proxy or _is_any(config.host)):
        raise LocalError("clients must be told an address: give --origin wss://NAME")
    _require_safe_origin(config.origin)


def _require_safe_origin(origin: str) -> None:
    if not origin:
        return
    try:
        parts = urlsplit(origin)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("ws", "wss") or parts.query or parts.fragment or parts.username:
        raise LocalError("the origin is an address such as wss://relay.example.org")
    if parts.scheme == "ws" and not is_loopback(host):
        raise LocalError("clients would be told an address without TLS: the origin must begin with wss://")


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """LocalError: neither an address nor a network."""
    try:
        return ipaddress.ip_network(entry)
    except ValueError:
        raise LocalError(f"{entry!r} is no address and no network, such as 10.0.0.2 or 10.0.0.0/24") from None
