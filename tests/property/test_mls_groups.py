"""Properties of MLS groups: all agree whatever happens; a leak opens neither the past nor the healed future.

A failure of ``test_worlds`` prints what replays it; ``make mls-worlds`` runs many and larger ones.
"""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from lokket.crypto.kem import KEMKeyPair
from lokket.errors import DecryptionFailed, RemoteError
from lokket.protocol import mls
from lokket.protocol.mls.messages import PublicMessage
from lokket.protocol.mls.proposals import Commit, UpdatePath
from lokket.protocol.mls.transition import provisional_context
from tests.support.mls import NOW_S, Client, agree, crowd, talk
from tests.support.mls_world import World

PUBLIC = mls.CommitOptions(handshake=mls.WireFormat.PUBLIC_MESSAGE)


@pytest.mark.attack(75, 77)
@pytest.mark.parametrize("seed", range(4))
def test_worlds(seed: int) -> None:
    world = World(seed, members_max=14)
    print(f"python -m tests.support.mls_world --seed {seed} --steps 60 --members 14")
    world.run(60)
    assert world.relay.epoch > 3
    assert world.counts["commit"] > 1


@pytest.mark.parametrize("suite", [7, mls.POST_QUANTUM_ID])
def test_a_world_of_another_suite(suite: int) -> None:
    World(suite, members_max=6, suite=suite).run(20)


def test_worlds_repeat() -> None:
    one, other = World(7, members_max=6), World(7, members_max=6)
    for world in (one, other):
        world.run(25)
    assert one.relay.log == other.relay.log
    assert one.authenticators == other.authenticators


# --- forward secrecy ---


def secrets_of(group: mls.Group) -> dict[str, bytes]:
    """Every secret of the epoch that the key schedule gives, and the private keys of the tree."""
    state = group._state
    found = {one.name: getattr(state.epoch.secrets, one.name) for one in fields(state.epoch.secrets)}
    found |= {f"key of node {index}": pair.private for index, pair in state.private.items()}
    return {name: secret for name, secret in found.items() if isinstance(secret, bytes)}


def test_a_leaked_state_holds_no_secret_of_epochs_before() -> None:
    people = crowd(["alice", "bob", "carol", "dave"], past_epochs=0)
    bob, old = people[1], secrets_of(people[1].group)
    for committer in (people[0], people[1], people[2], people[3]):
        commit = committer.commit().commit
        for one in people:
            if one is not committer:
                one.take(commit)
    leaked = bob.group.encode()
    kept = {name for name, secret in old.items() if secret in leaked}
    assert kept == {"resumption_psk"}, "kept on purpose, for proposals that name it (section 8.6)"
    assert len(old) >= 9
    assert secrets_of(bob.group)["init_secret"] in leaked  # what is looked for would be found


@pytest.mark.attack(80)
def test_a_leaked_state_opens_no_message_that_was_read() -> None:
    alice, bob = crowd(["alice", "bob"])
    messages = [alice.say(f"{number}".encode()) for number in range(5)]
    for message in messages:
        bob.take(message)
    leaked = mls.Group.decode(bob.group.encode(), bob.settings)
    for message in messages:
        with pytest.raises(RemoteError):
            leaked.process(message)
    following = leaked.process(alice.say(b"the next one"))
    assert not isinstance(following, mls.StagedCommit)  # control: the present is not safe


def test_a_leaked_state_opens_nothing_of_an_epoch_that_is_forgotten() -> None:
    alice, bob = crowd(["alice", "bob"])
    unread = alice.say(b"never read")
    bob.take(alice.commit().commit)
    late = mls.Group.decode(bob.group.encode(), bob.settings)
    assert not isinstance(late.process(unread), mls.StagedCommit)  # control: kept for a while
    forgetful = bob.group.forget(NOW_S + bob.settings.past_epoch_s)
    leaked = mls.Group.decode(forgetful.encode(), bob.settings)
    with pytest.raises(RemoteError):
        leaked.process(unread)


# --- post-compromise security ---


def path_of(message: bytes) -> UpdatePath:
    public = mls.decode_message(message)
    assert isinstance(public, PublicMessage)
    assert isinstance(public.content.content, Commit)
    assert public.content.content.path is not None
    return public.content.content.path


