"""Wycheproof (C2SP, Apache-2.0) against our own wrappers: what must be refused, and what must come out.

``FILES`` names every file beside the repository, and either what runs it or why nothing can. A runner
says of each vector: ran, refused on purpose although the file calls it valid or acceptable, or outside
what the wrapper offers; how many of each is pinned, so that no vector is left out unseen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from lokket.crypto import kem, mlkem, primitives
from lokket.crypto.hpke import AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, Context
from lokket.crypto.keys import (
    MLKEMKeyPair,
    X25519KeyPair,
    check_ed25519_public,
    check_mldsa_public,
    check_x25519_encoding,
    check_x25519_public,
    montgomery_from_ed25519,
    verify_ed25519,
    verify_mldsa,
)
from lokket.crypto.xeddsa import check_identity_key, verify_xeddsa
from lokket.errors import LocalError, LokketError, RemoteError
from lokket.protocol.mls.signatures import ED25519
from lokket.protocol.mls.suite import SUITES
from lokket.system import SystemEntropy
from tests.house.tree import ROOT, SOURCE

FOLDER: Final = ROOT.parent / "shared" / "vectors" / "wycheproof"
RAN, REFUSED, OUTSIDE = "ran", "refused on purpose", "outside the wrapper"

Vector = dict[str, Any]
Run = Callable[[Vector, Vector], str]


def raw(vector: Vector, name: str) -> bytes:
    return bytes.fromhex(vector[name])


def vectors(name: str) -> Iterator[tuple[Vector, Vector]]:
    path = FOLDER / name
    if not path.is_file():
        pytest.skip("the Wycheproof vectors (shared/vectors/wycheproof beside the repository) are not here")
    for group in json.loads(path.read_text())["testGroups"]:
        for vector in group["tests"]:
            yield group, vector


def outcome(step: Callable[[], object]) -> object:
    """What the step gives, or None for a refusal of ours."""
    try:
        return step()
    except LokketError:
        return None


# --- ciphers ---


def aes_cbc(group: Vector, vector: Vector) -> str:
    if group["keySize"] != 256:
        return OUTSIDE
    key, iv, plaintext, ciphertext = (raw(vector, name) for name in ("key", "iv", "msg", "ct"))
    opened = outcome(lambda: primitives.aes_cbc_decrypt(key, iv, ciphertext))
    if vector["result"] == "valid":
        assert opened == plaintext
        assert primitives.aes_cbc_encrypt(key, iv, plaintext) == ciphertext
    else:
        assert opened is None
    return RAN


def aes_gcm_siv(group: Vector, vector: Vector) -> str:
    if group["keySize"] != 256 or any(raw(vector, "iv")) or vector["aad"] or len(raw(vector, "iv")) != 12:
        return OUTSIDE
    key, plaintext, sealed = raw(vector, "key"), raw(vector, "msg"), raw(vector, "ct") + raw(vector, "tag")
    opened = outcome(lambda: primitives.aes_gcm_siv_open(key, sealed))
    if vector["result"] == "valid":
        assert opened == plaintext
        assert primitives.aes_gcm_siv_seal(key, plaintext) == sealed
    else:
        assert opened is None
    return RAN


def context_aead(group: Vector, vector: Vector) -> str:
    """Through an HPKE context, whose first nonce is the base nonce: what MLS and sealing use."""
    if group["ivSize"] != 96 or group["tagSize"] != 128 or group["keySize"] not in _AEADS[group["cipher"]]:
        return OUTSIDE
    aead = _AEADS[group["cipher"]][group["keySize"]]
    key, iv, aad, plaintext = (raw(vector, name) for name in ("key", "iv", "aad", "msg"))
    sealed = raw(vector, "ct") + raw(vector, "tag")
    made = [Context(kem.LabeledHKDF("sha256", b""), aead.cipher(key), iv, b"") for _ in range(2)]
    opened = outcome(lambda: made[0].open(sealed, aad))
    if vector["result"] == "valid":
        assert opened == plaintext
        assert made[1].seal(plaintext, aad) == sealed
    else:
        assert opened is None
    return RAN


_AEADS: Final = {
    "AES-GCM": {128: AES_128_GCM, 256: AES_256_GCM},
    "CHACHA20-POLY1305": {256: CHACHA20_POLY1305},
}


def aes_gcm(group: Vector, vector: Vector) -> str:
    return context_aead({**group, "cipher": "AES-GCM"}, vector)


def chacha(group: Vector, vector: Vector) -> str:
    return context_aead({**group, "cipher": "CHACHA20-POLY1305"}, vector)


# --- hashes ---


def hmac_sha256(group: Vector, vector: Vector) -> str:
    key, data, tag = raw(vector, "key"), raw(vector, "msg"), raw(vector, "tag")
    good = vector["result"] == "valid"
    made = [primitives.hmac_sha256(key, data)]
    made += primitives.hmac_sha256_pair(key, data, data)
    assert all(primitives.equal(one[: len(tag)], tag) == good for one in made)
    return RAN


def hmac_sha512(group: Vector, vector: Vector) -> str:
    """MLS suite 4."""
    tag = raw(vector, "tag")
    made = SUITES[4].mac(raw(vector, "key"), raw(vector, "msg"))[: len(tag)]
    assert primitives.equal(made, tag) == (vector["result"] == "valid")
    return RAN


def hkdf_sha256(group: Vector, vector: Vector) -> str:
    material, salt, info = (raw(vector, name) for name in ("ikm", "salt", "info"))
    if vector["result"] == "invalid":
        with pytest.raises((LocalError, ValueError)):
            primitives.hkdf_sha256(material, salt=salt, info=info, length=vector["size"])
        return RAN
    made = primitives.hkdf_sha256(material, salt=salt, info=info, length=vector["size"])
    assert made == raw(vector, "okm")
    if vector["size"] <= 64:
        assert b"".join(primitives.hkdf_sha256_pair(material, salt, info))[: vector["size"]] == made
    if vector["size"] <= 96:
        assert b"".join(primitives.hkdf_sha256_triple(material, salt, info))[: vector["size"]] == made
    return RAN


def hkdf_by(hash_name: str, suite: int) -> Run:
    """Extract of an MLS suite and the expand that it shares with HPKE."""

    def run(group: Vector, vector: Vector) -> str:
        prk = SUITES[suite].extract(raw(vector, "salt"), raw(vector, "ikm"))
        if vector["result"] == "invalid":
            with pytest.raises((LocalError, ValueError)):
                kem.expand(hash_name, prk, raw(vector, "info"), vector["size"])
        else:
            assert kem.expand(hash_name, prk, raw(vector, "info"), vector["size"]) == raw(vector, "okm")
        return RAN

    return run


# --- curves ---


def ed25519(group: Vector, vector: Vector) -> str:
    """Ours, MLS's, and as XEdDSA wherever the signature's top bit is free for the key's sign."""
    public, message, signature = (
        bytes.fromhex(group["publicKey"]["pk"]),
        raw(vector, "msg"),
        raw(vector, "sig"),
    )
    good = vector["result"] == "valid"

    def ours() -> bool:
        check_ed25519_public(public)
        verify_ed25519(public, signature, message)
        return True

    def of_mls() -> bool:
        ED25519.verify(public, message, signature)
        return True

    assert (outcome(ours) is True) == good == (outcome(of_mls) is True)
    if len(signature) == 64 and signature[63] < 0x80:
        identity = b"\x05" + montgomery_from_ed25519(public)
        check_identity_key(identity)
        signed = signature[:63] + bytes((signature[63] | public[31] & 0x80,))
        as_xeddsa = outcome(lambda: verify_xeddsa(identity, signed, message) or True)
        assert (as_xeddsa is True) == good
    return RAN


