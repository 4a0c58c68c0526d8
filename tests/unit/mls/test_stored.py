"""A stored group is the group: as one string, as rows, and as the rows that a step changed."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from lokket.errors import LocalError, RemoteError
from lokket.protocol import mls
from tests.support.mls import NOW_S, Client, add, agree, crowd, talk


class Table:
    """Rows as a database has them, kept up by changes alone and compared with the whole each time."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.group = client.group
        self.rows = client.group.rows()

    def check(self) -> int:
        """Bytes written since the last check."""
        group = self.client.group
        changes = group.changes_since(self.group)
        for key, value in changes.items():
            if value is None:
                del self.rows[key]
            else:
                self.rows[key] = value
        assert self.rows == group.rows()
        loaded = mls.Group.from_rows(self.rows, self.client.settings)
        assert loaded.rows() == self.rows
        assert mls.Group.decode(group.encode(), self.client.settings).encode() == group.encode()
        self.client.group = self.group = loaded  # go on with what was loaded
        return sum(len(key) + len(value or b"") for key, value in changes.items())


def change(
    author: Client,
    others: list[Client],
    step: tuple[str, random.Random],
    tables: dict[str, Table],
    people: list[Client],
) -> None:
    """A commit, stored while it is pending; alone, with one client more, or with one fewer."""
    kind, chance = step
    new, gone = Client(f"{len(tables)}"), chance.choice(others)
    proposals: list[mls.Add | mls.Remove] = [add(new.package())] if kind == "add" else []
    if kind == "remove" and len(people) > 2:
        proposals = [mls.Remove(gone.group.leaf_index)]
        people.remove(gone)
    author.group, sent = author.group.commit(NOW_S, author.entropy, proposals)
    tables[author.name].check()
    author.group = author.group.merge_pending(NOW_S)
    for one in others:
        one.take(sent.commit)
    tables[gone.name].check()
    if sent.welcome is not None:
        new.join(sent.welcome)
        tables[new.name] = Table(new)
        people.append(new)


@pytest.mark.parametrize("seed", range(4))
def test_a_group_goes_on_from_its_rows(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    people = crowd([f"{number}" for number in range(5)])
    tables = {one.name: Table(one) for one in people}
    for _ in range(25):
        author = chance.choice(people)
        others = [one for one in people if one is not author]
        step = chance.choice(["say", "say", "commit", "propose", "add", "remove"])
        if step == "say":
            message = author.say(b"text")
            for one in others[: chance.randrange(len(others) + 1)]:
                one.take(message)
        elif step == "propose":
            author.group, message = author.group.propose_update(NOW_S, author.entropy)
            for one in others:
                one.take(message)
        else:
            change(author, others, (step, chance), tables, people)
        for one in people:
            tables[one.name].check()
    agree(people)
    talk(people)


def test_a_pending_commit_survives() -> None:
    alice, bob, carol = crowd(["alice", "bob", "carol"])
    table = Table(alice)
    alice.group, sent = alice.group.commit(NOW_S, alice.entropy, [mls.Remove(2)])
    table.check()
    alice.take(bob.say(b"meanwhile"))
    bob.group, proposal = bob.group.propose_update(NOW_S, bob.entropy)
    alice.take(proposal)
    table.check()
    assert alice.group.has_pending
    assert alice.group.waiting
    alice.group = alice.group.merge_pending(NOW_S)
    table.check()
    bob.take(sent.commit)
    assert not alice.group.waiting
    agree([alice, bob])
    talk([alice, bob])
    assert carol.group.epoch == 1


@pytest.mark.parametrize("staying", [[3], [15], [28, 30]])
def test_a_group_that_shrank_to_its_last_leaves_loads(staying: list[int]) -> None:
    """A tree is cut on its right side alone: who stays there stays far out, with blanks before."""
    people = crowd([f"{number}" for number in range(max(staying) + 1)])
    stays = [people[at] for at in staying]
    table = Table(stays[0])
    sent = stays[0].commit(*(mls.Remove(at) for at in range(len(people)) if at not in staying))
    for one in stays[1:]:
        one.take(sent.commit)
    table.check()
    agree(stays)
    talk(stays)


@pytest.mark.parametrize("suite", [1, mls.POST_QUANTUM_ID])
def test_a_commit_of_a_large_group_writes_little(suite: int) -> None:
    """At 1,000 leaves of a tree that is warm: below 20 kB (here 128, and the depth is reckoned)."""
    people = crowd([f"{number}" for number in range(3)], suite)
    alice, bob, _ = people
    newcomers = [Client(f"new {number}", mls.SUITES[suite]) for number in range(125)]
    sent = alice.commit(*(add(one.package()) for one in newcomers))
    for one in people[1:]:
        one.take(sent.commit)
    table = Table(alice)
    bob_sent = bob.commit()
    alice.take(bob_sent.commit)
    written = table.check()
    print(f"suite {suite}: {written} bytes")
    levels = 10 / 7
    assert written * levels < 20_000


def test_what_is_no_group_is_refused() -> None:
    (alice,) = crowd(["alice"])
    data = alice.group.encode()
    with pytest.raises(LocalError):
        mls.Group.decode(b"\x02" + data[1:], alice.settings)
    for damaged in (b"", data[:-1], data + b"\x00"):
        with pytest.raises(RemoteError):
            mls.Group.decode(damaged, alice.settings)
    rows = alice.group.rows()
    for missing in (b"h", b"n\x00\x00\x00\x00"):
        with pytest.raises(RemoteError):
            mls.Group.from_rows({key: rows[key] for key in rows if key != missing}, alice.settings)
    far = b"n" + (2**32 - 2).to_bytes(4, "big")  # refused before room for it is made
    with pytest.raises(RemoteError, match="larger"):
        mls.Group.from_rows({**rows, far: rows[b"n\x00\x00\x00\x00"]}, alice.settings)
    suites = {number: suite for number, suite in mls.SUITES.items() if number != 1}
    with pytest.raises(RemoteError):
        mls.Group.decode(data, replace(alice.settings, suites=suites))
