"""Sealed sender in libsignal-client 0.103's bytes: the relay sees for whom a message is, not from whom.

Out: a message for one device (``pairwise``) or a group (``sender_keys``) becomes a ``Content`` with the
sender's certificate, and is sealed to an identity key: ``seal`` (version 2), ``seal_v1``, or
``seal_to_many``, one ciphertext with a key for each recipient, which a relay takes apart by ``split``
without any key.
In: ``open_sealed`` gives ``Opened``, of which nothing is believed; ``check`` gives ``Verified``; and
``decrypt`` hands what is inside to the session of the device that the certificate names, and to no other.

    version 1 = 11 || {1: E[33], 2: sealed S[33], 3: sealed content}
    version 2 = 22 || C[32] || AT[16] || E[32] || AES-256-GCM-SIV(content)
    to many   = 23 || n || n * (00 || account[16] || devices || C[32] || AT[16]) || E[32] || ciphertext

Source: libsignal's format, fixed by recorded outputs (it has no public specification). Sealing hides the
sender from the relay's eyes only: times, sizes and who answers whom still speak (docs/attacks.md, row 53).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from lokket.codec import protobuf
from lokket.codec.protobuf import BYTES, VARINT, read_varint, varint
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import X25519KeyPair, check_x25519_encoding
from lokket.crypto.primitives import (
    aes_ctr,
    aes_gcm_siv_open,
    aes_gcm_siv_seal,
    equal,
    hkdf_sha256,
    hkdf_sha256_triple,
    hmac_sha256,
)
from lokket.crypto.xeddsa import KEY_TYPE, IdentityKeyPair, check_identity_key
from lokket.errors import DecodeError, DecryptionFailed, KeyRefused, LocalError
from lokket.limits import DEVICE_NUMBER_MAX, SEALED_MESSAGE_MAX_BYTES, SEALED_RECIPIENTS_MAX
from lokket.protocol import pairwise
from lokket.protocol.certificates import SenderCertificate, check_certificate, decode_sender_certificate
from lokket.protocol.pairwise import (
    Address,
    Ciphertext,
    Decrypted,
    LocalDevice,
    MessageKind,
    PreKeys,
    SessionRecord,
    Work,
)
from lokket.protocol.pairwise.messages import REGISTRATION_MAX, ec_key

__all__ = [
    "Content",
    "ContentKind",
    "Opened",
    "Recipient",
    "Share",
    "Verified",
    "check",
    "decode_content",
    "decrypt",
    "open_sealed",
    "seal",
    "seal_to_many",
    "seal_v1",
    "split",
]

_V1: Final = b"\x11"
_V2: Final = b"\x22"
_TO_MANY: Final = b"\x23"
_ACI: Final = b"\x00"
_MORE_DEVICES: Final = 0x8000
_TAG_BYTES: Final = 16
_SHARE_BYTES: Final = 32 + _TAG_BYTES
_V1_MAC_BYTES: Final = 10

_V1_SALT: Final = b"UnidentifiedDelivery"
_SCALAR: Final = b"Sealed Sender v2: r (2023-08)"
_KEY: Final = b"Sealed Sender v2: K"
_EXCHANGE: Final = b"Sealed Sender v2: DH"
_SENDER: Final = b"Sealed Sender v2: DH-sender"

_CONTENT_FIELDS: Final = {1: VARINT, 2: BYTES, 3: BYTES, 4: VARINT, 5: BYTES}
_V1_FIELDS: Final = {1: BYTES, 2: BYTES, 3: BYTES}


class ContentKind(IntEnum):
    """What is inside; these numbers differ from libsignal's outer type codes."""

    PREKEY = 1
    WHISPER = 2
    SENDER_KEY = 7
    PLAINTEXT = 8  # unencrypted "could not decrypt" notices: opened, never honoured


_PAIRWISE: Final = {
    ContentKind.PREKEY: MessageKind.PREKEY,
    ContentKind.WHISPER: MessageKind.WHISPER,
}
_CONTENT_KINDS: Final = {message: content for content, message in _PAIRWISE.items()}


