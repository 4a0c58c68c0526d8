"""Every kind of signature against every verifier: only the diagonal passes (attack 19)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest

from lokket.codec import tls
from lokket.crypto.keys import Ed25519KeyPair, MLDSAKeyPair
from lokket.crypto.xeddsa import IdentityKeyPair, verify_xeddsa
from lokket.errors import RemoteError, SignatureRefused
from lokket.protocol import identity, prekeys
from lokket.protocol.identity import HybridKeyPair, HybridSignature
from lokket.protocol.identity.chain import check_link
from lokket.protocol.identity.device import ACCEPT, check_device
from lokket.protocol.identity.devicelist import KEY_ROTATION, LIST_LINK, check_rotation
from lokket.protocol.identity.keys import (
    sign_with_bundle_key,
    sign_with_ed25519,
    sign_with_identity,
    verify_bundle_key,
    verify_identity,
    verify_labelled_ed25519,
)
from lokket.protocol.identity.names import NAME_CLAIM
from lokket.protocol.identity.statements import (
    ACCOUNT_DELETE,
    RELAY_HELLO,
    RELAY_LOGIN,
    RELAY_REGISTER,
)
from tests.support.entropy import SeededEntropy
from tests.support.identity import NOW_S, found

# --- one key and one message for all labels: the labels alone must tell the kinds apart ---

ENTROPY = SeededEntropy("matrix")
DATA = b"\x05" + b"the same bytes for all" * 2
HYBRID_LABELS = (LIST_LINK, NAME_CLAIM, KEY_ROTATION, RELAY_REGISTER, ACCOUNT_DELETE)
ED25519_LABELS = (ACCEPT, RELAY_LOGIN, RELAY_REGISTER, RELAY_HELLO)
IDENTITY_LABELS = (ACCEPT, RELAY_REGISTER, None)  # None: libsignal's unlabelled signature of a prekey
BUNDLE_LABELS = (ACCEPT, prekeys.MANIFEST, RELAY_REGISTER)


def passes(verify: Callable[[], None]) -> bool:
    try:
        verify()
    except SignatureRefused:
        return False
    return True


@pytest.mark.attack(19)
def test_hybrid_labels() -> None:
    pair = HybridKeyPair.generate(ENTROPY)
    for made, asked in product(HYBRID_LABELS, HYBRID_LABELS):
        signature = pair.sign(made, DATA, ENTROPY)
        assert passes(lambda s=signature, a=asked: pair.public.verify(a, DATA, s)) == (made == asked)


@pytest.mark.attack(19)
def test_ed25519_labels() -> None:
    pair = Ed25519KeyPair(ENTROPY.draw(32))
    for made, asked in product(ED25519_LABELS, ED25519_LABELS):
        signature = sign_with_ed25519(pair, made, DATA)
        assert passes(lambda s=signature, a=asked: verify_labelled_ed25519(pair.public, a, DATA, s)) == (
            made == asked
        )


@pytest.mark.attack(19)
def test_identity_labels() -> None:
    pair = IdentityKeyPair(ENTROPY.draw(32))

    def sign(label: str | None) -> bytes:
        return pair.sign(DATA) if label is None else sign_with_identity(pair, label, DATA)

    def verify(label: str | None, signature: bytes) -> None:
        if label is None:
            verify_xeddsa(pair.public, signature, DATA)
        else:
            verify_identity(pair.public, label, DATA, signature)

    for made, asked in product(IDENTITY_LABELS, IDENTITY_LABELS):
        signature = sign(made)
        assert passes(lambda s=signature, a=asked: verify(a, s)) == (made == asked)


@pytest.mark.attack(19)
def test_bundle_labels() -> None:
    pair = MLDSAKeyPair(44, ENTROPY.draw(32))
    for made, asked in product(BUNDLE_LABELS, BUNDLE_LABELS):
        signature = sign_with_bundle_key(pair, made, DATA, ENTROPY)
        assert passes(lambda s=signature, a=asked: verify_bundle_key(pair.public, a, DATA, s)) == (
            made == asked
        )


def test_both_halves_of_a_hybrid_signature_must_verify() -> None:
    pair, other = HybridKeyPair.generate(ENTROPY), HybridKeyPair.generate(ENTROPY)
    good = pair.sign(LIST_LINK, DATA, ENTROPY)
    bad = other.sign(LIST_LINK, DATA, ENTROPY)
    pair.public.verify(LIST_LINK, DATA, good)
    for mixed in (HybridSignature(good.ed25519, bad.mldsa), HybridSignature(bad.ed25519, good.mldsa)):
        with pytest.raises(SignatureRefused):
            pair.public.verify(LIST_LINK, DATA, mixed)


def test_a_half_does_not_verify_under_a_hybrid_key_with_another_other_half() -> None:
    """M names the whole hybrid key: no mix and match of halves across keys."""
    pair, other = HybridKeyPair.generate(ENTROPY), HybridKeyPair.generate(ENTROPY)
    mixed_key = identity.HybridKey(pair.public.ed25519, other.public.mldsa)
    first, second = pair.sign(LIST_LINK, DATA, ENTROPY), other.sign(LIST_LINK, DATA, ENTROPY)
    with pytest.raises(SignatureRefused):
        mixed_key.verify(LIST_LINK, DATA, HybridSignature(first.ed25519, second.mldsa))


# --- the real objects: every signature of one account in every place that takes one ---


class Objects:
    """Everything that an account and its relay sign, and every place where a signature is checked."""

    def __init__(self) -> None:
        owner = found("matrix")
        before = owner.state
        owner.rotate()
        rotation = owner.state.rotations[0]
        entropy, keys, device = owner.entropy, owner.device_keys, owner.device
        relay = Ed25519KeyPair(entropy.draw(32))
        statement = identity.RegisterStatement(
            b"relay", relay.public, bytes(32), owner.hash, owner.device_hash, b"n" * 32
        )
        proof = identity.sign_register(owner.key, keys, statement, entropy)
        login = identity.LoginStatement(
            b"relay", relay.public, owner.hash, owner.device_hash, b"n" * 32, b"c" * 32, NOW_S
        )
        delete = identity.DeleteStatement(b"relay", relay.public, owner.hash, b"n" * 32)
        claim = identity.sign_name_claim(owner.key, "matrix", owner.hash, NOW_S, entropy)
        batch, _ = prekeys.make_batch(
            keys, owner.hash, owner.device_hash, number=1, head=owner.state.head, now_s=NOW_S,
            entropy=entropy, pairs=1,
        )  # fmt: skip
        signed, pair = batch.signed, batch.pairs[0]
        self.signatures: dict[str, bytes | HybridSignature] = {
            "link": owner.state.signature,
            "claim": claim.signature,
            "rotation by recovery": rotation.recovery_signature,
            "rotation by account": rotation.account_signature,
            "accept by identity": device.identity_acceptance,
            "accept by auth": device.auth_acceptance,
            "accept by mls": device.mls_acceptance,
            "accept by bundle": device.bundle_acceptance,
            "manifest": signed.signature,
            "signed prekey": signed.signed_prekey_signature,
            "last resort": signed.last_resort_signature,
            "pair kem": pair.kem_signature,
            "hello": identity.sign_hello(relay, "relay", b"n" * 32, 1),
            "login": identity.sign_login(keys.auth, login),
            "delete": identity.sign_delete(owner.key, delete, entropy),
            "register by account": proof.account,
            "register by identity": proof.identity,
            "register by auth": proof.auth,
            "register by mls": proof.mls,
            "register by bundle": proof.bundle,
        }

        def bundle(**fields: object) -> None:
            served = prekeys.served_bundle(batch, 0)
            part = replace(signed, **{k: v for k, v in fields.items() if k != "kem_signature"})
            assert served.served is not None
            kem = fields.get("kem_signature", pair.kem_signature)
            inner = replace(served.served, pair=replace(pair, kem_signature=kem))
            prekeys.check_bundle(prekeys.ServedBundle(part, inner), owner.state, owner.device_hash, 0, NOW_S)

        def rotated(**fields: object) -> None:
            check_rotation(
                replace(rotation, **fields), owner.hash, before.account_key, before.recovery_commitment
            )

        def registered(**fields: object) -> None:
            identity.check_register(owner.key.public, device, statement, replace(proof, **fields))

        self.verifiers: dict[str, Callable[[object], object]] = {
            "link": lambda s: check_link(identity.SignedLink(owner.state.link, s), owner.key.public),
            "claim": lambda s: identity.check_name_claim(owner.state, replace(claim, signature=s)),
            "rotation by recovery": lambda s: rotated(recovery_signature=s),
            "rotation by account": lambda s: rotated(account_signature=s),
            "accept by identity": lambda s: check_device(replace(device, identity_acceptance=s), owner.hash),
            "accept by auth": lambda s: check_device(replace(device, auth_acceptance=s), owner.hash),
            "accept by mls": lambda s: check_device(replace(device, mls_acceptance=s), owner.hash),
            "accept by bundle": lambda s: check_device(replace(device, bundle_acceptance=s), owner.hash),
            "manifest": lambda s: bundle(signature=s),
            "signed prekey": lambda s: bundle(signed_prekey_signature=s),
            "last resort": lambda s: bundle(last_resort_signature=s),
            "pair kem": lambda s: bundle(kem_signature=s),
            "hello": lambda s: identity.check_hello("relay", relay.public, b"n" * 32, 1, s),
            "login": lambda s: identity.check_login(device.auth_key, login, s),
            "delete": lambda s: identity.check_delete(owner.key.public, delete, s),
            "register by account": lambda s: registered(account=s),
            "register by identity": lambda s: registered(identity=s),
            "register by auth": lambda s: registered(auth=s),
            "register by mls": lambda s: registered(mls=s),
            "register by bundle": lambda s: registered(bundle=s),
        }


@pytest.fixture(scope="module")
def objects() -> Objects:
    return Objects()


def flat(signature: object) -> bytes:
    return tls.encode(signature) if isinstance(signature, HybridSignature) else signature  # type: ignore[return-value]


@pytest.mark.attack(19)
@pytest.mark.attack(7)
def test_every_signature_in_every_place(objects: Objects) -> None:
    """Signatures of another form are cut or filled to the form that the place takes."""
    assert set(objects.signatures) == set(objects.verifiers)
    for made, asked in product(objects.signatures, objects.verifiers):
        form = objects.signatures[asked]
        raw = flat(objects.signatures[made])[: len(flat(form))].ljust(len(flat(form)), b"\x00")
        fitted = tls.decode(HybridSignature, raw) if isinstance(form, HybridSignature) else raw
        if made == asked:
            objects.verifiers[asked](fitted)
            continue
        with pytest.raises(RemoteError):
            objects.verifiers[asked](fitted)


@pytest.mark.attack(16)
def test_a_signature_of_another_length_is_refused(objects: Objects) -> None:
    for name in ("login", "hello"):
        good = objects.signatures[name]
        assert isinstance(good, bytes)
        for bad in (b"", good[:-1], good + b"\x00"):
            with pytest.raises(RemoteError):
                objects.verifiers[name](bad)
