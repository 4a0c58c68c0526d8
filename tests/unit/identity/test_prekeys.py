"""Prekey batches, Merkle paths, what a relay may hand out and what a contact may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lokket.codec import tls
from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.protocol import identity, merkle, pairwise, prekeys
from lokket.protocol.identity import Extension
from lokket.protocol.identity.keys import sign_with_bundle_key
from lokket.protocol.pairwise.pqxdh import verify_bundle
from lokket.protocol.prekeys import (
    Manifest,
    PrivateBatch,
    PublicBatch,
    ServedBundle,
    SignedManifest,
    check_batch,
    check_bundle,
    make_batch,
    served_bundle,
)
from tests.support import points
from tests.support.identity import DAY_S, NOW_S, Account, found

BOB = found("bob")


def batch_of(owner: Account, number: int = 1, pairs: int = 4) -> tuple[PublicBatch, PrivateBatch]:
    return make_batch(
        owner.device_keys,
        owner.hash,
        owner.device_hash,
        number=number,
        head=owner.state.head,
        now_s=NOW_S,
        entropy=owner.entropy,
        pairs=pairs,
    )


PUBLIC, PRIVATE = batch_of(BOB)


def signed_again(**fields: object) -> SignedManifest:
    """Another manifest, validly signed by Bob's keys."""
    manifest: Manifest = replace(PUBLIC.signed.manifest, **fields)
    keys = BOB.device_keys
    return SignedManifest(
        manifest,
        sign_with_bundle_key(keys.bundle, prekeys.MANIFEST, tls.encode(manifest), BOB.entropy),
        keys.identity.sign(manifest.signed_prekey.key),
        keys.identity.sign(manifest.last_resort.key),
    )


def refused(code: str, judge: Callable[[], object]) -> None:
    with pytest.raises(RemoteError) as caught:
        judge()
    assert caught.value.code == code, caught.value


def check(served: ServedBundle | bytes, last_number: int = 0, now_s: int = NOW_S) -> prekeys.CheckedBundle:
    return check_bundle(served, BOB.state, BOB.device_hash, last_number, now_s)


# --- what passes ---


@pytest.mark.parametrize("slot", [None, 0, 3])
def test_a_served_bundle_is_one_that_pairwise_takes(slot: int | None) -> None:
    data = tls.encode(served_bundle(PUBLIC, slot))
    assert len(data) == (4344 if slot is None else 6244)
    checked = check(data)
    verify_bundle(checked.bundle)
    assert checked.manifest_hash == PRIVATE.manifest_hash == PUBLIC.signed.manifest.hash
    assert (checked.manifest_number, checked.not_after_s) == (1, NOW_S + 14 * DAY_S)
    assert checked.head == BOB.state.head
    assert checked.bundle.address == BOB.device.address(BOB.hash)
    assert checked.bundle.registration_id == BOB.device.registration
    if slot is None:
        assert checked.bundle.one_time_prekey is None
        assert checked.bundle.kem_prekey_id == PRIVATE.last_resort_id
    else:
        pair = PRIVATE.pairs[slot]
        assert checked.bundle.one_time_prekey == b"\x05" + X25519KeyPair(pair.one_time_prekey).public
        assert checked.bundle.kem_prekey == b"\x08" + MLKEMKeyPair(1024, pair.kem_seed).public
        assert checked.bundle.one_time_prekey_id == pair.one_time_prekey_id


def test_a_served_pair_can_be_left_and_is_checked_all_the_same() -> None:
    served = served_bundle(PUBLIC, 0)
    assert served.served is not None
    left = check_bundle(served, BOB.state, BOB.device_hash, 0, NOW_S, leave_pair=True)
    verify_bundle(left.bundle)
    assert left == check(served_bundle(PUBLIC, None))
    wrong = replace(served.served, path=served.served.path[::-1])
    moved = replace(served, served=wrong)
    refused("bad-path", lambda: check_bundle(moved, BOB.state, BOB.device_hash, 0, NOW_S, leave_pair=True))


