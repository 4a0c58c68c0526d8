"""The group that everyone is measured in: one real member, and others whose keys the bench holds.

Its tree is *bare* when one commit added everybody and nobody committed since, *warm* when every parent node
has a key. It is warmed by making paths alone, without the messages that nobody would read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from lokket.protocol import mls
from lokket.protocol.mls import treekem
from lokket.protocol.mls.group import Group
from lokket.system import SystemEntropy, now_ms

ENTROPY: Final = SystemEntropy()
SUITE: Final = mls.SUITES[1]


def now_s() -> int:
    return now_ms() // 1000


def anybody(change: mls.LeafChange) -> None:
    """No driver is measured with an authentication service."""


SETTINGS: Final = mls.Settings(anybody, grease=False)


def key_package(name: str) -> mls.OwnKeyPackage:
    key = SUITE.generate_signature_key(ENTROPY)
    identity = mls.Identity(mls.basic_credential(name.encode()), key, mls.capabilities())
    return mls.make_key_package(SUITE, identity, SETTINGS, now_s(), ENTROPY)


class World:
    """``packages`` are those of the members, by leaf index; the first is the one that follows."""

    def __init__(self, size: int) -> None:
        self.packages = [key_package(f"member {number}") for number in range(size)]
        self.group = mls.create_group(b"bench", self.packages[0], SETTINGS, ENTROPY)
        if size > 1:
            self.commit(*(mls.Add(one.key_package) for one in self.packages[1:]))

    def commit(self, *proposals: mls.Add | mls.Remove) -> mls.Sent:
        self.group, sent = self.group.commit(now_s(), ENTROPY, proposals)
        self.group = self.group.merge_pending(now_s())
        return sent

    def replace_last(self, messages: list[bytes]) -> bytes:
        """The Welcome for these key packages, whose owners take the places of as many members.

        So nobody is an unmerged leaf: ts-mls 1.6.4 joins no tree in which the nodes above an unmerged leaf
        list different leaves, although RFC 9420 section 12.4.3.1 lets them.
        """
        found = [mls.read_key_package(one, SETTINGS, now_s()) for one in messages]
        places = range(len(self.packages) - len(found), len(self.packages))
        removed = [mls.Remove(place) for place in places]
        welcome = self.commit(*removed, *(mls.Add(one) for one in found)).welcome
        del self.packages[places.start :]
        assert welcome is not None
        return welcome

    def add(self, messages: list[bytes]) -> bytes:
        """The Welcome for these key packages, whose owners come after the members."""
        found = [mls.read_key_package(one, SETTINGS, now_s()) for one in messages]
        welcome = self.commit(*(mls.Add(one) for one in found)).welcome
        assert welcome is not None
        return welcome

    def warm(self) -> None:
        state = self.group._state
        tree = state.tree
        for leaf_index in range(len(self.packages) - 1, -1, -2):
            leaf = tree.leaf(leaf_index)
            assert leaf is not None
            private = self.packages[leaf_index].signature_private
            keys = treekem.LeafKeys(leaf_index, leaf, private, self.group.group_id)
            tree = treekem.new_path(SUITE, tree, keys, ENTROPY).tree
        self.group = Group(replace(state, epoch=replace(state.epoch, tree=tree)))
        self.commit()

    def commit_of(self, leaf_index: int) -> bytes:
        """A commit that renews the keys of this member, which the first member follows."""
        private = self.packages[leaf_index].signature_private
        other = Group(
            replace(self.group._state, leaf_index=leaf_index, signature_private=private, private={})
        )
        _, sent = other.commit(now_s(), ENTROPY)
        self.process(sent.commit)
        return sent.commit

    def process(self, message: bytes) -> None:
        got = self.group.process(message)
        self.group = got.merge(now_s()) if isinstance(got, mls.StagedCommit) else got[0]

    def say(self, leaf_index: int, text: bytes) -> bytes:
        """An application message of any member."""
        private = self.packages[leaf_index].signature_private
        other = Group(replace(self.group._state, leaf_index=leaf_index, signature_private=private))
        return other.protect(text, ENTROPY)[1]

    def group_say(self, text: bytes) -> bytes:
        """An application message of the first member."""
        self.group, message = self.group.protect(text, ENTROPY)
        return message
