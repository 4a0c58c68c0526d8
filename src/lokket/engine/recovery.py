"""Recovery: the recovery code replaces a lost admin device by a rotation of the account key.

1. The chain is fetched without a login, and must commit to the code's key.
2. In one step: a new account key, a new device, the rotation, and the first list of the new epoch.
3. The relay takes all of it with this device's login, or nothing; after a crash the same bytes go again.
"""

from __future__ import annotations

import msgspec

from lokket.codec import tls
from lokket.crypto.primitives import equal
from lokket.engine import account as own_account
from lokket.engine import book, devices, history, names, siblings, trust, whole_chain
from lokket.engine.events import HangUp, RecoverAccount, Recovered, Redial
from lokket.engine.records import Account, DeviceName, PendingList, Recovery, load, pack, save, unpack
from lokket.engine.step import Step, account_of, own_state, require_account, save_account
from lokket.engine.store import ACCOUNT
from lokket.errors import LocalError, RemoteError
from lokket.protocol import identity
from lokket.protocol.linking import AccountCode
from lokket.wire import api

_KEY = b"recovery"
_ERRAND = "recover"
_REDIAL_MS = 2_000


def begin(step: Step, command: RecoverAccount) -> None:
    """Remember what to recover; the rest needs the chain. LocalError: a slip of the pen in a code."""
    if account_of(step.tx) is not None:
        raise LocalError("this vault has an account already: choose another profile")
    where = AccountCode.decode(command.account)
    for code in (command.recovery_code, command.next_code):
        identity.recovery_key(code, 0)
    if command.name is not None:
        identity.check_name(command.name)
    save_account(
        step.tx,
        Account(
            status="recovering",
            genesis=b"",
            genesis_hash=where.genesis_hash,
            state=b"",
            device=b"",
            device_hash=b"",
            number=0,
            registration_id=0,
            device_keys=b"",
            account_seed=b"",
            name=command.name,
            origin=where.origin,
            relay_key=where.relay_key,
            token=b"",
        ),
    )
    row = Recovery(command.recovery_code, command.next_code, command.keep, command.device_name)
    save(step.tx, ACCOUNT, _KEY, row)
    history.want(step)


def connected(step: Step) -> None:
    """After the greeting was checked: ask for the chain, or offer what is signed already."""
    account = account_of(step.tx)
    if account is None or account.status != "recovering" or step.link.hello is None:
        return
    if account.state:
        _offer(step, account, step.link.hello)
    else:
        step.ask("recovery-chain", api.FetchChain(account.genesis_hash))


def chain_arrived(step: Step, reply: api.Reply) -> None:
    match reply:
        case api.Account(chain=chain):
            try:
                update = tls.decode(identity.AccountUpdate, chain)
                genesis_hash = require_account(step.tx).genesis_hash
                state = identity.first_contact(update, genesis_hash, step.now_s, owner=True)
                whole_chain.keep(step.tx, update)
                _sign(step, state)
            except RemoteError as error:
                _give_up(step, f"the relay's answer on this account does not verify: {error}")
            except LocalError as error:
                _give_up(step, str(error))
        case api.Refused():
            _refused(step, reply)


