"""Contacts: how one comes to be, what their signed chain says, and what a change of it means.

Names resolve here and nowhere else: ``AddContact`` looks a name up once and pins the genesis hash.
Every chain, also our own, enters through ``chain_arrived``.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.codec import tls
from lokket.engine import book, incoming, linking, outbox, trust, whole_chain
from lokket.engine.events import AcceptContact, AddContact, BlockContact, RenameContact, UnblockContact
from lokket.engine.records import Contact, Errand, rows, save
from lokket.engine.step import Step, require_account
from lokket.engine.store import ERRAND, Transaction
from lokket.errors import LocalError, RemoteError
from lokket.protocol import identity
from lokket.wire import api

_AGAIN_MS = 60_000
_GONE = "the relay knows no such account"


# --- adding ---


def add(step: Step, command: AddContact) -> None:
    """Begin: by link the genesis hash is known, by name the relay is asked once. Both end in a chain."""
    account = require_account(step.tx)
    book.check_petname(step.tx, command.petname)
    if command.link:
        invite = identity.Invite.parse(command.link)
        if (invite.origin, invite.relay_key) != (account.origin, account.relay_key):
            raise LocalError("this invite belongs to another relay than your account")
        if invite.genesis_hash is None or invite.creator_device is None:
            raise LocalError("this link only opens an account: it names nobody")
        if invite.expires_s < step.now_s:
            raise LocalError("this invite has expired: ask for a new one")
        _require_new(step.tx, account.genesis_hash, invite.genesis_hash)
        errand = Errand(
            "contact", command.petname, "", invite.genesis_hash, invite.secret, invite.creator_device
        )
    else:
        identity.check_name(command.name)
        errand = Errand("contact", command.petname, command.name, b"")
    save(step.tx, ERRAND, book.errand_key(command.petname), errand)
    _pursue(step, errand)


def remember_inviter(step: Step, invite: identity.Invite) -> None:
    """The account is being made through a link: its creator becomes the first contact once online."""
    assert invite.genesis_hash is not None
    assert invite.creator_device is not None
    errand = Errand("contact", "", "", invite.genesis_hash, invite.secret, invite.creator_device)
    save(step.tx, ERRAND, book.errand_key("inviter"), errand)


def resume(step: Step) -> None:
    for _, errand in rows(step.tx, ERRAND, Errand):
        _pursue(step, errand)
    for contact in book.everyone(step.tx):
        if not contact.barred and book.state_of(contact).expired(step.now_s):
            book.fetch(step, contact.genesis_hash)
    for genesis_hash in sorted(incoming.awaited(step.tx)):
        book.fetch(step, genesis_hash)


def _pursue(step: Step, errand: Errand) -> None:
    if errand.genesis_hash:
        book.fetch(step, errand.genesis_hash)
    else:
        step.call(f"name:{errand.name}", api.LookupName(errand.name))


def name_answered(step: Step, name: str, reply: api.Reply) -> None:
    """The relay's hint: pinned from here on, and checked against the chain that it points to."""
    account = require_account(step.tx)
    for key, errand in rows(step.tx, ERRAND, Errand):
        if errand.name != name or errand.genesis_hash:
            continue
        match reply:
            case api.NameRecord(genesis_hash=genesis_hash, claim=claim):
                try:
                    _require_new(step.tx, account.genesis_hash, genesis_hash)
                    identity.check_name_of(identity.SignedNameClaim.decode(claim), name, genesis_hash)
                except (LocalError, RemoteError) as error:
                    _fail_errand(step, key, errand, str(error))
                    continue
                pinned = msgspec.structs.replace(errand, genesis_hash=genesis_hash, claim=claim)
                save(step.tx, ERRAND, key, pinned)
                _pursue(step, pinned)
            case api.Refused(code=api.UNKNOWN):
                _fail_errand(step, key, errand, f"nobody on this relay is called {name!r}")
            case api.Refused(sentence=sentence):
                _fail_errand(step, key, errand, sentence)


# --- chains ---


def chain_arrived(step: Step, genesis_hash: bytes, reply: api.Reply) -> None:
    """A chain, or none. First contact, catching up, and the mail that waited for either."""
    account = require_account(step.tx)
    if not account.state and genesis_hash != account.genesis_hash:
        return  # our own list comes first: this is asked again then
    known = book.known_state(step, genesis_hash)
    match reply:
        case api.Account(chain=chain):
            try:
                update = tls.decode(identity.AccountUpdate, chain)
                if known is None:
                    _first_contact(step, genesis_hash, update)
                elif genesis_hash == account.genesis_hash:
                    trust.own_chain(step, known, update)
                else:
                    trust.contact_chain(step, known, update)
            except RemoteError as error:
                _give_up(step, genesis_hash, f"the relay's answer on this account does not verify: {error}")
            else:
                _settle_errands(step, genesis_hash)
                incoming.account_known(step, genesis_hash)
        case api.Refused(code=api.UNKNOWN):
            _give_up(step, genesis_hash, _GONE)
        case api.Refused(sentence=sentence):
            _give_up(step, genesis_hash, sentence)


def _first_contact(step: Step, genesis_hash: bytes, update: identity.AccountUpdate) -> None:
    account = require_account(step.tx)
    state = identity.first_contact(update, genesis_hash, step.now_s)
    heads = trust.more_heads((), update)
    if genesis_hash == account.genesis_hash:
        whole_chain.keep(step.tx, update)
        trust.own_first(step, state, heads)
        linking.listed(step)
        resume(step)
        return
    errands = [
        (key, errand)
        for key, errand in rows(step.tx, ERRAND, Errand)
        if errand.genesis_hash == genesis_hash and errand.kind == "contact"
    ]
    for key, errand in errands:
        if _claim_holds(state, errand):
            _become_contact(step, key, errand, state, heads)
            return
        sentence = f"the relay's claim for the name {errand.name!r} does not verify"
        _fail_errand(step, key, errand, sentence)
    if genesis_hash in incoming.awaited(step.tx):
        _meet_stranger(step, state, heads, known_to_us=incoming.vouched_for(step, genesis_hash))