def opens_a_path_secret(leaked: mls.Group, commit: bytes, after: mls.Group) -> bool:
    """Whether any private key in ``leaked`` opens anything in the path, under the right context."""
    state, path = leaked._state, path_of(commit)
    tree, extensions = after._state.tree, after.context.extensions
    context = provisional_context(leaked.suite, leaked.context, tree, extensions).encoded
    keys: list[KEMKeyPair] = list(state.private.values())
    for node in path.nodes:
        for sealed in node.encrypted_path_secret:
            for pair in keys:
                try:
                    leaked.suite.decrypt_with_label(pair, b"UpdatePathNode", context, sealed)
                except DecryptionFailed:
                    continue
                return True
    return False


def leak(client: Client) -> mls.Group:
    return mls.Group.decode(client.group.encode(), client.settings)


@pytest.mark.attack(80)
def test_whoever_leaked_heals_by_its_own_commit() -> None:
    people = alice, bob, carol, _ = crowd(["alice", "bob", "carol", "dave"])
    stolen = leak(bob)
    before = stolen.export(b"x", b"", 32)
    assert before == bob.group.export(b"x", b"", 32)  # control: it was all there
    commit = alice.commit(options=PUBLIC).commit
    assert opens_a_path_secret(stolen, commit, alice.group)  # control: others' commits do not lock out
    staged = stolen.process(commit)
    assert isinstance(staged, mls.StagedCommit)
    stolen = staged.merge(NOW_S)
    for one in people[1:]:
        one.take(commit)
    assert stolen.epoch_authenticator == bob.group.epoch_authenticator
    healing = bob.commit(options=PUBLIC).commit
    assert not opens_a_path_secret(stolen, healing, bob.group)
    for one in (alice, carol, people[3]):
        one.take(healing)
    agree(people)
    with pytest.raises(RemoteError):
        stolen.process(alice.say(b"healed"))
    for committer in (alice, bob, carol):
        commit = committer.commit(options=PUBLIC).commit
        assert not opens_a_path_secret(stolen, commit, committer.group)
        for one in people:
            if one is not committer:
                one.take(commit)
    talk(people)


@pytest.mark.attack(80)
def test_whoever_leaked_heals_by_an_update_that_another_commits() -> None:
    people = alice, bob, carol = crowd(["alice", "bob", "carol"])
    stolen = leak(bob)
    bob.group, proposal = bob.group.propose_update(NOW_S, bob.entropy)
    alice.take(proposal)
    carol.take(proposal)
    commit = alice.commit(options=PUBLIC).commit
    assert not opens_a_path_secret(stolen, commit, alice.group)
    bob.take(commit)
    carol.take(commit)
    talk(people)


def test_a_key_from_elsewhere_locks_out_whoever_lacks_it() -> None:
    """Harvest now: the tree's keys leaked, the pre-shared key did not (section 8.4)."""
    alice, bob = crowd(["alice", "bob"])
    stolen = leak(bob)
    alice.psks[b"k"] = bob.psks[b"k"] = b"by another way"
    key = mls.PreSharedKey(mls.PreSharedKeyID(mls.ExternalPSK(b"k"), bytes(32)))
    commit = alice.commit(key).commit
    stolen = mls.Group.decode(stolen.encode(), replace(bob.settings, find_psk=lambda _: b"a guess"))
    with pytest.raises(RemoteError):
        stolen.process(commit)
    bob.take(commit)
    agree([alice, bob])


@pytest.mark.attack(76)
def test_who_was_removed_learns_nothing_of_the_next_epoch() -> None:
    people = alice, bob, carol, dave = crowd(["alice", "bob", "carol", "dave"])
    for committer in people:  # a warm tree: everyone knows keys of its path
        commit = committer.commit().commit
        for one in people:
            if one is not committer:
                one.take(commit)
    removed = leak(carol)
    commit = alice.commit(mls.Remove(2), options=PUBLIC).commit
    assert not opens_a_path_secret(removed, commit, alice.group)
    for one in (bob, dave):
        one.take(commit)
    staged = removed.process(commit)
    assert isinstance(staged, mls.StagedCommit)
    assert staged.removes_us
    with pytest.raises(RemoteError):
        removed.process(alice.say(b"among ourselves"))
    agree([alice, bob, dave])


def test_who_joins_reads_nothing_of_before() -> None:
    alice, bob = crowd(["alice", "bob"])
    early = alice.say(b"before")
    carol = Client("carol")
    sent = alice.commit(mls.Add(carol.package().key_package))
    bob.take(sent.commit)
    carol.join(sent.welcome)
    with pytest.raises(RemoteError):
        carol.group.process(early)
    bob.take(early)
    talk([alice, bob, carol])
