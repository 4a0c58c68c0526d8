"""A group as rows of bytes, so that a step of a large group writes what it changed and nothing else.

The first byte of a key says what the row is. Of the group after a pending commit, head, nodes and keys that
differ stand under ``+``, those that go under ``-``, before the key that they have otherwise.

    h                 head: own place, context, secrets        n node         a node of the tree
    k node            a private key of ours                    q reference    a proposal that waits
    u hash            keys of an Update of ours                e epoch        a resumption secret
    s epoch node      a secret of a secret tree                r epoch leaf   a sender's ratchets
    p epoch           a past epoch                             l epoch leaf   a leaf that was changed then
    c                 the pending commit                       d leaf         a leaf that it changes
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from lokket.codec import tls
from lokket.crypto.kem import KEMKeyPair
from lokket.errors import DecodeError, LocalError
from lokket.limits import MLS_LEAVES_MAX
from lokket.protocol.mls.group_state import Epoch, GroupState, OwnKeys, PastEpoch, Pending
from lokket.protocol.mls.key_schedule import EpochSecrets
from lokket.protocol.mls.messages import Sender
from lokket.protocol.mls.persistent import IndexMap
from lokket.protocol.mls.proposals import Proposal, ReInit
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.ratchet_tree import AnyNode, RatchetTree, Subtree
from lokket.protocol.mls.secret_tree import LeafRatchets, MessageKey, Ratchet, SecretTree
from lokket.protocol.mls.settings import Settings
from lokket.protocol.mls.structs import GroupContext, LeafNode, Node
from lokket.protocol.mls.suite import CipherSuite, find_suite

_FORMAT: Final = 1

Rows = dict[bytes, bytes]
Changes = dict[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class _Head:
    format: tls.U8
    cipher_suite: tls.U16
    leaf_index: tls.U32
    signature_private: tls.Opaque
    context: GroupContext
    secrets: tuple[_Secret, ...]
    interim_transcript_hash: tls.Opaque
    confirmation_tag: tls.Opaque
    leaves: tls.U32
    reinit: ReInit | None
    removed: bool


@dataclass(frozen=True, slots=True)
class _Secret:
    secret: tls.Opaque


@dataclass(frozen=True, slots=True)
class _NodeRow:
    node: Node | None


@dataclass(frozen=True, slots=True)
class _ProposalRow:
    order: tls.U32
    proposal: Proposal
    sender: Sender
    authenticated_data: tls.Opaque


@dataclass(frozen=True, slots=True)
class _UpdateRow:
    encryption_public: tls.Opaque
    encryption_private: tls.Opaque
    signature_private: tls.Opaque


@dataclass(frozen=True, slots=True)
class _Skipped:
    generation: tls.U32
    key: tls.Opaque
    nonce: tls.Opaque


@dataclass(frozen=True, slots=True)
class _RatchetRow:
    secret: tls.Opaque
    generation: tls.U64
    skipped: tuple[_Skipped, ...]


@dataclass(frozen=True, slots=True)
class _RatchetsRow:
    handshake: _RatchetRow
    application: _RatchetRow


@dataclass(frozen=True, slots=True)
class _PastRow:
    context: GroupContext
    sender_data_secret: tls.Opaque
    leaves: tls.U32
    ended_s: tls.U64


@dataclass(frozen=True, slots=True)
class _Row:
    key: tls.Opaque
    value: tls.Opaque


@dataclass(frozen=True, slots=True)
class _Packed:
    format: tls.U8
    rows: tuple[_Row, ...]


def pack(given: Mapping[bytes, bytes]) -> bytes:
    """All rows in one, in the order of their keys."""
    return tls.encode(_Packed(_FORMAT, tuple(_Row(key, given[key]) for key in sorted(given))))


def unpack(data: bytes) -> Rows:
    """Inverse of ``pack``. DecodeError: malformed. LocalError: of a newer version."""
    if data[:1] and data[0] != _FORMAT:
        raise LocalError("this group was stored by another version")
    return {row.key: row.value for row in tls.decode(_Packed, data).rows}


# --- keys ---


def _key(kind: bytes, *numbers: int) -> bytes:
    """Epochs have 8 bytes and stand first, indices 4."""
    if not numbers:
        return kind
    *epochs, index = numbers
    return kind + b"".join(epoch.to_bytes(8, "big") for epoch in epochs) + index.to_bytes(4, "big")


def _epoch_key(kind: bytes, epoch: int) -> bytes:
    return kind + epoch.to_bytes(8, "big")


# --- writing ---


def rows(state: GroupState) -> Rows:
    """Everything but the settings."""
    written = dict(_small_rows(state))
    for at in state.tree.root.walk():
        if at.node is not None:
            written[_key(b"n", at.index)] = _encode_node(at.node)
    for tree, epoch in _secret_trees(state):
        for node, secret in tree.nodes.items():
            written[_key(b"s", epoch, node)] = secret
        for leaf, ratchets in tree.ratchets.items():
            written[_key(b"r", epoch, leaf)] = _encode_ratchets(ratchets)
    return {**written, **{key: value for key, value in _pending_rows(state).items() if value is not None}}


def changes(before: GroupState, after: GroupState) -> Changes:
    """What to write so that the rows of ``before`` become those of ``after``; None deletes."""
    old, new = dict(_small_rows(before)), dict(_small_rows(after))
    found: Changes = {key: value for key, value in new.items() if old.get(key) != value}
    found.update(dict.fromkeys(old.keys() - new.keys()))
    found.update(_tree_changes(before, after))
    trees = {epoch: tree for tree, epoch in _secret_trees(before)}
    empty: IndexMap[bytes] = IndexMap()
    none: IndexMap[LeafRatchets] = IndexMap()
    for tree, epoch in _secret_trees(after):
        known = trees.pop(epoch, None)
        for index in (known.nodes if known else empty).differing(tree.nodes):
            found[_key(b"s", epoch, index)] = tree.nodes.get(index)
        for leaf in (known.ratchets if known else none).differing(tree.ratchets):
            ratchets = tree.ratchets.get(leaf)
            found[_key(b"r", epoch, leaf)] = None if ratchets is None else _encode_ratchets(ratchets)
    for epoch, tree in trees.items():
        found.update({_key(b"s", epoch, node): None for node in tree.nodes})
        found.update({_key(b"r", epoch, leaf): None for leaf in tree.ratchets})
    if before.pending is not after.pending:
        found.update(dict.fromkeys(_pending_rows(before)))
        found.update({key: value for key, value in _pending_rows(after).items() if value is not None})
    return found


def _pending_rows(state: GroupState) -> Changes:
    """The group after the pending commit, as far as it does not inherit from the group that commits."""
    pending = state.pending
    if pending is None:
        return {}
    found: Changes = {b"c": pending.commit}
    for leaf, before in pending.replaced.items():
        found[_key(b"d", leaf)] = tls.encode(_NodeRow(before))
    after, private = pending.after, pending.after.private
    differing = _tree_changes(state, after)
    differing[b"h"] = _head(after)
    for node in state.private.keys() | private.keys():
        pair = private.get(node)
        if pair is None or state.private.get(node) != pair:
            differing[_key(b"k", node)] = None if pair is None else pair.private
    for node, secret in after.epoch.messages.nodes.items():
        differing[_key(b"s", after.context.epoch, node)] = secret
    for key, value in differing.items():
        found[(b"-" if value is None else b"+") + key] = value or b""
    return found


def _tree_changes(before: GroupState, after: GroupState) -> Changes:
    return {
        _key(b"n", index): None if node is None else _encode_node(node)
        for index, node in _node_changes(before.tree.root, after.tree.root)
    }


def _secret_trees(state: GroupState) -> Iterator[tuple[SecretTree, int]]:
    yield state.epoch.messages, state.context.epoch
    for past in state.past:
        yield past.messages, past.context.epoch


def _small_rows(state: GroupState) -> Iterator[tuple[bytes, bytes]]:
    """All rows but those of nodes, secret trees and the pending commit."""
    yield b"h", _head(state)
    for node, pair in state.private.items():
        yield _key(b"k", node), pair.private
    for order, (reference, waiting) in enumerate(state.proposals.items()):
        row = _ProposalRow(order, waiting.proposal, waiting.sender, waiting.authenticated_data)
        yield b"q" + reference, tls.encode(row)
    for public, keys in state.updates.items():
        update = _UpdateRow(public, keys.encryption.private, keys.signature_private)
        yield b"u" + state.suite.hash(public), tls.encode(update)
    for number, secret in state.resumption.items():
        yield _epoch_key(b"e", number), secret
    for past in state.past:
        number = past.context.epoch
        yield (
            _epoch_key(b"p", number),
            tls.encode(_PastRow(past.context, past.sender_data_secret, past.messages.leaves, past.ended_s)),
        )
        for leaf, before in past.replaced.items():
            yield _key(b"l", number, leaf), tls.encode(_NodeRow(before))


def _head(state: GroupState) -> bytes:
    epoch = state.epoch
    secrets = tuple(_Secret(getattr(epoch.secrets, name)) for name in EpochSecrets.__slots__)
    return tls.encode(
        _Head(
            _FORMAT,
            state.suite.number,
            state.leaf_index,
            state.signature_private,
            epoch.context,
            secrets,
            epoch.interim_transcript_hash,
            epoch.confirmation_tag,
            epoch.messages.leaves,
            state.reinit,
            state.removed,
        )
    )


def _encode_node(node: AnyNode) -> bytes:
    return tls.encode(_NodeRow(node))


def _encode_ratchets(ratchets: LeafRatchets) -> bytes:
    return tls.encode(_RatchetsRow(*(_ratchet_row(one) for one in ratchets)))


def _ratchet_row(ratchet: Ratchet) -> _RatchetRow:
    skipped = tuple(_Skipped(number, *key) for number, key in ratchet.skipped)
    return _RatchetRow(ratchet.secret, ratchet.generation, skipped)


def _node_changes(before: Subtree | None, after: Subtree | None) -> Iterator[tuple[int, AnyNode | None]]:
    """(index, node or None) wherever the trees differ; what they share is not looked at."""
    if before is after:
        return
    if before is None or after is None or before.index == after.index:
        old, new = (None if at is None else at.node for at in (before, after))
        at = after or before
        assert at is not None, "they differ"
        if old is not new and (old is None or new is None or old.encoded != new.encoded):
            yield at.index, new
        yield from _node_changes(before and before.left, after and after.left)
        yield from _node_changes(before and before.right, after and after.right)
    elif before.index < after.index:
        if after.node is not None:
            yield after.index, after.node
        yield from _node_changes(before, after.left)
        yield from _node_changes(None, after.right)
    else:
        if before.node is not None:
            yield before.index, None
        yield from _node_changes(before.left, after)
        yield from _node_changes(before.right, None)


# --- reading ---


def load(given: Mapping[bytes, bytes], settings: Settings) -> GroupState:
    """Inverse of ``rows``. DecodeError: malformed or incomplete. LocalError: of a newer version."""
    base = {key: value for key, value in given.items() if key[:1] not in (b"+", b"-", b"c", b"d")}
    state = _load(base, settings)
    if b"c" not in given:
        return state
    gone = {key[1:] for key in given if key[:1] == b"-"}
    after = {key: value for key, value in base.items() if key[:1] in (b"n", b"k") and key not in gone}
    after.update({key[1:]: value for key, value in given.items() if key[:1] == b"+"})
    replaced = {_index(key): _leaf(value) for key, value in given.items() if key[:1] == b"d"}
    return replace(state, pending=Pending(given[b"c"], _load(after, settings), replaced))


def _load(given: Mapping[bytes, bytes], settings: Settings) -> GroupState:
    if b"h" not in given:
        raise DecodeError("a stored group has no head")
    if given[b"h"][:1] != bytes((_FORMAT,)):
        raise LocalError("this group was stored by another version")
    head = tls.decode(_Head, given[b"h"])
    suite = find_suite(head.cipher_suite, settings.suites)
    kinds: dict[bytes, dict[bytes, bytes]] = {}
    for key, value in given.items():
        kinds.setdefault(key[:1], {})[key] = value
    tree = _load_tree(kinds.get(b"n", {}))
    if len(head.secrets) != len(EpochSecrets.__slots__):
        raise DecodeError("a stored group has other secrets")
    secrets = EpochSecrets(*(one.secret for one in head.secrets))
    messages = _load_messages(suite, kinds, head.context.epoch, head.leaves)
    private = {}
    for key, value in kinds.get(b"k", {}).items():
        index = _index(key)
        node = tree.subtree(index).node if index < 2 * tree.leaf_count - 1 else None
        if node is None:
            raise DecodeError("a stored private key is of no node")
        private[index] = KEMKeyPair(value, node.encryption_key)
    waiting = sorted(
        ((tls.decode(_ProposalRow, value), key[1:]) for key, value in kinds.get(b"q", {}).items()),
        key=lambda item: item[0].order,
    )
    updates = [tls.decode(_UpdateRow, value) for value in kinds.get(b"u", {}).values()]
    return GroupState(
        suite=suite,
        settings=settings,
        leaf_index=head.leaf_index,
        signature_private=head.signature_private,
        epoch=Epoch(
            head.context, tree, secrets, messages, head.interim_transcript_hash, head.confirmation_tag
        ),
        private=private,
        proposals={
            reference: Proposed(row.proposal, row.sender, reference, row.authenticated_data)
            for row, reference in waiting
        },
        updates={
            row.encryption_public: OwnKeys(
                KEMKeyPair(row.encryption_private, row.encryption_public), row.signature_private
            )
            for row in updates
        },
        past=_load_past(suite, kinds),
        resumption=dict(sorted((_epoch(key), value) for key, value in kinds.get(b"e", {}).items())),
        reinit=head.reinit,
        removed=head.removed,
    )


def _load_tree(given: Mapping[bytes, bytes]) -> RatchetTree:
    found = {_index(key): tls.decode(_NodeRow, value).node for key, value in given.items()}
    if not found:
        raise DecodeError("a stored group has no tree")
    size = max(found) + 1
    if size >= 2 * MLS_LEAVES_MAX:
        raise DecodeError("a stored tree is larger than we carry")
    return RatchetTree.from_nodes(tuple(found.get(index) for index in range(size)))


def _load_messages(
    suite: CipherSuite, kinds: Mapping[bytes, Mapping[bytes, bytes]], epoch: int, leaves: int
) -> SecretTree:
    prefix = epoch.to_bytes(8, "big")
    nodes = {_index(key): value for key, value in kinds.get(b"s", {}).items() if key[1:9] == prefix}
    ratchets = {
        _index(key): _load_ratchets(value) for key, value in kinds.get(b"r", {}).items() if key[1:9] == prefix
    }
    return SecretTree(suite, leaves, IndexMap(nodes), IndexMap(ratchets))


def _load_ratchets(value: bytes) -> LeafRatchets:
    row = tls.decode(_RatchetsRow, value)
    return LeafRatchets(_load_ratchet(row.handshake), _load_ratchet(row.application))


def _load_ratchet(row: _RatchetRow) -> Ratchet:
    skipped = tuple((one.generation, MessageKey(one.key, one.nonce)) for one in row.skipped)
    return Ratchet(row.secret, row.generation, skipped)


def _load_past(suite: CipherSuite, kinds: Mapping[bytes, Mapping[bytes, bytes]]) -> tuple[PastEpoch, ...]:
    found = []
    for key, value in kinds.get(b"p", {}).items():
        row, epoch = tls.decode(_PastRow, value), _epoch(key)
        prefix = epoch.to_bytes(8, "big")
        replaced = {
            _index(leaf): _leaf(data) for leaf, data in kinds.get(b"l", {}).items() if leaf[1:9] == prefix
        }
        messages = _load_messages(suite, kinds, epoch, row.leaves)
        found.append(PastEpoch(row.context, replaced, row.sender_data_secret, messages, row.ended_s))
    return tuple(sorted(found, key=lambda past: -past.context.epoch))


def _leaf(value: bytes) -> LeafNode | None:
    node = tls.decode(_NodeRow, value).node
    if node is not None and not isinstance(node, LeafNode):
        raise DecodeError("a stored leaf is none")
    return node


def _index(key: bytes) -> int:
    return int.from_bytes(key[-4:], "big")


def _epoch(key: bytes) -> int:
    return int.from_bytes(key[1:9], "big")
