"""The network: connections that delay, stall, break and repeat, but keep the order within themselves.

A broken connection loses what is on its way in both directions, and the two ends learn of it at
different times: the relay may see a device twice for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from lokket.wire import api

if TYPE_CHECKING:
    from .device import Device
    from .relay_node import Line
    from .world import World

REPEATED = 1 << 31  # added to the number of a request that the network repeats: nobody waits for its answer


@dataclass(frozen=True)
class Weather:
    """How bad the network is. Rates are per frame."""

    delay_ms: tuple[int, int] = (1, 40)
    slow: float = 0.0  # a frame takes seconds
    breaks: float = 0.0
    repeats: float = 0.0


FAIR = Weather()


class Connection:
    """Between one device and the relay. ``up`` and ``down`` take whole frames as bytes."""

    def __init__(self, world: World, device: Device, number: int) -> None:
        self.world = world
        self.device = device
        self.number = number
        self.line: Line | None = None  # the relay's end, once it has accepted
        self.broken = False
        self._arrival_ms = {"up": 0, "down": 0}

    @property
    def name(self) -> str:
        return f"{self.device.name}#{self.number}"

    def up(self, frame: bytes) -> None:
        """From the device."""
        self._carry("up", frame, self._at_relay)
        weather, random = self.world.weather, self.world.random
        if weather.repeats and random.random() < weather.repeats:
            sent = api.decode_client_frame(frame)
            if isinstance(sent.request, api.Send | api.Acknowledge):
                self.world.log("net", f"{self.name} repeats {type(sent.request).__name__} {sent.number}")
                again = api.ClientFrame(sent.number % REPEATED + REPEATED, sent.request)
                self._carry("up", api.encode(again), self._at_relay)

    def down(self, frame: bytes) -> None:
        """From the relay."""
        self._carry("down", frame, self._at_device)
        weather, random = self.world.weather, self.world.random
        if weather.repeats and random.random() < weather.repeats:
            sent = api.decode_relay_frame(frame)
            if isinstance(sent.message, api.Deliver):
                self.world.log("net", f"{self.name} repeats Deliver")
                self._carry("down", frame, self._at_device)

    def break_off(self, why: str) -> None:
        """Everything on its way is lost. Both ends learn of it, later."""
        if self.broken:
            return
        self.broken = True
        self.world.log("net", f"{self.name} breaks: {why}")
        random = self.world.random
        self.world.clock.after(random.randrange(1, 400), lambda: self.device.lost(self))
        self.world.clock.after(random.randrange(1, 4_000), self._hang_up_relay)

    def close_by_device(self) -> None:
        """The device is gone, without a word."""
        self.broken = True
        self.world.clock.after(self.world.random.randrange(1, 4_000), self._hang_up_relay)

    def close_by_relay(self) -> None:
        """The relay closes when all that it sent has arrived."""
        self._carry("down", b"", lambda _: self.break_off("closed by the relay"))

    def _hang_up_relay(self) -> None:
        if self.line is not None:
            self.line.hang_up()

    def _carry(self, way: str, frame: bytes, arrive: Callable[[bytes], None]) -> None:
        if self.broken:
            return
        world = self.world
        weather, random = world.weather, world.random
        delay_ms = _delay(weather, random)
        if random.random() < weather.breaks:
            world.clock.after(random.randrange(0, 2 * delay_ms + 2), lambda: self.break_off("at random"))
        # TCP: nothing overtakes.
        self._arrival_ms[way] = max(self._arrival_ms[way], world.clock.now_ms + delay_ms)
        world.frames_in_flight += 1

        def arrived() -> None:
            world.frames_in_flight -= 1
            if not self.broken:
                arrive(frame)

        world.clock.at(self._arrival_ms[way], arrived)

    def _at_relay(self, frame: bytes) -> None:
        if self.line is not None:
            self.line.received(frame)

    def _at_device(self, frame: bytes) -> None:
        self.device.received(self, frame)


def _delay(weather: Weather, random: Random) -> int:
    delay_ms = random.randrange(*weather.delay_ms)
    if weather.slow and random.random() < weather.slow:
        delay_ms += random.randrange(500, 8_000)
    return delay_ms
