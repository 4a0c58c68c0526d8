"""vodozemac's Olm and Megolm sessions on the workloads of bench/README.md (3DH, no post-quantum part)."""

from __future__ import annotations

import os
from time import perf_counter_ns

from bench.harness import CHAIN, MEMBERS, SETUPS, Workloads, emit, missing

try:
    from vodozemac import (
        Account,
        AnyOlmMessage,
        Curve25519PublicKey,
        GroupSession,
        InboundGroupSession,
        MegolmMessage,
        Session,
    )
except ImportError as error:
    missing(error)

TEXT = os.urandom(100)
PICKLE_KEY = os.urandom(32)

Wire = tuple[int, bytes]


def encrypt(session: Session) -> Wire:
    return session.encrypt(TEXT).to_parts()


def decrypt(session: Session, wire: Wire) -> bytes:
    return session.decrypt(AnyOlmMessage.from_parts(*wire))


def restored(pickled: str) -> Session:
    return Session.from_pickle(pickled, PICKLE_KEY)


def pair() -> tuple[Session, Session]:
    """Two sessions after one message each way."""
    first, second = Account(), Account()
    second.generate_one_time_keys(1)
    one_time = next(iter(second.one_time_keys.values()))
    outbound = first.create_outbound_session(second.curve25519_key, one_time)
    opened = outbound.encrypt(TEXT).to_pre_key()
    inbound, _ = second.create_inbound_session(first.curve25519_key, opened)
    decrypt(outbound, encrypt(inbound))
    return outbound, inbound


def oneway(timed: Workloads, count: int) -> None:
    sender, receiver = pair()
    with timed("oneway_encrypt", count):
        sent = [encrypt(sender) for _ in range(count)]
    with timed("oneway_decrypt", count):
        for wire in sent:
            decrypt(receiver, wire)
    timed.facts["wire_bytes_oneway"] = len(sent[-1][1])
    with timed("oneway_encrypt_saveonly", count):
        for _ in range(count):
            encrypt(sender)
            sender.pickle(PICKLE_KEY)


def oneway_persist(timed: Workloads, count: int) -> None:
    sender, receiver = (session.pickle(PICKLE_KEY) for session in pair())
    sent = []
    with timed("oneway_encrypt_persist", count):
        for _ in range(count):
            session = restored(sender)
            sent.append(encrypt(session))
            sender = session.pickle(PICKLE_KEY)
    with timed("oneway_decrypt_persist", count):
        for wire in sent:
            session = restored(receiver)
            decrypt(session, wire)
            receiver = session.pickle(PICKLE_KEY)


def pingpong(timed: Workloads, count: int) -> None:
    sender, receiver = pair()
    encrypting = decrypting = 0
    begun = perf_counter_ns()
    for _ in range(count):
        start = perf_counter_ns()
        wire = encrypt(sender)
        middle = perf_counter_ns()
        decrypt(receiver, wire)
        decrypting += perf_counter_ns() - middle
        encrypting += middle - start
        sender, receiver = receiver, sender
    timed.add("pingpong_message", perf_counter_ns() - begun, count)
    timed.add("pingpong_encrypt", encrypting, count)
    timed.add("pingpong_decrypt", decrypting, count)


def pingpong_persist(timed: Workloads, count: int) -> None:
    sender, receiver = (session.pickle(PICKLE_KEY) for session in pair())
    with timed("pingpong_message_persist", count):
        for _ in range(count):
            session = restored(sender)
            wire = encrypt(session)
            sender = session.pickle(PICKLE_KEY)
            session = restored(receiver)
            decrypt(session, wire)
            receiver = session.pickle(PICKLE_KEY)
            sender, receiver = receiver, sender


def reversed_blocks(timed: Workloads, count: int, block: int) -> None:
    sender, receiver = pair()
    blocks, total = max(1, count // block), 0
    for _ in range(blocks):
        sent = [encrypt(sender) for _ in range(block)][::-1]
        start = perf_counter_ns()
        for wire in sent:
            decrypt(receiver, wire)
        total += perf_counter_ns() - start
    timed.add(f"ooo{block}_decrypt", total, blocks * block)


def setup(timed: Workloads, count: int) -> None:
    accounts = [(Account(), Account()) for _ in range(count)]
    with timed("setup_bundle", count):
        for _, account in accounts:
            account.generate_one_time_keys(1)
    fetched = [
        (account.curve25519_key.to_bytes(), next(iter(account.one_time_keys.values())).to_bytes())
        for _, account in accounts
    ]
    with timed("setup_initiate", count):
        sent = [
            encrypt(account.create_outbound_session(*map(Curve25519PublicKey.from_bytes, keys)))
            for (account, _), keys in zip(accounts, fetched, strict=True)
        ]
    with timed("setup_accept", count):
        for (peer, account), wire in zip(accounts, sent, strict=True):
            account.create_inbound_session(peer.curve25519_key, AnyOlmMessage.from_parts(*wire).to_pre_key())


def group(timed: Workloads, count: int) -> None:
    sender = GroupSession()
    receiver = InboundGroupSession(sender.session_key)
    with timed("group_encrypt", count):
        sent = [sender.encrypt(TEXT).to_bytes() for _ in range(count)]
    with timed("group_decrypt", count):
        for wire in sent:
            receiver.decrypt(MegolmMessage.from_bytes(wire))


def group_persist(timed: Workloads, count: int) -> None:
    sender = GroupSession()
    receiving = InboundGroupSession(sender.session_key).pickle(PICKLE_KEY)
    sending, sent = sender.pickle(PICKLE_KEY), []
    with timed("group_encrypt_persist", count):
        for _ in range(count):
            sender = GroupSession.from_pickle(sending, PICKLE_KEY)
            sent.append(sender.encrypt(TEXT).to_bytes())
            sending = sender.pickle(PICKLE_KEY)
    with timed("group_decrypt_persist", count):
        for wire in sent:
            receiver = InboundGroupSession.from_pickle(receiving, PICKLE_KEY)
            receiver.decrypt(MegolmMessage.from_bytes(wire))
            receiving = receiver.pickle(PICKLE_KEY)


def fanout(timed: Workloads, count: int) -> None:
    senders = [pair()[0] for _ in range(count)]
    for sender in senders:
        encrypt(sender)  # the DH step of the first message is not the fan-out's
    with timed("fanout_pairwise_per_member", count):
        for sender in senders:
            encrypt(sender)
    with timed("fanout_pairwise_per_member_persist", count):
        for sender in senders:
            encrypt(sender)
            sender.pickle(PICKLE_KEY)


def everything(timed: Workloads, count: int, setups: int) -> None:
    oneway(timed, count)
    oneway_persist(timed, count)
    pingpong(timed, count)
    pingpong_persist(timed, count)
    reversed_blocks(timed, count, 40)
    setup(timed, setups)
    group(timed, count)
    group_persist(timed, count)


if __name__ == "__main__":
    everything(Workloads(), max(2, CHAIN // 10), max(2, SETUPS // 2))
    workloads = Workloads()
    everything(workloads, CHAIN, SETUPS)
    if MEMBERS:
        fanout(workloads, MEMBERS)
    emit("vodozemac", ("vodozemac",), workloads)
