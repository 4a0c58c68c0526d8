"""Our own account: making it, registering, logging in, noticing that the vault or the relay was restored.

A connection runs: hello -> register or login -> ``logged_in`` -> everything that waited is asked again.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.codec import tls
from lokket.crypto.primitives import sha256
from lokket.engine import (
    book,
    contacts,
    devices,
    farewell,
    invites,
    linking,
    names,
    outbox,
    prekeys,
    upkeep,
    whole_chain,
)
from lokket.engine.events import CreateAccount, HangUp, Online, Redial, Registered, TrustNotice
from lokket.engine.records import Account, OutboxRow, rows, save
from lokket.engine.step import Step, account_of, own_keys, own_state, require_account, save_account
from lokket.engine.store import AWAITING, BATCH, OUTBOX, PREKEY, SESSION
from lokket.errors import LocalError, RemoteError
from lokket.protocol import identity
from lokket.wire import api, content

_NONCES_KEPT = 32
_REDIAL_MS = 2_000
_OWN = ""  # the petname in notices about ourselves


def create(step: Step, command: CreateAccount) -> None:
    """Make every key of a new account and of its first device, which becomes the admin device."""
    if account_of(step.tx) is not None:
        raise LocalError("this vault has an account already: choose another profile")
    if command.name is not None:
        identity.check_name(command.name)
    invite = identity.Invite.parse(command.link) if command.link else None
    if invite is not None and invite.expires_s < step.now_s:
        raise LocalError("this invite has expired: ask for a new one")
    account_seed = step.entropy.draw(64)
    account_key = identity.HybridKeyPair.from_seed(account_seed)
    recovery = identity.recovery_key(command.recovery_code, 0)
    genesis = identity.make_genesis(account_key.public, identity.recovery_commitment(recovery.public))
    genesis_hash = identity.genesis_hash(genesis)
    made = devices.make(step, genesis_hash, number=1, added_version=1)
    state = identity.found_account(genesis, account_key, made.device, step.now_s, step.entropy)
    save_account(
        step.tx,
        Account(
            status="new",
            genesis=tls.encode(genesis),
            genesis_hash=genesis_hash,
            state=state.encode(),
            device=tls.encode(made.device),
            device_hash=made.device_hash,
            number=1,
            registration_id=made.registration_id,
            device_keys=made.keys.encode(),
            account_seed=account_seed,
            name=command.name,
            origin=invite.origin if invite else command.origin,
            relay_key=invite.relay_key if invite else command.relay_key,
            token=identity.derive_invite(invite.secret).token if invite else b"",
            heads=(state.head,),
        ),
    )
    whole_chain.keep(
        step.tx,
        identity.step_update(state.signed_link, state.body, (tls.encode(made.device),), genesis=genesis),
    )
    if invite is not None and invite.genesis_hash is not None:
        contacts.remember_inviter(step, invite)


def connected(step: Step, hello: api.Hello) -> None:
    """Check who the relay is, then register or log in."""
    account = account_of(step.tx)
    if account is None:
        return
    try:
        identity.check_hello(hello.origin, hello.relay_key, hello.nonce, hello.time_ms, hello.signature)
    except RemoteError:
        step.emit(HangUp("the relay cannot prove its key"))
        return
    if api.PROTOCOL_VERSION not in hello.versions:
        step.emit(HangUp("the relay speaks another version of the protocol: update the older side"))
        return
    if (hello.origin, hello.relay_key) != (account.origin, account.relay_key):
        step.emit(HangUp("this is not the relay that the account was made on"))
        return
    step.link.hello = hello
    step.link.clock_agrees = abs(hello.time_ms - step.now_ms) <= limits.CLOCK_SKEW_S * 1000
    if not step.link.clock_agrees:
        sentence = (
            "this device's clock and the relay's disagree: nothing is renewed or expires until they agree"
        )
        step.emit(TrustNotice("clock", _OWN, sentence))
    if account.status == "deleted":
        farewell.done(step)
    elif account.status == "new":
        _register(step, account, hello)
    elif account.status != "recovering":
        linking.knock_again(step)
        step.ask("login", login_request(step, account, hello))


def _register(step: Step, account: Account, hello: api.Hello) -> None:
    state = own_state(account)
    statement = identity.RegisterStatement(
        origin=hello.origin.encode(),
        relay_key=hello.relay_key,
        token_hash=sha256(account.token),
        genesis_hash=account.genesis_hash,
        device_hash=account.device_hash,
        nonce=hello.nonce,
    )
    account_key = identity.HybridKeyPair.from_seed(account.account_seed)
    proof = identity.sign_register(account_key, own_keys(account), statement, step.entropy)
    claim = None
    if account.name is not None:
        claim = names.claim(step, account, account.name)
    request = api.Register(
        token=account.token,
        genesis=account.genesis,
        link=tls.encode(state.signed_link),
        body=tls.encode(state.body),
        devices=(account.device,),
        proof=tls.encode(proof),
        name_claim=claim,
    )
    step.ask("register", request)


def login_request(step: Step, account: Account, hello: api.Hello) -> api.Login:
    """The nonce is in the vault before it leaves: a copy of this vault will lack it."""
    client_nonce = step.entropy.draw(32)
    kept, confirmed = (*account.nonces, client_nonce), account.confirmed
    if len(kept) > _NONCES_KEPT:  # the last one that was answered stays, however many were not since
        oldest = 1 if confirmed == 1 else 0
        kept, confirmed = kept[:oldest] + kept[oldest + 1 :], max(confirmed - 1, oldest)
    save_account(step.tx, msgspec.structs.replace(account, nonces=kept, confirmed=confirmed))
    statement = identity.LoginStatement(
        origin=hello.origin.encode(),
        relay_key=hello.relay_key,
        genesis_hash=account.genesis_hash,
        device_hash=account.device_hash,
        nonce=hello.nonce,
        client_nonce=client_nonce,
        time_s=step.now_s,
    )
    return api.Login(
        genesis_hash=account.genesis_hash,
        device_hash=account.device_hash,
        client_nonce=client_nonce,
        time_s=step.now_s,
        signature=identity.sign_login(own_keys(account).auth, statement),
    )


def registered(step: Step, reply: api.Reply) -> None:
    account = require_account(step.tx)
    match reply:
        case api.LoggedIn():
            account = msgspec.structs.replace(account, status="active", token=b"")
            save_account(step.tx, account)
            step.emit(Registered(account.genesis_hash, account.name))
            resume(step, account, reply)
        case api.Refused(code=api.CONFLICT) if account.name is not None:
            # The name is taken; the account itself is fine. Register it without one.
            book.fail(step, "name", f"the name {account.name} is taken: claim another one")
            account = msgspec.structs.replace(account, name=None)
            save_account(step.tx, account)
            if step.link.hello is not None:
                _register(step, account, step.link.hello)
        case api.Refused(code=code, sentence=sentence, retry_after_ms=retry_after_ms):
            book.fail(step, "register", sentence)
            if code in api.BUSY:
                step.emit(Redial(step.now_ms + max(retry_after_ms, _REDIAL_MS)))
            else:
                step.emit(HangUp(sentence))


def logged_in(step: Step, reply: api.Reply) -> None:
    account = require_account(step.tx)
    if isinstance(reply, api.Refused) and reply.code == api.LOGIN_REFUSED:
        account = _forget_nonce(step, account)
    match reply:
        case api.LoggedIn():
            account = _check_history(step, account, reply)
            save_account(step.tx, account)
            resume(step, account, reply)
        case api.Refused(code=api.LOGIN_REFUSED) if account.status == "deleting":
            farewell.done(step)  # its answer was lost
        case api.Refused(code=api.LOGIN_REFUSED) if whole_chain.readmit(step, account):
            pass
        case api.Refused(sentence=sentence, retry_after_ms=retry_after_ms):
            # A joining device is refused until the admin device has listed it. One that was listed before
            # may have been revoked; a rotation can bring it back, so it goes on asking now and then.
            book.fail(step, "login", sentence)
            wait_ms = _REDIAL_MS if account.status == "joining" else limits.REVOKED_RETRY_S * 1000
            step.emit(Redial(step.now_ms + max(retry_after_ms, wait_ms)))


def _forget_nonce(step: Step, account: Account) -> Account:
    """The last one was refused: the relay will never name it."""
    if account.confirmed < len(account.nonces):
        account = msgspec.structs.replace(account, nonces=account.nonces[:-1])
        save_account(step.tx, account)
    return account


def readmitted(step: Step, reply: api.Reply) -> None:
    """A restored relay did not know this device: it is back, or there was another reason to refuse it."""
    account = require_account(step.tx)
    match reply:
        case api.LoggedIn():
            _relay_restored(step)
            save_account(step.tx, msgspec.structs.replace(account, confirmed=0))
            resume(step, account, reply)
        case api.Refused(code=code, sentence=sentence, retry_after_ms=retry_after_ms):
            if code == api.TOKEN_REFUSED:
                sentence = (
                    "the relay does not know this account: if it was restored from an older backup, "
                    "ask its operator to open registration for a while"
                )
            book.fail(step, "login", sentence)
            step.emit(Redial(step.now_ms + max(retry_after_ms, limits.REVOKED_RETRY_S * 1000)))


def resume(step: Step, account: Account, reply: api.LoggedIn) -> None:
    """Online: ask again for everything that waited."""
    step.link.online = True
    step.ask("here", api.Ping())
    if farewell.resume(step):
        return
    step.emit(Online(reply.mailbox))
    known = own_state(account) if account.state else None
    if known is None or (reply.key_epoch, reply.version) > (known.key_epoch, known.version):
        book.fetch(step, account.genesis_hash)
    whole_chain.resume(step, reply)
    devices.resume(step)
    if account.state:
        prekeys.resume(step, reply)
    contacts.resume(step)
    invites.resume(step)
    names.resume(step)
    linking.resume(step)
    upkeep.run(step)


def here(step: Step, reply: api.Reply) -> None:
    """The relay knows that its answer to our login came: from now on it names this one.

    Before that no ciphertext leaves: a copy of this vault could send another one under the same keys.
    """
    account = require_account(step.tx)
    if isinstance(reply, api.Ok):
        step.link.heard = True
        save_account(step.tx, msgspec.structs.replace(account, confirmed=len(account.nonces)))


def _check_history(step: Step, account: Account, reply: api.LoggedIn) -> Account:
    """Was the relay restored, or this vault (docs/identity.md, "Restored or cloned vault")?"""
    earlier, last = account.nonces[:-1], reply.last_nonce
    if last is not None and last not in earlier:
        account = msgspec.structs.replace(account, nonces=(last, account.nonces[-1]), confirmed=0)
        return vault_restored(step, account)
    if account.confirmed and last not in earlier[account.confirmed - 1 :]:
        _relay_restored(step)
    return account


def _relay_restored(step: Step) -> None:
    """The relay forgot: what it had accepted goes there again, as the same bytes; so do name and invites."""
    for envelope_id, row in rows(step.tx, AWAITING, OutboxRow):
        outbox.offer(step, envelope_id, row)
    prekeys.publish_anew(step)
    invites.lost(step)
    names.claim_again(step)
    step.emit(
        TrustNotice(
            "relay-restored", _OWN, "the relay was restored from a backup; unconfirmed mail was sent again"
        )
    )


def vault_restored(step: Step, account: Account) -> Account:
    """Somebody logged in with our keys whom we do not remember: drop every key that may be used twice."""
    for table in (SESSION, PREKEY, BATCH):
        for key, _ in list(step.tx.scan(table)):
            step.tx.delete(table, key)
    for key, row in rows(step.tx, OUTBOX, OutboxRow):
        save(step.tx, OUTBOX, key, msgspec.structs.replace(row, envelope=b"", envelope_id=b""))
    for envelope_id, row in rows(step.tx, AWAITING, OutboxRow):
        if content.is_counted(row.kind):  # the newer copy may have had its receipt: it is asked for anew
            outbox.forget_awaiting(step, envelope_id, row)
            outbox.requeue(step, row)
    step.emit(
        TrustNotice(
            "restored",
            _OWN,
            "this vault is an older copy, or another copy of it is in use: all sessions start anew; "
            "if you did not restore it, revoke this device",
        )
    )
    account = msgspec.structs.replace(account, incarnation=account.incarnation + 1)
    save_account(step.tx, account)
    return account
