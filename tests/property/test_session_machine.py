"""Session choice as a state machine: two devices, a network that does anything, and what must open.

The model knows each message's session by its base key. A message must open while its receiver holds that
session, or when it is the first to bring it; else it may be refused, and a refusal changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from lokket import limits
from lokket.errors import RemoteError
from lokket.protocol.pairwise import Ciphertext, MessageKind
from lokket.protocol.pairwise.messages import SignalMessage, decode_prekey_message
from lokket.protocol.pairwise.record import unexpired
from tests.support.pairwise import Device

DAY_MS = limits.DAY_S * 1000
SIDES = st.sampled_from((0, 1))


@dataclass
class Sent:
    sender: int
    plaintext: bytes
    ciphertext: Ciphertext
    base_key: bytes
    opened: bool = False


class Sessions(RuleBasedStateMachine):
    @initialize()
    def meet(self) -> None:
        self.devices = (Device("alice"), Device("bob"))
        self.mail: list[Sent] = []
        self.made: list[set[bytes]] = [set(), set()]  # base keys that a first message brought to this side
        self.keys: set[tuple[int, bytes, int]] = set()

    def pair(self, side: int) -> tuple[Device, Device]:
        return self.devices[side], self.devices[1 - side]

    @rule(side=SIDES)
    def begin_anew(self, side: int) -> None:
        """Healing, or a manifest that expired."""
        ours, theirs = self.pair(side)
        ours.begin(theirs.bundle())

    @rule(side=SIDES, count=st.integers(1, 3))
    def send(self, side: int, count: int) -> None:
        ours, theirs = self.pair(side)
        for _ in range(count):
            record = ours.record(theirs.address)
            if record is None or not record.can_send(ours.now_ms):
                ours.begin(theirs.bundle())
            plaintext = b"%d" % len(self.mail)
            ciphertext = ours.send(theirs.address, plaintext)
            record = ours.record(theirs.address)
            assert record is not None
            self.use_key(side, ciphertext)
            self.mail.append(Sent(side, plaintext, ciphertext, record.handshake.base_key))

    def use_key(self, side: int, ciphertext: Ciphertext) -> None:
        body = ciphertext.body
        if ciphertext.kind == MessageKind.PREKEY:
            body = decode_prekey_message(body).message
        message = SignalMessage(body)
        key = (side, message.ratchet_key, message.counter)
        assert key not in self.keys, "a message key was used twice"
        self.keys.add(key)

    @precondition(lambda self: self.mail)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Any message, in any order, also one that came before."""
        self.arrive(data.draw(st.sampled_from(self.mail[-12:])))

    @precondition(lambda self: self.mail)
    @rule(data=st.data(), place=st.integers(0, 10_000), bit=st.integers(0, 7))
    def forge(self, data: st.DataObject, place: int, bit: int) -> None:
        """One bit of a real message: it opens as nothing else, and spoils nothing."""
        sent = data.draw(st.sampled_from(self.mail[-12:]))
        theirs, ours = self.pair(sent.sender)
        body = bytearray(sent.ciphertext.body)
        body[place % len(body)] ^= 1 << bit
        before = dict(ours.records)
        try:
            opened = ours.decrypt(theirs.address, Ciphertext(sent.ciphertext.kind, bytes(body)))
        except RemoteError:
            pass
        else:  # bits of the wrapper that no MAC covers, such as a registration id, may change
            assert opened.plaintext == sent.plaintext
            assert sent.ciphertext.kind == MessageKind.PREKEY
            assert not sent.opened
        assert ours.records == before

    @rule(days=st.sampled_from((0.1, 3, 8)))
    def pass_time(self, days: float) -> None:
        for device in self.devices:
            device.now_ms += int(days * DAY_MS)

    def arrive(self, sent: Sent) -> None:
        theirs, ours = self.pair(sent.sender)
        side = 1 - sent.sender
        brings = sent.ciphertext.kind == MessageKind.PREKEY and sent.base_key not in self.made[side]
        must_open = not sent.opened and (brings or self.holds(ours, theirs, sent.base_key))
        before = dict(ours.records)
        refusal: RemoteError | None = None
        try:
            plaintext = ours.receive(theirs.address, sent.ciphertext)
        except RemoteError as error:
            refusal = error
        if refusal is not None:
            assert ours.records == before, "a refused message changed something"
            assert not must_open, f"a message of a session that is held was refused: {refusal}"
            return
        assert not sent.opened, "a message opened twice"
        assert plaintext == sent.plaintext
        sent.opened = True
        if brings:
            self.made[side].add(sent.base_key)

    def holds(self, ours: Device, theirs: Device, base_key: bytes) -> bool:
        record = ours.record(theirs.address)
        if record is None:
            return False
        sessions = [one.session for one in unexpired(record.archived, ours.now_ms)]
        if record.current is not None:
            sessions.append(record.current)
        return any(session.facts.value.handshake.base_key == base_key for session in sessions)

    @invariant()
    def archives_are_bounded(self) -> None:
        for side in (0, 1):
            ours, theirs = self.pair(side)
            record = ours.record(theirs.address)
            assert record is None or len(record.archived) <= limits.ARCHIVED_SESSIONS_MAX

    def teardown(self) -> None:
        """All arrives; then, at most one healing later, all is heard, and both sides use one session.

        A late message may bring back a session that its sender let expire in its archive: what answers it
        does not open, and who could not open it begins anew, as the engine does.
        """
        if not hasattr(self, "devices"):
            return
        for sent in self.mail:
            self.arrive(sent)
        unopened = 0
        for side in (0, 1, 0, 1):
            self.send(side, 1)
            self.arrive(self.mail[-1])
            if not self.mail[-1].opened:
                unopened += 1
                self.begin_anew(1 - side)
        assert unopened <= 1
        for side in (0, 1):
            self.send(side, 1)
            self.arrive(self.mail[-1])
            assert self.mail[-1].opened
        current = {
            record.handshake.base_key
            for side in (0, 1)
            if (record := self.pair(side)[0].record(self.pair(side)[1].address)) is not None
        }
        assert len(current) == 1, "the two sides did not come to use one session"


@pytest.mark.attack(21, 24, 25)
def test_the_right_session_is_chosen_whatever_the_network_does() -> None:
    runs = settings(max_examples=200, stateful_step_count=14, deadline=None, print_blob=True)
    run_state_machine_as_test(Sessions, settings=runs)