def x25519(group: Vector, vector: Vector) -> str:
    """Three gates: the bare exchange, the encoding that every slot checks, the subgroup of identities."""
    pair, public = X25519KeyPair(raw(vector, "private")), raw(vector, "public")
    flags = set(vector["flags"])
    zero = "ZeroSharedSecret" in flags
    shared = outcome(lambda: pair.exchange(public))
    assert shared == (None if zero else raw(vector, "shared"))
    encoded = outcome(lambda: check_x25519_encoding(public) or True)
    inside = outcome(lambda: check_x25519_public(public) or True)
    if zero or "NonCanonicalPublic" in flags:
        assert encoded is None
    if "Twist" in flags:
        assert inside is None
    if encoded is None:
        assert inside is None
        assert zero or int.from_bytes(public, "little") >= 2**255 - 19
        return REFUSED
    return RAN


def x25519_asn(group: Vector, vector: Vector) -> str:
    """Only the raw keys inside: we read no ASN.1."""
    public, private = raw(vector, "public"), raw(vector, "private")
    if (public[:12], private[:16]) != (_SPKI, _PKCS8) or (len(public), len(private)) != (44, 48):
        return OUTSIDE
    return x25519(group, {**vector, "public": public[12:].hex(), "private": private[16:].hex()})


_SPKI: Final = bytes.fromhex("302a300506032b656e032100")
_PKCS8: Final = bytes.fromhex("302e020100300506032b656e04220420")


