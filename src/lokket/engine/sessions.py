"""Which session, and what is it called: sessions keyed by device hash, and their binding.

The session id (docs/identity.md, "Binding") covers both accounts, both devices, every prekey and the
manifest; both sides compute it from the handshake and their own records.
"""

from __future__ import annotations

from lokket.engine.prekeys import manifest_hash_of
from lokket.engine.records import Account, PeerDevice, SessionRow, load, save
from lokket.engine.step import Step, local_device
from lokket.engine.store import PEER, SESSION, Transaction
from lokket.protocol import identity, pairwise, prekeys

_MANIFESTS_KEPT = 8


def record_of(tx: Transaction, device_hash: bytes) -> pairwise.SessionRecord | None:
    row = load(tx, SESSION, device_hash, SessionRow)
    return None if row is None else pairwise.SessionRecord.decode(row.record)


def store(step: Step, device_hash: bytes, record: pairwise.SessionRecord, session_id: bytes) -> None:
    save(step.tx, SESSION, device_hash, SessionRow(record.encode(), session_id))


def session_id_of(tx: Transaction, device_hash: bytes) -> bytes:
    row = load(tx, SESSION, device_hash, SessionRow)
    return b"" if row is None else row.session_id


def binding(
    tx: Transaction,
    account: Account,
    peer: tuple[bytes, bytes],
    handshake: pairwise.Handshake,
) -> bytes | None:
    """The session id of a handshake with ``peer`` (genesis hash, device hash).

    None: the manifest that it relied on is no longer known here.
    """
    own = (account.genesis_hash, account.device_hash)
    own_identity = local_device(account).identity.public
    if handshake.initiator_identity == own_identity:
        device = load(tx, PEER, peer[1], PeerDevice)
        known = dict(device.manifests) if device is not None else {}
        manifest_hash = known.get(handshake.signed_prekey_id)
        initiator, responder = own, peer
    else:
        manifest_hash = manifest_hash_of(tx, handshake.signed_prekey_id)
        initiator, responder = peer, own
    if manifest_hash is None:
        return None
    return prekeys.session_id(handshake, initiator, responder, manifest_hash)


def begin(
    step: Step, account: Account, peer_state: identity.AccountState, device_hash: bytes, served: bytes
) -> None:
    """Open a session from what the relay served. RemoteError: something in it does not verify."""
    device = load(step.tx, PEER, device_hash, PeerDevice) or PeerDevice(peer_state.genesis_hash)
    checked = prekeys.check_bundle(served, peer_state, device_hash, device.manifest_number, step.now_s)
    record = pairwise.begin(
        record_of(step.tx, device_hash), local_device(account), checked.bundle, step.now_ms, step.entropy
    )
    used = (checked.bundle.signed_prekey_id, checked.manifest_hash)
    manifests = (*(known for known in device.manifests if known[0] != used[0]), used)[-_MANIFESTS_KEPT:]
    save(
        step.tx,
        PEER,
        device_hash,
        PeerDevice(
            device.genesis_hash,
            checked.manifest_number,
            manifests,
            device.heals_day,
            device.heals_honoured,
        ),
    )
    session_id = binding(step.tx, account, (peer_state.genesis_hash, device_hash), record.handshake)
    assert session_id is not None
    store(step, device_hash, record, session_id)
