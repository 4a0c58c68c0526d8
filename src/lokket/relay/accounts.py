"""Accounts: registration, login, device lists. Everything signed is verified here before it is kept.

A login's freshness is the greeting's nonce, used once and for 60 seconds. The time a client signs is
not judged: a wrong clock must not lock anyone out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lokket import limits
from lokket.codec import tls
from lokket.crypto.keys import Ed25519KeyPair
from lokket.crypto.primitives import sha256
from lokket.errors import SignatureRefused
from lokket.protocol.identity import (
    AccountState,
    AccountUpdate,
    Device,
    ForkDetected,
    Genesis,
    ListBody,
    LoginStatement,
    RegisterProof,
    RegisterStatement,
    SignedLink,
    SignedNameClaim,
    SignedRotation,
    account_id,
    advance,
    check_login,
    check_name_claim,
    check_register,
    device_hash,
    first_contact,
    genesis_hash,
    step_update,
)
from lokket.relay import kept
from lokket.relay.office import Caller, Moment, Office, Refusal
from lokket.relay.storage.base import AccountRow, DeviceRow, ListChange, NameRow, NewAccount
from lokket.wire import api

_NOBODY: Final = Ed25519KeyPair(sha256(b"no device has this key")).public
_NO_ROOM_RETRY_MS: Final = 300_000
_FRAME_ROOM_BYTES: Final = 64  # of a frame, around the chain that it carries


# --- login ---


async def login(office: Office, caller: Caller, request: api.Login, moment: Moment) -> api.LoggedIn:
    """Every failure gets one answer after one signature check, whether or not the device exists."""
    attempt(caller, moment)
    return await _log_in(office, caller, request, moment)


async def _log_in(office: Office, caller: Caller, request: api.Login, moment: Moment) -> api.LoggedIn:
    row = await office.storage.account(request.genesis_hash)
    device = kept.state(row).device(request.device_hash) if row is not None else None
    auth_key = device.auth_key if device is not None else _NOBODY
    try:
        check_login(auth_key, _statement(office, caller, request), request.signature)
    except SignatureRefused:
        raise _login_refused() from None
    await require_not_banned(office, request.genesis_hash)
    office.spend("login", request.device_hash, moment)
    before = await office.storage.device(request.device_hash)
    if before is None or row is None:
        raise _login_refused()
    office.seat(caller, request.genesis_hash, request.device_hash)
    caller.client_nonce = request.client_nonce
    return logged_in(row, before)


async def answer_came(office: Office, caller: Caller) -> None:
    """The device asks for something: it has our answer to its login. Only now its nonce is the last one.

    Otherwise an answer that was lost would hide from a restored vault what the relay knew of the newer one.
    """
    if caller.client_nonce and office.sessions.get(caller.device_hash) is caller:
        await office.storage.login(caller.device_hash, caller.client_nonce)
        caller.client_nonce = b""


async def require_not_banned(office: Office, account: bytes) -> None:
    """After the signature: only who holds the account's keys is told."""
    if (await office.storage.ruling(account)).banned:
        raise Refusal(api.LOGIN_REFUSED, "this account is banned from this relay; its operator can say why")


def _statement(office: Office, caller: Caller, request: api.Login) -> LoginStatement:
    """What the device has to have signed, with our own origin, key and nonce."""
    return LoginStatement(
        office.config.origin.encode(),
        office.key.public,
        request.genesis_hash,
        request.device_hash,
        caller.hello.nonce,
        request.client_nonce,
        request.time_s,
    )


def attempt(caller: Caller, moment: Moment) -> None:
    """Whatever may be asked before the login: a few times, soon after the greeting. Refusal LOGIN_REFUSED."""
    if caller.device_hash:
        raise Refusal(api.LOGIN_REFUSED, "this connection is logged in already; its greeting is used up")
    caller.attempts += 1
    if caller.attempts > limits.LOGIN_ATTEMPTS_MAX:
        raise Refusal(api.LOGIN_REFUSED, "too many attempts on one connection; connect again")
    if abs(moment.now_ms - caller.opened_ms) > limits.LOGIN_VALID_S * 1000:
        raise Refusal(api.LOGIN_REFUSED, "the relay's greeting is too old; connect again")


def _login_refused() -> Refusal:
    return Refusal(api.LOGIN_REFUSED, "the relay does not know this device, or the signature is wrong")


def logged_in(account: AccountRow, device: DeviceRow) -> api.LoggedIn:
    return api.LoggedIn(
        last_nonce=device.last_nonce,
        head=account.head,
        key_epoch=account.key_epoch,
        version=account.version,
        manifest_number=device.manifest_number,
        pairs_left=device.pairs_left,
        mailbox=device.mail_count,
    )


