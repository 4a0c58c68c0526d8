"""Labels, hashes, signature messages: against their definition, written out by hand."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from lokket.codec import tls
from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.protocol.identity import Extension, account_id, hash_labelled, mac, message
from lokket.protocol.identity.devicelist import ListBody
from lokket.protocol.identity.encoding import check_extensions, label

DATA = b"x" * 100


def by_hand(name: str, data: bytes) -> bytes:
    full = b"lokket v1 " + name.encode()
    return bytes([len(full)]) + full + (0x4000 | len(data)).to_bytes(2, "big") + data


def test_hash_mac_and_message_are_as_defined() -> None:
    assert hash_labelled("genesis", DATA) == hashlib.sha256(by_hand("genesis", DATA)).digest()
    assert mac(b"k" * 32, "pq response", DATA) == hmac.digest(
        b"k" * 32, by_hand("pq response", DATA), "sha256"
    )
    key = b"p" * 64
    expected = bytes([19]) + b"lokket v1 list link" + hash_labelled("public key", key) + b"\x40\x64" + DATA
    assert message("list link", key, DATA) == expected


@pytest.mark.parametrize("name", ["short", "x" * 39])
def test_labels_have_16_to_48_bytes(name: str) -> None:
    with pytest.raises(LocalError):
        label(name)


@pytest.mark.attack(19)
def test_no_label_begins_like_an_unlabelled_prekey() -> None:
    assert not {label("device")[0], len(label("device")), len(label("x" * 38))} & {0x05, 0x08}
    assert message("device accept", b"", b"")[0] not in (0x05, 0x08)


def test_account_id_is_a_uuid_version_8_and_not_the_hash() -> None:
    address = account_id(bytes.fromhex("ff" * 32))
    assert address.hex() == "ffffffffffff8fffbfffffffffffffff"
    assert account_id(bytes(32)).hex() == "00000000000080008000000000000000"


def test_unknown_extensions_are_kept_and_critical_ones_refused() -> None:
    known = (Extension(1, b"a"), Extension(0x7FFF, b"b"))
    body = ListBody(1, (bytes(32),), (), 0, known)
    assert tls.decode(ListBody, tls.encode(body)).extensions == known
    check_extensions(known)
    with pytest.raises(RemoteError, match="critical"):
        check_extensions((*known, Extension(0x8000, b"")))


@pytest.mark.attack(16)
@pytest.mark.parametrize("extensions", ["000200000200", "000200000100", "00020000020101", "00020000020100"])
def test_repeated_or_unsorted_extensions_are_refused(extensions: str) -> None:
    """Also two of one type with rising data, which the codec's byte order alone lets pass."""
    coded = bytes.fromhex(extensions)
    data = tls.encode(ListBody(1, (bytes(32),), (), 0, ()))[:-1] + tls.opaque(coded)
    with pytest.raises(DecodeError):
        tls.decode(ListBody, data)
