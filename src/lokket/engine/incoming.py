"""The road in: from an envelope to the timeline.

1. Seen before? Acknowledge, nothing else.
2. Whose is it? An account that is not known is fetched first; the envelope waits in the vault.
3. Decrypt. A first message is checked against the memory of first messages.
4. Verify: the content's header against the session's peer, its binding against our own prekeys.
5. Act by kind; only now is anything written: session, used prekeys, message, receipt owed.

What does not open is kept in quarantine with a reason, blocks nothing, and heals. All of it is
acknowledged to the relay once it is in the vault.
"""

from __future__ import annotations

from dataclasses import dataclass

from lokket import limits
from lokket.engine import (
    book,
    challenges,
    healing,
    invites,
    outbox,
    own_mail,
    receipts,
    sessions,
    streams,
    trust,
)
from lokket.engine.events import Acknowledge, MessageShown
from lokket.engine.prekeys import StoredPreKeys, delete_used
from lokket.engine.records import (
    Account,
    Contact,
    HeldEnvelope,
    Message,
    rows,
    save,
)
from lokket.engine.step import Step, local_device, require_account
from lokket.engine.store import (
    FIRST_MESSAGE,
    INBOX,
    MESSAGE,
    MESSAGE_ID,
    SEEN,
    Transaction,
)
from lokket.errors import DecodeError, RemoteError
from lokket.protocol import identity, pairwise
from lokket.wire import api, content

_WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Opened:
    """Decrypted under a session with this device, and nothing more: its claims are not yet checked."""

    account: Account
    genesis_hash: bytes
    device_hash: bytes
    decrypted: pairwise.Decrypted
    first_message_id: bytes | None


@dataclass(frozen=True, slots=True)
class Verified:
    """A content whose header agrees with the session that carried it. Only this reaches the vault."""

    opened: Opened
    header: content.Header
    body: content.Body | None  # None: a kind that this version does not know
    raw: bytes
    session_id: bytes


def arrived(step: Step, envelopes: tuple[bytes, ...]) -> None:
    """Take every envelope into the vault, then tell the relay."""
    taken = []
    repeated: set[bytes] = set()
    for encoded in envelopes:
        try:
            envelope = api.decode_envelope(encoded)
        except DecodeError:
            continue  # not addressable: nothing to acknowledge by
        if step.tx.get(SEEN, envelope.envelope_id) is None:
            if _too_many_strangers(step, envelope):
                continue  # it stays on the relay
            step.tx.put(SEEN, envelope.envelope_id, step.stamp_day)
            _take(step, envelope, encoded, fetched=False)
        elif envelope.sender is not None:
            repeated.add(envelope.sender.device_hash)
        taken.append(envelope.envelope_id)
    receipts.again(step, repeated)
    for start in range(0, len(taken), limits.ACK_BATCH_MAX):
        step.emit(Acknowledge(tuple(taken[start : start + limits.ACK_BATCH_MAX])))


def account_known(step: Step, genesis_hash: bytes) -> None:
    """An account was fetched, or cannot be: decide, in order of arrival, on what waited for it."""
    waiting = [
        (held.order, envelope_id, held)
        for envelope_id, held in rows(step.tx, INBOX, HeldEnvelope)
        if held.awaits == genesis_hash
    ]
    for _, envelope_id, held in sorted(waiting, key=lambda entry: entry[0]):
        step.tx.delete(INBOX, envelope_id)
        _take(step, api.decode_envelope(held.envelope), held.envelope, fetched=True)


def awaited(tx: Transaction) -> set[bytes]:
    """The accounts that held mail waits for."""
    return {held.awaits for _, held in rows(tx, INBOX, HeldEnvelope) if held.awaits}


def vouched_for(step: Step, genesis_hash: bytes) -> bool:
    """One of our own devices wrote to this account: it is no stranger."""
    own = require_account(step.tx).genesis_hash
    return any(
        held.awaits == genesis_hash and held.sender_genesis == own
        for _, held in rows(step.tx, INBOX, HeldEnvelope)
    )


def _too_many_strangers(step: Step, envelope: api.Envelope) -> bool:
    sender = envelope.sender
    if sender is None or book.known_state(step, sender.genesis_hash) is not None:
        return False
    waiting = sum(1 for _, held in rows(step.tx, INBOX, HeldEnvelope) if held.awaits)
    return waiting >= limits.WAITING_ENVELOPES_MAX


