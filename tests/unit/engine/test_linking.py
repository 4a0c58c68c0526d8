"""A new device: the code, the number that is typed, the history that follows."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.engine import events, history, outbox, views
from lokket.engine.engine import Engine
from lokket.engine.step import Link, Step, require_account
from lokket.engine.store import ACCOUNT, AWAITING, OUTBOX
from lokket.errors import DecodeError, LocalError
from lokket.protocol import identity
from lokket.protocol.linking import AccountCode, LinkCode, derive_link, seal_word
from lokket.wire import api, content
from tests.unit.engine.town import Device, Town


def code_of(admin: Device) -> str:
    admin.handle(events.OpenLink())
    return admin.told(events.LinkCodeMade)[-1].code


def newcomer(town: Town, code: str, name: str = "phone") -> Device:
    """A new device that has left its word and waits."""
    device = Device(town)
    device.may_hang_up = True
    device.handle(events.LinkDevice(code, name))
    device.connect()
    town.settle(3_000)
    return device


def number_of(device: Device) -> str:
    return device.told(events.LinkNumber)[-1].number


def connect_again(town: Town, device: Device) -> None:
    device.connect()
    town.settle()


def linked(town: Town, admin: Device, *, history: bool = True, name: str = "phone") -> Device:
    device = newcomer(town, code_of(admin), name)
    admin.handle(events.ConfirmLink(number_of(device), history))
    town.settle(1_000)
    connect_again(town, device)
    return device


@pytest.mark.attack(85)
@pytest.mark.attack(90)
def test_a_device_is_linked_by_code_and_number(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    other = town.second_device(alice)
    phone = newcomer(town, code_of(alice))
    (asked,) = alice.told(events.LinkAsked)
    assert asked.name == "phone"
    assert abs(asked.time_ms - town.now_ms) < 3_000
    assert len(alice.me.devices) == 2
    assert not alice.ask(require_account).pending_list
    number = number_of(phone)
    alice.handle(events.ConfirmLink(f"{number[:4]} {number[4:8]}-{number[8:]}"))
    town.settle(1_000)
    connect_again(town, phone)
    assert [listed.device_number for listed in phone.told(events.Listed)] == [3]
    assert phone.me.registered
    assert not phone.me.admin
    for device in (alice, other, phone):
        assert [(view.number, view.name) for view in device.me.devices][-1] == (3, "phone")
    town.say(bob, "alice", "to all three")
    for device in (alice, other, bob):
        assert "device-added" in device.trust_kinds()
    assert phone.texts("bob") == other.texts("bob") == alice.texts("bob") == ["to all three"]
    town.say(phone, "bob", "from the phone")
    assert alice.texts("bob")[-1] == bob.texts("alice")[-1] == "from the phone"


@pytest.mark.attack(90)
def test_another_number_adds_nobody(town: Town) -> None:
    alice = town.account("alice")
    phone = newcomer(town, code_of(alice))
    number = number_of(phone)
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    for typed in (wrong, "", "123", number[::-1] if number[::-1] != number else wrong):
        with pytest.raises(LocalError, match="not the number"):
            alice.handle(events.ConfirmLink(typed))
    assert len(alice.me.devices) == 1
    alice.handle(events.ConfirmLink(number))


@pytest.mark.attack(90)
def test_who_read_the_code_first_is_shut_out_by_the_number(town: Town) -> None:
    """A thief of the code answers it: the person types what their own new device shows."""
    alice = town.account("alice")
    code = code_of(alice)
    thief = newcomer(town, code, "phone")
    phone = newcomer(town, code, "phone")
    assert "another device has used this code" in phone.hung_up
    assert number_of(thief) != number_of(phone)
    with pytest.raises(LocalError, match="somebody else used the code"):
        alice.handle(events.ConfirmLink(number_of(phone)))
    alice.handle(events.CancelLink())
    town.settle()
    assert not thief.me.registered
    assert len(alice.me.devices) == 1


@pytest.mark.attack(90)
def test_the_relay_cannot_put_another_device_in_place(town: Town) -> None:
    """Without the code's secret no word can be sealed: a swapped one ends the linking."""
    alice = town.account("alice")
    mallory = newcomer(town, code_of(alice))
    word = mallory.ask(require_account).device
    town.settle()
    alice.handle(events.CancelLink())
    forged = seal_word(derive_link(bytes(32)), word, "phone", town.entropy)
    town.replace = lambda device, request, reply: api.Met(forged) if isinstance(request, api.Meet) else reply
    code_of(alice)
    town.settle(3_000)
    assert alice.told(events.ErrandFailed)[-1].errand == "link"
    assert len(alice.told(events.LinkAsked)) == 1
    with pytest.raises(LocalError, match="no new device"):
        alice.handle(events.ConfirmLink(number_of(mallory)))


