"""Sender keys: what arrives, what is refused, and that work and memory are bounded (rows 20, 21, 23, 36)."""

from __future__ import annotations

import random

import pytest

from lokket import limits
from lokket.crypto.primitives import aes_cbc_encrypt
from lokket.crypto.xeddsa import IdentityKeyPair
from lokket.errors import (
    DecodeError,
    DecryptionFailed,
    DuplicateMessage,
    KeyRefused,
    LocalError,
    RemoteError,
    SignatureRefused,
)
from lokket.protocol import sender_keys
from lokket.protocol.pairwise import Work
from lokket.protocol.sender_keys import OwnSenderKey, SenderKeys
from tests.support import protobuf as lenient
from tests.support.entropy import SeededEntropy

GROUP = bytes(range(16))


def pair(seed: str = "sender") -> tuple[OwnSenderKey, SenderKeys]:
    own = sender_keys.create(GROUP, SeededEntropy(seed))
    return own, sender_keys.process(None, sender_keys.distribution_message(own))


def sent(own: OwnSenderKey, count: int) -> tuple[OwnSenderKey, list[bytes]]:
    messages = []
    for number in range(count):
        own, message = sender_keys.encrypt(own, b"%d" % number)
        messages.append(message)
    return own, messages


def refused(record: SenderKeys, message: bytes, kind: type[RemoteError], steps: int = 0) -> RemoteError:
    """The refusal, after ``steps`` chain steps at most, with the record as it was."""
    before, work = record.encode(), Work()
    with pytest.raises(kind) as error:
        sender_keys.decrypt(record, message, work)
    assert record.encode() == before
    assert work.chain_steps <= steps
    return error.value


def signed(own: OwnSenderKey, fields: list[lenient.Field], version: bytes = b"\x33") -> bytes:
    body = version + lenient.write(fields)
    return body + IdentityKeyPair(own.signing_seed).sign(body)


def fields_of(message: bytes) -> dict[int, int | bytes]:
    return dict(lenient.read(message[1:-64]))


