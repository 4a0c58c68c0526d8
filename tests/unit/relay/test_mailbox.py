"""Mail: who may deposit, what is refused, in what order it comes, and when it is gone."""

from __future__ import annotations

import pytest
from msgspec import structs

from lokket import limits
from lokket.relay.budgets import RATES, Rate
from lokket.relay.config import RelayConfig
from lokket.relay.office import RecentEnvelopes
from lokket.wire import api
from tests.support.relay import ORIGIN, Desk, Member


def code(reply: api.Reply) -> str:
    assert isinstance(reply, api.Refused), reply
    return reply.code


async def couple(desk: Desk) -> tuple[Member, Member]:
    return await desk.join("alice"), await desk.join("bob")


async def test_mail_comes_in_order_and_as_it_was_sent(desk: Desk) -> None:
    alice, bob = await couple(desk)
    woken: list[bool] = []
    bob.caller.wake = lambda: woken.append(True)
    await bob.log_in()
    bob.caller.wake = lambda: woken.append(True)
    letters = [alice.envelope(bob, bytes([n])) for n in range(20)]
    assert await alice.send(*letters[:10]) == ("",) * 10
    assert await alice.send(*letters[10:]) == ("",) * 10
    assert await desk.drained(bob.caller) == letters
    assert await desk.drained(bob.caller) == []
    assert await desk.drained(alice.caller) == []


async def test_a_ring_wakes_the_recipient(desk: Desk) -> None:
    alice, bob = await couple(desk)
    woken: list[str] = []
    bob.caller = desk.connect()
    bob.caller.wake = lambda: woken.append("bob")
    await bob.ask(bob.login(bob.caller.hello))
    assert woken == ["bob"], "mail may have waited for the login"
    woken.clear()
    await alice.send(alice.envelope(bob), alice.envelope(bob))
    assert woken == ["bob"]
    await alice.send(alice.envelope(alice))
    assert woken == ["bob"]


async def test_mail_without_acknowledgement_comes_again_at_the_next_login(desk: Desk) -> None:
    alice, bob = await couple(desk)
    letters = [alice.envelope(bob) for _ in range(3)]
    await alice.send(*letters)
    assert await desk.drained(bob.caller) == letters
    await bob.acknowledge(letters[1])
    assert (await bob.log_in()).mailbox == 2
    assert await desk.drained(bob.caller) == [letters[0], letters[2]]
    await bob.acknowledge(*letters)
    assert (await bob.log_in()).mailbox == 0
    assert await desk.drained(bob.caller) == []


async def test_the_window_bounds_what_is_pushed_unacknowledged(desk: Desk) -> None:
    alice, bob = await couple(desk)
    letters = [alice.envelope(bob) for _ in range(limits.DELIVER_BATCH_MAX + 10)]
    for start in range(0, len(letters), limits.SEND_BATCH_MAX):
        await alice.send(*letters[start : start + limits.SEND_BATCH_MAX])
    first = await desk.drained(bob.caller)
    assert first == letters[: limits.DELIVER_BATCH_MAX]
    woken: list[bool] = []
    bob.caller.wake = lambda: woken.append(True)
    await bob.acknowledge(*first[:4])
    assert woken, "the window moved: there may be more to push"
    assert await desk.drained(bob.caller) == letters[limits.DELIVER_BATCH_MAX :][:4]
    await bob.acknowledge(*first)
    assert await desk.drained(bob.caller) == letters[limits.DELIVER_BATCH_MAX + 4 :]


@pytest.mark.attack(50)
@pytest.mark.attack(51)
async def test_pushes_and_what_is_in_flight_are_bounded_in_bytes(desk: Desk) -> None:
    alice, bob = await couple(desk)
    for _ in range(30):
        await alice.send(alice.envelope(bob, bytes(limits.ENVELOPE_BODY_MAX_BYTES)))
    sizes = []
    while (deliver := await desk.relay.drain(bob.caller, desk.now_ms)) is not None:
        sizes.append(len(api.encode(api.RelayFrame(0, deliver))))
    assert max(sizes) <= limits.FRAME_MAX_BYTES
    assert sum(sizes) <= limits.DELIVER_UNACKNOWLEDGED_MAX_BYTES + 1_000
    assert len(bob.caller.unacknowledged) < 30
    seen = 0
    while bob.caller.unacknowledged:
        ids = tuple(bob.caller.unacknowledged)
        seen += len(ids)
        await bob.ask(api.Acknowledge(ids))
        await desk.drained(bob.caller)
    assert seen == 30


@pytest.mark.attack(43)
async def test_sending_again_stores_once(desk: Desk) -> None:
    alice, bob = await couple(desk)
    letter = alice.envelope(bob)
    assert await alice.send(letter, letter) == ("", "")
    assert await alice.send(letter) == ("",)
    assert await desk.drained(bob.caller) == [letter]