def test_batches_survive_the_wire_and_hide_their_secrets() -> None:
    data = tls.encode(PUBLIC)
    assert check_batch(data, BOB.device, BOB.hash, 0, NOW_S, head=BOB.state.head) == PUBLIC
    assert tls.decode(PrivateBatch, tls.encode(PRIVATE)) == PRIVATE
    shown = repr(PRIVATE) + repr(PRIVATE.pairs[0])
    for secret in (PRIVATE.signed_prekey, PRIVATE.last_resort_seed, PRIVATE.pairs[0].kem_seed):
        assert secret.hex() not in shown
        assert repr(secret)[2:20] not in shown


def test_a_full_batch_fits_a_frame() -> None:
    public, private = batch_of(BOB, pairs=128)
    assert len(tls.encode(public)) < 224_000
    assert public.padding == ()
    assert len(private.pairs) == 128
    check(served_bundle(public, 127))


@pytest.mark.attack(13)
def test_ids_are_random_and_unused_places_look_like_used_ones() -> None:
    public, private = batch_of(BOB, number=2, pairs=20)
    other, _ = batch_of(BOB, number=2, pairs=20)
    ids = [pair.one_time_prekey_id for pair in private.pairs] + [p.kem_prekey_id for p in private.pairs]
    ids += [private.signed_prekey_id, private.last_resort_id]
    assert len(set(ids)) == 42
    assert all(1 <= number < 2**32 for number in ids)
    assert max(ids) > 2**28
    assert ids != sorted(ids)
    assert len({*public.padding, *other.padding}) == 2 * 108
    assert all(len(hashed) == 32 for hashed in public.padding)
    assert len(tls.encode(served_bundle(public, 0))) == len(tls.encode(served_bundle(PUBLIC, 0)))


def test_each_batch_has_keys_of_its_own() -> None:
    _, again = batch_of(BOB)
    assert again.signed_prekey != PRIVATE.signed_prekey
    assert again.last_resort_seed != PRIVATE.last_resort_seed
    assert again.manifest_hash != PRIVATE.manifest_hash


@pytest.mark.parametrize("fields", [{"pairs": -1}, {"pairs": 129}, {"number": 0}])
def test_making_out_of_range_is_our_misuse(fields: dict[str, int]) -> None:
    with pytest.raises(LocalError):
        batch_of(BOB, **fields)
    with pytest.raises(LocalError):
        served_bundle(PUBLIC, 77)


# --- whose keys, how old ---


@pytest.mark.attack(7)
def test_a_manifest_is_of_one_device_of_one_account() -> None:
    """Signed by the right key and yet for another account or device; or a listed device's, as another's."""
    for fields in ({"genesis": bytes(32)}, {"device_hash": bytes(32)}):
        refused("other-device", lambda f=fields: check(ServedBundle(signed_again(**f), None)))
    mallory = found("mallory")
    theirs = served_bundle(batch_of(mallory)[0], 0)
    refused("bad-signature", lambda: check(theirs))
    refused("unknown-device", lambda: check_bundle(theirs, BOB.state, mallory.device_hash, 0, NOW_S))
    for name in ("signature", "signed_prekey_signature", "last_resort_signature"):
        stolen = getattr(theirs.signed, name)
        refused(
            "bad-signature",
            lambda n=name, s=stolen: check(ServedBundle(replace(PUBLIC.signed, **{n: s}), None)),
        )


def test_a_removed_device_gets_no_session() -> None:
    owner = found("carol")
    phone = identity.device_hash(owner.add())
    laptop = replace(owner, state=owner.state)
    keys = owner.keys[phone]
    batch, _ = make_batch(
        keys, owner.hash, phone, number=1, head=owner.state.head, now_s=NOW_S, entropy=owner.entropy, pairs=1
    )
    check_bundle(served_bundle(batch, 0), laptop.state, phone, 0, NOW_S)
    owner.remove(phone)
    refused("unknown-device", lambda: check_bundle(served_bundle(batch, 0), owner.state, phone, 0, NOW_S))


@pytest.mark.attack(15)
def test_old_future_and_fallen_manifests_are_refused() -> None:
    served = served_bundle(PUBLIC, None)
    check(served, now_s=NOW_S + 14 * DAY_S + 300)
    refused("expired", lambda: check(served, now_s=NOW_S + 14 * DAY_S + 301))
    refused("expired", lambda: check(served, now_s=NOW_S + 365 * DAY_S))
    check(served, now_s=NOW_S - 300)
    refused("future", lambda: check(served, now_s=NOW_S - 301))
    check(served, last_number=1)
    refused("rollback", lambda: check(served, last_number=2))
    for not_after_s in (NOW_S, NOW_S + 14 * DAY_S + 1):
        with pytest.raises(ValueError, match="14 days"):
            replace(PUBLIC.signed.manifest, not_after_s=not_after_s)