def _sign(step: Step, state: identity.AccountState) -> None:
    """New keys, the rotation and its list. LocalError: this code, or this choice of devices, will not do."""
    row = load(step.tx, ACCOUNT, _KEY, Recovery)
    if row is None or step.link.hello is None:
        return
    recovery = identity.recovery_key(row.code, state.key_epoch)
    if not equal(identity.recovery_commitment(recovery.public), state.recovery_commitment):
        raise LocalError(
            "this is not the account's recovery code: after a recovery only the code shown then is good"
        )
    account_seed = step.entropy.draw(64)
    account_key = identity.HybridKeyPair.from_seed(account_seed)
    following = identity.recovery_key(row.next_code, state.key_epoch + 1)
    rotation = identity.rotate(
        state,
        recovery,
        account_key,
        identity.recovery_commitment(following.public),
        now_s=step.now_s,
        entropy=step.entropy,
    )
    number = identity.free_number(state, step.now_s)
    made = devices.make(step, state.genesis_hash, number=number, added_version=state.version + 1)
    signed, body = identity.sign_list(
        account_key,
        state,
        _body(state, row.keep, made),
        (made.device,),
        now_s=step.now_s,
        entropy=step.entropy,
        rotation=rotation,
    )
    encoded = tls.encode(made.device)
    update = identity.step_update(signed, body, (encoded,), rotation=rotation)
    after, _ = identity.advance(state, update, step.now_s)
    whole_chain.followed(step, update)
    pending = PendingList(tls.encode(signed), tls.encode(body), (encoded,), tls.encode(rotation))
    account = msgspec.structs.replace(
        require_account(step.tx),
        state=after.encode(),
        device=encoded,
        device_hash=made.device_hash,
        number=number,
        registration_id=made.registration_id,
        device_keys=made.keys.encode(),
        account_seed=account_seed,
        pending_list=pack(pending),
        heads=(state.head, after.head),
    )
    if row.device_name:
        named = DeviceName(made.device_hash, row.device_name, step.now_ms)
        account = msgspec.structs.replace(account, device_names=(named,))
    save_account(step.tx, account)
    step.tx.delete(ACCOUNT, _KEY)
    _offer(step, account, step.link.hello)


def _body(state: identity.AccountState, keep: tuple[int, ...], made: devices.Made) -> identity.ListBody:
    """The kept devices and the new one, which is the admin device; the others are revoked."""
    listed = {device.device: device_hash for device_hash, device in state.listed}
    unknown = set(keep) - set(listed)
    if unknown:
        raise LocalError(f"the account has no device {min(unknown)}: it has {_numbers(tuple(listed))}")
    gone = tuple(
        identity.Revoked(number, device_hash, state.version + 1)
        for number, device_hash in listed.items()
        if number not in keep
    )
    before = tuple(entry for entry in state.body.revoked if entry.device != made.device.device)
    return identity.list_body(
        made.device.device,
        (made.device_hash, *(listed[number] for number in keep)),
        (*before, *gone),
        floor=state.body.floor,
        extensions=state.body.extensions,
    )


def _numbers(numbers: tuple[int, ...]) -> str:
    return ", ".join(str(number) for number in sorted(numbers))


def _offer(step: Step, account: Account, hello: api.Hello) -> None:
    pending = unpack(PendingList, account.pending_list)
    request = api.Recover(
        rotation=pending.rotation,
        link=pending.link,
        body=pending.body,
        device=account.device,
        login=own_account.login_request(step, account, hello),
    )
    step.ask(_ERRAND, request)


def answered(step: Step, reply: api.Reply) -> None:
    account = require_account(step.tx)
    match reply:
        case api.LoggedIn():
            account = msgspec.structs.replace(account, status="active", pending_list=b"")
            save_account(step.tx, account)
            trust.learn_devices(step, own_state(account))
            others = own_state(account).listed
            kept = tuple(device.device for key, device in others if key != account.device_hash)
            step.emit(Recovered(account.genesis_hash, account.number, tuple(sorted(kept))))
            own_account.resume(step, account, reply)
            siblings.announce(step)
            names.claim_again(step)
        case api.Refused():
            _refused(step, reply)


def _refused(step: Step, reply: api.Refused) -> None:
    if reply.code in (*api.BUSY, api.LOGIN_REFUSED):
        book.fail(step, "login", reply.sentence)
        step.emit(Redial(step.now_ms + max(reply.retry_after_ms, _REDIAL_MS)))
    else:
        _give_up(step, reply.sentence)


def _give_up(step: Step, sentence: str) -> None:
    """There is no use in trying again: the codes are forgotten."""
    step.tx.delete(ACCOUNT, _KEY)
    book.fail(step, _ERRAND, sentence)
    step.emit(HangUp(sentence))
