"""A group's whole life among our own clients: every way in, every change, every suite."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lokket.errors import DecryptionFailed, DuplicateMessage, LocalError, RemoteError
from lokket.protocol import mls
from lokket.protocol.mls import WireFormat, committing
from lokket.protocol.mls.structs import MLS10
from tests.support.entropy import SeededEntropy
from tests.support.mls import NOW_S, Client, add, agree, anybody, broken, crowd, talk


@pytest.mark.parametrize("suite", sorted(mls.SUITES))
def test_every_suite_lives(suite: int) -> None:
    alice, bob, carol = people = crowd(["alice", "bob", "carol"], suite)
    agree(people)
    talk(people)
    sent = bob.commit()
    for one in (alice, carol):
        one.take(sent.commit)
    agree(people)
    sent = alice.commit(mls.Remove(bob.group.leaf_index))
    carol.take(sent.commit)
    staged = bob.take(sent.commit)
    assert isinstance(staged, mls.StagedCommit)
    assert staged.removes_us
    assert bob.group.removed
    agree([alice, carol])
    talk([alice, carol])
    with pytest.raises(LocalError):
        bob.group.process(alice.say(b"without bob"))
    dora = Client("dora", mls.SUITES[suite])
    dora.group, message = mls.join_by_commit(
        alice.group.group_info(), dora.identity, dora.settings, dora.entropy
    )
    for one in (alice, carol):
        one.take(message)
    agree([alice, carol, dora])
    talk([alice, carol, dora])


@pytest.mark.parametrize("handshake", [WireFormat.PUBLIC_MESSAGE, WireFormat.PRIVATE_MESSAGE])
def test_proposals_by_reference(handshake: WireFormat) -> None:
    people = crowd(["alice", "bob", "carol", "dora"], handshake=handshake)
    alice, bob, carol, dora = people
    eve = Client("eve")
    for author, proposal in (
        (bob, None),
        (carol, add(eve.package())),
        (carol, mls.Remove(dora.group.leaf_index)),
        (dora, mls.GroupContextExtensions((mls.make_extension(mls.RequiredCapabilities()),))),
    ):
        if proposal is None:
            author.group, message = author.group.propose_update(NOW_S, author.entropy)
        else:
            author.group, message = author.group.propose(proposal, NOW_S, author.entropy, b"why")
        for one in people:
            if one is not author:
                got = one.take(message)
                assert isinstance(got, mls.ProposalReceived)
                assert got.authenticated_data == (b"" if proposal is None else b"why")
    assert all(len(one.group.waiting) == 4 for one in people)
    sent = alice.commit()
    for one in (bob, carol, dora):
        staged = one.take(sent.commit)
        assert isinstance(staged, mls.StagedCommit)
        assert (staged.committer, staged.own, staged.external) == (0, False, False)
        assert staged.removed == (3,)
        assert [(index, leaf.credential.content) for index, leaf in staged.added] == [(3, b"eve")]
        assert len(staged.proposals) == 4
    eve.join(sent.welcome)
    assert dora.group.removed
    agree([alice, bob, carol, eve])
    talk([alice, bob, carol, eve])
    assert not alice.group.waiting
    assert alice.group.context.extensions


def test_a_commit_leaves_out_what_it_cannot_take() -> None:
    alice, bob, carol = crowd(["alice", "bob", "carol"])
    bob.psks[b"bob's"] = b"known to bob alone"
    unknown = mls.PreSharedKeyID(mls.ExternalPSK(b"bob's"), bytes(32))
    late, dora = Client("late"), Client("dora")
    for author, proposal in (
        (bob, mls.PreSharedKey(unknown)),
        (bob, mls.Remove(0)),
        (bob, mls.Remove(2)),
        (carol, mls.Remove(2)),
        (bob, add(late.package())),
        (carol, add(late.packages[0])),
        (carol, mls.ReInit(b"next", MLS10, 1, ())),
        (carol, add(dora.package())),
    ):
        author.group, message = author.group.propose(proposal, NOW_S, author.entropy)
        for one in (alice, bob, carol):
            if one is not author:
                one.take(message)
    after_all = NOW_S + alice.settings.key_package_s + 1
    expired, _ = alice.group.commit(after_all, alice.entropy)
    assert expired.merge_pending(after_all).member_count == 2
    sent = alice.commit()
    staged = bob.take(sent.commit)
    assert isinstance(staged, mls.StagedCommit)
    kinds = [type(one.proposal).__name__ for one in staged.proposals]
    assert sorted(kinds) == ["Add", "Add", "Remove"]
    for one in (late, dora):
        one.join(sent.welcome)
    agree([alice, bob, late, dora])


def test_many_proposals_that_exclude_each_other_keep_nobody_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sound by itself, and two of each pair with one encryption key: the list is looked at thrice."""
    alice, bob, carol = crowd(["alice", "bob", "carol"])
    newcomers, same = [Client(f"new {number}") for number in range(32)], alice.suite
    for number, one in enumerate(newcomers):
        if number % 2:
            one.entropy = SeededEntropy(f"mls new {number - 1} 1")  # draws what its neighbour drew
            one.identity = one.new_identity()
            key = same.generate_signature_key(SeededEntropy(f"another {number}"))
            one.identity = replace(one.identity, signature=key)
        bob.group, message = bob.group.propose(add(one.package()), NOW_S, bob.entropy)
        alice.take(message)
        carol.take(message)
    carol.group, message = carol.group.propose_update(NOW_S, carol.entropy)
    alice.take(message)
    bob.take(message)
    looks, real = [], committing.check_together
    monkeypatch.setattr(committing, "check_together", lambda *rest: (looks.append(rest), real(*rest)))
    sent = alice.commit(mls.PreSharedKey(alice.group.resumption_psk(alice.entropy)))
    assert len(looks) == 3
    staged = bob.take(sent.commit)
    assert isinstance(staged, mls.StagedCommit)
    kinds = [type(one.proposal).__name__ for one in staged.proposals]
    assert kinds == ["Update", *["Add"] * 16, "PreSharedKey"]
    carol.take(sent.commit)
    for one in newcomers[::2]:
        one.settings = replace(one.settings, find_psk=lambda psk: alice.group._state.resumption[1])
        one.join(sent.welcome)
    agree([alice, bob, carol, *newcomers[::2]])


