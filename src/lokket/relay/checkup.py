"""Would a relay start with these settings, and would clients find it? Reads; starts and changes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from lokket.errors import LocalError
from lokket.relay.config import RelayConfig, require_safe
from lokket.relay.tls import ServerTls, read_certificate

_RENEW_DAYS: Final = 14


@dataclass(frozen=True, slots=True)
class Finding:
    """``fatal``: the relay would not start, or nobody could reach it."""

    fatal: bool
    sentence: str


def checkup(config: RelayConfig, now_s: int) -> list[Finding]:
    return [*_choices(config), *_certificate(config, now_s), *_folder(config.data)]


def _choices(config: RelayConfig) -> Iterator[Finding]:
    try:
        require_safe(config)
    except LocalError as error:
        yield Finding(True, str(error))
    if config.open:
        yield Finding(False, "anyone who finds the address may register: open is true")
    if not config.origin and not config.speaks_tls:
        yield Finding(False, "only this machine reaches it: there is neither TLS nor an origin")


def _certificate(config: RelayConfig, now_s: int) -> Iterator[Finding]:
    if config.tls_cert is None or config.tls_key is None:
        return
    try:
        ServerTls(config.tls_cert, config.tls_key)
        found = read_certificate(config.tls_cert)
    except LocalError as error:
        yield Finding(True, str(error))
        return
    days = found.days_left(now_s)
    if days < 0:
        yield Finding(True, f"the certificate expired on {found.not_after:%Y-%m-%d}")
    elif days < _RENEW_DAYS:
        yield Finding(False, f"the certificate is good for {days} more days: is it renewed by itself?")
    host = urlsplit(config.origin).hostname if config.origin else config.host
    if host and not found.is_for(host):
        yield Finding(True, f"the certificate is not for {host}: clients will refuse it")
    if os.name == "posix" and config.tls_key.stat().st_mode & 0o007:
        yield Finding(False, f"{config.tls_key} can be read by everyone on this machine")


def _folder(data: Path | None) -> Iterator[Finding]:
    if data is None:
        return
    nearest = next(path for path in (data, *data.parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        yield Finding(True, f"{data} cannot be used for data: {nearest} cannot be written")