@pytest.mark.attack(85)
def test_no_other_code_links_and_a_link_code_does_no_other_work(town: Town) -> None:
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    alice.handle(events.CreateInvite())
    town.settle()
    link = code_of(alice)
    invite = alice.told(events.InviteMade)[-1].link
    verify = alice.ask(views.verify_code, "bob")
    where = AccountCode("ws://relay.test", town.relay_key.public, alice.me.genesis_hash).encode()
    for wrong in (invite, verify, where):
        with pytest.raises(DecodeError):
            Device(town).handle(events.LinkDevice(wrong, "phone"))
        town.devices.pop()
        with pytest.raises(DecodeError):
            LinkCode.decode(wrong)
    for wrong in (invite, verify, link):
        with pytest.raises(DecodeError):
            AccountCode.decode(wrong)
    with pytest.raises(DecodeError):
        identity.Invite.parse(link)
    with pytest.raises(DecodeError):
        bob.handle(events.AddContact("x", link=link))
    with pytest.raises(LocalError):
        bob.handle(events.MarkVerified("alice", link))
    assert len(alice.me.devices) == 1


def test_a_code_is_good_for_ten_minutes(town: Town) -> None:
    alice = town.account("alice")
    code = code_of(alice)
    town.now_ms += (limits.LINK_CODE_VALID_S + 400) * 1000
    alice.handle(events.Tick())
    assert alice.told(events.ErrandFailed)[-1].errand == "link"
    with pytest.raises(LocalError, match="time is over"):
        Device(town).handle(events.LinkDevice(code, "phone"))


def test_an_unconfirmed_device_gives_up(town: Town) -> None:
    alice = town.account("alice")
    phone = newcomer(town, code_of(alice))
    town.now_ms += (limits.LINK_CODE_VALID_S + 5) * 1000
    phone.connect()
    town.settle(1_000)
    assert "in time" in phone.hung_up


def test_a_code_is_for_the_list_as_it_was(town: Town) -> None:
    alice = town.account("alice")
    town.second_device(alice)
    phone = newcomer(town, code_of(alice))
    alice.handle(events.RevokeDevice(2))
    town.settle(1_000)
    with pytest.raises(LocalError, match="changed meanwhile"):
        alice.handle(events.ConfirmLink(number_of(phone)))


def test_only_the_admin_device_makes_codes(town: Town) -> None:
    alice = town.account("alice")
    other = town.second_device(alice)
    with pytest.raises(LocalError, match="only the admin device"):
        other.handle(events.OpenLink())


def test_linking_survives_lost_answers_and_a_restarted_relay(town: Town) -> None:
    alice = town.account("alice")
    code = code_of(alice)
    alice.disconnect()
    phone = newcomer(town, code)  # the relay knows no such meeting yet: it is said, and tried again
    assert phone.told(events.ErrandFailed)[-1].errand in ("knock", "login")
    alice.connect()
    town.settle(3_000)
    phone.connect()
    phone.disconnect()
    phone.connect()
    town.settle(3_000)
    assert alice.told(events.LinkAsked)
    alice.handle(events.ConfirmLink(number_of(phone)))
    alice.disconnect()
    alice.connect()
    town.settle(3_000)
    connect_again(town, phone)
    assert phone.told(events.Listed)


# --- history ---


def everything(device: Device) -> list[str]:
    return [message.text for message in device.ask(views.history, "bob", 1_000)]


def old_friends(town: Town, count: int) -> tuple[Device, Device, list[str]]:
    alice, bob = town.account("alice"), town.account("bob")
    town.befriend(alice, bob)
    texts = [f"{number} " + "x" * 900 for number in range(count)]
    for number, text in enumerate(texts):
        (alice if number % 2 else bob).handle(events.SendText("bob" if number % 2 else "alice", text))
        town.settle()
    return alice, bob, texts


def test_history_and_contacts_come_along_with_progress(town: Town) -> None:
    alice, _, texts = old_friends(town, 120)
    phone = linked(town, alice)
    assert everything(phone) == texts
    assert [view.outgoing for view in phone.ask(views.history, "bob", 4)] == [False, True, False, True]
    progress = phone.told(events.HistoryProgress)
    assert len(progress) >= 3
    assert [step.received for step in progress] == sorted(step.received for step in progress)
    assert (progress[-1].received, progress[-1].total, progress[-1].done) == (120, 120, True)
    assert not any(step.done for step in progress[:-1])
    assert not phone.told(events.MessageShown)  # known, not news
    for device in (alice, phone):
        assert not device.ask(lambda tx: list(tx.scan(OUTBOX)))
    pages = [row for row in alice.vault.rows[AWAITING].values() if texts[0].encode() in row]
    assert not pages  # receipted


