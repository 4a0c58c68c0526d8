"""Row 36, end to end: a stolen vault, its key too, holds no key of a message of the past and no spent prekey.

Every key that is derived while two clients talk is a canary: message seeds, post-quantum keys, message
keys, chain keys that were stepped over. The test is the thief: it decrypts every page of the database,
the free ones and the log's among them, and looks for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from lokket.client.client import Client
from lokket.crypto.keys import MLKEMKeyPair, X25519KeyPair
from lokket.engine.store import PREKEY, SESSION
from lokket.protocol.pairwise import double_ratchet, pqxdh, spqr, triple_ratchet
from tests.support.client import KEY, Town, town
from tests.support.pages import readable


class Canaries:
    """Keys whose time is over, by what they were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: dict[bytes, str] = {}
        self._watch(monkeypatch, double_ratchet, "_chain_step", self._step("Double Ratchet"))
        self._watch(monkeypatch, spqr, "_chain_step", self._step("post-quantum"))
        self._watch(monkeypatch, triple_ratchet, "hkdf_sha256_triple", self._message_keys)
        self._watch(monkeypatch, pqxdh, "_derive", self._handshake)

    def _watch(
        self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, note: Callable[..., None]
    ) -> None:
        honest = getattr(module, name)

        def watched(*values: Any, **named: Any) -> Any:
            result = honest(*values, **named)
            note(values, named, result)
            return result

        monkeypatch.setattr(module, name, watched)

    def _step(self, ratchet: str) -> Callable[..., None]:
        def note(values: tuple[bytes, ...], named: dict[str, Any], result: tuple[bytes, bytes]) -> None:
            self.found[values[0]] = f"an earlier {ratchet} chain key"
            self.found[result[1]] = f"a {ratchet} message seed"

        return note

    def _message_keys(
        self, values: tuple[bytes, ...], named: dict[str, Any], result: tuple[bytes, ...]
    ) -> None:
        self.found[result[0]] = "a message's cipher key"
        self.found[result[1]] = "a message's MAC key"

    def _handshake(self, values: tuple[Any, ...], named: dict[str, Any], result: Any) -> None:
        exchanges, kem_secret = values
        for secret in (*exchanges, kem_secret):
            self.found[secret] = "a handshake's secret"

    def in_pages(self, pages: bytes) -> list[str]:
        return sorted({what for key, what in self.found.items() if key in pages})


def spent_prekeys(before: dict[bytes, bytes], after: Iterable[bytes]) -> list[bytes]:
    """The private bytes of one-time prekeys that are gone: X25519 scalars and ML-KEM seeds."""
    left = set(after)
    return [value for key, value in before.items() if key not in left]


def rows(client: Client, table: str) -> dict[bytes, bytes]:
    with client._driver.vault.transaction() as tx:
        return dict(tx.scan(table))


async def deliver(sender: Client, petname: str, text: str) -> None:
    message = await sender.send(petname, text)
    assert await sender.wait_state(message, "delivered", timeout_s=60) == "delivered"


@pytest.mark.attack(36)
@pytest.mark.parametrize("running", [True, False], ids=["while it runs", "after it closed"])
def test_a_stolen_vault_holds_no_key_of_the_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: bool
) -> None:
    async def body(place: Town) -> None:
        alice, bob = await place.join("alice"), await place.join("bob")
        await alice.add_contact("bob", name="bob")
        await bob.add_contact("alice", name="alice")
        before = rows(bob, PREKEY)
        loaded = watch_private_keys(monkeypatch)
        canaries = Canaries(monkeypatch)
        for number in range(6):
            await deliver(alice, "bob", f"{number} there")
            await deliver(bob, "alice", f"{number} and back")
        await bob.settle(20)
        await alice.settle(20)
        spent = spent_prekeys(before, rows(bob, PREKEY))
        assert spent, "a one-time pair was used"
        used = {private for private in loaded if any(private in value for value in spent)}
        assert len(used) >= 2, "an X25519 scalar and an ML-KEM seed"
        now = {
            who: b"".join(rows(client, SESSION).values()) for who, client in (("alice", alice), ("bob", bob))
        }
        for client in (alice, bob):
            if running:
                client._driver.vault.tidy()
            else:
                await client.close()
        kinds = set(canaries.found.values())
        assert len(kinds) == 7
        assert len(canaries.found) > 100
        for who in ("alice", "bob"):
            pages = readable(place.root / who, KEY)
            assert now[who][:200] in pages, "the search works"
            assert canaries.in_pages(pages) == [], who
            assert not [private for private in used if private in pages], who

    async def whole() -> None:
        async with town(tmp_path) as place, asyncio.timeout(240):
            await body(place)

    asyncio.run(whole())


def watch_private_keys(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """The private bytes of every key pair made or loaded from now on."""
    seen: set[bytes] = set()
    for kind in (X25519KeyPair, MLKEMKeyPair):
        honest = kind.__init__

        def made(self: Any, *values: Any, honest: Any = honest, **named: Any) -> None:
            honest(self, *values, **named)
            seen.add(self.private if isinstance(self, X25519KeyPair) else self.seed)

        monkeypatch.setattr(kind, "__init__", made)
    return seen
