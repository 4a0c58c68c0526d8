"""The simulator's own parts: OpenSSL accepts what the seeded entropy makes."""

from __future__ import annotations

import pytest

from lokket.crypto.keys import MLDSAKeyPair, MLKEMKeyPair, verify_mldsa
from lokket.engine.store import MESSAGE, SEEN

from .entropy import SeededEntropy
from .vault import PowerCut, Vault


@pytest.mark.parametrize("level", [44, 65])
def test_openssl_verifies_the_deterministic_signatures(level: int) -> None:
    for number in range(5):
        entropy = SeededEntropy(f"{level} {number}")
        key = MLDSAKeyPair(level, entropy.draw(32))
        signature = entropy.sign_mldsa(key, b"message %d" % number, b"context")
        verify_mldsa(level, key.public, signature, b"message %d" % number, b"context")
        assert signature == entropy.sign_mldsa(key, b"message %d" % number, b"context")


@pytest.mark.parametrize("level", [768, 1024])
def test_openssl_decapsulates(level: int) -> None:
    entropy = SeededEntropy(str(level))
    key = MLKEMKeyPair(level, entropy.draw(64))
    secret, ciphertext = entropy.encapsulate(key.public)
    assert key.decapsulate(ciphertext) == secret


def test_same_seed_same_bytes() -> None:
    assert SeededEntropy("a").draw(40) == SeededEntropy("a").draw(40) != SeededEntropy("b").draw(40)


def test_a_transaction_is_all_or_nothing() -> None:
    vault = Vault()
    tx = vault.begin()
    tx.put(SEEN, b"a", b"1")
    tx.commit()
    before = vault.digest()
    tx = vault.begin(cut_after=3)
    tx.put(SEEN, b"a", b"2")
    tx.put(SEEN, b"b", b"2")
    tx.delete(SEEN, b"a")
    with pytest.raises(PowerCut):
        tx.get(SEEN, b"a")
    tx.rollback()
    assert vault.digest() == before


def test_scans_go_by_prefix_and_order() -> None:
    vault = Vault()
    tx = vault.begin()
    for key in (b"a\xff\x01", b"a", b"b", b"a\x00", b"a\xff"):
        tx.put(MESSAGE, key, key)
    assert [key for key, _ in tx.scan(MESSAGE, b"a")] == [b"a", b"a\x00", b"a\xff", b"a\xff\x01"]
    assert [key for key, _ in tx.scan(MESSAGE, b"a\xff")] == [b"a\xff", b"a\xff\x01"]
    assert [key for key, _ in tx.scan(MESSAGE, b"a", after=b"a\x00")] == [b"a\xff", b"a\xff\x01"]
    assert next(key for key, _ in tx.scan(MESSAGE, reverse=True)) == b"b"
    assert [key for key, _ in tx.scan(MESSAGE, b"a", after=b"a\xff", reverse=True)] == [b"a\x00", b"a"]
