"""Prekey batches: made by a device, checked and handed out by a relay, checked again by who fetches.

Source: docs/identity.md, "Prekeys" and "Session binding". One ML-DSA-44 signature over the manifest
covers the signed prekey, the last-resort KEM key and 128 one-time pairs; the XEdDSA signatures that
libsignal's bundles carry are made and checked too. Fetching, ``check_bundle`` proves in this order:

1. the device is listed by a chain that was verified;
2. the manifest is signed by its bundle key, of this account and device, current, its number not fallen;
3. the keys may be imported; the path leads from the pair to the signed root;
4. XEdDSA over the signed prekey and the KEM key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Final

from lokket import limits
from lokket.codec import tls
from lokket.codec.tls import U8, U32, U64, Bytes32, Bytes33, Bytes64, Fixed, Vector
from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair, check_mlkem_public, check_x25519_public
from lokket.crypto.xeddsa import KEY_TYPE, IdentityKeyPair, verify_xeddsa
from lokket.errors import KeyRefused, LocalError, RemoteError
from lokket.protocol import merkle
from lokket.protocol.identity.account import AccountState
from lokket.protocol.identity.device import Device, device_hash
from lokket.protocol.identity.device_keys import DeviceKeys
from lokket.protocol.identity.encoding import (
    Extensions,
    check_extensions,
    hash_labelled,
    require_ascending_types,
)
from lokket.protocol.identity.keys import (
    BUNDLE_SIGNATURE_BYTES,
    sign_with_bundle_key,
    verify_bundle_key,
)
from lokket.protocol.pairwise import Handshake, PreKeyBundle

MANIFEST: Final = "prekey manifest"
KEM_TYPE: Final = b"\x08"  # libsignal's type byte before an ML-KEM-1024 key
KEM_KEY_BYTES: Final = 1569
PAIR_TREE: Final = 1  # which tree a leaf belongs to; 2 will be key packages

KEMKey = Annotated[bytes, Fixed(KEM_KEY_BYTES)]
Path = Annotated[bytes, Fixed(merkle.PATH_BYTES)]


@dataclass(frozen=True, slots=True)
class ECPrekey:
    """37 bytes: id, and 05 || u."""

    id: U32
    key: Bytes33


@dataclass(frozen=True, slots=True)
class KEMPrekey:
    """1,573 bytes: id, and 08 || ML-KEM-1024 key."""

    id: U32
    key: KEMKey


@dataclass(frozen=True, slots=True)
class Manifest:
    """1,795 bytes and its extensions."""

    genesis: Bytes32
    device_hash: Bytes32
    number: U64
    not_before_s: U64
    not_after_s: U64
    head: Bytes32  # of the device list, as this device knows it
    signed_prekey: ECPrekey
    last_resort: KEMPrekey
    pairs_root: Bytes32
    key_packages_root: Bytes32
    extensions: Extensions

    def __post_init__(self) -> None:
        longest = limits.MANIFEST_LIFETIME_DAYS * limits.DAY_S
        if not self.not_before_s < self.not_after_s <= self.not_before_s + longest:
            raise ValueError("a manifest is valid for at most 14 days")
        if not self.number:
            raise ValueError("the first manifest is number 1")
        require_ascending_types(self.extensions)

    @property
    def hash(self) -> bytes:
        """H("prekey manifest", Manifest), 32 bytes."""
        return hash_labelled(MANIFEST, tls.encode(self))


@dataclass(frozen=True, slots=True)
class SignedManifest:
    """The manifest, the bundle key's signature, and libsignal's two XEdDSA signatures."""

    manifest: Manifest
    signature: Annotated[bytes, Fixed(BUNDLE_SIGNATURE_BYTES)]
    signed_prekey_signature: Bytes64  # XEdDSA over the 33 bytes
    last_resort_signature: Bytes64  # XEdDSA over the 1569 bytes


@dataclass(frozen=True, slots=True)
class PairLeaf:
    """What a leaf's hash covers: one EC and one KEM one-time key, handed out together."""

    tree: U8
    slot: U8  # 0..127, the leaf's place
    one_time: ECPrekey
    kem: KEMPrekey

    def __post_init__(self) -> None:
        if self.tree != PAIR_TREE or self.slot >= merkle.LEAVES:
            raise ValueError("a leaf is of another tree or place")


@dataclass(frozen=True, slots=True)
class Pair:
    """1,676 bytes: a leaf, and libsignal's signature of its KEM key."""

    leaf: PairLeaf
    kem_signature: Bytes64  # XEdDSA over the 1569 bytes


