"""Device lists as a contact judges them: what is followed, what is refused and with which code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lokket import limits
from lokket.codec import tls
from lokket.errors import DecodeError, KeyRefused, LocalError, RemoteError, SignatureRefused
from lokket.protocol import identity
from lokket.protocol.identity import AccountState, AccountUpdate, Device, Extension, HybridKeyPair, Revoked
from lokket.protocol.identity.devicelist import (
    ListBody,
    ListLink,
    body_hash,
    list_body,
    sign_link,
)
from tests.support.identity import DAY_S, NOW_S, Account, found


@pytest.fixture
def alice() -> Account:
    return found("alice")


def refused(code: str, judge: Callable[[], object]) -> None:
    """``judge`` raises a RemoteError with this code."""
    with pytest.raises(RemoteError) as caught:
        judge()
    assert caught.value.code == code, caught.value


def forged(
    owner: Account,
    body: ListBody,
    devices: tuple[Device, ...] = (),
    base: AccountState | None = None,
    **fields: object,
) -> AccountUpdate:
    """A validly signed next link that the owner's own software would not sign."""
    base = base or owner.state
    link = ListLink(
        format=1,
        genesis=owner.hash,
        key_epoch=base.key_epoch,
        version=base.version + 1,
        previous=base.head,
        body_hash=body_hash(body),
        issued_s=owner.now_s,
        not_after_s=owner.now_s + 28 * DAY_S,
    )
    signed = sign_link(owner.key, replace(link, **fields), owner.entropy)
    return identity.step_update(signed, body, tuple(tls.encode(device) for device in devices))


# --- what is followed ---


def test_first_contact_and_catching_up(alice: Account) -> None:
    contact = identity.first_contact(tls.encode(alice.chain), alice.hash, NOW_S)
    assert contact == alice.state
    phone, laptop = alice.add(), alice.add()
    alice.renew()
    alice.remove(identity.device_hash(laptop))
    update = alice.chain.since(contact.key_epoch, contact.version)
    assert [link.version for link in update.links] == [2, 3, 4, 5]
    contact, changes = identity.advance(contact, tls.encode(update), NOW_S)
    assert changes == (identity.DeviceAdded(identity.device_hash(phone), 2),)
    assert (contact.head, contact.listed) == (alice.state.head, alice.state.listed)
    assert contact.knows(identity.device_hash(laptop))
    assert contact.device(identity.device_hash(laptop)) is None
    assert identity.AccountState.decode(contact.encode()) == contact


def test_removal_is_reported_and_the_device_stays_known(alice: Account) -> None:
    phone = identity.device_hash(alice.add())
    contact = alice.state
    alice.remove(phone)
    contact, changes = identity.advance(contact, alice.chain.since(0, 2), NOW_S)
    assert changes == (identity.DeviceRemoved(phone, 2),)
    assert contact.knows(phone)
    assert contact.device(phone) is None
    assert not contact.knows(bytes(32))


def test_the_same_head_changes_nothing(alice: Account) -> None:
    alice.add()
    assert identity.advance(alice.state, alice.chain.since(0, 2), NOW_S) == (alice.state, ())
    assert len(alice.chain.since(0, 2).links) == 1
    assert alice.chain.since(0, 2).devices == ()


def test_a_renewed_link_is_small_and_changes_the_head_only(alice: Account) -> None:
    """126 bytes and a signature: the body repeats by hash."""
    contact = alice.state
    alice.renew()
    update = alice.chain.since(0, 1)
    assert len(tls.encode(update.links[0])) == 126
    after, changes = identity.advance(contact, update, NOW_S)
    assert changes == ()
    assert (after.version, after.body, after.listed) == (2, contact.body, contact.listed)
    assert after.head != contact.head


def test_rotation_is_followed_and_reported(alice: Account) -> None:
    contact = alice.state
    alice.rotate()
    alice.renew()
    alice.rotate()
    contact, changes = identity.advance(contact, tls.encode(alice.chain.since(0, 1)), NOW_S)
    assert changes == (identity.Rotated(2),)
    assert contact.account_key == alice.key.public
    assert identity.first_contact(alice.chain, alice.hash, NOW_S).head == contact.head


