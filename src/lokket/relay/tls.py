"""The relay's certificate: TLS 1.2 or newer (RFC 8446, RFC 9325), read again when it was renewed.

Clients are known by their keys, so none of them is asked for a certificate.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from lokket.errors import LocalError


class ServerTls:
    """``context`` goes to the server; ``renew`` lets new connections see what the files hold now."""

    def __init__(self, cert: Path, key: Path) -> None:
        """LocalError: the files cannot be read, or do not belong together."""
        self._cert, self._key = cert, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        self._load(self.context)
        self._seen = self._stamp()

    def renew(self) -> bool:
        """Whether another pair was taken over. LocalError: the new one cannot be used; the old stays."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # a bad pair must not reach the one in use
        self._load(self.context)
        return True

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except _Encrypted:
            raise LocalError(f"{self._key} is guarded by a password: the relay starts unattended") from None
        except ssl.SSLError as error:
            reason = "they do not belong together" if "MISMATCH" in str(error.reason) else "they are not PEM"
            raise LocalError(f"{self._cert} and {self._key} cannot be used for TLS: {reason}") from None
        except OSError as error:
            raise LocalError(f"the certificate or its key cannot be read: {error.strerror}") from None

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        stamps = []
        for path in (self._cert, self._key):
            try:
                found = path.stat()
            except OSError:
                return ()
            stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(stamps)


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says of itself; ``names`` are the hosts that it is for."""

    names: tuple[str, ...]
    not_after: datetime

    def is_for(self, host: str) -> bool:
        parent = host.partition(".")[2]
        return host in self.names or (bool(parent) and f"*.{parent}" in self.names)

    def days_left(self, now_s: int) -> int:
        return (self.not_after - datetime.fromtimestamp(now_s, UTC)).days


def read_certificate(path: Path) -> Certificate:
    """The first of the file. LocalError: there is none."""
    try:
        first = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError, IndexError):
        raise LocalError(f"there is no certificate in {path}") from None
    names: list[str] = []
    try:
        found = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += found.get_values_for_type(x509.DNSName)
        names += [str(address) for address in found.get_values_for_type(x509.IPAddress)]
    except x509.ExtensionNotFound:
        pass  # browsers and clients look nowhere else
    return Certificate(tuple(names), first.not_valid_after_utc)
