"""What the primitives cost when Python calls them: the floor where floor.c cannot be compiled."""

from __future__ import annotations

import hmac
import os
import statistics
from collections.abc import Callable
from time import perf_counter_ns

import cryptography
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM1024PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

_ROUNDS = 9
_TEXT = os.urandom(112)  # 100 bytes, padded
_BODY = os.urandom(264)  # two identities and a message, under its MAC


def operations() -> dict[str, Callable[[], object]]:
    key, initial = os.urandom(32), os.urandom(16)
    own, peer = X25519PrivateKey.generate(), X25519PrivateKey.generate().public_key()
    private = own.private_bytes_raw()
    signing = Ed25519PrivateKey.generate()
    public, signature = signing.public_key(), signing.sign(_TEXT[:33])
    seed = os.urandom(64)
    kem768, kem1024 = MLKEM768PrivateKey.generate(), MLKEM1024PrivateKey.generate()
    public768, public1024 = kem768.public_key(), kem1024.public_key()
    (_, ciphertext768), (_, ciphertext1024) = public768.encapsulate(), public1024.encapsulate()
    cipher = Cipher(algorithms.AES256(key), modes.CBC(initial))
    return {
        "hmac": lambda: hmac.digest(key, _TEXT[:32], "sha256"),
        "hmac_body": lambda: hmac.digest(key, _BODY, "sha256"),
        "aes_cbc": lambda: cipher.encryptor().update(_TEXT),
        "x25519_load": lambda: X25519PrivateKey.from_private_bytes(private),
        "x25519_exchange": lambda: own.exchange(peer),
        "ed25519_verify": lambda: public.verify(signature, _TEXT[:33]),
        "mlkem768_generate": lambda: MLKEM768PrivateKey.from_seed_bytes(seed),
        "mlkem768_encapsulate": public768.encapsulate,
        "mlkem768_decapsulate": lambda: kem768.decapsulate(ciphertext768),
        "mlkem1024_encapsulate": public1024.encapsulate,
        "mlkem1024_decapsulate": lambda: kem1024.decapsulate(ciphertext1024),
    }


def measure(rounds: int = _ROUNDS, target_ns: float = 5e6) -> dict[str, float]:
    """Median ns of each primitive, all of them in turn in every round."""
    timed = operations()
    samples: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds + 1):  # the first finds out how often to repeat
        for name, operation in timed.items():
            count = max(4, int(target_ns / samples[name][-1])) if samples[name] else 4
            start = perf_counter_ns()
            for _ in range(count):
                operation()
            samples[name].append((perf_counter_ns() - start) / count)
    return {name: round(statistics.median(values[1:]), 1) for name, values in samples.items()}


def version() -> str:
    return f"cryptography {cryptography.__version__}"
