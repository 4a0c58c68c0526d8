"""What a device and a relay sign to each other: hello, login, registration.

Source: docs/identity.md, "Relay". A statement names the relay's origin as configured and its key, so it
is worth nothing at another relay; its nonce makes it worth nothing twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from lokket.codec import tls
from lokket.codec.tls import U64, Bytes32, Bytes64, Fixed, OpaqueV
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import Ed25519KeyPair
from lokket.errors import LocalError, RemoteError
from lokket.protocol.identity.device import Device, device_hash
from lokket.protocol.identity.device_keys import DeviceKeys
from lokket.protocol.identity.keys import (
    BUNDLE_SIGNATURE_BYTES,
    HybridKey,
    HybridKeyPair,
    HybridSignature,
    sign_with_bundle_key,
    sign_with_ed25519,
    sign_with_identity,
    verify_bundle_key,
    verify_identity,
    verify_labelled_ed25519,
)

RELAY_HELLO: Final = "relay hello"
RELAY_LOGIN: Final = "relay login"
RELAY_REGISTER: Final = "relay register"
ACCOUNT_DELETE: Final = "account delete"
ORIGIN_MAX_BYTES: Final = 255

Origin = Annotated[bytes, OpaqueV(ORIGIN_MAX_BYTES)]


def encode_origin(origin: str) -> bytes:
    """LocalError: empty, not ASCII, or longer than 255 bytes. Origins are compared byte by byte."""
    if not origin or not origin.isascii() or not origin.isprintable() or len(origin) > ORIGIN_MAX_BYTES:
        raise LocalError("a relay's origin is 1 to 255 printable ASCII characters")
    return origin.encode("ascii")


@dataclass(frozen=True, slots=True)
class RelayHello:
    """The relay's greeting: it holds the key that logins will name."""

    origin: Origin
    relay_key: Bytes32
    nonce: Bytes32
    time_ms: U64


@dataclass(frozen=True, slots=True)
class LoginStatement:
    """A device's answer to the greeting's nonce; the relay takes it once and for 60 seconds."""

    origin: Origin
    relay_key: Bytes32
    genesis_hash: Bytes32
    device_hash: Bytes32
    nonce: Bytes32  # the relay's
    client_nonce: Bytes32
    time_s: U64


@dataclass(frozen=True, slots=True)
class RegisterStatement:
    """What every key of a new account signs. ``token_hash``: SHA-256 of the token, of nothing if open."""

    origin: Origin
    relay_key: Bytes32
    token_hash: Bytes32
    genesis_hash: Bytes32
    device_hash: Bytes32
    nonce: Bytes32  # the relay's


@dataclass(frozen=True, slots=True)
class DeleteStatement:
    """What the account key signs to be forgotten by this relay, once and on this connection."""

    origin: Origin
    relay_key: Bytes32
    genesis_hash: Bytes32
    nonce: Bytes32  # the relay's


@dataclass(frozen=True, slots=True)
class RegisterProof:
    """5,985 bytes: possession of every key that signs."""

    account: HybridSignature
    identity: Bytes64
    auth: Bytes64
    mls: Bytes64
    bundle: Annotated[bytes, Fixed(BUNDLE_SIGNATURE_BYTES)]


def sign_hello(relay: Ed25519KeyPair, origin: str, nonce: bytes, time_ms: int) -> bytes:
    """64 bytes, by the relay's key over RelayHello."""
    hello = RelayHello(encode_origin(origin), relay.public, nonce, time_ms)
    return sign_with_ed25519(relay, RELAY_HELLO, tls.encode(hello))


def check_hello(origin: str, relay_key: bytes, nonce: bytes, time_ms: int, signature: bytes) -> None:
    """SignatureRefused, KeyRefused. The caller compares origin and key with what it pinned."""
    try:
        hello = tls.encode(RelayHello(encode_origin(origin), relay_key, nonce, time_ms))
    except LocalError as error:
        raise RemoteError(f"a relay's hello is malformed: {error}", code="malformed") from None
    verify_labelled_ed25519(relay_key, RELAY_HELLO, hello, signature)


def sign_login(auth: Ed25519KeyPair, statement: LoginStatement) -> bytes:
    """64 bytes, by the device's auth key."""
    return sign_with_ed25519(auth, RELAY_LOGIN, tls.encode(statement))


def check_login(auth_key: bytes, statement: LoginStatement, signature: bytes) -> None:
    """SignatureRefused. The relay has put its own origin, key and nonce into ``statement``."""
    verify_labelled_ed25519(auth_key, RELAY_LOGIN, tls.encode(statement), signature)


def sign_register(
    account: HybridKeyPair, keys: DeviceKeys, statement: RegisterStatement, entropy: Entropy
) -> RegisterProof:
    """Every key's signature over ``statement``. Draws for the two ML-DSA signatures."""
    data = tls.encode(statement)
    return RegisterProof(
        account=account.sign(RELAY_REGISTER, data, entropy),
        identity=sign_with_identity(keys.identity, RELAY_REGISTER, data),
        auth=sign_with_ed25519(keys.auth, RELAY_REGISTER, data),
        mls=sign_with_ed25519(keys.mls, RELAY_REGISTER, data),
        bundle=sign_with_bundle_key(keys.bundle, RELAY_REGISTER, data, entropy),
    )


def check_register(
    account_key: HybridKey, device: Device, statement: RegisterStatement, proof: RegisterProof
) -> None:
    """SignatureRefused unless every key signed. Keys and device have passed ``first_contact``.

    The relay has put its own origin, key and nonce into ``statement``.
    """
    if statement.device_hash != device_hash(device):
        raise RemoteError("the statement names another device", code="bad-registration")
    data = tls.encode(statement)
    account_key.verify(RELAY_REGISTER, data, proof.account)
    verify_identity(device.identity_key, RELAY_REGISTER, data, proof.identity)
    verify_labelled_ed25519(device.auth_key, RELAY_REGISTER, data, proof.auth)
    verify_labelled_ed25519(device.mls_key, RELAY_REGISTER, data, proof.mls)
    verify_bundle_key(device.bundle_key, RELAY_REGISTER, data, proof.bundle)


def sign_delete(account: HybridKeyPair, statement: DeleteStatement, entropy: Entropy) -> HybridSignature:
    """By the account key alone: no device key can delete an account."""
    return account.sign(ACCOUNT_DELETE, tls.encode(statement), entropy)


def check_delete(account_key: HybridKey, statement: DeleteStatement, signature: HybridSignature) -> None:
    """SignatureRefused. The relay has put its own origin, key and nonce into ``statement``."""
    account_key.verify(ACCOUNT_DELETE, tls.encode(statement), signature)
