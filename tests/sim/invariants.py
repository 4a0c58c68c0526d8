"""What must hold: watched at every step of a device, and checked over the whole world at its end.

At a step: ciphertext and acknowledgements leave only when the vault holds what they speak of; a stored
ciphertext never changes; no message key is used for two plaintexts; nothing is shown twice; what was
shown and not handled is what a restart shows again.
At the end: every accepted text is in every device of both accounts once; all devices have the same
conversations in the same order; each sender's texts are in the order of their numbers; every state of a
message is the last one it was told; nothing waits; the mailboxes are empty.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from lokket.engine import events, views
from lokket.engine.events import Effect, Event
from lokket.engine.records import HeldEnvelope, Message, OutboxRow, unpack
from lokket.engine.step import account_of
from lokket.engine.store import AWAITING, ERRAND, INBOX, MESSAGE, MESSAGE_ID, OUTBOX, RECEIPT, SEEN
from lokket.protocol.pairwise.messages import SignalMessage, decode_prekey_message
from lokket.wire import api, content

if TYPE_CHECKING:
    from .device import Device
    from .vault import Vault
    from .world import World

STATES = ("queued", "sent", "delivered")


class Watch:
    """One device's steps."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.envelopes: dict[bytes, bytes] = {}  # every one that was committed, by id
        self.shown: dict[tuple[bytes, bytes], events.MessageShown] = {}  # (mid, sender device)
        self.unhandled: dict[int, events.MessageShown] = {}
        self.states: dict[bytes, str] = {}
        self.highest: dict[bytes, int] = {}  # sender device -> the last number that was shown live
        self.overtaken = 0
        self.trust: Counter[str] = Counter()
        self.keys_used: dict[tuple[bytes, int], bytes] = {}
        self.highest_epoch = 0  # of SPQR, in any session
        self._may_reencrypt = False

    def adopt(self, other: Watch) -> None:
        """Go on where another world stopped."""
        self.envelopes = dict(other.envelopes)
        self.shown = dict(other.shown)
        self.unhandled = dict(other.unhandled)
        self.states = dict(other.states)
        self.highest = dict(other.highest)
        self.keys_used = dict(other.keys_used)

    # --- a step ---

    def started(self) -> None:
        if not self.device.vault.rows["account"]:
            return
        held = {shown.order: shown for shown in self.device.look(views.unhandled)}  # type: ignore[attr-defined]
        self._assert(
            {order: shown.mid for order, shown in held.items()}
            == {order: shown.mid for order, shown in self.unhandled.items()},
            "what was shown and not handled is not what a restart shows again",
        )

    def restored(self) -> None:
        """The vault went back in time: this device may forget, and must not repeat itself towards others."""
        self.unhandled = {shown.order: shown for shown in self.device.look(views.unhandled)}  # type: ignore[attr-defined]
        told = self.device.vault.rows[MESSAGE_ID]
        self.shown = {key: shown for key, shown in self.shown.items() if b"".join(key) in told}
        self.states.clear()
        self.highest.clear()
        self._may_reencrypt = True

    def before_commit(self, changes: list[tuple[str, bytes, bytes | None]]) -> None:
        seen: set[bytes] = set()
        for table, key, former in changes:
            if table != OUTBOX or key in seen:
                continue
            seen.add(key)
            now = self.device.vault.rows[OUTBOX].get(key)
            if now is None:
                continue
            row = unpack(OutboxRow, now)
            if former is not None and not self._may_reencrypt:
                old = unpack(OutboxRow, former)
                self._assert(
                    not old.envelope or _body(old.envelope) == _body(row.envelope),
                    f"row {key.hex()} was encrypted anew",
                )
            if row.envelope:
                self.envelopes[row.envelope_id] = row.envelope

    def committed(self, event: Event, effects: list[Effect]) -> None:
        match event:
            case events.HandledNotices(order=handled, cursor=""):
                self.unhandled = {order: one for order, one in self.unhandled.items() if order > handled}
        for effect in effects:
            match effect:
                case events.MessageShown():
                    self._show(effect)
                case events.MessageState(state="queued", sentence=sentence) if sentence:
                    pass  # why it waits
                case events.MessageState(mid=mid, state=state):
                    self._change_state(mid, state)

    def _show(self, shown: events.MessageShown) -> None:
        key = (shown.mid, shown.sender_device)
        self._assert(key not in self.shown, f"{shown.text!r} was shown twice")
        self.shown[key] = shown
        self.unhandled[shown.order] = shown
        if shown.seq <= self.highest.get(shown.sender_device, 0):
            self.overtaken += 1
        self.highest[shown.sender_device] = max(shown.seq, self.highest.get(shown.sender_device, 0))
        self.device.world.was_shown(self.device, shown)

    def _change_state(self, mid: bytes, state: str) -> None:
        before = self.states.get(mid)
        self.states[mid] = state
        if before in STATES and state in STATES:
            self._assert(STATES.index(state) > STATES.index(before), f"state {before} became {state}")

    def noticed(self, notice: Effect) -> None:
        match notice:
            case events.TrustNotice(kind=kind):
                self.trust[kind] += 1
            case events.InviteMade(link=link):
                self.device.world.invite_made(self.device, link)

    def sending(self, request: api.Request) -> None:
        match request:
            case api.Send(envelopes=envelopes):
                for envelope in envelopes:
                    self._assert(
                        self.envelopes.get(envelope.envelope_id) == api.encode(envelope),
                        "a ciphertext leaves that the vault does not hold",
                    )
                    self._use_key(envelope)
            case api.Acknowledge(envelope_ids=envelope_ids):
                for envelope_id in envelope_ids:
                    self._assert(
                        envelope_id in self.device.vault.rows[SEEN],
                        "an envelope is acknowledged that the vault does not know",
                    )

    def _use_key(self, envelope: api.Envelope) -> None:
        if envelope.kind == api.KIND_PREKEY:
            message = SignalMessage(decode_prekey_message(envelope.body).message)
        else:
            message = SignalMessage(envelope.body)
        self.highest_epoch = max(self.highest_epoch, message.pq_ratchet[1])  # a varint, small here
        key = (message.ratchet_key, message.counter)
        known = self.keys_used.setdefault(key, message.ciphertext)
        self._assert(known == message.ciphertext, "a message key was used twice")

    # --- at the end ---

    def unfinished(self) -> list[str]:
        rows = self.device.vault.rows
        waiting = []
        if rows[OUTBOX]:
            waiting.append(f"{len(rows[OUTBOX])} rows to send")
        if rows[RECEIPT]:
            waiting.append(f"{len(rows[RECEIPT])} receipts owed")
        if rows[ERRAND]:
            waiting.append(f"{len(rows[ERRAND])} errands")
        for row in (unpack(OutboxRow, value) for value in rows[AWAITING].values()):
            if row.kind in (content.TEXT, content.SYNC) and not self._went_with_a_vault(row):
                waiting.append(f"a receipt for {row.mid.hex()[:6]} from device {row.device_hash.hex()[:6]}")
        for held in (unpack(HeldEnvelope, value) for value in rows[INBOX].values()):
            if held.awaits:
                waiting.append(f"mail that waits for account {held.awaits.hex()[:6]}")
            if held.to_heal:
                waiting.append("mail to ask for again")
        return waiting

    def _went_with_a_vault(self, row: OutboxRow) -> bool:
        """Its reader had it and went back in time before its receipt left: nobody will send one."""
        rows = self.device.vault.rows
        forgotten = {
            _device_hash(self.device.world.devices[name]): texts
            for name, texts in self.device.world.forgotten.items()
            if name in self.device.world.devices
        }
        rows = self.device.vault.rows
        key = rows[MESSAGE_ID].get(row.mid + _device_hash(self.device))
        return key is not None and unpack(Message, rows[MESSAGE][key]).text in forgotten.get(
            row.device_hash, ()
        )

    def quarantined(self) -> Counter[str]:
        held = (unpack(HeldEnvelope, value) for value in self.device.vault.rows[INBOX].values())
        return Counter(row.code for row in held)

    def _assert(self, holds: bool, sentence: str) -> None:
        assert holds, f"{self.device.name}: {sentence}"


