"""doubleratchet and x3dh in their recommended suite (HMAC, AES-CBC) on the workloads of bench/README.md."""

from __future__ import annotations

import asyncio
import json
import os
from time import perf_counter_ns
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bench.harness import CHAIN, SETUPS, Workloads, emit, missing

try:
    import doubleratchet
    import x3dh
    from doubleratchet.recommended import (
        HashFunction,
        aead_aes_hmac,
        diffie_hellman_ratchet_curve25519,
        kdf_hkdf,
        kdf_separate_hmacs,
    )
except ImportError as error:
    missing(error)

TEXT, ASSOCIATED = os.urandom(100), os.urandom(64)


class Ratchet(doubleratchet.DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Any) -> bytes:
        lengths = (header.sending_chain_length, header.previous_sending_chain_length)
        return (
            associated_data + header.ratchet_pub + b"".join(length.to_bytes(8, "big") for length in lengths)
        )


class Root(kdf_hkdf.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"bench root"


class Chain(kdf_separate_hmacs.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


class Seal(aead_aes_hmac.AEAD):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"bench aead"


class Agreement(x3dh.BaseState):
    @staticmethod
    def _encode_public_key(key_format: Any, pub: bytes) -> bytes:
        return pub


SUITE = {
    "diffie_hellman_ratchet_class": diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet,
    "root_chain_kdf": Root,
    "message_chain_kdf": Chain,
    "message_chain_constant": b"\x02\x01",
    "dos_protection_threshold": 1000,
    "max_num_skipped_message_keys": 1000,
    "aead": Seal,
}


def stored(session: Ratchet) -> str:
    return json.dumps(session.json)


def restored(text: str) -> Ratchet:
    return Ratchet.from_json(json.loads(text), **SUITE)


async def pair() -> tuple[Ratchet, Ratchet]:
    """Two sessions after one message each way."""
    key, secret = X25519PrivateKey.generate(), os.urandom(32)
    first, message = await Ratchet.encrypt_initial_message(
        shared_secret=secret,
        recipient_ratchet_pub=key.public_key().public_bytes_raw(),
        message=TEXT,
        associated_data=ASSOCIATED,
        **SUITE,
    )
    second, _ = await Ratchet.decrypt_initial_message(
        shared_secret=secret,
        own_ratchet_priv=key.private_bytes_raw(),
        message=message,
        associated_data=ASSOCIATED,
        **SUITE,
    )
    await first.decrypt_message(await second.encrypt_message(TEXT, ASSOCIATED), ASSOCIATED)
    return first, second


async def oneway(timed: Workloads, count: int) -> None:
    sender, receiver = await pair()
    with timed("oneway_encrypt", count):
        sent = [await sender.encrypt_message(TEXT, ASSOCIATED) for _ in range(count)]
    with timed("oneway_decrypt", count):
        for message in sent:
            await receiver.decrypt_message(message, ASSOCIATED)
    with timed("oneway_encrypt_saveonly", count):
        for _ in range(count):
            await sender.encrypt_message(TEXT, ASSOCIATED)
            stored(sender)


async def oneway_persist(timed: Workloads, count: int) -> None:
    sending, receiving = (stored(session) for session in await pair())
    sent = []
    with timed("oneway_encrypt_persist", count):
        for _ in range(count):
            session = restored(sending)
            sent.append(await session.encrypt_message(TEXT, ASSOCIATED))
            sending = stored(session)
    with timed("oneway_decrypt_persist", count):
        for message in sent:
            session = restored(receiving)
            await session.decrypt_message(message, ASSOCIATED)
            receiving = stored(session)


async def pingpong(timed: Workloads, count: int) -> None:
    sender, receiver = await pair()
    encrypting = decrypting = 0
    begun = perf_counter_ns()
    for _ in range(count):
        start = perf_counter_ns()
        message = await sender.encrypt_message(TEXT, ASSOCIATED)
        middle = perf_counter_ns()
        await receiver.decrypt_message(message, ASSOCIATED)
        decrypting += perf_counter_ns() - middle
        encrypting += middle - start
        sender, receiver = receiver, sender
    timed.add("pingpong_message", perf_counter_ns() - begun, count)
    timed.add("pingpong_encrypt", encrypting, count)
    timed.add("pingpong_decrypt", decrypting, count)


async def pingpong_persist(timed: Workloads, count: int) -> None:
    sender, receiver = (stored(session) for session in await pair())
    with timed("pingpong_message_persist", count):
        for _ in range(count):
            session = restored(sender)
            message = await session.encrypt_message(TEXT, ASSOCIATED)
            sender = stored(session)
            session = restored(receiver)
            await session.decrypt_message(message, ASSOCIATED)
            receiver = stored(session)
            sender, receiver = receiver, sender


async def reversed_blocks(timed: Workloads, count: int, block: int) -> None:
    sender, receiver = await pair()
    blocks, total = max(1, count // block), 0
    for _ in range(blocks):
        sent = [await sender.encrypt_message(TEXT, ASSOCIATED) for _ in range(block)][::-1]
        start = perf_counter_ns()
        for message in sent:
            await receiver.decrypt_message(message, ASSOCIATED)
        total += perf_counter_ns() - start
    timed.add(f"ooo{block}_decrypt", total, blocks * block)


def agreement() -> Agreement:
    return Agreement.create(x3dh.IdentityKeyFormat.CURVE_25519, x3dh.HashFunction.SHA_256, b"bench x3dh")


async def setup(timed: Workloads, count: int) -> None:
    initiators, responders = [agreement() for _ in range(count)], [agreement() for _ in range(count)]
    with timed("setup_bundle", count):
        for party in responders:
            party.generate_pre_keys(1)
    bundles = [party.bundle for party in responders]
    sent = []
    with timed("setup_initiate", count):
        for party, bundle in zip(initiators, bundles, strict=True):
            secret, associated, header = await party.get_shared_secret_active(bundle)
            _, message = await Ratchet.encrypt_initial_message(
                shared_secret=secret,
                recipient_ratchet_pub=bundle.signed_pre_key,
                message=TEXT,
                associated_data=associated,
                **SUITE,
            )
            sent.append((header, message))
    with timed("setup_accept", count):
        for party, (header, message) in zip(responders, sent, strict=True):
            secret, associated, signed = await party.get_shared_secret_passive(header)
            await Ratchet.decrypt_initial_message(
                shared_secret=secret,
                own_ratchet_priv=signed.priv,
                message=message,
                associated_data=associated,
                **SUITE,
            )


async def everything(timed: Workloads, count: int, setups: int) -> None:
    await oneway(timed, count)
    await oneway_persist(timed, count)
    await pingpong(timed, count)
    await pingpong_persist(timed, count)
    await reversed_blocks(timed, count, 100)
    await reversed_blocks(timed, count, 40)
    await setup(timed, setups)


async def main() -> None:
    await everything(Workloads(), max(2, CHAIN // 10), max(2, SETUPS // 2))
    workloads = Workloads()
    await everything(workloads, CHAIN, SETUPS)
    emit("doubleratchet", ("doubleratchet", "x3dh", "cryptography"), workloads)


if __name__ == "__main__":
    asyncio.run(main())
