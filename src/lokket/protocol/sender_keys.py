"""Sender keys in libsignal-client 0.103's bytes: one ciphertext for a group, under a chain of its sender.

1. ``create`` draws a chain and a signing key; its ``distribution`` goes to each member in a pairwise session.
2. ``encrypt`` steps the chain: seed, message key, AES-256-CBC, and an XEdDSA signature over everything.
3. ``process`` takes a distribution; ``decrypt`` checks the signature before it derives anything.

    SenderKeyMessage = 33 || {1: distribution[16], 2: chain id, 3: iteration, 4: ciphertext} || signature[64]
    Distribution     = 33 || {1: distribution[16], 2: chain id, 3: iteration, 4: chain key, 5: signing key}

Source: libsignal's format, fixed by recorded outputs (it has no public specification). There is no MAC and
no ratchet but the chain's: who is shown the door still reads until the sender creates a new chain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from lokket.codec import protobuf, tls
from lokket.codec.protobuf import BYTES, VARINT
from lokket.codec.tls import U8, U32, Bytes16, Bytes32, Bytes33, OpaqueV, Vector
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import aes_cbc_decrypt, aes_cbc_encrypt, hkdf_sha256, hmac_sha256_pair
from lokket.crypto.xeddsa import SIGNATURE_BYTES, IdentityKeyPair, check_identity_key, verify_xeddsa
from lokket.errors import DecodeError, DecryptionFailed, DuplicateMessage, LocalError
from lokket.limits import (
    SENDER_KEY_MESSAGE_MAX_BYTES,
    SENDER_KEY_STATES_MAX,
    SKIP_AHEAD_MAX,
    SKIPPED_KEYS_MAX,
)
from lokket.protocol.pairwise import Work, skipped
from lokket.protocol.pairwise.value import value

__all__ = [
    "FORMAT",
    "Chain",
    "Distribution",
    "OwnSenderKey",
    "SenderKeyMessage",
    "SenderKeys",
    "create",
    "decode_distribution",
    "decode_message",
    "decrypt",
    "distribution_message",
    "encrypt",
    "process",
]

FORMAT: Final = 1
_VERSION: Final = b"\x33"
_INFO: Final = b"WhisperGroup"
_MESSAGE_FIELDS: Final = {1: BYTES, 2: VARINT, 3: VARINT, 4: BYTES}
_DISTRIBUTION_FIELDS: Final = {1: BYTES, 2: VARINT, 3: VARINT, 4: BYTES, 5: BYTES}
_ITERATION_MAX: Final = (1 << 32) - 1
_PLAINTEXT_MAX_BYTES: Final = SENDER_KEY_MESSAGE_MAX_BYTES - 256


@value
class OwnSenderKey:
    """Our chain in one distribution; its seed signs."""

    format: U8
    distribution: Bytes16
    chain_id: U32
    iteration: U32
    chain_key: Bytes32
    signing_seed: Bytes32

    def encode(self) -> bytes:
        """Versioned bytes for the vault: they hold the chain and the signing key."""
        return tls.encode(self)

    @staticmethod
    def decode(data: bytes) -> OwnSenderKey:
        """Inverse of ``encode``. DecodeError: damaged, or of an unknown version."""
        _check_format(data)
        return tls.decode(OwnSenderKey, data)


@value
class Chain:
    """A sender's chain as we follow it, with the seeds that were passed over (see ``skipped``)."""

    chain_id: U32
    signing_key: Bytes33
    iteration: U32
    chain_key: Bytes32
    late: Annotated[bytes, OpaqueV(SKIPPED_KEYS_MAX * skipped.ENTRY_BYTES)]


@value
class SenderKeys:
    """The chains of one sender's device in one distribution, newest first."""

    format: U8
    distribution: Bytes16
    chains: Annotated[tuple[Chain, ...], Vector(SENDER_KEY_STATES_MAX)]

    def encode(self) -> bytes:
        """Versioned bytes for the vault: they hold the chains."""
        return tls.encode(self)

    @staticmethod
    def decode(data: bytes) -> SenderKeys:
        """Inverse of ``encode``. DecodeError: damaged, or of an unknown version."""
        _check_format(data)
        record = tls.decode(SenderKeys, data)
        if not all(skipped.well_formed(len(chain.late), 0) for chain in record.chains):
            raise DecodeError("a sender key's record is malformed")
        return record


