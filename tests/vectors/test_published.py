"""RFC 5869, 7748, 8032 and FIPS 203, 204 vectors against our wrappers, and an oracle for the split KEM.

The files are those of ``cryptography-vectors``. The oracle is ``kyber-py``, an implementation of ML-KEM in
plain Python that shares nothing with ours: no lanes, no OpenSSL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import cryptography_vectors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kyber_py.ml_kem import ML_KEM_768, ML_KEM_1024

from lokket.crypto import mlkem, primitives
from lokket.crypto.keys import (
    Ed25519KeyPair,
    MLDSAKeyPair,
    MLKEMKeyPair,
    X25519KeyPair,
    check_ed25519_public,
    check_mldsa_public,
    montgomery_from_ed25519,
    verify_ed25519,
    verify_mldsa,
)
from lokket.crypto.xeddsa import IdentityKeyPair, check_identity_key, verify_xeddsa
from lokket.errors import KeyRefused, SignatureRefused

FOLDER: Final = Path(cryptography_vectors.__file__).parent
ORACLES: Final = {768: ML_KEM_768, 1024: ML_KEM_1024}
Q: Final = mlkem.Q


def records(name: str) -> Iterator[dict[str, str]]:
    """Each ``count = `` of a NIST-style file, its fields by their names in small letters."""
    found: dict[str, str] = {}
    with (FOLDER / name).open() as lines:
        for line in lines:
            field, equals, text = line.partition("=")
            if line.startswith("#") or not equals:
                continue
            if field.strip().lower() == "count" and found:
                yield found
                found = {}
            found[field.strip().lower()] = text.strip()
    yield found


def test_hkdf_is_rfc_5869() -> None:
    vectors = list(records("KDF/rfc-5869-HKDF-SHA256.txt"))
    for vector in vectors:
        material, salt, info = (bytes.fromhex(vector.get(name, "")) for name in ("ikm", "salt", "info"))
        made = primitives.hkdf_sha256(material, salt=salt, info=info, length=int(vector["l"]))
        assert made == bytes.fromhex(vector["okm"])
    assert len(vectors) == 3


def test_x25519_is_rfc_7748_section_5_2() -> None:
    vectors = list(records("asymmetric/X25519/rfc7748.txt"))
    for vector in vectors:
        pair = X25519KeyPair(bytes.fromhex(vector["input_scalar"]))
        assert pair.exchange(bytes.fromhex(vector["input_u"])) == bytes.fromhex(vector["output_u"])
    assert len(vectors) >= 3


def test_x25519_a_thousand_times() -> None:
    """RFC 7748 section 5.2: k, u = X25519(k, u), k; after one and after a thousand steps."""
    scalar = point = b"\x09" + bytes(31)
    for step in range(1, 1_001):
        scalar, point = X25519KeyPair(scalar).exchange(point), scalar
        if step == 1:
            assert scalar.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert scalar.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_x25519_is_rfc_7748_section_6_1() -> None:
    bob = X25519KeyPair(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert bob.public.hex() == "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert bob.exchange(alice).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


def test_ed25519_is_rfc_8032() -> None:
    """The 1024 vectors of the original paper, which hold RFC 8032's first three; each as XEdDSA, too."""
    run = 0
    for line in (FOLDER / "asymmetric" / "Ed25519" / "sign.input").read_text().splitlines():
        secret, public, message, signed = (bytes.fromhex(part) for part in line.split(":")[:4])
        pair, signature = Ed25519KeyPair(secret[:32]), signed[:64]
        assert pair.public == public
        assert pair.sign(message) == signature
        check_ed25519_public(public)
        verify_ed25519(public, signature, message)
        with pytest.raises(SignatureRefused):
            verify_ed25519(public, signature, message + b"\x00")
        identity = IdentityKeyPair(secret[:32])
        assert identity.public == b"\x05" + montgomery_from_ed25519(public)
        assert identity.sign(message) == signature[:63] + bytes((signature[63] | public[31] & 0x80,))
        if run < 200:
            check_identity_key(identity.public)
        verify_xeddsa(identity.public, identity.sign(message), message)
        run += 1
    assert run == 1_024


@pytest.mark.parametrize("level", [768, 1024])
def test_mlkem_is_fips_203(level: int) -> None:
    """1,000 key pairs, ciphertexts and refused ciphertexts; encapsulation in Python for every twentieth."""
    run = 0
    for vector in records(f"asymmetric/MLKEM/kat_MLKEM_{level}.rsp"):
        field = {name: bytes.fromhex(text) for name, text in vector.items() if name != "count"}
        pair = MLKEMKeyPair(level, field["d"] + field["z"])
        assert pair.public == field["pk"]
        assert pair.decapsulate(field["ct"]) == field["ss"]
        assert pair.decapsulate(field["ct_n"]) == field["ss_n"]  # implicit rejection
        if run % 20 == 0:
            assert mlkem.encapsulate_with(field["pk"], field["msg"]) == (field["ss"], field["ct"])
            if level == 768:
                check_split(field["pk"], field["msg"], (field["ss"], field["ct"]))
        run += 1
    assert run == 1_000


