"""HMAC, HKDF and CBC by hand, pinned to the standard library's and OpenSSL's."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from lokket.crypto import primitives
from lokket.errors import DecryptionFailed
from tests.support.refusals import refusal

KEYS = st.binary(min_size=32, max_size=32)


@given(st.binary(max_size=200), st.binary(max_size=300))
def test_hmac(key: bytes, data: bytes) -> None:
    assert primitives.hmac_sha256(key, data) == hmac.digest(key, data, "sha256")


@given(st.binary(max_size=100), st.binary(max_size=100), st.binary(max_size=100))
def test_hmac_pair(key: bytes, first: bytes, second: bytes) -> None:
    expected = hmac.digest(key, first, "sha256"), hmac.digest(key, second, "sha256")
    assert primitives.hmac_sha256_pair(key, first, second) == expected


@given(st.binary(max_size=100), st.none() | st.binary(max_size=100), st.binary(max_size=100))
def test_hkdf_pair_and_triple(key_material: bytes, salt: bytes | None, info: bytes) -> None:
    whole = primitives.hkdf_sha256(key_material, salt=salt, info=info, length=96)
    parts = whole[:32], whole[32:64], whole[64:]
    assert primitives.hkdf_sha256_pair(key_material, salt, info) == parts[:2]
    assert primitives.hkdf_sha256_triple(key_material, salt, info) == parts


@given(
    st.binary(max_size=100),
    st.none() | st.binary(max_size=100),
    st.binary(max_size=80),
    st.integers(1, 255 * 32),
)
def test_hkdf(key_material: bytes, salt: bytes | None, info: bytes, length: int) -> None:
    expected = HKDF(SHA256(), length, salt, info).derive(key_material)
    assert primitives.hkdf_sha256(key_material, salt=salt, info=info, length=length) == expected


def test_hkdf_is_rfc_5869() -> None:
    """Appendix A.1 and A.3 (no salt)."""
    first = primitives.hkdf_sha256(
        b"\x0b" * 22, salt=bytes(range(13)), info=bytes(range(0xF0, 0xFA)), length=42
    )
    assert first.hex() == (
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
    )
    third = primitives.hkdf_sha256(b"\x0b" * 22, salt=None, info=b"", length=42)
    assert third.hex() == (
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"
    )


@given(KEYS, st.binary(min_size=16, max_size=16), st.binary(max_size=100))
def test_cbc(key: bytes, iv: bytes, plaintext: bytes) -> None:
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    expected = encryptor.update(padder.update(plaintext) + padder.finalize()) + encryptor.finalize()
    assert primitives.aes_cbc_encrypt(key, iv, plaintext) == expected
    assert primitives.aes_cbc_decrypt(key, iv, expected) == plaintext


@pytest.mark.parametrize(
    "end",
    [b"\x00", b"\x11", b"\xff", b"\x01\x02", b"\x03\x02\x03", b"\x10" * 15 + b"\x10", b"\x0f" + b"\x10" * 15],
)
def test_padding(end: bytes) -> None:
    """Exactly PKCS #7: a size of 1 to 16, repeated that often."""
    key, iv = bytes(32), bytes(16)
    block = end.rjust(16, b"\xaa")
    encryptor = Cipher(algorithms.AES(key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(block) + encryptor.finalize()
    unpadder = padding.PKCS7(128).unpadder()
    try:
        expected = unpadder.update(block) + unpadder.finalize()
    except ValueError:
        with refusal(DecryptionFailed, "bad-padding"):
            primitives.aes_cbc_decrypt(key, iv, ciphertext)
    else:
        assert primitives.aes_cbc_decrypt(key, iv, ciphertext) == expected


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31])
def test_a_ciphertext_of_no_whole_blocks(size: int) -> None:
    with refusal(DecryptionFailed, "bad-padding"):
        primitives.aes_cbc_decrypt(bytes(32), bytes(16), bytes(size))


def test_the_rest() -> None:
    assert primitives.sha256(b"abc") == hashlib.sha256(b"abc").digest()
    assert primitives.shake256(b"abc", 40) == hashlib.shake_256(b"abc").digest(40)
    assert primitives.equal(b"same", b"same")
    assert not primitives.equal(b"same", b"sane")
    assert not primitives.equal(b"same", b"sam")


@pytest.mark.parametrize(
    ("key_bytes", "iv_bytes"), [(16, 16), (31, 16), (33, 16), (32, 0), (32, 15), (32, 17)]
)
def test_cbc_takes_one_size_of_key_and_iv(key_bytes: int, iv_bytes: int) -> None:
    for one in (primitives.aes_cbc_encrypt, primitives.aes_cbc_decrypt):
        with pytest.raises(ValueError, match="32 bytes and an IV of 16"):
            one(bytes(key_bytes), bytes(iv_bytes), bytes(16))


def _broken(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    raise AttributeError("'AES256' object has no attribute 'key'")


def _wrong(key: bytes, iv: bytes) -> Cipher[modes.CBC]:
    return primitives._usual_cbc(bytes(32), iv)


@pytest.mark.parametrize("changed", [_broken, _wrong])
def test_cbc_survives_another_inside_of_cryptography(
    monkeypatch: pytest.MonkeyPatch, changed: Callable[[bytes, bytes], Cipher[modes.CBC]]
) -> None:
    """The quick way is chosen here and now; where it fails or gives something else, the usual one is."""
    key, iv = b"k" * 32, b"i" * 16
    assert primitives._make_cbc is primitives._choose_cbc() is primitives._quick_cbc
    expected = primitives.aes_cbc_encrypt(key, iv, b"text")
    monkeypatch.setattr(primitives, "_quick_cbc", changed)
    monkeypatch.setattr(primitives, "_make_cbc", primitives._choose_cbc())
    assert primitives._make_cbc is primitives._usual_cbc
    assert primitives.aes_cbc_encrypt(key, iv, b"text") == expected
    assert primitives.aes_cbc_decrypt(key, iv, expected) == b"text"
