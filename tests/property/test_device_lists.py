"""Random histories of an account: contacts who catch up agree; a tampered chain changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lokket.codec import tls
from lokket.errors import RemoteError
from lokket.protocol import identity
from lokket.protocol.identity import AccountState, AccountUpdate
from tests.support.identity import DAY_S, Account, found

STEPS = ("add", "remove", "renew", "rotate", "void", "wait", "meet", "catch up")


class History:
    """An owner, the chain as the relay keeps it, and contacts who look now and then."""

    def __init__(self, seed: int) -> None:
        self.owner = found(f"history {seed}")
        self.past = [self.owner.state]
        self.contacts: list[AccountState] = []

    def step(self, name: str, choice: int) -> None:
        owner = self.owner
        match name:
            case "add" if len(owner.state.listed) < 5:
                owner.add()
            case "remove":
                others = [key for key, _ in owner.state.listed if key != owner.device_hash]
                if others:
                    owner.remove(others[choice % len(others)])
            case "renew":
                owner.renew()
            case "rotate" if owner.rotations < 4:
                owner.rotate()
            case "void" if owner.rotations < 4:
                owner.rotate(self._base(choice))
            case "wait":
                owner.now_s += 1 + choice % (10 * DAY_S)
            case "meet":
                self.owner.renew()
                self.contacts.append(identity.first_contact(owner.chain, owner.hash, owner.now_s))
            case "catch up" if self.contacts:
                at = choice % len(self.contacts)
                self.contacts[at] = self.caught_up(self.contacts[at])
        if owner.state != self.past[-1]:
            self.past.append(owner.state)

    def _base(self, choice: int) -> AccountState:
        """A state of the current epoch that a rotation may go back to."""
        heads = {link.head for link in self.owner.chain.links}
        epoch = self.owner.state.key_epoch
        bases = [state for state in self.past if state.key_epoch == epoch and state.head in heads]
        return bases[choice % len(bases)]

    def caught_up(self, contact: AccountState) -> AccountState:
        owner = self.owner
        update = tls.encode(owner.chain.since(contact.key_epoch, contact.version))
        after, changes = identity.advance(contact, update, owner.now_s)
        was, now = dict(contact.listed), dict(after.listed)
        told_added = {c.device_hash for c in changes if isinstance(c, identity.DeviceAdded)}
        told_removed = {c.device_hash for c in changes if isinstance(c, identity.DeviceRemoved)}
        assert told_added == now.keys() - was.keys()
        assert told_removed == was.keys() - now.keys()
        assert any(isinstance(c, identity.Rotated) for c in changes) == (after.key_epoch != contact.key_epoch)
        assert all(after.knows(key) for key in (*was, *now))
        return after


steps = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 10**9)), max_size=14)


@settings(max_examples=20)
@given(st.integers(0, 2**32), steps)
def test_everyone_ends_with_the_same_account(seed: int, script: list[tuple[str, int]]) -> None:
    history = History(seed)
    history.step("meet", 0)
    for name, choice in script:
        history.step(name, choice)
    owner = history.owner
    owner.renew()
    fresh = identity.first_contact(owner.chain, owner.hash, owner.now_s)
    for contact in (*history.contacts, fresh):
        after = history.caught_up(contact)
        assert (after.head, after.listed, after.body) == (
            owner.state.head,
            owner.state.listed,
            owner.state.body,
        )
        assert after.account_key == owner.key.public
        assert identity.AccountState.decode(after.encode()) == after
        assert identity.advance(after, owner.chain.since(after.key_epoch, after.version), owner.now_s) == (
            after,
            (),
        )


def tampered(update: AccountUpdate, other: AccountUpdate, kind: str, choice: int) -> AccountUpdate:
    """``update`` as a relay might spoil it; ``other`` is of the same account, grown another way."""
    links, rotations = list(update.links), list(update.rotations)
    at = choice % len(links)
    match kind:
        case "cut":
            return replace(update, links=tuple(links[:at] or links[:-1] or links))
        case "hole":
            return replace(update, links=(*links[:at], *links[at + 1 :]) or tuple(links))
        case "swap":
            links[at], links[at - 1] = links[at - 1], links[at]
            return replace(update, links=tuple(links))
        case "repeat":
            return replace(update, links=(*links[: at + 1], *links[at:]))
        case "graft":
            return replace(update, links=(*links[:at], *other.links[at:]) or tuple(links))
        case "body":
            return replace(update, body=other.body, devices=other.devices)
        case "signature":
            return replace(update, signature=other.signature)
        case "rotations":
            return replace(update, rotations=tuple(rotations[1:] or other.rotations))
        case _:
            return replace(update, devices=update.devices[1:])


KINDS = ("cut", "hole", "swap", "repeat", "graft", "body", "signature", "rotations", "devices")


@pytest.mark.attack(89)
@settings(max_examples=30)
@given(st.integers(0, 2**32), steps, st.sampled_from(KINDS), st.integers(0, 10**9))
def test_a_tampered_chain_is_refused_or_the_same(
    seed: int, script: list[tuple[str, int]], kind: str, choice: int
) -> None:
    """Whatever a relay does to the bytes: the contact ends where the owner is, or where it was."""
    history = History(seed)
    history.step("meet", 0)
    contact = history.contacts[0]
    for name, number in script:
        history.step(name, number)
    owner = history.owner
    fork = copy_of(owner)
    owner.renew()
    owner.renew()
    fork.add(100)
    update = owner.chain.since(contact.key_epoch, contact.version)
    spoiled = tampered(update, fork.chain.since(contact.key_epoch, contact.version), kind, choice)
    before = contact.encode()
    try:
        after, _ = identity.advance(contact, tls.encode(spoiled), owner.now_s)
    except identity.ForkDetected:
        pytest.fail("the relay alone made a fork")
    except RemoteError:
        assert contact.encode() == before
    else:
        assert after.head in (owner.state.head, contact.head)


@pytest.mark.attack(89)
@settings(max_examples=20)
@given(st.integers(0, 2**32), steps, steps)
def test_two_branches_of_one_account_are_a_fork(
    seed: int, script: list[tuple[str, int]], other: list[tuple[str, int]]
) -> None:
    """Who has followed one never follows the other, unless the recovery key decides between them."""
    history = History(seed)
    for name, number in script:
        history.step(name, number)
    fork = History(seed)
    fork.owner, fork.past = copy_of(history.owner), list(history.past)
    history.owner.renew()
    fork.owner.now_s += 1
    fork.owner.renew()
    contact = history.owner.state
    for name, number in other:
        if name not in ("rotate", "void"):
            fork.step(name, number)
    update = fork.owner.chain.since(contact.key_epoch, contact.version)
    with pytest.raises(identity.ForkDetected):
        identity.advance(contact, update, fork.owner.now_s)
    fork.owner.rotate()
    rotated = fork.owner.chain.since(contact.key_epoch, contact.version)
    with pytest.raises(identity.ForkDetected):
        identity.advance(contact, rotated, fork.owner.now_s)


def copy_of(owner: Account) -> Account:
    return replace(owner, keys=dict(owner.keys))
