"""Deleting our account at the relay: asked for until the relay confirms, also after a crash.

The vault is not touched here: whoever asked destroys it once ``AccountDeleted`` has come.
"""

from __future__ import annotations

import msgspec

from lokket.codec import tls
from lokket.engine import book, devices
from lokket.engine.events import AccountDeleted, DeleteAccount, HangUp
from lokket.engine.step import Step, account_of, require_account, save_account
from lokket.engine.store import Transaction
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.wire import api


def begin(step: Step, command: DeleteAccount) -> None:
    """From here on this device does nothing else than ask. LocalError: another device holds the key."""
    account = require_account(step.tx)
    if account.status not in ("active", "deleting", "deleted") or not devices.is_admin(account):
        raise LocalError("only the admin device can delete the account: see 'lokket device list'")
    if account.status == "active":
        save_account(step.tx, msgspec.structs.replace(account, status="deleting"))
    resume(step)


def resume(step: Step) -> bool:
    """Ask the relay, if that is what the account waits for. True: nothing else is to be done."""
    account = require_account(step.tx)
    if account.status == "deleted":
        step.emit(AccountDeleted())
    if account.status != "deleting":
        return account.status == "deleted"
    if step.link.online and step.link.hello is not None:
        hello = step.link.hello
        statement = identity.DeleteStatement(
            hello.origin.encode(), hello.relay_key, account.genesis_hash, hello.nonce
        )
        account_key = identity.HybridKeyPair.from_seed(account.account_seed)
        signature = identity.sign_delete(account_key, statement, step.entropy)
        step.call("delete", api.DeleteAccount(tls.encode(signature)))
    return True


def is_over(tx: Transaction) -> bool:
    """The relay has confirmed it."""
    account = account_of(tx)
    return account is not None and account.status == "deleted"


def answered(step: Step, reply: api.Reply) -> None:
    match reply:
        case api.Ok():
            done(step)
        case api.Refused(sentence=sentence):
            account = require_account(step.tx)
            save_account(step.tx, msgspec.structs.replace(account, status="active"))
            book.fail(step, "delete", f"the relay did not delete the account: {sentence}")


def done(step: Step) -> None:
    """The relay knows the account no longer: it said so, or it refuses the login of a deleted one."""
    account = require_account(step.tx)
    save_account(step.tx, msgspec.structs.replace(account, status="deleted"))
    step.emit(AccountDeleted())
    step.emit(HangUp("the account was deleted"))
