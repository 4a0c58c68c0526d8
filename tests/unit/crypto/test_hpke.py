"""HPKE: published vectors of every suite carried, OpenSSL as the other side, and what does not open."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set
from typing import Any

import pytest
from cryptography.hazmat.primitives import hpke as openssl
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from lokket.crypto import kem, mlkem
from lokket.crypto.hpke import (
    AES_128_GCM,
    AES_256_GCM,
    CHACHA20_POLY1305,
    SEAL_OVERHEAD_BYTES,
    XWING_PUBLIC_BYTES,
    XWING_SUITE,
    Suite,
    open_sealed,
    seal_xwing,
)
from lokket.crypto.keys import LOW_ORDER_X25519, P
from lokket.crypto.primitives import shake256
from lokket.errors import DecryptionFailed, KeyRefused, LocalError
from lokket.protocol.identity.device_keys import InboxKeyPair
from lokket.system import SystemEntropy
from tests.house.tree import ROOT
from tests.sim.entropy import SeededEntropy
from tests.support.refusals import refusal

POST_QUANTUM = ROOT.parent / "shared" / "vectors" / "hpke-pq" / "test-vectors.json"
CLASSICAL = ROOT / "tests" / "vectors" / "hpke" / "rfc9180.json"
SEED = bytes(range(32))
KEY = InboxKeyPair(SEED).public
P448 = 2**448 - 2**224 - 1
INFO, TEXT = b"what for", b"between us"
KEMS = {
    one.number: one
    for one in (
        kem.DHKEM_P256,
        kem.DHKEM_P384,
        kem.DHKEM_P521,
        kem.DHKEM_X25519,
        kem.DHKEM_X448,
        kem.XWING,
    )
}
HASHES = {1: "sha256", 2: "sha384", 3: "sha512"}
AEADS = {1: AES_128_GCM, 2: AES_256_GCM, 3: CHACHA20_POLY1305}
OPENSSL = openssl.Suite(openssl.KEM.MLKEM768_X25519, openssl.KDF.HKDF_SHA256, openssl.AEAD.CHACHA20_POLY1305)


class Given(SystemEntropy):
    """Draws what a vector says: one key material, or ML-KEM's message and then a scalar."""

    def __init__(self, *draws: bytes) -> None:
        self.draws = list(draws)

    def draw(self, size: int) -> bytes:
        return self.draws.pop(0)

    def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        return mlkem.encapsulate_with(public_key, self.draws.pop(0))


def text_of(vector: dict[str, Any], name: str) -> bytes:
    return bytes.fromhex(vector[name])


def post_quantum_vectors() -> list[dict[str, Any]]:
    if not POST_QUANTUM.exists():
        pytest.skip("the HPKE vectors (shared/vectors/hpke-pq beside the repository) are not here")
    vectors: list[dict[str, Any]] = json.loads(POST_QUANTUM.read_text())
    return [one for one in vectors if one["kem_id"] in KEMS]


def check(vector: dict[str, Any], entropy: SystemEntropy) -> None:
    """Everything that a vector of base mode holds, of both sides."""
    key_encapsulation = KEMS[vector["kem_id"]]
    pair = key_encapsulation.derive_key_pair(text_of(vector, "ikmR"))
    loaded = key_encapsulation.load(text_of(vector, "skRm"))  # of X448 it may stand clamped
    assert pair.public == loaded.public == text_of(vector, "pkRm")
    shared, encapsulated = key_encapsulation.encap(pair.public, entropy)
    assert encapsulated == text_of(vector, "enc")
    assert shared == text_of(vector, "shared_secret") == key_encapsulation.decap(pair, encapsulated)
    if vector["kdf_id"] not in HASHES:
        return
    suite = Suite(key_encapsulation, HASHES[vector["kdf_id"]], AEADS[vector["aead_id"]])
    sender = suite.context(shared, text_of(vector, "info"))
    receiver = suite.receiver(pair, encapsulated, text_of(vector, "info"))
    for number, one in enumerate(vector["encryptions"]):
        while sender._sequence < one.get("number", number):
            receiver.open(sender.seal(b"between the published ones"))
        assert sender.seal(text_of(one, "pt"), text_of(one, "aad")) == text_of(one, "ct")
        assert receiver.open(text_of(one, "ct"), text_of(one, "aad")) == text_of(one, "pt")
    for one in vector["exports"]:
        assert sender.export(text_of(one, "exporter_context"), one["L"]) == text_of(one, "exported_value")