def test_a_commit_leaves_out_what_the_application_is_against() -> None:
    """MLS asks nobody whether Bob may remove Carol. Whoever thinks not still follows one who commits it."""
    alice, bob, carol = crowd(["alice", "bob", "carol"])
    for proposal in (mls.Remove(2), add(Client("dave").package())):
        bob.group, message = bob.group.propose(proposal, NOW_S, bob.entropy)
        alice.take(message)
        carol.take(message)
    removal, joining = (one.reference or b"" for one in alice.group.waiting)
    without, sent = alice.group.commit(NOW_S, alice.entropy, options=mls.CommitOptions(leave_out=[removal]))
    staged = bob.group.process(sent.commit)
    assert isinstance(staged, mls.StagedCommit)
    assert [one.reference for one in staged.proposals] == [joining]
    assert without.merge_pending(NOW_S).member_count == 4
    forgetful = alice.group.discard_waiting()
    assert not forgetful.waiting
    with broken("12.2-13"):
        forgetful.process(bob.group.commit(NOW_S, bob.entropy)[1].commit)
    alice.take(bob.commit().commit)
    assert (alice.group.member_count, alice.group.member(2) is None) == (3, False)


def test_a_commit_waits_for_the_delivery_service() -> None:
    alice, bob = crowd(["alice", "bob"])
    ours, sent = alice.group.commit(NOW_S, alice.entropy)
    theirs = bob.commit()
    assert ours.has_pending
    assert ours.epoch == alice.group.epoch
    with pytest.raises(LocalError):
        ours.commit(NOW_S, alice.entropy)
    staged = ours.process(theirs.commit)  # bob was first
    assert isinstance(staged, mls.StagedCommit)
    alice.group = staged.merge(NOW_S)
    assert not alice.group.has_pending
    agree([alice, bob])
    with pytest.raises(RemoteError):
        bob.group.process(sent.commit)
    ours, sent = alice.group.commit(NOW_S, alice.entropy)
    alice.group = ours.discard_pending()
    with pytest.raises(LocalError):
        alice.group.merge_pending(NOW_S)
    ours, sent = alice.group.commit(NOW_S, alice.entropy)
    echo = ours.process(sent.commit)
    assert isinstance(echo, mls.StagedCommit)
    assert echo.own
    assert (echo.committer, echo.proposals, echo.added, echo.removed) == (0, (), (), ())
    alice.group = echo.merge(NOW_S)
    bob.take(sent.commit)
    agree([alice, bob])


