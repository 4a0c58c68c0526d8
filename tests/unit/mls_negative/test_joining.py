"""Welcomes, GroupInfos and successor groups that must be refused (RFC 9420 sections 11, 12.4.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.protocol import mls
from lokket.protocol.mls import committing, creation, treekem, welcoming
from lokket.protocol.mls.messages import GroupInfo, Welcome
from lokket.protocol.mls.proposals import ResumptionUsage
from lokket.protocol.mls.ratchet_tree import RatchetTree
from lokket.protocol.mls.structs import MLS10, ExtensionType
from tests.support.mls import NOW_S, Client, add, agree, anybody, crowd
from tests.support.mls_rules import UNKNOWN, refused

NO_TREE = mls.CommitOptions(welcome=mls.InfoOptions(tree=False))


def invited(
    people: list[Client] | None = None, options: mls.CommitOptions | None = None
) -> tuple[list[Client], Client, mls.Sent]:
    """A group of two, one who is invited, and what the commit sends."""
    people, dave = people or crowd(["alice", "bob"]), Client("dave")
    sent = people[0].commit(add(dave.package()), options=options)
    people[1].take(sent.commit)
    return people, dave, sent


def welcome_of(sent: mls.Sent) -> Welcome:
    assert sent.welcome is not None
    message = mls.decode_message(sent.welcome)
    assert isinstance(message, Welcome)
    return message


@pytest.fixture
def lying_info(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[Client], Client, mls.Sent]]:
    """An invitation whose GroupInfo is changed, and signed again, before it is sealed."""

    def make(change: Callable[[GroupInfo], GroupInfo]) -> tuple[list[Client], Client, mls.Sent]:
        real, people = committing.make_group_info, crowd(["alice", "bob"])

        def lie(state: Any, options: Any) -> GroupInfo:
            info = replace(change(real(state, options)), signature=b"")
            signed = state.suite.sign_with_label(
                state.signature_private, b"GroupInfoTBS", info.to_be_signed()
            )
            return replace(info, signature=signed)

        with monkeypatch.context() as patch:
            patch.setattr(committing, "make_group_info", lie)
            return invited(people)

    return make


def test_a_welcome_that_names_none_of_our_key_packages() -> None:
    _, dave, sent = invited()
    stranger = Client("stranger")
    with refused("12.4.3.1-1"):
        stranger.join(sent.welcome)
    stranger.package()
    with refused("12.4.3.1-1"):
        stranger.join(sent.welcome)
    dave.join(sent.welcome)


def test_a_welcome_with_a_key_package_whose_keys_are_others() -> None:
    _, dave, sent = invited()
    thief = Client("thief")
    own = replace(thief.package(), key_package=dave.packages[0].key_package)
    with pytest.raises(RemoteError):
        mls.join_group(sent.welcome or b"", [own], thief.settings)


def test_a_welcome_of_a_suite_that_is_not_carried() -> None:
    _, dave, sent = invited()
    welcome = welcome_of(sent)
    for suite in (3, 0, 99):
        with pytest.raises(RemoteError):
            dave.join(mls.encode_message(replace(welcome, cipher_suite=suite)))


def test_altered_welcomes() -> None:
    _, dave, sent = invited()
    assert sent.welcome is not None
    for position in range(0, len(sent.welcome), 17):
        changed = bytearray(sent.welcome)
        changed[position] ^= 0x04
        with pytest.raises(RemoteError):
            dave.join(bytes(changed))
    for size in range(0, len(sent.welcome), 23):
        with pytest.raises(RemoteError):
            dave.join(sent.welcome[:size])
    with pytest.raises(DecodeError):
        dave.join(sent.welcome + b"\x00")
    dave.join(sent.welcome)


def test_other_messages_than_a_welcome() -> None:
    people, dave, sent = invited()
    for message in (sent.commit, sent.group_info, people[0].say(b"x"), b""):
        with pytest.raises(RemoteError):
            dave.join(message)
    with pytest.raises(RemoteError):
        mls.join_by_commit(sent.welcome or b"", dave.identity, dave.settings, dave.entropy)


def test_a_welcome_whose_key_we_lack() -> None:
    alice, bob = crowd(["alice", "bob"])
    alice.psks[b"k"] = bob.psks[b"k"] = b"secret"
    dave = Client("dave")
    key = mls.PreSharedKey(mls.PreSharedKeyID(mls.ExternalPSK(b"k"), bytes(32)))
    sent = alice.commit(add(dave.package()), key)
    with refused("12.4.3.1-3"):
        dave.join(sent.welcome)
    dave.psks[b"k"] = b"another"
    with pytest.raises(RemoteError):
        dave.join(sent.welcome)
    dave.psks[b"k"] = b"secret"
    dave.join(sent.welcome)


def test_a_group_that_we_are_in() -> None:
    _, dave, sent = invited()
    with refused("12.4.3.1-6"):
        dave.join(sent.welcome, in_use=[b"group", b"another"])


def test_a_group_whose_tree_is_missing_or_another() -> None:
    people, dave, sent = invited(options=NO_TREE)
    with refused("12.4.3.1-10"):
        dave.join(sent.welcome)
    people[0].commit()
    with refused("12.4.3.1-7"):
        dave.join(sent.welcome, ratchet_tree=people[0].group.ratchet_tree())
    with pytest.raises(DecodeError):
        dave.join(sent.welcome, ratchet_tree=sent.ratchet_tree + b"\x00")
    with refused("12.4.3.3-1"):
        dave.join(sent.welcome, ratchet_tree=b"\x00")
    tree = RatchetTree.decode(sent.ratchet_tree)
    with refused("12.4.3.1-5"):
        dave.join(sent.welcome, ratchet_tree=tree.remove(0).encode())
    dave.join(sent.welcome, ratchet_tree=sent.ratchet_tree)


def test_a_confirmation_tag_that_is_none(lying_info: Callable[..., Any]) -> None:
    _, dave, sent = lying_info(lambda info: replace(info, confirmation_tag=bytes(32)))
    with refused("12.4.3.1-9"):
        dave.join(sent.welcome)


def test_a_context_that_is_another(lying_info: Callable[..., Any]) -> None:
    for change, rule in (
        ({"epoch": 9}, "12.4.3.1-9"),
        ({"group_id": b"other"}, "12.4.3.1-9"),
        ({"confirmed_transcript_hash": bytes(32)}, "12.4.3.1-9"),
        ({"tree_hash": bytes(32)}, "12.4.3.1-7"),
        ({"cipher_suite": 3}, "12.4.3.1-2"),
        ({"version": 2}, "12.4.3.1-2"),
        ({"extensions": (mls.Extension(UNKNOWN, b""),)}, "13.4-2"),
    ):

        def lie(info: GroupInfo, change: dict[str, Any] = change) -> GroupInfo:
            return replace(info, group_context=replace(info.group_context, **change))

        _, dave, sent = lying_info(lie)
        with refused(rule):
            dave.join(sent.welcome)


def test_a_group_info_of_another_signer(lying_info: Callable[..., Any]) -> None:
    for signer in (1, 5, 2**32 - 1):
        _, dave, sent = lying_info(lambda info, signer=signer: replace(info, signer=signer))
        with refused("12.4.3.1-5"):
            dave.join(sent.welcome)


def test_two_extensions_of_a_type_in_a_group_info(lying_info: Callable[..., Any]) -> None:
    _, dave, sent = lying_info(lambda info: replace(info, extensions=info.extensions * 2))
    with refused("13.4-1"):
        dave.join(sent.welcome)


@pytest.mark.attack(16)
def test_bytes_after_the_content_of_an_extension(lying_info: Callable[..., Any]) -> None:
    """Another implementation took them once (OpenMLS #2134)."""

    def trailing(info: GroupInfo) -> GroupInfo:
        longer = tuple(
            replace(one, extension_data=one.extension_data + b"\x00")
            if one.extension_type == ExtensionType.RATCHET_TREE
            else one
            for one in info.extensions
        )
        return replace(info, extensions=longer)

    _, dave, sent = lying_info(trailing)
    with pytest.raises(DecodeError):
        dave.join(sent.welcome)


@pytest.mark.parametrize(
    "kind", [mls.RequiredCapabilities(), mls.ExternalSenders(()), mls.RequiredCapabilities((5,), (), (1,))]
)
def test_bytes_after_the_content_of_a_context_extension(kind: Any) -> None:
    extension = mls.make_extension(kind)
    longer = replace(extension, extension_data=extension.extension_data + b"\x00")
    alice = Client("alice")
    with pytest.raises((DecodeError, LocalError)):
        alice.create(extensions=(longer,))
    alice.create(extensions=(extension,))


def test_a_welcome_from_which_our_leaf_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two are added, and the Welcome for one of them is of an epoch from which it was removed."""
    _, dave, sent = invited()
    other = Client("other")
    leaf = other.package().key_package.leaf_node
    real = welcoming.own_leaf_index
    monkeypatch.setattr(welcoming, "own_leaf_index", lambda tree, _: real(tree, leaf))
    with refused("12.4.3.1-8"):
        dave.join(sent.welcome)


def test_a_welcome_without_the_path_secret_that_it_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the newcomer could enter, and would be out with the next path sealed to its parent."""
    _, _, carol = crowd(["alice", "bob", "carol"])
    dave = Client("dave")
    with monkeypatch.context() as patch:
        patch.setattr(treekem.NewPath, "path_secret_for", lambda *rest: None)
        sent = carol.commit(add(dave.package()), options=mls.CommitOptions(path=True))
    with refused("12.4.3.1-14"):
        dave.join(sent.welcome)


@pytest.mark.attack(73, 74)
@pytest.mark.parametrize("kind", list(mls.ChangeKind))
def test_the_application_is_asked_at_every_change(kind: mls.ChangeKind) -> None:
    """Rule 7.3-1 is the application's: it is asked of each leaf, and its refusal changes nothing."""

    def strict(change: mls.LeafChange) -> None:
        if change.kind is kind:
            raise RemoteError("not on the list", code="test")

    alice, bob, carol = crowd(["alice", "bob", "carol"])
    sender = mls.ExternalSender(carol.identity.signature.public, carol.identity.credential)
    senders = mls.GroupContextExtensions((mls.make_extension(mls.ExternalSenders((sender,))),))
    dave = Client("dave")
    watching = mls.Group.decode(bob.group.encode(), replace(bob.settings, check_credential=strict))
    if kind is mls.ChangeKind.FOUND:
        sent = alice.commit(add(dave.package()))
        with pytest.raises(RemoteError, match="list"):
            mls.join_group(
                sent.welcome or b"", dave.packages, replace(dave.settings, check_credential=strict)
            )
        return
    commit = {
        mls.ChangeKind.ADDED: lambda: alice.group.commit(NOW_S, alice.entropy, [add(dave.package())]),
        mls.ChangeKind.UPDATED: lambda: alice.group.commit(NOW_S, alice.entropy),
        mls.ChangeKind.EXTERNAL_SENDER: lambda: alice.group.commit(NOW_S, alice.entropy, [senders]),
    }[kind]()[1].commit
    before = watching.encode()
    with pytest.raises(RemoteError, match="list"):
        watching.process(commit)
    assert watching.encode() == before
    allowing = mls.Group.decode(before, replace(bob.settings, check_credential=anybody))
    assert isinstance(allowing.process(commit), mls.StagedCommit)


def test_a_key_package_that_counts_for_too_long() -> None:
    """Whoever adds it looks; what another member added is that member's to judge."""
    alice, bob = crowd(["alice", "bob"])
    dave, longest = Client("dave"), alice.settings.lifetime_max_s
    dave.settings = replace(dave.settings, key_package_s=longest - 3_600)
    mls.read_key_package(dave.package().message, alice.settings, NOW_S)
    dave.settings = replace(dave.settings, key_package_s=longest - 3_599)
    own = dave.package()
    with refused("7.2-1"):
        mls.read_key_package(own.message, alice.settings, NOW_S)
    for step in (
        alice.group.commit,
        lambda now_s, entropy, given: alice.group.propose(given[0], now_s, entropy),
    ):
        with pytest.raises(LocalError, match=r"7\.2-1"):
            step(NOW_S, alice.entropy, [add(own)])
    lax = mls.Group.decode(bob.group.encode(), replace(bob.settings, lifetime_max_s=1 << 63))
    alice.group, _ = alice.group.process(lax.propose(add(own), NOW_S, bob.entropy)[1])
    assert alice.commit().welcome is None  # it waits there, and alice does not commit it


# --- groups that come from others (sections 11.2 and 11.3) ---


def founded(people: list[Client], group_id: bytes = b"branch", **founding: Any) -> mls.Sent:
    alice, others = people[0], [one.package().key_package for one in people[1:]]
    options = mls.Founding(alice.package(), others, **founding)
    return mls.branch_group(alice.group, group_id, options, NOW_S, alice.entropy)[1]


def ended(people: list[Client], reinit: mls.ReInit) -> None:
    commit = people[0].commit(reinit).commit
    for one in people[1:]:
        one.take(commit)


def succeeded(people: list[Client], **founding: Any) -> mls.Sent:
    alice, others = people[0], [one.package().key_package for one in people[1:]]
    options = mls.Founding(alice.package(), others, **founding)
    return mls.reinitialise_group(alice.group, options, NOW_S, alice.entropy)[1]


def test_a_branch_of_a_group_that_we_are_not_in() -> None:
    people = crowd(["alice", "bob"])
    sent = founded(people)
    _, elsewhere = crowd(["carol", "bob"])
    bob = people[1]
    with refused("12.4.3.1-3"):
        bob.join(sent.welcome)
    with pytest.raises(RemoteError):
        bob.join(sent.welcome, origin=elsewhere.group)
    bob.join(sent.welcome, origin=bob.group)


def test_an_origin_key_with_no_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key may come from elsewhere; without the group itself its members cannot be compared."""
    people = crowd(["alice", "bob"])
    sent = founded(people)
    bob = people[1]
    psk = bob.group._state.epoch.secrets.resumption_psk
    knowing = replace(bob.settings, find_psk=lambda _: psk)
    with refused("11-1"):
        mls.join_group(sent.welcome or b"", bob.packages, knowing)


def test_a_group_that_only_has_the_successors_name() -> None:
    """Anyone can found a group of that id: whoever names the origin joins none that does not come from it."""
    people = crowd(["alice", "bob"])
    ended(people, mls.ReInit(b"after", MLS10, 1, ()))
    bob, mallory = people[1], Client("mallory")
    mallory.create(b"after")
    sent = mallory.commit(add(bob.package()))
    with refused("11-2"):
        bob.join(sent.welcome, origin=bob.group)
    bob.join(succeeded(people).welcome, origin=bob.group)


def test_a_branch_with_a_stranger() -> None:
    people = crowd(["alice", "bob"])
    sent = founded([*people, Client("stranger")])
    with refused("11.3-2"):
        people[1].join(sent.welcome, origin=people[1].group)


def test_a_branch_of_another_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    people = crowd(["alice", "bob"])
    for one in people:
        one.suite = mls.SUITES[3]
        one.identity = one.new_identity()
    with pytest.raises(LocalError):
        founded(people)
    with monkeypatch.context() as patch:
        state = people[0].group._state
        patch.setattr(creation, "branch", lambda before, *rest: _branch_anyway(state, *rest))
        sent = founded(people)
    with refused("11.3-1"):
        people[1].join(sent.welcome, origin=people[1].group)


def _branch_anyway(before: Any, group_id: bytes, founding: Any, now_s: int, entropy: Any) -> Any:
    state = creation.create(group_id, founding.own, before.settings, entropy, ())
    return creation._populate(before, state, founding, ResumptionUsage.BRANCH, now_s, entropy=entropy)


def test_a_successor_of_a_group_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = people = crowd(["alice", "bob"])
    reinit = mls.ReInit(b"after", MLS10, 1, ())
    commit = alice.commit(reinit).commit
    sent = succeeded(people)
    with pytest.raises(RemoteError):
        bob.join(sent.welcome, origin=bob.group)
    psk = alice.group._state.epoch.secrets.resumption_psk
    bob.settings = replace(bob.settings, find_psk=lambda _: psk)
    with refused("11.2-2"):
        bob.join(sent.welcome, origin=bob.group)
    bob.take(commit)
    bob.join(sent.welcome, origin=bob.group)


def test_a_successor_that_is_not_what_was_said() -> None:
    people = crowd(["alice", "bob"])
    ended(people, mls.ReInit(b"after", MLS10, 1, ()))
    alice, bob = people
    lie = mls.ReInit(b"elsewhere", MLS10, 1, ())
    alice.group = mls.Group(replace(alice.group._state, reinit=lie))
    sent = succeeded(people)
    with refused("11.2-1"):
        bob.join(sent.welcome, origin=bob.group)


def test_a_group_that_ended_is_not_brought_back() -> None:
    """Whoever took a commit after the ReInit would be out of the epoch from which the successor comes."""
    _, bob, carol = people = crowd(["alice", "bob", "carol"])
    ended(people, mls.ReInit(b"after", MLS10, 1, ()))
    traitor, before = mls.Group(replace(carol.group._state, reinit=None)), bob.group
    for message in (
        traitor.commit(NOW_S, carol.entropy)[1].commit,
        traitor.propose(mls.Remove(0), NOW_S, carol.entropy)[1],
        mls.join_by_commit(traitor.group_info(), Client("dave").identity, carol.settings, carol.entropy)[1],
    ):
        with refused("12.4.2-5"):
            bob.take(message)
    assert bob.group is before
    bob.join(succeeded(people).welcome, origin=bob.group)


def test_a_successor_without_a_member() -> None:
    people = crowd(["alice", "bob", "carol"])
    ended(people, mls.ReInit(b"after", MLS10, 1, ()))
    sent = succeeded(people[:2])
    with refused("11.2-3"):
        people[1].join(sent.welcome, origin=people[1].group)
    sent = succeeded(people)
    joined = [people[1], people[2]]
    for one in joined:
        one.join(sent.welcome, origin=one.group)
    agree(joined)


def test_a_welcome_with_two_origins_or_late(monkeypatch: pytest.MonkeyPatch) -> None:
    people = crowd(["alice", "bob"])
    real = committing.seal_welcome

    def two(suite: Any, following: Any, info: Any, commit: Any, entropy: Any) -> Welcome:
        applied, path = commit
        doubled = replace(applied, psks=applied.psks * 2)
        return real(suite, following, info, (doubled, path), entropy)

    with monkeypatch.context() as patch:
        patch.setattr(committing, "seal_welcome", two)
        sent = founded(people)
    with refused("12.4.3.1-4"):
        people[1].join(sent.welcome, origin=people[1].group)


@pytest.mark.attack(73)
def test_a_leaf_that_lies_in_a_tree_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever invites us vouches for a tree: each leaf in it must be its owner's own (7.3-2)."""
    alice, dave = crowd(["alice", "bob"])[0], Client("dave")
    state = alice.group._state
    victim = state.tree.leaf(1)
    assert victim is not None
    faked = replace(victim, credential=mls.basic_credential(b"somebody else"))
    tree = state.tree.with_path(1, faked, {})
    alice.group = mls.Group(replace(state, epoch=replace(state.epoch, tree=tree)))
    sent = alice.commit(add(dave.package()))
    with refused("7.3-2"):
        dave.join(sent.welcome)