# --- recovery, by who has the recovery code and no device ---


async def fetch_chain(office: Office, caller: Caller, request: api.FetchChain, moment: Moment) -> api.Account:
    """Before the login: who knows an account's hash may see its chain, seldom."""
    attempt(caller, moment)
    row = await office.storage.account(request.genesis_hash)
    if row is None:
        raise Refusal(api.UNKNOWN, "the relay does not know this account")
    office.spend("chain", request.genesis_hash, moment)
    return api.Account(row.chain)


async def recover(office: Office, caller: Caller, request: api.Recover, moment: Moment) -> api.LoggedIn:
    """1. The rotation and its list, by compare-and-set. 2. The new device's login, which proves its key.

    Both are judged before either is stored; a crash in between leaves a device that simply logs in.
    """
    attempt(caller, moment)
    step = _Step(
        tls.decode(SignedLink, request.link),
        tls.decode(ListBody, request.body),
        (request.device,),
        tls.decode(SignedRotation, request.rotation),
    )
    device = tls.decode(Device, request.device)
    row = await office.storage.account(step.signed.link.genesis)
    if row is None:
        raise Refusal(api.UNKNOWN, "the relay does not know this account")
    _require_login_by(office, caller, request.login, device, step)
    office.spend("recover", row.genesis_hash, moment)
    await _take_list(office, row, step, moment)
    return await _log_in(office, caller, request.login, moment)


def _require_login_by(
    office: Office, caller: Caller, request: api.Login, device: Device, step: _Step
) -> None:
    """The login that comes along is this device's, on this connection. SignatureRefused, Refusal."""
    named = (request.genesis_hash, request.device_hash)
    if named != (step.signed.link.genesis, device_hash(device)):
        raise Refusal(api.INVALID, "the login that comes with a recovery is another device's")
    check_login(device.auth_key, _statement(office, caller, request), request.signature)


# --- registration ---


@dataclass(frozen=True, slots=True)
class _Applicant:
    """A registration whose every signature was verified."""

    state: AccountState
    chain: bytes
    device_hash: bytes
    name: NameRow | None


async def register(office: Office, caller: Caller, request: api.Register, moment: Moment) -> api.LoggedIn:
    """1. A look at the token, before anything costly. 2. Every signature. 3. Token and account in one
    transaction. 4. The connection is the device's.

    An account that exists already spends nothing: its first device is logged in, by the same proof.
    """
    attempt(caller, moment)
    token_hash = None if office.config.open else sha256(request.token)
    account = genesis_hash(tls.decode(Genesis, request.genesis))
    known = await office.storage.account(account)
    if known is None and not await _may_register(office, token_hash, account, moment):
        raise token_refused()
    office.spend("register", b"", moment)
    applicant = _checked_applicant(office, caller, request, moment)
    await require_not_banned(office, account)
    if known is None:
        require_room(office)
        row = account_row(applicant.state, applicant.chain)
        code = await office.storage.register(
            NewAccount(row, (applicant.device_hash,), applicant.name), token_hash, moment.now_s
        )
        if code == api.TOKEN_REFUSED:
            raise token_refused()
        if code:
            raise Refusal(code, "the name is taken; choose another one")
        known = await office.storage.account(account)
    device = await office.storage.device(applicant.device_hash)
    if known is None or device is None:
        raise Refusal(api.CONFLICT, "the account exists, and this device is not on its list")
    office.seat(caller, account, applicant.device_hash)
    return logged_in(known, device)


def require_room(office: Office) -> None:
    short = office.shortage()
    if short:
        sentence = f"the relay takes no new accounts now: {short}; try again later"
        raise Refusal(api.UNAVAILABLE, sentence, _NO_ROOM_RETRY_MS)


async def _may_register(office: Office, token_hash: bytes | None, account: bytes, moment: Moment) -> bool:
    return token_hash is None or await office.storage.token_open(token_hash, account, moment.now_s)


def token_refused() -> Refusal:
    return Refusal(api.TOKEN_REFUSED, "the invite is used, too old, or not of this relay; ask for a new one")


def _checked_applicant(office: Office, caller: Caller, request: api.Register, moment: Moment) -> _Applicant:
    """RemoteError: something does not verify."""
    genesis = tls.decode(Genesis, request.genesis)
    update = step_update(
        tls.decode(SignedLink, request.link),
        tls.decode(ListBody, request.body),
        request.devices,
        genesis=genesis,
    )
    account = genesis_hash(genesis)
    state = first_contact(update, account, moment.now_s)
    ((device_hash, device),) = state.listed
    statement = RegisterStatement(
        office.config.origin.encode(),
        office.key.public,
        sha256(request.token),
        account,
        device_hash,
        caller.hello.nonce,
    )
    check_register(state.account_key, device, statement, tls.decode(RegisterProof, request.proof))
    name = checked_claim(state, request.name_claim) if request.name_claim is not None else None
    return _Applicant(state, tls.encode(update), device_hash, name)