def _take(step: Step, envelope: api.Envelope, encoded: bytes, *, fetched: bool) -> None:
    """One envelope: shown, waiting, or in quarantine; never lost."""
    account = require_account(step.tx)
    sender = envelope.sender
    if sender is None or envelope.kind not in (api.KIND_WHISPER, api.KIND_PREKEY):
        _hold(step, envelope, encoded, "unknown-kind")
        return
    if envelope.device_hash != account.device_hash or envelope.recipient != account.genesis_hash:
        _hold(step, envelope, encoded, "not-ours")
        return
    state = book.known_state(step, sender.genesis_hash)
    if state is None or state.device(sender.device_hash) is None:
        if fetched:
            _hold(step, envelope, encoded, "unlisted-device")
        else:
            _wait_for(step, envelope, encoded, sender.genesis_hash)
        return
    try:
        opened = _open(step, account, envelope, sender, state)
    except RemoteError as error:
        # Also what seems a duplicate: under an id not seen before it is a message with a changed number.
        _hold(step, envelope, encoded, error.code, to_heal=True)
        if book.may_be_answered(step.tx, sender.genesis_hash):
            healing.plan(step, sender.device_hash)
        return
    try:
        verified = _verify(step, opened)
    except RemoteError as error:
        _hold(step, envelope, encoded, error.code)  # sending it again would not make it true
        return
    peer = _partner(verified)
    if peer != account.genesis_hash and book.of(step.tx, peer) is None:
        # Nothing of the session was stored: it opens just the same once the account is known.
        _wait_for(step, envelope, encoded, peer)
        return
    _apply(step, verified)


def _partner(verified: Verified) -> bytes:
    """The account that a content is about."""
    match verified.body:
        case (
            content.Sync(peer_genesis=genesis_hash)
            | content.Card(genesis_hash=genesis_hash)
            | content.Read(peer_genesis=genesis_hash)
        ):
            return genesis_hash
    return verified.opened.genesis_hash


def _wait_for(step: Step, envelope: api.Envelope, encoded: bytes, genesis_hash: bytes) -> None:
    if _hold(step, envelope, encoded, _WAITING, awaits=genesis_hash):
        book.fetch(step, genesis_hash)


def _hold(
    step: Step,
    envelope: api.Envelope,
    encoded: bytes,
    code: str,
    *,
    awaits: bytes = b"",
    to_heal: bool = False,
) -> bool:
    """Keep it aside. False: it is dropped, as the person blocked its sender."""
    sender = envelope.sender or api.Sender(bytes(32), bytes(32))
    contact = book.of(step.tx, sender.genesis_hash)
    if contact is not None and contact.barred:
        return False
    held = HeldEnvelope(
        envelope=encoded,
        sender_genesis=sender.genesis_hash,
        sender_device=sender.device_hash,
        code=code,
        since_ms=step.stamp_ms,
        order=step.next_order(),
        awaits=awaits,
        to_heal=to_heal,
    )
    save(step.tx, INBOX, envelope.envelope_id, held)
    return True


# --- decrypt ---


def _open(
    step: Step, account: Account, envelope: api.Envelope, sender: api.Sender, state: identity.AccountState
) -> Opened:
    device = state.device(sender.device_hash)
    assert device is not None
    record = sessions.record_of(step.tx, sender.device_hash)
    first_message_id = None
    if envelope.kind == api.KIND_PREKEY:
        info = pairwise.inspect_prekey_message(envelope.body)
        if info.identity_key != device.identity_key or info.registration_id != device.registration:
            raise RemoteError("a first message names another device's keys", code="wrong-identity")
        if record is None or not record.knows_base_key(info.base_key, step.now_ms):
            first_message_id = info.first_message_id
            if step.tx.get(FIRST_MESSAGE, first_message_id) is not None:
                # Replayed, or its session was lost with an older vault: then its sender has it still.
                raise RemoteError("a first message was seen before", code="replayed")
    decrypted = pairwise.decrypt(
        record,
        local_device(account),
        device.address(sender.genesis_hash),
        pairwise.Ciphertext(pairwise.MessageKind(envelope.kind), envelope.body),
        StoredPreKeys(step.tx),
        step.now_ms,
        step.entropy,
    )
    if decrypted.record.identity_key != device.identity_key:
        raise RemoteError("a session belongs to another identity", code="wrong-identity")
    return Opened(account, sender.genesis_hash, sender.device_hash, decrypted, first_message_id)