def test_the_tree_beside_the_welcome() -> None:
    alice, bob = Client("alice"), Client("bob")
    alice.create()
    options = mls.CommitOptions(welcome=mls.InfoOptions(tree=False))
    sent = alice.commit(add(bob.package()), options=options)
    with broken("12.4.3.1-10"):
        bob.join(sent.welcome)
    bob.join(sent.welcome, ratchet_tree=sent.ratchet_tree)
    agree([alice, bob])
    with broken("12.4.3.1-6"):
        bob.join(sent.welcome, ratchet_tree=sent.ratchet_tree, in_use=[b"group"])
    carol = Client("carol")
    info = alice.group.group_info(tree=False)
    with broken("12.4.3.1-10"):
        mls.join_by_commit(info, carol.identity, carol.settings, carol.entropy)
    carol.group, message = mls.join_by_commit(
        info, carol.identity, carol.settings, carol.entropy, ratchet_tree=alice.group.ratchet_tree()
    )
    alice.take(message)
    bob.take(message)
    agree([alice, bob, carol])


def test_pre_shared_keys() -> None:
    alice, bob = crowd(["alice", "bob"])
    for one in (alice, bob):
        one.psks[b"shared"] = b"a secret from elsewhere"
    old = alice.group.resumption_psk(alice.entropy)
    bob.take(alice.commit().commit)
    external = mls.PreSharedKeyID(mls.ExternalPSK(b"shared"), alice.entropy.draw(32))
    carol = Client("carol")
    carol.psks = alice.psks
    sent = alice.commit(mls.PreSharedKey(old), mls.PreSharedKey(external))
    bob.take(sent.commit)
    agree([alice, bob])
    sent = alice.commit(mls.PreSharedKey(replace(external, psk_nonce=bytes(32))), add(carol.package()))
    bob.take(sent.commit)
    stranger = Client("stranger")
    stranger.packages = carol.packages
    with broken("12.4.3.1-3"):
        stranger.join(sent.welcome)
    carol.join(sent.welcome)
    agree([alice, bob, carol])
    unknown = mls.PreSharedKeyID(mls.ExternalPSK(b"unknown"), bytes(32))
    with pytest.raises(LocalError):
        alice.commit(mls.PreSharedKey(unknown))
    alice.psks = {**alice.psks, b"unknown": b"only alice"}
    sent = alice.commit(mls.PreSharedKey(unknown))
    with broken("12.4.2-2"):
        bob.take(sent.commit)


def test_messages_out_of_order_late_and_twice() -> None:
    alice, bob = crowd(["alice", "bob"])
    first, second, third = (alice.say(text) for text in (b"1", b"2", b"3"))
    for message, text in ((third, b"3"), (first, b"1")):
        got = bob.take(message)
        assert isinstance(got, mls.Application)
        assert got.data == text
    with pytest.raises(DuplicateMessage):
        bob.take(first)
    for _ in range(bob.settings.past_epochs):
        bob.take(alice.commit().commit)
    got = bob.take(second)
    assert isinstance(got, mls.Application)
    assert (got.data, got.epoch) == (b"2", 1)
    with pytest.raises(DuplicateMessage):
        bob.take(second)
    late = alice.say(b"late")
    bob.take(alice.commit().commit)
    forgotten = bob.group.forget(NOW_S + bob.settings.past_epoch_s)
    with broken("6.1-3"):
        forgotten.process(late)
    bob.take(late)
    with pytest.raises(RemoteError):
        alice.group.process(alice.say(b"an echo"))


def test_ratchets_are_bounded() -> None:
    alice, bob = crowd(["alice", "bob"])
    messages = [alice.say(b"x") for _ in range(1002)]
    with pytest.raises(DecryptionFailed):
        bob.take(messages[1001])
    bob.take(messages[1000])
    bob.take(messages[1001])
    bob.take(messages[1])


