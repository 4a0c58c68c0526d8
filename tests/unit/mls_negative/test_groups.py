"""Messages that a group must refuse, from members who break the rules on purpose (RFC 9420 6, 12.2, 12.4.2).

A traitor commits with its own checks switched off (``traitor``). Every refusal leaves the group as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import pytest

from lokket.crypto.kem import KEMKeyPair
from lokket.errors import (
    DecodeError,
    DuplicateMessage,
    KeyRefused,
    LocalError,
    RemoteError,
    SignatureRefused,
)
from lokket.protocol import mls
from lokket.protocol.mls import committing, framing, proposals, transition, treekem
from lokket.protocol.mls.group_state import GroupState
from lokket.protocol.mls.messages import (
    ApplicationData,
    External,
    FramedContentAuthData,
    GroupInfo,
    NewMemberCommit,
    NewMemberProposal,
    PublicMessage,
    Sender,
)
from lokket.protocol.mls.structs import ExtensionType, UpdateSource
from tests.support.mls import NOW_S, Client, add, agree, crowd, talk
from tests.support.mls_rules import UNKNOWN, refused

PUBLIC = mls.WireFormat.PUBLIC_MESSAGE
ID = mls.PreSharedKeyID(mls.ExternalPSK(b"a key"), bytes(32))
KEY = mls.PreSharedKey(ID)
CONTEXT = mls.GroupContextExtensions(())
REINIT = mls.ReInit(b"after", 1, 1, ())


@contextmanager
def untouched(*clients: Client) -> Iterator[None]:
    """Nobody's group changes, and afterwards they still hear each other."""
    before = [one.group.encode() for one in clients]
    yield
    assert [one.group.encode() for one in clients] == before


def refuses(client: Client, message: bytes, rule: str) -> None:
    with untouched(client), refused(rule):
        client.group.process(message)


def refuses_somehow(client: Client, message: bytes) -> None:
    with untouched(client), pytest.raises(RemoteError):
        client.group.process(message)


