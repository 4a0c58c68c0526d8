"""Two parties, what is on its way between them, and a model that says which message opens.

The model is Sesame's bookkeeping and nothing else: which sessions each side has and in which order, which
ratchet keys it has seen in each, who has to wrap messages as prekey messages. It holds no key. A party is
``tests.support.pairwise.Device`` or anything with its interface, such as libsignal's device in node.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from lokket.codec.protobuf import read_varint
from lokket.limits import ARCHIVED_SESSIONS_MAX, RECEIVER_CHAINS_MAX
from lokket.protocol.pairwise import Address, Ciphertext, MessageKind, PreKeyBundle
from tests.support import protobuf as lenient

LIBSIGNAL_ARCHIVED_MAX = 40


class Party(Protocol):
    """One device."""

    address: Any

    def bundle(self, *, one_time: bool = True) -> PreKeyBundle: ...

    def begin(self, bundle: PreKeyBundle) -> None: ...

    def send(self, remote: Address, plaintext: bytes) -> Ciphertext: ...

    def receive(self, remote: Address, ciphertext: Ciphertext) -> bytes: ...


@dataclass(frozen=True)
class Letter:
    """One message on its way: its number, its session's, and whether that session used a one-time prekey."""

    number: int
    session: int
    sender: int
    plaintext: bytes
    message: Ciphertext
    ratchet_key: bytes


