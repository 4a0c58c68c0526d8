"""Forgetting an account: its mailboxes, prekeys, list and devices go; its name rests for a year."""

from __future__ import annotations

from lokket.codec import tls
from lokket.protocol.identity import DeleteStatement, HybridSignature, check_delete
from lokket.relay import kept
from lokket.relay.accounts import stored_account
from lokket.relay.office import Caller, Moment, Office
from lokket.wire import api


async def delete_account(
    office: Office, caller: Caller, request: api.DeleteAccount, moment: Moment
) -> api.Ok:
    """By the account key alone, over this connection's greeting: a device, or its thief, cannot.

    Mail that waits for others stays: it is theirs.
    """
    office.spend("list", caller.genesis_hash, moment)
    row = await stored_account(office, caller.genesis_hash)
    state = kept.state(row)
    statement = DeleteStatement(
        office.config.origin.encode(), office.key.public, caller.genesis_hash, caller.hello.nonce
    )
    check_delete(state.account_key, statement, tls.decode(HybridSignature, request.signature))
    await forget(office, caller.genesis_hash, moment.now_s)
    return api.Ok()


async def forget(office: Office, genesis_hash: bytes, now_s: int) -> None:
    """Its rows and its connections; nobody there: nothing."""
    row = await office.storage.account(genesis_hash)
    await office.storage.delete_account(genesis_hash, now_s)
    for device_hash in kept.state(row).body.device_hashes if row is not None else ():
        office.dismiss(device_hash, "the account was deleted")
