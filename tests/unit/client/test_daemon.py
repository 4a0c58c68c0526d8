"""The daemon's socket: who may use it, what it refuses, and that nothing is lost or stolen at it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import stat
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from lokket import limits
from lokket.client import happenings
from lokket.client.client import Client, NotReached
from lokket.client.happenings import Stopped
from lokket.client.rpc import place, remote, table, told, typed
from lokket.engine import archive, backups, cursors, events, views
from lokket.errors import LocalError, RemoteError
from lokket.wire import api
from tests.support.client import Town, town
from tests.support.daemon import elsewhere, served, short_folder, wire

pytestmark = pytest.mark.skipif(not place.has_sockets(), reason="no Unix sockets here")
Play = Callable[[Callable[[Town, Client, Client, Path], Awaitable[None]]], None]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Alice, Bob and a folder for Bob's socket."""

    def run(body: Callable[[Town, Client, Client, Path], Awaitable[None]]) -> None:
        async def whole() -> None:
            with short_folder() as folder:
                async with town(tmp_path) as home, asyncio.timeout(60):
                    alice, bob = await home.join("alice"), await home.join("bob")
                    await alice.add_contact("bob", name="bob")
                    await bob.add_contact("alice", name="alice")
                    await body(home, alice, bob, folder)

        asyncio.run(whole())

    return run


async def say(sender: Client, *texts: str) -> None:
    for text in texts:
        mid = await sender.send("bob", text)
        assert await sender.wait_state(mid, "delivered", timeout_s=20) == "delivered"


def texts(messages: list[dict[str, Any]]) -> list[str]:
    return [message["text"] for message in messages]


# --- who may use it ---