@pytest.mark.parametrize("level", [44, 65])
def test_mldsa_is_fips_204(level: int) -> None:
    run = 0
    for vector in records(f"asymmetric/MLDSA/kat_MLDSA_{level}_det_pure.rsp"):
        public, message, context = (bytes.fromhex(vector[name]) for name in ("pk", "msg", "ctx"))
        signature = bytes.fromhex(vector["sm"])[: -len(message) or None]
        assert MLDSAKeyPair(level, bytes.fromhex(vector["xi"])).public == public
        check_mldsa_public(level, public)
        verify_mldsa(level, public, signature, message, context)
        with pytest.raises(SignatureRefused):
            verify_mldsa(level, public, signature, message, context + b"\x00")
        run += 1
    assert run == 100


# --- the split encapsulation beside another implementation ---


def check_split(public: bytes, message: bytes, expected: tuple[bytes, bytes]) -> None:
    key_header, vector = mlkem.header(public), public[: mlkem.VECTOR_768_BYTES]
    mlkem.check_public_key(vector, key_header)
    secret, ct1 = mlkem.encapsulate_1(key_header, message)
    assert (secret, ct1 + mlkem.encapsulate_2(vector, key_header, message)) == expected


def check_against_oracle(level: int, public: bytes, message: bytes) -> None:
    expected = ORACLES[level]._encaps_internal(public, message)
    assert mlkem.encapsulate_with(public, message) == expected
    if level == 768:
        check_split(public, message, expected)


levels = pytest.mark.parametrize("level", [768, 1024])
EXTREME: Final = (0, 1, 2, 1664, 1665, Q - 2, Q - 1)


def encoded(coefficients: list[int]) -> bytes:
    """ByteEncode_12, FIPS 203 algorithm 5."""
    packed = sum(value << 12 * place for place, value in enumerate(coefficients))
    return packed.to_bytes(len(coefficients) * 12 // 8, "little")


@levels
@settings(max_examples=25)
@given(st.binary(min_size=64, max_size=64), st.binary(min_size=32, max_size=32))
def test_random_keys(level: int, seed: bytes, message: bytes) -> None:
    oracle = ORACLES[level]
    public, private = oracle._keygen_internal(seed[:32], seed[32:])
    pair = MLKEMKeyPair(level, seed)
    assert pair.public == public
    check_against_oracle(level, public, message)
    ciphertext = bytearray(mlkem.encapsulate_with(public, message)[1])
    ciphertext[message[0] % len(ciphertext)] ^= 1 << message[1] % 8
    assert pair.decapsulate(bytes(ciphertext)) == oracle._decaps_internal(private, bytes(ciphertext))


@levels
@settings(max_examples=25)
@given(st.data())
def test_keys_with_extreme_coefficients(level: int, data: st.DataObject) -> None:
    """Canonical keys that no seed gives: where a lane would overflow, it overflows here."""
    k = level // 256
    pattern = data.draw(st.lists(st.sampled_from(EXTREME), min_size=1, max_size=8))
    coefficients = (pattern * (256 * k))[: 256 * k]
    rho = data.draw(st.sampled_from((bytes(32), b"\xff" * 32, bytes(range(32)))))
    message = data.draw(st.sampled_from((bytes(32), b"\xff" * 32, b"\xaa" * 32)))
    check_against_oracle(level, encoded(coefficients) + rho, message)


@levels
@pytest.mark.parametrize("value", [0, 1, Q - 1])
@pytest.mark.parametrize("message", [bytes(32), b"\xff" * 32], ids=["zeros", "ones"])
def test_keys_of_one_coefficient(level: int, value: int, message: bytes) -> None:
    public = encoded([value] * level) + hashlib.sha256(b"%d" % value).digest()
    check_against_oracle(level, public, message)


@levels
@pytest.mark.parametrize("value", [Q, Q + 1, 4095])
@pytest.mark.parametrize("place", [0, 1, 255, 256, -1])
def test_both_refuse_a_coefficient_out_of_range(level: int, value: int, place: int) -> None:
    coefficients = [7] * level
    coefficients[place] = value
    public = encoded(coefficients) + bytes(32)
    with pytest.raises(KeyRefused):
        mlkem.encapsulate_with(public, bytes(32))
    with pytest.raises(ValueError):  # noqa: PT011
        ORACLES[level]._encaps_internal(public, bytes(32))
