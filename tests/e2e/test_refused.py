"""A relay that takes no mail: it stays in its sender's outbox, and arrives in order when there is room."""

from __future__ import annotations

from tests.support.daemon import short_folder
from tests.support.machine import RelayMachine, eventually, machines

BARE = "--insecure-no-passphrase"
ROOM = 3  # envelopes in a mailbox


def test_mail_for_a_full_mailbox_stays_in_the_outbox_and_arrives_when_there_is_room() -> None:
    with short_folder() as folder, machines(folder, "alice", "bob") as (relay, alice, bob):
        assert isinstance(relay, RelayMachine)
        relay.home.mkdir()
        (relay.home / "relay.toml").write_text(f"mailbox_count_max = {ROOM}\n")
        relay.serve("--config", str(relay.home / "relay.toml"))
        alice.json("join", relay.invite, "--name", "alice", BARE)
        link = alice.json("invite")[0]["link"]
        bob.json("join", link, "--name", "bob", BARE)
        alice.json("listen", "--once")
        bob.json("listen", "--once")

        said = [f"line {number}" for number in range(2 * ROOM)]
        daemon = alice.daemon()
        for text in said[:ROOM]:
            assert alice.json("send", "bob", text, "--wait", "sent")[0]["state"] == "sent"
        refused = alice.run("send", "bob", said[ROOM], "--wait", "sent", "--timeout", "2")
        assert refused.returncode == 3, refused.stderr
        assert "the recipient's mailbox at the relay is full" in refused.stderr
        chatting = alice.start("chat", "bob")
        chatting.write("".join(f"{text}\n" for text in said[ROOM + 1 :]))
        assert chatting.line() == "  · queued: the recipient's mailbox at the relay is full"
        eventually(lambda: len(alice.json("history", "bob")) == len(said))
        chatting.stop()
        relay.serving.kill()  # what it refused does not count on its memory
        relay.serve("--config", str(relay.home / "relay.toml"))
        states = [record["state"] for record in alice.json("history", "bob")]
        assert states == ["sent"] * ROOM + ["queued"] * ROOM

        reading = bob.start("listen", "--json")
        assert [reading.record("message")["text"] for _ in said] == said
        eventually(lambda: {record["state"] for record in alice.json("history", "bob")} == {"delivered"})
        reading.stop()
        assert daemon.stop() == 0
        assert [record["text"] for record in bob.json("history", "alice")] == said