@dataclass(frozen=True, slots=True)
class ServedPair:
    """1,900 bytes: a pair, and the path from its leaf to the signed root."""

    pair: Pair
    path: Path


@dataclass(frozen=True, slots=True)
class PublicBatch:
    """What a device publishes. ``padding``: the random hashes of unused places, lowest place first."""

    signed: SignedManifest
    pairs: Annotated[tuple[Pair, ...], Vector(merkle.LEAVES)]
    padding: Annotated[tuple[Bytes32, ...], Vector(merkle.LEAVES)]

    def __post_init__(self) -> None:
        slots = [pair.leaf.slot for pair in self.pairs]
        if slots != sorted(set(slots)) or len(slots) + len(self.padding) != merkle.LEAVES:
            raise ValueError("a batch has 128 places, in order and without repeats")

    def tree(self) -> merkle.Tree:
        by_slot = {pair.leaf.slot: merkle.leaf_hash(tls.encode(pair.leaf)) for pair in self.pairs}
        padding = iter(self.padding)
        return merkle.Tree(tuple(by_slot.get(slot) or next(padding) for slot in range(merkle.LEAVES)))


@dataclass(frozen=True, slots=True)
class ServedBundle:
    """What a relay answers: 4,344 bytes, and 1,900 more with a pair."""

    signed: SignedManifest
    served: ServedPair | None


@dataclass(frozen=True, slots=True)
class PrivatePair:
    """The private halves of one pair; to be deleted when it is used."""

    slot: U8
    one_time_prekey_id: U32
    one_time_prekey: Bytes32 = field(repr=False)
    kem_prekey_id: U32
    kem_seed: Bytes64 = field(repr=False)


@dataclass(frozen=True, slots=True)
class PrivateBatch:
    """What the device keeps for 45 days; a pair goes when it is used."""

    number: U64
    manifest_hash: Bytes32
    not_after_s: U64
    signed_prekey_id: U32
    signed_prekey: Bytes32 = field(repr=False)
    last_resort_id: U32
    last_resort_seed: Bytes64 = field(repr=False)
    pairs: Annotated[tuple[PrivatePair, ...], Vector(merkle.LEAVES)] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckedBundle:
    """A bundle that may be used for a session; ``head`` is the list that the device had in mind."""

    bundle: PreKeyBundle
    manifest_hash: bytes
    manifest_number: int
    not_after_s: int
    head: bytes


# --- making ---


def make_batch(
    keys: DeviceKeys,
    genesis_hash: bytes,
    device_hash: bytes,
    *,
    number: int,
    head: bytes,
    now_s: int,
    entropy: Entropy,
    pairs: int = limits.PREKEY_PAIRS_PER_MANIFEST,
) -> tuple[PublicBatch, PrivateBatch]:
    """A fresh batch, valid for 14 days from now. ``number`` must be above every earlier one's."""
    if not 0 <= pairs <= merkle.LEAVES or number < 1:
        raise LocalError("a batch has 0 to 128 pairs and a number from 1")
    ids = _fresh_ids(2 + 2 * pairs, entropy)
    signed_prekey = X25519KeyPair(entropy.draw(32))
    last_resort = MLKEMKeyPair(1024, entropy.draw(64))
    secrets = entropy.draw(96 * pairs)
    private = tuple(
        PrivatePair(
            slot=slot,
            one_time_prekey_id=ids[2 + 2 * slot],
            one_time_prekey=secrets[96 * slot : 96 * slot + 32],
            kem_prekey_id=ids[3 + 2 * slot],
            kem_seed=secrets[96 * slot + 32 : 96 * slot + 96],
        )
        for slot in range(pairs)
    )
    public = tuple(_public_pair(pair, keys.identity) for pair in private)
    random = entropy.draw(32 * (merkle.LEAVES - pairs + 1))
    padding = tuple(random[start : start + 32] for start in range(0, len(random), 32))
    manifest = Manifest(
        genesis=genesis_hash,
        device_hash=device_hash,
        number=number,
        not_before_s=now_s,
        not_after_s=now_s + limits.MANIFEST_LIFETIME_DAYS * limits.DAY_S,
        head=head,
        signed_prekey=ECPrekey(ids[0], KEY_TYPE + signed_prekey.public),
        last_resort=KEMPrekey(ids[1], KEM_TYPE + last_resort.public),
        pairs_root=_root(public, padding[1:]),
        key_packages_root=padding[0],  # no key packages yet: the root of nothing that anyone can show
        extensions=(),
    )
    signed = SignedManifest(
        manifest,
        sign_with_bundle_key(keys.bundle, MANIFEST, tls.encode(manifest), entropy),
        keys.identity.sign(manifest.signed_prekey.key),
        keys.identity.sign(manifest.last_resort.key),
    )
    return PublicBatch(signed, public, padding[1:]), PrivateBatch(
        number=number,
        manifest_hash=manifest.hash,
        not_after_s=manifest.not_after_s,
        signed_prekey_id=ids[0],
        signed_prekey=signed_prekey.private,
        last_resort_id=ids[1],
        last_resort_seed=last_resort.seed,
        pairs=private,
    )