def test_sizes_are_as_documented(alice: Account) -> None:
    alice.rotate()
    state = alice.state
    assert len(tls.encode(alice.genesis)) == 2020
    assert len(tls.encode(state.link)) == 126
    assert len(tls.encode(state.signed_link)) == 3499
    assert len(tls.encode(state.rotations[0].rotation)) == 4084
    assert len(tls.encode(state.rotations[0])) == 10830


# --- first contact ---


def test_first_contact_refuses(alice: Account) -> None:
    bob = found("bob")
    chain = alice.chain
    refused("other-genesis", lambda: identity.first_contact(chain, bob.hash, NOW_S))
    refused("gap", lambda: identity.first_contact(replace(chain, genesis=None), alice.hash, NOW_S))
    refused("expired", lambda: identity.first_contact(chain, alice.hash, NOW_S + 28 * DAY_S + 301))
    refused("future", lambda: identity.first_contact(chain, alice.hash, NOW_S - 301))
    refused("gap", lambda: identity.first_contact(replace(chain, devices=()), alice.hash, NOW_S))
    identity.first_contact(chain, alice.hash, NOW_S + 28 * DAY_S + 300)
    identity.first_contact(chain, alice.hash, NOW_S - 300)


def test_first_contact_needs_the_chain_from_its_first_link(alice: Account) -> None:
    alice.renew()
    alice.renew()
    for links in (alice.chain.links[1:], alice.chain.links[::2], alice.chain.links[::-1]):
        cut = replace(alice.chain, links=links)
        refused("broken-chain", lambda c=cut: identity.first_contact(c, alice.hash, NOW_S))
    older = replace(alice.chain, links=alice.chain.links[:-1])
    refused("bad-signature", lambda: identity.first_contact(older, alice.hash, NOW_S))


def test_expired_lists_are_followed_and_said_to_be_expired(alice: Account) -> None:
    contact = alice.state
    alice.renew()
    later = NOW_S + 40 * DAY_S
    contact, _ = identity.advance(contact, alice.chain.since(0, 1), later)
    assert contact.version == 2
    assert contact.expired(later)
    assert not contact.expired(NOW_S + 28 * DAY_S + limits.CLOCK_SKEW_S)


@pytest.mark.attack(16)
def test_every_byte_of_a_signed_link_counts(alice: Account) -> None:
    contact = alice.state
    alice.renew()
    update = alice.chain.since(0, 1)
    data = tls.encode(update.last)
    for position in [*range(126), *range(126, len(data), 50)]:
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(RemoteError):
            advance_by(contact, update, bytes(changed))


def advance_by(contact: AccountState, update: AccountUpdate, signed_link: bytes) -> None:
    last = tls.decode(identity.SignedLink, signed_link)
    identity.advance(contact, replace(update, links=(last.link,), signature=last.signature), NOW_S)


# --- rollback, gaps, forks ---


@pytest.mark.attack(89)
def test_an_older_list_is_refused(alice: Account) -> None:
    old = alice.chain
    alice.add()
    newer = alice.chain
    alice.remove(
        alice.state.listed[-1][0] if alice.state.listed[-1][1].device == 2 else alice.state.listed[0][0]
    )
    refused("rollback", lambda: identity.advance(alice.state, old, NOW_S))
    last = replace(newer, links=newer.links[-1:], genesis=None)
    refused("rollback", lambda: identity.advance(alice.state, last, NOW_S))
    rotated = alice.state
    alice.rotate()
    refused("rollback", lambda: identity.advance(alice.state, old, NOW_S))
    assert rotated.key_epoch == 0


def test_missing_links_are_no_fork(alice: Account) -> None:
    contact = alice.state
    for _ in range(3):
        alice.renew()
    refused("gap", lambda: identity.advance(contact, alice.chain.since(0, 2), NOW_S))
    alice.rotate()
    refused("gap", lambda: identity.advance(contact, alice.chain.since(1, 5), NOW_S))
    late = replace(alice.chain.since(0, 2), rotations=alice.chain.rotations)
    refused("gap", lambda: identity.advance(contact, late, NOW_S))