class Conversation:
    """Parties 0 and 1. Every step checks what happens against what the model says must happen."""

    def __init__(
        self,
        parties: tuple[Party, Party],
        *,
        archived: tuple[int, int] = (ARCHIVED_SESSIONS_MAX, ARCHIVED_SESSIONS_MAX),
        refusals: tuple[type[Exception], ...],
        snapshot: Callable[[Party, Address], object],
    ) -> None:
        self.parties = parties
        self.archived = archived
        self.refusals = refusals
        self.snapshot = snapshot
        self.on_the_way: tuple[list[Letter], list[Letter]] = ([], [])  # by receiver
        self.sessions: tuple[list[int], list[int]] = ([], [])  # of each side, the current one first
        self.forgotten: tuple[set[int], set[int]] = (set(), set())
        self.ratchet_keys: dict[tuple[int, int], list[bytes]] = defaultdict(list)
        self.acknowledged: set[tuple[int, int]] = set()
        self.initiators: list[int] = []
        self.one_time: list[bool] = []
        self.opened: dict[int, Letter] = {}
        self.sent = self.refused = self.healed = 0

    # --- what can be done ---

    def can_send(self, who: int) -> bool:
        return bool(self.sessions[who])

    def begin(self, who: int, *, one_time: bool = True) -> None:
        """A new session over whatever there is."""
        self.parties[who].begin(self.parties[1 - who].bundle(one_time=one_time))
        self.initiators.append(who)
        self.one_time.append(one_time)
        self._to_front(who, len(self.initiators) - 1)

    def send(self, who: int, extra: bytes = b"") -> Letter:
        plaintext = b"%d|" % self.sent + extra
        message = self.parties[who].send(self.parties[1 - who].address, plaintext)
        session = self.sessions[who][0]
        wrapped = self.initiators[session] == who and (who, session) not in self.acknowledged
        assert (message.kind == MessageKind.PREKEY) == wrapped, "the wrong kind of message"
        letter = Letter(self.sent, session, who, plaintext, message, _ratchet_key(message))
        self.sent += 1
        return letter

    def post(self, who: int, extra: bytes = b"") -> None:
        self.on_the_way[1 - who].append(self.send(who, extra))

    def deliver(self, letter: Letter) -> bool:
        """Whether it opened, which is as the model says; a refusal changed nothing."""
        receiver = 1 - letter.sender
        expected = self._opens(letter)
        if expected is None:
            return False
        party, sender = self.parties[receiver], self.parties[letter.sender].address
        before = None if expected else self.snapshot(party, sender)
        try:
            plaintext = party.receive(sender, letter.message)
        except self.refusals:
            if expected:
                raise
            assert self.snapshot(party, sender) == before, "a refusal changed the state"
            self.refused += 1
            return False
        assert expected, f"letter {letter.number} opened against the model"
        assert plaintext == letter.plaintext, "another plaintext"
        self._opened(receiver, letter)
        return True

    def deliver_changed(self, letter: Letter, bit: int) -> None:
        """A copy with one bit flipped: refused without a trace, or (a wrapper has no MAC) the same letter."""
        receiver = 1 - letter.sender
        if self._opens(letter) is None:
            return
        body = bytearray(letter.message.body)
        body[bit // 8 % len(body)] ^= 1 << bit % 8
        party, sender = self.parties[receiver], self.parties[letter.sender].address
        before = self.snapshot(party, sender)
        try:
            plaintext = party.receive(sender, Ciphertext(letter.message.kind, bytes(body)))
        except self.refusals:
            assert self.snapshot(party, sender) == before, "a refused forgery changed the state"
            self.refused += 1
            return
        assert letter.message.kind == MessageKind.PREKEY, "a changed whisper message opened"
        assert self._opens(letter), "a changed copy of what cannot open opened"
        assert plaintext == letter.plaintext
        self._opened(receiver, letter)

    def round_trip(self, who: int) -> None:
        """There and back; then both are in one session, in which nothing is wrapped any more.

        Each side may be in a session that the other has forgotten, after more resets than sessions are kept
        for: then only a new session helps, which is what the engine makes when mail does not open.
        """
        if not self.can_send(who) or not self.deliver(self.send(who)):
            who = 1 - who
            if not self.can_send(who) or not self.deliver(self.send(who)):
                self.healed += 1
                self.begin(who)
                assert self.deliver(self.send(who))
        assert self.deliver(self.send(1 - who))
        assert self.deliver(self.send(who))
        assert self.sessions[0][0] == self.sessions[1][0]
        last = self.send(1 - who)
        assert last.message.kind == MessageKind.WHISPER
        assert self.deliver(last)

    # --- the model ---

    def _opens(self, letter: Letter) -> bool | None:
        """None: a replay of a forgotten session's first message, which the store must know (row 10)."""
        receiver, session = 1 - letter.sender, letter.session
        if session in self.forgotten[receiver]:
            wrapped = letter.message.kind == MessageKind.PREKEY
            return None if wrapped and not self.one_time[session] else False
        if session not in self.sessions[receiver]:
            return letter.message.kind == MessageKind.PREKEY
        if letter.number in self.opened:
            return False
        return letter.ratchet_key not in self.ratchet_keys[receiver, session][:-RECEIVER_CHAINS_MAX]

    def _opened(self, receiver: int, letter: Letter) -> None:
        assert letter.number not in self.opened, "a letter opened twice"
        self.opened[letter.number] = letter
        keys = self.ratchet_keys[receiver, letter.session]
        if letter.ratchet_key not in keys:
            keys.append(letter.ratchet_key)
        self.acknowledged.add((receiver, letter.session))
        self._to_front(receiver, letter.session)

    def _to_front(self, who: int, session: int) -> None:
        sessions = self.sessions[who]
        if session in sessions:
            sessions.remove(session)
        sessions.insert(0, session)
        while len(sessions) > 1 + self.archived[who]:
            self.forgotten[who].add(sessions.pop())


def whisper(message: Ciphertext) -> bytes:
    """The SignalMessage, also of a prekey message, which wraps one."""
    if message.kind == MessageKind.WHISPER:
        return message.body
    inner = lenient.value(message.body[1:], 4)
    assert isinstance(inner, bytes)
    return inner


def _ratchet_key(message: Ciphertext) -> bytes:
    key = lenient.value(whisper(message)[1:-8], 1)
    assert isinstance(key, bytes)
    return key


def pq_epoch(message: Ciphertext) -> int:
    """The Braid's epoch in which a message was sent."""
    field = lenient.value(whisper(message)[1:-8], 5)
    assert isinstance(field, bytes)
    return read_varint(field, 1)[0]