def test_critical_extensions_of_a_manifest_are_refused_and_others_stay() -> None:
    check(ServedBundle(signed_again(extensions=(Extension(9, b"later"),)), None))
    critical = ServedBundle(signed_again(extensions=(Extension(0x9000, b""),)), None)
    refused("critical-extension", lambda: check(critical))


@pytest.mark.attack(6)
@pytest.mark.attack(1)
def test_keys_in_a_signed_manifest_are_checked_all_the_same() -> None:
    manifest = PUBLIC.signed.manifest
    u = manifest.signed_prekey.key[1:]
    torsion = points.with_torsion(BOB.device_keys.auth.public)
    bad_ec = [b"\x05" + key for key in (*points.LOW_ORDER_X25519, *points.non_canonical(u), *torsion)]
    for key in [*bad_ec, b"\x08" + u]:
        prekey = replace(manifest.signed_prekey, key=key)
        refused("bad-key", lambda p=prekey: check(ServedBundle(signed_again(signed_prekey=p), None)))
    kem = manifest.last_resort.key
    for key in (b"\x05" + kem[1:], b"\x08\xff\xff\xff" + kem[4:]):
        prekey = replace(manifest.last_resort, key=key)
        refused("bad-key", lambda p=prekey: check(ServedBundle(signed_again(last_resort=p), None)))


# --- pairs and paths ---


@pytest.mark.attack(69)
def test_every_byte_of_a_path_and_every_place_count() -> None:
    pair = PUBLIC.pairs[2]
    content, root = tls.encode(pair.leaf), PUBLIC.signed.manifest.pairs_root
    path = PUBLIC.tree().path(2)
    merkle.check_path(root, 2, content, path)
    for position in range(len(path)):
        changed = bytearray(path)
        changed[position] ^= 1
        refused("bad-path", lambda c=bytes(changed): merkle.check_path(root, 2, content, c))
    for position in range(0, len(content), 3):
        leaf = bytearray(content)
        leaf[position] ^= 1
        refused("bad-path", lambda c=bytes(leaf): merkle.check_path(root, 2, c, path))
    for index in (0, 1, 3, 66, 127, 128, -1):
        refused("bad-path", lambda i=index: merkle.check_path(root, i, content, path))
    for other in (b"", path[:-32], path[:-1], path + bytes(32), path[32:] + path[:32]):
        refused("bad-path", lambda o=other: merkle.check_path(root, 2, content, o))
    refused("bad-path", lambda: merkle.check_path(merkle.leaf_hash(content), 2, content, path))


@pytest.mark.attack(69)
def test_an_inner_node_is_no_leaf_and_a_leaf_no_node() -> None:
    leaves = tuple(bytes([number]) * 32 for number in range(128))
    tree = merkle.Tree(leaves)
    left, right = leaves[0], leaves[1]
    assert merkle.node_hash(left, right) != merkle.leaf_hash(left + right)
    # The tree one level up has the node as its leaf: depth is fixed, so the shorter path has no use.
    refused("bad-path", lambda: merkle.check_path(tree.root, 0, left + right, tree.path(0)[32:]))
    refused("bad-path", lambda: merkle.check_path(tree.root, 0, left + right, tree.path(0)))
    with pytest.raises(LocalError):
        merkle.Tree(leaves[:-1])
    with pytest.raises(LocalError):
        tree.path(128)