def _claim_holds(state: identity.AccountState, errand: Errand) -> bool:
    if not errand.claim:
        return True
    try:
        identity.check_name_claim(state, identity.SignedNameClaim.decode(errand.claim))
    except RemoteError:
        return False
    return True


def _become_contact(
    step: Step, key: bytes, errand: Errand, state: identity.AccountState, heads: tuple[bytes, ...]
) -> None:
    step.tx.delete(ERRAND, key)
    auto = not errand.petname
    contact = Contact(
        petname=errand.petname or book.free_petname(step.tx, "inviter", state.genesis_hash),
        auto_named=auto,
        genesis_hash=state.genesis_hash,
        state=state.encode(),
        status="accepted",
        level="unverified",
        name=errand.name or None,
        invite_secret=errand.invite_secret,
        heads=heads,
        added_ms=step.now_ms,
    )
    _enter(step, contact, state)
    if errand.invite_secret:
        invite_id = identity.derive_invite(errand.invite_secret).id
        outbox.introduce(step, contact, errand.creator_device, invite_id)
    outbox.share(step, contact)


def _meet_stranger(
    step: Step, state: identity.AccountState, heads: tuple[bytes, ...], *, known_to_us: bool
) -> None:
    """Somebody wrote first: a request until the person accepts. One whom our own device knows is accepted.

    When too many wait already, their mail goes to quarantine.
    """
    requests = sum(1 for known in book.everyone(step.tx) if known.status == "request")
    if not known_to_us and requests >= limits.REQUESTS_MAX:
        return
    contact = Contact(
        petname=f"stranger-{state.genesis_hash.hex()[:8]}",
        auto_named=True,
        genesis_hash=state.genesis_hash,
        state=state.encode(),
        status="accepted" if known_to_us else "request",
        level="unverified",
        heads=heads,
        added_ms=step.now_ms,
    )
    _enter(step, contact, state)


def _enter(step: Step, contact: Contact, state: identity.AccountState) -> None:
    book.store(step.tx, contact)
    trust.learn_devices(step, state)
    book.announce(step, contact)


# --- a person's decisions ---


def accept(step: Step, command: AcceptContact) -> None:
    contact = book.named(step.tx, command.petname)
    if contact.barred:
        raise LocalError(f"you blocked {contact.petname}: 'lokket unblock {contact.petname}' first")
    if contact.blocked == "forked":
        raise LocalError("the relay shows two versions of this account: only a new invite in person helps")
    if contact.blocked == "rotated":
        contact = msgspec.structs.replace(contact, blocked="")
        book.store(step.tx, contact)
    if contact.status == "request":
        contact = msgspec.structs.replace(contact, status="accepted")
        book.store(step.tx, contact)
        outbox.share(step, contact)
        incoming.no_stranger_now(step, contact)


def block(step: Step, command: BlockContact) -> None:
    _decide(step, command.petname, barred=True)


def unblock(step: Step, command: UnblockContact) -> None:
    contact = _decide(step, command.petname, barred=False)
    if contact.status == "accepted":
        book.fetch(step, contact.genesis_hash)


def _decide(step: Step, petname: str, *, barred: bool) -> Contact:
    contact = book.named(step.tx, petname)
    if contact.barred == barred:
        return contact
    decided_ms = max(step.now_ms, contact.barred_ms + 1)
    contact = msgspec.structs.replace(contact, barred=barred, barred_ms=decided_ms)
    book.store(step.tx, contact)
    if barred:
        outbox.silence(step, contact)
    outbox.share(step, contact)
    return contact


def rename(step: Step, command: RenameContact) -> None:
    contact = book.named(step.tx, command.petname)
    book.check_petname(step.tx, command.new_petname)
    contact = msgspec.structs.replace(contact, named_ms=max(step.now_ms, contact.named_ms + 1))
    outbox.share(step, book.rename(step.tx, contact, command.new_petname, auto_named=False))


# --- failing ---


def _fail_errand(step: Step, key: bytes, errand: Errand, sentence: str) -> None:
    step.tx.delete(ERRAND, key)
    book.fail(step, f"contact:{errand.petname}", sentence)


def _give_up(step: Step, genesis_hash: bytes, sentence: str) -> None:
    """The person is told. Mail that waits for the account goes on waiting, and it is asked for again."""
    for key, errand in rows(step.tx, ERRAND, Errand):
        if errand.genesis_hash == genesis_hash:
            _fail_errand(step, key, errand, sentence)
    if genesis_hash in incoming.awaited(step.tx):
        book.fetch(step, genesis_hash, after_ms=_AGAIN_MS)


def _settle_errands(step: Step, genesis_hash: bytes) -> None:
    """One errand made the contact; a second one for the same account has nothing left to do."""
    contact = book.of(step.tx, genesis_hash)
    for key, errand in rows(step.tx, ERRAND, Errand):
        if contact is not None and errand.genesis_hash == genesis_hash:
            _fail_errand(step, key, errand, f"you know this account already, as {contact.petname!r}")


def _require_new(tx: Transaction, own_genesis_hash: bytes, genesis_hash: bytes) -> None:
    if genesis_hash == own_genesis_hash:
        raise LocalError("that is your own account")
    known = book.of(tx, genesis_hash)
    if known is not None:
        raise LocalError(f"you know this account already, as {known.petname!r}")