# --- verify ---


def _verify(step: Step, opened: Opened) -> Verified:
    """Every claim of the header against what the session proves. RemoteError: nothing is stored."""
    account, decrypted = opened.account, opened.decrypted
    decoded = content.decode_content(decrypted.plaintext)
    header = decoded.header
    peer = (opened.genesis_hash, opened.device_hash)
    session_id = sessions.binding(step.tx, account, peer, decrypted.record.handshake)
    if decrypted.handshake is not None and (session_id is None or header.session_id != session_id):
        raise RemoteError("the session binding does not match", code="wrong-binding")
    if (header.sender_genesis, header.sender_device) != peer:
        raise RemoteError("the content names another sender", code="wrong-header")
    if (header.recipient_genesis, header.recipient_device) != (account.genesis_hash, account.device_hash):
        raise RemoteError("the content names another recipient", code="wrong-header")
    body = content.decode_body(header.kind, decoded.body)
    partner = opened.genesis_hash
    if isinstance(body, content.Sync):
        if opened.genesis_hash != account.genesis_hash or body.peer_genesis == account.genesis_hash:
            raise RemoteError("only our own devices may synchronise", code="wrong-header")
        partner = body.peer_genesis
    elif isinstance(body, content.Text) and opened.genesis_hash == account.genesis_hash:
        raise RemoteError("our own device sent a message to ourselves", code="wrong-header")
    elif header.kind in content.OWN_ONLY and opened.genesis_hash != account.genesis_hash:
        raise RemoteError("only our own devices may synchronise", code="wrong-header")
    if header.conversation != identity.direct_conversation(account.genesis_hash, partner):
        raise RemoteError("the content names another conversation", code="wrong-header")
    if content.is_counted(header.kind) != (header.seq > 0):
        raise RemoteError("the content's number does not fit its kind", code="wrong-header")
    return Verified(opened, header, body, decoded.body, session_id or b"")


# --- act ---


def _apply(step: Step, verified: Verified) -> None:
    opened, header = verified.opened, verified.header
    _keep_session(step, opened, verified.session_id)
    contact = book.of(step.tx, opened.genesis_hash)
    if contact is not None and contact.barred:
        return  # the session goes on, so that it still is one when the person takes it back
    if book.may_be_answered(step.tx, opened.genesis_hash):
        trust.heads_seen(step, opened.genesis_hash, header.sender_head, header.recipient_head)
    match verified.body:
        case content.Text(text=text):
            assert contact is not None
            _show(step, verified, contact, text)
        case content.Sync():
            _synchronise(step, verified, verified.body)
        case content.Receipt(mids=mids):
            receipts.arrived(step, opened.device_hash, mids)
        case content.Introduction():
            _introduced(step, verified, verified.body)
        case content.InviteAnswer() if contact is not None:
            invites.answered(step, contact, opened.device_hash, verified.body)
        case content.Card():
            _card(step, verified.body)
        case (
            content.DeviceName()
            | content.Read()
            | content.History()
            | content.HistoryAsk()
            | content.HistoryPage()
            | content.Handover()
        ):
            own_mail.received(step, opened.device_hash, verified.body)
            receipts.owe(step, None, header)
        case content.Heal() if book.may_be_answered(step.tx, opened.genesis_hash):
            healing.answer(step, contact, opened.device_hash, verified.body)
        case content.Challenge() | content.ChallengeResponse():
            challenges.received(step, opened.genesis_hash, opened.device_hash, verified.body)
        case None:
            _keep_unknown(step, verified)
    challenges.ask(step, opened.genesis_hash, opened.device_hash)


def _keep_session(step: Step, opened: Opened, session_id: bytes) -> None:
    sessions.store(step, opened.device_hash, opened.decrypted.record, session_id)
    delete_used(step.tx, opened.decrypted.used)
    if opened.first_message_id is not None:
        step.tx.put(FIRST_MESSAGE, opened.first_message_id, step.stamp_day)


