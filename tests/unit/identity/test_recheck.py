"""A chain's state that comes back from a backup: what its signatures prove is kept, the rest refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.protocol import identity
from lokket.protocol.identity import AccountState
from lokket.protocol.identity.account import DeviceStatus, KnownDevice
from tests.support.identity import DAY_S, NOW_S, Account, found


@pytest.fixture(scope="module")
def alice() -> Account:
    """Two rotations, one revoked device, two listed ones."""
    owner = found("recheck")
    gone = identity.device_hash(owner.add())
    owner.remove(gone)
    owner.rotate()
    owner.add()
    owner.renew()
    owner.rotate()
    return owner


def test_an_honest_state_comes_back_and_goes_on(alice: Account) -> None:
    state = identity.recheck(AccountState.decode(alice.state.encode()), alice.hash, NOW_S)
    assert (state.head, state.listed, state.body) == (alice.state.head, alice.state.listed, alice.state.body)
    assert [entry.hash for entry in state.devices] == [entry.hash for entry in alice.state.devices]
    later = found("recheck later")
    before = later.state
    later.add()
    rechecked = identity.recheck(before, later.hash, NOW_S)
    after, changes = identity.advance(
        rechecked, later.chain.since(rechecked.key_epoch, rechecked.version), NOW_S
    )
    assert after.head == later.state.head
    assert len(changes) == 1


def test_an_expired_state_is_taken_and_one_from_the_future_is_not(alice: Account) -> None:
    identity.recheck(alice.state, alice.hash, NOW_S + 400 * DAY_S)
    with pytest.raises(RemoteError):
        identity.recheck(alice.state, alice.hash, NOW_S - DAY_S)


@pytest.mark.attack(102)
def test_a_device_that_was_never_seen_on_a_list_is_left_out(alice: Account) -> None:
    entry = KnownDevice(b"\x01" * 32, DeviceStatus.GONE, 5, None)
    devices = tuple(sorted((*alice.state.devices, entry), key=lambda each: each.hash))
    state = identity.recheck(replace(alice.state, devices=devices), alice.hash, NOW_S)
    assert not state.knows(entry.hash)


@pytest.mark.attack(88, 102)
@pytest.mark.parametrize(
    "change",
    [
        lambda state, other: other,
        lambda state, other: replace(state, genesis=other.genesis),
        lambda state, other: replace(state, rotations=state.rotations[:1]),
        lambda state, other: replace(state, rotations=state.rotations[1:]),
        lambda state, other: replace(state, rotations=state.rotations[::-1]),
        lambda state, other: replace(state, signature=other.signature),
        lambda state, other: replace(state, link=other.link, signature=other.signature),
        lambda state, other: replace(state, link=replace(state.link, version=state.link.version + 1)),
        lambda state, other: replace(state, body=other.body),
        lambda state, other: replace(state, body=other.body, devices=other.devices),
        lambda state, other: replace(state, devices=()),
        lambda state, other: replace(state, devices=other.devices),
    ],
)
def test_what_does_not_hold_together_is_refused(
    alice: Account, change: Callable[[AccountState, AccountState], AccountState]
) -> None:
    other = found("somebody else").state
    with pytest.raises(RemoteError):
        identity.recheck(change(alice.state, other), alice.hash, NOW_S)


@pytest.mark.attack(102)
def test_flipped_bytes_change_nothing_that_counts(alice: Account) -> None:
    """Refused, or the same list: times of departure are notes of our own that nobody signs."""
    encoded = alice.state.encode()
    for at in range(0, len(encoded), 397):
        changed = bytearray(encoded)
        changed[at] ^= 1 << at % 8
        try:
            state = identity.recheck(AccountState.decode(bytes(changed)), alice.hash, NOW_S)
        except (RemoteError, DecodeError):
            continue
        except LocalError as error:
            raise AssertionError("their bytes are no fault of ours") from error
        assert (state.head, state.listed, state.body) == (
            alice.state.head,
            alice.state.listed,
            alice.state.body,
        )
