"""Random schedules of a ``Conversation`` for Hypothesis, and how many of them a run makes.

``make differential SCHEDULES=10000 SEED=7`` sets both; a failure prints the shortest schedule that fails.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.support.conversation import Conversation, pq_epoch

SCHEDULES = int(os.environ.get("LOKKET_SCHEDULES", "200"))
STEPS = 25

who = st.integers(0, 1)
place = st.integers(0, 40)


def schedule_settings() -> settings:
    return settings(
        max_examples=SCHEDULES,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


class Schedule(RuleBasedStateMachine):
    """Sends, drops, duplicates, reorders, forgeries, resets, restarts, in any order."""

    make: Callable[[], Conversation]
    total: Counter[str]  # of a whole run, to see that it did what it says

    def __init__(self) -> None:
        super().__init__()
        self.conversation = type(self).make()
        self.conversation.begin(0)

    @rule(who=who, extra=st.binary(max_size=40))
    def send(self, who: int, extra: bytes) -> None:
        if self.conversation.can_send(who):
            self.conversation.post(who, extra)

    @rule(who=who, count=st.integers(2, 15))
    def burst(self, who: int, count: int) -> None:
        for _ in range(count if self.conversation.can_send(who) else 0):
            self.conversation.post(who)

    @precondition(lambda self: any(self.conversation.on_the_way))
    @rule(who=who, place=place)
    def deliver(self, who: int, place: int) -> None:
        """Any of them, so that they come in any order."""
        waiting = self.conversation.on_the_way[who]
        if waiting:
            self.conversation.deliver(waiting.pop(place % len(waiting)))

    @precondition(lambda self: any(self.conversation.on_the_way))
    @rule(who=who)
    def deliver_all(self, who: int) -> None:
        waiting = self.conversation.on_the_way[who]
        while waiting:
            self.conversation.deliver(waiting.pop(0))

    @precondition(lambda self: any(self.conversation.on_the_way))
    @rule(who=who, place=place)
    def drop(self, who: int, place: int) -> None:
        waiting = self.conversation.on_the_way[who]
        if waiting:
            del waiting[place % len(waiting)]

    @precondition(lambda self: self.conversation.opened)
    @rule(place=place)
    def duplicate(self, place: int) -> None:
        """One of the latest that opened comes again."""
        latest = list(self.conversation.opened.values())[-41:]
        assert not self.conversation.deliver(latest[-1 - place % len(latest)])

    @precondition(lambda self: any(self.conversation.on_the_way))
    @rule(who=who, place=place, bit=st.integers(0, 20_000))
    def forge(self, who: int, place: int, bit: int) -> None:
        waiting = self.conversation.on_the_way[who]
        if waiting:
            self.conversation.deliver_changed(waiting[place % len(waiting)], bit)

    @rule(who=who, one_time=st.booleans())
    def reset(self, who: int, one_time: bool) -> None:
        self.conversation.begin(who, one_time=one_time)

    @rule(who=who, turns=st.sampled_from((1, 1, 1, 2, 2, 3, 4, 25)))
    def converse(self, who: int, turns: int) -> None:
        """Long enough, now and then, for an epoch of the post-quantum ratchet."""
        for _ in range(turns):
            self.conversation.round_trip(who)
        self.settled()

    def settled(self) -> None:
        """More to check when both have just heard each other."""

    def teardown(self) -> None:
        """What is left arrives, and then both still understand each other."""
        for waiting in self.conversation.on_the_way:
            while waiting:
                self.conversation.deliver(waiting.pop())
        self.conversation.round_trip(0)
        self.settled()
        done, total = self.conversation, type(self).total
        total.update(
            schedules=1,
            opened=len(done.opened),
            refused=done.refused,
            healed=done.healed,
            sessions=len(done.initiators),
            epochs=max(pq_epoch(letter.message) for letter in done.opened.values()) - 1,
        )


def run_schedules(kind: type[Schedule], make: Callable[[], Conversation]) -> None:
    """All of them, and that they were no idle ones: a fifth of what they usually come to."""
    kind.make, kind.total = staticmethod(make), Counter()
    run_state_machine_as_test(kind, settings=schedule_settings())
    print(dict(kind.total))
    for name, per_schedule in (("opened", 10), ("refused", 1), ("sessions", 1), ("epochs", 0.01)):
        assert kind.total[name] >= per_schedule * SCHEDULES, name
