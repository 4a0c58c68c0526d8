"""HPKE to X-Wing keys: published vectors, OpenSSL against our replayable sealing, and what does not open."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lokket.crypto.hpke import SEAL_OVERHEAD_BYTES, XWING_PUBLIC_BYTES, open_sealed
from lokket.errors import DecryptionFailed, KeyRefused, LocalError
from lokket.protocol.identity.device_keys import InboxKeyPair
from lokket.system import SystemEntropy
from tests.house.tree import ROOT
from tests.sim.entropy import SeededEntropy
from tests.support import hpke

VECTORS = ROOT.parent / "shared" / "vectors" / "hpke-pq" / "test-vectors.json"
SEED = bytes(range(32))
KEY = InboxKeyPair(SEED).public
INFO, TEXT = b"what for", b"between us"


def text_of(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


@pytest.fixture(scope="module")
def vector() -> dict[str, Any]:
    """Of our suite: X-Wing, HKDF-SHA256, ChaCha20-Poly1305."""
    if not VECTORS.exists():
        pytest.skip("the HPKE vectors (shared/vectors/hpke-pq beside the repository) are not here")
    suite = {"mode": 0, "kem_id": 0x647A, "kdf_id": 1, "aead_id": 3}
    found: list[dict[str, Any]] = [
        one for one in json.loads(VECTORS.read_text()) if suite.items() <= one.items()
    ]
    assert len(found) == 1
    return found[0]


def test_our_replayable_sealing_gives_the_published_bytes(vector: dict[str, Any]) -> None:
    first = vector["encryptions"][0]
    made = hpke.seal(
        text_of(vector, "pkRm"),
        text_of(vector, "info"),
        text_of(first, "pt"),
        text_of(vector, "ikmE"),
        text_of(first, "aad"),
    )
    assert made == text_of(vector, "enc") + text_of(first, "ct")


def test_the_published_key_is_opened_with(vector: dict[str, Any]) -> None:
    """The vectors have associated data and we have none: sealed again without, then opened by OpenSSL."""
    seed, info = text_of(vector, "skRm"), text_of(vector, "info")
    assert InboxKeyPair(seed).public == text_of(vector, "pkRm")
    sealed = hpke.seal(text_of(vector, "pkRm"), info, TEXT, text_of(vector, "ikmE"))
    assert open_sealed(seed, info, sealed) == TEXT
    assert sealed[:1120] == text_of(vector, "enc")


@pytest.mark.parametrize("number", range(5))
def test_openssl_opens_what_the_simulator_seals(number: int) -> None:
    entropy = SeededEntropy(f"hpke {number}")
    seed = entropy.draw(32)
    sealed = entropy.seal(InboxKeyPair(seed).public, INFO, TEXT)
    assert open_sealed(seed, INFO, sealed) == TEXT
    again = SeededEntropy(f"hpke {number}")
    assert again.draw(32) == seed
    assert again.seal(InboxKeyPair(seed).public, INFO, TEXT) == sealed


def test_sealing_draws_and_has_one_length() -> None:
    sealed, again = (SystemEntropy().seal(KEY, INFO, TEXT) for _ in range(2))
    assert sealed != again
    assert len(sealed) == len(again) == len(TEXT) + SEAL_OVERHEAD_BYTES
    assert open_sealed(SEED, INFO, sealed) == open_sealed(SEED, INFO, again) == TEXT


def test_only_the_key_and_the_info_open_it() -> None:
    sealed = SystemEntropy().seal(KEY, INFO, TEXT)
    for seed, info in ((bytes(32), INFO), (SEED, b""), (SEED, INFO + b"\x00")):
        with pytest.raises(DecryptionFailed):
            open_sealed(seed, info, sealed)
    with pytest.raises(LocalError):
        open_sealed(SEED[:31], INFO, sealed)


@pytest.mark.attack(4)
def test_every_part_of_a_sealed_text_counts() -> None:
    """Both encapsulations, the text and the tag; cut short or longer, it opens no more."""
    sealed = SystemEntropy().seal(KEY, INFO, TEXT)
    for place in (0, 600, 1087, 1088, 1119, 1120, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(DecryptionFailed):
            open_sealed(SEED, INFO, bytes(changed))
    for damaged in (b"", sealed[:1119], sealed[:-1], sealed + b"\x00"):
        with pytest.raises(DecryptionFailed):
            open_sealed(SEED, INFO, damaged)


@pytest.mark.attack(1)
@pytest.mark.parametrize(
    "key",
    [b"", KEY[:-1], KEY + b"\x00", b"\xff" * 1184 + KEY[1184:], KEY[:1184] + bytes(32)],
    ids=["empty", "short", "long", "coefficients above q", "low order"],
)
def test_keys_that_are_none_are_refused(key: bytes) -> None:
    assert len(KEY) == XWING_PUBLIC_BYTES
    with pytest.raises(KeyRefused):
        SystemEntropy().seal(key, INFO, TEXT)