# --- lattices ---


def level(group: Vector) -> int:
    return int(group["parameterSet"].removeprefix("ML-KEM-"))


def mlkem_encaps(group: Vector, vector: Vector) -> str:
    """In pure Python with the vector's message, whole and split; OpenSSL's own only says yes or no."""
    public, message = raw(vector, "ek"), raw(vector, "m")
    made = outcome(lambda: mlkem.encapsulate_with(public, message))
    systems = outcome(lambda: SystemEntropy().encapsulate(public))
    if vector["result"] == "invalid":
        assert made is systems is None
        if len(public) == 1184:
            with pytest.raises(RemoteError):
                mlkem.check_public_key(public[: mlkem.VECTOR_768_BYTES], mlkem.header(public))
        return RAN
    assert made == (raw(vector, "K"), raw(vector, "c"))
    assert systems is not None
    if level(group) == 768:
        header, half = mlkem.header(public), public[: mlkem.VECTOR_768_BYTES]
        mlkem.check_public_key(half, header)
        secret, ct1 = mlkem.encapsulate_1(header, message)
        assert (secret, ct1 + mlkem.encapsulate_2(half, header, message)) == made
    return RAN


def mlkem_keygen(group: Vector, vector: Vector) -> str:
    """The public key; a private key leaves our wrapper as its seed alone."""
    assert MLKEMKeyPair(level(group), raw(vector, "seed")).public == raw(vector, "ek")
    return RAN


def mlkem_decaps(group: Vector, vector: Vector) -> str:
    seed, ciphertext = raw(vector, "seed"), raw(vector, "c")
    made = outcome(lambda: MLKEMKeyPair(level(group), seed).decapsulate(ciphertext))
    if vector["result"] == "valid":
        assert made == raw(vector, "K")
        if vector["ek"]:
            assert MLKEMKeyPair(level(group), seed).public == raw(vector, "ek")
    else:
        assert made is None
    return RAN


def mldsa(group: Vector, vector: Vector) -> str:
    public = bytes.fromhex(group["publicKey"])
    message, signature = raw(vector, "msg"), raw(vector, "sig")
    context = bytes.fromhex(vector.get("ctx", ""))

    def verify() -> bool:
        check_mldsa_public(65, public)
        verify_mldsa(65, public, signature, message, context)
        return True

    verified = outcome(verify) is True
    if not any(public[32:]):
        assert not verified  # t1 all zero: anyone can sign
        return REFUSED if vector["result"] == "valid" else RAN
    assert verified == (vector["result"] == "valid")
    return RAN