def _device_hash(device: Device) -> bytes:
    return device.look(account_of).device_hash  # type: ignore[attr-defined,no-any-return]


def _body(envelope: bytes) -> bytes:
    return api.decode_envelope(envelope).body if envelope else b""


# --- the whole world ---


def check_end(world: World) -> None:
    """After the network healed and nothing waits any more."""
    texts = {
        (device.name, peer): Counter(text for *_, text in conversation(world, device, peer))
        for device in world.devices.values()
        for peer in world.accounts
        if peer != device.account
    }
    for (account, text), peer in world.accepted.items():
        for device in world.devices_of(account, peer):
            count = texts[device.name, peer if device.account == account else account][text]
            assert count <= 1, f"{device.name} has {text!r} {count} times"
            assert count or _excused(world, device, text), f"{device.name} lacks {text!r}"
    for first, second in world.pairs():
        _check_conversation(world, first, second)
    for device in world.devices.values():
        _check_states(device)
    for account in world.accounts:
        _check_admin(world, account)
    assert world.relay.mail() == 0, f"{world.relay.mail()} envelopes are left in mailboxes"
    assert world.relay.all_refusals().get("fault", 0) == 0, "the relay made a mistake of its own"


def _excused(world: World, device: Device, text: str) -> bool:
    """May ``device`` lack it: the writer is gone, or the vault that held it, the writer's or its own?

    A device that recovered its account has the older messages from the one that was kept.
    """
    writer = text.split(" ", 1)[0]
    holders = [writer, device.name]
    if device.account in world.recovered and device.number == 3:
        holders += [each.name for each in world.devices_of(device.account)]
    return writer in world.lost or any(text in world.forgotten.get(name, ()) for name in holders)