def _fresh_ids(count: int, entropy: Entropy) -> tuple[int, ...]:
    """Random ids from 1 to 2^32 - 1, distinct: counting ones would tell how busy a device is."""
    ids: dict[int, None] = {}
    while len(ids) < count:
        drawn = entropy.draw(4 * (count - len(ids)))
        words = (int.from_bytes(drawn[start : start + 4], "big") for start in range(0, len(drawn), 4))
        ids |= {word: None for word in words if word}
    return tuple(ids)


def _public_pair(pair: PrivatePair, identity: IdentityKeyPair) -> Pair:
    one_time = KEY_TYPE + X25519KeyPair(pair.one_time_prekey).public
    kem = KEM_TYPE + MLKEMKeyPair(1024, pair.kem_seed).public
    leaf = PairLeaf(
        PAIR_TREE, pair.slot, ECPrekey(pair.one_time_prekey_id, one_time), KEMPrekey(pair.kem_prekey_id, kem)
    )
    return Pair(leaf, identity.sign(kem))


def _root(pairs: tuple[Pair, ...], padding: tuple[bytes, ...]) -> bytes:
    leaves = tuple(merkle.leaf_hash(tls.encode(pair.leaf)) for pair in pairs)
    return merkle.Tree(leaves + padding).root


# --- handing out (the relay) ---


def check_batch(
    batch: PublicBatch | bytes,
    device: Device,
    genesis_hash: bytes,
    last_number: int,
    now_s: int,
    *,
    head: bytes | None = None,
) -> PublicBatch:
    """The batch, fit to be handed out. RemoteError: signature, time, roots; (conflict) number not risen.

    ``head``: refuse a batch made under another list. Keys of pairs are left to those who fetch them.
    """
    batch = tls.decode(PublicBatch, batch) if isinstance(batch, bytes) else batch
    manifest = batch.signed.manifest
    _check_manifest(batch.signed, device, genesis_hash, device_hash(device), now_s)
    if manifest.number <= last_number:
        raise RemoteError("a batch with this number was published before", code="conflict")
    if head is not None and manifest.head != head:
        raise RemoteError("the batch was made under another device list", code="stale-list")
    if batch.tree().root != manifest.pairs_root:
        raise RemoteError("the pairs are not those that were signed", code="bad-path")
    ids = [manifest.last_resort.id, *(pair.leaf.kem.id for pair in batch.pairs)]
    one_time_ids = [pair.leaf.one_time.id for pair in batch.pairs]
    if len(set(ids)) != len(ids) or len(set(one_time_ids)) != len(one_time_ids):
        raise RemoteError("a batch uses a key id twice", code="malformed")
    return batch


def served_bundle(batch: PublicBatch, slot: int | None) -> ServedBundle:
    """The answer with the pair in ``slot``, or with the last-resort key alone.

    Slots go out in random order: taken in order, they would tell a stranger how many are gone.
    """
    if slot is None:
        return ServedBundle(batch.signed, None)
    for pair in batch.pairs:
        if pair.leaf.slot == slot:
            return ServedBundle(batch.signed, ServedPair(pair, batch.tree().path(slot)))
    raise LocalError("the batch has no pair in this slot")


# --- using ---


