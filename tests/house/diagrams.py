"""docs/diagrams/*.svg, drawn from the code: the Braid's from its tables, the handshake's from a handshake.

``python -m tests.house.diagrams`` writes them anew. Only where things stand on the page is said here.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Final, NamedTuple
from unittest import mock

from lokket.crypto.keys import X25519KeyPair
from lokket.protocol.pairwise import braid, pqxdh
from lokket.protocol.pairwise import braid_states as states
from tests.house.tree import ROOT
from tests.support.pairwise import Device

FOLDER: Final = ROOT / "docs" / "diagrams"
_WIDTH, _HEIGHT = 250, 44
_STYLE: Final = (
    "<style>text{font:12px sans-serif;fill:#222;stroke:#fff;stroke-width:3;paint-order:stroke}"
    ".name{font-weight:bold;font-size:13px}.small{fill:#555}rect+text,rect+text+text{stroke:none}"
    "rect{fill:#eef2f8;stroke:#4a6288}path{fill:none;stroke:#4a6288;stroke-width:1.4}"
    "</style><defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='8' markerHeight='8' "
    "orient='auto'><path d='M0 0 L8 4 L0 8' style='fill:none'/></marker></defs>"
)

_PLACES: Final[dict[type[states.State], tuple[int, int]]] = {
    states.KeysUnsampled: (30, 70),
    states.KeysDrawn: (30, 155),
    states.KeysSampled: (30, 240),
    states.HeaderSent: (30, 325),
    states.Ct1Received: (30, 400),
    states.EkSentCt1Received: (30, 510),
    states.NoHeaderReceived: (600, 510),
    states.HeaderReceived: (600, 400),
    states.Ct1Sampled: (600, 290),
    states.Ct1Acknowledged: (900, 180),
    states.EkReceivedCt1Sampled: (310, 180),
    states.Ct2Sampled: (600, 70),
}


class Box(NamedTuple):
    x: int
    y: int

    @property
    def middle(self) -> tuple[float, float]:
        return self.x + _WIDTH / 2, self.y + _HEIGHT / 2

    def border_towards(self, other: Box) -> tuple[float, float]:
        """Where the line between the two middles crosses this box."""
        (x, y), (to_x, to_y) = self.middle, other.middle
        across, down = to_x - x, to_y - y
        share = min(
            _WIDTH / 2 / abs(across) if across else 9e9,
            _HEIGHT / 2 / abs(down) if down else 9e9,
        )
        return x + across * share, y + down * share


def braid_svg() -> str:
    """Every state: what it sends, and every transition with its event."""
    assert set(_PLACES) == {kind for kind, _ in braid.TRANSITIONS}, "a state has no place"
    parts = [
        _text(30, 30, "makes the key of the epoch", "name"),
        _text(600, 30, "encapsulates to it", "name"),
    ]
    for (kind, event), row in braid.TRANSITIONS.items():
        parts += _arrow(Box(*_PLACES[kind]), Box(*_PLACES[row.target]), event.value)
    for kind, (x, y) in _PLACES.items():
        parts.append(f"<rect x='{x}' y='{y}' width='{_WIDTH}' height='{_HEIGHT}' rx='6'/>")
        parts.append(_text(x + 10, y + 18, kind.__name__, "name"))
        parts.append(_text(x + 10, y + 35, _sends(kind), "small"))
    return _page(1180, 590, parts)


def _sends(kind: type[states.State]) -> str:
    if kind in braid.ON_SEND and kind not in braid.SENDS:
        return f"on sending: {braid.ON_SEND[kind].name}"
    payload, field = braid.SENDS[kind]
    return f"sends {payload.name}" + (f": chunks of {field}" if field else "")


def _arrow(start: Box, end: Box, label: str) -> list[str]:
    (x, y), (to_x, to_y) = start.border_towards(end), end.border_towards(start)
    line = f"<path d='M{x:.0f} {y:.0f} L{to_x:.0f} {to_y:.0f}' marker-end='url(#tip)'/>"
    words, lines = label.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > 22:
            lines.append("")
        lines[-1] += word + " "
    top = (y + to_y) / 2 - 7 * len(lines) + 10
    beside = (x + to_x) / 2 + 8
    return [line, *(_text(beside, top + 14 * at, part.strip()) for at, part in enumerate(lines))]


def exchanges() -> list[tuple[str, str]]:
    """(A's key, B's key) of each X25519 exchange of a handshake, in the order in which they are hashed."""
    alice, bob = Device("alice"), Device("bob")
    bundle = bob.bundle()
    assert bundle.one_time_prekey is not None
    names = {
        alice.identity.public[1:]: "IK_A",
        bundle.identity_key[1:]: "IK_B",
        bundle.signed_prekey[1:]: "SPK_B",
        bundle.one_time_prekey[1:]: "OPK_B",
    }
    done: list[tuple[str, str]] = []
    real = X25519KeyPair.exchange

    def recorded(pair: X25519KeyPair, public: bytes) -> bytes:
        done.append((names.get(pair.public, "EK_A"), names[public]))
        return real(pair, public)

    with mock.patch.object(X25519KeyPair, "exchange", recorded):
        pqxdh.initiate(alice.identity, bundle, alice.entropy)
    return done


def handshake_svg() -> str:
    """PQXDH: whose key meets whose, and what comes of it."""
    rows = [*exchanges(), ("encapsulate", "KEM_B (ML-KEM-1024)")]
    parts = [_text(60, 30, "Alice, from Bob's bundle", "name"), _text(620, 30, "Bob", "name")]
    for at, (ours, theirs) in enumerate(rows):
        y = 70 + 42 * at
        name = f"DH{at + 1}" if at < len(rows) - 1 else "SS"
        parts += [
            _text(60, y, ours),
            f"<path d='M190 {y - 4} L600 {y - 4}' marker-end='url(#tip)'/>",
            _text(375, y - 10, name, "name"),
            _text(620, y, theirs),
        ]
    y = 70 + 42 * len(rows)
    hashed = " || ".join(["FF × 32", *(f"DH{at + 1}" for at in range(len(rows) - 1)), "SS"])
    parts += [
        f"<rect x='60' y='{y - 10}' width='800' height='56' rx='6'/>",
        _text(76, y + 12, f"HKDF-SHA256( {hashed} )", "name"),
        _text(
            76, y + 33, "root key 32 bytes, chain key 32 bytes, secret of the post-quantum ratchet 32 bytes"
        ),
    ]
    return _page(920, y + 70, parts)


def _text(x: float, y: float, words: str, kind: str = "") -> str:
    return f"<text x='{x:.0f}' y='{y:.0f}'{f' class={kind!r}' if kind else ''}>{escape(words)}</text>"


def _page(width: int, height: int, parts: list[str]) -> str:
    head = f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' role='img'>"
    ground = "<rect width='100%' height='100%' style='fill:#fff;stroke:none'/>"
    return "\n".join([head, _STYLE, ground, *parts, "</svg>", ""])


DRAWINGS: Final = {"braid.svg": braid_svg, "handshake.svg": handshake_svg}


def record(folder: Path = FOLDER) -> None:
    for name, draw in DRAWINGS.items():
        (folder / name).write_text(draw(), encoding="utf-8")


if __name__ == "__main__":
    record()
