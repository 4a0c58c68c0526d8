"""Key encapsulation for HPKE: the DH KEMs of RFC 9180 section 4.1 and X-Wing (draft-connolly-cfrg-xwing-kem).

Ephemeral keys are derived from drawn bytes (``DeriveKeyPair``), so that published vectors and whole worlds
replay. X-Wing's ``derive_key_pair`` is that of draft-ietf-hpke-pq.
"""

from __future__ import annotations

import hashlib
import hmac
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x448 import X448PrivateKey, X448PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import (
    LOW_ORDER_X25519,
    MLKEM_768_PUBLIC_BYTES,
    P448,
    MLKEMKeyPair,
    P,
    check_mlkem_public,
)
from lokket.crypto.primitives import hmac_sha256, shake256
from lokket.errors import DecryptionFailed, KeyRefused, LocalError

_MLKEM_768_CIPHERTEXT_BYTES: Final = 1088
_XWING_LABEL: Final = b"\\.//^\\"


@dataclass(frozen=True, slots=True)
class KEMKeyPair:
    """A private key as ``SerializePrivateKey`` gives it, and its public key."""

    private: bytes = field(repr=False)
    public: bytes


class LabeledHKDF:
    """LabeledExtract and LabeledExpand of RFC 9180 section 4, under one suite id."""

    def __init__(self, hash_name: str, suite_id: bytes) -> None:
        self.hash_name = hash_name
        self.hash_bytes = hashlib.new(hash_name).digest_size
        self._prefix = b"HPKE-v1" + suite_id

    def extract(self, salt: bytes, label: bytes, key_material: bytes) -> bytes:
        return mac(self.hash_name, salt, self._prefix + label + key_material)

    def expand(self, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
        return expand(self.hash_name, prk, length.to_bytes(2, "big") + self._prefix + label + info, length)


def mac(hash_name: str, key: bytes, data: bytes) -> bytes:
    """HMAC under one of SHA-2: for SHA-256 by the quicker way of ``primitives``."""
    return hmac_sha256(key, data) if hash_name == "sha256" else hmac.digest(key, data, hash_name)


def expand(hash_name: str, prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand (RFC 5869 section 2.3). LocalError: more than 255 blocks."""
    output = block = mac(hash_name, prk, info + b"\x01")
    number = 1
    while len(output) < length:
        number += 1
        if number > 255:
            raise LocalError("HKDF gives at most 255 blocks")
        block = mac(hash_name, prk, b"".join((block, info, bytes((number,)))))
        output += block
    return output[:length]


class KEM(ABC):
    """One KEM. Sizes in bytes; ``encap`` gives (shared secret, encapsulation)."""

    number: int
    secret_bytes: int
    encapsulated_bytes: int
    public_bytes: int
    private_bytes: int

    @abstractmethod
    def derive_key_pair(self, key_material: bytes) -> KEMKeyPair:
        """The pair that follows from ``key_material``, at least ``private_bytes`` of it."""

    @abstractmethod
    def load(self, private: bytes) -> KEMKeyPair:
        """The pair of a private key. LocalError: not one."""

    @abstractmethod
    def check_public(self, public: bytes) -> None:
        """KeyRefused: not a public key of this KEM, or one to which nothing can be encapsulated."""

    @abstractmethod
    def encap(self, public: bytes, entropy: Entropy) -> tuple[bytes, bytes]:
        """KeyRefused: the key is malformed or gives no secret."""

    @abstractmethod
    def decap(self, pair: KEMKeyPair, encapsulated: bytes) -> bytes:
        """DecryptionFailed: the encapsulation is malformed or gives no secret."""


class DHKEM(KEM):
    """RFC 9180 section 4.1 over one group."""

    def __init__(self, number: int, hash_name: str, sizes: tuple[int, int]) -> None:
        self.number = number
        self.private_bytes, self.public_bytes = sizes
        self.encapsulated_bytes = self.public_bytes
        self._kdf = LabeledHKDF(hash_name, b"KEM" + number.to_bytes(2, "big"))
        self.secret_bytes = self._kdf.hash_bytes

    @abstractmethod
    def exchange(self, private: bytes, public: bytes) -> bytes:
        """The DH value. ValueError: no point, or all zeros."""

    def encap(self, public: bytes, entropy: Entropy) -> tuple[bytes, bytes]:
        ephemeral = self.derive_key_pair(entropy.draw(self.private_bytes))
        try:
            shared = self.exchange(ephemeral.private, public)
        except ValueError:
            raise KeyRefused("an HPKE public key gives no secret") from None
        return self._secret(shared, ephemeral.public + public), ephemeral.public

    def decap(self, pair: KEMKeyPair, encapsulated: bytes) -> bytes:
        try:
            shared = self.exchange(pair.private, encapsulated)
        except ValueError:
            raise DecryptionFailed("an HPKE encapsulation gives no secret") from None
        return self._secret(shared, encapsulated + pair.public)

    def _secret(self, shared: bytes, context: bytes) -> bytes:
        prk = self._kdf.extract(b"", b"eae_prk", shared)
        return self._kdf.expand(prk, b"shared_secret", context, self.secret_bytes)


class MontgomeryKEM(DHKEM):
    """X25519 and X448: any string of the right length is a private key (RFC 9180 section 7.1.3)."""

    def __init__(
        self,
        number: int,
        hash_name: str,
        curve: tuple[int, frozenset[int]],
        kinds: tuple[Any, Any],
    ) -> None:
        self._prime, self._low_order = curve
        self._bits = self._prime.bit_length()
        size = (self._bits + 7) // 8
        super().__init__(number, hash_name, (size, size))
        self._private, self._public = kinds

    def derive_key_pair(self, key_material: bytes) -> KEMKeyPair:
        prk = self._kdf.extract(b"", b"dkp_prk", key_material)
        return self.load(self._kdf.expand(prk, b"sk", b"", self.private_bytes))

    def load(self, private: bytes) -> KEMKeyPair:
        try:
            key = self._private.from_private_bytes(private)
        except ValueError:
            raise LocalError("an HPKE private key has the wrong length") from None
        return KEMKeyPair(private, key.public_key().public_bytes_raw())

    def check_public(self, public: bytes) -> None:
        """Other encodings of an honest key are taken: RFC 7748 section 5 reduces them."""
        u = int.from_bytes(public, "little") & (1 << self._bits) - 1
        if len(public) != self.public_bytes or u % self._prime in self._low_order:
            raise KeyRefused("an HPKE public key is malformed or of low order")

    def exchange(self, private: bytes, public: bytes) -> bytes:
        """All zeros is refused below, as RFC 9180 section 7.1.4 requires."""
        key: X25519PrivateKey | X448PrivateKey = self._private.from_private_bytes(private)
        return key.exchange(self._public.from_public_bytes(public))


class CurveKEM(DHKEM):
    """P-256, P-384 and P-521: public keys are uncompressed points."""

    def __init__(self, number: int, hash_name: str, curve: ec.EllipticCurve, mask: int) -> None:
        size = (curve.key_size + 7) // 8
        super().__init__(number, hash_name, (size, 2 * size + 1))
        self.curve = curve
        self._mask = mask

    def derive_key_pair(self, key_material: bytes) -> KEMKeyPair:
        """RFC 9180 section 7.1.3: the first candidate below the order."""
        prk = self._kdf.extract(b"", b"dkp_prk", key_material)
        for counter in range(256):
            candidate = self._kdf.expand(prk, b"candidate", bytes((counter,)), self.private_bytes)
            masked = bytes((candidate[0] & self._mask,)) + candidate[1:]
            try:
                return self.load(masked)
            except LocalError:
                continue
        raise LocalError("no key pair follows from this key material")

    def load(self, private: bytes) -> KEMKeyPair:
        """A big-endian number; leading zeros may be missing, as some stores and vectors have it."""
        if len(private) > self.private_bytes:
            raise LocalError("an HPKE private key has the wrong length")
        private = private.rjust(self.private_bytes, b"\x00")
        return KEMKeyPair(private, curve_public(private_curve_key(self.curve, private)))

    def check_public(self, public: bytes) -> None:
        try:
            public_curve_key(self.curve, public)
        except ValueError:
            raise KeyRefused("an HPKE public key is no point") from None

    def exchange(self, private: bytes, public: bytes) -> bytes:
        key = private_curve_key(self.curve, private)
        return key.exchange(ec.ECDH(), public_curve_key(self.curve, public))


def private_curve_key(curve: ec.EllipticCurve, private: bytes) -> ec.EllipticCurvePrivateKey:
    """LocalError: zero, or not below the order."""
    try:
        return ec.derive_private_key(int.from_bytes(private, "big"), curve)
    except ValueError:
        raise LocalError("a private key is out of range") from None


@lru_cache(maxsize=1024)
def public_curve_key(curve: ec.EllipticCurve, public: bytes) -> ec.EllipticCurvePublicKey:
    """ValueError: not an uncompressed point of the curve."""
    if public[:1] != b"\x04":
        raise ValueError("not an uncompressed point")
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, public)


def curve_public(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The uncompressed point (SEC 1 section 2.3.3)."""
    numbers = key.public_key().public_numbers()
    size = (key.curve.key_size + 7) // 8
    return b"\x04" + numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")


class XWing(KEM):
    """ML-KEM-768 and X25519 (draft-connolly-cfrg-xwing-kem section 5), KEM 0x647a of draft-ietf-hpke-pq."""

    number = 0x647A
    secret_bytes = 32
    encapsulated_bytes = _MLKEM_768_CIPHERTEXT_BYTES + 32
    public_bytes = MLKEM_768_PUBLIC_BYTES + 32
    private_bytes = 32

    def derive_key_pair(self, key_material: bytes) -> KEMKeyPair:
        """SHAKE256 under a label, as draft-ietf-hpke-pq section 4 has it for every PQ KEM."""
        labelled = b"HPKE-v1KEM" + self.number.to_bytes(2, "big") + b"\x00\x0dDeriveKeyPair\x00\x20"
        return self.load(shake256(key_material + labelled, 32))

    def load(self, private: bytes) -> KEMKeyPair:
        kem, exchange = self._parts(private)
        return KEMKeyPair(private, kem.public + exchange.public_key().public_bytes_raw())

    def check_public(self, public: bytes) -> None:
        self._require_length(public)
        _check_halves(public)

    def encap(self, public: bytes, entropy: Entropy) -> tuple[bytes, bytes]:
        self._require_length(public)
        kem, exchange = public[:MLKEM_768_PUBLIC_BYTES], public[MLKEM_768_PUBLIC_BYTES:]
        kem_secret, ciphertext = entropy.encapsulate(kem)
        ephemeral = X25519PrivateKey.from_private_bytes(entropy.draw(32))
        try:
            shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(exchange))
        except ValueError:
            raise KeyRefused("an X-Wing public key gives no secret") from None
        sent = ephemeral.public_key().public_bytes_raw()
        return self._combine(kem_secret, shared, sent, exchange), ciphertext + sent

    def decap(self, pair: KEMKeyPair, encapsulated: bytes) -> bytes:
        if len(encapsulated) != self.encapsulated_bytes:
            raise DecryptionFailed("an X-Wing encapsulation has 1120 bytes")
        kem, exchange = self._parts(pair.private)
        ciphertext, sent = encapsulated[:-32], encapsulated[-32:]
        try:
            shared = exchange.exchange(X25519PublicKey.from_public_bytes(sent))
        except ValueError:
            raise DecryptionFailed("an HPKE encapsulation gives no secret") from None
        return self._combine(kem.decapsulate(ciphertext), shared, sent, pair.public[MLKEM_768_PUBLIC_BYTES:])

    @classmethod
    def _require_length(cls, public: bytes) -> None:
        if len(public) != cls.public_bytes:
            raise KeyRefused("an X-Wing public key has 1216 bytes")

    @staticmethod
    def _parts(private: bytes) -> tuple[MLKEMKeyPair, X25519PrivateKey]:
        if len(private) != 32:
            raise LocalError("an X-Wing private key has 32 bytes")
        expanded = shake256(private, 96)
        return MLKEMKeyPair(768, expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])

    @staticmethod
    def _combine(kem_secret: bytes, shared: bytes, sent: bytes, public: bytes) -> bytes:
        return hashlib.sha3_256(kem_secret + shared + sent + public + _XWING_LABEL).digest()


@lru_cache(maxsize=2048)
def _check_halves(public: bytes) -> None:
    """Of an X-Wing key, which groups look at when it is proposed, and again when it is committed."""
    check_mlkem_public(public[:MLKEM_768_PUBLIC_BYTES])
    DHKEM_X25519.check_public(public[MLKEM_768_PUBLIC_BYTES:])


DHKEM_P256: Final = CurveKEM(0x0010, "sha256", ec.SECP256R1(), 0xFF)
DHKEM_P384: Final = CurveKEM(0x0011, "sha384", ec.SECP384R1(), 0xFF)
DHKEM_P521: Final = CurveKEM(0x0012, "sha512", ec.SECP521R1(), 0x01)
DHKEM_X25519: Final = MontgomeryKEM(
    0x0020, "sha256", (P, LOW_ORDER_X25519), (X25519PrivateKey, X25519PublicKey)
)
DHKEM_X448: Final = MontgomeryKEM(
    0x0021, "sha512", (P448, frozenset((0, 1, P448 - 1))), (X448PrivateKey, X448PublicKey)
)
XWING: Final = XWing()
