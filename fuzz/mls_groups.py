"""Targets and starting values of MLS groups: ``process``, Welcomes, and what members and inviters can forge.

The group is fixed: its members' states lie in ``fixtures``. ``python -m fuzz.mls_groups`` makes them anew,
which is needed only when groups are stored otherwise; then ``fuzz/seeds.py`` renews the corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from fuzz.mls import all_proposals, commits
from lokket.codec import tls
from lokket.errors import LocalError
from lokket.protocol import mls
from lokket.protocol.mls import committing, framing, welcoming
from lokket.protocol.mls.messages import (
    External,
    FramedContentAuthData,
    GroupInfo,
    Member,
    NewMemberCommit,
    NewMemberProposal,
    PublicMessage,
    Sender,
)
from lokket.protocol.mls.proposals import Commit, Proposal
from tests.support.mls import NOW_S, Client, add, anybody, crowd

FIXTURES: Final = Path(__file__).parent / "fixtures"
SETTINGS: Final = mls.Settings(check_credential=anybody, grease=False)
PUBLIC: Final = mls.WireFormat.PUBLIC_MESSAGE


def fixture(name: str) -> bytes:
    return (FIXTURES / f"mls-{name}").read_bytes()


@cache
def member(name: str) -> mls.Group:
    return mls.Group.decode(fixture(name), SETTINGS)


@cache
def dave() -> mls.OwnKeyPackage:
    return mls.OwnKeyPackage.decode(fixture("dave"), SETTINGS)


@cache
def invitation() -> welcoming.Invitation:
    return welcoming.open_welcome(fixture("welcome"), [dave()], SETTINGS)


def process(data: bytes) -> object:
    """Anything that arrives. Whatever it was, the group that took it is as it was."""
    bob = member("bob")
    try:
        return bob.process(data)
    finally:
        assert bob.encode() == fixture("bob")


@dataclass(frozen=True, slots=True)
class Inside:
    """What a member may put into a message, or one that poses as another sender."""

    sender: Sender
    content: Commit | None
    proposal: Proposal | None
    confirmation_tag: tls.Opaque


def inside(data: bytes) -> object:
    """A member's content under a right tag and signature: only the rules can refuse it."""
    given, state = tls.decode(Inside, data), member("alice")._state
    body = given.content if given.content is not None else given.proposal
    if body is None:
        return None
    framed = committing.frame(state, body, b"", PUBLIC)
    framed = replace(framed, content=replace(framed.content, sender=given.sender))
    signature = framing.sign(state.suite, state.signature_private, PUBLIC, framed.content, state.context)
    tag = given.confirmation_tag if isinstance(body, Commit) else None
    framed = replace(framed, auth=FramedContentAuthData(signature, tag))
    message = framing.seal_public(state.suite, framed, state.epoch.secrets.membership_key, state.context)
    return process(mls.encode_message(message))


def join(data: bytes) -> object:
    return mls.join_group(data, [dave()], SETTINGS)


def told(data: bytes) -> object:
    """A GroupInfo, and with it a tree, that a member made and signed: only the rules can refuse it."""
    info, state = tls.decode(GroupInfo, data), member("alice")._state
    bare = replace(info, signature=b"")
    signature = state.suite.sign_with_label(state.signature_private, b"GroupInfoTBS", bare.to_be_signed())
    given = replace(invitation(), info=replace(info, signature=signature))
    return welcoming.join(given, SETTINGS, None, ())


def stored(data: bytes) -> object:
    """What a vault holds. LocalError: of a newer version."""
    try:
        group = mls.Group.decode(data, SETTINGS)
        assert mls.Group.decode(group.encode(), SETTINGS).encode() == group.encode()
        return group
    except LocalError:
        return None


def stored_package(data: bytes) -> object:
    try:
        return mls.OwnKeyPackage.decode(data, SETTINGS).encode()
    except LocalError:
        return None


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "mls-process": process,
    "mls-inside": inside,
    "mls-welcome": join,
    "mls-told": told,
    "mls-stored": stored,
    "mls-stored-package": stored_package,
}


# --- starting values ---


def alice() -> tuple[mls.Group, Any]:
    return member("alice"), Client("alice of the fuzzer").entropy


def arrivals() -> Iterator[bytes]:
    group, entropy = alice()
    yield group.protect(b"hello", entropy, b"in the clear")[1]
    yield group.propose(mls.Remove(2), NOW_S, entropy)[1]
    yield group.propose_update(NOW_S, entropy)[1]
    for options in (mls.CommitOptions(), mls.CommitOptions(handshake=PUBLIC)):
        yield group.commit(NOW_S, entropy, [mls.Remove(2)], options)[1].commit
    joiner = Client("joiner", options={"grease": False})
    info = group.group_info()
    yield mls.join_by_commit(info, joiner.identity, joiner.settings, joiner.entropy)[1]
    yield mls.propose_joining(group.context, joiner.package(), joiner.settings)


def public(message: bytes) -> bytes:
    """The content of a PublicMessage as an ``Inside``."""
    body = mls.decode_message(message)
    assert isinstance(body, PublicMessage)
    content, tag = body.content.content, body.auth.confirmation_tag
    if isinstance(content, Commit):
        return tls.encode(Inside(body.content.sender, content, None, tag or b""))
    return tls.encode(Inside(body.content.sender, None, content, b""))  # type: ignore[arg-type]


def insides() -> Iterator[bytes]:
    group, entropy = alice()
    options = mls.CommitOptions(handshake=PUBLIC)
    newcomer = Client("newcomer", options={"grease": False})
    yield public(group.commit(NOW_S, entropy, (), options)[1].commit)
    yield public(group.commit(NOW_S, entropy, [mls.Remove(2), add(newcomer.package())], options)[1].commit)
    yield public(list(arrivals())[5])
    for proposal in all_proposals():
        yield tls.encode(Inside(Member(0), None, proposal, b""))
    for sender in (External(0), NewMemberProposal(), Member(2**32 - 1)):
        yield tls.encode(Inside(sender, None, mls.Remove(1), b""))
    yield tls.encode(Inside(NewMemberCommit(), commits()[2], None, bytes(32)))


SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "mls-process": arrivals,
    "mls-inside": insides,
    "mls-welcome": lambda: iter([fixture("welcome")]),
    "mls-told": lambda: iter([tls.encode(invitation().info)]),
    "mls-stored": lambda: iter([fixture("bob"), fixture("alice")]),
    "mls-stored-package": lambda: iter([fixture("dave")]),
}


def renew() -> None:
    """A warm group of three, one of whom is alice's and one bob's; and a Welcome to dave."""
    people = crowd(["alice", "bob", "carol"], grease=False)
    for committer in people:
        commit = committer.commit().commit
        for one in people:
            if one is not committer:
                one.take(commit)
    newcomer = Client("dave", options={"grease": False})
    sent = people[0].group.commit(NOW_S, people[0].entropy, [add(newcomer.package())])[1]
    assert sent.welcome is not None
    FIXTURES.mkdir(exist_ok=True)
    for name, data in {
        "alice": people[0].group.encode(),
        "bob": people[1].group.encode(),
        "dave": newcomer.packages[0].encode(),
        "welcome": sent.welcome,
    }.items():
        (FIXTURES / f"mls-{name}").write_bytes(data)


if __name__ == "__main__":
    renew()