@pytest.mark.attack(69)
@pytest.mark.attack(6)
def test_a_pair_proves_its_own_place_only() -> None:
    served = served_bundle(PUBLIC, 1)
    assert served.served is not None
    pair, path = served.served.pair, served.served.path
    other = served_bundle(PUBLIC, 2).served
    assert other is not None

    def with_pair(**fields: object) -> ServedBundle:
        return replace(served, served=replace(served.served, **fields))

    refused("bad-path", lambda: check(with_pair(path=other.path)))
    refused("bad-path", lambda: check(with_pair(pair=other.pair)))
    moved = replace(pair, leaf=replace(pair.leaf, slot=2))
    refused("bad-path", lambda: check(with_pair(pair=moved)))
    mixed = replace(pair, leaf=replace(pair.leaf, kem=other.pair.leaf.kem))
    refused("bad-path", lambda: check(with_pair(pair=mixed)))
    renamed = replace(pair, leaf=replace(pair.leaf, one_time=replace(pair.leaf.one_time, id=1)))
    refused("bad-path", lambda: check(with_pair(pair=renamed)))
    unsigned = replace(pair, kem_signature=other.pair.kem_signature)
    refused("bad-signature", lambda: check(with_pair(pair=unsigned)))
    flat = bytearray(tls.encode(served))
    flat[-len(path) - 1] ^= 1
    with pytest.raises(RemoteError):
        check(bytes(flat))
    with pytest.raises(ValueError, match="place"):
        replace(pair.leaf, tree=2)
    with pytest.raises(ValueError, match="place"):
        replace(pair.leaf, slot=128)


@pytest.mark.attack(16)
def test_every_byte_of_a_served_bundle_counts() -> None:
    """Sampled in the long keys and signatures, whole elsewhere."""
    data = tls.encode(served_bundle(PUBLIC, 1))
    for position in sorted({*range(160), *range(0, len(data), 23), *range(len(data) - 300, len(data))}):
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(RemoteError):
            check(bytes(changed))
    for other in (data[:-1], data + b"\x00", b""):
        with pytest.raises(DecodeError):
            check(other)


# --- the relay ---


def test_a_relay_takes_only_whole_and_rising_batches() -> None:
    def judge(batch: PublicBatch, last_number: int = 0, head: bytes | None = None) -> object:
        return check_batch(tls.encode(batch), BOB.device, BOB.hash, last_number, NOW_S, head=head)

    judge(PUBLIC)
    refused("conflict", lambda: judge(PUBLIC, last_number=1))
    refused("stale-list", lambda: judge(PUBLIC, head=bytes(32)))
    swapped = replace(PUBLIC, padding=(PUBLIC.padding[1], PUBLIC.padding[0], *PUBLIC.padding[2:]))
    refused("bad-path", lambda: judge(swapped))
    other, _ = batch_of(BOB)
    refused("bad-path", lambda: judge(replace(PUBLIC, pairs=other.pairs)))
    refused("bad-signature", lambda: check_batch(PUBLIC, found("m").device, BOB.hash, 0, NOW_S))
    refused("expired", lambda: check_batch(PUBLIC, BOB.device, BOB.hash, 0, NOW_S + 20 * DAY_S))
    for pairs, padding in (
        (PUBLIC.pairs[::-1], PUBLIC.padding),
        (PUBLIC.pairs[:-1], PUBLIC.padding),
        ((PUBLIC.pairs[0],) * 4, PUBLIC.padding),
    ):
        with pytest.raises(ValueError, match="128 places"):
            replace(PUBLIC, pairs=pairs, padding=padding)


@pytest.mark.attack(11)
def test_a_relay_refuses_a_batch_that_uses_an_id_twice() -> None:
    """One id for two keys: who uses the second is told that the first was used."""
    first, second, *rest = PUBLIC.pairs
    leaf = replace(second.leaf, one_time=replace(second.leaf.one_time, id=first.leaf.one_time.id))
    pairs = (first, replace(second, leaf=leaf), *rest)
    root = replace(PUBLIC, pairs=pairs).tree().root
    signed = signed_again(pairs_root=root)
    batch = PublicBatch(signed, pairs, PUBLIC.padding)
    refused("malformed", lambda: check_batch(batch, BOB.device, BOB.hash, 0, NOW_S))


def test_a_session_begins_from_a_checked_bundle() -> None:
    alice = found("alice")
    local = pairwise.LocalDevice(
        alice.device_keys.identity, alice.device.registration, alice.device.address(alice.hash)
    )
    checked = check(served_bundle(PUBLIC, 0))
    record = pairwise.begin(None, local, checked.bundle, NOW_S * 1000, alice.entropy)
    handshake = record.handshake
    assert handshake is not None
    assert handshake.signed_prekey_id == PRIVATE.signed_prekey_id
    ids = (alice.hash, alice.device_hash), (BOB.hash, BOB.device_hash)
    assert len(prekeys.session_id(handshake, *ids, checked.manifest_hash)) == 32
