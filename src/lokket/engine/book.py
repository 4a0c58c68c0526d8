"""The contact book: rows of contacts and the few things everybody asks of them.

The rooms above it (``contacts``, ``trust``, ``incoming``, ``outgoing``) change what a row says.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from lokket.engine.events import ContactAdded, ErrandFailed
from lokket.engine.records import Contact, load, rows, save
from lokket.engine.step import Step, own_state, require_account
from lokket.engine.step import state_of as decoded_state
from lokket.engine.store import CONTACT, ERRAND, PETNAME, Transaction
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.wire import api

_PETNAME_MAX_CHARS = 64


def of(tx: Transaction, genesis_hash: bytes) -> Contact | None:
    return load(tx, CONTACT, genesis_hash, Contact)


def may_be_answered(tx: Transaction, genesis_hash: bytes) -> bool:
    """Our own devices and accepted contacts; strangers and the blocked get no sign of life."""
    contact = of(tx, genesis_hash)
    return contact is None or (contact.status == "accepted" and not contact.barred)


def named(tx: Transaction, petname: str) -> Contact:
    """LocalError: nobody goes by this petname."""
    genesis_hash = tx.get(PETNAME, petname.encode())
    contact = None if genesis_hash is None else of(tx, genesis_hash)
    if contact is None:
        raise LocalError(f"you have no contact called {petname!r}: see 'lokket contacts'")
    return contact


def everyone(tx: Transaction) -> Iterator[Contact]:
    for _, contact in rows(tx, CONTACT, Contact):
        yield contact


def state_of(contact: Contact) -> identity.AccountState:
    return decoded_state(contact.state)


def store(tx: Transaction, contact: Contact) -> None:
    save(tx, CONTACT, contact.genesis_hash, contact)
    tx.put(PETNAME, contact.petname.encode(), contact.genesis_hash)


def rename(tx: Transaction, contact: Contact, petname: str, *, auto_named: bool) -> Contact:
    tx.delete(PETNAME, contact.petname.encode())
    renamed = msgspec.structs.replace(contact, petname=petname, auto_named=auto_named)
    store(tx, renamed)
    return renamed


def known_state(step: Step, genesis_hash: bytes) -> identity.AccountState | None:
    """What we hold of an account's chain, our own included."""
    account = require_account(step.tx)
    if genesis_hash == account.genesis_hash:
        return own_state(account) if account.state else None
    contact = of(step.tx, genesis_hash)
    return None if contact is None else state_of(contact)


def fetch(step: Step, genesis_hash: bytes, *, after_ms: int = 0) -> None:
    """Ask the relay for what is new in an account's chain, our own included: now, or a while later."""
    known = known_state(step, genesis_hash)
    epoch, version = (0, 0) if known is None else (known.key_epoch, known.version)
    name, request = f"account:{genesis_hash.hex()}", api.FetchAccount(genesis_hash, epoch, version)
    if after_ms:
        step.ask_later(name, request, after_ms)
    else:
        step.call(name, request)


def announce(step: Step, contact: Contact) -> None:
    own = own_state(require_account(step.tx))
    number = identity.safety_number(own, state_of(contact))
    step.emit(ContactAdded(contact.petname, contact.genesis_hash, shown_level(contact), number))


def shown_level(contact: Contact) -> str:
    """blocked, request, else the level; "was verified" of one whose proof no longer holds."""
    if contact.barred:
        return "blocked"
    if contact.status != "accepted":
        return contact.status
    return f"was {contact.was}" if contact.was and contact.level == "unverified" else contact.level


def calls_itself(step: Step, contact: Contact, name: str | None) -> Contact:
    """They say what they call themselves. A petname that we did not choose follows it, if it is free."""
    if name is None or name == contact.name or not identity.is_name(name):
        return contact
    contact = msgspec.structs.replace(contact, name=name)
    store(step.tx, contact)
    if contact.auto_named:
        petname = free_petname(step.tx, name, contact.genesis_hash)
        contact = rename(step.tx, contact, petname, auto_named=True)
        announce(step, contact)
    return contact


def is_petname(petname: str) -> bool:
    return 1 <= len(petname) <= _PETNAME_MAX_CHARS and petname.isprintable() and petname == petname.strip()


def check_petname(tx: Transaction, petname: str) -> None:
    """LocalError: unusable or in use."""
    if not is_petname(petname):
        raise LocalError("a petname has 1 to 64 printable characters")
    if tx.get(PETNAME, petname.encode()) is not None or tx.get(ERRAND, errand_key(petname)) is not None:
        raise LocalError(f"you have a contact called {petname!r} already: choose another petname")


def free_petname(tx: Transaction, wish: str, genesis_hash: bytes) -> str:
    """``wish`` itself if nobody has it, else with the start of the account's hash."""
    taken = tx.get(PETNAME, wish.encode()) is not None or tx.get(ERRAND, errand_key(wish)) is not None
    return f"{wish}-{genesis_hash.hex()[:8]}" if taken else wish


def errand_key(petname: str) -> bytes:
    return b"contact:" + petname.encode()


def fail(step: Step, errand: str, sentence: str) -> None:
    step.emit(ErrandFailed(errand, sentence))