def test_the_vectors_of_rfc_9180() -> None:
    for vector in json.loads(CLASSICAL.read_text()):
        check(vector, Given(text_of(vector, "ikmE")))


def test_the_post_quantum_vectors() -> None:
    """X-Wing with HKDF-SHA256 whole; those with SHAKE, which MLS does not use, as far as the KEM goes."""
    found = post_quantum_vectors()
    assert [vector["kem_id"] for vector in found] == [0x647A, 0x10, 0x11, 0x20, 0x21, 0x647A]
    for vector in found:
        randomness = text_of(vector, "ikmE")
        split = 32 if vector["kem_id"] == kem.XWING.number else len(randomness)
        check(vector, Given(randomness[:split], randomness[split:]))


def test_an_x_wing_pair_follows_from_key_material() -> None:
    """The first X-Wing vector of draft-ietf-hpke-pq, for where the file of vectors is not."""
    pair = kem.XWING.derive_key_pair(
        bytes.fromhex("b86e76a59fabfc87b30cd7b1f7aaa28a834eb64e7a261c197b9a842893fbce56")
    )
    assert pair.private.hex() == "3ec47fa82dd5689d27c6190e724c74ec8f608df3331ce331929e37b829676630"
    digest = hashlib.sha256(pair.public).hexdigest()
    assert digest == "ad8aaf3f00d8a39bfeec2947a7d5dde68be08bba19bd301a348a45dc5fcc8341"


@pytest.mark.parametrize("number", range(5))
def test_openssl_opens_what_we_seal_and_the_other_way(number: int) -> None:
    entropy = SeededEntropy(f"hpke {number}")
    seed = entropy.draw(32)
    public = InboxKeyPair(seed).public
    expanded = shake256(seed, 96)
    private_key = openssl.MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )
    public_key = openssl.MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:1184]), X25519PublicKey.from_public_bytes(public[1184:])
    )
    sealed = seal_xwing(public, INFO, TEXT, entropy)
    assert OPENSSL.decrypt(sealed, private_key, INFO) == TEXT
    assert open_sealed(seed, INFO, OPENSSL.encrypt(TEXT, public_key, INFO)) == TEXT
    again = SeededEntropy(f"hpke {number}")
    assert again.draw(32) == seed
    assert seal_xwing(public, INFO, TEXT, again) == sealed


@pytest.mark.parametrize("name", ["sha256", "sha384", "sha512"])
def test_hkdf_gives_at_most_255_blocks(name: str) -> None:
    most = 255 * hashlib.new(name).digest_size
    assert kem.expand(name, b"k" * 32, b"info", most) == HKDFExpand(
        {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}[name], most, b"info"
    ).derive(b"k" * 32)
    with refusal(LocalError):
        kem.expand(name, b"k" * 32, b"info", most + 1)


def test_sealing_draws_and_has_one_length() -> None:
    sealed, again = (seal_xwing(KEY, INFO, TEXT, SystemEntropy()) for _ in range(2))
    assert sealed != again
    assert len(sealed) == len(again) == len(TEXT) + SEAL_OVERHEAD_BYTES
    assert open_sealed(SEED, INFO, sealed) == open_sealed(SEED, INFO, again) == TEXT


def test_only_the_key_and_the_info_open_it() -> None:
    sealed = seal_xwing(KEY, INFO, TEXT, SystemEntropy())
    for seed, info in ((bytes(32), INFO), (SEED, b""), (SEED, INFO + b"\x00")):
        with refusal(DecryptionFailed, "not-sealed-to-us"):
            open_sealed(seed, info, sealed)
    with refusal(LocalError):
        open_sealed(SEED[:31], INFO, sealed)