def branch(owner: Account) -> Account:
    """The same account, as a thief of the account key continues it."""
    return replace(owner, keys=dict(owner.keys))


@pytest.mark.attack(89)
def test_forks_are_found_with_evidence(alice: Account) -> None:
    """Same version with other bytes; a longer branch; a branch below a rotation."""
    thief = branch(alice)
    alice.add()
    thief.add()
    contact = alice.state
    updates = [thief.chain.since(0, 2)]
    thief.renew()
    updates.append(thief.chain.since(0, 2))
    thief.rotate()
    updates.append(thief.chain.since(0, 2))
    for update in updates:
        with pytest.raises(identity.ForkDetected) as fork:
            identity.advance(contact, update, NOW_S)
        evidence = tls.decode(identity.ForkEvidence, fork.value.evidence)
        assert evidence.stored == contact
        assert evidence.other.last == update.last
        # Whoever knows the genesis hash can check both branches.
        with pytest.raises(identity.ForkDetected):
            identity.advance(evidence.stored, evidence.other, NOW_S)


def test_a_rotation_of_another_branch_is_a_fork(alice: Account) -> None:
    thief = branch(alice)
    alice.add()
    thief.add()
    contact = alice.state
    thief.rotate()
    only_rotated = thief.chain.since(0, 2)
    assert [link.key_epoch for link in only_rotated.links] == [1]
    with pytest.raises(identity.ForkDetected):
        identity.advance(contact, only_rotated, NOW_S)


def test_an_unsigned_fork_is_no_fork(alice: Account) -> None:
    """The relay alone cannot make a contact stop sending."""
    other = found("mallory")
    link = replace(alice.state.link, previous=b"x" * 32)
    fake = identity.step_update(sign_link(other.key, link, other.entropy), alice.state.body)
    refused("bad-signature", lambda: identity.advance(alice.state, fake, NOW_S))


# --- bodies ---


def test_bodies_belong_to_their_link(alice: Account) -> None:
    other = list_body(1, (b"o" * 32,))
    update = replace(forged(alice, alice.state.body), body=other)
    refused("broken-chain", lambda: identity.advance(alice.state, update, NOW_S))


def body_of(owner: Account, **fields: object) -> ListBody:
    return replace(owner.state.body, **fields)


def test_contradictory_bodies_are_refused(alice: Account) -> None:
    phone = alice.add()
    phone_hash, admin = identity.device_hash(phone), alice.device_hash
    twin = alice.new_device(2)
    both = tuple(sorted((phone_hash, admin)))
    gone = Revoked(2, phone_hash, 3)
    bad = {
        "left without a word": (body_of(alice, device_hashes=(admin,)), ()),
        "revoked at an earlier version": (
            body_of(alice, device_hashes=(admin,), revoked=(replace(gone, version=2),)),
            (),
        ),
        "revoked at a later version": (
            body_of(alice, device_hashes=(admin,), revoked=(replace(gone, version=4),)),
            (),
        ),
        "revoked with another number": (
            body_of(alice, device_hashes=(admin,), revoked=(replace(gone, device=3),)),
            (),
        ),
        "number twice": (list_body(1, (*both, identity.device_hash(twin))), (twin,)),
        "number of a revoked device": (
            list_body(1, (admin, identity.device_hash(twin)), (gone,)),
            (twin,),
        ),
        "admin not listed": (body_of(alice, admin_device=9), ()),
        "floor above a device": (body_of(alice, floor=2), ()),
    }
    for why, (body, devices) in bad.items():
        update = forged(alice, body, devices)
        with pytest.raises(RemoteError) as caught:
            identity.advance(alice.state, update, NOW_S)
        assert caught.value.code == "bad-list", why


def test_self_contradictory_bodies_do_not_decode(alice: Account) -> None:
    gone = Revoked(2, b"g" * 32, 2)
    for revoked in (
        (Revoked(2, alice.device_hash, 2),),
        (gone, replace(gone, device=3)),
        (gone, replace(gone, hash=b"h" * 32)),
        (Revoked(0, b"g" * 32, 2),),
        (Revoked(128, b"g" * 32, 2),),
    ):
        with pytest.raises(LocalError):
            list_body(1, alice.state.body.device_hashes, revoked)
        with pytest.raises(ValueError, match=r"."):
            body_of(alice, revoked=revoked)


