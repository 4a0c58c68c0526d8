"""What every storage of the relay does, whichever it is."""

from __future__ import annotations

import asyncio

import pytest

from lokket import limits
from lokket.relay.storage.base import InviteRow, NameRow, Quota, Ruling, Storage, UserRow
from lokket.wire import api
from tests.support.rows import NOW_H, NOW_S, ROOMY, account, device, h, mail, new_account, next_list

EVERYTHING = 1_000_000


async def waiting_ids(storage: Storage, who: str, number: int = 1) -> list[bytes]:
    found = await storage.waiting(device(who, number), 0, 1_000, EVERYTHING)
    return [item.envelope_id for item in found]


# --- accounts ---


async def test_registration_keeps_account_device_and_name(storage: Storage) -> None:
    assert await storage.register(new_account("alice", name="alice"), None, NOW_S) == ""
    assert await storage.account(h("alice")) == account("alice")
    assert await storage.account(h("bob")) is None
    row = await storage.device(device("alice"))
    assert row is not None
    assert (row.genesis_hash, row.last_nonce, row.manifest_number, row.mail_count) == (h("alice"), None, 0, 0)
    assert await storage.name("alice") == NameRow("alice", h("alice"), b"alice claims alice")
    assert (await storage.counts()).accounts == 1


async def test_registration_again_changes_and_spends_nothing(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.put_list(next_list("alice", 2, 1, 2))
    await storage.put_invite(InviteRow(h("token"), h("alice"), NOW_S + 60), 5, NOW_S)
    assert await storage.register(new_account("alice", name="alice"), h("token"), NOW_S) == ""
    assert await storage.account(h("alice")) == account("alice", 2)
    assert await storage.name("alice") is None
    assert await storage.token_open(h("token"), h("bob"), NOW_S)


@pytest.mark.parametrize("case", ["unknown", "expired", "spent"])
async def test_registration_needs_an_open_token(storage: Storage, case: str) -> None:
    await storage.put_invite(InviteRow(h("token"), None, NOW_S + 60), 1, NOW_S)
    now_s, token = NOW_S, h("token")
    if case == "unknown":
        token = h("another")
    elif case == "expired":
        now_s += 60
    else:
        assert await storage.register(new_account("bob"), token, NOW_S) == ""
    assert await storage.register(new_account("alice", name="alice"), token, now_s) == api.TOKEN_REFUSED
    assert await storage.account(h("alice")) is None
    assert await storage.name("alice") is None
    assert await storage.device(device("alice")) is None


async def test_a_token_is_spent_once_whoever_races(storage: Storage) -> None:
    await storage.put_invite(InviteRow(h("token"), None, NOW_S + 60), 1, NOW_S)
    people = [f"person {number}" for number in range(8)]
    codes = await asyncio.gather(*(storage.register(new_account(who), h("token"), NOW_S) for who in people))
    assert sorted(codes) == ["", *[api.TOKEN_REFUSED] * 7]
    assert (await storage.counts()).accounts == 1


async def test_a_refused_name_leaves_the_token(storage: Storage) -> None:
    await storage.register(new_account("alice", name="al"), None, NOW_S)
    await storage.put_invite(InviteRow(h("token"), h("alice"), NOW_S + 60), 5, NOW_S)
    assert await storage.register(new_account("bob", name="al"), h("token"), NOW_S) == api.CONFLICT
    assert await storage.account(h("bob")) is None
    assert await storage.register(new_account("bob", name="bob"), h("token"), NOW_S) == ""


async def test_two_geneses_for_one_account_id_are_refused(storage: Storage) -> None:
    await storage.register(new_account("alice", account_id=bytes(16)), None, NOW_S)
    assert await storage.register(new_account("bob", account_id=bytes(16)), None, NOW_S) == api.CONFLICT
    assert await storage.account(h("bob")) is None


async def test_find_by_prefix(storage: Storage) -> None:
    for who in ("alice", "bob", "carol"):
        await storage.register(new_account(who), None, NOW_S)
    assert await storage.find(h("bob")[:4], 5) == (h("bob"),)
    assert await storage.find(b"", 2) == tuple(sorted((h("alice"), h("bob"), h("carol")))[:2])
    assert await storage.find(bytes(8), 5) == ()


# --- lists ---


async def test_lists_follow_by_compare_and_set(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    assert await storage.put_list(next_list("alice", 2, 1, 2))
    assert await storage.account(h("alice")) == account("alice", 2)
    assert await storage.device(device("alice", 2)) is not None
    assert not await storage.put_list(next_list("alice", 4, 1))
    assert await storage.put_list(next_list("alice", 2, 1, 2)), "the same list again is done already"
    assert await storage.account(h("alice")) == account("alice", 2)
    assert not await storage.put_list(next_list("nobody", 2, 1))


async def test_of_two_lists_on_one_head_one_wins(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    first, second = next_list("alice", 2, 1, 2), next_list("alice", 2, 1, 3)
    second = type(second)(second.expected_head, account("alice", 7), second.device_hashes)
    assert sorted(await asyncio.gather(storage.put_list(first), storage.put_list(second))) == [False, True]


async def test_a_removed_device_loses_everything(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.put_list(next_list("alice", 2, 1, 2))
    head = h("alice head 2")
    await storage.publish(device("alice", 2), 1, b"batch", b"\x00\x01")
    await storage.append((mail("alice", "one", 1, head=head), mail("alice", "two", 2, head=head)), ROOMY)
    await storage.put_list(next_list("alice", 3, 1))
    assert await storage.device(device("alice", 2)) is None
    assert await storage.login(device("alice", 2), bytes(32)) is None
    assert await storage.take_pair(h("alice"), device("alice", 2), 0) is None
    assert await waiting_ids(storage, "alice", 2) == []
    assert await waiting_ids(storage, "alice", 1) == [h("one")[:16]]
    counts = await storage.counts()
    assert (counts.devices, counts.mail) == (1, 1)


# --- devices and prekeys ---


async def test_login_names_the_nonce_before(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    seen = []
    for nonce in (h("first"), h("second"), h("third")):
        row = await storage.login(device("alice"), nonce)
        assert row is not None
        seen.append(row.last_nonce)
    assert seen == [None, h("first"), h("second")]


async def test_batches_replace_older_ones_and_never_go_back(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    mine = device("alice")
    assert await storage.take_pair(h("alice"), mine, 0) is None
    assert await storage.publish(mine, 4, b"four", b"\x00\x01\x02")
    assert (await storage.take_pair(h("alice"), mine, 0)) is not None
    assert await storage.publish(mine, 4, b"four", b"\x00\x01\x02"), "the same batch again is done already"
    row = await storage.device(mine)
    assert row is not None
    assert row.pairs_left == 2, "and gives no pair back"
    assert not await storage.publish(mine, 4, b"other", b"\x00")
    assert not await storage.publish(mine, 3, b"three", b"\x00")
    assert await storage.publish(mine, 5, b"five", b"\x07")
    taken = await storage.take_pair(h("alice"), mine, 0)
    assert taken is not None
    assert (taken.batch, taken.slot, taken.left) == (b"five", 7, 0)
    assert not await storage.publish(device("nobody"), 9, b"nine", b"")


@pytest.mark.attack(11)
async def test_each_pair_goes_out_once_whoever_races(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    slots = bytes(range(0, 100, 3))
    await storage.publish(device("alice"), 1, b"batch", slots)
    takes = [storage.take_pair(h("alice"), device("alice"), pick * 7919) for pick in range(len(slots) + 5)]
    taken = await asyncio.gather(*takes)
    handed_out = [one.slot for one in taken if one is not None and one.slot is not None]
    assert sorted(handed_out) == list(slots)
    assert [one.slot for one in taken if one is not None].count(None) == 5, "then bundles without a pair"


async def test_prekeys_are_found_only_under_their_account(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.register(new_account("bob"), None, NOW_S)
    await storage.publish(device("alice"), 1, b"batch", b"\x00")
    assert await storage.take_pair(h("bob"), device("alice"), 0) is None
    taken = await storage.take_pair(h("alice"), device("alice"), None)
    assert taken is not None
    assert (taken.slot, taken.left) == (None, 1)


# --- names ---


@pytest.mark.attack(48)
async def test_a_freed_name_rests_for_a_year(storage: Storage) -> None:
    await storage.register(new_account("alice", name="al"), None, NOW_S)
    await storage.register(new_account("bob"), None, NOW_S)
    assert not await storage.claim_name(NameRow("al", h("bob"), b"bob"), NOW_S)
    assert await storage.claim_name(NameRow("alice", h("alice"), b"new"), NOW_S)
    assert await storage.name("al") is None
    assert await storage.name("alice") == NameRow("alice", h("alice"), b"new")
    rested_s = NOW_S + limits.NAME_REST_DAYS * limits.DAY_S
    await storage.expire(rested_s - 1, 100)
    assert not await storage.claim_name(NameRow("al", h("bob"), b"bob"), rested_s - 1)
    await storage.expire(rested_s, 100)
    assert await storage.claim_name(NameRow("al", h("bob"), b"bob"), rested_s)
    assert await storage.name("al") == NameRow("al", h("bob"), b"bob")


async def test_its_last_owner_may_take_a_resting_name_back(storage: Storage) -> None:
    await storage.register(new_account("alice", name="al"), None, NOW_S)
    await storage.claim_name(NameRow("alice", h("alice"), b"one"), NOW_S)
    assert await storage.claim_name(NameRow("al", h("alice"), b"two"), NOW_S + 5)
    assert await storage.name("al") == NameRow("al", h("alice"), b"two")
    assert await storage.name("alice") is None


async def test_claiming_the_same_name_renews_the_claim(storage: Storage) -> None:
    await storage.register(new_account("alice", name="al"), None, NOW_S)
    assert await storage.claim_name(NameRow("al", h("alice"), b"renewed"), NOW_S)
    assert await storage.name("al") == NameRow("al", h("alice"), b"renewed")


# --- invites ---


async def test_open_invites_are_bounded_per_account(storage: Storage) -> None:
    for number in range(3):
        assert await storage.put_invite(InviteRow(h(str(number)), h("alice"), NOW_S + 60), 3, NOW_S) == ""
    one_more = InviteRow(h("one more"), h("alice"), NOW_S + 60)
    assert await storage.put_invite(one_more, 3, NOW_S) == api.RATE_LIMITED
    assert await storage.put_invite(InviteRow(h("0"), h("alice"), NOW_S + 60), 3, NOW_S) == "", (
        "known already"
    )
    assert await storage.put_invite(InviteRow(h("bob's"), h("bob"), NOW_S + 60), 3, NOW_S) == ""
    assert await storage.register(new_account("carol"), h("1"), NOW_S) == ""
    assert await storage.put_invite(one_more, 3, NOW_S) == "", "a spent one is no longer open"


async def test_a_token_belongs_to_who_put_it_first(storage: Storage) -> None:
    await storage.put_invite(InviteRow(h("token"), h("alice"), NOW_S + 60), 3, NOW_S)
    assert await storage.put_invite(InviteRow(h("token"), h("bob"), NOW_S + 90), 3, NOW_S) == api.CONFLICT


async def test_the_relays_own_invite_replaces_the_one_before(storage: Storage) -> None:
    await storage.put_invite(InviteRow(h("first"), None, NOW_S + 60), 1, NOW_S)
    await storage.put_invite(InviteRow(h("second"), None, NOW_S + 60), 1, NOW_S)
    assert not await storage.token_open(h("first"), h("alice"), NOW_S)
    assert await storage.token_open(h("second"), h("alice"), NOW_S)


async def test_a_spent_token_is_open_to_its_spender_alone(storage: Storage) -> None:
    await storage.put_invite(InviteRow(h("token"), None, NOW_S + 60), 1, NOW_S)
    await storage.register(new_account("alice"), h("token"), NOW_S)
    assert await storage.token_open(h("token"), h("alice"), NOW_S)
    assert not await storage.token_open(h("token"), h("bob"), NOW_S)
    assert not await storage.token_open(h("token"), h("alice"), NOW_S + 60)


# --- mailboxes ---


async def test_mail_waits_in_order_and_goes_on_acknowledgement(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    texts = ["one", "two", "three", "four"]
    assert await storage.append(tuple(mail("alice", text) for text in texts), ROOMY) == ("",) * 4
    found = await storage.waiting(device("alice"), 0, 3, EVERYTHING)
    assert [item.envelope for item in found] == [b"one", b"two", b"three"]
    rest = await storage.waiting(device("alice"), found[-1].order, 10, EVERYTHING)
    assert [item.envelope for item in rest] == [b"four"]
    ids = tuple(h(text)[:16] for text in ("two", "four"))
    assert set(await storage.acknowledge(device("alice"), ids)) == set(ids)
    assert await storage.acknowledge(device("alice"), ids) == ()
    assert await waiting_ids(storage, "alice") == [h("one")[:16], h("three")[:16]]
    counts = await storage.counts()
    assert (counts.mail, counts.mail_bytes) == (2, len("one") + len("three"))


async def test_orders_are_never_reused(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.append((mail("alice", "one"),), ROOMY)
    (first,) = await storage.waiting(device("alice"), 0, 1, EVERYTHING)
    await storage.acknowledge(device("alice"), (first.envelope_id,))
    await storage.append((mail("alice", "two"),), ROOMY)
    (second,) = await storage.waiting(device("alice"), first.order, 1, EVERYTHING)
    assert second.order > first.order


async def test_a_page_is_bounded_in_bytes_but_never_empty(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.append(tuple(mail("alice", str(n), body=bytes(100)) for n in range(5)), ROOMY)
    assert len(await storage.waiting(device("alice"), 0, 10, 250)) == 2
    assert len(await storage.waiting(device("alice"), 0, 10, 10)) == 1


@pytest.mark.attack(43)
async def test_the_same_mail_again_is_stored_once(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    one = mail("alice", "one")
    assert await storage.append((one, one), ROOMY) == ("", "")
    assert await storage.append((one,), Quota(1, 1)) == ("",), "also when the mailbox is full meanwhile"
    assert await waiting_ids(storage, "alice") == [one.envelope_id]
    other = mail("alice", "one", body=b"other bytes under the same id")
    assert await storage.append((other,), ROOMY) == (api.CONFLICT,)
    assert [item.envelope for item in await storage.waiting(device("alice"), 0, 9, EVERYTHING)] == [b"one"]


async def test_mail_for_unknown_devices_is_refused_one_by_one(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.register(new_account("bob"), None, NOW_S)
    crossed = mail("alice", "crossed")
    crossed = type(crossed)(
        h("bob"), device("alice"), crossed.head, crossed.envelope_id, crossed.expires_h, crossed.envelope
    )
    codes = await storage.append(
        (
            mail("alice", "one"),
            mail("nobody", "two"),
            mail("alice", "three", 9),
            crossed,
            mail("bob", "five"),
        ),
        ROOMY,
    )
    assert codes == ("", api.UNKNOWN, api.UNKNOWN, api.UNKNOWN, "")


async def test_an_old_head_is_stale_and_a_strange_one_is_not(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.append((mail("alice", "early", head=h("alice head 1")),), ROOMY)
    await storage.put_list(next_list("alice", 2, 1))
    codes = await storage.append(
        (
            mail("alice", "old", head=h("alice head 1")),
            mail("alice", "now", head=h("alice head 2")),
            mail("alice", "newer than this relay knows", head=h("alice head 3")),
            mail("alice", "early", head=h("alice head 1")),
        ),
        ROOMY,
    )
    assert codes == (api.STALE_LIST, "", "", ""), "what is stored already is not refused again"


@pytest.mark.attack(49)
@pytest.mark.parametrize("quota", [Quota(3, 1_000_000), Quota(1_000, 300)])
async def test_a_full_mailbox_refuses_the_new_and_keeps_the_old(storage: Storage, quota: Quota) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    letters = tuple(mail("alice", str(n), body=bytes([n]) * 100) for n in range(5))
    assert await storage.append(letters, quota) == ("", "", "", api.MAILBOX_FULL, api.MAILBOX_FULL)
    assert await waiting_ids(storage, "alice") == [letter.envelope_id for letter in letters[:3]]
    await storage.acknowledge(device("alice"), (letters[1].envelope_id,))
    assert await storage.append(letters[3:], quota) == ("", api.MAILBOX_FULL)
    assert await waiting_ids(storage, "alice") == [letters[n].envelope_id for n in (0, 2, 3)]


@pytest.mark.attack(45)
async def test_acknowledging_reaches_only_the_own_device(storage: Storage) -> None:
    for who in ("alice", "mallory"):
        await storage.register(new_account(who), None, NOW_S)
    await storage.put_list(next_list("alice", 2, 1, 2))
    head = h("alice head 2")
    letter = mail("alice", "letter", 1, head=head)
    await storage.append((letter,), ROOMY)
    for stranger in (device("mallory"), device("alice", 2), h("no device")):
        assert await storage.acknowledge(stranger, (letter.envelope_id, bytes(16))) == ()
    assert await waiting_ids(storage, "alice") == [letter.envelope_id]


async def test_the_same_id_may_wait_for_two_devices(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    await storage.put_list(next_list("alice", 2, 1, 2))
    head = h("alice head 2")
    letters = (mail("alice", "letter", 1, head=head), mail("alice", "letter", 2, head=head))
    assert await storage.append(letters, ROOMY) == ("", "")
    await storage.acknowledge(device("alice", 1), (letters[0].envelope_id,))
    assert await waiting_ids(storage, "alice", 2) == [letters[1].envelope_id]


async def test_interleaved_callers_see_whole_steps(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)

    async def send_and_take(number: int) -> None:
        letter = mail("alice", f"letter {number}")
        assert await storage.append((letter,), ROOMY) == ("",)
        assert letter.envelope_id in await waiting_ids(storage, "alice"), "an answered append is seen"
        assert await storage.acknowledge(device("alice"), (letter.envelope_id,)) == (letter.envelope_id,)
        assert letter.envelope_id not in await waiting_ids(storage, "alice")

    await asyncio.gather(*(send_and_take(number) for number in range(40)))
    counts = await storage.counts()
    assert (counts.mail, counts.mail_bytes) == (0, 0)


# --- upkeep ---


async def test_mail_and_invites_expire_in_bounded_steps(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    letters = tuple(mail("alice", str(n), expires_h=NOW_H + n) for n in range(5))
    await storage.append(letters, ROOMY)
    await storage.put_invite(InviteRow(h("token"), None, NOW_S + 3_600), 1, NOW_S)
    now_s = (NOW_H + 3) * 3600
    assert await storage.expire(NOW_H * 3600 - 1, 100) == 0
    assert await storage.expire(now_s, 3) == 3 + 1
    assert await storage.expire(now_s, 3) == 1
    assert await storage.expire(now_s, 3) == 0
    assert await waiting_ids(storage, "alice") == [letters[4].envelope_id]
    counts = await storage.counts()
    assert (counts.mail, counts.mail_bytes) == (1, 1)


async def test_held_names_every_row_of_an_account(storage: Storage) -> None:
    await storage.register(new_account("alice", name="al"), None, NOW_S)
    await storage.register(new_account("bob"), None, NOW_S)
    await storage.put_list(next_list("alice", 2, 1, 2))
    await storage.publish(device("alice", 2), 1, b"batch", b"\x05\x06")
    await storage.put_invite(InviteRow(h("token"), h("alice"), NOW_S + 60), 5, NOW_S)
    head = h("alice head 2")
    await storage.append(
        (
            mail("alice", "to alice", 1, head=head),
            mail("bob", "from alice", body=b"a letter from " + h("alice")),
            mail("bob", "from someone else"),
        ),
        ROOMY,
    )
    held = await storage.held(h("alice"))
    assert [row.table for row in held] == [
        *("accounts", "heads", "heads", "devices", "devices", "batches", "names", "invites", "mail", "mail"),
    ]
    columns = [dict(row.columns) for row in held]
    assert columns[0]["state"] == b"alice state 2"
    assert [column["head"] for column in columns[1:3]] == [h("alice head 1"), h("alice head 2")]
    assert columns[3]["mail_count"] == 1
    assert columns[4]["slots"] == b"\x05\x06"
    assert columns[5] == {"device_hash": device("alice", 2), "batch": b"batch"}
    assert columns[6] == {
        "name": "al",
        "genesis_hash": h("alice"),
        "claim": b"alice claims al",
        "freed_s": None,
    }
    assert columns[7] == {
        "token_hash": h("token"),
        "creator": h("alice"),
        "expires_s": NOW_S + 60,
        "spent_by": None,
    }
    assert [column["envelope"] for column in columns[8:]] == [b"to alice", b"a letter from " + h("alice")]
    assert set(columns[8]) == {"id", "device_hash", "envelope_id", "expires_h", "envelope"}
    assert await storage.held(h("nobody")) == ()


# --- what the operator decides ---


async def test_rulings_are_kept_replaced_and_forgotten(storage: Storage) -> None:
    await storage.register(new_account("alice"), None, NOW_S)
    assert await storage.ruling(h("alice")) == Ruling(h("alice"))
    assert not await storage.rule(Ruling(h("nobody"), banned=True))
    for ruling in (
        Ruling(h("alice"), True),
        Ruling(h("alice"), False, 2),
        Ruling(h("alice"), False, None, 9),
    ):
        assert await storage.rule(ruling)
        assert await storage.ruling(h("alice")) == ruling
        assert [row.table for row in await storage.held(h("alice"))].count("rulings") == 1
    assert await storage.rule(Ruling(h("alice")))
    assert "rulings" not in [row.table for row in await storage.held(h("alice"))]


async def test_a_ban_outlives_its_account_and_a_quota_does_not(storage: Storage) -> None:
    for who, ruling in (("alice", Ruling(h("alice"), True)), ("bob", Ruling(h("bob"), False, 5))):
        await storage.register(new_account(who), None, NOW_S)
        await storage.rule(ruling)
        await storage.delete_account(h(who), NOW_S)
    assert (await storage.ruling(h("alice"))).banned
    assert await storage.ruling(h("bob")) == Ruling(h("bob"))
    assert await storage.rule(Ruling(h("alice"))), "and can be lifted"
    assert not (await storage.ruling(h("alice"))).banned


@pytest.mark.attack(49)
async def test_an_accounts_own_quota_is_above_or_below_everyones(storage: Storage) -> None:
    for who in ("alice", "bob"):
        await storage.register(new_account(who), None, NOW_S)
    await storage.rule(Ruling(h("alice"), count_max=3))
    await storage.rule(Ruling(h("bob"), max_bytes=1))
    four = tuple(mail("alice", str(number)) for number in range(4))
    assert await storage.append(four, Quota(2, 1_000)) == ("", "", "", api.MAILBOX_FULL)
    assert await storage.append((mail("bob", "1"), mail("bob", "2")), ROOMY) == ("", api.MAILBOX_FULL)


async def test_users_are_paged_with_sums_over_their_devices(storage: Storage) -> None:
    for who in ("alice", "bob", "carol"):
        await storage.register(new_account(who, name=who), None, NOW_S)
    await storage.put_list(next_list("alice", 2, 1, 2))
    head = account("alice", 2).head
    await storage.append((mail("alice", "a", 1, head=head), mail("alice", "bc", 2, head=head)), ROOMY)
    await storage.claim_name(NameRow("robert", h("bob"), b"claim"), NOW_S)
    await storage.rule(Ruling(h("bob"), banned=True))
    found = {user.name: user for user in await storage.users(b"", 10)}
    assert found == {
        "alice": UserRow(h("alice"), "alice", 2, 2, 3, Ruling(h("alice"))),
        "robert": UserRow(h("bob"), "robert", 1, 0, 0, Ruling(h("bob"), banned=True)),
        "carol": UserRow(h("carol"), "carol", 1, 0, 0, Ruling(h("carol"))),
    }
    pages, after = [], b""
    while page := await storage.users(after, 1):
        pages += page
        after = page[-1].genesis_hash
    assert pages == sorted(found.values(), key=lambda user: user.genesis_hash)


# --- deleting an account ---


@pytest.mark.attack(48)
async def test_a_deleted_account_leaves_nothing_but_its_resting_name(storage: Storage) -> None:
    await storage.put_invite(InviteRow(h("of the relay"), None, NOW_S + 60), 1, NOW_S)
    await storage.register(new_account("alice", name="alice"), h("of the relay"), NOW_S)
    await storage.register(new_account("bob"), None, NOW_S)
    await storage.put_list(next_list("alice", 2, 1, 2))
    await storage.publish(device("alice"), 1, b"batch", b"\x00\x01")
    await storage.put_invite(InviteRow(h("open"), h("alice"), NOW_S + 60), 5, NOW_S)
    await storage.append((mail("bob", "a"), mail("alice", "b", head=account("alice", 2).head)), ROOMY)
    await storage.delete_account(h("alice"), NOW_S)
    assert await storage.account(h("alice")) is None
    assert await storage.device(device("alice")) is None
    assert await storage.take_pair(h("alice"), device("alice"), 0) is None
    assert await storage.name("alice") is None
    assert await storage.held(h("alice")) == ()
    assert await waiting_ids(storage, "alice") == []
    assert len(await waiting_ids(storage, "bob")) == 1
    assert not await storage.token_open(h("open"), h("bob"), NOW_S)
    assert not await storage.token_open(h("of the relay"), h("carol"), NOW_S)
    rested_s = NOW_S + limits.NAME_REST_DAYS * limits.DAY_S
    assert not await storage.claim_name(NameRow("alice", h("bob"), b"claim"), rested_s - 1)
    await storage.delete_account(h("alice"), NOW_S + 5)  # again, and of nobody: nothing
    await storage.delete_account(h("nobody"), NOW_S)
    await storage.expire(rested_s, 100)
    assert await storage.claim_name(NameRow("alice", h("bob"), b"claim"), rested_s)
    counts = await storage.counts()
    assert (counts.accounts, counts.devices) == (1, 1)