def test_resync_after_loss() -> None:
    alice, bob, carol = crowd(["alice", "bob", "carol"])
    alice.commit()
    bob.identity = bob.new_identity()
    place = bob.group.leaf_index
    bob.group, message = mls.join_by_commit(
        alice.group.group_info(),
        bob.identity,
        bob.settings,
        bob.entropy,
        options=mls.ExternalOptions(replaces=place),
    )
    alice.take(message)
    agree([alice, bob])
    assert bob.group.leaf_index == place
    assert bob.group.member_count == 3
    with pytest.raises(RemoteError):
        carol.take(message)


def test_external_proposals() -> None:
    outside, joiner = Client("server"), Client("joiner")
    sender = mls.ExternalSender(outside.identity.signature.public, outside.identity.credential)
    people = [Client("alice"), Client("bob")]
    alice, bob = people
    alice.create(extensions=(mls.make_extension(mls.ExternalSenders((sender,))),))
    bob.join(alice.commit(add(bob.package())).welcome)
    context = alice.group.context
    (remove,) = mls.propose_from_outside(
        context, 0, outside.identity.signature.private, [mls.Remove(1)], outside.settings
    )
    wish = mls.propose_joining(context, joiner.package(), joiner.settings)
    for one in people:
        for message in (remove, wish):
            assert isinstance(one.take(message), mls.ProposalReceived)
    forged = mls.propose_from_outside(
        context, 0, joiner.identity.signature.private, [mls.Remove(0)], joiner.settings
    )
    with pytest.raises(RemoteError):
        alice.take(forged[0])
    with broken("12.1.8-3"):
        alice.take(
            mls.propose_from_outside(
                context, 1, outside.identity.signature.private, [mls.Remove(0)], outside.settings
            )[0]
        )
    sent = alice.commit()
    bob.take(sent.commit)
    assert bob.group.removed
    joiner.join(sent.welcome)
    agree([alice, joiner])


def test_reinit_and_branch() -> None:
    alice, bob, carol = people = crowd(["alice", "bob", "carol"])
    group, sent = mls.branch_group(
        alice.group,
        b"branch",
        mls.Founding(alice.package(), [bob.package().key_package]),
        NOW_S,
        alice.entropy,
    )
    group = group.merge_pending(NOW_S)
    assert sent.welcome is not None
    theirs, _ = mls.join_group(sent.welcome, bob.packages, bob.settings, origin=bob.group)
    assert theirs.epoch_authenticator == group.epoch_authenticator
    with broken("12.4.3.1-3"):
        mls.join_group(sent.welcome, bob.packages, bob.settings)
    successor = mls.ReInit(b"after", MLS10, 3, ())
    sent = alice.commit(successor)
    for one in (bob, carol):
        one.take(sent.commit)
    agree(people)
    for one in people:
        assert one.group.reinit == successor
        with pytest.raises(LocalError):
            one.group.protect(b"over", one.entropy)
        one.suite = mls.SUITES[3]
    others = [bob.package().key_package, carol.package().key_package]
    group, sent = mls.reinitialise_group(
        alice.group, mls.Founding(alice.package(), others), NOW_S, alice.entropy
    )
    group = group.merge_pending(NOW_S)
    assert sent.welcome is not None
    for one in (bob, carol):
        theirs, _ = mls.join_group(sent.welcome, one.packages, one.settings, origin=one.group)
        assert theirs.epoch_authenticator == group.epoch_authenticator
        assert theirs.suite.number == 3
    group, sent = mls.reinitialise_group(
        alice.group, mls.Founding(alice.package(), others[:1]), NOW_S, alice.entropy
    )
    assert sent.welcome is not None
    with broken("11.2-3"):
        mls.join_group(sent.welcome, bob.packages, bob.settings, origin=bob.group)


