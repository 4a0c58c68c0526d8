"""What leaves in a backup, what a vault takes in: nothing twice, nothing secret, nothing above its proof."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.engine import archive, backups, events, views
from lokket.engine.events import Imported, ImportRecords
from lokket.engine.records import BackupState
from lokket.engine.step import require_account
from lokket.errors import LocalError, RemoteError
from lokket.protocol import identity
from lokket.wire import archive as wire
from lokket.wire.archive import Contact, Message
from tests.unit.engine.town import Device, Town

Friends = tuple[Town, Device, Device]
Records = tuple[tuple[int, bytes], ...]
SECRETS = ("session", "prekey", "invite")


def pages(device: Device, limit: int = 3, only: bytes = b"") -> list[wire.Record]:
    found: list[wire.Record] = []
    place = b""
    while True:
        records, place = device.ask(archive.page, place, limit, only)
        assert len(records) <= limit
        found += records
        if not place:
            return found


def encoded(records: list[wire.Record]) -> Records:
    return tuple(wire.encode(record) for record in records)


def take(device: Device, records: list[wire.Record]) -> Imported:
    return next(
        notice for notice in device.handle(ImportRecords(encoded(records))) if isinstance(notice, Imported)
    )


def chat(town: Town, alice: Device, bob: Device) -> None:
    for number in range(4):
        town.say(alice, "bob", f"to bob {number}")
        town.say(bob, "alice", f"to alice {number}")


def test_a_page_is_bounded_and_all_pages_are_all(friends: Friends) -> None:
    town, alice, bob = friends
    carol = town.account("carol")
    town.befriend(alice, carol)
    chat(town, alice, bob)
    town.say(alice, "carol", "to carol")
    everything = pages(alice, 1_000)
    for limit in (1, 2, 3, 9, 11):
        assert pages(alice, limit) == everything
    assert [type(record) for record in everything] == [Contact] * 2 + [Message] * 9
    bobs = pages(alice, 2, bob.me.genesis_hash)
    assert len(bobs) == 9
    assert not any("carol" in str(getattr(record, "text", "")) for record in bobs)


def test_a_vault_taken_in_by_a_new_device_is_the_same_history(friends: Friends) -> None:
    town, alice, bob = friends
    alice.handle(events.MarkVerified("bob"))
    chat(town, alice, bob)
    phone = town.second_device(alice)
    records = pages(alice)
    done = take(phone, records)
    assert (done.messages, done.refused) == (8, 0)
    assert phone.texts("bob") == alice.texts("bob")
    again = take(phone, records)
    assert (again.contacts, again.messages, again.known, again.refused) == (0, 0, 9, 0)
    assert phone.ask(views.unhandled) == ()
    town.say(phone, "bob", "and on")
    town.say(bob, "alice", "indeed")
    assert phone.texts("bob") == alice.texts("bob") == bob.texts("alice")


def test_another_account_takes_it_in_and_talks_on(friends: Friends) -> None:
    """All is lost, the recovery code too: a new account has the old history and the old contacts."""
    town, alice, bob = friends
    alice.handle(events.MarkVerified("bob"))
    alice.handle(events.RenameContact("bob", "my brother"))
    town.say(alice, "my brother", "before")
    town.say(bob, "alice", "read")
    alice.handle(events.MarkRead("my brother"))
    town.say(bob, "alice", "not yet read")
    heir = town.account("alicia")
    done = take(heir, pages(alice))
    assert (done.contacts, done.messages) == (1, 3)
    contact = heir.ask(views.contact, "my brother")
    assert (contact.level, contact.unread) == ("was verified", 1)
    town.say(heir, "my brother", "it is me")
    assert heir.texts("my brother") == ["before", "read", "not yet read", "it is me"]
    stranger = next(view for view in bob.ask(views.contacts) if view.level == "request")
    assert bob.texts(stranger.petname) == ["it is me"]
    heir.handle(events.MarkVerified("my brother"))
    assert heir.ask(views.contact, "my brother").level == "verified"


def test_a_contact_whose_list_moved_on_is_followed(friends: Friends) -> None:
    town, alice, bob = friends
    records = pages(alice)
    tablet = town.second_device(bob)
    bob.handle(events.RenameContact("alice", "sister"))
    heir = town.account("heir")
    take(heir, records)
    town.settle()
    assert heir.ask(views.contact, "bob").devices == 2
    town.say(heir, "bob", "to both")
    for device in (bob, tablet):
        stranger = next(view for view in device.ask(views.contacts) if view.level == "request")
        assert device.texts(stranger.petname) == ["to both"]


@pytest.mark.attack(26)
def test_no_archive_holds_a_key_a_ratchet_or_a_prekey(friends: Friends) -> None:
    """Whatever secret the vault has: none of its bytes is in what leaves."""
    town, alice, bob = friends
    chat(town, alice, bob)
    alice.handle(events.UseBackupKey(b"k" * 32))
    everything = b"".join(body for _, body in encoded(pages(alice)))
    account = alice.ask(require_account)
    secrets = [account.account_seed, account.device_keys, b"k" * 32]
    for table in SECRETS:
        secrets += [row for _, row in alice.ask(lambda tx, name=table: list(tx.scan(name)))]
    assert len(secrets) > 10
    public = b"".join(r.state for r in pages(alice) if isinstance(r, Contact))  # sessions name some of it
    for secret in secrets:
        for start in range(0, max(len(secret) - 24, 1), 24):
            piece = secret[start : start + 24]
            assert len(piece) < 24 or len(set(piece)) < 6 or piece in public or piece not in everything


@pytest.mark.attack(26, 27)
def test_a_restored_device_sends_under_no_key_of_before(friends: Friends) -> None:
    """A restored history opens fresh sessions; nobody notices a clone, nothing is shown twice."""
    town, alice, bob = friends
    chat(town, alice, bob)
    old = {key for key, _ in alice.ask(lambda tx: list(tx.scan("session")))}
    phone = town.second_device(alice)
    take(phone, pages(alice))
    alice.disconnect()
    assert old
    town.say(phone, "bob", "restored")
    town.say(bob, "alice", "welcome back")
    assert phone.texts("bob")[-2:] == bob.texts("alice")[-2:] == ["restored", "welcome back"]
    assert "clone-alarm" not in bob.trust_kinds()
    assert len(bob.texts("alice")) == len(set(bob.texts("alice"))) == 10


def one(friends: Friends) -> tuple[Contact, Message]:
    town, alice, _ = friends
    town.say(alice, "bob", "text")
    contact, message = pages(alice)
    assert isinstance(contact, Contact)
    assert isinstance(message, Message)
    return contact, message


def changed(record: Contact | Message, **fields: object) -> wire.Record:
    values = {name: getattr(record, name) for name in record.__struct_fields__}
    return type(record)(**{**values, **fields})


@pytest.mark.attack(102)
def test_a_hostile_contact_is_refused(friends: Friends) -> None:
    town, _, bob = friends
    contact, _ = one(friends)
    other = town.account("other")
    own = other.ask(require_account)
    heir = town.account("heir")
    bobs = identity.AccountState.decode(contact.state)
    for record in (
        changed(contact, state=b"junk"),
        changed(contact, state=own.state),  # another account's chain under bob's hash
        changed(contact, genesis_hash=own.genesis_hash),
        changed(contact, genesis_hash=heir.me.genesis_hash, state=heir.ask(require_account).state),
        changed(contact, state=contact.state[:-1]),
        changed(contact, state=contact.state[:200] + bytes(10) + contact.state[210:]),
    ):
        done = take(heir, [record])
        assert (done.contacts, done.refused) == (0, 1), record
    assert heir.ask(views.contacts) == ()
    assert bobs.genesis_hash == bob.me.genesis_hash


@pytest.mark.attack(102)
@pytest.mark.parametrize("petname", ["", "two\nlines", " x", "x" * 100, "\u202egnp", "a\x1b[2J"])
def test_hostile_petnames_are_not_taken(friends: Friends, petname: str) -> None:
    town, _, _ = friends
    contact, _ = one(friends)
    heir = town.account("heir")
    take(heir, [changed(contact, petname=petname, name="\x1b]0;" if petname else None)])
    (view,) = heir.ask(views.contacts)
    assert view.petname == f"contact-{contact.genesis_hash.hex()[:8]}"
    assert view.name is None


@pytest.mark.attack(102)
def test_an_imported_contact_takes_nobodys_name_and_no_level(friends: Friends) -> None:
    town, _, _ = friends
    contact, message = one(friends)
    heir, namesake = town.account("heir"), town.account("namesake")
    town.befriend(heir, namesake)
    heir.handle(events.RenameContact("namesake", "bob"))
    take(heir, [changed(contact, level="verified"), message])
    by_name = {view.petname: view for view in heir.ask(views.contacts)}
    assert by_name["bob"].genesis_hash == namesake.me.genesis_hash
    assert by_name[f"bob-{contact.genesis_hash.hex()[:8]}"].level == "was verified"
    assert heir.texts("bob") == []
    # A known contact stays as it is, whatever the archive says.
    take(heir, [changed(contact, level="verified", petname="mallory", barred=True)])
    assert heir.ask(views.contact, f"bob-{contact.genesis_hash.hex()[:8]}").level == "was verified"


@pytest.mark.attack(102)
def test_hostile_messages(friends: Friends) -> None:
    town, alice, _ = friends
    contact, message = one(friends)
    heir = town.account("heir")
    assert take(heir, [message]).refused == 1  # of nobody
    take(heir, [contact, message])
    same_place = changed(message, mid=b"x" * 16, text="in its place")
    assert take(heir, [same_place]).refused == 1
    assert heir.texts("bob") == ["text"]
    queued = changed(message, mid=b"q" * 16, seq=9, state="queued")
    theirs = changed(
        message, mid=b"t" * 16, seq=9, outgoing=False, state="delivered", sender_device=b"d" * 32
    )
    take(heir, [queued, theirs])
    assert sorted(heir.states("bob")) == ["delivered", "failed", "received"]
    assert heir.ask(views.health, town.now_ms).queued == 0
    assert alice.texts("bob") == ["text"]


@pytest.mark.attack(102)
def test_rubbish_takes_nothing_of_its_batch_in(friends: Friends) -> None:
    town, _, _ = friends
    contact, message = one(friends)
    heir = town.account("heir")
    before = heir.vault.digest()
    for kind, body in (
        (wire.CONTACT, b""),
        (wire.MESSAGE, b"\xc1"),
        (wire.MESSAGE, b"\x91" * 5_000),
        (wire.CONTACT, wire.encode(message)[1]),
        (wire.MESSAGE, wire.encode(changed(message, text="x" * (limits.TEXT_MAX_BYTES + 1)))[1]),
    ):
        transaction = heir.vault.begin()
        with pytest.raises(RemoteError):
            heir.engine.handle(
                transaction,
                ImportRecords((*encoded([contact, message]), (kind, body))),
                heir.now_ms,
                town.entropy,
            )
        transaction.rollback()
        assert heir.vault.digest() == before
    done = take(heir, [])
    assert done.refused == 0
    later = heir.handle(ImportRecords(((77, b"of a later version"),)))
    assert any(isinstance(notice, Imported) and notice.refused == 1 for notice in later)


# --- numbers ---


def state(device: Device) -> BackupState:
    known = device.ask(backups.state)
    assert known is not None
    return known


@pytest.mark.attack(99)
def test_numbers_rise_and_an_older_archive_is_refused_unless_wanted(town: Town) -> None:
    alice = town.account("alice")
    with pytest.raises(LocalError, match="backup create"):
        alice.handle(events.BeginBackup())
    alice.handle(events.UseBackupKey(b"k" * 32, b"w"))
    counters = []
    for _ in range(3):
        begun = alice.handle(events.BeginBackup())
        counters += [notice.counter for notice in begun if isinstance(notice, events.BackupBegun)]
    assert counters == sorted(set(counters))
    town.pass_days(1)
    alice.handle(events.OpenedBackup(counters[-1], b"o" * 32))
    with pytest.raises(LocalError, match="--older"):
        alice.handle(events.OpenedBackup(counters[0], b"o" * 32))
    alice.handle(events.OpenedBackup(counters[0], b"o" * 32, older=True))
    assert state(alice) == BackupState(b"k" * 32, b"w", counters[-1])
    heir = town.account("heir")
    heir.handle(events.OpenedBackup(counters[-1], b"k" * 32, b"w"))
    assert state(heir) == state(alice)
    (begun_there,) = heir.handle(events.BeginBackup())
    assert isinstance(begun_there, events.BackupBegun)
    assert begun_there.counter > counters[-1]


def test_a_new_folder_is_due_at_once(town: Town) -> None:
    alice = town.account("alice")
    alice.handle(events.UseBackupKey(b"k" * 32))
    (begun,) = alice.handle(events.BeginBackup())
    assert isinstance(begun, events.BackupBegun)
    alice.handle(events.BackupWritten(begun.counter - 1))
    assert state(alice).written_s == 0
    alice.handle(events.BackupDaily("a folder"))
    alice.handle(events.BackupWritten(begun.counter))
    assert state(alice).written_s == town.now_ms // 1000
    alice.handle(events.BackupDaily("a folder"))
    assert state(alice).written_s
    alice.handle(events.BackupDaily("another"))
    assert (state(alice).written_s, state(alice).folder) == (0, "another")
    assert "k" * 8 not in repr(state(alice)) + repr(events.UseBackupKey(b"k" * 32))
