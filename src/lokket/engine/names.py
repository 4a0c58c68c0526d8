"""Our own name at the relay: claimed with the account key, again after a recovery or a relay's restore."""

from __future__ import annotations

import msgspec

from lokket.engine import book, devices
from lokket.engine.records import Account
from lokket.engine.step import Step, require_account, save_account
from lokket.engine.store import ACCOUNT
from lokket.protocol import identity
from lokket.wire import api

_WANTED = b"claim"  # its key among the account's rows, until the relay has answered


def claim_again(step: Step) -> None:
    """The relay's record of our name is gone, or signed by an account key that is void."""
    if require_account(step.tx).name is not None:
        step.tx.put(ACCOUNT, _WANTED, b"1")
        resume(step)


def resume(step: Step) -> None:
    account = require_account(step.tx)
    if step.tx.get(ACCOUNT, _WANTED) is None or not account.state or not devices.is_admin(account):
        return
    if account.name is not None and step.link.online:
        step.call("claim", api.ClaimName(claim(step, account, account.name)))


def claim(step: Step, account: Account, name: str) -> bytes:
    account_key = identity.HybridKeyPair.from_seed(account.account_seed)
    signed = identity.sign_name_claim(account_key, name, account.genesis_hash, step.now_s, step.entropy)
    return signed.encode()


def answered(step: Step, reply: api.Reply) -> None:
    step.tx.delete(ACCOUNT, _WANTED)
    if isinstance(reply, api.Refused):
        save_account(step.tx, msgspec.structs.replace(require_account(step.tx), name=None))
        book.fail(step, "name", f"the relay did not take the name: {reply.sentence}")
