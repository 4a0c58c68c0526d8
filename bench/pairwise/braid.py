"""Where the ML-KEM Braid stands, as a whisper message says on the wire."""

from __future__ import annotations

from typing import Final

from lokket.codec import protobuf
from lokket.codec.protobuf import BYTES, VARINT

PAYLOADS: Final = ("None", "Hdr", "Ek", "EkCt1Ack", "Ct1Ack", "Ct1", "Ct2")
_FIELDS: Final = {1: BYTES, 2: VARINT, 3: VARINT, 4: BYTES, 5: BYTES, 6: BYTES}


def braid_of(message: bytes) -> str:
    """The epoch and payload of a SignalMessage (version byte, protobuf, 8-byte MAC)."""
    pq_ratchet = protobuf.decode(message[1:-8], _FIELDS).string(5)
    epoch, position = protobuf.read_varint(pq_ratchet, 1)
    _, position = protobuf.read_varint(pq_ratchet, position)
    return f"epoch {epoch}, {PAYLOADS[pq_ratchet[position]]}"
