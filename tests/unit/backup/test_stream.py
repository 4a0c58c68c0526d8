"""STREAM: what is cut, moved, repeated, added, flipped or opened with another key gives nothing."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from lokket import limits
from lokket.crypto.stream import CHUNK_BYTES, PROLOGUE_BYTES, TAG_BYTES, Opener, Sealer
from lokket.errors import DecryptionFailed, LocalError
from tests.support.entropy import SeededEntropy
from tests.support.refusals import refusal

KEY, HEADER = bytes(range(32)), b"a header"
SEALED_CHUNK = CHUNK_BYTES + TAG_BYTES


def seal(plaintext: bytes, *, key: bytes = KEY, header: bytes = HEADER, seed: str = "stream") -> bytes:
    sealer = Sealer(key, header, SeededEntropy(seed))
    return sealer.prologue + sealer.feed(plaintext) + sealer.finish()


def unseal(sealed: bytes, *, key: bytes = KEY, header: bytes = HEADER) -> bytes:
    opener = Opener(key, header)
    return opener.feed(sealed) + opener.finish()


def released(sealed: bytes, piece: int = 5_000) -> bytes:
    """What comes out before the refusal. Fails if there is none."""
    opener, out = Opener(KEY, HEADER), b""
    try:
        for start in range(0, len(sealed), piece):
            out += opener.feed(sealed[start : start + piece])
        opener.finish()
    except DecryptionFailed:
        with pytest.raises(LocalError):
            opener.feed(b"more")
        return out
    raise AssertionError("it opened")


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 3 * CHUNK_BYTES + 7]
)
def test_it_opens_again(size: int) -> None:
    plaintext = SeededEntropy("text").draw(size)
    sealed = seal(plaintext)
    chunks = max(1, -(-size // CHUNK_BYTES))
    assert len(sealed) == PROLOGUE_BYTES + size + chunks * TAG_BYTES
    assert unseal(sealed) == plaintext


def test_it_is_what_the_first_lines_of_the_module_say() -> None:
    """Opened by hand: one HKDF, one nonce and one tag for each chunk, the header with the first."""
    plaintext = SeededEntropy("by hand").draw(2 * CHUNK_BYTES + 5)
    sealed = seal(plaintext)
    info = b"lokket v1 stream" + hashlib.sha256(HEADER).digest()
    keys = HKDF(SHA256(), 32 + 32 + 7, sealed[:32], info).derive(KEY)
    assert sealed[32:PROLOGUE_BYTES] == keys[32:64]
    out = b""
    for number in range(3):
        start = PROLOGUE_BYTES + number * SEALED_CHUNK
        nonce = keys[64:] + number.to_bytes(4, "big") + bytes((number == 2,))
        header = None if number else HEADER
        out += AESGCM(keys[:32]).decrypt(nonce, sealed[start : start + SEALED_CHUNK], header)
    assert out == plaintext


def test_a_stream_has_as_many_chunks_as_its_number_can_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits.STREAM_CHUNKS_MAX <= 1 << 32
    monkeypatch.setattr(limits, "STREAM_CHUNKS_MAX", 2)
    assert unseal(seal(bytes(2 * CHUNK_BYTES))) == bytes(2 * CHUNK_BYTES)
    with refusal(LocalError):
        seal(bytes(2 * CHUNK_BYTES + 1))


def test_why_a_stream_is_refused() -> None:
    sealed = seal(b"text")
    opener = Opener(KEY, HEADER)
    for piece in (sealed[: PROLOGUE_BYTES - 1], sealed[PROLOGUE_BYTES - 1 : PROLOGUE_BYTES]):
        assert opener.feed(piece) == b""
    assert opener.feed(sealed[PROLOGUE_BYTES:]) == b""
    assert opener.finish() == b"text"
    for over in (opener.finish, lambda: opener.feed(b"")):
        with refusal(LocalError):
            over()
    for damaged, code in (
        (b"", "cut-short"),
        (sealed[: PROLOGUE_BYTES - 1], "cut-short"),
        (sealed[:PROLOGUE_BYTES], "bad-chunk"),
        (sealed[:-1], "bad-chunk"),
        (sealed[:40] + b"x" + sealed[41:], "wrong-key"),
    ):
        opener = Opener(KEY, HEADER)
        with refusal(DecryptionFailed, code):
            opener.feed(damaged)
            opener.finish()
        for over in (opener.finish, lambda opener=opener: opener.feed(b"")):
            with refusal(LocalError):
                over()


@settings(max_examples=25)
@given(st.lists(st.integers(0, 100_000), max_size=5), st.integers(1, 90_000))
def test_in_any_pieces(sizes: list[int], piece: int) -> None:
    parts = [SeededEntropy(f"part {at}").draw(size) for at, size in enumerate(sizes)]
    sealer = Sealer(KEY, HEADER, SeededEntropy("pieces"))
    sealed = sealer.prologue + b"".join(sealer.feed(part) for part in parts) + sealer.finish()
    assert sealed == seal(b"".join(parts), seed="pieces")
    opener = Opener(KEY, HEADER)
    out = b"".join(opener.feed(sealed[start : start + piece]) for start in range(0, len(sealed), piece))
    assert out + opener.finish() == b"".join(parts)


@pytest.mark.attack(103)
def test_every_flipped_byte_is_refused() -> None:
    sealed = seal(b"a short text")
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1 << at % 8
        assert released(bytes(changed)) == b""


@pytest.mark.attack(103)
def test_a_flip_in_a_later_chunk_releases_only_what_stands_before_it() -> None:
    plaintext = SeededEntropy("long").draw(4 * CHUNK_BYTES)
    sealed = bytearray(seal(plaintext))
    sealed[PROLOGUE_BYTES + 2 * SEALED_CHUNK + 17] ^= 4
    assert released(bytes(sealed)) == plaintext[: 2 * CHUNK_BYTES]


@pytest.mark.attack(103)
def test_cut_at_and_around_every_boundary() -> None:
    plaintext = SeededEntropy("cut").draw(3 * CHUNK_BYTES + 99)
    sealed = seal(plaintext)
    boundaries = [0, 32, PROLOGUE_BYTES, *(PROLOGUE_BYTES + chunk * SEALED_CHUNK for chunk in (1, 2, 3))]
    for boundary in boundaries:
        for cut in {max(0, boundary + offset) for offset in (-1, 0, 1, TAG_BYTES)}:
            assert plaintext.startswith(released(sealed[:cut]))
    released(sealed[:-1])


@pytest.mark.attack(103)
def test_chunks_out_of_order_repeated_left_out_or_added() -> None:
    plaintext = SeededEntropy("order").draw(4 * CHUNK_BYTES)
    sealed = seal(plaintext)
    prologue = sealed[:PROLOGUE_BYTES]
    chunks = [
        sealed[start : start + SEALED_CHUNK] for start in range(PROLOGUE_BYTES, len(sealed), SEALED_CHUNK)
    ]
    first, second, third, last = chunks
    for arranged in (
        [second, first, third, last],
        [first, third, second, last],
        [first, second, second, third, last],
        [first, third, last],
        [second, third, last],
        [first, second, third],
        [first, second, third, last, last],
        [first, second, third, last, b"x"],
        [first, second, last],
        [last],
    ):
        released(prologue + b"".join(arranged))


@pytest.mark.attack(103)
def test_chunks_of_another_stream_do_not_fit() -> None:
    one, other = seal(bytes(3 * CHUNK_BYTES), seed="one"), seal(bytes(3 * CHUNK_BYTES), seed="other")
    at = PROLOGUE_BYTES + SEALED_CHUNK
    released(one[:at] + other[at:])
    released(other[:PROLOGUE_BYTES] + one[PROLOGUE_BYTES:])


@pytest.mark.attack(100)
def test_another_key_or_header_is_refused_by_the_commitment_before_any_chunk() -> None:
    sealed = seal(b"text")
    for key, header in ((bytes(32), HEADER), (KEY, b"a headeR"), (KEY, b"")):
        with pytest.raises(DecryptionFailed) as refused:
            Opener(key, header).feed(sealed)
        assert refused.value.code == "wrong-key"


@pytest.mark.attack(18)
def test_no_two_streams_share_a_key() -> None:
    """The same text under the same key and header: nothing repeats, as the salt is drawn."""
    one, other = seal(bytes(1000), seed="one"), seal(bytes(1000), seed="other")
    assert not any(one[at : at + 16] in other for at in range(0, len(one) - 16, 16))


def test_misuse_is_ours() -> None:
    with pytest.raises(LocalError):
        Sealer(b"short", HEADER, SeededEntropy("x"))
    sealer = Sealer(KEY, HEADER, SeededEntropy("x"))
    sealer.finish()
    for again in (sealer.finish, lambda: sealer.feed(b"x")):
        with pytest.raises(LocalError):
            again()
    opener = Opener(KEY, HEADER)
    with pytest.raises(DecryptionFailed):
        opener.finish()