@pytest.mark.attack(16)
def test_unsorted_and_repeated_devices_do_not_decode(alice: Account) -> None:
    alice.add()
    data = tls.encode(alice.state.body)
    first, second = alice.state.body.device_hashes
    for swapped in (second + first, first + first):
        with pytest.raises(DecodeError):
            tls.decode(ListBody, data.replace(first + second, swapped))


def test_a_revoked_device_does_not_return(alice: Account) -> None:
    phone = alice.add()
    phone_hash = identity.device_hash(phone)
    alice.remove(phone_hash)
    back = list_body(1, (alice.device_hash, phone_hash))
    refused("bad-list", lambda: identity.advance(alice.state, forged(alice, back, (phone,)), NOW_S))
    silent = list_body(1, (alice.device_hash,))
    refused("bad-list", lambda: identity.advance(alice.state, forged(alice, silent), NOW_S))


def test_devices_say_since_when_they_are_listed(alice: Account) -> None:
    """A device that claims an earlier version was hidden from us; one that claims a later one lies."""
    for added_version in (1, 3):
        device = alice.new_device(2, added_version=added_version)
        body = list_body(1, (alice.device_hash, identity.device_hash(device)))
        refused(
            "bad-list", lambda b=body, d=device: identity.advance(alice.state, forged(alice, b, (d,)), NOW_S)
        )


@pytest.mark.attack(14)
def test_the_floor_never_falls(alice: Account) -> None:
    raised = forged(alice, body_of(alice, floor=1))
    after, _ = identity.advance(alice.state, raised, NOW_S)
    lowered = forged(alice, body_of(alice, floor=0), base=after)
    refused("bad-list", lambda: identity.advance(after, lowered, NOW_S))


def test_a_critical_extension_of_a_list_is_refused_and_others_stay(alice: Account) -> None:
    kept = forged(alice, body_of(alice, extensions=(Extension(7, b"later"),)))
    after, _ = identity.advance(alice.state, kept, NOW_S)
    assert after.body.extensions == (Extension(7, b"later"),)
    critical = forged(alice, body_of(alice, extensions=(Extension(0x8001, b""),)))
    refused("critical-extension", lambda: identity.advance(alice.state, critical, NOW_S))


@pytest.mark.attack(8)
def test_devices_of_one_account_share_no_key(alice: Account) -> None:
    keys = alice.device_keys
    twin = identity.make_device(
        keys, alice.hash, number=2, registration=8, added_version=2, entropy=alice.entropy
    )
    body = list_body(1, (alice.device_hash, identity.device_hash(twin)))
    with pytest.raises(KeyRefused):
        identity.advance(alice.state, forged(alice, body, (twin,)), NOW_S)


@pytest.mark.attack(8)
def test_a_list_with_a_stolen_device_is_refused(alice: Account) -> None:
    """Mallory lists Alice's device as her own, signed by her own account key."""
    mallory = found("mallory")
    stolen = replace(alice.device, device=2)
    for device in (stolen, alice.device):
        hashes = (mallory.device_hash, identity.device_hash(device))
        update = forged(mallory, list_body(mallory.state.body.admin_device, hashes), (device,))
        with pytest.raises(RemoteError):
            identity.advance(mallory.state, update, NOW_S)


def test_a_device_record_must_be_the_one_named(alice: Account) -> None:
    named, other = alice.new_device(2), alice.new_device(2)
    body = list_body(1, (alice.device_hash, identity.device_hash(named)))
    refused("gap", lambda: identity.advance(alice.state, forged(alice, body, (other,)), NOW_S))


def test_at_most_ten_devices(alice: Account) -> None:
    for _ in range(9):
        alice.add()
    with pytest.raises(LocalError):
        alice.add()
    assert len(alice.state.listed) == 10


def test_links_are_valid_for_28_days_at_most(alice: Account) -> None:
    for not_after_s in (NOW_S, NOW_S + 28 * DAY_S + 1):
        with pytest.raises(ValueError, match="28 days"):
            replace(alice.state.link, not_after_s=not_after_s)
    ahead = forged(alice, alice.state.body, issued_s=NOW_S + 301)
    refused("future", lambda: identity.advance(alice.state, ahead, NOW_S))


