"""Write the starting values of each fuzz target to ``corpus/NAME``: ``python fuzz/seeds.py``.

Run it after a format of our own changes. It adds and replaces files, and removes none: fixed crashes stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from lokket.codec import tls
from targets import Colour, Everything, Leaf

CORPUS = Path(__file__).parent / "corpus"


def tls_values() -> Iterator[bytes]:
    leaf = Leaf(7, b"seven")
    yield tls.encode(
        Everything(1, 2**40, True, bytes(16), b"opaque" * 20, (leaf, leaf), (leaf,), 9, Colour.BLUE, leaf)
    )
    yield tls.encode(Everything(255, 0, False, bytes(range(16)), b"", (), (), None, Colour.RED, leaf))


SEEDS = {
    "tls": tls_values,
}


def main() -> None:
    for name, values in SEEDS.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for data in values():
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    main()
