"""The floor under each workload: the sum of what its primitives cost, with nothing in between.

The counts are the protocol's, so a library that speaks it cannot have fewer: a message takes a Double
Ratchet chain step (2 HMAC), an SPQR chain step (3), its message keys (4), its MAC and AES-256-CBC; a DH step
two exchanges, one key pair and two root steps (3 HMAC each), half of it at either side. The checks that
refuse keys outside the prime-order subgroup are an exchange each.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from bench.pairwise import primitives

_SOURCE: Final = Path(__file__).with_name("floor.c")
_EPOCH_MESSAGES: Final = 88  # of a Braid epoch in ping-pong

_MESSAGE: Final = {"hmac": 9, "hmac_body": 1, "aes_cbc": 1}
_DH_STEP: Final = {"x25519_load": 1, "x25519_exchange": 2, "hmac": 6}
_EPOCH: Final = {
    "mlkem768_generate": 1 / _EPOCH_MESSAGES,
    "mlkem768_encapsulate": 1 / _EPOCH_MESSAGES,
    "mlkem768_decapsulate": 1 / _EPOCH_MESSAGES,
}


def _sum(*parts: Mapping[str, float]) -> dict[str, float]:
    total: dict[str, float] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


COUNTS: Final = {
    "oneway_encrypt": _MESSAGE,
    "oneway_decrypt": _MESSAGE,
    "ooo100_decrypt": _MESSAGE,
    "pingpong_message": _sum(_MESSAGE, _MESSAGE, _DH_STEP, _EPOCH),
    # subgroup check of the identity, two signatures, base and ratchet key, four exchanges and one for the
    # ratchet, the KEM, the Braid's first key; PQXDH, SPQR's start, the Braid's authenticator, a root step
    "setup_initiate": _sum(
        _MESSAGE,
        {"ed25519_verify": 2, "x25519_load": 2, "x25519_exchange": 6, "hmac": 4 + 4 + 3 + 3},
        {"mlkem1024_encapsulate": 1, "mlkem768_generate": 1},
    ),
    # subgroup checks of identity and base key, four exchanges and one for the ratchet, with loaded prekeys
    "setup_accept": _sum(_MESSAGE, {"x25519_exchange": 7, "hmac": 4 + 4 + 3 + 3, "mlkem1024_decapsulate": 1}),
}


def floor() -> tuple[str, dict[str, float]]:
    """(how it was measured, ns by workload)."""
    measured = _compiled()
    if measured is None:
        how = (
            f"sum of primitives through {primitives.version()}: no gcc with OpenSSL 3.5 or newer for floor.c"
        )
        costs = primitives.measure()
    else:
        how, costs = f"sum of C primitives, OpenSSL {measured[0]}", measured[1]
    return how, {
        name: sum(count * costs[primitive] for primitive, count in counts.items())
        for name, counts in COUNTS.items()
    }


def _compiled() -> tuple[str, dict[str, float]] | None:
    """What floor.c says; None where it does not compile."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "floor"
        try:
            command = ["gcc", "-O2", str(_SOURCE), "-lcrypto", "-o", str(program)]
            subprocess.run(command, check=True, capture_output=True)
            run = subprocess.run([program], check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        printed = json.loads(run.stdout)
        return printed["library"], printed["results"]
