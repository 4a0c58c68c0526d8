"""A crowd of MLS clients around a delivery service that orders commits, all in one process."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from lokket.protocol import mls
from lokket.protocol.mls import LeafChange
from tests.support.entropy import SeededEntropy

NOW_S = 1_800_000_000


def anybody(change: LeafChange) -> None:
    """An authentication service that takes everyone at their word."""


@dataclass
class Client:
    """One client with one group. ``psks`` are its external keys."""

    name: str
    suite: mls.CipherSuite = field(default_factory=lambda: mls.SUITES[1])
    options: dict[str, object] = field(default_factory=dict)
    psks: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.entropy = SeededEntropy(f"mls {self.name} {self.suite.number}")
        self.settings = mls.Settings(**{"check_credential": anybody, "find_psk": self._find, **self.options})  # type: ignore[arg-type]
        self.identity = self.new_identity()
        self.group: mls.Group
        self.packages: list[mls.OwnKeyPackage] = []

    def _find(self, psk: mls.ExternalPSK | mls.ResumptionPSK) -> bytes | None:
        return self.psks.get(psk.psk_id) if isinstance(psk, mls.ExternalPSK) else None

    def new_identity(self) -> mls.Identity:
        key = self.suite.generate_signature_key(self.entropy)
        return mls.Identity(mls.basic_credential(self.name.encode()), key, mls.capabilities())

    def package(self, *, last_resort: bool = False) -> mls.OwnKeyPackage:
        own = mls.make_key_package(
            self.suite, self.identity, self.settings, NOW_S, self.entropy, last_resort=last_resort
        )
        self.packages.append(own)
        return own

    def create(self, group_id: bytes = b"group", extensions: tuple[mls.Extension, ...] = ()) -> None:
        self.group = mls.create_group(group_id, self.package(), self.settings, self.entropy, extensions)

    def join(self, welcome: bytes | None, **rest: object) -> None:
        assert welcome is not None
        self.group, _ = mls.join_group(welcome, self.packages, self.settings, **rest)  # type: ignore[arg-type]

    def commit(
        self, *proposals: mls.proposals.AnyProposal, options: mls.CommitOptions | None = None
    ) -> mls.Sent:
        """A commit that is accepted at once."""
        self.group, sent = self.group.commit(NOW_S, self.entropy, proposals, options)
        self.group = self.group.merge_pending(NOW_S)
        return sent

    def take(self, message: bytes) -> mls.Application | mls.ProposalReceived | mls.StagedCommit:
        """Whatever arrives; a commit is merged."""
        got = self.group.process(message)
        if isinstance(got, mls.StagedCommit):
            self.group = got.merge(NOW_S)
            return got
        self.group, received = got
        return received

    def say(self, text: bytes) -> bytes:
        self.group, message = self.group.protect(text, self.entropy)
        return message


def add(package: mls.OwnKeyPackage) -> mls.Add:
    return mls.Add(package.key_package)


def broken(rule: str) -> pytest.RaisesExc[mls.RuleBroken]:
    """``with broken("7.3-2"):`` that rule, and no other, is what is refused."""
    return pytest.raises(mls.RuleBroken, match=re.escape(f"RFC 9420 {rule}:"))


def crowd(names: Iterable[str], suite: int = 1, **options: object) -> list[Client]:
    """A group of these clients, the first of whom added the others in one commit."""
    first, *others = [Client(name, mls.SUITES[suite], dict(options)) for name in names]
    first.create()
    sent = first.commit(*(add(one.package()) for one in others))
    for one in others:
        one.join(sent.welcome)
    return [first, *others]


def agree(clients: Iterable[Client]) -> None:
    """All are in one epoch, with one tree, and can export the same."""
    seen = {
        (
            one.group.context.encoded,
            one.group.epoch_authenticator,
            one.group.ratchet_tree(),
            one.group.export(b"test", b"context", 32),
        )
        for one in clients
    }
    assert len(seen) == 1


def talk(clients: Iterable[Client]) -> None:
    """Everyone says something, and everyone else hears it."""
    everyone = list(clients)
    for one in everyone:
        message = one.say(one.name.encode())
        for other in everyone:
            if other is not one:
                got = other.take(message)
                assert isinstance(got, mls.Application)
                assert (got.data, got.sender) == (one.name.encode(), one.group.leaf_index)
