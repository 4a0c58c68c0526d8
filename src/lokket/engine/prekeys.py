"""Our prekeys: batches made and published, private halves looked up, used up and deleted in time."""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.codec import tls
from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.engine import book
from lokket.engine.events import PrekeysPublished, RefillPrekeys
from lokket.engine.records import BatchRow, PrekeyRow, load, rows, save
from lokket.engine.step import Step, own_keys, own_state, require_account
from lokket.engine.store import BATCH, PREKEY, Transaction
from lokket.protocol import pairwise, prekeys
from lokket.wire import api

_SIGNED, _ONE_TIME, _ONE_TIME_KEM, _LAST_RESORT = b"s", b"o", b"k", b"l"
_PAIRS_LOW = 4  # a batch is replaced when a quarter of its pairs is left
_DAY_MS = limits.DAY_S * 1000


class StoredPreKeys:
    """The private halves, as ``pairwise.decrypt`` asks for them."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def signed_prekey(self, prekey_id: int) -> X25519KeyPair | None:
        row = _row(self._tx, _SIGNED, prekey_id)
        return None if row is None else X25519KeyPair(row.private)

    def one_time_prekey(self, prekey_id: int) -> X25519KeyPair | None:
        row = _row(self._tx, _ONE_TIME, prekey_id)
        return None if row is None else X25519KeyPair(row.private)

    def kem_prekey(self, prekey_id: int) -> MLKEMKeyPair | None:
        row = _row(self._tx, _ONE_TIME_KEM, prekey_id) or _row(self._tx, _LAST_RESORT, prekey_id)
        return None if row is None else MLKEMKeyPair(1024, row.private)


def manifest_hash_of(tx: Transaction, signed_prekey_id: int) -> bytes | None:
    """The manifest that carried this signed prekey, while its private half is kept."""
    row = _row(tx, _SIGNED, signed_prekey_id)
    return None if row is None else row.manifest_hash


def delete_used(tx: Transaction, used: pairwise.Used) -> None:
    """One-time keys go in the transaction of the message that used them; a last-resort key stays."""
    if used.one_time_prekey_id is not None:
        tx.delete(PREKEY, _key(_ONE_TIME, used.one_time_prekey_id))
    if used.kem_prekey_id is not None:
        tx.delete(PREKEY, _key(_ONE_TIME_KEM, used.kem_prekey_id))


def resume(step: Step, reply: api.LoggedIn) -> None:
    """After login: does the relay hold our newest batch, and enough of it?"""
    newest = _newest(step.tx)
    if newest is None or reply.manifest_number > newest[0]:
        make(step, above=reply.manifest_number)
    elif reply.manifest_number < newest[0]:
        publish_anew(step)
    elif _few(step, reply.pairs_left):
        make(step)


def pairs_low(step: Step, left: int) -> None:
    """The relay says that pairs run out. A batch on its way answers that already."""
    newest = _newest(step.tx)
    if newest is not None and newest[1].published and _few(step, left):
        make(step)


def _few(step: Step, left: int) -> bool:
    return left * _PAIRS_LOW <= step.prekey_pairs


def publish_anew(step: Step) -> None:
    """Publish the batch that the relay lacks, or a new one where ours is no longer at hand."""
    newest = _newest(step.tx)
    if newest is None or not newest[1].public:
        make(step)
    else:
        step.call(f"publish:{newest[0]}", api.Publish(newest[1].public))


def refill(step: Step, command: RefillPrekeys) -> None:
    """A new batch, whatever is left of the last one. LocalError: this device is on no list yet."""
    own_state(require_account(step.tx))
    make(step)


def rotate(step: Step) -> None:
    """A week old, or of a clock that ran ahead: a new signed prekey, last-resort key and batch of pairs."""
    newest = _newest(step.tx)
    if newest is None:
        return
    age_ms = step.now_ms - newest[1].made_ms
    if not -limits.CLOCK_SKEW_S * 1000 <= age_ms < limits.SIGNED_PREKEY_ROTATE_DAYS * _DAY_MS:
        make(step)


def make(step: Step, above: int = 0) -> None:
    """Make a batch numbered above all others; its private halves are in the vault before it leaves."""
    account = require_account(step.tx)
    if not account.state:
        return
    newest = _newest(step.tx)
    number = max(step.now_s, above + 1, 0 if newest is None else newest[0] + 1)
    public, private = prekeys.make_batch(
        own_keys(account),
        account.genesis_hash,
        account.device_hash,
        number=number,
        head=own_state(account).head,
        now_s=step.now_s,
        entropy=step.entropy,
        pairs=step.prekey_pairs,
    )

    stamp_ms = step.stamp_ms

    def keep(kind: bytes, prekey_id: int, secret: bytes) -> None:
        save(step.tx, PREKEY, _key(kind, prekey_id), PrekeyRow(secret, private.manifest_hash, stamp_ms))

    keep(_SIGNED, private.signed_prekey_id, private.signed_prekey)
    keep(_LAST_RESORT, private.last_resort_id, private.last_resort_seed)
    for pair in private.pairs:
        keep(_ONE_TIME, pair.one_time_prekey_id, pair.one_time_prekey)
        keep(_ONE_TIME_KEM, pair.kem_prekey_id, pair.kem_seed)
    encoded = tls.encode(public)
    save(step.tx, BATCH, number.to_bytes(8, "big"), BatchRow(encoded, step.now_ms, published=False))
    step.call(f"publish:{number}", api.Publish(encoded))


def published(step: Step, number: int, reply: api.Reply) -> None:
    key = number.to_bytes(8, "big")
    row = load(step.tx, BATCH, key, BatchRow)
    if row is None:
        return
    match reply:
        case api.Ok():
            save(step.tx, BATCH, key, msgspec.structs.replace(row, public=b"", published=True))
            step.emit(PrekeysPublished(number))
        case api.Refused(code=api.CONFLICT | api.INVALID):
            # Too old to be taken. The next login makes another; private halves age out like any.
            step.tx.delete(BATCH, key)
        case api.Refused(sentence=sentence):
            book.fail(step, "prekeys", f"the relay did not take new prekeys: {sentence}")


def expire(step: Step) -> None:
    """Delete private halves after the last message that may use them (45 days)."""
    oldest_ms = step.now_ms - limits.PREKEY_PRIVATE_DAYS * _DAY_MS
    for key, row in rows(step.tx, PREKEY, PrekeyRow):
        if row.made_ms < oldest_ms:
            step.tx.delete(PREKEY, key)
    for key, batch in rows(step.tx, BATCH, BatchRow)[:-1]:
        if batch.made_ms < oldest_ms:
            step.tx.delete(BATCH, key)


def _newest(tx: Transaction) -> tuple[int, BatchRow] | None:
    for key, _ in tx.scan(BATCH, reverse=True):
        row = load(tx, BATCH, key, BatchRow)
        return None if row is None else (int.from_bytes(key, "big"), row)
    return None


def _row(tx: Transaction, kind: bytes, prekey_id: int) -> PrekeyRow | None:
    return load(tx, PREKEY, _key(kind, prekey_id), PrekeyRow)


def _key(kind: bytes, prekey_id: int) -> bytes:
    return kind + prekey_id.to_bytes(4, "big")
