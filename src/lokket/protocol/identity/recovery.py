"""The recovery code: 256 bits that a person writes down, and the keys that come of it.

Source: docs/identity.md, "Recovery". The code is shown once and stored nowhere. Key ``counter`` is the
one that the genesis (0) or the ``counter``-th rotation commits to.
"""

from __future__ import annotations

from typing import Final

from lokket.codec import tls
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import equal
from lokket.errors import LocalError
from lokket.protocol.identity.encoding import derive, hash_labelled
from lokket.protocol.identity.keys import HYBRID_SEED_BYTES, HybridKey, HybridKeyPair

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U
_CODE_CHARS: Final = 52  # 256 bits and 4 zero bits
_CHECK_CHARS: Final = 4  # 20 bits: a slip passes once in a million
_GROUP_CHARS: Final = 4
_READ_AS: Final = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


def new_recovery_code(entropy: Entropy) -> str:
    """Fourteen groups of four characters: 52 of the code and 4 of its checksum."""
    secret = entropy.draw(32)
    text = _base32(int.from_bytes(secret, "big") << 4, _CODE_CHARS) + _checksum(secret)
    return "-".join(text[start : start + _GROUP_CHARS] for start in range(0, len(text), _GROUP_CHARS))


def recovery_key(code: str, counter: int) -> HybridKeyPair:
    """The key of this counter. LocalError: the code has a slip of the pen."""
    if not 0 <= counter < 2**32:
        raise LocalError("a recovery counter is a uint32")
    secret = _decode(code)
    return HybridKeyPair(derive(secret, "recovery key", counter.to_bytes(4, "big"), HYBRID_SEED_BYTES))


def recovery_commitment(key: HybridKey) -> bytes:
    """H("recovery key", HybridKey), 32 bytes: what genesis and rotations carry until the key is shown."""
    return hash_labelled("recovery key", tls.encode(key))


def _decode(code: str) -> bytes:
    text = "".join(code.split()).upper().translate(_READ_AS)
    if len(text) != _CODE_CHARS + _CHECK_CHARS:
        raise LocalError("a recovery code has 14 groups of 4 characters: check that none is missing")
    value = 0
    for char in text[:_CODE_CHARS]:
        digit = ALPHABET.find(char)
        if digit < 0:
            raise LocalError("a recovery code has only digits and letters, without I, L, O and U")
        value = value << 5 | digit
    secret = (value >> 4).to_bytes(32, "big")
    slip = value & 15 or not equal(_checksum(secret).encode(), text[_CODE_CHARS:].encode())
    if slip:
        raise LocalError("the recovery code does not add up: compare it with your copy, group by group")
    return secret


def _checksum(secret: bytes) -> str:
    bits = int.from_bytes(hash_labelled("recovery code check", secret)[:3], "big") >> 4
    return _base32(bits, _CHECK_CHARS)


def _base32(value: int, chars: int) -> str:
    return "".join(ALPHABET[value >> 5 * place & 31] for place in range(chars - 1, -1, -1))