@pytest.mark.attack(111)
def test_the_socket_is_its_owners_alone(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        mask = os.umask(0)
        try:
            async with served(bob, folder):
                mode = place.socket_path(folder).lstat().st_mode
                assert stat.S_ISSOCK(mode)
                assert stat.S_IMODE(mode) == 0o600
                assert os.umask(0) == 0  # as it was
        finally:
            os.umask(mask)

    play(body)


@pytest.mark.attack(111)
def test_another_users_process_is_hung_up_on(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder):
            for stranger in (os.geteuid() + 1, -1):
                monkeypatch.setattr(place, "peer_user", lambda connection, user=stranger: user)
                async with wire(folder, greet=False) as other:
                    await other.send(
                        {"jsonrpc": "2.0", "id": 1, "method": "hello", "params": {"versions": [1]}}
                    )
                    assert await other.is_closed()
                assert place.connect(folder, 5) is None  # nor is a stranger's daemon spoken to
            monkeypatch.undo()
            async with wire(folder) as own:
                assert await own.ask("is_contact", petname="alice") is True

    play(body)


@pytest.mark.attack(111)
def test_the_system_tells_who_is_there() -> None:
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        user = place.peer_user(one)
        if user is None:
            pytest.skip("this system does not tell")
        assert user == os.geteuid()


@pytest.mark.attack(111)
def test_what_is_no_socket_of_ours_is_not_spoken_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.socket_path(tmp_path)
    assert place.connect(tmp_path, 1) is None
    path.write_text("a file")
    assert place.connect(tmp_path, 1) is None
    path.unlink()
    (tmp_path / "elsewhere").write_text("")
    path.symlink_to(tmp_path / "elsewhere")
    assert place.connect(tmp_path, 1) is None
    path.unlink()
    with short_folder() as folder, place.listen(folder):
        assert place.is_served(folder)
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert not place.is_served(folder)


def test_a_socket_that_a_killed_daemon_left_is_replaced(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        left.bind(str(place.socket_path(folder)))
        left.close()
        assert remote.attach(folder) is None
        async with served(bob, folder), wire(folder) as own:
            assert await own.ask("is_contact", petname="alice") is True

    play(body)


def test_too_long_a_path_is_said(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with pytest.raises(LocalError, match="too long for a socket"):
        place.listen(folder)
    assert place.connect(folder, 1) is None


def test_without_unix_sockets_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "has_sockets", lambda: False)
    with pytest.raises(LocalError, match="every command opens the vault itself"):
        place.listen(tmp_path)
    assert remote.attach(tmp_path) is None


# --- what it refuses ---

SEND = {"petname": "alice", "text": "no"}


def call(method: str, params: Any, **other: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params, **other})


REFUSED: list[tuple[str, int]] = [
    ("not json", table.NO_JSON),
    ("\xff", table.NO_JSON),
    ("[" * 100_000, table.NO_REQUEST),
    ('{"jsonrpc":"2.0","id":1,"method":"send","params":' + '{"text":' * 50_000, table.NO_JSON),
    ("[]", table.NO_REQUEST),
    (f"[{call('send', SEND)}]", table.NO_REQUEST),
    (json.dumps({"jsonrpc": "2.0", "method": "send", "params": SEND}), table.NO_REQUEST),
    (call("send", SEND, jsonrpc="1.0"), table.NO_REQUEST),
    (json.dumps({"id": 1, "method": "send", "params": SEND}), table.NO_REQUEST),
    (call("send", SEND, id=1.5), table.NO_REQUEST),
    (call("send", SEND, id=None), table.NO_REQUEST),
    (call("send", SEND, id="x" * 65), table.NO_REQUEST),
    (call("send", SEND, x=1), table.NO_REQUEST),
    (call("create_account", {}), table.NO_METHOD),
    (call("__init__", {}), table.NO_METHOD),
    (call("send", {**SEND, "x": 1}), table.NO_PARAMS),
    (call("send", {"petname": "alice"}), table.NO_PARAMS),
    (call("send", ["alice", "no"]), table.NO_PARAMS),
    (call("send", {**SEND, "mid": 5}), table.NO_PARAMS),
    (call("send", {**SEND, "mid": "!"}), table.NO_PARAMS),
    (call("history", {"petname": "alice", "limit": 0}), table.NO_PARAMS),
    (call("next", {"wait_s": 1e9}), table.NO_PARAMS),
    (call("next", {"after": -1}), table.NO_PARAMS),
]


@pytest.mark.attack(16)
def test_what_is_no_request_gets_one_error_and_changes_nothing(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder):
            before = (bob.history("alice"), bob.contacts(), bob.cursors())
            for start in range(0, len(REFUSED), limits.RPC_MISTAKES_MAX - 1):
                async with wire(folder) as caller:
                    for text, number in REFUSED[start : start + limits.RPC_MISTAKES_MAX - 1]:
                        await caller.send(text.encode("latin-1"))
                        answer = await caller.answer()
                        assert answer["error"]["code"] == number, text[:80]
                        assert answer["error"]["message"]
                    assert await caller.ask("is_contact", petname="alice") is True  # it goes on
            assert (bob.history("alice"), bob.contacts(), bob.cursors()) == before

    play(body)


@pytest.mark.parametrize("method", ["handled", "give_up", "forget_dead_letter", "open_cursor", "send"])
def test_values_that_the_engine_refuses_are_errors_too(play: Play, method: str) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "handled": {"order": 1, "cursor": "nobody"},
        "give_up": {"cursor": "", "order": -5, "tries": 1, "sentence": "x"},
        "forget_dead_letter": {"cursor": "x", "order": -1},
        "open_cursor": {"name": "../x"},
        "send": {"petname": "nobody", "text": "hi"},
    }

    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder), wire(folder) as caller:
            answer = await caller.request(method, **wrong[method])
            assert answer["error"]["code"] == table.FAILED

    play(body)


@pytest.mark.attack(50)
def test_too_long_a_line_and_too_many_mistakes_end_the_connection(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder):
            async with wire(folder) as caller:
                caller.writer.write(b"x" * (limits.RPC_REQUEST_MAX_BYTES + 2) + b"\n")
                answer = await caller.answer()
                assert answer["error"]["code"] == table.TOO_LARGE
                assert await caller.is_closed()
            async with wire(folder) as caller:
                for _ in range(limits.RPC_MISTAKES_MAX):
                    await caller.send("x")
                assert await caller.is_closed()
            async with wire(folder) as caller:
                assert await caller.ask("is_contact", petname="alice") is True

    play(body)


def test_the_first_request_is_a_hello_with_a_version_in_common(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RPC_HELLO_WAIT_S", 0.2)

    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder):
            for request, words in (
                ({"method": "contacts", "params": {}}, "first request is hello"),
                ({"method": "hello", "params": {"versions": [7]}}, "speaks another version"),
            ):
                async with wire(folder, greet=False) as caller:
                    await caller.send({"jsonrpc": "2.0", "id": 1, **request})
                    answer = await caller.answer()
                    assert answer["error"]["code"] == table.UNGREETED
                    assert words in answer["error"]["message"]
                    assert await caller.is_closed()
            async with wire(folder, greet=False) as mute:
                assert (await mute.answer())["error"]["code"] == table.UNGREETED
                assert await mute.is_closed()
            monkeypatch.setattr(remote, "VERSIONS", (7,))
            with pytest.raises(LocalError, match="lokket daemon stop"):
                await asyncio.to_thread(remote.attach, folder)

    play(body)


