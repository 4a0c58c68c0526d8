"""What an operator does to a relay: each order, through the socket and without a relay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lokket.errors import LocalError
from lokket.protocol.identity import Invite, derive_invite
from lokket.relay import admin
from lokket.relay.admission import Readings
from lokket.relay.bus import LocalBus
from lokket.relay.config import Admission, RelayConfig
from lokket.relay.orders import ListUsers, MakeInvite, Order, Purge, SetBan, SetQuota, Stats
from lokket.relay.relay import Relay
from lokket.wire import api
from tests.support.entropy import SeededEntropy
from tests.support.relay import ORIGIN, Desk


@pytest.fixture
def desk() -> Desk:
    return Desk()


async def tell(desk: Desk, order: Order) -> dict[str, Any]:
    return await admin.Steward(desk.relay, True).carry_out(order, desk.now_ms, desk.entropy)


async def test_users_shows_who_is_there(desk: Desk) -> None:
    alice, bob = await desk.join("alice", name="alice"), await desk.join("bob")
    await alice.send(alice.envelope(bob))
    answer = await tell(desk, ListUsers())
    assert not answer["more"]
    shown = {user["genesis_hash"]: user for user in answer["users"]}
    assert shown[alice.genesis_hash.hex()]["name"] == "alice"
    assert shown[bob.genesis_hash.hex()]["mail"] == 1
    last = max(alice.genesis_hash, bob.genesis_hash)
    assert (await tell(desk, ListUsers(last)))["users"] == []


async def test_the_operators_invites_let_one_in_each() -> None:
    desk = Desk(config=RelayConfig(origin=ORIGIN))
    links = [(await tell(desk, MakeInvite()))["link"] for _ in range(2)]
    for seed, link in zip(("alice", "bob"), links, strict=True):
        invite = Invite.parse(link)
        assert (invite.origin, invite.genesis_hash) == (ORIGIN, None)
        await desk.join(seed, token=derive_invite(invite.secret).token)
    with pytest.raises(AssertionError, match="token-refused"):
        await desk.join("mallory", token=derive_invite(Invite.parse(links[0]).secret).token)
    late = Invite.parse((await tell(desk, MakeInvite(3_600)))["link"])
    desk.now_ms += 3_601_000
    with pytest.raises(AssertionError, match="token-refused"):
        await desk.join("carol", token=derive_invite(late.secret).token)


async def test_a_banned_account_is_out_and_its_mail_waits(desk: Desk) -> None:
    alice, bob = await desk.join("alice", name="alice"), await desk.join("bob")
    answer = await tell(desk, SetBan("alice", True))
    assert answer["banned"]
    assert desk.relay.notices(alice.caller)[-1].code == api.UNKNOWN  # type: ignore[union-attr]
    with pytest.raises(AssertionError, match="banned from this relay"):
        await alice.log_in()
    letter = bob.envelope(alice)
    assert await bob.send(letter) == ("",)
    await tell(desk, SetBan("alice", False))
    assert (await alice.log_in()).mailbox == 1
    assert await desk.drained(alice.caller) == [letter]


async def test_who_is_not_banned_learns_nothing_of_bans(desk: Desk) -> None:
    alice, mallory = await desk.join("alice", name="alice"), await desk.join("mallory")
    await tell(desk, SetBan("alice", True))
    caller = desk.connect()
    forged = msgspec.structs.replace(mallory.login(caller.hello), genesis_hash=alice.genesis_hash)
    reply = await desk.ask(caller, forged)
    assert isinstance(reply, api.Refused)
    assert "banned" not in reply.sentence


async def test_a_ban_holds_after_the_account_is_purged(desk: Desk) -> None:
    alice = await desk.join("alice", name="alice")
    account = alice.genesis_hash.hex()
    await tell(desk, SetBan("alice", True))
    await tell(desk, Purge("alice"))
    caller = desk.connect()
    reply = await desk.ask(caller, alice.registration(caller.hello))
    assert isinstance(reply, api.Refused)
    assert "banned" in reply.sentence
    with pytest.raises(LocalError, match="knows nobody"):
        await tell(desk, SetBan(account[:12], False))
    assert not (await tell(desk, SetBan(account, False)))["banned"]
    await desk.join("alice")


@pytest.mark.attack(49)
async def test_a_quota_of_its_own(desk: Desk) -> None:
    alice, bob = await desk.join("alice", name="alice"), await desk.join("bob")
    await tell(desk, SetQuota("alice", 1))
    assert await bob.send(bob.envelope(alice), bob.envelope(alice)) == ("", api.MAILBOX_FULL)
    await tell(desk, SetBan("alice", True))
    assert (await tell(desk, SetQuota("alice")))["banned"], "a quota lifts no ban"
    assert await bob.send(bob.envelope(alice)) == ("",)


async def test_a_purged_account_leaves_its_name_to_rest(desk: Desk) -> None:
    alice, bob = await desk.join("alice", name="alice"), await desk.join("bob")
    await bob.send(bob.envelope(alice))
    await tell(desk, Purge("alice"))
    assert desk.relay.notices(alice.caller)
    assert (await tell(desk, Stats()))["accounts"] == 1
    assert (await tell(desk, Stats()))["mail"] == 0
    assert await bob.ask(api.ClaimName(bob.claim("alice"))) != api.Ok()
    with pytest.raises(LocalError, match="knows nobody"):
        await tell(desk, Purge("alice"))


async def test_stats_hold_sums_and_no_names(desk: Desk) -> None:
    alice = await desk.join("alice", name="alice")
    text = msgspec.json.encode(await tell(desk, Stats())).decode()
    assert '"accounts":1' in text
    assert "alice" not in text
    assert alice.genesis_hash.hex() not in text


# --- admission ---


@pytest.mark.parametrize(
    ("readings", "why"),
    [
        (Readings(4.1, 10**9, 10**10), "processor"),
        (Readings(1.0, 10**6, 10**10), "memory"),
        (Readings(1.0, 10**9, 10**6), "disk"),
    ],
)
async def test_new_accounts_wait_while_the_machine_is_short(readings: Readings, why: str) -> None:
    desk = Desk()
    now = [Readings(1.0, 10**9, 10**10)]
    desk.relay = Relay(desk.storage, desk.config, desk.key, LocalBus(), lambda: now[0])
    alice = await desk.join("alice")
    now[0] = readings
    with pytest.raises(AssertionError, match=f"{why}.*retry_after_ms=300000"):
        await desk.join("bob")
    await alice.log_in()
    assert await alice.send(alice.envelope(alice)) == ("",), "who is there is served"
    caller = desk.connect()
    again = await desk.ask(caller, alice.registration(caller.hello))
    assert isinstance(again, api.LoggedIn), "an account that exists takes no room"
    assert why in (await tell(desk, Stats()))["new_accounts"]
    now[0] = Readings(1.0, 10**9, 10**10)
    await desk.join("bob")


async def test_a_token_survives_a_refusal_for_want_of_room() -> None:
    config = RelayConfig(origin=ORIGIN)
    desk = Desk(config=config)
    now = [Readings(9.0)]
    desk.relay = Relay(desk.storage, config, desk.key, LocalBus(), lambda: now[0])
    token = derive_invite(Invite.parse((await tell(desk, MakeInvite()))["link"]).secret).token
    with pytest.raises(AssertionError, match="unavailable"):
        await desk.join("alice", token=token)
    now[0] = Readings()
    await desk.join("alice", token=token)


async def test_limits_of_admission_can_be_switched_off() -> None:
    config = RelayConfig(origin=ORIGIN, open=True, admission=Admission(0, 0, 0))
    desk = Desk(config=config)
    desk.relay = Relay(desk.storage, config, desk.key, LocalBus(), lambda: Readings(99.0, 0, 0))
    await desk.join("alice")


# --- the socket ---

posix = pytest.mark.skipif(os.name != "posix", reason="there are no unix sockets here")


@posix
@pytest.mark.parametrize("depth", [0, 12])
async def test_orders_by_the_socket_of_a_running_relay(desk: Desk, tmp_path: Path, depth: int) -> None:
    """Also where the folder's name is longer than a socket's name may be."""
    data = tmp_path.joinpath(*["a-long-name"] * depth)
    data.mkdir(parents=True, exist_ok=True)
    await desk.join("alice", name="alice")
    assert await admin.ask(data, Stats()) is None, "none runs"
    steward = admin.Steward(desk.relay, True)
    async with admin.listening(steward, data, lambda: desk.now_ms, SeededEntropy("socket")):
        assert stat.S_IMODE((data / admin.SOCKET).stat().st_mode) == 0o600
        answer = await admin.ask(data, Stats())
        assert answer is not None
        assert answer["running"]
        assert (await admin.ask(data, SetBan("alice", True)) or {})["banned"]
        with pytest.raises(LocalError, match="knows nobody"):
            await admin.ask(data, Purge("bob"))
    assert not (data / admin.SOCKET).exists()
    assert await admin.ask(data, Stats()) is None


@posix
@pytest.mark.parametrize(
    "line", [b"", b"\n", b"{}\n", b"[]\n", b'{"type":"purge"}\n', b"\xff\n", b"9" * 2_000_000]
)
async def test_what_is_no_order_harms_nothing(desk: Desk, tmp_path: Path, line: bytes) -> None:
    steward = admin.Steward(desk.relay, True)
    async with admin.listening(steward, tmp_path, lambda: desk.now_ms, SeededEntropy("socket")):
        reader, writer = await asyncio.open_unix_connection(tmp_path / admin.SOCKET)
        writer.write(line)
        if line:
            writer.write_eof()
        else:
            writer.close()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                assert b"users" not in await reader.read()
        writer.close()
        assert await admin.ask(tmp_path, Stats()) is not None
    assert desk.relay.counters["fault"] == 0


@posix
async def test_a_socket_that_a_killed_relay_left_is_replaced(desk: Desk, tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(lambda r, w: None, tmp_path / "other")
    os.link(tmp_path / "other", tmp_path / admin.SOCKET)
    server.close()
    assert await admin.ask(tmp_path, Stats()) is None, "nobody listens"
    steward = admin.Steward(desk.relay, True)
    async with admin.listening(steward, tmp_path, lambda: desk.now_ms, SeededEntropy("socket")):
        assert await admin.ask(tmp_path, Stats()) is not None