@dataclass(frozen=True, slots=True)
class SenderKeyMessage:
    """A decoded message; ``signed`` is what the 64-byte ``signature`` covers."""

    distribution: bytes  # 16
    chain_id: int
    iteration: int
    ciphertext: bytes
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Distribution:
    """A decoded distribution: the chain from its current iteration on. It has no signature of its own."""

    distribution: bytes  # 16
    chain_id: int
    iteration: int
    chain_key: bytes  # 32
    signing_key: bytes  # 33

    def __repr__(self) -> str:
        return "Distribution(…)"


def create(distribution: bytes, entropy: Entropy) -> OwnSenderKey:
    """A new chain of ours in the 16-byte ``distribution``. Draws 4, 32 and 32."""
    if len(distribution) != 16:
        raise LocalError("a distribution is named by 16 bytes")
    chain_id = int.from_bytes(entropy.draw(4), "big") >> 1  # 31 bits, as libsignal's
    return OwnSenderKey(FORMAT, distribution, chain_id, 0, entropy.draw(32), entropy.draw(32))


def distribution_message(own: OwnSenderKey) -> bytes:
    """What a member needs to read from now on, nothing before: for a pairwise session."""
    return _VERSION + protobuf.encode(
        (
            (1, own.distribution),
            (2, own.chain_id),
            (3, own.iteration),
            (4, own.chain_key),
            (5, IdentityKeyPair(own.signing_seed).public),
        )
    )


def encrypt(own: OwnSenderKey, plaintext: bytes) -> tuple[OwnSenderKey, bytes]:
    """(state to store before it leaves, message). LocalError: too long, or the chain is used up."""
    if len(plaintext) > _PLAINTEXT_MAX_BYTES:
        raise LocalError("a message is too long; send it as an attachment")
    if own.iteration >= _ITERATION_MAX:
        raise LocalError("a sender key's chain is used up; create a new one")
    chain_key, seed = _chain_step(own.chain_key)
    iv, key = _message_key(seed)
    fields = (
        (1, own.distribution),
        (2, own.chain_id),
        (3, own.iteration),
        (4, aes_cbc_encrypt(key, iv, plaintext)),
    )
    signed = _VERSION + protobuf.encode(fields)
    after = OwnSenderKey(
        FORMAT, own.distribution, own.chain_id, own.iteration + 1, chain_key, own.signing_seed
    )
    return after, signed + IdentityKeyPair(own.signing_seed).sign(signed)


def process(record: SenderKeys | None, message: bytes) -> SenderKeys:
    """The record with a distribution's chain; one that is known stays where it is.

    DecodeError, KeyRefused: no distribution, or of another one than the record's. DecryptionFailed: another
    signing key under a known chain id.
    """
    given = decode_distribution(message)
    if record is None:
        record = SenderKeys(FORMAT, given.distribution, ())
    if record.distribution != given.distribution:
        raise DecodeError("a sender key is of another distribution", code="other-distribution")
    for chain in record.chains:
        if chain.chain_id == given.chain_id:
            if chain.signing_key != given.signing_key:
                raise DecryptionFailed("a sender key's signing key changed", code="other-signing-key")
            return record
    new = Chain(given.chain_id, given.signing_key, given.iteration, given.chain_key, b"")
    return SenderKeys(FORMAT, record.distribution, (new, *record.chains)[:SENDER_KEY_STATES_MAX])