def test_connections_are_bounded(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RPC_CONNECTIONS_MAX", 1)

    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder), wire(folder) as first:
            async with wire(folder, greet=False) as second:
                assert (await second.answer())["error"]["code"] == table.TOO_LARGE
                assert await second.is_closed()
            assert await first.ask("is_contact", petname="alice") is True

    play(body)


def test_what_waits_at_once_is_bounded_and_holds_up_no_other(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RPC_PENDING_MAX", 3)

    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder), wire(folder) as caller:
            for number in ("a", "b"):
                await caller.send(
                    {"jsonrpc": "2.0", "id": number, "method": "next", "params": {"wait_s": 60}}
                )
            await caller.send({"jsonrpc": "2.0", "id": "a", "method": "cursors"})
            assert (await caller.answer())["error"]["code"] == table.NO_REQUEST  # "a" waits already
            assert await caller.ask("is_contact", petname="alice") is True
            await say(alice, "hi")
            assert {(await caller.answer())["id"] for _ in range(2)} == {"a", "b"}

    play(body)


@pytest.mark.attack(120)
def test_a_mistake_of_ours_tells_its_kind_and_nothing_else(
    play: Play, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stumble(*_: object) -> None:
        raise KeyError("a secret text")

    monkeypatch.setattr(views, "contact", stumble)

    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder), wire(folder) as caller:
            answer = await caller.request("contact", petname="alice")
            assert answer["error"]["code"] == table.INTERNAL
            assert "KeyError" in answer["error"]["message"]
            assert "secret" not in json.dumps(answer) + caplog.text

    play(body)


# --- cursors ---


def test_two_subscribers_get_everything_and_do_not_steal(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder), wire(folder) as one, wire(folder) as other:
            await one.ask("open_cursor", name="one")
            await other.ask("open_cursor", name="other")
            await say(alice, "first", "second")
            mine = await one.ask("next", cursor="one", wait_s=20)
            assert texts(mine) == ["first", "second"]
            await one.ask("handled", cursor="one", order=mine[-1]["order"])
            assert await one.ask("next", cursor="one") == []
            assert texts(await other.ask("next", cursor="other", wait_s=20)) == ["first", "second"]
            assert texts(await other.ask("next")) == ["first", "second"]  # the person's own

    play(body)


def test_what_was_delivered_and_not_handled_comes_again(play: Play) -> None:
    """A subscriber killed between delivery and acknowledgement; nothing waits in a dead connection."""

    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder):
            async with wire(folder) as killed:
                await killed.ask("open_cursor", name="mailer")
                await say(alice, "first", "second")
                got = await killed.ask("next", cursor="mailer", limit=1)
                await killed.ask("handled", cursor="mailer", order=got[0]["order"])
                assert texts(await killed.ask("next", cursor="mailer")) == ["second"]
                killed.writer.transport.abort()
            await say(alice, "third")  # while nobody is attached
            async with wire(folder) as again:
                await again.ask("open_cursor", name="mailer")
                waiting = await again.ask("next", cursor="mailer")
                assert texts(waiting) == ["second", "third"]
                await again.ask("handled", cursor="mailer", order=waiting[-1]["order"])
                assert await again.ask("next", cursor="mailer") == []

    play(body)


def test_a_subscriber_that_waits_is_told_at_once_and_never_expires(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder), wire(folder) as caller:
            await caller.ask("open_cursor", name="mailer")
            [before] = bob.cursors()
            monkeypatch.setattr(cursors, "is_stale", lambda view, now_ms: True)
            await caller.send(
                {"jsonrpc": "2.0", "id": "w", "method": "next", "params": {"cursor": "mailer", "wait_s": 60}}
            )
            await say(alice, "hi")
            answer = await caller.answer()
            assert texts(answer["result"]) == ["hi"]
            assert bob.cursors()[0].used_ms > before.used_ms
            assert await caller.ask("next", cursor="mailer", after=answer["result"][0]["order"]) == []

    play(body)