@dataclass(frozen=True, slots=True)
class Content:
    """What is sealed: a message with its sender's certificate (libsignal's UnidentifiedSenderMessage)."""

    kind: ContentKind
    certificate: SenderCertificate
    body: bytes
    hint: int = 0  # what to do when it does not decrypt: 0 nothing special, 1 can be sent again, 2 implicit
    group_id: bytes | None = None

    @staticmethod
    def of(message: Ciphertext, certificate: SenderCertificate) -> Content:
        """A pairwise message as content."""
        return Content(_CONTENT_KINDS[message.kind], certificate, message.body)

    def encode(self) -> bytes:
        return protobuf.encode(
            (
                (1, self.kind),
                (2, self.certificate.encode()),
                (3, self.body),
                (4, self.hint or None),
                (5, self.group_id),
            )
        )


def decode_content(data: bytes) -> Content:
    """DecodeError, KeyRefused: ``data`` is no content."""
    fields = protobuf.decode(data, _CONTENT_FIELDS)
    try:
        kind = ContentKind(fields.number(1))
    except ValueError:
        raise DecodeError("sealed content is of an unknown kind", code="unknown-kind") from None
    return Content(
        kind=kind,
        certificate=decode_sender_certificate(fields.string(2)),
        body=fields.string(3),
        hint=fields.numbers.get(4, 0),
        group_id=fields.strings.get(5),
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """What was inside. Its sender holds the key in its certificate; whose key that is, nobody has checked."""

    content: Content


@dataclass(frozen=True, slots=True)
class Verified:
    """Content whose certificate is good: ``sender`` is who a trusted server says holds the key."""

    content: Content

    @property
    def sender(self) -> Address:
        return self.content.certificate.sender

    @property
    def identity_key(self) -> bytes:
        """33 bytes."""
        return self.content.certificate.identity_key


@dataclass(frozen=True, slots=True)
class Recipient:
    """Devices of one account that share an identity key: (device, 14-bit registration id) each."""

    service_id: bytes  # 16
    identity_key: bytes  # 33
    devices: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if len(self.service_id) != 16 or not self.devices:
            raise LocalError("a recipient is a 16-byte account and at least one device")
        if not all(
            1 <= device <= DEVICE_NUMBER_MAX and 0 <= registration <= REGISTRATION_MAX
            for device, registration in self.devices
        ):
            raise LocalError("a recipient's device is 1 to 127, its registration id has 14 bits")


@dataclass(frozen=True, slots=True)
class Share:
    """What a relay hands to these devices of an account; no devices: the account was left out on purpose."""

    service_id: bytes  # 16
    devices: tuple[tuple[int, int], ...]
    own: bytes  # 48, for this account alone; none if it was left out
    common: bytes = field(repr=False)  # one object for all shares: a thousand copies would be 300 MB

    @property
    def body(self) -> bytes:
        """Version 2, made when asked for; empty for an account that was left out."""
        return b"".join((_V2, self.own, self.common)) if self.devices else b""


# --- out ---


def seal(content: Content, sender: IdentityKeyPair, recipient: bytes, entropy: Entropy) -> bytes:
    """Version 2, for the 33-byte identity key ``recipient``. Draws 32. KeyRefused: that key.

    LocalError: the certificate is of another identity than ``sender``, or the content is too long.
    """
    ephemeral, seed, ciphertext = _encrypt(content, sender, entropy)
    share = _share(ephemeral, seed, sender, recipient)
    return _bounded(b"".join((_V2, share, ephemeral.public, ciphertext)))


def seal_to_many(
    content: Content,
    sender: IdentityKeyPair,
    recipients: Sequence[Recipient],
    entropy: Entropy,
    excluded: Sequence[bytes] = (),
) -> bytes:
    """What a relay takes apart: one ciphertext, and 65 bytes and more for each recipient. Draws 32.

    ``excluded`` names accounts (16 B) of the group that get nothing. KeyRefused: a recipient's key.
    LocalError: what no relay would split (nobody or too many, somebody twice, too long), or as ``seal``.
    """
    if not recipients or len(recipients) + len(excluded) > SEALED_RECIPIENTS_MAX:
        raise LocalError("a message to many has at least one recipient and a bounded number")
    if any(len(account) != 16 for account in excluded):
        raise LocalError("an account that is left out is named by 16 bytes")
    devices = [(recipient.service_id, recipient.devices) for recipient in recipients]
    if _names_twice(devices + [(account, ()) for account in excluded]):
        raise LocalError("a message to many names a recipient twice")
    ephemeral, seed, ciphertext = _encrypt(content, sender, entropy)
    parts = [_TO_MANY, varint(len(recipients) + len(excluded))]
    for recipient in recipients:
        parts += (_ACI, recipient.service_id, _encode_devices(recipient.devices))
        parts.append(_share(ephemeral, seed, sender, recipient.identity_key))
    for account in excluded:
        parts += (_ACI, account, b"\x00")
    return _bounded(b"".join((*parts, ephemeral.public, ciphertext)))


def seal_v1(content: Content, sender: IdentityKeyPair, recipient: bytes, entropy: Entropy) -> bytes:
    """Version 1, which libsignal uses for pairwise messages. Draws 32. Refuses as ``seal`` does."""
    _check_sender(content, sender)
    check_identity_key(recipient)
    ephemeral = X25519KeyPair(entropy.draw(32))
    public = KEY_TYPE + ephemeral.public
    chain, keys = _v1_ephemeral(recipient, public, ephemeral.exchange(recipient[1:]))
    static = _v1_box(keys, sender.public)
    boxed = _v1_box(_v1_static(chain, static, sender.exchange(recipient[1:])), content.encode())
    return _bounded(_V1 + protobuf.encode(((1, public), (2, static), (3, boxed))))


def _bounded(sealed: bytes) -> bytes:
    """What everybody refuses to open is not sent."""
    if len(sealed) > SEALED_MESSAGE_MAX_BYTES:
        raise LocalError("a sealed message is too long")
    return sealed


# --- between ---


def split(sent: bytes) -> tuple[Share, ...]:
    """What ``seal_to_many`` made, for each recipient: needs no key. DecodeError."""
    if sent[:1] != _TO_MANY or len(sent) > SEALED_MESSAGE_MAX_BYTES:
        raise DecodeError("a message to many is too long or of another version", code="bad-version")
    count, position = read_varint(sent, 1)
    if not 0 < count <= SEALED_RECIPIENTS_MAX:
        raise DecodeError("a message to many has none or too many recipients")
    found: list[tuple[bytes, tuple[tuple[int, int], ...], bytes]] = []
    for _ in range(count):
        if sent[position : position + 1] != _ACI:
            raise DecodeError("a recipient is of a kind that we do not serve, or cut short")
        account = sent[position + 1 : position + 17]
        devices, position = _decode_devices(sent, position + 17)
        share = b""
        if devices:
            share, position = sent[position : position + _SHARE_BYTES], position + _SHARE_BYTES
        found.append((account, devices, share))
    rest = sent[position:]
    if len(rest) < 32 + _TAG_BYTES:
        raise DecodeError("a message to many is cut short")
    if _names_twice([(account, devices) for account, devices, _ in found]):
        raise DecodeError("a message to many names a recipient twice")
    return tuple(Share(account, devices, share, rest) for account, devices, share in found)


def _names_twice(named: Sequence[tuple[bytes, tuple[tuple[int, int], ...]]]) -> bool:
    """More than one share for a device: two recipients could be told apart by what they are given."""
    seen: set[tuple[bytes, int]] = set()
    for account, devices in named:
        for device in [number for number, _ in devices] or [0]:
            if (account, device) in seen:
                return True
            seen.add((account, device))
    return False


# --- in ---


def open_sealed(sealed: bytes, identity: IdentityKeyPair) -> Opened:
    """What was sealed to us, in version 1 or 2 as received.

    DecryptionFailed, KeyRefused, DecodeError: it is not for this identity, damaged, or sealed by who does
    not hold the key of its certificate.
    """
    if len(sealed) > SEALED_MESSAGE_MAX_BYTES:
        raise DecodeError("a sealed message is too long", code="too-long")
    if sealed[:1] == _V2:
        return _open_v2(sealed, identity)
    if sealed[:1] == _V1:
        return _open_v1(sealed, identity)
    raise DecodeError("a sealed message has another version", code="bad-version")


def check(
    opened: Opened, trust_roots: Collection[bytes], now_ms: int, revoked: Collection[int] = ()
) -> Verified:
    """``certificates.check_certificate`` on its certificate. SignatureRefused, LocalError."""
    check_certificate(opened.content.certificate, trust_roots, now_ms, revoked)
    return Verified(opened.content)


def decrypt(  # noqa: PLR0917
    record: SessionRecord | None,
    local: LocalDevice,
    verified: Verified,
    prekeys: PreKeys,
    now_ms: int,
    entropy: Entropy,
    *,
    work: Work | None = None,
) -> Decrypted:
    """``pairwise.decrypt`` of what is inside, in the session with the device that the certificate names.

    KeyRefused: the session, or the prekey message, has another identity key than the certificate, or the
    sender is this very device. DecryptionFailed: it is no pairwise message. LocalError: ``record`` is not of
    ``verified.sender``. The rest as ``pairwise.decrypt``.
    """
    content, sender = verified.content, verified.sender
    kind = _PAIRWISE.get(content.kind)
    if kind is None:
        raise DecryptionFailed("sealed content is no message of a session", code="not-pairwise")
    if sender == local.address:
        raise KeyRefused("a sealed message claims to come from this device", code="own-message")
    if record is not None and record.remote != sender:
        raise LocalError("this record belongs to another device than the certificate's")
    if record is not None and record.identity_key != verified.identity_key:
        raise KeyRefused("a certificate is of another identity than the session", code="other-identity")
    if kind == MessageKind.PREKEY:
        inner = pairwise.inspect_prekey_message(content.body)
        if inner.identity_key != verified.identity_key:
            raise KeyRefused("a certificate is of another identity than the message", code="other-identity")
    message = Ciphertext(kind, content.body)
    return pairwise.decrypt(record, local, sender, message, prekeys, now_ms, entropy, work=work)


def _open_v2(sealed: bytes, identity: IdentityKeyPair) -> Opened:
    if len(sealed) < 1 + _SHARE_BYTES + 32 + _TAG_BYTES:
        raise DecodeError("a sealed message is cut short")
    wrapped, tag, public = sealed[1:33], sealed[33:49], sealed[49:81]
    shared = identity.exchange(public)
    seed = _xor(wrapped, _exchange_key(shared, public, identity.public))
    ephemeral, key = _keys(seed)
    if not equal(ephemeral.public, public):
        raise DecryptionFailed("a sealed message is not for this identity", code="not-sealed-to-us")
    content = decode_content(aes_gcm_siv_open(key, sealed[81:]))
    sender = content.certificate.identity_key
    secret = identity.exchange(sender[1:])
    if not equal(_sender_tag(secret, public, wrapped, (sender, identity.public)), tag):
        raise DecryptionFailed("a sealed message is not its sender's", code="not-its-sender")
    return Opened(content)


def _open_v1(sealed: bytes, identity: IdentityKeyPair) -> Opened:
    fields = protobuf.decode(sealed[1:], _V1_FIELDS)
    public, static, boxed = fields.string(1), fields.string(2), fields.string(3)
    ephemeral = ec_key(public)
    check_x25519_encoding(ephemeral)
    chain, keys = _v1_ephemeral(identity.public, public, identity.exchange(ephemeral))
    sender = _v1_unbox(keys, static)
    check_identity_key(sender)
    keys = _v1_static(chain, static, identity.exchange(sender[1:]))
    content = decode_content(_v1_unbox(keys, boxed))
    if not equal(content.certificate.identity_key, sender):
        raise DecryptionFailed("a sealed message is not its sender's", code="not-its-sender")
    return Opened(content)


# --- version 2 ---


def _encrypt(
    content: Content, sender: IdentityKeyPair, entropy: Entropy
) -> tuple[X25519KeyPair, bytes, bytes]:
    """(ephemeral key pair, the seed it follows from, ciphertext)."""
    _check_sender(content, sender)
    seed = entropy.draw(32)
    ephemeral, key = _keys(seed)
    return ephemeral, seed, aes_gcm_siv_seal(key, content.encode())


def _check_sender(content: Content, sender: IdentityKeyPair) -> None:
    if content.certificate.identity_key != sender.public:
        raise LocalError("this certificate is of another identity")


def _keys(seed: bytes) -> tuple[X25519KeyPair, bytes]:
    """The ephemeral key pair and the cipher's key: both follow from one seed, which the recipient gets."""
    scalar = hkdf_sha256(seed, salt=None, info=_SCALAR, length=32)
    return X25519KeyPair(scalar), hkdf_sha256(seed, salt=None, info=_KEY, length=32)


def _share(ephemeral: X25519KeyPair, seed: bytes, sender: IdentityKeyPair, recipient: bytes) -> bytes:
    """The seed for one identity key, and the proof that the sender made it: 48 bytes."""
    check_identity_key(recipient)
    public = ephemeral.public
    wrapped = _xor(seed, _exchange_key(ephemeral.exchange(recipient[1:]), public, recipient))
    secret = sender.exchange(recipient[1:])
    return wrapped + _sender_tag(secret, public, wrapped, (sender.public, recipient))


def _exchange_key(shared: bytes, ephemeral: bytes, recipient: bytes) -> bytes:
    material = b"".join((shared, KEY_TYPE, ephemeral, recipient))
    return hkdf_sha256(material, salt=None, info=_EXCHANGE, length=32)


def _sender_tag(secret: bytes, ephemeral: bytes, wrapped: bytes, identities: tuple[bytes, bytes]) -> bytes:
    """``identities`` are the sender's and the recipient's."""
    material = b"".join((secret, KEY_TYPE, ephemeral, wrapped, *identities))
    return hkdf_sha256(material, salt=None, info=_SENDER, length=_TAG_BYTES)


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(one ^ other for one, other in zip(left, right, strict=True))


def _encode_devices(devices: tuple[tuple[int, int], ...]) -> bytes:
    parts = []
    for place, (device, registration) in enumerate(devices, 1):
        more = _MORE_DEVICES if place < len(devices) else 0
        parts.append(bytes((device,)) + (registration | more).to_bytes(2, "big"))
    return b"".join(parts)


def _decode_devices(sent: bytes, position: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """(devices, position after them); none at all for a recipient who is left out."""
    if sent[position : position + 1] == b"\x00":
        return (), position + 1
    devices: list[tuple[int, int]] = []
    more = True
    while more:
        entry = sent[position : position + 3]
        if len(entry) < 3 or not 1 <= entry[0] <= DEVICE_NUMBER_MAX:
            raise DecodeError("a recipient's device is malformed")
        number = int.from_bytes(entry[1:], "big")
        more, registration = bool(number & _MORE_DEVICES), number & ~_MORE_DEVICES
        if registration > REGISTRATION_MAX:
            raise DecodeError("a registration id has more than 14 bits")
        devices.append((entry[0], registration))
        position += 3
    return tuple(devices), position


# --- version 1 ---


def _v1_ephemeral(recipient: bytes, public: bytes, shared: bytes) -> tuple[bytes, tuple[bytes, bytes]]:
    """(chain key, keys of the box around the sender's identity)."""
    salt = b"".join((_V1_SALT, recipient, public))
    chain, cipher_key, mac_key = hkdf_sha256_triple(shared, salt, b"")
    return chain, (cipher_key, mac_key)


def _v1_static(chain: bytes, static: bytes, shared: bytes) -> tuple[bytes, bytes]:
    """Keys of the box around the content."""
    _, cipher_key, mac_key = hkdf_sha256_triple(shared, chain + static, b"")
    return cipher_key, mac_key


def _v1_box(keys: tuple[bytes, bytes], plaintext: bytes) -> bytes:
    ciphertext = aes_ctr(keys[0], plaintext)
    return ciphertext + hmac_sha256(keys[1], ciphertext)[:_V1_MAC_BYTES]


def _v1_unbox(keys: tuple[bytes, bytes], boxed: bytes) -> bytes:
    ciphertext, mac = boxed[:-_V1_MAC_BYTES], boxed[-_V1_MAC_BYTES:]
    if not equal(hmac_sha256(keys[1], ciphertext)[:_V1_MAC_BYTES], mac):
        raise DecryptionFailed("a sealed message is not for this identity", code="not-sealed-to-us")
    return aes_ctr(keys[0], ciphertext)