@pytest.mark.attack(4)
def test_every_part_of_a_sealed_text_counts() -> None:
    """Both encapsulations, the text and the tag; cut short or longer, it opens no more."""
    sealed = seal_xwing(KEY, INFO, TEXT, SystemEntropy())
    for place in (0, 600, 1087, 1088, 1119, 1120, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with refusal(DecryptionFailed, "not-sealed-to-us"):
            open_sealed(SEED, INFO, bytes(changed))
    for damaged in (b"", sealed[:1119], sealed[:-1], sealed + b"\x00"):
        with refusal(DecryptionFailed, "not-sealed-to-us"):
            open_sealed(SEED, INFO, damaged)


@pytest.mark.parametrize("number", sorted(KEMS))
def test_a_context_counts_and_opens_in_order_only(number: int) -> None:
    entropy = SystemEntropy()
    suite = Suite(KEMS[number], "sha256", AES_128_GCM)
    pair = suite.kem.derive_key_pair(entropy.draw(suite.kem.private_bytes))
    suite.kem.check_public(pair.public)
    encapsulated, sender = suite.sender(pair.public, INFO, entropy)
    assert len(encapsulated) == suite.kem.encapsulated_bytes
    assert (len(pair.private), len(pair.public)) == (suite.kem.private_bytes, suite.kem.public_bytes)
    receiver = suite.receiver(pair, encapsulated, INFO)
    first, second = sender.seal(TEXT, b"1"), sender.seal(TEXT, b"2")
    with refusal(DecryptionFailed, "not-sealed-to-us"):
        receiver.open(second, b"2")
    assert receiver.open(first, b"1") == receiver.open(second, b"2") == TEXT
    assert sender.export(b"", 20) == receiver.export(b"", 20)
    assert repr(pair.private)[2:-1] not in repr(pair)
    assert repr(sender) == "Context(…)"


@pytest.mark.attack(1)
@pytest.mark.parametrize(
    "key",
    [b"", KEY[:-1], KEY + b"\x00", b"\xff" * 1184 + KEY[1184:], KEY[:1184] + bytes(32)],
    ids=["empty", "short", "long", "coefficients above q", "low order"],
)
def test_keys_that_are_none_are_refused(key: bytes) -> None:
    assert len(KEY) == XWING_PUBLIC_BYTES == XWING_SUITE.kem.public_bytes
    with refusal(KeyRefused):
        seal_xwing(key, INFO, TEXT, SystemEntropy())
    with refusal(KeyRefused):
        XWING_SUITE.kem.check_public(key)


@pytest.mark.attack(1)
@pytest.mark.parametrize(
    ("number", "prime", "low_order"),
    [(0x0020, P, LOW_ORDER_X25519), (0x0021, P448, {0, 1, P448 - 1}), (0x647A, P, LOW_ORDER_X25519)],
)
def test_a_key_to_which_nothing_can_be_sealed_is_refused_before(
    number: int, prime: int, low_order: Set[int]
) -> None:
    """A group takes keys long before anyone seals to them: whoever comes too late to look cannot commit."""
    suite = Suite(KEMS[number], "sha256", AES_128_GCM)
    bits, size = prime.bit_length(), 56 if prime == P448 else 32
    front = suite.kem.derive_key_pair(bytes(66)).public[:-size]
    encodings = [value for u in low_order for value in (u, u + prime) if value < 1 << bits]
    encodings += [
        value | 1 << bits for value in encodings if bits < 8 * size
    ]  # a bit that counts for nothing
    assert len(encodings) >= 5
    for value in encodings:
        key = front + value.to_bytes(size, "little")
        with refusal(KeyRefused):
            suite.kem.check_public(key)
        with refusal(KeyRefused):
            suite.sender(key, INFO, SystemEntropy())


@pytest.mark.parametrize("number", sorted(set(KEMS) - {0x647A}))
def test_classical_keys_that_are_none_are_refused(number: int) -> None:
    suite = Suite(KEMS[number], "sha256", AES_128_GCM)
    pair = suite.kem.derive_key_pair(bytes(66))
    malformed = [b"", bytes(suite.kem.public_bytes), pair.public[:-1], pair.public + b"\x00"]
    if pair.public[0] == 4:  # a point of a curve: its compressed form is none of ours
        malformed.append(bytes((2 + pair.public[-1] % 2,)) + pair.public[1 : suite.kem.private_bytes + 1])
    for key in malformed:
        with refusal(KeyRefused):
            suite.sender(key, INFO, SystemEntropy())
        with refusal(KeyRefused):
            suite.kem.check_public(key)
        with refusal(DecryptionFailed):
            suite.receiver(pair, key, INFO)