# --- rotations ---


def test_rotations_prove_themselves(alice: Account) -> None:
    contact = alice.state
    mallory = found("mallory")
    alice.rotate()
    good = alice.chain.since(0, 1)
    signed = good.rotations[0]

    def with_rotation(**fields: object) -> AccountUpdate:
        """Signed by Mallory where the signature would break anyway."""
        return replace(good, rotations=(replace(signed, **fields),))

    rotation = signed.rotation
    stolen = identity.rotate(
        contact, mallory.key, HybridKeyPair.generate(mallory.entropy), bytes(32),
        now_s=NOW_S, entropy=mallory.entropy,
    )  # fmt: skip
    refused("bad-rotation", lambda: identity.advance(contact, replace(good, rotations=(stolen,)), NOW_S))
    refused(
        "other-genesis",
        lambda: identity.advance(
            contact, with_rotation(rotation=replace(rotation, genesis=bytes(32))), NOW_S
        ),
    )
    for fields in (
        {"rotation": replace(rotation, issued_s=1)},
        {"rotation": replace(rotation, recovery_commitment=bytes(32))},
        {"rotation": replace(rotation, account_key=mallory.key.public)},
        {"recovery_signature": signed.account_signature},
        {"account_signature": signed.recovery_signature},
    ):
        with pytest.raises(SignatureRefused):
            identity.advance(contact, with_rotation(**fields), NOW_S)
    for moved in (
        replace(rotation, key_epoch=2),
        replace(rotation, last_version=2),
        replace(rotation, last_head=bytes(32)),
    ):
        refused("broken-chain", lambda m=moved: identity.advance(contact, with_rotation(rotation=m), NOW_S))
    refused("broken-chain", lambda: identity.advance(contact, replace(good, rotations=()), NOW_S))
    twice = replace(good, rotations=(signed, signed))
    refused("broken-chain", lambda: identity.advance(contact, twice, NOW_S))


def test_a_rotation_needs_both_keys_fresh_and_importable(alice: Account) -> None:
    """The old account key, or the recovery key itself, is no new account key."""
    recovery = identity.recovery_key(alice.code, 0)
    for key in (alice.key, recovery):
        rotation = identity.rotate(alice.state, recovery, key, bytes(32), now_s=NOW_S, entropy=alice.entropy)
        with pytest.raises(LocalError, match="reuses a key"):
            identity.sign_list(
                key, alice.state, alice.state.body, (), now_s=NOW_S, entropy=alice.entropy, rotation=rotation
            )


def test_a_used_recovery_key_is_spent(alice: Account) -> None:
    alice.rotate()
    again = identity.rotate(
        alice.state, identity.recovery_key(alice.code, 0), found("m").key, bytes(32),
        now_s=NOW_S, entropy=alice.entropy,
    )  # fmt: skip
    with pytest.raises(LocalError, match="committed"):
        identity.sign_list(
            found("m").key,
            alice.state,
            alice.state.body,
            (),
            now_s=NOW_S,
            entropy=alice.entropy,
            rotation=again,
        )


def test_the_old_account_key_signs_nothing_after_a_rotation(alice: Account) -> None:
    old = branch(alice)
    alice.rotate()
    with pytest.raises(LocalError):
        identity.renew(old.key, alice.state, NOW_S, alice.entropy)
    late = forged(old, old.state.body, base=alice.state)
    refused("bad-signature", lambda: identity.advance(alice.state, late, NOW_S))
    old.renew()
    old.renew()
    refused("rollback", lambda: identity.advance(alice.state, old.chain.since(0, 2), NOW_S))


