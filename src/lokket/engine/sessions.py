"""Which session, and what is it called: sessions keyed by device hash, and their binding.

The session id (docs/identity.md, "Binding") covers both accounts, both devices, every prekey and the
manifest; both sides compute it from the handshake and their own records, and remember it for as long as
they may receive in the session.
"""

from __future__ import annotations

import msgspec

from lokket import limits
from lokket.engine.prekeys import manifest_hash_of
from lokket.engine.records import Account, PeerDevice, SessionBinding, SessionRow, load, save
from lokket.engine.step import Step, local_device, require_account
from lokket.engine.store import PEER, SESSION, Transaction
from lokket.errors import DecodeError, LocalError
from lokket.protocol import identity, pairwise, prekeys

_MANIFESTS_KEPT = 8
_BINDINGS_KEPT = 1 + limits.ARCHIVED_SESSIONS_MAX


def record_of(tx: Transaction, device_hash: bytes) -> pairwise.SessionRecord | None:
    """LocalError: the row is damaged, which is no fault of the message that it was read for."""
    row = load(tx, SESSION, device_hash, SessionRow)
    try:
        return None if row is None else pairwise.SessionRecord.decode(row.record)
    except DecodeError:
        raise LocalError("a session in the vault is damaged: run 'lokket doctor'") from None


def store(step: Step, device_hash: bytes, record: pairwise.SessionRecord, session_id: bytes) -> None:
    before = load(step.tx, SESSION, device_hash, SessionRow)
    bindings = () if before is None else before.bindings
    if session_id and (not bindings or bindings[-1].session_id != session_id):
        known = next((one for one in bindings if one.session_id == session_id), None)
        others = (one for one in bindings if one.session_id != session_id)
        bindings = (*others, known or _made(step.tx, record.handshake, session_id))[-_BINDINGS_KEPT:]
    save(step.tx, SESSION, device_hash, SessionRow(record.encode(), session_id, bindings))


def _made(tx: Transaction, handshake: pairwise.Handshake, session_id: bytes) -> SessionBinding:
    own = local_device(require_account(tx)).identity.public
    return SessionBinding(handshake.base_key, session_id, handshake.initiator_identity == own)


def session_id_of(tx: Transaction, device_hash: bytes) -> bytes:
    row = load(tx, SESSION, device_hash, SessionRow)
    return b"" if row is None else row.session_id


def current(tx: Transaction, device_hash: bytes) -> SessionBinding | None:
    """Of the current session with a device. None: there is none, or what it is called is not known."""
    row = load(tx, SESSION, device_hash, SessionRow)
    if row is None or not row.session_id:
        return None
    return next((one for one in row.bindings if one.session_id == row.session_id), None)


def remember(tx: Transaction, device_hash: bytes, binding: SessionBinding) -> None:
    """Replace the binding of the same session."""
    row = load(tx, SESSION, device_hash, SessionRow)
    if row is not None:
        bindings = tuple(binding if one.session_id == binding.session_id else one for one in row.bindings)
        save(tx, SESSION, device_hash, msgspec.structs.replace(row, bindings=bindings))


def proven(tx: Transaction, device_hash: bytes) -> None:
    """The peer of the current session has shown what only the device it claims to be can know."""
    binding = current(tx, device_hash)
    if binding is not None:
        remember(tx, device_hash, msgspec.structs.replace(binding, proven=True, nonce=b""))


def authentication(tx: Transaction, device_hash: bytes) -> str:
    """What the current session says of who sends in it: classical, post-quantum, or none: there is none."""
    if tx.get(SESSION, device_hash) is None:
        return "none"
    binding = current(tx, device_hash)
    return "post-quantum" if binding is not None and (binding.ours or binding.proven) else "classical"


def binding(
    tx: Transaction,
    account: Account,
    peer: tuple[bytes, bytes],
    handshake: pairwise.Handshake,
) -> bytes | None:
    """The session id of a handshake with ``peer`` (genesis hash, device hash).

    None: neither it nor the manifest that it relied on is known here any more.
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
        row = load(tx, SESSION, peer[1], SessionRow)
        bindings = () if row is None else row.bindings
        return next((one.session_id for one in bindings if one.base_key == handshake.base_key), None)
    return prekeys.session_id(handshake, initiator, responder, manifest_hash)


def begin(
    step: Step,
    account: Account,
    peer_state: identity.AccountState,
    device_hash: bytes,
    served: bytes,
    *,
    leave_pair: bool = False,
) -> None:
    """Open a session from what the relay served. RemoteError: something in it does not verify."""
    device = load(step.tx, PEER, device_hash, PeerDevice) or PeerDevice(peer_state.genesis_hash)
    checked = prekeys.check_bundle(
        served, peer_state, device_hash, device.manifest_number, step.now_s, leave_pair=leave_pair
    )
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