@pytest.fixture
def traitor(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """Commits what no honest member would, without its own checks."""

    def commit(
        client: Client, *given: proposals.AnyProposal, options: mls.CommitOptions | None = None
    ) -> bytes:
        with monkeypatch.context() as patch:
            for name in ("check_proposal", "check_together", "check_unique", "check_support"):
                patch.setattr(committing, name, lambda *rest: None)
            _, sent = client.group.commit(NOW_S, client.entropy, given, options)
        return sent.commit

    return commit


def three(*more: str) -> list[Client]:
    people = crowd(["alice", "bob", "carol", *more])
    for one in people:
        one.psks[b"a key"] = b"secret"
    return people


def state_of(client: Client) -> GroupState:
    return client.group._state


def forged(client: Client, content: Any, sender: Sender | int, key: bytes | None = None) -> bytes:
    """A PublicMessage of any content and sender, signed by ``key`` (the client's own), with a right tag."""
    state = state_of(client)
    if isinstance(sender, int):
        state = replace(state, leaf_index=sender)
    given = committing.frame(state, content, b"", PUBLIC)
    if not isinstance(sender, int):
        given = replace(given, content=replace(given.content, sender=sender))
    tag = bytes(32) if isinstance(content, proposals.Commit) else None
    private = key or state.signature_private
    signature = framing.sign(state.suite, private, PUBLIC, given.content, state.context)
    given = replace(given, auth=FramedContentAuthData(signature, tag))
    message = framing.seal_public(state.suite, given, state.epoch.secrets.membership_key, state.context)
    return mls.encode_message(message)


# --- framing (section 6) ---


def test_a_message_of_another_group() -> None:
    alice, _, _ = three()
    dave, erin = Client("dave"), Client("erin")
    dave.create(b"another group")
    erin.join(dave.commit(add(erin.package())).welcome)
    for message in (dave.say(b"hello"), forged(dave, mls.Remove(0), 0)):
        refuses(alice, message, "6.1-2")


def test_a_handshake_of_another_epoch() -> None:
    alice, bob, carol = three()
    _, early = bob.group.propose(mls.Remove(2), NOW_S, bob.entropy)
    public = forged(bob, mls.Remove(2), 1)
    carol.take(alice.commit().commit)
    for message in (early, public):
        refuses(carol, message, "6.1-3")
    ahead = alice.commit()
    refuses(bob, ahead.commit, "6.1-4")
    refuses(bob, alice.say(b"from the future"), "6.1-4")


@pytest.mark.parametrize("sender", [3, 7, 2**32 - 1])
def test_a_sender_who_is_no_member(sender: int) -> None:
    alice, bob, _ = three()
    refuses(bob, forged(alice, mls.Remove(2), sender), "6.1-1")


@pytest.mark.attack(78)
def test_a_member_in_anothers_name() -> None:
    alice, bob, _ = three()
    with untouched(bob), pytest.raises(SignatureRefused):
        bob.group.process(forged(alice, mls.Remove(1), 2))


@pytest.mark.parametrize("part", ["membership_tag", "signature", "confirmation_tag"])
def test_a_public_commit_with_a_wrong_tag(part: str) -> None:
    alice, bob, _ = three()
    options = mls.CommitOptions(handshake=PUBLIC)
    _, sent = alice.group.commit(NOW_S, alice.entropy, (), options)
    message = mls.decode_message(sent.commit)
    assert isinstance(message, PublicMessage)
    wrong = bytes(32) if part != "signature" else bytes(64)
    if part == "membership_tag":
        message = replace(message, membership_tag=wrong)
    else:
        message = replace(message, auth=replace(message.auth, **{part: wrong}))
    refuses_somehow(bob, mls.encode_message(message))
    bob.take(sent.commit)


@pytest.mark.attack(75)
def test_a_confirmation_tag_of_another_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob, _ = three()
    real = committing.next_epoch

    def lying(*given: Any) -> Any:
        following = real(*given)
        return replace(following, epoch=replace(following.epoch, confirmation_tag=bytes(32)))

    with monkeypatch.context() as patch:
        patch.setattr(committing, "next_epoch", lying)
        _, sent = alice.group.commit(NOW_S, alice.entropy)
    refuses(bob, sent.commit, "12.4.2-4")


def test_application_data_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob, _ = three()
    with pytest.raises(LocalError):
        forged(alice, ApplicationData(b"hello"), 0)
    with monkeypatch.context() as patch:
        patch.setattr(framing, "sign", lambda *rest: bytes(64))
        message = forged(alice, ApplicationData(b"hello"), 0)
    with untouched(bob), pytest.raises(DecodeError):
        bob.group.process(message)


@pytest.mark.attack(16)
def test_every_flipped_bit_of_a_message() -> None:
    alice, bob, _ = three()
    said, committed = alice.say(b"hello"), alice.group.commit(NOW_S, alice.entropy)[1].commit
    for message in (said, committed):
        for position in range(0, len(message), 7):
            changed = bytearray(message)
            changed[position] ^= 1 << position % 8
            refuses_somehow(bob, bytes(changed))
    bob.take(said)
    bob.take(committed)


@pytest.mark.attack(16)
def test_every_cut_of_a_message_and_bytes_after_it() -> None:
    alice, bob, _ = three()
    for message in (
        alice.say(b"hello"),
        forged(alice, mls.Remove(2), 0),
        alice.group.commit(NOW_S, alice.entropy)[1].commit,
    ):
        for size in range(0, len(message), 11):
            refuses_somehow(bob, message[:size])
        refuses_somehow(bob, message + b"\x00")
        refuses_somehow(bob, message + message)


@pytest.mark.attack(16)
@pytest.mark.parametrize("length", ["3fff", "7fff", "40", "4000", "80003fff", "bfffffff", "c0", "ffffffff"])
def test_a_length_that_says_more_than_there_is(length: str) -> None:
    """Also at 0x3fff and 0x7fff, where another implementation went wrong (OpenMLS #2147)."""
    _, bob, _ = three()
    for head in ("00010001", "00010002", "00010003", "00010004"):
        refuses_somehow(bob, bytes.fromhex(head + length) + bytes(100))
        with pytest.raises(RemoteError):
            mls.decode_message(bytes.fromhex(head + length))


def test_other_kinds_of_messages() -> None:
    alice, bob, _ = three()
    sent = alice.group.commit(NOW_S, alice.entropy, [add(Client("dave").package())])[1]
    for message in (sent.welcome or b"", sent.group_info, alice.package().message, b"", b"\x00"):
        refuses_somehow(bob, message)


def test_replays() -> None:
    alice, bob, _ = three()
    said = alice.say(b"once")
    bob.take(said)
    with untouched(bob), pytest.raises(DuplicateMessage):
        bob.group.process(said)
    alice.group, proposal = alice.group.propose(mls.Remove(2), NOW_S, alice.entropy)
    bob.take(proposal)
    with untouched(bob), pytest.raises(DuplicateMessage):
        bob.group.process(proposal)
    commit = alice.commit().commit
    bob.take(commit)
    refuses(bob, commit, "6.1-3")


def test_an_echo_of_our_own() -> None:
    alice, _, _ = three()
    refuses_somehow(alice, alice.say(b"hello"))
    lost = alice.group
    alice.group, sent = alice.group.commit(NOW_S, alice.entropy)
    alice.group = replace(lost)
    refuses_somehow(alice, sent.commit)


# --- who may propose what (section 12.1.8) ---


def with_server() -> tuple[Client, Client, Client]:
    server, alice, bob = Client("server"), Client("alice"), Client("bob")
    listed = mls.ExternalSender(server.identity.signature.public, server.identity.credential)
    alice.create(extensions=(mls.make_extension(mls.ExternalSenders((listed,))),))
    bob.join(alice.commit(add(bob.package())).welcome)
    return server, alice, bob


def from_server(server: Client, context: Client, content: Any, index: int = 0) -> bytes:
    return forged(context, content, External(index), server.identity.signature.private)


@pytest.mark.attack(73)
def test_an_external_sender_whom_nobody_listed() -> None:
    server, alice, bob = with_server()
    refuses(bob, from_server(server, alice, mls.Remove(0), 1), "12.1.8-3")
    others = crowd(["carol", "dave"])
    refuses(others[1], from_server(server, others[0], mls.Remove(0)), "12.1.8-3")


def test_an_external_sender_that_proposes_what_members_do() -> None:
    server, alice, bob = with_server()
    update = alice.group.propose_update(NOW_S, alice.entropy)[0].waiting[0].proposal
    for proposal in (update, proposals.ExternalInit(bytes(32))):
        refuses(bob, from_server(server, alice, proposal), "12.1.8-1")
    assert isinstance(bob.take(from_server(server, alice, mls.Remove(0))), mls.ProposalReceived)


def test_an_external_sender_that_commits() -> None:
    server, alice, bob = with_server()
    path = decoded_commit(alice).path
    refuses(bob, from_server(server, alice, proposals.Commit((), path)), "12.4.2-3")


def decoded_commit(client: Client) -> proposals.Commit:
    options = mls.CommitOptions(handshake=PUBLIC)
    message = mls.decode_message(client.group.commit(NOW_S, client.entropy, (), options)[1].commit)
    assert isinstance(message, PublicMessage)
    assert isinstance(message.content.content, proposals.Commit)
    return message.content.content


def test_a_stranger_that_proposes_more_than_itself() -> None:
    alice, bob, _ = three()
    for content in (mls.Remove(0), KEY, CONTEXT, REINIT):
        refuses(bob, forged(alice, content, NewMemberProposal()), "12.1.8-2")
    refuses(bob, forged(alice, decoded_commit(alice), NewMemberProposal()), "12.1.8-2")


def test_a_stranger_that_proposes_somebody_else() -> None:
    alice, bob, _ = three()
    with untouched(bob), pytest.raises(SignatureRefused):
        bob.group.process(forged(alice, add(Client("dave").package()), NewMemberProposal()))


# --- the list of a commit (section 12.2) ---


def test_proposals_that_no_list_has(traitor: Callable[..., bytes]) -> None:
    alice, bob, carol, *_ = three("erin", "frank")
    dave = Client("dave")
    twice = dave.package()
    own_update = alice.group.propose_update(NOW_S, alice.entropy)[0].waiting[0].proposal
    for rule, given in {
        "12.2-2": [own_update],
        "12.2-3": [mls.Remove(0)],
        "12.2-4": [mls.Remove(2), mls.Remove(2)],
        "12.2-5": [add(twice), add(twice)],
        "12.2-6": [add(carol.package())],
        "12.2-7": [KEY, KEY],
        "12.2-8": [CONTEXT, CONTEXT],
        "12.2-9": [REINIT, KEY],
        "12.2-10": [proposals.ExternalInit(bytes(32))],
        "12.1.4-2": [mls.PreSharedKey(replace(ID, psk_nonce=b"short"))],
        "12.1.5-1": [replace(REINIT, version=0)],
    }.items():
        refuses(bob, traitor(alice, *given), rule)
    commit = alice.group.commit(NOW_S, alice.entropy)[1].commit
    for one in (bob, carol):
        one.take(commit)
    agree([bob, carol])


def test_an_honest_member_does_not_even_try() -> None:
    alice, _, carol = three()
    for wrong in (
        mls.Remove(0),
        mls.Remove(9),
        add(carol.package()),
        mls.PreSharedKey(replace(ID, psk_nonce=b"short")),
        mls.GroupContextExtensions((mls.Extension(UNKNOWN, b""),)),
    ):
        with untouched(alice), pytest.raises(LocalError):
            alice.group.commit(NOW_S, alice.entropy, [wrong])


def test_one_members_proposals_keep_nobody_from_committing() -> None:
    """What waits and does not fit is left out: bad by itself, together, or beside what we commit."""
    alice, bob, carol, dave, erin = people = three("dave", "erin")
    newcomer, able = Client("newcomer"), mls.GroupContextExtensions((mls.Extension(UNKNOWN, b""),))
    lacking = mls.PreSharedKey(replace(ID, psk=mls.ExternalPSK(b"unknown to bob")))
    for content in (
        mls.Remove(4),
        add(dave.package()),
        able,
        lacking,
        add(newcomer.package()),
        REINIT,
        CONTEXT,
        mls.Remove(4),
    ):
        message = forged(carol, content, 2)
        for one in people:
            if one is not carol:
                one.take(message)
    carol.group, update = carol.group.propose_update(NOW_S, carol.entropy)
    for one in (alice, bob, dave, erin):
        one.take(update)
    sent = bob.commit(mls.Remove(4))
    for one in (alice, dave, erin):
        one.take(sent.commit)
    newcomer.join(sent.welcome)
    agree([alice, bob, dave, newcomer])
    assert erin.group.removed
    assert [leaf for leaf, _ in bob.group.members()] == [0, 1, 2, 3, 4]
    assert newcomer.group.leaf_index == 4
    talk([alice, bob, dave, newcomer])


def test_a_reference_to_a_proposal_that_was_not_received() -> None:
    alice, bob, carol = three()
    alice.group, proposal = alice.group.propose(mls.Remove(2), NOW_S, alice.entropy)
    bob.take(proposal)
    commit = bob.commit().commit
    refuses(carol, commit, "12.2-13")
    carol.take(proposal)
    assert isinstance(carol.take(commit), mls.StagedCommit)


def test_a_key_that_we_lack() -> None:
    alice, bob, carol = three()
    del carol.psks[b"a key"]
    commit = alice.group.commit(NOW_S, alice.entropy, [KEY])[1].commit
    refuses(carol, commit, "12.4.2-2")
    bob.take(commit)


def test_the_same_key_under_the_same_id_is_another_secret() -> None:
    alice, bob, _ = three()
    bob.psks[b"a key"] = b"another secret"
    refuses(bob, alice.group.commit(NOW_S, alice.entropy, [KEY])[1].commit, "12.4.2-4")


# --- the tree afterwards (sections 7.3, 13.4) ---


def test_a_context_that_not_all_support(traitor: Callable[..., bytes]) -> None:
    alice, bob, _ = three()
    wanted = mls.make_extension(mls.RequiredCapabilities((), (UNKNOWN,), ()))
    refuses(bob, traitor(alice, mls.GroupContextExtensions((wanted,))), "7.3-3")
    unknown = mls.Extension(UNKNOWN, b"")
    refuses(bob, traitor(alice, mls.GroupContextExtensions((unknown,))), "13.4-2")
    refuses(bob, traitor(alice, mls.GroupContextExtensions((wanted, wanted))), "13.4-1")


@pytest.mark.parametrize("kind", [mls.RequiredCapabilities((), (), (1,)), mls.ExternalSenders(())])
def test_a_context_with_bytes_after_an_extensions_content(traitor: Callable[..., bytes], kind: Any) -> None:
    alice, bob, _ = three()
    right = mls.make_extension(kind)
    wrong = replace(right, extension_data=right.extension_data + b"\x00")
    with untouched(bob), pytest.raises(DecodeError):
        bob.group.process(forged(alice, mls.GroupContextExtensions((wrong,)), 0))
    bob.take(alice.commit(mls.GroupContextExtensions((right,))).commit)


def test_a_group_that_was_founded_in_its_last_epoch() -> None:
    alice, bob = Client("alice"), Client("bob")
    alice.create()
    epoch = state_of(alice).epoch
    for start, fine in ((2**64 - 3, True), (2**64 - 2, False)):
        late = replace(epoch, context=replace(epoch.context, epoch=start))
        alice.group = mls.Group(replace(state_of(alice), epoch=late))
        bob.join(alice.commit(add(bob.package())).welcome)
        assert bob.group.epoch == start + 1
        if fine:
            bob.take(alice.commit().commit)
        else:
            with untouched(alice), pytest.raises((LocalError, RemoteError)):
                alice.group.commit(NOW_S, alice.entropy)
            refuses_somehow(bob, external_commit_of_the_last_epoch(alice, bob))
        alice.create()


def external_commit_of_the_last_epoch(alice: Client, bob: Client) -> bytes:
    return forged(alice, replace(decoded_commit(crowd(["carol", "dave"])[0]), proposals=()), 0)


def test_a_context_that_all_support_who_stay() -> None:
    """Section 12.1.7: those whom the commit removes need not support it, those whom it adds must."""
    alice, bob = Client("alice"), Client("bob")
    able = replace(mls.capabilities(), extensions=(UNKNOWN,))
    alice.identity = replace(alice.identity, capabilities=able)
    alice.create()
    carol, dave, erin = Client("carol"), Client("dave"), Client("erin")
    carol.identity = replace(carol.identity, capabilities=able)
    dave.identity = replace(dave.identity, capabilities=able)
    sent = alice.commit(add(bob.package()), add(carol.package()))
    carol.join(sent.welcome)
    context = mls.GroupContextExtensions((mls.Extension(UNKNOWN, b"data"),))
    for wrong in ([context], [context, mls.Remove(1), add(erin.package())]):
        with untouched(alice), pytest.raises(LocalError):
            alice.group.commit(NOW_S, alice.entropy, wrong)
    sent = alice.commit(context, mls.Remove(1), add(dave.package()))
    carol.take(sent.commit)
    dave.join(sent.welcome)
    agree([alice, carol, dave])


def test_a_committer_that_stops_reading_credentials(traitor: Callable[..., bytes]) -> None:
    alice, bob, _ = three()
    deaf = replace(alice.identity, capabilities=replace(mls.capabilities(), credentials=(2,)))
    refuses(bob, traitor(alice, options=mls.CommitOptions(identity=deaf)), "7.3-4")


def test_a_committer_with_anothers_signature_key(traitor: Callable[..., bytes]) -> None:
    alice, bob, carol = three()
    stolen = replace(alice.identity, signature=carol.identity.signature)
    refuses(bob, traitor(alice, options=mls.CommitOptions(identity=stolen)), "7.3-8")


def test_a_newcomer_with_a_members_encryption_key(traitor: Callable[..., bytes]) -> None:
    alice, bob, carol = three()
    dave = Client("dave")
    own = dave.package().key_package
    leaf = replace(own.leaf_node, encryption_key=carol.packages[0].key_package.leaf_node.encryption_key)
    keys = treekem.LeafKeys(0, leaf, dave.identity.signature.private, b"")
    leaf = treekem.sign_leaf(dave.suite, leaf, keys)
    bare = replace(own, leaf_node=leaf, signature=b"")
    signature = dave.suite.sign_with_label(
        dave.identity.signature.private, b"KeyPackageTBS", bare.to_be_signed()
    )
    refuses(bob, traitor(alice, mls.Add(replace(bare, signature=signature))), "7.3-9")


def test_a_commit_without_its_path(traitor: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob, _ = three()
    monkeypatch.setattr(committing, "needs_path", lambda proposals: False)
    for given in ([], [mls.Remove(2)], [CONTEXT], [mls.Remove(2), KEY]):
        refuses(bob, traitor(alice, *given), "12.4-1")


def test_a_path_that_lies(traitor: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob, carol = three()
    real_path, real_seal = treekem.new_path, treekem.seal_path

    def with_leaf(change: Callable[[treekem.NewPath], treekem.NewPath]) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(treekem, "new_path", lambda *rest: change(real_path(*rest)))
            return traitor(alice)

    def resigned(path: treekem.NewPath, **changes: Any) -> treekem.NewPath:
        state, leaf = state_of(alice), replace(path.leaf, **changes)
        keys = treekem.LeafKeys(state.leaf_index, leaf, state.signature_private, state.context.group_id)
        return replace(path, leaf=treekem.sign_leaf(alice.suite, leaf, keys))

    refuses(bob, with_leaf(lambda path: resigned(path, source=UpdateSource())), "7.3-7")
    refuses(bob, with_leaf(lambda path: replace(path, leaf=replace(path.leaf, signature=bytes(64)))), "7.3-2")
    stale = state_of(alice).own_leaf.encryption_key
    refuses(bob, with_leaf(lambda path: resigned(path, encryption_key=stale)), "12.4.2-1")
    theirs = carol.packages[0].key_package.leaf_node.encryption_key
    refuses(bob, with_leaf(lambda path: resigned(path, encryption_key=theirs)), "7.5-3")

    def with_nodes(change: Callable[[Any], Any]) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(treekem, "seal_path", lambda *rest: change(real_seal(*rest)))
            return traitor(alice)

    refuses(bob, with_nodes(lambda path: replace(path, nodes=path.nodes[:-1])), "7.5-1")
    empty = with_nodes(
        lambda path: replace(
            path, nodes=tuple(replace(node, encrypted_path_secret=()) for node in path.nodes)
        )
    )
    refuses(bob, empty, "7.6-1")
    fresh: KEMKeyPair = alice.suite.generate_key_pair(alice.entropy)
    other = with_nodes(
        lambda path: replace(
            path, nodes=(*path.nodes[:-1], replace(path.nodes[-1], encryption_key=fresh.public))
        )
    )
    refuses(bob, other, "7.5-2")


def test_more_keys_than_their_labels_can_count() -> None:
    """A commit and a Welcome name them; under many nonces one key is many."""
    alice, _, _ = three()
    with refused("8.4-1"):
        transition.find_psks(alice.suite, alice.settings, None, [ID] * (1 << 16))


@pytest.mark.parametrize("suite", [1, 4, mls.POST_QUANTUM_ID])
def test_a_member_to_whose_key_nobody_could_seal(suite: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of low order once in the tree would keep everybody else from every commit that has a path."""
    alice, bob, carol = people = crowd(["alice", "bob", "carol"], suite)
    honest = state_of(carol).own_leaf.encryption_key
    tail = 56 if suite == 4 else 32
    pair = KEMKeyPair(b"", honest[:-tail] + b"\x01" + bytes(tail - 1))
    with monkeypatch.context() as patch:
        patch.setattr(mls.CipherSuite, "generate_key_pair", lambda *rest: pair)
        patch.setattr(committing, "check_proposal", lambda *rest: None)
        _, commit = carol.group.commit(NOW_S, carol.entropy)
        _, update = carol.group.propose_update(NOW_S, carol.entropy)
        pairs = iter([KEMKeyPair(b"", honest), pair])  # of the leaf, and of the init key
        patch.setattr(mls.CipherSuite, "generate_key_pair", lambda *rest: next(pairs))
        package = Client("dave", alice.suite).package()
        _, proposal = carol.group.propose(add(package), NOW_S, carol.entropy)
    for message in (commit.commit, update, proposal):
        with untouched(alice), pytest.raises(KeyRefused):
            alice.group.process(message)
    with pytest.raises(KeyRefused):
        mls.read_key_package(package.message, alice.settings, NOW_S)
    sent = alice.commit().commit
    for one in (bob, carol):
        one.take(sent)
    agree(people)


# --- external commits (section 12.4.3.2) ---


def test_a_group_that_lets_nobody_in_by_commit() -> None:
    alice, _, _ = three()
    dave = Client("dave")
    info = mls.decode_message(alice.group.group_info())
    assert isinstance(info, GroupInfo)
    kept = tuple(one for one in info.extensions if one.extension_type != ExtensionType.EXTERNAL_PUB)
    bare = replace(info, extensions=kept, signature=b"")
    private = alice.identity.signature.private
    signature = alice.suite.sign_with_label(private, b"GroupInfoTBS", bare.to_be_signed())
    with refused("12.4.3.2-3"):
        message = mls.encode_message(replace(bare, signature=signature))
        mls.join_by_commit(message, dave.identity, dave.settings, dave.entropy)


def test_an_external_commit_without_a_path() -> None:
    alice, bob, _ = three()
    commit = proposals.Commit((proposals.ExternalInit(bytes(32)),), None)
    refuses(bob, forged(alice, commit, NewMemberCommit()), "12.4.3.2-2")
    refuses(bob, forged(alice, mls.Remove(1), NewMemberCommit()), "12.4.2-3")


def external_commit(joiner: Client, member: Client, **options: Any) -> bytes:
    joiner.group, message = mls.join_by_commit(
        member.group.group_info(),
        joiner.identity,
        joiner.settings,
        joiner.entropy,
        options=mls.ExternalOptions(**options),
    )
    return message


def test_an_external_commit_of_a_member_that_keeps_its_place() -> None:
    alice, bob, carol = three()
    with pytest.raises(RemoteError):
        external_commit(carol, alice)
    dave = Client("dave")
    message = external_commit(dave, alice)
    bob.take(alice.commit().commit)
    refuses(bob, message, "6.1-3")


def test_a_member_that_comes_back_with_its_old_encryption_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its leaf is held to what an Update of the removed leaf would be, which renews the key."""
    alice, bob, carol = three()
    old = state_of(carol).private[2 * carol.group.leaf_index]
    with monkeypatch.context() as patch:
        patch.setattr(mls.CipherSuite, "generate_key_pair", lambda *rest: old)
        message = external_commit(carol, alice, replaces=carol.group.leaf_index)
    refuses(bob, message, "12.2-24")
    bob.take(external_commit(carol, alice, replaces=carol.group.leaf_index))


def test_external_commits_that_were_altered() -> None:
    alice, bob, _ = three()
    message = external_commit(Client("dave"), alice)
    for position in range(0, len(message), 13):
        changed = bytearray(message)
        changed[position] ^= 0x10
        refuses_somehow(bob, bytes(changed))
    bob.take(message)


def test_those_who_refused_go_on() -> None:
    alice, bob, carol = people = three()
    refuses_somehow(bob, alice.say(b"x")[:-1] + b"\x00")
    talk(people)
    commit = bob.commit().commit
    alice.take(commit)
    carol.take(commit)
    agree(people)


def test_what_is_printed_shows_no_secret() -> None:
    alice, bob, carol = three()
    alice.group, _ = alice.group.propose_update(NOW_S, alice.entropy)
    pending, sent = alice.group.commit(NOW_S, alice.entropy, [add(Client("dave").package())])
    staged = bob.group.process(carol.commit().commit)
    state, own = state_of(bob), alice.package()
    secrets = [pair.private for pair in state.private.values()]
    secrets += [getattr(state.epoch.secrets, one.name) for one in fields(state.epoch.secrets)]
    secrets += [own.init.private, own.encryption.private, own.signature_private]
    secrets += [alice.identity.signature.private, pending._state.signature_private]
    shown = "\n".join(
        repr(one)
        for one in (
            bob.group, state, state.epoch, pending, pending._state, sent, staged, own, alice.identity,
            alice.packages, getattr(staged, "details", None), pending._state.pending,
        )
    )  # fmt: skip
    assert len(shown) > 1_000
    for secret in secrets:
        assert len(secret) >= 16
        for form in (repr(secret)[2:-1], secret.hex(), str(list(secret))):
            assert form not in shown


def test_many_external_senders_are_compared_with_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member may list thousands, and again: what is new among them is found in one pass."""

    def listed(numbers: range) -> tuple[mls.Extension, ...]:
        credential = mls.basic_credential(b"server")
        senders = (mls.ExternalSender(number.to_bytes(32, "big"), credential) for number in numbers)
        return (mls.make_extension(mls.ExternalSenders(tuple(senders))),)

    compared, real = [], mls.ExternalSender.__eq__
    monkeypatch.setattr(mls.ExternalSender, "__eq__", lambda *two: (compared.append(1), real(*two))[1])
    changes = transition.sender_changes(b"group", listed(range(1, 301)), listed(range(300)))
    assert [change.signature_key for change in changes] == [(300).to_bytes(32, "big")]
    assert len(compared) < 1_000