def _show(step: Step, verified: Verified, contact: Contact, text: str) -> None:
    header = verified.header
    if not _is_new(step, header):
        receipts.owe(step, contact, header)
        return
    if contact.status == "request" and _said_enough(step, header.conversation):
        return
    streams.heard(step, contact, header, header.kind, verified.raw)
    message = Message(
        mid=header.mid,
        genesis_hash=contact.genesis_hash,
        sender_genesis=header.sender_genesis,
        sender_device=header.sender_device,
        seq=header.seq,
        time_ms=header.time_ms,
        text=text,
        state="received",
    )
    key = outbox.remember(step, header.conversation, message)
    receipts.owe(step, contact, header)
    emit_shown(step, outbox.note(step, key, contact, outgoing=False), contact, message, outgoing=False)


def _said_enough(step: Step, conversation: bytes) -> bool:
    """A stranger's first messages are kept for the person to decide on; not any number of them."""
    return sum(1 for _ in step.tx.scan(MESSAGE, conversation)) >= limits.REQUEST_MESSAGES_MAX


def _synchronise(step: Step, verified: Verified, sync: content.Sync) -> None:
    """Another device of ours sent this: the same message in our own timeline."""
    header = verified.header
    contact = book.of(step.tx, sync.peer_genesis)
    assert contact is not None
    inner = content.decode_body(sync.kind, sync.body)
    if not isinstance(inner, content.Text):
        _keep_unknown(step, verified)
        return
    receipts.owe(step, None, header)
    if not _is_new(step, header):
        return
    streams.heard(step, contact, header, sync.kind, sync.body)
    message = Message(
        mid=header.mid,
        genesis_hash=sync.peer_genesis,
        sender_genesis=header.sender_genesis,
        sender_device=header.sender_device,
        seq=header.seq,
        time_ms=header.time_ms,
        text=inner.text,
        state="sent",
    )
    key = outbox.remember(step, header.conversation, message)
    emit_shown(step, outbox.note(step, key, contact, outgoing=True), contact, message, outgoing=True)


def _card(step: Step, card: content.Card) -> None:
    contact = book.of(step.tx, card.genesis_hash)
    assert contact is not None
    was_request = contact.status == "request"
    trust.card_received(step, contact, card)
    if was_request and book.may_be_answered(step.tx, card.genesis_hash):
        no_stranger_now(step, contact)


def emit_shown(step: Step, order: int, contact: Contact, message: Message, *, outgoing: bool) -> None:
    step.emit(
        MessageShown(
            order=order,
            petname=contact.petname,
            text=message.text,
            mid=message.mid,
            sender_device=message.sender_device,
            seq=message.seq,
            time_ms=message.time_ms,
            outgoing=outgoing,
            request=contact.status == "request",
        )
    )


def _is_new(step: Step, header: content.Header) -> bool:
    return step.tx.get(MESSAGE_ID, header.mid + header.sender_device) is None


def _introduced(step: Step, verified: Verified, body: content.Introduction) -> None:
    opened = verified.opened
    contact = book.of(step.tx, opened.genesis_hash)
    if contact is None:
        return
    was_request = contact.status == "request"
    contact = book.calls_itself(step, contact, body.name)  # first, so that every notice uses it
    if body.invite_id is not None and body.mac is not None:
        proof = (body.invite_id, body.mac)
        contact = invites.redeem(step, contact, opened.device_hash, proof)
    if was_request and contact.status == "accepted":
        no_stranger_now(step, contact)


def _keep_unknown(step: Step, verified: Verified) -> None:
    """A kind of a later version: its session moves on, its bytes are kept, nobody is told."""
    header = verified.header
    held = HeldEnvelope(
        envelope=verified.raw,
        sender_genesis=header.sender_genesis,
        sender_device=header.sender_device,
        code="unknown-content",
        since_ms=step.stamp_ms,
        order=step.next_order(),
        awaits=b"",
    )
    save(step.tx, INBOX, header.mid, held)


def no_stranger_now(step: Step, contact: Contact) -> None:
    """Strangers get no answer of any kind. They are accepted, however it came: all that waited follows."""
    receipts.owe_all(step, contact)
    for device_hash, _ in book.state_of(contact).listed:
        healing.plan(step, device_hash)
        challenges.ask(step, contact.genesis_hash, device_hash)
    book.fetch(step, contact.genesis_hash)