def check_bundle(
    served: bytes | ServedBundle,
    state: AccountState,
    device_hash: bytes,
    last_number: int,
    now_s: int,
    *,
    leave_pair: bool = False,
) -> CheckedBundle:
    """Everything that must hold before a Diffie-Hellman exchange; ``last_number``: the highest seen, or 0.

    ``leave_pair``: the bundle is for the last-resort key, whatever pair was served with it.

    RemoteError: ``unknown-device``, ``rollback``, ``expired``, ``future``, ``bad-path``, ``bad-key``,
    ``bad-signature``, ``malformed``.
    """
    served = tls.decode(ServedBundle, served) if isinstance(served, bytes) else served
    device = state.device(device_hash)
    if device is None:
        raise RemoteError("the device is not on the list", code="unknown-device")
    signed, manifest = served.signed, served.signed.manifest
    _check_manifest(signed, device, state.genesis_hash, device_hash, now_s)
    if manifest.number < last_number:
        raise RemoteError("an older manifest than one that was seen", code="rollback")
    kem, kem_signature, one_time = manifest.last_resort, signed.last_resort_signature, None
    if served.served is not None:
        pair, leaf = served.served.pair, served.served.pair.leaf
        merkle.check_path(manifest.pairs_root, leaf.slot, tls.encode(leaf), served.served.path)
        _check_ec(leaf.one_time)
        _check_kem(leaf.kem)
        verify_xeddsa(device.identity_key, pair.kem_signature, leaf.kem.key)
        if not leave_pair:
            kem, kem_signature, one_time = leaf.kem, pair.kem_signature, leaf.one_time
    bundle = PreKeyBundle(
        registration_id=device.registration,
        address=device.address(state.genesis_hash),
        identity_key=device.identity_key,
        signed_prekey_id=manifest.signed_prekey.id,
        signed_prekey=manifest.signed_prekey.key,
        signed_prekey_signature=signed.signed_prekey_signature,
        kem_prekey_id=kem.id,
        kem_prekey=kem.key,
        kem_prekey_signature=kem_signature,
        one_time_prekey_id=None if one_time is None else one_time.id,
        one_time_prekey=None if one_time is None else one_time.key,
    )
    return CheckedBundle(bundle, manifest.hash, manifest.number, manifest.not_after_s, manifest.head)


def _check_manifest(
    signed: SignedManifest, device: Device, genesis_hash: bytes, device_hash: bytes, now_s: int
) -> None:
    """Signature first, then whom it names, its time, and the keys it carries itself."""
    manifest = signed.manifest
    verify_bundle_key(device.bundle_key, MANIFEST, tls.encode(manifest), signed.signature)
    if (manifest.genesis, manifest.device_hash) != (genesis_hash, device_hash):
        raise RemoteError("a manifest belongs to another device", code="other-device")
    check_extensions(manifest.extensions)
    if now_s > manifest.not_after_s + limits.CLOCK_SKEW_S:
        raise RemoteError("the device's prekeys have expired: it has not been online", code="expired")
    if manifest.not_before_s > now_s + limits.CLOCK_SKEW_S:
        raise RemoteError("prekeys dated in the future: one of the two clocks is wrong", code="future")
    _check_ec(manifest.signed_prekey)
    _check_kem(manifest.last_resort)
    verify_xeddsa(device.identity_key, signed.signed_prekey_signature, manifest.signed_prekey.key)
    verify_xeddsa(device.identity_key, signed.last_resort_signature, manifest.last_resort.key)


def _check_ec(prekey: ECPrekey) -> None:
    if prekey.key[:1] != KEY_TYPE:
        raise KeyRefused("an EC prekey is 05 and 32 bytes")
    check_x25519_public(prekey.key[1:])


def _check_kem(prekey: KEMPrekey) -> None:
    if prekey.key[:1] != KEM_TYPE:
        raise KeyRefused("a KEM prekey is 08 and 1568 bytes")
    check_mlkem_public(prekey.key[1:])


# --- binding ---


@dataclass(frozen=True, slots=True)
class _Binding:
    initiator_genesis: Bytes32
    initiator_device: Bytes32
    responder_genesis: Bytes32
    responder_device: Bytes32
    base_key: Bytes33
    signed_prekey: ECPrekey
    one_time: ECPrekey | None
    kem_id: U32
    kem_key_hash: Bytes32
    kem_ciphertext_hash: Bytes32
    manifest_hash: Bytes32


def session_id(
    handshake: Handshake, initiator: tuple[bytes, bytes], responder: tuple[bytes, bytes], manifest_hash: bytes
) -> bytes:
    """H("session binding", ...), 32 bytes: who began what with whom, over which keys, from which manifest.

    ``initiator`` and ``responder`` are (genesis hash, device hash). The caller has compared the
    handshake's identity keys with those devices'.
    """
    one_time = None
    if handshake.one_time_prekey_id is not None and handshake.one_time_prekey is not None:
        one_time = ECPrekey(handshake.one_time_prekey_id, handshake.one_time_prekey)
    binding = _Binding(
        *initiator,
        *responder,
        base_key=handshake.base_key,
        signed_prekey=ECPrekey(handshake.signed_prekey_id, handshake.signed_prekey),
        one_time=one_time,
        kem_id=handshake.kem_prekey_id,
        kem_key_hash=handshake.kem_prekey_hash,
        kem_ciphertext_hash=handshake.kem_ciphertext_hash,
        manifest_hash=manifest_hash,
    )
    return hash_labelled("session binding", tls.encode(binding))
