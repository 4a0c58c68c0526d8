"""Import checks, one key at a time; what a device's acceptances cover; its stored seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket.codec import tls
from lokket.crypto.keys import Ed25519KeyPair, MLDSAKeyPair, P, X25519KeyPair, check_mlkem_public
from lokket.errors import DecodeError, KeyRefused, LocalError, RemoteError
from lokket.protocol import identity
from lokket.protocol.identity import Device, DeviceKeys, Extension, HybridKey, HybridKeyPair
from lokket.protocol.identity.device import check_device, curve_points
from lokket.protocol.identity.device_keys import InboxKeyPair
from lokket.protocol.identity.genesis import require_genesis
from tests.support import points
from tests.support.identity import found

OWNER = found("devices")
DEVICE = OWNER.device
KEYS = OWNER.device_keys

BAD_ED25519 = (
    *points.low_order_ed25519(),
    *points.ed25519_with_torsion(KEYS.auth.public),
    (P + 3).to_bytes(32, "little"),
)
BAD_X25519 = (
    *points.LOW_ORDER_X25519,
    *points.with_torsion(KEYS.auth.public),
    *points.non_canonical(KEYS.identity.public[1:]),
    points.BASE_POINT_PLUS_P,
)
NO_T1 = DEVICE.bundle_key[:32] + bytes(1280)
ABOVE_Q = b"\xff\xff\xff" + DEVICE.inbox_key[3:]


def test_an_honest_device_passes() -> None:
    check_device(DEVICE, OWNER.hash)
    assert len(tls.encode(DEVICE)) == 5253
    assert tls.decode(Device, tls.encode(DEVICE)) == DEVICE


@pytest.mark.attack(2)
@pytest.mark.attack(6)
def test_a_device_with_a_bad_key_is_refused_for_the_key() -> None:
    """Before any signature is looked at: the degenerate keys are those that would verify."""
    bad = [replace(DEVICE, auth_key=key) for key in BAD_ED25519]
    bad += [replace(DEVICE, mls_key=key) for key in BAD_ED25519]
    bad += [replace(DEVICE, identity_key=b"\x05" + key) for key in BAD_X25519]
    bad += [replace(DEVICE, inbox_key=DEVICE.inbox_key[:1184] + key) for key in BAD_X25519]
    bad.append(replace(DEVICE, identity_key=b"\x06" + DEVICE.identity_key[1:]))
    bad.append(replace(DEVICE, bundle_key=NO_T1))
    bad.append(replace(DEVICE, inbox_key=ABOVE_Q))
    for device in bad:
        with pytest.raises(KeyRefused):
            check_device(device, OWNER.hash)


@pytest.mark.attack(6)
@pytest.mark.attack(19)
def test_a_device_that_uses_one_key_twice_is_refused() -> None:
    """The identity key also in its Edwards form, under both signs."""
    edwards = Ed25519KeyPair(KEYS.identity.seed).public
    negative = edwards[:31] + bytes([edwards[31] ^ 0x80])
    u = DEVICE.identity_key[1:]
    inbox_as_edwards = points.edwards(DEVICE.inbox_key[1184:])
    twice = [
        replace(DEVICE, auth_key=DEVICE.mls_key),
        replace(DEVICE, auth_key=edwards),
        replace(DEVICE, auth_key=negative),
        replace(DEVICE, mls_key=edwards),
        replace(DEVICE, mls_key=negative),
        replace(DEVICE, mls_key=DEVICE.auth_key[:31] + bytes([DEVICE.auth_key[31] ^ 0x80])),
        replace(DEVICE, inbox_key=DEVICE.inbox_key[:1184] + u),
        replace(DEVICE, auth_key=inbox_as_edwards),
    ]
    for device in twice:
        with pytest.raises(KeyRefused, match="twice"):
            check_device(device, OWNER.hash)
    assert len(set(curve_points(DEVICE))) == 4


@pytest.mark.attack(2)
def test_account_keys_are_checked_at_import() -> None:
    good = OWNER.genesis
    bad = [replace(good, account_key=HybridKey(key, good.account_key.mldsa)) for key in BAD_ED25519]
    no_t1 = good.account_key.mldsa[:32] + bytes(1920)
    bad.append(replace(good, account_key=HybridKey(good.account_key.ed25519, no_t1)))
    for genesis in bad:
        with pytest.raises(KeyRefused):
            require_genesis(genesis, identity.genesis_hash(genesis))
    with pytest.raises(RemoteError, match="another account"):
        require_genesis(good, bytes(32))
    require_genesis(good, OWNER.hash)


@pytest.mark.attack(2)
def test_relay_keys_are_checked_at_import() -> None:
    for key in BAD_ED25519:
        with pytest.raises(KeyRefused):
            identity.check_hello("relay", key, bytes(32), 1, bytes(64))
        invite = identity.Invite("relay", key, None, None, bytes(32), 1).link()
        with pytest.raises(KeyRefused):
            identity.Invite.parse(invite)


@pytest.mark.attack(6)
@pytest.mark.parametrize("size", [0, 32, 1183, 1185, 1312, 1568 - 1, 1569])
def test_kem_keys_of_other_lengths_are_refused(size: int) -> None:
    with pytest.raises(KeyRefused):
        check_mlkem_public(bytes(size))


@pytest.mark.attack(16)
def test_a_changed_byte_of_a_device_is_refused() -> None:
    """Every byte of the small fields, every fifth of keys and signatures."""
    data = tls.encode(DEVICE)
    keys_end = 3 + 33 + 32 + 32 + 1312 + 1216
    small = [*range(3), *range(keys_end, keys_end + 8 + 1 + 3 + 1)]
    for position in sorted({*small, *range(0, len(data), 5)}):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(RemoteError):
            check_device(tls.decode(Device, bytes(changed)), OWNER.hash)


@pytest.mark.attack(8)
def test_a_copied_device_is_refused_in_another_account() -> None:
    """Unknown key share: another account lists Bob's device, or a device with Bob's identity key."""
    thief = found("thief")
    with pytest.raises(RemoteError):
        check_device(DEVICE, thief.hash)
    own = thief.new_device(2)
    copied = replace(own, identity_key=DEVICE.identity_key, identity_acceptance=DEVICE.identity_acceptance)
    with pytest.raises(RemoteError):
        check_device(copied, thief.hash)


@pytest.mark.parametrize(
    "fields",
    [
        {"number": 0},
        {"number": 128},
        {"registration": 0},
        {"registration": 16384},
        {"added_version": 0},
        {"profiles": ()},
        {"profiles": (2, 1)},
        {"extensions": (Extension(2, b""), Extension(1, b""))},
    ],
)
def test_values_out_of_range_are_our_misuse(fields: dict[str, object]) -> None:
    values = {"number": 2, "registration": 7, "added_version": 1, **fields}
    with pytest.raises(LocalError):
        identity.make_device(KEYS, OWNER.hash, entropy=OWNER.entropy, **values)  # type: ignore[arg-type]


def test_a_critical_extension_of_a_device_is_refused() -> None:
    kept = OWNER.new_device(2, extensions=(Extension(0x7FFF, b"kept"),))
    check_device(kept, OWNER.hash)
    critical = OWNER.new_device(3, extensions=(Extension(0x8000, b""),))
    with pytest.raises(RemoteError) as refused:
        check_device(critical, OWNER.hash)
    assert refused.value.code == "critical-extension"


def test_device_keys_survive_storage_and_hide() -> None:
    again = DeviceKeys.decode(KEYS.encode())
    assert len(KEYS.encode()) == 162
    for name in ("identity", "auth", "mls", "bundle", "inbox"):
        assert getattr(again, name).public == getattr(KEYS, name).public
        secret = getattr(KEYS, name).seed
        assert secret.hex() not in repr(KEYS) + repr(getattr(KEYS, name)) + repr(KEYS._seeds)
    with pytest.raises(DecodeError):
        DeviceKeys.decode(KEYS.encode() + b"\x00")
    with pytest.raises(DecodeError):
        DeviceKeys.decode(b"\x00\x02" + KEYS.encode()[2:])


def test_inbox_keys_are_x_wing() -> None:
    """First vector of draft-connolly-cfrg-xwing-kem, appendix C: start and end of the public key."""
    seed = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
    public = InboxKeyPair(seed).public
    assert len(public) == 1216
    assert public.hex().startswith("e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5b19cfc3d")


def test_key_pairs_hide_their_seeds() -> None:
    pair = HybridKeyPair.from_seed(bytes(range(64)))
    assert bytes(range(32)).hex() not in repr(pair)
    assert pair.public == HybridKeyPair.from_seed(pair.seed).public
    with pytest.raises(LocalError):
        HybridKeyPair.from_seed(bytes(63))
    assert MLDSAKeyPair(65, bytes(range(32, 64))).public == pair.public.mldsa
    assert X25519KeyPair(bytes(32)).public != pair.public.ed25519
