"""Kinds of worlds: how many people, how bad the weather, what breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

from .network import FAIR, Weather


@dataclass(frozen=True)
class Profile:
    name: str
    begin: str = "registered"  # nothing, registered, acquainted
    accounts: int = 2
    texts: tuple[int, int] = (3, 8)
    duration_ms: int = 60_000
    weather: Weather = FAIR
    device_crash: float = 0.0  # per step
    relay_crash: float = 0.0  # per pause at its storage
    partitions: int = 0
    partition_ms: tuple[int, int] = (500, 30_000)
    clock_jumps: int = 0
    clock_reach_s: int = 0
    invites: int = 0
    revocations: int = 0  # of second devices
    recoveries: int = 0  # of admin devices that are lost
    handovers: int = 0  # of the admin role to the other device
    restored_vaults: int = 0
    restored_relays: int = 0
    upkeep_ms: int = 0  # between two upkeeps of the relay; 0: none
    prekey_pairs: int = 6
    patience_ms: int = 2 * 3_600_000  # within which nothing must wait any more
    hostility: float = 0.0  # of the relay: how often it does what it must not

    @property
    def stormy(self) -> bool:
        return bool(
            self.device_crash
            or self.relay_crash
            or self.partitions
            or self.clock_jumps
            or self.hostility
            or self.weather.breaks
            or self.weather.repeats
            or self.restored_vaults
            or self.restored_relays
        )

    def but(self, **changes: Any) -> Profile:
        return replace(self, **changes)


HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
ROUGH: Final = Weather(delay_ms=(1, 400), slow=0.02, breaks=0.02, repeats=0.05)

CALM: Final = Profile("calm", begin="nothing", duration_ms=20_000)
PROFILES: Final = {
    profile.name: profile
    for profile in (
        CALM,
        Profile("fair", begin="registered"),
        Profile("rough", weather=ROUGH, partitions=2),
        Profile("crash", weather=ROUGH, device_crash=0.03, relay_crash=0.004, partitions=1),
        Profile("friends", "acquainted", 2, (4, 10), weather=ROUGH, device_crash=0.02, relay_crash=0.003),
        Profile("birth", "nothing", 2, (3, 6), 90_000, ROUGH, 0.02, 0.003),
        Profile("revoked", "acquainted", 2, (6, 12), weather=ROUGH, device_crash=0.01, revocations=2),
        Profile("recovered", "acquainted", 2, (6, 12), weather=ROUGH, device_crash=0.01, recoveries=2),
        Profile(
            "changing",
            "acquainted",
            3,
            (8, 14),
            weather=ROUGH,
            device_crash=0.01,
            relay_crash=0.002,
            partitions=2,
            revocations=1,
            recoveries=2,
        ),
        Profile("handed", "acquainted", 2, (6, 12), weather=ROUGH, device_crash=0.01, handovers=2),
        Profile(
            "older-vault",
            "acquainted",
            2,
            (8, 16),
            weather=ROUGH,
            device_crash=0.01,
            restored_vaults=2,
            patience_ms=50 * HOUR_MS,
        ),
        Profile(
            "older-relay",
            "acquainted",
            2,
            (8, 16),
            weather=ROUGH,
            device_crash=0.01,
            relay_crash=0.002,
            invites=1,
            revocations=1,
            handovers=1,
            restored_relays=2,
            patience_ms=50 * HOUR_MS,
        ),
        Profile(
            "upheaval",
            "acquainted",
            3,
            (10, 18),
            weather=ROUGH,
            device_crash=0.01,
            relay_crash=0.002,
            partitions=2,
            revocations=1,
            recoveries=1,
            handovers=2,
            restored_vaults=1,
            patience_ms=50 * HOUR_MS,
        ),
        Profile(
            "decades",
            "acquainted",
            2,
            (8, 16),
            3 * HOUR_MS,
            Weather(delay_ms=(1, 400), slow=0.02, breaks=0.005, repeats=0.02),
            0.002,
            0.001,
            partitions=4,
            partition_ms=(60_000, HOUR_MS),
            clock_jumps=6,
            clock_reach_s=3_650 * 86_400,
            upkeep_ms=600_000,
            patience_ms=50 * HOUR_MS,
        ),
        Profile("invites", invites=6, weather=ROUGH, device_crash=0.01),
        Profile("drained", prekey_pairs=1, weather=ROUGH, device_crash=0.02),
        Profile(
            "hostile",
            "acquainted",
            2,
            (5, 10),
            60_000,
            ROUGH,
            0.01,
            0.002,
            hostility=0.02,
            patience_ms=50 * HOUR_MS,
        ),
        Profile("clocks", clock_jumps=5, clock_reach_s=3 * 86_400, weather=ROUGH),
        Profile("crowd", "acquainted", 4, (4, 8), weather=ROUGH, device_crash=0.01, relay_crash=0.002),
        Profile(
            "weeks",
            "acquainted",
            2,
            (25, 35),
            24 * DAY_MS,
            Weather(breaks=0.01),
            partitions=4,
            partition_ms=(DAY_MS, 9 * DAY_MS),
            patience_ms=DAY_MS,
        ),
        Profile("long", "acquainted", 2, (250, 250), 600_000, Weather(breaks=0.003, repeats=0.01)),
    )
}
MIX: Final = (
    ("fair", 1),
    ("rough", 3),
    ("crash", 5),
    ("friends", 6),
    ("birth", 1),
    ("invites", 2),
    ("drained", 1),
    ("clocks", 2),
    ("crowd", 1),
    ("hostile", 3),
)
CHANGING: Final = (
    "revoked",
    "recovered",
    "handed",
    "older-vault",
    "older-relay",
    "changing",
    "decades",
    "older-vault",
    "upheaval",
)


def of_seed(seed: int) -> Profile:
    """The kind of world that a seed means when none is named: in every third something lasting happens."""
    if seed % 3 == 1:
        return PROFILES[CHANGING[seed // 3 % len(CHANGING)]]
    names = [name for name, weight in MIX for _ in range(weight)]
    return PROFILES[Random(f"profile {seed}").choice(names)]