def checked_claim(state: AccountState, claim: bytes) -> NameRow:
    """RemoteError: the claim is malformed, or of another account or key."""
    checked = check_name_claim(state, SignedNameClaim.decode(claim))
    return NameRow(checked.name.decode(), state.genesis_hash, claim)


def account_row(state: AccountState, chain: bytes) -> AccountRow:
    return AccountRow(
        state.genesis_hash,
        account_id(state.genesis_hash),
        state.head,
        state.key_epoch,
        state.version,
        state.encode(),
        chain,
    )


# --- device lists ---


async def stored_account(office: Office, account: bytes) -> AccountRow:
    """Of a logged-in caller: it is there."""
    row = await office.storage.account(account)
    if row is None:
        raise Refusal(api.UNKNOWN, "the relay does not know this account")
    return row


async def put_list(office: Office, caller: Caller, request: api.PutList, moment: Moment) -> api.Ok:
    """The next list of the caller's account."""
    office.spend("list", caller.genesis_hash, moment)
    rotation = tls.decode(SignedRotation, request.rotation) if request.rotation is not None else None
    step = _Step(
        tls.decode(SignedLink, request.link), tls.decode(ListBody, request.body), request.devices, rotation
    )
    await _take_list(office, await stored_account(office, caller.genesis_hash), step, moment)
    return api.Ok()


@dataclass(frozen=True, slots=True)
class _Step:
    """One list as it was sent, not yet judged."""

    signed: SignedLink
    body: ListBody
    devices: tuple[bytes, ...]
    rotation: SignedRotation | None


async def _take_list(office: Office, row: AccountRow, step: _Step, moment: Moment) -> None:
    """The next list, judged as a contact judges it, then compare-and-set on the head it was judged against.

    A device that is no longer listed loses its mailbox, its prekeys and its connection. A list that is there
    already changes nothing.
    """
    signed, body, rotation = step.signed, step.body, step.rotation
    if signed.link.head == row.head:
        return
    before = kept.state(row)
    chain = kept.chain(row)
    _require_next(before, chain, signed, rotation)
    try:
        after, _ = advance(before, step_update(signed, body, step.devices, rotation=rotation), moment.now_s)
    except ForkDetected:
        raise list_conflict() from None
    known = tuple(entry.device for entry in before.devices if entry.device is not None)
    extended = tls.encode(chain.extended(signed, body, (*known, *step.devices), rotation))
    require_servable(extended)
    change = ListChange(row.head, account_row(after, extended), after.body.device_hashes)
    if not await office.storage.put_list(change):
        raise list_conflict()
    for gone in sorted(set(before.body.device_hashes) - set(after.body.device_hashes)):
        office.dismiss(gone, "this device was removed from its account")


def _require_next(
    before: AccountState, chain: AccountUpdate, signed: SignedLink, rotation: SignedRotation | None
) -> None:
    """Refusal CONFLICT unless the link names the stored head, or its rotation a stored link to cut to."""
    if rotation is None:
        follows = signed.link.previous == before.head
    else:
        cut = (rotation.rotation.last_version, rotation.rotation.last_head)
        follows = cut in ((link.version, link.head) for link in chain.links)
    if not follows:
        raise list_conflict()
    if len(chain.links) >= limits.LINKS_MAX:
        raise Refusal(api.TOO_LARGE, "the account has as many lists as one chain may have")


def require_servable(chain: bytes) -> None:
    if len(chain) > limits.FRAME_MAX_BYTES - _FRAME_ROOM_BYTES:
        raise Refusal(api.TOO_LARGE, "the account's history no longer fits one answer of the relay")


def list_conflict() -> Refusal:
    return Refusal(api.CONFLICT, "the list does not follow the one that the relay has; fetch that one first")


async def fetch(office: Office, caller: Caller, request: api.FetchAccount, moment: Moment) -> api.Account:
    office.spend("account", caller.genesis_hash, moment)
    row = await office.storage.account(request.genesis_hash)
    if row is None:
        raise Refusal(api.UNKNOWN, "the relay does not know this account")
    if not request.known_version:
        return api.Account(row.chain)
    update = kept.chain(row).since(request.known_epoch, request.known_version)
    return api.Account(tls.encode(update))
