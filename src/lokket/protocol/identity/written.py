"""256 bits as a person writes them down: groups of base32 with a checksum that finds a slip of the pen.

Source: docs/identity.md, "Recovery". What the code is for is in its checksum's label, so that one kind of
code is refused where another is asked for.
"""

from __future__ import annotations

from typing import Final

from lokket.crypto.primitives import equal
from lokket.errors import LocalError
from lokket.protocol.identity.encoding import hash_labelled

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: no I, L, O, U
_CODE_CHARS: Final = 52  # 256 bits and 4 zero bits
_CHECK_CHARS: Final = 4  # 20 bits: a slip passes once in a million
_GROUP_CHARS: Final = 4
_READ_AS: Final = str.maketrans({"O": "0", "I": "1", "L": "1", "-": None, " ": None})


def write_code(secret: bytes, kind: str) -> str:
    """Fourteen groups of four characters: 52 of the 32-byte secret and 4 of its checksum.

    ``kind``: what it is called, as in "recovery code".
    """
    text = _base32(int.from_bytes(secret, "big") << 4, _CODE_CHARS) + _checksum(secret, kind)
    return "-".join(text[start : start + _GROUP_CHARS] for start in range(0, len(text), _GROUP_CHARS))


def read_code(code: str, kind: str) -> bytes:
    """The 32 bytes. LocalError: a slip of the pen, or a code of another kind."""
    text = "".join(code.split()).upper().translate(_READ_AS)
    if len(text) != _CODE_CHARS + _CHECK_CHARS:
        raise LocalError(f"a {kind} has 14 groups of 4 characters: check that none is missing")
    value = 0
    for char in text[:_CODE_CHARS]:
        digit = ALPHABET.find(char)
        if digit < 0:
            raise LocalError(f"a {kind} has only digits and letters, without I, L, O and U")
        value = value << 5 | digit
    secret = (value >> 4).to_bytes(32, "big")
    slip = value & 15 or not equal(_checksum(secret, kind).encode(), text[_CODE_CHARS:].encode())
    if slip:
        raise LocalError(f"the {kind} does not add up: compare it with your copy, group by group")
    return secret


def _checksum(secret: bytes, kind: str) -> str:
    bits = int.from_bytes(hash_labelled(f"{kind} check", secret)[:3], "big") >> 4
    return _base32(bits, _CHECK_CHARS)


def _base32(value: int, chars: int) -> str:
    return "".join(ALPHABET[value >> 5 * place & 31] for place in range(chars - 1, -1, -1))