_SEEDS_ONLY: Final = "private keys are seeds of 64 bytes here; no wrapper takes an expanded one"
FILES: Final[dict[str, tuple[Run, dict[str, int]] | str]] = {
    # AES-256 alone is wrapped
    "aes_cbc_pkcs5_test.json": (aes_cbc, {RAN: 72, OUTSIDE: 144}),
    # the wrapper fixes the nonce to zeros, the key to 256 bits, and takes no associated data
    "aes_gcm_siv_test.json": (aes_gcm_siv, {RAN: 2, OUTSIDE: 200}),
    # nonces of 12 bytes, keys of 128 and 256 bits
    "aes_gcm_test.json": (aes_gcm, {RAN: 133, OUTSIDE: 183}),
    # nonces of 12 bytes
    "chacha20_poly1305_test.json": (chacha, {RAN: 316, OUTSIDE: 9}),
    "ed25519_test.json": (ed25519, {RAN: 151}),
    "hkdf_sha256_test.json": (hkdf_sha256, {RAN: 86}),
    "hkdf_sha384_test.json": (hkdf_by("sha384", 7), {RAN: 83}),
    "hkdf_sha512_test.json": (hkdf_by("sha512", 4), {RAN: 83}),
    "hmac_sha256_test.json": (hmac_sha256, {RAN: 174}),
    "hmac_sha512_test.json": (hmac_sha512, {RAN: 174}),
    # two signatures are valid under the key whose t1 is zero
    "mldsa_65_verify_test.json": (mldsa, {RAN: 208, REFUSED: 2}),
    "mlkem_1024_encaps_test.json": (mlkem_encaps, {RAN: 269}),
    "mlkem_1024_keygen_seed_test.json": (mlkem_keygen, {RAN: 100}),
    "mlkem_1024_semi_expanded_decaps_test.json": _SEEDS_ONLY,
    "mlkem_1024_test.json": (mlkem_decaps, {RAN: 193}),
    "mlkem_768_encaps_test.json": (mlkem_encaps, {RAN: 265}),
    "mlkem_768_keygen_seed_test.json": (mlkem_keygen, {RAN: 100}),
    "mlkem_768_semi_expanded_decaps_test.json": _SEEDS_ONLY,
    "mlkem_768_test.json": (mlkem_decaps, {RAN: 193}),
    # malformed ASN.1 is outside: we read raw keys
    "x25519_asn_test.json": (x25519_asn, {RAN: 474, REFUSED: 44, OUTSIDE: 19}),
    # low order and second encodings, which RFC 7748 would let through
    "x25519_test.json": (x25519, {RAN: 474, REFUSED: 44}),
    "xchacha20_poly1305_test.json": "nothing here uses XChaCha20; test_no_cipher_is_used_that_is_not_wrapped",
}


@pytest.mark.attack(1, 2, 3, 4)
@pytest.mark.parametrize("name", sorted(name for name, run in FILES.items() if not isinstance(run, str)))
def test_wycheproof(name: str) -> None:
    entry = FILES[name]
    assert not isinstance(entry, str)
    run, expected = entry
    found = Counter(run(group, vector) for group, vector in vectors(name))
    print(dict(found))
    assert dict(found) == expected


def test_every_file_is_in_the_table() -> None:
    if not FOLDER.is_dir():
        pytest.skip("the Wycheproof vectors (shared/vectors/wycheproof beside the repository) are not here")
    assert {path.name for path in FOLDER.glob("*.json")} == set(FILES)


def test_no_cipher_is_used_that_is_not_wrapped() -> None:
    """What the table calls not applicable stays so."""
    text = "".join(path.read_text() for path in sorted(SOURCE.rglob("*.py")))
    assert "XChaCha" not in text.replace("-", "")
    assert "xchacha" not in text.lower()
    assert "from_private_bytes_expanded" not in text