def test_history_goes_on_after_either_side_stopped(town: Town) -> None:
    alice, bob, texts = old_friends(town, 150)
    phone = newcomer(town, code_of(alice))
    alice.handle(events.ConfirmLink(number_of(phone)))
    town.settle(1_000)
    phone.connect()
    for round_ in range(400):
        for device in (alice, phone, bob):
            device.act()
        if round_ % 5 == 4:  # the power goes at one of them: what was not committed is gone
            device = alice if round_ % 2 else phone
            device.disconnect()
            device.engine = Engine(prekey_pairs=4)
            device.connect()
        town.now_ms += 50
        if phone.told(events.HistoryProgress) and phone.told(events.HistoryProgress)[-1].done:
            break
    town.settle()
    alice.connect()
    phone.connect()
    town.settle()
    assert everything(phone) == texts
    assert phone.ask(history.transfer_of).done  # type: ignore[union-attr]


def test_a_page_that_is_lost_for_good_is_asked_for_again(town: Town) -> None:
    alice, _, texts = old_friends(town, 4)
    phone = newcomer(town, code_of(alice))
    lose = True

    def tamper(device: Device, arrived: tuple[bytes, ...]) -> tuple[bytes, ...]:
        big = [envelope for envelope in arrived if len(envelope) > 4_000]
        if lose and device is phone and big:
            return tuple(envelope for envelope in arrived if envelope not in big)
        return arrived

    town.tamper = tamper
    alice.handle(events.ConfirmLink(number_of(phone)))
    town.settle(1_000)
    connect_again(town, phone)
    transfer = phone.ask(history.transfer_of)
    assert transfer is not None
    assert not transfer.done
    lose = False
    phone.caller.unacknowledged.clear()  # type: ignore[union-attr]
    town.settle((limits.HISTORY_REPEAT_S + 5) * 1000)
    assert everything(phone) == texts


def test_history_is_the_persons_choice(town: Town) -> None:
    alice, _, texts = old_friends(town, 4)
    phone = linked(town, alice, history=False)
    assert phone.texts("bob") == []
    alice.handle(events.GiveHistory(2))
    town.settle()
    assert everything(phone) == texts


@pytest.mark.attack(86)
def test_history_goes_to_nobody_who_was_not_allowed(town: Town) -> None:
    alice, bob, texts = old_friends(town, 4)
    phone = linked(town, alice, history=False)
    tell(phone, alice, content.HistoryAsk(b""))
    tell(bob, alice, content.HistoryAsk(b""))
    town.settle()
    assert not phone.told(events.HistoryProgress)
    assert "wrong-header" in alice.held()
    assert not [row for row in alice.vault.rows[AWAITING].values() if texts[0].encode() in row]


@pytest.mark.attack(86)
def test_a_device_takes_history_once_and_from_whom_it_asked(town: Town) -> None:
    alice, _, texts = old_friends(town, 4)
    phone = linked(town, alice)
    forged = content.Remembered(
        bytes(16),
        phone.ask(views.contact, "bob").genesis_hash,
        alice.me.genesis_hash,
        bytes(32),
        1,
        1,
        "!",
        "sent",
    )
    tell(alice, phone, content.History(1))
    tell(alice, phone, content.HistoryPage(b"", b"", (forged,)))
    town.settle()
    assert everything(phone) == texts


def tell(sender: Device, recipient: Device, body: content.Body) -> None:
    """A content that an honest engine would not send."""
    transaction = sender.vault.begin()
    step = Step(transaction, sender.now_ms, sender.town.entropy, Link())
    outbox.queue_control(step, recipient.me.genesis_hash, recipient.me.device_hash, body)
    transaction.commit()
    sender.handle(events.Tick())


def test_a_recovered_device_is_given_history_by_hand(town: Town) -> None:
    alice, _, texts = old_friends(town, 6)
    tablet = linked(town, alice)
    assert everything(tablet) == texts
    alice.disconnect()
    fresh = town.recover(alice, keep=(2,))
    assert fresh.texts("bob") == []
    tablet.handle(events.GiveHistory(3))
    town.settle()
    assert everything(fresh) == texts


def test_nothing_of_the_linking_is_left(town: Town) -> None:
    alice = town.account("alice")
    phone = linked(town, alice)
    town.settle()
    for device in (alice, phone):
        left = [key for key in device.vault.rows[ACCOUNT] if key in (b"meeting", b"knock")]
        assert not left