@pytest.mark.attack(43)
async def test_sending_again_after_delivery_is_answered_and_delivers_nothing(desk: Desk) -> None:
    """The sender never saw the answer; the recipient has acknowledged meanwhile."""
    alice, bob = await couple(desk)
    letter = alice.envelope(bob)
    await alice.send(letter)
    await desk.drained(bob.caller)
    await bob.acknowledge(letter)
    assert await alice.send(letter) == ("",)
    assert await desk.drained(bob.caller) == []
    assert (await bob.log_in()).mailbox == 0


def test_what_was_delivered_is_remembered_within_a_bound() -> None:
    recent = RecentEnvelopes(3)
    for number in range(4):
        recent.add(bytes(32), bytes([number]), 0)
    assert [recent.knows(bytes(32), bytes([number]), 1) for number in range(4)] == [False, True, True, True]


async def test_what_was_delivered_an_hour_ago_is_delivered_again(desk: Desk) -> None:
    """Its sender still has no receipt: the one that was sent may be lost."""
    alice, bob = await couple(desk)
    letter = alice.envelope(bob)
    await alice.send(letter)
    await desk.drained(bob.caller)
    await bob.acknowledge(letter)
    desk.now_ms += limits.RECENT_ENVELOPE_S * 1000
    assert await alice.send(letter) == ("",)
    assert await desk.drained(bob.caller) == [letter]


async def test_an_id_with_other_bytes_is_a_conflict(desk: Desk) -> None:
    alice, bob = await couple(desk)
    letter = alice.envelope(bob)
    await alice.send(letter)
    assert await alice.send(structs.replace(letter, body=b"other")) == (api.CONFLICT,)
    assert await desk.drained(bob.caller) == [letter]


async def test_the_sender_is_who_is_logged_in(desk: Desk) -> None:
    alice, bob = await couple(desk)
    mallory = await desk.join("mallory")
    forged = [
        structs.replace(mallory.envelope(bob), sender=api.Sender(alice.genesis_hash, alice.device_hash)),
        structs.replace(mallory.envelope(bob), sender=api.Sender(mallory.genesis_hash, alice.device_hash)),
        structs.replace(mallory.envelope(bob), sender=api.Sender(alice.genesis_hash, mallory.device_hash)),
    ]
    assert await mallory.send(*forged) == (api.INVALID,) * 3
    unnamed = structs.replace(mallory.envelope(bob), sender=None)
    assert await mallory.send(unnamed) == ("",), "a sender need not be named"
    assert await desk.drained(bob.caller) == [unnamed]


async def test_what_is_reserved_is_refused_and_unknown_kinds_are_kept(desk: Desk) -> None:
    alice, bob = await couple(desk)
    letter = alice.envelope(bob)
    cases = {
        "deposit by token": (structs.replace(letter, deposit=api.DEPOSIT_TOKEN), api.INVALID),
        "deposit by invite": (structs.replace(letter, deposit=api.DEPOSIT_INVITE), api.INVALID),
        "deposit data": (structs.replace(letter, deposit_data=b"x"), api.INVALID),
        "a later format": (structs.replace(letter, format=2), api.VERSION),
        "a later kind": (structs.replace(letter, kind=200), ""),
    }
    for what, (envelope, answer) in cases.items():
        assert await alice.send(envelope) == (answer,), what
    assert [envelope.kind for envelope in await desk.drained(bob.caller)] == [200]


async def test_unknown_recipients_are_unknown_and_spoil_nothing(desk: Desk) -> None:
    alice, bob = await couple(desk)
    letter = alice.envelope(bob)
    codes = await alice.send(
        structs.replace(letter, envelope_id=b"a" * 16, device_hash=bytes(32)),
        structs.replace(letter, envelope_id=b"b" * 16, recipient=bytes(32)),
        structs.replace(letter, envelope_id=b"c" * 16, recipient=alice.genesis_hash),
        letter,
    )
    assert codes == (api.UNKNOWN, api.UNKNOWN, api.UNKNOWN, "")


async def test_an_older_list_is_stale_until_fetched(desk: Desk) -> None:
    alice, bob = await couple(desk)
    letter = alice.envelope(bob)
    request, bob.state = bob.next_list()
    await bob.ask(request)
    assert await alice.send(letter) == (api.STALE_LIST,)
    assert await alice.send(structs.replace(letter, recipient_head=bob.state.head)) == ("",)


@pytest.mark.attack(45)
async def test_foreign_and_unknown_ids_get_the_same_answer_and_delete_nothing(desk: Desk) -> None:
    alice, bob = await couple(desk)
    mallory = await desk.join("mallory")
    letter = alice.envelope(bob)
    await alice.send(letter)
    answers = {
        await who.ask(api.Acknowledge((envelope_id,)))
        for who in (mallory, alice)
        for envelope_id in (letter.envelope_id, bytes(16))
    }
    assert answers == {api.Ok()}
    assert await desk.drained(bob.caller) == [letter]


