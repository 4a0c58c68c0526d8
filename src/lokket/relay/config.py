"""What an operator may choose. Everything else has one value, in ``lokket.limits`` or here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from lokket import limits
from lokket.relay.budgets import RATES, Rate

DEFAULT_PORT: Final = 7677


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """``origin``: what invites and logins bind, printable ASCII; the address that clients are told."""

    origin: str = ""  # empty: ``serve`` makes it of host and port
    open: bool = False  # registration without a token
    data: Path | None = None  # None: in memory, gone with the process
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT  # 0: any free one
    storage_max_bytes: int = 0  # 0: what the disk has, less ``limits.DISK_RESERVE_BYTES``
    connections_max: int = limits.CONNECTIONS_MAX
    connections_per_address_max: int = limits.CONNECTIONS_PER_ADDRESS_MAX
    rates: Mapping[str, Rate] = field(default_factory=lambda: RATES)
