"""A seeded world of MLS clients: commits race, mail is lost, members come and go, and all who are left agree.

The relay orders handshakes by compare-and-set on the epoch. ``python -m tests.support.mls_world --seed N``
runs one world, ``--worlds M`` that many from it on.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass, field

from lokket.errors import LocalError, RemoteError
from lokket.protocol import mls
from lokket.protocol.mls.messages import ContentType, PrivateMessage
from lokket.protocol.mls.proposals import AnyProposal
from tests.support.mls import NOW_S, Client, add, agree, talk

MEMBERS_MAX = 40
HANDSHAKES = (mls.WireFormat.PRIVATE_MESSAGE, mls.WireFormat.PUBLIC_MESSAGE)


@dataclass
class Relay:
    """One group's log. It holds bytes and counts epochs; it sees no secret."""

    epoch: int = 0
    log: list[bytes] = field(default_factory=list)
    group_info: bytes = b""

    def offer(self, epoch: int, commit: bytes, group_info: bytes | None) -> bool:
        """Compare-and-set: the first commit of an epoch wins."""
        if epoch != self.epoch:
            return False
        self.epoch += 1
        self.log.append(commit)
        self.group_info = group_info or b""
        return True

    def post(self, epoch: int, message: bytes) -> None:
        """A proposal counts in its own epoch alone; application messages always."""
        if epoch == self.epoch:
            self.log.append(message)


@dataclass
class Member:
    client: Client
    read: int  # how much of the log it has seen
    heard: set[bytes] = field(default_factory=set)
    saved: mls.Group | None = None  # what the rows hold
    rows: dict[bytes, bytes] = field(default_factory=dict)

    def save(self) -> None:
        """Write what changed since the last time, as a vault does."""
        if self.saved is None:
            self.rows = self.group.rows()
        else:
            for key, value in self.group.changes_since(self.saved).items():
                if value is None:
                    del self.rows[key]
                else:
                    self.rows[key] = value
        self.saved = self.group

    @property
    def group(self) -> mls.Group:
        return self.client.group


