"""Device lists as a contact judges them."""

from __future__ import annotations

from lokket.protocol import identity
from tests.support.identity import DAY_S, NOW_S, found


def test_first_contact_and_catching_up() -> None:
    account = found("alice")
    contact = identity.first_contact(identity_bytes(account.chain), account.hash, NOW_S)
    assert contact == account.state
    phone = account.add()
    laptop = account.add()
    account.renew()
    account.remove(identity.device_hash(laptop))
    update = account.chain.since(contact.key_epoch, contact.version)
    assert [link.version for link in update.links] == [2, 3, 4, 5]
    contact, changes = identity.advance(contact, identity_bytes(update), NOW_S)
    assert changes == (identity.DeviceAdded(identity.device_hash(phone), 2),)
    assert (contact.head, contact.listed) == (account.state.head, account.state.listed)
    assert contact.knows(identity.device_hash(laptop))
    assert contact.device(identity.device_hash(laptop)) is None
    again, changes = identity.advance(contact, account.chain.since(0, 5), NOW_S)
    assert (again, changes) == (contact, ())
    assert identity.AccountState.decode(contact.encode()) == contact
    assert not contact.expired(NOW_S + 28 * DAY_S)
    assert contact.expired(NOW_S + 28 * DAY_S + 301)


def test_rotation_is_followed_and_reported() -> None:
    account = found("alice")
    contact = account.state
    account.rotate()
    account.rotate()
    update = account.chain.since(0, 1)
    contact, changes = identity.advance(contact, update, NOW_S)
    assert changes == (identity.Rotated(2),)
    assert contact.account_key == account.key.public
    assert identity.first_contact(account.chain, account.hash, NOW_S).head == contact.head


def identity_bytes(update: identity.AccountUpdate) -> bytes:
    from lokket.codec import tls

    return tls.encode(update)
