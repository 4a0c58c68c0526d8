"""The implementations that are measured: each step gives what it made and the nanoseconds that it took.

lokket and mls-rs run in this process; ts-mls runs in node and says itself how long a step took.
"""

from __future__ import annotations

import base64
import gc
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Protocol, TypeVar

import mls_peers
from bench.groups.world import ENTROPY, SETTINGS, key_package, now_s
from lokket.protocol import mls

Result = TypeVar("Result")


def timed(step: Callable[[], Result]) -> tuple[Result, int]:
    gc.collect()
    start = perf_counter_ns()
    result = step()
    return result, perf_counter_ns() - start


class Driver(Protocol):
    """A client of one implementation, in one group at most."""

    def key_package(self) -> bytes: ...
    def bulk_add(self, key_packages: list[bytes]) -> tuple[tuple[bytes, bytes], int]: ...
    def join(self, welcome: bytes) -> tuple[Any, int]: ...
    def update(self) -> tuple[bytes, int]: ...
    def add(self, key_package: bytes) -> tuple[bytes, int]: ...
    def remove(self, leaf: int, message: bytes) -> tuple[bytes, int]: ...
    def process(self, message: bytes) -> tuple[Any, int]: ...
    def encrypt(self, text: bytes) -> tuple[bytes, int]: ...


class Lokket:
    def __init__(self, name: str) -> None:
        self.own = key_package(name)
        self.group: mls.Group
        self.written = 0  # bytes of rows that the last commit changed

    def key_package(self) -> bytes:
        return self.own.message

    def bulk_add(self, key_packages: list[bytes]) -> tuple[tuple[bytes, bytes], int]:
        """From the bytes of the key packages to commit and Welcome, which checks every signature."""

        def step() -> tuple[mls.Group, mls.Sent]:
            added = [mls.Add(mls.read_key_package(one, SETTINGS, now_s())) for one in key_packages]
            group = mls.create_group(b"own", self.own, SETTINGS, ENTROPY)
            group, sent = group.commit(now_s(), ENTROPY, added)
            return group.merge_pending(now_s()), sent

        (self.group, sent), took = timed(step)
        return (sent.commit, sent.welcome or b""), took

    def join(self, welcome: bytes) -> tuple[Any, int]:
        (self.group, _), took = timed(lambda: mls.join_group(welcome, [self.own], SETTINGS))
        return None, took

    def _commit(self, *proposals: mls.Add | mls.Remove) -> tuple[bytes, int]:
        def step() -> tuple[mls.Group, bytes]:
            group, sent = self.group.commit(now_s(), ENTROPY, proposals)
            return group.merge_pending(now_s()), sent.commit

        (self.group, commit), took = timed(step)
        return commit, took

    def update(self) -> tuple[bytes, int]:
        return self._commit()

    def add(self, key_package: bytes) -> tuple[bytes, int]:
        return self._commit(mls.Add(mls.read_key_package(key_package, SETTINGS, now_s())))

    def remove(self, leaf: int, message: bytes) -> tuple[bytes, int]:
        return self._commit(mls.Remove(leaf))

    def process(self, message: bytes) -> tuple[Any, int]:
        def step() -> mls.Group:
            got = self.group.process(message)
            return got.merge(now_s()) if isinstance(got, mls.StagedCommit) else got[0]

        before = self.group
        self.group, took = timed(step)
        changes = self.group.changes_since(before).items()
        self.written = sum(len(key) + len(value or b"") for key, value in changes)
        return None, took

    def encrypt(self, text: bytes) -> tuple[bytes, int]:
        (self.group, message), took = timed(lambda: self.group.protect(text, ENTROPY))
        return message, took


class MlsRs:
    """The wheel applies its own commit when that comes back: that is part of the step, as ours merges."""

    def __init__(self, name: str) -> None:
        self.peer = mls_peers.MlsRs(name)

    def key_package(self) -> bytes:
        return self.peer.key_package()

    def bulk_add(self, key_packages: list[bytes]) -> tuple[tuple[bytes, bytes], int]:
        self.peer.create()
        return timed(lambda: self.peer.add(*key_packages))

    def join(self, welcome: bytes) -> tuple[Any, int]:
        return timed(lambda: self.peer.join(welcome))

    def update(self) -> tuple[bytes, int]:
        return timed(self.peer.update)

    def add(self, key_package: bytes) -> tuple[bytes, int]:
        (commit, _), took = timed(lambda: self.peer.add(key_package))
        return commit, took

    def remove(self, leaf: int, message: bytes) -> tuple[bytes, int]:
        """Its binding knows members by their messages alone."""
        self.peer.process(message)
        return timed(self.peer.remove_last_sender)

    def process(self, message: bytes) -> tuple[Any, int]:
        return timed(lambda: self.peer.process(message))

    def encrypt(self, text: bytes) -> tuple[bytes, int]:
        return timed(lambda: self.peer.encrypt(text))


class TsMls:
    def __init__(self, process: mls_peers.TsMlsProcess, name: str) -> None:
        self.peer = process.endpoint(name)
        self.peer.call = self._call  # type: ignore[method-assign]
        self._process = process
        self._took_ns = 0

    def _call(self, command: str, **fields: Any) -> dict[str, Any]:
        reply: dict[str, Any] = self._process.call(command, **fields)
        self._took_ns = int(reply["ms"] * 1e6)
        return reply

    def _timed(self, step: Callable[[], Result]) -> tuple[Result, int]:
        result = step()
        return result, self._took_ns

    def key_package(self) -> bytes:
        return self.peer.key_package()

    def bulk_add(self, key_packages: list[bytes]) -> tuple[tuple[bytes, bytes], int]:
        self.peer.create()
        return self._timed(lambda: self.peer.add(*key_packages))

    def join(self, welcome: bytes) -> tuple[Any, int]:
        coded: Any = base64.b64encode(welcome).decode()
        return self._timed(lambda: self.peer.join(coded))

    def update(self) -> tuple[bytes, int]:
        return self._timed(self.peer.update)

    def add(self, key_package: bytes) -> tuple[bytes, int]:
        (commit, _), took = self._timed(lambda: self.peer.add(key_package))
        return commit, took

    def remove(self, leaf: int, message: bytes) -> tuple[bytes, int]:
        return self._timed(lambda: self.peer.remove(leaf))

    def process(self, message: bytes) -> tuple[Any, int]:
        return self._timed(lambda: self.peer.process(message))

    def encrypt(self, text: bytes) -> tuple[bytes, int]:
        return self._timed(lambda: self.peer.encrypt(text))


def available() -> tuple[dict[str, Callable[[str], Driver]], dict[str, str], Callable[[], None]]:
    """(makers of clients by driver, why others are missing, what ends them)."""
    makers: dict[str, Callable[[str], Driver]] = {"lokket": Lokket}
    missing = {}
    ends: list[Callable[[], None]] = []
    if (why := mls_peers.missing_mls_rs()) is None:
        makers["mls-rs"] = MlsRs
    else:
        missing["mls-rs"] = why
    if (why := mls_peers.missing_ts_mls()) is None:
        process = mls_peers.TsMlsProcess()
        makers["ts-mls"] = lambda name: TsMls(process, name)
        ends.append(process.close)
    else:
        missing["ts-mls"] = why
    return makers, missing, lambda: [end() for end in ends] and None
