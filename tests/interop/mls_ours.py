"""Our own side of the live MLS tests, behind the peers' interface (``mls_peers.Endpoint``)."""

from __future__ import annotations

import time
from typing import Any

from lokket.protocol import mls
from lokket.system import SystemEntropy

ENTROPY = SystemEntropy()


def anybody(change: mls.LeafChange) -> None:
    """An authentication service that takes everyone at their word, as the peers do."""


class Ours:
    def __init__(self, name: str, suite: int = 1, **options: Any) -> None:
        self.name = name
        self.suite = mls.SUITES[suite]
        self.psks: dict[bytes, bytes] = {}
        self.settings = mls.Settings(check_credential=anybody, find_psk=self.find, **options)
        key = self.suite.generate_signature_key(ENTROPY)
        self.identity = mls.Identity(mls.basic_credential(name.encode()), key, mls.capabilities())
        self.packages: list[mls.OwnKeyPackage] = []
        self.group: mls.Group

    def find(self, psk: mls.ExternalPSK | mls.ResumptionPSK) -> bytes | None:
        return self.psks.get(psk.psk_id) if isinstance(psk, mls.ExternalPSK) else None

    def package(self) -> mls.OwnKeyPackage:
        own = mls.make_key_package(self.suite, self.identity, self.settings, int(time.time()), ENTROPY)
        self.packages.append(own)
        return own

    def key_package(self) -> bytes:
        return self.package().message

    def create(self) -> None:
        self.group = mls.create_group(ENTROPY.draw(16), self.package(), self.settings, ENTROPY)

    def join(self, welcome: bytes, tree: bytes | None = None) -> None:
        self.group, _ = mls.join_group(welcome, self.packages, self.settings, ratchet_tree=tree)

    def join_external(self, group_info: bytes, replaces: int | None = None) -> bytes:
        options = mls.ExternalOptions(replaces=replaces)
        self.group, commit = mls.join_by_commit(
            group_info, self.identity, self.settings, ENTROPY, options=options
        )
        return commit

    def commit(self, *proposals: Any, options: mls.CommitOptions | None = None) -> mls.Sent:
        """Accepted at once."""
        now_s = int(time.time())
        self.group, sent = self.group.commit(now_s, ENTROPY, proposals, options)
        self.group = self.group.merge_pending(now_s)
        return sent

    def add(self, *key_packages: bytes, options: mls.CommitOptions | None = None) -> tuple[bytes, bytes]:
        now_s = int(time.time())
        read = [mls.read_key_package(each, self.settings, now_s) for each in key_packages]
        sent = self.commit(*(mls.Add(each) for each in read), options=options)
        assert sent.welcome is not None
        return sent.commit, sent.welcome

    def remove(self, leaf: int) -> bytes:
        return self.commit(mls.Remove(leaf)).commit

    def update(self) -> bytes:
        return self.commit().commit

    def propose(self, proposal: Any) -> bytes:
        self.group, message = self.group.propose(proposal, int(time.time()), ENTROPY)
        return message

    def encrypt(self, plaintext: bytes) -> bytes:
        self.group, message = self.group.protect(plaintext, ENTROPY)
        return message

    def process(self, message: bytes) -> bytes | None:
        got = self.group.process(message)
        if isinstance(got, mls.StagedCommit):
            self.group = got.merge(int(time.time()))
            return None
        self.group, received = got
        return received.data if isinstance(received, mls.Application) else None

    def export(self, label: str, context: bytes, length: int) -> bytes:
        return self.group.export(label.encode(), context, length)

    def epoch_authenticator(self) -> bytes:
        return self.group.epoch_authenticator
