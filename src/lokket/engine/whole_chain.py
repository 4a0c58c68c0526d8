"""Our account's whole chain, kept so that a relay which was restored from a backup gets it back.

1. At the login the relay says which list it has. An older one than ours: the whole chain goes there.
2. It does not know this device any more: the admin device proves chain and account key, and is logged in.
"""

from __future__ import annotations

from lokket import limits
from lokket.codec import tls
from lokket.crypto.primitives import sha256
from lokket.engine import book, devices, names
from lokket.engine.events import TrustNotice
from lokket.engine.records import Account
from lokket.engine.step import Step, own_keys, own_state, require_account
from lokket.engine.store import ACCOUNT, Transaction
from lokket.errors import RemoteError
from lokket.protocol import identity
from lokket.wire import api

_CHAIN = b"chain"
_TRIED = b"readmit"
_RETRY_MS = 3_600_000
_FRAME_ROOM_BYTES = 16 * 1024  # of a frame before the login: proof and name claim
_OWN = ""  # the petname in notices about ourselves


def keep(tx: Transaction, whole: identity.AccountUpdate) -> None:
    tx.put(ACCOUNT, _CHAIN, tls.encode(whole))


def followed(step: Step, update: identity.AccountUpdate) -> None:
    """An accepted update of our own list. Where it does not fit, the whole chain is asked for again."""
    stored = _stored(step.tx)
    if stored is None:
        return
    try:
        keep(step.tx, stored.followed_by(update))
    except RemoteError:
        step.tx.delete(ACCOUNT, _CHAIN)


def _stored(tx: Transaction) -> identity.AccountUpdate | None:
    encoded = tx.get(ACCOUNT, _CHAIN)
    return None if encoded is None else tls.decode(identity.AccountUpdate, encoded)


def _whole(step: Step, account: Account) -> identity.AccountUpdate | None:
    """The chain up to the list that we go by."""
    stored = _stored(step.tx)
    if stored is None or not account.state or stored.links[-1].head != own_state(account).head:
        return None
    return stored


def resume(step: Step, reply: api.LoggedIn) -> None:
    """After the login, before anything that builds on our list."""
    step.tx.delete(ACCOUNT, _TRIED)
    account = require_account(step.tx)
    if not account.state:
        return
    known, whole = own_state(account), _whole(step, account)
    behind = (reply.key_epoch, reply.version) < (known.key_epoch, known.version)
    if behind and whole is not None:
        step.call("chain-put", api.PutChain(tls.encode(whole)))
    elif not behind and whole is None:
        step.call("chain", api.FetchAccount(account.genesis_hash, 0, 0))


def arrived(step: Step, reply: api.Reply) -> None:
    """The whole chain, for a vault that has none: kept if it is the one that we go by."""
    account = require_account(step.tx)
    if not isinstance(reply, api.Account) or not account.state:
        return
    try:
        update = tls.decode(identity.AccountUpdate, reply.chain)
        state = identity.first_contact(update, account.genesis_hash, step.now_s, owner=True)
    except RemoteError:
        return
    if state.head == own_state(account).head:
        keep(step.tx, update)


def put(step: Step, reply: api.Reply) -> None:
    account = require_account(step.tx)
    match reply:
        case api.Ok():
            sentence = "the relay had lost your newest device list; it has it again"
            step.emit(TrustNotice("relay-restored", _OWN, sentence))
        case api.Refused(sentence=sentence):
            book.fail(step, "list", f"the relay lost your device list and does not take it back: {sentence}")
    book.fetch(step, account.genesis_hash)


def readmit(step: Step, account: Account) -> bool:
    """The login was refused: was the relay restored from before this device or account? Whether it is asked.

    A device that was rightly taken off the list has an older chain than the relay, and is refused again.
    """
    hello = step.link.hello
    if account.status != "active" or not account.state or not devices.is_admin(account) or hello is None:
        return False
    whole, tried = _whole(step, account), step.tx.get(ACCOUNT, _TRIED)
    if whole is None or not _due(step, tried):
        return False
    chain = tls.encode(whole)
    if len(chain) > limits.FRAME_BEFORE_LOGIN_MAX_BYTES - _FRAME_ROOM_BYTES:
        return False
    step.tx.put(ACCOUNT, _TRIED, step.now_ms.to_bytes(8, "big"))
    account_key = identity.HybridKeyPair.from_seed(account.account_seed)
    statement = identity.RegisterStatement(
        origin=hello.origin.encode(),
        relay_key=hello.relay_key,
        token_hash=sha256(b""),
        genesis_hash=account.genesis_hash,
        device_hash=account.device_hash,
        nonce=hello.nonce,
    )
    proof = identity.sign_register(account_key, own_keys(account), statement, step.entropy)
    claim = names.claim(step, account, account.name) if account.name is not None else None
    step.ask("readmit", api.Readmit(b"", chain, tls.encode(proof), claim))
    return True


def _due(step: Step, tried: bytes | None) -> bool:
    return tried is None or step.due(int.from_bytes(tried, "big") + _RETRY_MS, _RETRY_MS)