def texts_in(vault: Vault) -> set[str]:
    return {unpack(Message, value).text for value in vault.rows[MESSAGE].values()}


def conversation(world: World, device: Device, peer: str) -> list[tuple[bytes, bytes, int, str]]:
    petname = world.petname(device, peer)
    if petname is None:
        return []
    found = device.look(views.history, petname, 1_000_000)
    return [(one.sender_device, one.mid, one.seq, one.text) for one in found]  # type: ignore[attr-defined]


def _check_conversation(world: World, first: str, second: str) -> None:
    timelines = {
        device.name: [
            one
            for one in conversation(world, device, second if device.account == first else first)
            if not world.passed_over(one[-1])
        ]
        for device in world.devices_of(first, second)
    }
    reference = next(iter(timelines.values()))
    for name, timeline in timelines.items():
        assert timeline == reference, (
            f"{name} has another conversation of {first} and {second}: {difference(timeline, reference)}"
        )
    numbers: dict[bytes, int] = {}
    for sender, _, seq, text in reference:
        if not world.restores:
            assert seq > numbers.get(sender, 0), f"{text!r} stands before an older one of its sender"
        numbers[sender] = seq


def difference(one: list[tuple[bytes, bytes, int, str]], two: list[tuple[bytes, bytes, int, str]]) -> str:
    texts = [text for *_, text in one], [text for *_, text in two]
    missing, surplus = set(texts[1]) - set(texts[0]), set(texts[0]) - set(texts[1])
    if missing or surplus:
        return f"missing {sorted(missing)}, surplus {sorted(surplus)}"
    return "the same texts in another order"


def _check_admin(world: World, account: str) -> None:
    """One device of each account holds its key, and it is the one that the list names."""
    owns = {device.name: device.look(account_of) for device in world.devices_of(account)}
    holders = [name for name, own in owns.items() if own.account_seed]  # type: ignore[attr-defined]
    admins = [device.name for device in world.devices_of(account) if device.look(views.whoami).admin]  # type: ignore[attr-defined]
    assert holders == admins, f"{holders} hold the key of {account}, the list says {admins}"
    if not admins and account in world.handed_over and any(one in world.forgotten for one in owns):
        return  # the key came and went with the newer vault: its owner has the recovery code
    assert len(admins) == 1, f"{account} has the admin devices {admins}"


def _check_states(device: Device) -> None:
    """The last state a person was told is the stored one, and everything sent was delivered."""
    for contact in device.contacts():
        for message in device.look(views.history, contact.petname, 1_000_000):  # type: ignore[attr-defined]
            own = message.outgoing and message.mid in device.watch.states
            if own:
                told = device.watch.states[message.mid]
                assert told == message.state, f"{device.name}: told {told}, stored {message.state}"
                delivered = message.state == "delivered" or device.world.passed_over(message.text)
                assert delivered, f"{device.name}: {message.text!r} is {message.state}"


def digest(world: World) -> str:
    """Of everything: trace, vaults, relay."""
    state = hashlib.sha256()
    for line in world.lines:
        state.update(line.encode() + b"\n")
    for name in sorted(world.devices):
        state.update(world.devices[name].vault.digest().encode())
    storage = world.relay.storage
    for device_hash, held in storage._devices.items():
        state.update(device_hash + (held.last_nonce or b"") + held.batch + held.slots)
        state.update(held.manifest_number.to_bytes(8, "big") + b"".join(held.mail))
    for account in storage._accounts.values():
        state.update(account.head + account.state)
    return state.hexdigest()[:16]
