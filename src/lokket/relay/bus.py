"""The bus rings: "this device has mail". It carries none, so a lost ring costs latency and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Callback = Callable[[], None]


class Bus(Protocol):
    def subscribe(self, device_hash: bytes, callback: Callback) -> None:
        """``callback`` is called at each ring, and soon: it only marks, it does not work."""

    def unsubscribe(self, device_hash: bytes, callback: Callback) -> None: ...

    def ring(self, device_hash: bytes) -> None: ...


class LocalBus:
    """Rings inside one process."""

    def __init__(self) -> None:
        self._callbacks: dict[bytes, list[Callback]] = {}

    def subscribe(self, device_hash: bytes, callback: Callback) -> None:
        self._callbacks.setdefault(device_hash, []).append(callback)

    def unsubscribe(self, device_hash: bytes, callback: Callback) -> None:
        callbacks = self._callbacks.get(device_hash, [])
        if callback in callbacks:
            callbacks.remove(callback)
        if not callbacks:
            self._callbacks.pop(device_hash, None)

    def ring(self, device_hash: bytes) -> None:
        for callback in tuple(self._callbacks.get(device_hash, ())):
            callback()
