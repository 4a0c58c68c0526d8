"""A long plaintext under one key, in chunks that cannot be cut, swapped, repeated or added to.

STREAM (Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance", CRYPTO 2015, section 7) over AES-256-GCM: nonce = prefix[7] || uint32 chunk || last[1].

    sealed = salt[32] || commitment[32] || chunk 0 || chunk 1 ...     chunk: <= 64 KiB and its 16-byte tag

Key, nonce prefix and commitment come by HKDF-SHA256 from the caller's key, the salt and the header. GCM
alone opens one ciphertext under several keys; the commitment, compared before anything is opened, does not.
The header is not in the sealed bytes; it also is the first chunk's associated data. Knows no file.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from lokket import limits
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import equal, hkdf_sha256, sha256
from lokket.errors import DecryptionFailed, LocalError

KEY_BYTES: Final = 32
CHUNK_BYTES: Final = 64 * 1024
TAG_BYTES: Final = 16
SALT_BYTES: Final = 32
COMMITMENT_BYTES: Final = 32
PROLOGUE_BYTES: Final = SALT_BYTES + COMMITMENT_BYTES
_SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + TAG_BYTES
_PREFIX_BYTES: Final = 7
_INFO: Final = b"lokket v1 stream"


class _Chunks:
    """The cipher of one stream, and the number of its next chunk."""

    def __init__(self, key: bytes, salt: bytes, header: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise LocalError("a stream's key has 32 bytes")
        length = KEY_BYTES + COMMITMENT_BYTES + _PREFIX_BYTES
        derived = hkdf_sha256(key, salt=salt, info=_INFO + sha256(header), length=length)
        self._aead = AESGCM(derived[:KEY_BYTES])
        self.commitment = derived[KEY_BYTES : KEY_BYTES + COMMITMENT_BYTES]
        self._prefix = derived[KEY_BYTES + COMMITMENT_BYTES :]
        self._header = header
        self._number = 0

    def seal(self, plaintext: bytes, *, last: bool) -> bytes:
        return self._aead.encrypt(*self._next(plaintext, last=last))

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        try:
            return self._aead.decrypt(*self._next(sealed, last=last))
        except InvalidTag:
            raise DecryptionFailed("a chunk is damaged, or not in its place", code="bad-chunk") from None

    def _next(self, data: bytes, *, last: bool) -> tuple[bytes, bytes, bytes | None]:
        if self._number >= limits.STREAM_CHUNKS_MAX:
            raise LocalError("a stream is longer than one stream may be")
        nonce = self._prefix + self._number.to_bytes(4, "big") + bytes((last,))
        associated = self._header if self._number == 0 else None
        self._number += 1
        return nonce, data, associated


class Sealer:
    """``prologue`` goes first, then what ``feed`` returns, then what ``finish`` returns, once."""

    def __init__(self, key: bytes, header: bytes, entropy: Entropy) -> None:
        """``key``: 32 bytes. The salt is drawn, so that no two streams share a key."""
        salt = entropy.draw(SALT_BYTES)
        self._chunks: _Chunks | None = _Chunks(key, salt, header)
        self.prologue = salt + self._chunks.commitment
        self._waiting = bytearray()

    def feed(self, plaintext: bytes) -> bytes:
        """Whole chunks as they fill. One is held back: the last must be known as the last."""
        chunks = self._open_chunks()
        self._waiting += plaintext
        out = bytearray()
        start = 0
        while len(self._waiting) - start > CHUNK_BYTES:
            out += chunks.seal(bytes(self._waiting[start : start + CHUNK_BYTES]), last=False)
            start += CHUNK_BYTES
        del self._waiting[:start]
        return bytes(out)

    def finish(self) -> bytes:
        sealed = self._open_chunks().seal(bytes(self._waiting), last=True)
        self._chunks = None
        self._waiting.clear()
        return sealed

    def _open_chunks(self) -> _Chunks:
        if self._chunks is None:
            raise LocalError("a stream that is finished takes nothing more")
        return self._chunks


class Opener:
    """``feed`` the sealed bytes in any pieces; what it returns is authentic, and complete after ``finish``.

    After a refusal nothing more comes out.
    """

    def __init__(self, key: bytes, header: bytes) -> None:
        self._key = key
        self._header = header
        self._chunks: _Chunks | None = None
        self._waiting = bytearray()
        self._over = False

    def feed(self, sealed: bytes) -> bytes:
        """Authentic plaintext, in order. DecryptionFailed: another key or header, or a damaged chunk."""
        if self._over:
            raise LocalError("a stream that is finished takes nothing more")
        self._waiting += sealed
        if self._chunks is None and not self._begin():
            return b""
        out = bytearray()
        start = 0
        while len(self._waiting) - start > _SEALED_CHUNK_BYTES:
            out += self._open(bytes(self._waiting[start : start + _SEALED_CHUNK_BYTES]), last=False)
            start += _SEALED_CHUNK_BYTES
        del self._waiting[:start]
        return bytes(out)

    def finish(self) -> bytes:
        """The last chunk. DecryptionFailed: it is not the last, or bytes are missing."""
        if self._over:
            raise LocalError("a stream that is finished takes nothing more")
        if self._chunks is None:
            self._over = True
            raise DecryptionFailed("the stream is cut short", code="cut-short")
        plaintext = self._open(bytes(self._waiting), last=True)
        self._over = True
        return plaintext

    def _begin(self) -> bool:
        """Compare the commitment; False: it is not all there yet."""
        if len(self._waiting) < PROLOGUE_BYTES:
            return False
        salt, commitment = self._waiting[:SALT_BYTES], self._waiting[SALT_BYTES:PROLOGUE_BYTES]
        chunks = _Chunks(self._key, bytes(salt), self._header)
        if not equal(chunks.commitment, bytes(commitment)):
            self._over = True
            raise DecryptionFailed("this key does not open the stream", code="wrong-key")
        del self._waiting[:PROLOGUE_BYTES]
        self._chunks = chunks
        return True

    def _open(self, sealed: bytes, *, last: bool) -> bytes:
        assert self._chunks is not None
        try:
            return self._chunks.open(sealed, last=last)
        except DecryptionFailed:
            self._over = True
            raise
