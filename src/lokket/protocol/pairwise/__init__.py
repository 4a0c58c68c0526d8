"""Pairwise sessions in libsignal's bytes: PQXDH, the Triple Ratchet and Sesame, as steps on values."""

from __future__ import annotations

from lokket.crypto.xeddsa import IdentityKeyPair, check_identity_key, verify_xeddsa
from lokket.protocol.pairwise.messages import (
    Address,
    Ciphertext,
    MessageKind,
    PreKeyMessageInfo,
    inspect_prekey_message,
)
from lokket.protocol.pairwise.pqxdh import Handshake, LocalDevice, PreKeyBundle, PreKeys
from lokket.protocol.pairwise.record import SessionRecord
from lokket.protocol.pairwise.sesame import Decrypted, Used, begin, decrypt, encrypt
from lokket.protocol.pairwise.work import Work

__all__ = [
    "Address",
    "Ciphertext",
    "Decrypted",
    "Handshake",
    "IdentityKeyPair",
    "LocalDevice",
    "MessageKind",
    "PreKeyBundle",
    "PreKeyMessageInfo",
    "PreKeys",
    "SessionRecord",
    "Used",
    "Work",
    "begin",
    "check_identity_key",
    "decrypt",
    "encrypt",
    "inspect_prekey_message",
    "verify_xeddsa",
]
