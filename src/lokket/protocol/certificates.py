"""Certificates of sealed sender in libsignal-client 0.103's bytes: who vouches for the sender inside.

A trust root signs server certificates, a server signs sender certificates for a day or so, all by XEdDSA
over the bytes as received. The relay sees neither; the recipient checks both (``check_certificate``).

    ServerCertificate = {1: {1: key id, 2: key}, 2: signature}
    SenderCertificate = {1: {1: e164, 2: device, 3: expiry, 4: identity key, 5: server certificate,
                             6: account as text or 7: as 16 bytes}, 2: signature}

Source: libsignal's format, fixed by recorded outputs (it has no public specification). Field 8, a server
certificate named by a number, is refused: such a table belongs to Signal's own servers.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from lokket.codec import protobuf
from lokket.codec.protobuf import BYTES, FIXED64, VARINT
from lokket.crypto.xeddsa import SIGNATURE_BYTES, IdentityKeyPair, check_identity_key, verify_xeddsa
from lokket.errors import DecodeError, KeyRefused, LocalError, SignatureRefused
from lokket.limits import CERTIFICATE_MAX_BYTES, CLOCK_SKEW_S, E164_MAX_CHARS
from lokket.protocol.pairwise import Address

_SIGNED_FIELDS: Final = {1: BYTES, 2: BYTES}
_SERVER_FIELDS: Final = {1: VARINT, 2: BYTES}
_SENDER_FIELDS: Final = {
    1: BYTES,
    2: VARINT,
    3: FIXED64,
    4: BYTES,
    5: BYTES,
    6: BYTES,
    7: BYTES,
    8: VARINT,
}


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A server's key, vouched for by a root; not checked yet."""

    key_id: int  # uint32
    key: bytes  # 33
    signed: bytes
    signature: bytes  # 64

    def encode(self) -> bytes:
        return protobuf.encode(((1, self.signed), (2, self.signature)))


@dataclass(frozen=True, slots=True)
class SenderCertificate:
    """A device's identity key, vouched for by a server until ``expires_ms``; not checked yet."""

    sender: Address
    identity_key: bytes  # 33
    expires_ms: int
    e164: str | None  # a telephone number; we never write one
    server: ServerCertificate
    signed: bytes
    signature: bytes  # 64

    def encode(self) -> bytes:
        return protobuf.encode(((1, self.signed), (2, self.signature)))


def issue_server_certificate(root: IdentityKeyPair, key_id: int, key: bytes) -> ServerCertificate:
    """The root's word for a server's 33-byte ``key``; an id once revoked is not used again."""
    if not 0 <= key_id < 1 << 32:
        raise LocalError("a server key's id is a uint32")
    signed = protobuf.encode(((1, key_id), (2, key)))
    return ServerCertificate(key_id, key, signed, root.sign(signed))


def issue_sender_certificate(
    server_key: IdentityKeyPair,
    server: ServerCertificate,
    sender: Address,
    identity_key: bytes,
    expires_ms: int,
) -> SenderCertificate:
    """The server's word that ``identity_key`` (33 B) is this device's. LocalError: not the server's key."""
    if server_key.public != server.key:
        raise LocalError("this server certificate is of another key")
    if not 0 <= expires_ms < 1 << 64:
        raise LocalError("an expiry is a time in milliseconds since 1970")
    signed = b"".join(
        (
            protobuf.encode(((2, sender.device),)),
            b"\x19" + expires_ms.to_bytes(8, "little"),
            protobuf.encode(
                (
                    (4, identity_key),
                    (5, server.encode()),
                    (6, str(uuid.UUID(bytes=sender.service_id)).encode()),
                )
            ),
        )
    )
    signature = server_key.sign(signed)
    return SenderCertificate(sender, identity_key, expires_ms, None, server, signed, signature)


def decode_server_certificate(data: bytes) -> ServerCertificate:
    """DecodeError, KeyRefused: ``data`` is no server certificate. Its signature is not checked here."""
    signed, signature = _split(data)
    fields = protobuf.decode(signed, _SERVER_FIELDS)
    key = fields.string(2)
    check_identity_key(key)
    return ServerCertificate(fields.number(1), key, signed, signature)


def decode_sender_certificate(data: bytes) -> SenderCertificate:
    """DecodeError, KeyRefused: ``data`` is no sender certificate. Its signatures are not checked here."""
    signed, signature = _split(data)
    fields = protobuf.decode(signed, _SENDER_FIELDS)
    if 8 in fields.numbers:
        raise DecodeError("a certificate names its server by a number", code="unknown-server")
    key = fields.string(4)
    check_identity_key(key)
    try:
        sender = Address(_account(fields), fields.number(2))
    except LocalError:
        raise DecodeError("a certificate is of an impossible device") from None
    return SenderCertificate(
        sender=sender,
        identity_key=key,
        expires_ms=fields.number(3),
        e164=_e164(fields.strings.get(1)),
        server=decode_server_certificate(fields.string(5)),
        signed=signed,
        signature=signature,
    )


def check_certificate(
    certificate: SenderCertificate,
    trust_roots: Collection[bytes],
    now_ms: int,
    revoked: Collection[int] = (),
) -> None:
    """SignatureRefused unless a root vouches for the server, the server for the sender, and it is in time.

    1. The server's key id is not among ``revoked``.
    2. One of ``trust_roots`` (33 B each) signed the server certificate.
    3. That server's key signed the sender certificate.
    4. It expires not before ``now_ms``, give or take CLOCK_SKEW_S: the time at which the relay took the
       message, where that is known.

    LocalError: a trust root that is no identity key.
    """
    if not all(map(_is_identity_key, trust_roots)):
        raise LocalError("a trust root is no identity key of 33 bytes")
    server = certificate.server
    if server.key_id in revoked:
        raise SignatureRefused("a server certificate is revoked", code="certificate-revoked")
    if not any(_verifies(root, server.signature, server.signed) for root in trust_roots):
        raise SignatureRefused("no trust root signed a server certificate", code="unknown-server")
    verify_xeddsa(server.key, certificate.signature, certificate.signed)
    if now_ms > certificate.expires_ms + CLOCK_SKEW_S * 1000:
        raise SignatureRefused("a sender certificate has expired", code="certificate-expired")


def _is_identity_key(root: bytes) -> bool:
    try:
        check_identity_key(root)
    except KeyRefused:
        return False
    return True


def _verifies(root: bytes, signature: bytes, signed: bytes) -> bool:
    try:
        verify_xeddsa(root, signature, signed)
    except SignatureRefused:
        return False
    return True


def _split(data: bytes) -> tuple[bytes, bytes]:
    if len(data) > CERTIFICATE_MAX_BYTES:
        raise DecodeError("a certificate is too long", code="too-long")
    fields = protobuf.decode(data, _SIGNED_FIELDS)
    return fields.string(1), fields.string(2, SIGNATURE_BYTES)


def _account(fields: protobuf.Fields) -> bytes:
    """The account's 16 bytes, in one form or the other and not in both."""
    text, raw = fields.strings.get(6), fields.strings.get(7)
    if (text is None) == (raw is None):
        raise DecodeError("a certificate names no account, or two")
    if text is None:
        return fields.string(7, 16)
    try:
        account = uuid.UUID(text.decode("ascii"))
    except ValueError:
        raise DecodeError("a certificate's account is no UUID") from None
    if str(account).encode() != text:
        raise DecodeError("a certificate's account is not in its usual form")
    return account.bytes


def _e164(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise DecodeError("a telephone number is not text") from None
    if len(text) > E164_MAX_CHARS or not text.isprintable():
        raise DecodeError("a telephone number is malformed")
    return text
