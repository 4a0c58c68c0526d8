"""The recovery code: 256 bits that a person writes down, and the keys that come of it.

Source: docs/identity.md, "Recovery". The code is shown once and stored nowhere. Key ``counter`` is the
one that the genesis (0) or the ``counter``-th rotation commits to.
"""

from __future__ import annotations

from typing import Final

from lokket.codec import tls
from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError
from lokket.protocol.identity.encoding import derive, hash_labelled
from lokket.protocol.identity.keys import HYBRID_SEED_BYTES, HybridKey, HybridKeyPair
from lokket.protocol.identity.written import read_code, write_code

_KIND: Final = "recovery code"


def new_recovery_code(entropy: Entropy) -> str:
    """Fourteen groups of four characters: 52 of the code and 4 of its checksum."""
    return write_code(entropy.draw(32), _KIND)


def recovery_key(code: str, counter: int) -> HybridKeyPair:
    """The key of this counter. LocalError: the code has a slip of the pen."""
    if not 0 <= counter < 2**32:
        raise LocalError("a recovery counter is a uint32")
    secret = read_code(code, _KIND)
    return HybridKeyPair(derive(secret, "recovery key", counter.to_bytes(4, "big"), HYBRID_SEED_BYTES))


def recovery_commitment(key: HybridKey) -> bytes:
    """H("recovery key", HybridKey), 32 bytes: what genesis and rotations carry until the key is shown."""
    return hash_labelled("recovery key", tls.encode(key))