@pytest.mark.parametrize("seed", range(5))
def test_messages_open_once_in_any_order_from_stored_state(seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    own, record = pair()
    _, messages = sent(own, 40)
    order = list(range(40))
    chance.shuffle(order)
    for number in order:
        record, plaintext = sender_keys.decrypt(SenderKeys.decode(record.encode()), messages[number])
        assert plaintext == b"%d" % number
        refused(record, messages[number], DuplicateMessage)


@pytest.mark.attack(36)
def test_who_comes_later_reads_from_then_on_alone() -> None:
    own, early = pair()
    own, before = sent(own, 3)
    late = sender_keys.process(None, sender_keys.distribution_message(own))
    own, after = sent(own, 1)
    for message in before:
        refused(late, message, DuplicateMessage)
    late, plaintext = sender_keys.decrypt(late, after[0])
    early, same = sender_keys.decrypt(early, after[0])
    assert plaintext == same == b"0"


@pytest.mark.attack(36)
def test_no_used_key_stays_in_a_record() -> None:
    own, record = pair()
    used = set()
    for _ in range(20):
        used.add(own.chain_key)
        used.add(sender_keys._chain_step(own.chain_key)[1])
        own, message = sender_keys.encrypt(own, b"x")
        record, _ = sender_keys.decrypt(record, message)
    for stored in (own.encode(), record.encode()):
        assert not [key for key in used if key in stored]


@pytest.mark.attack(20, 21)
@pytest.mark.parametrize("iteration", [limits.SKIP_AHEAD_MAX + 1, 2**31, 2**32 - 1])
def test_an_iteration_too_far_ahead_costs_no_step(iteration: int) -> None:
    own, record = pair()
    _, (message,) = sent(own, 1)
    ahead = signed(own, sorted((fields_of(message) | {3: iteration}).items()))
    assert refused(record, ahead, DecryptionFailed).code == "too-far-ahead"
    forged = ahead[:-1] + bytes((ahead[-1] ^ 1,))
    refused(record, forged, SignatureRefused)


@pytest.mark.attack(20)
def test_skipped_seeds_are_bounded_and_the_oldest_go() -> None:
    own, record = pair()
    own, first = sent(own, limits.SKIP_AHEAD_MAX)
    work = Work()
    record, _ = sender_keys.decrypt(record, first[-1], work)
    assert work.chain_steps == limits.SKIP_AHEAD_MAX
    own, second = sent(own, 500)
    record, _ = sender_keys.decrypt(record, second[-1])
    assert len(record.chains[0].late) == limits.SKIPPED_KEYS_MAX * 36
    refused(record, first[0], DuplicateMessage)
    record, plaintext = sender_keys.decrypt(SenderKeys.decode(record.encode()), first[-2])
    assert plaintext == b"%d" % (limits.SKIP_AHEAD_MAX - 2)


@pytest.mark.attack(21)
def test_a_forgery_is_refused_before_any_derivation() -> None:
    own, record = pair()
    _, messages = sent(own, 30)
    message = messages[29]
    for bit in range(8 * len(message)):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        refused(record, bytes(changed), RemoteError)
    for size in range(len(message)):
        refused(record, message[:size], RemoteError)
    assert sender_keys.decrypt(record, message)[1] == b"29"


def test_a_member_cannot_speak_for_another() -> None:
    """Who has the chain key, as every member does, still lacks the signing key."""
    own, record = pair()
    _, (message,) = sent(own, 1)
    forged = OwnSenderKey(1, own.distribution, own.chain_id, 0, own.chain_key, b"\x09" * 32)
    refused(record, sender_keys.encrypt(forged, b"not mine")[1], SignatureRefused)
    changed = sender_keys.distribution_message(forged)
    with pytest.raises(DecryptionFailed) as error:
        sender_keys.process(record, changed)
    assert error.value.code == "other-signing-key"
    assert sender_keys.decrypt(record, message)[1] == b"0"


def test_a_distribution_that_is_known_does_not_turn_back() -> None:
    own, record = pair()
    again = sender_keys.distribution_message(own)
    _, messages = sent(own, 2)
    record, _ = sender_keys.decrypt(record, messages[0])
    record = sender_keys.process(record, again)
    refused(record, messages[0], DuplicateMessage)


def test_five_chains_are_kept_the_oldest_goes() -> None:
    owners, record = [], None
    for number in range(limits.SENDER_KEY_STATES_MAX + 1):
        own = sender_keys.create(GROUP, SeededEntropy(f"chain {number}"))
        owners.append(own)
        record = sender_keys.process(record, sender_keys.distribution_message(own))
    assert record is not None
    assert len(record.chains) == limits.SENDER_KEY_STATES_MAX
    assert refused(record, sent(owners[0], 1)[1][0], DecryptionFailed).code == "unknown-chain"
    for own in owners[1:]:
        record, _ = sender_keys.decrypt(record, sent(own, 1)[1][0])


def test_of_another_distribution() -> None:
    _, record = pair()
    other = sender_keys.create(bytes(16), SeededEntropy("other"))
    assert refused(record, sent(other, 1)[1][0], DecryptionFailed).code == "other-distribution"
    with pytest.raises(DecodeError):
        sender_keys.process(record, sender_keys.distribution_message(other))


@pytest.mark.attack(33)
def test_an_insiders_bad_padding_is_a_refusal_too() -> None:
    own, record = pair()
    iv, key = sender_keys._message_key(sender_keys._chain_step(own.chain_key)[1])
    whole = aes_cbc_encrypt(key, iv, bytes(15))
    for ciphertext in (b"", b"x", whole[:-1], bytes(16)):
        message = signed(own, [(1, GROUP), (2, own.chain_id), (3, 0), (4, ciphertext)])
        assert refused(record, message, DecryptionFailed, steps=1).code == "bad-padding"


@pytest.mark.attack(16)
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_fields_missing_twice_or_of_another_type(number: int) -> None:
    own, record = pair()
    _, (message,) = sent(own, 1)
    fields = lenient.read(message[1:-64])
    other: int | bytes = 7 if isinstance(fields[number - 1][1], bytes) else b"7"
    for wrong in (
        [field for field in fields if field[0] != number],
        [*fields, fields[number - 1]],
        [(n, other if n == number else value) for n, value in fields],
    ):
        refused(record, signed(own, wrong), DecodeError)


@pytest.mark.attack(16)
@pytest.mark.parametrize(
    "changes",
    [{1: bytes(15)}, {2: None}, {2: 2**32}, {3: None}, {4: bytes(31)}, {5: None}, {5: b"\x05" + bytes(32)},
     {5: b"\x08" + bytes(range(32))}],
)  # fmt: skip
def test_distributions_refused(changes: dict[int, int | bytes | None]) -> None:
    own, _ = pair()
    good = sender_keys.distribution_message(own)
    with pytest.raises((DecodeError, KeyRefused)):
        sender_keys.process(None, b"\x33" + lenient.replaced(good[1:], changes))


def test_other_versions_and_lengths() -> None:
    own, record = pair()
    _, (message,) = sent(own, 1)
    refused(record, signed(own, lenient.read(message[1:-64]), b"\x34"), DecodeError)
    refused(record, b"\x33" + bytes(limits.SENDER_KEY_MESSAGE_MAX_BYTES), DecodeError)
    with pytest.raises(DecodeError):
        sender_keys.process(None, b"\x44" + sender_keys.distribution_message(own)[1:])


def test_stored_bytes_are_canonical_and_versioned() -> None:
    own, record = pair()
    _, messages = sent(own, 9)
    record, _ = sender_keys.decrypt(record, messages[8])
    for kind, data in ((SenderKeys, record.encode()), (OwnSenderKey, own.encode())):
        assert kind.decode(data).encode() == data
        for wrong in (b"", b"\x02" + data[1:], data[:-1], data + b"\x00"):
            with pytest.raises(DecodeError):
                kind.decode(wrong)
    odd = SenderKeys(1, GROUP, (sender_keys.Chain(1, b"\x05" * 33, 0, bytes(32), bytes(35)),))
    with pytest.raises(DecodeError):
        SenderKeys.decode(odd.encode())


def test_nothing_shows_a_secret() -> None:
    own, record = pair()
    shown = f"{own!r}{record!r}{record.chains!r}" + repr(
        sender_keys.decode_distribution(sender_keys.distribution_message(own))
    )
    assert own.chain_key.hex() not in shown
    assert repr(own.chain_key)[2:-1] not in shown


def test_our_own_misuse() -> None:
    own, _ = pair()
    with pytest.raises(LocalError):
        sender_keys.create(bytes(15), SeededEntropy("x"))
    with pytest.raises(LocalError):
        sender_keys.encrypt(own, bytes(limits.SENDER_KEY_MESSAGE_MAX_BYTES))
    spent = OwnSenderKey(1, GROUP, own.chain_id, 2**32 - 1, own.chain_key, own.signing_seed)
    with pytest.raises(LocalError):
        sender_keys.encrypt(spent, b"x")