def test_a_rotation_voids_later_links_of_older_epochs(alice: Account) -> None:
    """A thief with the admin device adds his phone and revokes ours; the recovery code undoes both."""
    ours = identity.device_hash(alice.add())
    base, honest = alice.state, branch(alice)
    alice.remove(ours)
    evil = identity.device_hash(alice.add(3))
    seen = alice.state
    assert [key for key, _ in seen.listed] == sorted((alice.device_hash, evil))

    honest.state, honest.chain = seen, alice.chain
    honest.rotate(base)
    update = honest.chain.since(0, 4)
    assert [(link.key_epoch, link.version) for link in update.links] == [(1, 3)]
    after, changes = identity.advance(seen, update, NOW_S)
    assert changes[0] == identity.Rotated(1)
    assert changes[1:] == (identity.DeviceRemoved(evil, 3), identity.DeviceAdded(ours, 2))
    assert after.knows(evil)
    assert after.device(evil) is None
    # Who comes later sees the same account, as does who met it on the thief's branch.
    fresh = identity.first_contact(honest.chain, alice.hash, NOW_S)
    assert (fresh.head, fresh.listed) == (after.head, after.listed)
    met_there = identity.first_contact(alice.chain, alice.hash, NOW_S)
    assert identity.advance(met_there, update, NOW_S)[0].listed == after.listed
    # The thief's branch is void, however long it grows.
    alice.renew()
    refused("rollback", lambda: identity.advance(after, alice.chain.since(0, 4), NOW_S))
    refused("rollback", lambda: identity.advance(after, alice.chain, NOW_S))


@pytest.mark.parametrize("epoch", [0, 65])
def test_rotations_are_numbered_1_to_64(alice: Account, epoch: int) -> None:
    alice.rotate()
    rotation = alice.state.rotations[0].rotation
    with pytest.raises(ValueError, match="64 times"):
        replace(rotation, key_epoch=epoch)


# --- numbers ---


def test_a_number_returns_only_when_all_are_spent_and_it_has_rested(alice: Account) -> None:
    spent = tuple(Revoked(number, bytes([number]) * 32, 2) for number in range(2, 128))
    update = forged(alice, list_body(1, (alice.device_hash,), spent))
    alice.state, changes = identity.advance(alice.state, update, NOW_S)
    alice.chain = alice.chain.extended(update.last, update.body, (), None)
    assert changes == ()
    with pytest.raises(LocalError, match="127"):
        identity.free_number(alice.state, alice.now_s)
    contact = alice.state
    early = alice.new_device(2)
    reused = list_body(1, (alice.device_hash, identity.device_hash(early)), spent[1:])
    refused("bad-list", lambda: identity.advance(contact, forged(alice, reused, (early,)), NOW_S))

    alice.now_s += 90 * DAY_S
    assert identity.free_number(alice.state, alice.now_s) in range(2, 128)
    again = alice.add(2)
    contact, changes = identity.advance(contact, alice.chain.since(0, contact.version), alice.now_s)
    assert changes == (identity.DeviceAdded(identity.device_hash(again), 2),)
    assert len(contact.body.revoked) == 125
    assert contact.knows(spent[0].hash)
    # Forgetting without reuse is refused: the number would be free unspent.
    fewer = body_of(alice, revoked=contact.body.revoked[1:])
    refused("bad-list", lambda: identity.advance(contact, forged(alice, fewer), alice.now_s))


# --- our own misuse ---


def test_nothing_is_signed_that_contacts_would_refuse(alice: Account) -> None:
    mallory = found("mallory")
    with pytest.raises(LocalError, match="genesis"):
        identity.sign_list(alice.key, None, alice.state.body, (), now_s=NOW_S, entropy=alice.entropy)
    with pytest.raises(LocalError, match="refuse"):
        identity.renew(mallory.key, alice.state, NOW_S, alice.entropy)
    with pytest.raises(LocalError, match="listed"):
        identity.extend_list(alice.state, alice.key, remove=(bytes(32),), now_s=NOW_S, entropy=alice.entropy)
    with pytest.raises(LocalError):
        identity.extend_list(
            alice.state, alice.key, remove=(alice.device_hash,), now_s=NOW_S, entropy=alice.entropy
        )


def test_a_refused_update_changes_nothing(alice: Account) -> None:
    before = alice.state.encode()
    for update in (found("bob").chain, forged(alice, body_of(alice, admin_device=5))):
        with pytest.raises(RemoteError):
            identity.advance(alice.state, update, NOW_S)
    assert alice.state.encode() == before
