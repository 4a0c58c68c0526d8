"""HPKE (RFC 9180, base mode): contexts, single messages, Export and DeriveKeyPair.

``XWING_SUITE`` is the one that the rest of lokket seals with: KEM 0x647a (X-Wing), KDF 0x0001
(HKDF-SHA256), AEAD 0x0003 (ChaCha20-Poly1305). MLS names its suites in ``protocol/mls/suite.py``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from lokket.crypto.entropy import Entropy
from lokket.crypto.kem import KEM, XWING, KEMKeyPair, LabeledHKDF
from lokket.errors import DecryptionFailed, LocalError

XWING_PUBLIC_BYTES: Final = XWING.public_bytes  # ML-KEM-768 encapsulation key || X25519
SEAL_OVERHEAD_BYTES: Final = XWING.encapsulated_bytes + 16  # encapsulations in front, the tag behind
NONCE_BYTES: Final = 12

AEADCipher = AESGCM | ChaCha20Poly1305


@dataclass(frozen=True, slots=True)
class AEAD:
    """A cipher of RFC 9180 section 7.3, with nonces of 12 and tags of 16 bytes."""

    number: int
    key_bytes: int
    cipher: type[AESGCM] | type[ChaCha20Poly1305]


AES_128_GCM: Final = AEAD(0x0001, 16, AESGCM)
AES_256_GCM: Final = AEAD(0x0002, 32, AESGCM)
CHACHA20_POLY1305: Final = AEAD(0x0003, 32, ChaCha20Poly1305)
_KDF_NUMBERS: Final = {"sha256": 1, "sha384": 2, "sha512": 3}


class Context:
    """One direction of an HPKE exchange (RFC 9180 section 5.2). Each ``seal`` or ``open`` counts up."""

    def __init__(self, kdf: LabeledHKDF, cipher: AEADCipher, base_nonce: bytes, exporter: bytes) -> None:
        self._kdf = kdf
        self._cipher = cipher
        self._base_nonce = base_nonce
        self._exporter = exporter
        self._sequence = 0

    def seal(self, plaintext: bytes, aad: bytes = b"") -> bytes:
        """The ciphertext, 16 bytes longer."""
        return self._cipher.encrypt(self._next_nonce(), plaintext, aad)

    def open(self, ciphertext: bytes, aad: bytes = b"") -> bytes:
        """DecryptionFailed: the tag does not fit; the context then stays where it was."""
        try:
            plaintext = self._cipher.decrypt(self._nonce(), ciphertext, aad)
        except (InvalidTag, ValueError):
            raise DecryptionFailed("a sealed text does not open", code="not-sealed-to-us") from None
        self._next_nonce()
        return plaintext

    def export(self, exporter_context: bytes, length: int) -> bytes:
        """Section 5.3."""
        return self._kdf.expand(self._exporter, b"sec", exporter_context, length)

    def _nonce(self) -> bytes:
        mask = int.from_bytes(self._base_nonce, "big") ^ self._sequence
        return mask.to_bytes(NONCE_BYTES, "big")

    def _next_nonce(self) -> bytes:
        nonce = self._nonce()
        self._sequence += 1
        return nonce

    def __repr__(self) -> str:
        return "Context(…)"


@dataclass(frozen=True)
class Suite:
    """A KEM, the hash of HKDF (``sha256``, ``sha384``, ``sha512``) and an AEAD."""

    kem: KEM
    hash_name: str
    aead: AEAD
    _kdf: LabeledHKDF = field(init=False, repr=False, compare=False)
    _psk_id_hash: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        numbers = (self.kem.number, _KDF_NUMBERS[self.hash_name], self.aead.number)
        suite_id = b"HPKE" + b"".join(number.to_bytes(2, "big") for number in numbers)
        kdf = LabeledHKDF(self.hash_name, suite_id)
        object.__setattr__(self, "_kdf", kdf)
        object.__setattr__(self, "_psk_id_hash", kdf.extract(b"", b"psk_id_hash", b""))

    def sender(self, public: bytes, info: bytes, entropy: Entropy) -> tuple[bytes, Context]:
        """SetupBaseS: (encapsulation, context). KeyRefused: the key is malformed or gives no secret."""
        shared, encapsulated = self.kem.encap(public, entropy)
        return encapsulated, self.context(shared, info)

    def receiver(self, pair: KEMKeyPair, encapsulated: bytes, info: bytes) -> Context:
        """SetupBaseR. DecryptionFailed: the encapsulation is malformed or gives no secret."""
        return self.context(self.kem.decap(pair, encapsulated), info)

    def context(self, shared: bytes, info: bytes) -> Context:
        """KeySchedule of section 5.1, base mode."""
        kdf = self._kdf
        bound = b"\x00" + self._psk_id_hash + kdf.extract(b"", b"info_hash", info)
        secret = kdf.extract(shared, b"secret", b"")
        key = kdf.expand(secret, b"key", bound, self.aead.key_bytes)
        return Context(
            kdf,
            self.aead.cipher(key),
            kdf.expand(secret, b"base_nonce", bound, NONCE_BYTES),
            kdf.expand(secret, b"exp", bound, kdf.hash_bytes),
        )

    def seal(self, public: bytes, info: bytes, plaintext: bytes, entropy: Entropy) -> tuple[bytes, bytes]:
        """(encapsulation, ciphertext) of one message without further authenticated data (section 6.1)."""
        encapsulated, context = self.sender(public, info, entropy)
        return encapsulated, context.seal(plaintext)

    def open(self, pair: KEMKeyPair, encapsulated: bytes, info: bytes, ciphertext: bytes) -> bytes:
        """Inverse of ``seal``. DecryptionFailed: sealed to another key, under another info, or damaged."""
        return self.receiver(pair, encapsulated, info).open(ciphertext)


XWING_SUITE: Final = Suite(XWING, "sha256", CHACHA20_POLY1305)


def seal_xwing(public_key: bytes, info: bytes, plaintext: bytes, entropy: Entropy) -> bytes:
    """Encapsulation and ciphertext in one: 1136 B longer than the text, to an X-Wing key (1216 B).

    KeyRefused: the key is not canonical, or an exchange with it gives no secret.
    """
    return b"".join(XWING_SUITE.seal(public_key, info, plaintext, entropy))


def open_sealed(seed: bytes, info: bytes, sealed: bytes) -> bytes:
    """The plaintext of what was sealed to the X-Wing key of this 32-byte seed, under this ``info``.

    DecryptionFailed: sealed to another key, under another info, or damaged. LocalError: the seed's length.
    """
    if len(seed) != XWING.private_bytes:
        raise LocalError("an X-Wing seed has 32 bytes")
    encapsulated, ciphertext = sealed[: XWING.encapsulated_bytes], sealed[XWING.encapsulated_bytes :]
    try:
        return XWING_SUITE.open(XWING.load(seed), encapsulated, info, ciphertext)
    except DecryptionFailed:
        raise DecryptionFailed("a sealed text does not open", code="not-sealed-to-us") from None
