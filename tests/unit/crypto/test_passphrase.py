"""A key under a passphrase: opened by hand, bounded in its costs, and refused in a sentence."""

from __future__ import annotations

import unicodedata
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from lokket import limits
from lokket.crypto import passphrase
from lokket.crypto.passphrase import Costs, unwrap_key, wrap_key
from lokket.errors import LocalError
from tests.support.entropy import SeededEntropy
from tests.support.refusals import refusal

KEY = bytes(range(32))
WORDS = "grüne Birne"
CHEAP = Costs(limits.BACKUP_MEMORY_MIN_KIB, 2, 3)


def test_it_is_argon2id_a_commitment_and_aes_gcm() -> None:
    wrapped = wrap_key(KEY, unicodedata.normalize("NFD", WORDS), SeededEntropy("by hand"), CHEAP)
    assert wrapped.costs == CHEAP
    assert wrapped.salt == SeededEntropy("by hand").draw(16)
    output = Argon2id(
        salt=wrapped.salt, length=64, iterations=2, lanes=3, memory_cost=limits.BACKUP_MEMORY_MIN_KIB
    ).derive(unicodedata.normalize("NFC", WORDS).encode())
    assert wrapped.commitment == output[32:]
    costs = limits.BACKUP_MEMORY_MIN_KIB.to_bytes(4, "big") + b"\x00\x02" + b"\x03"
    assert AESGCM(output[:32]).decrypt(bytes(12), wrapped.sealed, costs + wrapped.salt) == KEY
    assert unwrap_key(wrapped, unicodedata.normalize("NFC", WORDS)) == KEY


def test_what_does_not_open() -> None:
    wrapped = wrap_key(KEY, WORDS, SeededEntropy("damaged"), CHEAP)
    with refusal(LocalError):
        unwrap_key(wrapped, WORDS + " ")
    with refusal(LocalError):
        unwrap_key(replace(wrapped, sealed=bytes(48)), WORDS)
    with refusal(LocalError):
        unwrap_key(replace(wrapped, commitment=bytes(32)), WORDS)
    with refusal(LocalError):
        wrap_key(KEY, "", SeededEntropy("none"), CHEAP)


def test_without_a_word_it_costs_the_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Costs(limits.BACKUP_MEMORY_KIB, limits.BACKUP_PASSES, limits.BACKUP_LANES) == passphrase.USUAL
    monkeypatch.setattr(passphrase, "USUAL", CHEAP)
    assert wrap_key(KEY, WORDS, SeededEntropy("usual")).costs == CHEAP


def test_the_bounds_of_costs() -> None:
    least = (limits.BACKUP_MEMORY_MIN_KIB, 1, 1)
    most = (limits.ARGON2_MEMORY_MAX_KIB, limits.ARGON2_PASSES_MAX, limits.ARGON2_LANES_MAX)
    assert (Costs(*least).memory_kib, Costs(*most).lanes) == (least[0], most[2])
    for bound, step in ((least, -1), (most, 1)):
        for place in range(3):
            beyond = list(bound)
            beyond[place] += step
            with pytest.raises(ValueError, match="out of bounds"):
                Costs(*beyond)
