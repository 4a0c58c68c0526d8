"""Write the starting values of fuzz targets to ``corpus/NAME``: ``python fuzz/seeds.py [NAME ...]``.

Run it after a format of our own changes. It adds and replaces files, and removes none: fixed crashes stay.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
sys.path[:0] = [str(HERE), str(HERE.parent)]

import targets  # noqa: E402
from fuzz import archives, daemon, frames, identity, mls, mls_groups, sealing, sessions  # noqa: E402
from lokket.codec import tls  # noqa: E402
from lokket.protocol import fingerprint  # noqa: E402


def tls_values() -> Iterator[bytes]:
    leaf, colour = targets.Leaf(7, b"seven"), targets.Colour
    everything = targets.Everything
    long = b"opaque" * 20
    yield tls.encode(everything(1, 2**40, True, bytes(16), long, (leaf, leaf), (leaf,), 9, colour.BLUE, leaf))
    yield tls.encode(everything(255, 0, False, bytes(range(16)), b"", (), (), None, colour.RED, leaf))


def fingerprints() -> Iterator[bytes]:
    keys = b"\x05" + bytes(32)
    yield fingerprint.scannable(2, b"their", keys, b"own", keys, 1)
    yield fingerprint.scannable(2, b"another", keys, b"own", keys, 1)


SEEDS = {
    "tls": tls_values,
    "fingerprint": fingerprints,
    **sessions.SEEDS,
    **sealing.SEEDS,
    **identity.SEEDS,
    **frames.SEEDS,
    **archives.SEEDS,
    **mls.SEEDS,
    **mls_groups.SEEDS,
    **daemon.SEEDS,
}


def main() -> None:
    for name in sys.argv[1:] or SEEDS:
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for data in SEEDS[name]():
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


if __name__ == "__main__":
    main()