def test_another_identity() -> None:
    alice, bob = crowd(["alice", "bob"])
    asked: list[mls.LeafChange] = []
    bob.group = mls.Group.decode(bob.group.encode(), replace(bob.settings, check_credential=asked.append))
    renewed = replace(alice.new_identity(), credential=mls.basic_credential(b"alice anew"))
    bob.take(alice.commit(options=mls.CommitOptions(identity=renewed)).commit)
    agree([alice, bob])
    talk([alice, bob])
    assert [(one.kind, one.credential) for one in asked] == [(mls.ChangeKind.UPDATED, renewed.credential)]
    before = asked[0].before
    assert before is not None
    assert before.credential == mls.basic_credential(b"alice")
    alice.group, message = alice.group.propose_update(NOW_S, alice.entropy, alice.new_identity())
    bob.take(message)
    alice.take(bob.commit().commit)
    agree([alice, bob])
    talk([alice, bob])


def test_the_application_refuses_a_credential() -> None:
    def nobody(change: mls.LeafChange) -> None:
        raise RemoteError("not on the list")

    alice, bob = crowd(["alice", "bob"])
    carol = Client("carol")
    strict = mls.Group.decode(bob.group.encode(), replace(bob.settings, check_credential=nobody))
    sent = alice.commit(add(carol.package()))
    with pytest.raises(RemoteError, match="not on the list"):
        strict.process(sent.commit)
    bob.take(sent.commit)
    with pytest.raises(RemoteError, match="not on the list"):
        mls.join_group(sent.welcome or b"", carol.packages, replace(carol.settings, check_credential=nobody))
    with pytest.raises(LocalError):
        strict.propose(add(carol.package()), NOW_S, bob.entropy)
    assert mls.Settings(anybody).grease


def test_exported_secrets_have_a_length_that_can_be() -> None:
    (alice,) = crowd(["alice"])
    for length in (0, 16, 255 * 32):
        assert len(alice.group.export(b"label", b"context", length)) == length
    for length in (-1, 255 * 32 + 1, 1 << 16):
        with pytest.raises(LocalError, match="8160 bytes"):
            alice.group.export(b"label", b"context", length)


def test_past_epochs_are_forgotten_without_a_gap() -> None:
    """The clock was days ahead when the first epoch ended, and right when bob's leaf went with the second."""
    alice, bob = crowd(["alice", "bob"])
    late, kept_s = bob.say(b"late"), alice.settings.past_epoch_s
    alice.group, sent = alice.group.commit(NOW_S, alice.entropy)
    alice.group = alice.group.merge_pending(NOW_S + 2 * kept_s)
    bob.take(sent.commit)
    alice.take(bob.commit(options=mls.CommitOptions(identity=bob.new_identity())).commit)
    assert alice.group.process(late)
    alice.group = alice.group.forget(NOW_S + kept_s)
    with broken("6.1-3"):
        alice.group.process(late)


def test_key_packages() -> None:
    alice = Client("alice")
    own = alice.package(last_resort=True)
    assert own.key_package.last_resort
    again = mls.OwnKeyPackage.decode(own.encode(), alice.settings)
    assert again == own
    assert mls.read_key_package(own.message, alice.settings, NOW_S) == own.key_package
    for now_s in (NOW_S - 7200, NOW_S + alice.settings.key_package_s + 1):
        with broken("7.3-5"):
            mls.read_key_package(own.message, alice.settings, now_s)
    bob = Client("bob")
    bob.create()
    with pytest.raises(LocalError, match=re.escape("7.3-5")):
        bob.group.commit(NOW_S + alice.settings.key_package_s + 1, bob.entropy, [add(own)])
    assert "private" not in repr(own)


def test_a_key_package_has_no_extension_that_its_owner_does_not_list() -> None:
    alice = Client("alice")
    bare = replace(alice.identity, capabilities=replace(mls.capabilities(), extensions=()))
    unknown = (mls.Extension(0xFF42, b""),)
    for identity, last_resort, extensions in ((bare, True, ()), (alice.identity, False, unknown)):
        with pytest.raises(LocalError, match="capabilities"):
            mls.make_key_package(
                alice.suite, identity, alice.settings, NOW_S, alice.entropy,
                last_resort=last_resort, extensions=extensions,
            )  # fmt: skip
    alice.identity = replace(alice.identity, capabilities=mls.capabilities(extensions=(0xFF42,)))
    own = mls.make_key_package(
        alice.suite,
        alice.identity,
        alice.settings,
        NOW_S,
        alice.entropy,
        last_resort=True,
        extensions=unknown,
    )
    assert mls.read_key_package(own.message, alice.settings, NOW_S) == own.key_package