@pytest.mark.attack(49)
async def test_a_full_mailbox_refuses_the_new() -> None:
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, mailbox_count_max=3, mailbox_max_bytes=10_000))
    alice, bob = await couple(desk)
    letters = [alice.envelope(bob) for _ in range(5)]
    assert await alice.send(*letters) == ("", "", "", api.MAILBOX_FULL, api.MAILBOX_FULL)
    assert await desk.drained(bob.caller) == letters[:3]
    await bob.acknowledge(letters[0])
    assert await alice.send(letters[3]) == ("",)


@pytest.mark.attack(49)
async def test_one_sender_cannot_fill_a_mailbox() -> None:
    rates = {**RATES, "send-target": Rate(4, 1)}
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates=rates))
    alice, bob = await couple(desk)
    mallory = await desk.join("mallory")
    assert await mallory.send(*(mallory.envelope(bob) for _ in range(5))) == (*[""] * 4, api.RATE_LIMITED)
    assert await mallory.send(mallory.envelope(alice)) == ("",)
    assert await alice.send(alice.envelope(bob)) == ("",)


@pytest.mark.attack(49)
@pytest.mark.parametrize("kind", ["send", "send-bytes"])
async def test_a_senders_rate_is_limited_in_number_and_bytes(kind: str) -> None:
    cost = 3 if kind == "send" else 3_000
    desk = Desk(config=RelayConfig(origin=ORIGIN, open=True, rates={**RATES, kind: Rate(cost, cost)}))
    alice, bob = await couple(desk)
    letters = [alice.envelope(bob, bytes(1_000)) for _ in range(4)]
    assert await alice.send(*letters[:3]) == ("",) * 3
    reply = await alice.ask(api.Send((letters[3],)))
    assert isinstance(reply, api.Refused)
    assert reply.code == api.RATE_LIMITED
    desk.now_ms += reply.retry_after_ms
    await alice.log_in()
    assert await alice.send(letters[3]) == ("",)


async def test_mail_that_nobody_fetches_expires(desk: Desk) -> None:
    alice, bob = await couple(desk)
    await alice.send(alice.envelope(bob))
    desk.now_ms += limits.MAILBOX_TTL_DAYS * limits.DAY_S * 1000 - 1
    await desk.upkeep()
    assert (await bob.log_in()).mailbox == 1
    desk.now_ms += 3_600_000 + 1
    await desk.upkeep()
    assert (await bob.log_in()).mailbox == 0


@pytest.mark.attack(61)
async def test_a_clock_that_jumps_ahead_deletes_no_mail(desk: Desk) -> None:
    alice, bob = await couple(desk)
    await desk.upkeep()
    await alice.send(alice.envelope(bob))
    right_ms = desk.now_ms
    desk.now_ms += 10 * 365 * limits.DAY_S * 1000
    await desk.relay.upkeep(desk.now_ms)
    for _ in range(50):
        desk.now_ms += limits.UPKEEP_S * 1000
        await desk.relay.upkeep(desk.now_ms)
    desk.now_ms = right_ms
    await desk.upkeep()
    assert (await bob.log_in()).mailbox == 1


@pytest.mark.attack(61)
@pytest.mark.parametrize("years", [-10, 10])
async def test_a_relay_whose_clock_jumped_still_works(desk: Desk, years: int) -> None:
    alice, bob = await couple(desk)
    kept = alice.envelope(bob)
    await alice.send(kept)
    jump_ms = years * 365 * limits.DAY_S * 1000
    desk.now_ms += jump_ms
    await bob.log_in()
    await alice.log_in()
    letter = alice.envelope(bob)
    assert await alice.send(letter) == ("",)
    desk.now_ms -= jump_ms
    await alice.log_in()
    await bob.log_in()
    assert await desk.drained(bob.caller) == [kept, letter]
    assert await alice.send(alice.envelope(bob)) == ("",)


@pytest.mark.attack(58)
async def test_what_is_stored_of_mail_is_what_was_sent_and_a_coarse_hour(desk: Desk) -> None:
    alice, bob = await couple(desk)
    desk.now_ms += 1_234_567
    letter = alice.envelope(bob)
    await alice.send(letter)
    rows = [dict(row.columns) for row in await desk.storage.held(bob.genesis_hash) if row.table == "mail"]
    assert [row["envelope"] for row in rows] == [api.encode(letter)]
    assert rows[0]["expires_h"] == -(-desk.now_ms // 3_600_000) + limits.MAILBOX_TTL_DAYS * 24
