"""``lokket demo``: the way of a first message, step by step, on real bytes; then a person types.

Everything shown is read off the wire and the disk of a relay that exists for the demo alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import AsyncIterator
from typing import Final

from lokket.apps import output
from lokket.apps.demo_stage import SEARCHED_MIN_BYTES, Actor, Stage, stage
from lokket.apps.output import Output
from lokket.apps.session import Session
from lokket.apps.typed import TypedLines
from lokket.apps.visible import visible
from lokket.engine import events
from lokket.errors import LokketError
from lokket.protocol.identity import grouped
from lokket.relay.explain import explain_data
from lokket.wire import api

_SCRIPT: Final = (
    "Hi Bob. Only your device can read this.",
    "Each message has its own key, and it is deleted.",
)
_REPLY: Final = "Hi Alice. I can read it, and the relay cannot."
_STEP_WAIT_S: Final = 20.0
_FIRST_LINE_WAIT_S: Final = 3.0
_LABEL: Final = 13
_VALUE: Final = 11


async def show(session: Session) -> int:
    """The whole demo; its exit code says whether every step worked."""
    teller = Teller(session.out)
    interactive = session.out.is_terminal and sys.stdin.isatty()
    teller.title("lokket demo: the way of a first message, on real bytes")
    try:
        with stage() as play:
            try:
                await _play(teller, play, interactive=interactive)
            finally:
                await play.alice.close()
                await play.bob.close()
    except (LokketError, OSError, TimeoutError) as error:
        teller.check(False, str(error) or "a step took too long")
    return teller.end()


async def _play(teller: Teller, play: Stage, *, interactive: bool) -> None:
    lines = TypedLines("") if not (interactive or sys.stdin.isatty()) else None
    first = None if lines is None else await _first_line(lines)
    text = first if first is not None else _SCRIPT[0]
    said = [text, _REPLY]
    before = {line: play.count(line.encode()) for line in said}
    _a_relay(teller, play)
    await _two_accounts(teller, play)
    await _look_up(teller, play)
    await _key_request(teller, play, text)
    await _what_the_relay_stores(teller, play, text, before[text])
    await _delivery(teller, play, text)
    await _reply(teller, play)
    if interactive:
        await _typed(teller, play, TypedLines("alice> "), said, before)
    elif first is not None and lines is not None:
        await _typed(teller, play, lines, said, before)
    else:
        await _typed(teller, play, _own_script(), said, before)
    _search(teller, play, before)


async def _first_line(lines: TypedLines) -> str | None:
    """None: there is no input, or nobody gives any."""
    try:
        async with asyncio.timeout(_FIRST_LINE_WAIT_S):
            async for line in lines:
                if line.strip():
                    return line
    except TimeoutError:
        pass
    return None


async def _own_script() -> AsyncIterator[str]:
    for line in _SCRIPT[1:]:
        yield line


# --- the steps ---


def _a_relay(teller: Teller, play: Stage) -> None:
    teller.step("A relay starts on this machine")
    teller.fact("address", play.running.origin, "a real WebSocket, data in SQLite")
    teller.fact("its key", short(play.running.relay_key), "Ed25519: invites and logins are bound to it")


async def _two_accounts(teller: Teller, play: Stage) -> None:
    teller.step("Alice and Bob make accounts")
    for actor in (play.alice, play.bob):
        client = await actor.open(create=True)
        made = await client.create_account(
            name=actor.name, origin=play.running.origin, relay_key=play.running.relay_key
        )
        teller.check(await client.settle(_STEP_WAIT_S), f"{actor.name}'s keys are at the relay", quiet=True)
        size, _ = actor.frames.last_said(api.Register)
        teller.fact(
            actor.name,
            short(made.genesis_hash),
            f"{number(size)} B of keys; each signs that it is theirs",
        )
    size, _ = play.bob.frames.last_said(api.Publish)
    teller.fact("prekeys", f"{number(size)} B", "128 one-time pairs, X25519 with ML-KEM-1024")
    teller.fact("", "", "one ML-DSA-44 signature over a Merkle tree of them")


async def _look_up(teller: Teller, play: Stage) -> None:
    teller.step("They add each other, by name")
    await play.bob.client.add_contact("alice", name="alice", timeout_s=_STEP_WAIT_S)
    await play.alice.client.add_contact("bob", name="bob", timeout_s=_STEP_WAIT_S)
    name_size, _ = play.alice.frames.last_heard(api.NameRecord)
    chain_size, _ = play.alice.frames.last_heard(api.Account)
    teller.fact("the name", f"{number(name_size)} B", "signed by Bob: a hint, pinned from here on")
    teller.fact("his devices", f"{number(chain_size)} B", "a list that his account key signed")
    theirs, ours = play.bob.client.safety_number("alice"), play.alice.client.safety_number("bob")
    groups = grouped(ours).split()
    teller.fact("safety no.", " ".join(groups[:6]), "")
    teller.fact("", " ".join(groups[6:]), "the same on both sides" if ours == theirs else "")
    teller.check(ours == theirs, "both safety numbers are the same", quiet=True)


async def _key_request(teller: Teller, play: Stage, text: str) -> None:
    await play.bob.close()
    teller.step("Bob goes offline. Alice writes to him")
    teller.quote("alice", text)
    client = play.alice.client
    mid = await client.send("bob", text)
    state = await client.wait_state(mid, "sent", timeout_s=_STEP_WAIT_S)
    size, bundle = play.alice.frames.last_heard(api.Bundle)
    teller.fact("key request", f"{number(size)} B", "one of Bob's prekey pairs, with its proof")
    teller.fact("hash", short(hashlib.sha256(bundle.bundle).digest()), "nobody else is given this pair")

    teller.step("Encryption, on Alice's device")
    envelope = play.alice.frames.envelopes_sent()[-1]
    teller.fact("plaintext", f"{number(len(text.encode()))} B", "padded, so that its length tells little")
    teller.fact("session", "PQXDH", "X25519 with ML-KEM-1024: the first keys")
    teller.fact("", "Triple Ratchet", "a key for each message; new secrets flow in")
    teller.fact(
        "ciphertext", f"{number(len(envelope.body))} B", "a first message carries the handshake along"
    )
    teller.fact("begins", hexes(envelope.body, 20), "")
    teller.check(state == "sent", "✓ sent: the relay has it on disk")


async def _what_the_relay_stores(teller: Teller, play: Stage, text: str, before: int) -> None:
    teller.step("What the relay stores")
    found = await explain_data(play.relay.data, "bob")
    sizes: dict[str, list[int]] = {}
    for row in found.rows:
        sizes.setdefault(row.table, []).append(row.size_bytes)
    for table, rows in sizes.items():
        teller.fact(table, f"{number(sum(rows))} B", plural(len(rows), "row"))
    stored = api.encode(play.alice.frames.envelopes_sent()[-1])
    teller.fact("the message", hexes(stored, 20), "")
    teller.check(play.count(stored[:64]) > 0, "these bytes are found in its files", quiet=True)
    if len(text.encode()) >= SEARCHED_MIN_BYTES:
        teller.check(play.count(text.encode()) <= before, "the text itself is in none of its files")
    teller.fact("for the rest", "lokket relay explain NAME", "")


async def _delivery(teller: Teller, play: Stage, text: str) -> None:
    teller.step("Bob comes online: delivery, decryption, receipt")
    # Not what follows at once, the answer to Bob's challenge.
    envelopes = play.alice.frames.envelopes_sent()
    sent = [api.encode(envelope) for envelope in envelopes]
    client = await play.bob.open()
    await client.catch_up(_STEP_WAIT_S)
    got = [each for each in play.bob.frames.envelopes_delivered() if each in sent]
    teller.fact("delivered", f"{number(sum(len(each) for each in got))} B", plural(len(got), "envelope"))
    teller.fact("hash", short(hashlib.sha256(got[-1] if got else b"").digest()), "as it left Alice's device")
    teller.check(got == sent, "what arrives is what was sent, byte for byte", quiet=True)
    shown = client.unhandled()
    teller.arrived(text, shown[-1].text if shown else None)
    if shown:
        await client.handled(shown[-1].order)
    mid = shown[-1].mid if shown else b""
    state = await play.alice.client.wait_state(mid, "delivered", timeout_s=_STEP_WAIT_S)
    receipt = play.bob.frames.envelopes_sent()[-1:]
    teller.fact(
        "receipt", f"{number(len(receipt[0].body)) if receipt else 0} B", "encrypted like any message"
    )
    teller.check(state == "delivered", "✓ delivered: Alice has Bob's receipt")
    await client.settle(_STEP_WAIT_S)
    held = await explain_data(play.relay.data, "bob")
    kept = {column.shown for row in held.rows for column in row.columns if column.name == "envelope_id"}
    ids = {envelope.envelope_id.hex() for envelope in envelopes}
    teller.check(not kept & ids, "the relay has deleted the message")


async def _reply(teller: Teller, play: Stage) -> None:
    teller.step("Bob replies")
    teller.quote("bob", _REPLY)
    await _pass_on(play.bob, play.alice, _REPLY, teller)
    envelope = play.bob.frames.envelopes_sent()[-1]
    teller.fact("ciphertext", f"{number(len(envelope.body))} B", "")
    teller.fact("", "", "fresh keys of his are mixed in: old ones open nothing new")


async def _typed(
    teller: Teller, play: Stage, lines: AsyncIterator[str], said: list[str], before: dict[str, int]
) -> None:
    teller.step("Now you are Alice: type to Bob. An empty line ends")
    async for line in lines:
        if not line.strip():
            if isinstance(lines, TypedLines) and lines.prompted:
                break
            continue
        before.setdefault(line, play.count(line.encode()))
        said.append(line)
        started_s = time.monotonic()
        await _pass_on(play.alice, play.bob, line, teller)
        size = len(play.alice.frames.envelopes_sent()[-1].body)
        teller.fact("", f"{number(size)} B", f"of ciphertext, {1000 * (time.monotonic() - started_s):.0f} ms")


async def _pass_on(sender: Actor, reader: Actor, text: str, teller: Teller) -> None:
    """One message from device to device; until it is read and its receipt is back."""
    stream = reader.client.events()
    coming = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    mid = await sender.client.send(reader.name, text)
    async with asyncio.timeout(_STEP_WAIT_S):
        while True:
            happening = await coming
            if isinstance(happening, events.MessageShown) and happening.mid == mid:
                break
            coming = asyncio.ensure_future(anext(stream))
    await stream.aclose()
    teller.arrived(text, happening.text)
    await reader.client.handled(happening.order)
    state = await sender.client.wait_state(mid, "delivered", timeout_s=_STEP_WAIT_S)
    teller.check(state == "delivered", "the receipt is back", quiet=True)


def _search(teller: Teller, play: Stage, before: dict[str, int]) -> None:
    teller.step("Is any of it in the relay's files?")
    for path in play.files():
        teller.fact(path.name, f"{number(path.stat().st_size)} B", "searched")
    searched = [line for line in before if len(line.encode()) >= SEARCHED_MIN_BYTES]
    leaked = [line for line in searched if play.count(line.encode()) > before[line]]
    teller.check(not leaked, f"none of the {plural(len(searched), 'message')} is in the relay's files")


# --- telling ---


class Teller:
    """Numbers the steps, aligns the facts, and remembers whether anything failed."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._step = 0
        self._failed = 0
        self._started_s = time.monotonic()

    def title(self, text: str) -> None:
        self._out.say(text, "bold")

    def step(self, title: str) -> None:
        self._step += 1
        self._out.record("step", number=self._step, title=title)
        self._out.say()
        self._out.say_parts((f"{self._step:2}  ", "bold cyan"), (title, "bold"))

    def fact(self, label: str, value: str, note: str) -> None:
        self._out.record("fact", step=self._step, label=label, value=value, note=note)
        self._out.say_parts(
            (f"    {label:{_LABEL}} ", "dim"),
            (f"{value:{_VALUE}}  " if value and note else value, "yellow"),
            (note, "dim"),
        )

    def quote(self, who: str, text: str) -> None:
        self._out.say_parts((f"    {who:{_LABEL}} ", "dim"), (f'"{visible(text)}"', "italic"))

    def arrived(self, wanted: str, got: str | None) -> None:
        """Compares what was decrypted with what was written."""
        if got == wanted:
            self._out.record("delivered", text=got)
            shown = visible(got, isolate=self._out.is_terminal)
            self._out.say(f"delivered and decrypted: {shown}", "bold green")
        else:
            self.check(False, "the message was not delivered as it was written")

    def check(self, good: bool, sentence: str, *, quiet: bool = False) -> None:
        """``quiet``: worth a line only when it is not so."""
        if not good:
            self._failed += 1
        self._out.record("check", step=self._step, good=good, sentence=sentence)
        if not good:
            self._out.say(f"    FAILED       {visible(sentence)}", "bold red")
        elif not quiet:
            self._out.say(f"    {sentence}" if sentence.startswith("✓") else f"    ✓ {sentence}", "green")

    def end(self) -> int:
        seconds = round(time.monotonic() - self._started_s, 1)
        self._out.record("result", failed=self._failed, seconds=seconds)
        self._out.say()
        if self._failed:
            self._out.say(f"{plural(self._failed, 'step')} failed.", "bold red")
            return output.FAILED
        self._out.say(f"All of it worked, in {seconds} s. Relay and vaults are deleted again.", "bold")
        self._out.say("Your own: lokket serve, then lokket join 'LINK' --name YOU", "dim")
        return output.OK


def short(data: bytes) -> str:
    return f"{data[:4].hex()}…"


def hexes(data: bytes, count: int) -> str:
    return data[:count].hex(" ", 2) + " …"


def number(value: int) -> str:
    return f"{value:,}"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