class World:
    """``run`` does everything; ``counts`` says what happened."""

    def __init__(self, seed: int, members_max: int = MEMBERS_MAX, suite: int = 1) -> None:
        self.random = random.Random(f"mls world {seed}")
        self.size = self.random.randint(2, members_max)
        self.suite = mls.SUITES[suite]
        self.relay = Relay()
        self.members: list[Member] = []
        self.gone: list[Member] = []
        self.authenticators: dict[int, bytes] = {}  # by epoch: whoever is there has the same
        self.counts: dict[str, int] = {}
        self.seed, self.serial = seed, 0

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def client(self) -> Client:
        self.serial += 1
        options = {"handshake": self.random.choice(HANDSHAKES)}
        return Client(f"{self.seed} {self.serial}", self.suite, options)

    def enter(self, member: Member) -> None:
        """Everyone who reaches an epoch must find there what the first one found."""
        known = self.authenticators.setdefault(member.group.epoch, member.group.epoch_authenticator)
        assert known == member.group.epoch_authenticator, f"a fork in epoch {member.group.epoch}"

    def run(self, steps: int) -> None:
        """1. A group is founded. 2. Random steps. 3. All catch up: one epoch, one tree, and they talk."""
        first = Member(self.client(), 0)
        first.client.create(b"world")
        self.members.append(first)
        self.enter(first)
        packages = [self.client() for _ in range(self.size - 1)]
        self.commit(first, packages)
        actions = (
            [self.race] * 4
            + [self.say] * 5
            + [self.propose] * 2
            + [self.catch_up] * 6
            + [self.external, self.lose, self.reload]
        )
        for _ in range(steps):
            self.random.choice(actions)()
        for member in list(self.members):
            self.read_all(member)
        agree([one.client for one in self.members])
        talk([one.client for one in self.members[:6]])
        self.nobody_who_left_hears()

    # --- what a member does ---

    def proposals(self, member: Member) -> list[AnyProposal]:
        others = [leaf for leaf, _ in member.group.members() if leaf != member.group.leaf_index]
        kind = self.random.random()
        if kind < 0.25 and len(others) > 1:
            count = self.random.randint(1, min(3, len(others) - 1))
            return [mls.Remove(leaf) for leaf in self.random.sample(others, count)]
        return []

    def commit(self, member: Member, newcomers: list[Client] | None = None) -> bool:
        """Make a commit on what this member knows, and offer it. Whoever loses discards it."""
        client = member.client
        joining = [] if newcomers is None else newcomers
        given = self.proposals(member) + [add(one.package()) for one in joining]
        waiting = client.group.waiting
        options = mls.CommitOptions(path=self.random.random() < 0.5)
        client.group, sent = client.group.commit(NOW_S, client.entropy, given, options)
        if not self.relay.offer(client.group.epoch, sent.commit, sent.group_info):
            client.group = client.group.discard_pending()
            self.count("commit lost the race")
            return False
        self.count("commit")
        self.count("committed by reference" if waiting else "committed by value")
        for one in joining:
            one.join(sent.welcome)
            self.members.append(Member(one, len(self.relay.log)))
            self.enter(self.members[-1])
            self.count("joined by Welcome")
        if self.random.random() < 0.3:
            client.group = client.group.discard_pending()  # as after a crash
            self.lost(member)
        else:
            client.group = client.group.merge_pending(NOW_S)
            member.read = len(self.relay.log)
            self.enter(member)
        return True

    def lost(self, member: Member) -> None:
        """A member that lost its state comes back by an external commit in its own place."""
        self.count("lost its state")
        client = member.client
        place = client.group.leaf_index
        client.identity = client.new_identity()
        try:
            client.group, commit = mls.join_by_commit(
                self.relay.group_info,
                client.identity,
                client.settings,
                client.entropy,
                options=mls.ExternalOptions(replaces=place),
            )
        except LocalError:
            self.leave(member)  # it was removed meanwhile
            return
        assert self.relay.offer(client.group.epoch - 1, commit, client.group.group_info())
        member.read = len(self.relay.log)
        self.count("resync")
        self.enter(member)

    def leave(self, member: Member) -> None:
        self.members.remove(member)
        self.gone.append(member)
        self.count("removed")

    def read_all(self, member: Member, upto: int | None = None) -> None:
        client, stop = member.client, len(self.relay.log) if upto is None else upto
        while member.read < stop and member in self.members:
            message = self.relay.log[member.read]
            member.read += 1
            if message in member.heard:
                continue
            before = client.group.epoch
            try:
                client.take(message)
            except RemoteError as error:
                if error.code != "mls-own-message" and not self.too_late(message, before):
                    raise
            if self.random.random() < 0.2:
                member.save()
            if client.group.removed:
                self.leave(member)
            elif client.group.epoch != before:
                self.enter(member)

    def too_late(self, message: bytes, epoch: int) -> bool:
        """Application data of an epoch that this member has forgotten, or was not in."""
        body = mls.decode_message(message)
        if not isinstance(body, PrivateMessage) or body.content_type != ContentType.APPLICATION:
            return False
        self.count("message too late")
        return body.epoch < epoch

    # --- steps of the world ---

    def some(self, most: int = 3) -> list[Member]:
        return self.random.sample(self.members, min(len(self.members), self.random.randint(1, most)))

    def race(self) -> None:
        """Several commit at once, each on what it knows; one at most is accepted."""
        chosen = self.some()
        for member in chosen:
            if self.random.random() < 0.6:
                self.read_all(member)
        for member in chosen:
            if member not in self.members:
                continue
            fresh = [self.client()] if self.random.random() < 0.3 and len(self.members) < MEMBERS_MAX else []
            self.commit(member, fresh)

    def say(self) -> None:
        for member in self.some():
            message = member.client.say(b"said")
            member.heard.add(message)
            if self.random.random() < 0.8:  # the others are lost on the way
                self.relay.log.append(message)
                self.count("message")

    def propose(self) -> None:
        for member in self.some(2):
            client = member.client
            if self.random.random() < 0.7:
                self.read_all(member)
            if member not in self.members:
                continue
            try:
                if self.random.random() < 0.6:
                    client.group, message = client.group.propose_update(NOW_S, client.entropy)
                else:
                    leaf = self.random.choice([leaf for leaf, _ in client.group.members()])
                    client.group, message = client.group.propose(mls.Remove(leaf), NOW_S, client.entropy)
            except LocalError:
                continue
            member.heard.add(message)
            if client.group.epoch == self.relay.epoch:
                self.relay.post(client.group.epoch, message)
                self.count("proposal")

    def catch_up(self) -> None:
        for member in self.some(6):
            if member in self.members:
                behind = len(self.relay.log) - member.read
                self.read_all(member, member.read + self.random.randint(0, behind))

    def external(self) -> None:
        if len(self.members) >= MEMBERS_MAX or not self.relay.group_info:
            return
        one = self.client()
        one.group, commit = mls.join_by_commit(self.relay.group_info, one.identity, one.settings, one.entropy)
        assert self.relay.offer(one.group.epoch - 1, commit, one.group.group_info())
        self.members.append(Member(one, len(self.relay.log)))
        self.enter(self.members[-1])
        self.count("joined by commit")

    def lose(self) -> None:
        member = self.random.choice(self.members)
        if self.relay.group_info and len(self.members) > 1:
            self.read_all(member)
            if member in self.members:
                self.lost(member)

    def reload(self) -> None:
        for member in self.some(5):
            client = member.client
            member.save()
            assert member.rows == client.group.rows(), "the changes do not add up to the group"
            client.group = mls.Group.from_rows(member.rows, client.settings)
            assert client.group.rows() == member.rows
            member.saved = client.group
            self.count("stored and loaded")

    def nobody_who_left_hears(self) -> None:
        message = self.members[0].client.say(b"without you")
        for member in self.gone:
            try:
                member.group.process(message)
            except (RemoteError, LocalError):
                continue
            raise AssertionError("a removed member opens what came after")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worlds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--members", type=int, default=MEMBERS_MAX)
    parser.add_argument("--suite", type=int, default=1)
    given = parser.parse_args()
    for seed in range(given.seed, given.seed + given.worlds):
        started = time.perf_counter()
        world = World(seed, given.members, given.suite)
        try:
            world.run(given.steps)
        except BaseException:
            again = f"--seed {seed} --steps {given.steps} --members {given.members} --suite {given.suite}"
            print(f"python -m tests.support.mls_world {again}")
            raise
        took = time.perf_counter() - started
        print(f"seed {seed}: {len(world.members)} agree in epoch {world.relay.epoch}, {took:.1f} s")
        print(f"  {world.counts}")


if __name__ == "__main__":
    main()
