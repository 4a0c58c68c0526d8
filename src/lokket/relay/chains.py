"""What a relay lost when it was restored from a backup, and gets back from the accounts themselves.

A chain proves itself: whoever brings it, it is taken when it goes on where the relay's own ends, or when
its rotations void what the relay has. Nothing is taken back: an older or another chain is a conflict.
"""

from __future__ import annotations

from lokket.codec import tls
from lokket.crypto.primitives import sha256
from lokket.errors import RemoteError
from lokket.protocol.identity import (
    AccountState,
    AccountUpdate,
    ForkDetected,
    RegisterProof,
    RegisterStatement,
    advance,
    check_register,
    device_hash,
    first_contact,
    genesis_hash,
)
from lokket.relay import accounts, kept
from lokket.relay.accounts import list_conflict
from lokket.relay.office import Caller, Moment, Office, Refusal
from lokket.relay.storage.base import AccountRow, ListChange, NewAccount
from lokket.wire import api


async def put_chain(office: Office, caller: Caller, request: api.PutChain, moment: Moment) -> api.Ok:
    """By a logged-in device, which need not be the admin device: the signatures are in the chain."""
    office.spend("list", caller.genesis_hash, moment)
    update = _whole(request.chain, caller.genesis_hash)
    row = await accounts.stored_account(office, caller.genesis_hash)
    await _take(office, row, update, moment)
    return api.Ok()


async def readmit(office: Office, caller: Caller, request: api.Readmit, moment: Moment) -> api.LoggedIn:
    """1. The chain against what is stored. 2. The proof of the device and of the account key. 3. The chain
    is stored, for an account that is unknown with the token spent. 4. The device is logged in.
    """
    accounts.attempt(caller, moment)
    update = tls.decode(AccountUpdate, request.chain)
    if update.genesis is None:
        raise RemoteError("the genesis is missing", code="gap")
    account = genesis_hash(update.genesis)
    known = await office.storage.account(account)
    if known is None and not office.config.open:
        token = sha256(request.token)
        if not await office.storage.token_open(token, account, moment.now_s):
            raise accounts.token_refused()
    office.spend("readmit", b"", moment)
    state = first_contact(update, account, moment.now_s, owner=True)
    device = _proven(office, caller, request, state)
    await accounts.require_not_banned(office, account)
    if known is not None:
        await _take(office, known, update, moment)
    else:
        await _return(office, request, state, moment)
    row, held = await office.storage.account(account), await office.storage.device(device)
    if row is None or held is None:
        raise list_conflict()
    office.seat(caller, account, device)
    return accounts.logged_in(row, held)


def _proven(office: Office, caller: Caller, request: api.Readmit, state: AccountState) -> bytes:
    """The device hash of the chain's admin device, whose keys and whose account key made the proof."""
    device = next(each for _, each in state.listed if each.device == state.body.admin_device)
    statement = RegisterStatement(
        office.config.origin.encode(),
        office.key.public,
        sha256(request.token),
        state.genesis_hash,
        device_hash(device),
        caller.hello.nonce,
    )
    check_register(state.account_key, device, statement, tls.decode(RegisterProof, request.proof))
    return statement.device_hash


async def _return(office: Office, request: api.Readmit, state: AccountState, moment: Moment) -> None:
    """An account that the relay does not know. A name that is another's by now is not a reason to refuse."""
    accounts.require_room(office)
    accounts.require_servable(request.chain)
    name = accounts.checked_claim(state, request.name_claim) if request.name_claim is not None else None
    row = accounts.account_row(state, request.chain)
    devices = state.body.device_hashes
    token = None if office.config.open else sha256(request.token)
    code = await office.storage.register(NewAccount(row, devices, name), token, moment.now_s)
    if code == api.CONFLICT and name is not None:
        code = await office.storage.register(NewAccount(row, devices, None), token, moment.now_s)
    if code == api.TOKEN_REFUSED:
        raise accounts.token_refused()
    if code:
        raise list_conflict()


def _whole(encoded: bytes, account: bytes) -> AccountUpdate:
    update = tls.decode(AccountUpdate, encoded)
    if update.genesis is None or genesis_hash(update.genesis) != account:
        raise Refusal(api.INVALID, "the chain is not the whole chain of the calling account")
    return update


async def _take(office: Office, row: AccountRow, update: AccountUpdate, moment: Moment) -> None:
    """RemoteError, Refusal CONFLICT; compare-and-set on the head it was judged against."""
    before = kept.state(row)
    if update.links[-1].head == row.head:
        return
    try:
        after, chain = _judged(before, kept.chain(row), update, moment.now_s)
    except ForkDetected:
        raise list_conflict() from None
    extended = tls.encode(chain)
    accounts.require_servable(extended)
    change = ListChange(
        row.head,
        accounts.account_row(after, extended),
        after.body.device_hashes,
        tuple(link.head for link in chain.links[:-1]),
    )
    if not await office.storage.put_list(change):
        raise list_conflict()
    for gone in sorted(set(before.body.device_hashes) - set(after.body.device_hashes)):
        office.dismiss(gone, "this device was removed from its account")


def _judged(
    before: AccountState, stored: AccountUpdate, update: AccountUpdate, now_s: int
) -> tuple[AccountState, AccountUpdate]:
    """The account after the chain, and the chain to serve. RemoteError, Refusal CONFLICT."""
    last = update.links[-1]
    if before.head in (link.head for link in update.links):
        lacking = update.since(before.key_epoch, before.version)
        after, _ = advance(before, lacking, now_s)
        return after, stored.followed_by(lacking)
    if last.key_epoch > before.key_epoch:
        return first_contact(update, before.genesis_hash, now_s, owner=True), update
    raise list_conflict()