def test_a_reader_that_does_not_read_is_told_no_more(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with bob.listening(at_most=2) as queue:  # type: ignore[call-arg]
            for number in range(4):
                await bob.send("alice", f"text {number}")
            assert isinstance(queue.get_nowait(), Stopped)
            assert queue.empty()
        assert len(bob.history("alice")) == 4

    play(body)


def test_who_watches_is_told_what_happens(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder), wire(folder) as watcher, wire(folder) as other:
            await watcher.ask("watch")
            await watcher.ask("watch")  # twice is once
            await say(alice, "hi")
            while not any(one["happening"] == "MessageShown" for one in watcher.happened):
                line = await watcher.line()
                assert line is not None
                watcher.happened.append(line["params"])
            assert [one["text"] for one in watcher.happened if one["happening"] == "MessageShown"] == ["hi"]
            assert await other.ask("is_contact", petname="alice") is True
            assert other.happened == []

    play(body)


# --- the client behind it ---


def test_both_clients_answer_alike(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        await say(alice, "hi", "there")
        mid = await bob.send("alice", "hello")
        assert await bob.wait_state(mid, timeout_s=20) == "delivered"
        await backups_key(bob)

        async def answers(client: Client) -> list[Any]:
            return [
                client.whoami(),
                client.me(),
                client.contacts(),
                client.contact("alice"),
                client.is_contact("alice"),
                client.is_contact("nobody"),
                client.safety_number("alice"),
                client.verify_code("alice"),
                client.history("alice"),
                client.history("alice", 1),
                client.message_state(mid),
                client.unhandled(),
                client.cursors(),
                client.dead_letters(),
                client.health(),
                client.vault_faults(),
                client.read(views.account_code),
                client.read(views.transfer),
                client.read(backups.state),
                client.read(archive.page, b"", 2),
                client.read(archive.page, place=b"", limit=256, only=client.contact("alice").genesis_hash),
                await client.next_messages(limit=1),
                await client.wait_state(mid, timeout_s=1),
                await client.settle(20),
                await client.catch_up(20),
                await client.wait_online(20) >= 0,
            ]

        await bob.settle(20)
        async with served(bob, folder):
            assert await elsewhere(folder, answers) == await answers(bob)

    play(body)


async def backups_key(client: Client) -> None:
    await client.perform(events.UseBackupKey(bytes(32)))


def test_what_is_done_through_a_daemon_is_done(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async def work(client: Client) -> None:
            mid = await client.send("alice", "through the daemon")
            assert await client.wait_state(mid, timeout_s=20) == "delivered"
            assert await client.send("alice", "through the daemon", mid=mid) == mid  # and only once
            await client.rename("alice", "allie")
            await client.verify("allie")
            assert client.contact("allie").level == "verified"
            assert (await client.invite(20)).link.startswith("lokket:invite#")
            published = await client.ask(
                events.RefillPrekeys(),
                lambda seen: seen if isinstance(seen, events.PrekeysPublished) else None,
                20,
            )
            assert published.number > 1
            await client.finish(1)

        async with served(bob, folder):
            await elsewhere(folder, work)
        assert [m.text for m in alice.history("bob")] == ["through the daemon"]
        assert bob.contact("allie").level == "verified"

    play(body)


def test_errors_come_through_as_what_they_are(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async def work(client: Client) -> None:
            with pytest.raises(LocalError, match="no contact called 'nobody'"):
                client.history("nobody")
            with pytest.raises(LocalError, match="no contact called 'nobody'"):
                await client.send("nobody", "hi")
            with pytest.raises(RemoteError):
                await client.add_contact("x", link="lokket:invite#Iabc")
            with pytest.raises(NotReached):
                await client.ask(events.MarkRead("alice"), lambda seen: None, 0.1)
            with pytest.raises(LocalError, match="choose another folder"):
                await client.create_account("")
            with pytest.raises(LocalError, match="choose another --profile"):
                await client.perform(events.CreateAccount("", None))
            with pytest.raises(LocalError, match="does not answer this question"):
                client.read(archive.count)

        async with served(bob, folder):
            await elsewhere(folder, work)

    play(body)


def test_only_requests_for_files_go_past_the_engine(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async def files(client: Client) -> api.Reply:
            return await client.exchange(api.ListBlobs(), 20)

        async with served(bob, folder), wire(folder) as caller:
            assert await elsewhere(folder, files) == api.Blobs(())
            for request in (api.Ping(), api.DeleteAccount(b"signature"), api.Acknowledge((bytes(16),))):
                frame = b64encode(api.encode(api.ClientFrame(1, request))).decode()
                answer = await caller.request("exchange", frame=frame, timeout_s=1)
                assert answer["error"]["code"] == table.FAILED
            answer = await caller.request("exchange", frame="AAAA", timeout_s=1)
            assert answer["error"]["code"] == table.REFUSED

    play(body)


def test_messages_are_an_iterator_that_begins_where_it_ended(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async def first(client: Client) -> str:
            async for shown in client.messages("mailer", oldest=True):
                return shown.text  # and not handled
            raise AssertionError

        async def rest(client: Client) -> list[str]:
            found = []
            async for shown in client.messages("mailer"):
                found.append(shown.text)
                await client.handled(shown.order, "mailer")
                if len(found) == 2:
                    return found
            raise AssertionError

        await say(alice, "one", "two")
        async with served(bob, folder):
            assert await elsewhere(folder, first) == "one"
            assert await elsewhere(folder, rest) == ["one", "two"]
        assert await bob.next_messages("mailer") == ()

    play(body)


def test_open_takes_the_daemon_when_it_is_there(play: Play, tmp_path: Path) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        vault = tmp_path / "bob"
        if not place.fits(place.socket_path(vault)):
            pytest.skip("the temporary folder's path is too long for a socket")

        def opened() -> type[Client]:
            async def open_it() -> type[Client]:
                async with await Client.open(vault, b"whatever, it is not needed") as client:
                    assert client.is_contact("alice")
                    return type(client)

            return asyncio.run(open_it())

        async with served(bob, vault):
            assert await asyncio.to_thread(opened) is remote.DaemonClient
            with pytest.raises(LocalError, match="another lokket"):
                await Client.open(vault, bytes(range(32)), daemon=False)

    play(body)


# --- its end ---


@pytest.mark.parametrize("how", ["stop", "request", "vault"])
def test_it_ends_with_callers_attached_who_are_told(play: Play, how: str) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder) as service, wire(folder) as watcher, wire(folder) as waiting:
            await watcher.ask("watch")
            await waiting.send({"jsonrpc": "2.0", "id": 1, "method": "next", "params": {"wait_s": 600}})
            await waiting.send({"jsonrpc": "2.0", "id": 2, "method": "cursors"})
            assert (await waiting.answer())["id"] == 2
            match how:
                case "stop":
                    service.stop.set()
                case "request":
                    assert await watcher.ask("stop") is None
                case "vault":
                    bob._driver._fail(LocalError("the disk is full"), deque())  # type: ignore[attr-defined]
            assert await waiting.is_closed()
            assert await watcher.is_closed()
            if how != "request":
                assert watcher.happened[-1]["happening"] == "Stopped"
            assert service.failure == ("the disk is full" if how == "vault" else "")

    play(body)


def test_a_client_whose_daemon_ends_says_so(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()

        async def wait(client: Client) -> None:
            async with client.listening() as queue:
                waiting = asyncio.create_task(client.next_messages(wait_s=600))
                await client.perform(events.MarkRead("alice"))  # behind it on the connection
                loop.call_soon_threadsafe(ready.set)
                with pytest.raises(remote.DaemonEnded):
                    await waiting
                while not isinstance(await queue.get(), Stopped):
                    pass
            with pytest.raises(remote.DaemonEnded, match="--id"):
                await client.send("alice", "hi", mid=bytes(16))
            with pytest.raises(remote.DaemonEnded):
                client.contacts()

        async with served(bob, folder) as service:
            working = asyncio.create_task(elsewhere(folder, wait))
            await ready.wait()
            service.stop.set()
            await working

    play(body)


def test_it_ends_when_nobody_came_for_long(play: Play) -> None:
    async def body(home: Town, alice: Client, bob: Client, folder: Path) -> None:
        async with served(bob, folder, idle_s=0.3) as service:
            async with wire(folder) as caller:
                await asyncio.sleep(0.8)  # longer than it waits: there is a caller
                assert await caller.ask("is_contact", petname="alice") is True
            await service.stop.wait()

    play(body)


# --- the table ---


def test_every_happening_has_a_name_on_the_socket() -> None:
    own = {kind for kind in vars(happenings).values() if dataclasses.is_dataclass(kind)}
    assert len(own) > 2
    assert set(told._KINDS.values()) == own | set(get_args(events.Notice))


def test_every_method_of_the_table_is_known_to_both_sides() -> None:
    first = {events.CreateAccount, events.JoinAsDevice, events.LinkDevice, events.RecoverAccount}
    first.add(events.VaultOpened)  # said by who opens it
    first |= {events.VaultOpened}  # by whoever opens the vault, which is the daemon itself
    assert set(table.COMMANDS.values()) == set(get_args(events.Command)) - first
    assert set(typed._ANSWERS) | {"archive_page"} <= set(table.QUESTIONS)
    assert set(typed._QUESTIONS.values()) <= set(table.QUESTIONS)
    for name, params in remote._LOOKS.items():
        assert table.QUESTIONS[name].__struct_fields__ == params
    assert remote.VERSIONS == table.VERSIONS
    assert (remote._NOT_REACHED, remote._REFUSED) == (table.NOT_REACHED, table.REFUSED)
    assert all(kind.__doc__ and "->" in kind.__doc__ for kind in table.QUESTIONS.values())