def decrypt(record: SenderKeys, message: bytes, work: Work | None = None) -> tuple[SenderKeys, bytes]:
    """(record to store, plaintext). A refusal returns nothing, so the old record stays good.

    DecodeError: no sender key message. DecryptionFailed: of an unknown chain, or too far ahead.
    SignatureRefused: not its sender's. DuplicateMessage: its key was used, or dropped for
    SKIPPED_KEYS_MAX. ``work`` is counted up.
    """
    decoded = decode_message(message)
    if decoded.distribution != record.distribution:
        raise DecryptionFailed("a message is of another distribution", code="other-distribution")
    place = next((n for n, one in enumerate(record.chains) if one.chain_id == decoded.chain_id), None)
    if place is None:
        raise DecryptionFailed("a message is of an unknown chain", code="unknown-chain")
    chain = record.chains[place]
    verify_xeddsa(chain.signing_key, decoded.signature, decoded.signed)
    after, seed = _take_seed(chain, decoded.iteration, Work() if work is None else work)
    iv, key = _message_key(seed)
    plaintext = aes_cbc_decrypt(key, iv, decoded.ciphertext)
    chains = (*record.chains[:place], after, *record.chains[place + 1 :])
    return SenderKeys(FORMAT, record.distribution, chains), plaintext


def decode_message(data: bytes) -> SenderKeyMessage:
    """DecodeError: ``data`` is no SenderKeyMessage."""
    if len(data) > SENDER_KEY_MESSAGE_MAX_BYTES or data[:1] != _VERSION:
        raise DecodeError("a sender key message is too long or of another version", code="bad-version")
    if len(data) < 1 + SIGNATURE_BYTES:
        raise DecodeError("a sender key message is cut short")
    signed, signature = data[:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    fields = protobuf.decode(signed[1:], _MESSAGE_FIELDS)
    return SenderKeyMessage(
        distribution=fields.string(1, 16),
        chain_id=fields.number(2),
        iteration=fields.number(3),
        ciphertext=fields.string(4),
        signed=signed,
        signature=signature,
    )


def decode_distribution(data: bytes) -> Distribution:
    """DecodeError, KeyRefused: ``data`` is no SenderKeyDistributionMessage."""
    if data[:1] != _VERSION:
        raise DecodeError("a sender key has another version", code="bad-version")
    fields = protobuf.decode(data[1:], _DISTRIBUTION_FIELDS)
    signing_key = fields.string(5, 33)
    check_identity_key(signing_key)
    return Distribution(
        distribution=fields.string(1, 16),
        chain_id=fields.number(2),
        iteration=fields.number(3),
        chain_key=fields.string(4, 32),
        signing_key=signing_key,
    )


def _take_seed(chain: Chain, iteration: int, work: Work) -> tuple[Chain, bytes]:
    """(the chain moved past ``iteration``, its seed)."""
    if iteration < chain.iteration:
        found = skipped.take(chain.late, iteration)
        if found is None:
            raise DuplicateMessage("a message key was used before")
        return Chain(chain.chain_id, chain.signing_key, chain.iteration, chain.chain_key, found[0]), found[1]
    if iteration - chain.iteration > SKIP_AHEAD_MAX or iteration >= _ITERATION_MAX:
        raise DecryptionFailed("a message is too far ahead", code="too-far-ahead")
    work.chain_steps += iteration - chain.iteration + 1
    chain_key, entries = chain.chain_key, [chain.late]
    for passed in range(chain.iteration, iteration):
        chain_key, seed = _chain_step(chain_key)
        entries.append(skipped.entry(passed, seed))
    chain_key, seed = _chain_step(chain_key)
    (late,) = skipped.bound((b"".join(entries),), 0, SKIPPED_KEYS_MAX)
    return Chain(chain.chain_id, chain.signing_key, iteration + 1, chain_key, late), seed


def _chain_step(chain_key: bytes) -> tuple[bytes, bytes]:
    """(next chain key, message seed)."""
    return hmac_sha256_pair(chain_key, b"\x02", b"\x01")


def _message_key(seed: bytes) -> tuple[bytes, bytes]:
    """(IV 16, key 32): the other order than in pairwise messages."""
    output = hkdf_sha256(seed, salt=None, info=_INFO, length=48)
    return output[:16], output[16:]


def _check_format(data: bytes) -> None:
    if data[:1] != bytes((FORMAT,)):
        raise DecodeError("a sender key's record is of an unknown version")
