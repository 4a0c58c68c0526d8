"""Sealed messages: what arrives, and row 54: what is refused, with the session inside unchanged."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace

import pytest

from lokket import limits
from lokket.crypto.xeddsa import IdentityKeyPair
from lokket.errors import DecodeError, KeyRefused, LocalError, RemoteError
from lokket.protocol import sealed
from lokket.protocol.pairwise import Ciphertext, MessageKind, SessionRecord, Work
from lokket.protocol.sealed import Content, ContentKind, Recipient, Verified
from tests.support import pairwise as support
from tests.support import points
from tests.support import protobuf as lenient
from tests.support.pairwise import START_MS, Device
from tests.support.sealed import ROOT, Impostor, certificate

Seal = Callable[..., bytes]
seal_by = pytest.mark.parametrize("seal", [sealed.seal_v1, sealed.seal], ids=["v1", "v2"])


def verified(data: bytes, receiver: Device) -> Verified:
    return sealed.check(sealed.open_sealed(data, receiver.identity), (ROOT.public,), START_MS)


def read(receiver: Device, given: Verified) -> bytes:
    decrypted = sealed.decrypt(
        receiver.record(given.sender), receiver.local, given, receiver.store, START_MS, receiver.entropy
    )
    receiver.records[given.sender] = decrypted.record.encode()
    receiver.spend(decrypted)
    return decrypted.plaintext


def wrapped(seal: Seal, sender: Device, receiver: Device, message: Ciphertext) -> bytes:
    content = Content.of(message, certificate(sender))
    return seal(content, sender.identity, receiver.identity.public, sender.entropy)


def refused(receiver: Device, given: Verified, record: SessionRecord | None) -> RemoteError:
    """The refusal, with the record as it was."""
    before = None if record is None else record.encode()
    work = Work()
    with pytest.raises(RemoteError) as error:
        sealed.decrypt(record, receiver.local, given, receiver.store, START_MS, receiver.entropy, work=work)
    assert (None if record is None else record.encode()) == before
    assert work.chain_steps == 0
    return error.value


@seal_by
def test_a_conversation_under_seal(seal: Seal) -> None:
    alice, bob = support.pair()
    for number in range(5):
        for sender, receiver in ((alice, bob), (bob, alice)):
            plaintext = b"%d" % number * number
            data = wrapped(seal, sender, receiver, sender.send(receiver.address, plaintext))
            assert read(receiver, verified(data, receiver)) == plaintext


def test_content_round_trips() -> None:
    alice = Device("alice")
    for hint in (0, 1, 2, 77):
        for group_id in (None, b"", b"group"):
            for kind in ContentKind:
                content = Content(kind, certificate(alice), b"body", hint, group_id)
                assert sealed.decode_content(content.encode()) == content


def test_sealing_twice_shows_nothing_in_common() -> None:
    alice, bob = support.talking()
    content = Content(ContentKind.WHISPER, certificate(alice), b"the same")
    one, two = (sealed.seal(content, alice.identity, bob.identity.public, alice.entropy) for _ in range(2))
    assert len(one) == len(two)
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 30
    for secret in (alice.identity.public[1:], alice.address.service_id, b"the same"):
        assert secret not in one


# --- who is who ---


@seal_by
@pytest.mark.attack(54)
def test_who_steals_a_certificate_cannot_seal_under_it(seal: Seal) -> None:
    alice, bob = support.talking()
    content = Content.of(alice.send(bob.address, b"x"), certificate(alice))
    with pytest.raises(LocalError):
        seal(content, Device("mallory").identity, bob.identity.public, alice.entropy)
    mallory = Impostor(alice.identity.public, Device("mallory").identity.seed)
    data = seal(content, mallory, bob.identity.public, alice.entropy)
    with pytest.raises(RemoteError):
        sealed.open_sealed(data, bob.identity)
    good = seal(content, alice.identity, bob.identity.public, alice.entropy)
    assert read(bob, verified(good, bob)) == b"x"


@pytest.mark.attack(54)
def test_a_v1_box_under_another_certificate() -> None:
    """Mallory seals as herself, with Alice's certificate inside."""
    alice, bob = support.talking()
    mallory = Device("mallory")
    content = Content.of(alice.send(bob.address, b"x"), certificate(alice))
    claiming = replace(
        content, certificate=replace(content.certificate, identity_key=mallory.identity.public)
    )
    data = sealed.seal_v1(claiming, mallory.identity, bob.identity.public, mallory.entropy)
    with pytest.raises(RemoteError) as error:
        sealed.open_sealed(data, bob.identity)
    assert error.value.code == "not-its-sender"


@seal_by
@pytest.mark.attack(54)
def test_ones_own_certificate_around_anothers_message(seal: Seal) -> None:
    """Mallory, well certified, wraps what she caught from Alice: it is tried in no session of Alice's."""
    alice, bob = support.talking()
    mallory = Device("mallory")
    caught = alice.send(bob.address, b"for Bob")
    data = seal(
        Content.of(caught, certificate(mallory)), mallory.identity, bob.identity.public, mallory.entropy
    )
    given = verified(data, bob)
    assert given.sender == mallory.address
    assert refused(bob, given, bob.record(given.sender)).code == "no-session"
    with pytest.raises(LocalError):
        sealed.decrypt(bob.record(alice.address), bob.local, given, bob.store, START_MS, bob.entropy)
    assert read(bob, verified(wrapped(seal, alice, bob, caught), bob)) == b"for Bob"


@seal_by
@pytest.mark.attack(54)
def test_a_first_message_under_anothers_certificate(seal: Seal) -> None:
    alice, bob = support.pair()
    mallory = Device("mallory")
    first = alice.send(bob.address, b"first")
    data = seal(
        Content.of(first, certificate(mallory)), mallory.identity, bob.identity.public, mallory.entropy
    )
    assert refused(bob, verified(data, bob), None).code == "other-identity"
    assert bob.store.one_time
    assert read(bob, verified(wrapped(seal, alice, bob, first), bob)) == b"first"


@seal_by
@pytest.mark.attack(54)
def test_a_server_that_certifies_another_key_for_a_known_device(seal: Seal) -> None:
    """The worst a server can do: the session's identity key decides, not its word."""
    alice, bob = support.talking()
    mallory = Device("mallory")
    mallory.local = replace(mallory.local, address=alice.address)
    message = alice.send(bob.address, b"x")
    data = seal(
        Content.of(message, certificate(mallory)), mallory.identity, bob.identity.public, mallory.entropy
    )
    assert refused(bob, verified(data, bob), bob.record(alice.address)).code == "other-identity"


@seal_by
@pytest.mark.attack(54)
def test_ones_own_message_comes_back(seal: Seal) -> None:
    alice, _ = support.talking()
    twin = Device("twin")
    twin.local = replace(twin.local, address=alice.address)
    message = Ciphertext(MessageKind.WHISPER, b"\x44")
    data = seal(Content.of(message, certificate(twin)), twin.identity, alice.identity.public, twin.entropy)
    assert refused(alice, verified(data, alice), None).code == "own-message"


@pytest.mark.parametrize("kind", [ContentKind.SENDER_KEY, ContentKind.PLAINTEXT])
def test_what_is_no_message_of_a_session(kind: ContentKind) -> None:
    """libsignal's unencrypted notices among it: opened, and never acted on."""
    alice, bob = support.talking()
    content = Content(kind, certificate(alice), alice.send(bob.address, b"x").body)
    data = sealed.seal(content, alice.identity, bob.identity.public, alice.entropy)
    assert refused(bob, verified(data, bob), bob.record(alice.address)).code == "not-pairwise"


@seal_by
@pytest.mark.attack(54)
def test_an_expired_certificate_opens_and_is_not_verified(seal: Seal) -> None:
    alice, bob = support.talking()
    content = Content.of(alice.send(bob.address, b"x"), certificate(alice, START_MS - 86_400_000))
    data = seal(content, alice.identity, bob.identity.public, alice.entropy)
    opened = sealed.open_sealed(data, bob.identity)
    with pytest.raises(RemoteError) as error:
        sealed.check(opened, (ROOT.public,), START_MS)
    assert error.value.code == "certificate-expired"
    with pytest.raises(RemoteError):
        sealed.check(opened, (ROOT.public,), 0, revoked={7})


# --- bytes ---


@seal_by
@pytest.mark.attack(54)
def test_every_byte_counts_and_every_cut_is_refused(seal: Seal) -> None:
    alice, bob = support.talking()
    data = wrapped(seal, alice, bob, alice.send(bob.address, b"x"))
    for place in range(len(data)):
        spoiled = bytearray(data)
        spoiled[place] ^= 1
        with pytest.raises(RemoteError):
            sealed.open_sealed(bytes(spoiled), bob.identity)
        with pytest.raises(RemoteError):
            sealed.open_sealed(data[:place], bob.identity)
    with pytest.raises(RemoteError):
        sealed.open_sealed(data + b"\x00", bob.identity)


@seal_by
def test_it_opens_for_its_recipient_alone(seal: Seal) -> None:
    alice, bob = support.talking()
    data = wrapped(seal, alice, bob, alice.send(bob.address, b"x"))
    for other in (alice, Device("carol")):
        with pytest.raises(RemoteError) as error:
            sealed.open_sealed(data, other.identity)
        assert error.value.code == "not-sealed-to-us"


@pytest.mark.attack(1)
@pytest.mark.parametrize("point", points.LOW_ORDER_X25519, ids=lambda point: point.hex()[:8])
def test_ephemeral_keys_of_low_order(point: bytes) -> None:
    bob = Device("bob")
    for data in (
        b"\x22" + bytes(48) + point + bytes(40),
        b"\x11" + lenient.write([(1, b"\x05" + point), (2, bytes(43)), (3, bytes(99))]),
    ):
        with pytest.raises(RemoteError):
            sealed.open_sealed(data, bob.identity)


@pytest.mark.parametrize("recipient", [b"\x05" + bytes(32), b"\x05" + bytes(31), b"\x08" + bytes(32), b""])
def test_a_recipients_key_is_checked(recipient: bytes) -> None:
    alice = Device("alice")
    content = Content(ContentKind.WHISPER, certificate(alice), b"x")
    for seal in (sealed.seal, sealed.seal_v1):
        with pytest.raises(KeyRefused):
            seal(content, alice.identity, recipient, alice.entropy)
    with pytest.raises(KeyRefused):
        sealed.seal_to_many(
            content, alice.identity, [Recipient(bytes(16), recipient, ((1, 1),))], alice.entropy
        )


@pytest.mark.parametrize("version", [0x00, 0x10, 0x12, 0x21, 0x23, 0x33, 0x44])
def test_other_versions(version: int) -> None:
    alice, bob = support.talking()
    data = wrapped(sealed.seal, alice, bob, alice.send(bob.address, b"x"))
    with pytest.raises(DecodeError):
        sealed.open_sealed(bytes((version,)) + data[1:], bob.identity)


def test_too_long() -> None:
    with pytest.raises(DecodeError) as error:
        sealed.open_sealed(b"\x22" + bytes(limits.SEALED_MESSAGE_MAX_BYTES), Device("bob").identity)
    assert error.value.code == "too-long"


@pytest.mark.parametrize(
    "changes",
    [{1: None}, {1: 3}, {1: 0}, {2: None}, {2: b""}, {3: None}, {4: 2**32}],
    ids=["no kind", "unknown kind", "kind 0", "no certificate", "empty certificate", "no body", "hint"],
)
def test_content_refused(changes: dict[int, int | bytes | None]) -> None:
    good = Content(ContentKind.WHISPER, certificate(Device("alice")), b"x").encode()
    with pytest.raises(DecodeError):
        sealed.decode_content(lenient.replaced(good, changes))


# --- to many ---


def many() -> tuple[Device, list[Device], bytes]:
    """The sender, five recipients (the first with three devices), what is sent."""
    alice, others = Device("alice"), [Device(f"member {number}") for number in range(5)]
    content = Content(ContentKind.SENDER_KEY, certificate(alice), b"to all", 1, b"group")
    recipients = [
        Recipient(
            one.address.service_id,
            one.identity.public,
            ((1, 0), (2, 0x3FFF), (127, 5)) if place == 0 else ((1, place),),
        )
        for place, one in enumerate(others)
    ]
    sent = sealed.seal_to_many(
        content, alice.identity, recipients, alice.entropy, excluded=(b"x" * 16, b"y" * 16)
    )
    return alice, others, sent


def test_each_of_many_opens_its_own_share() -> None:
    alice, others, sent = many()
    shares = sealed.split(sent)
    assert [share.devices for share in shares[:2]] == [((1, 0), (2, 0x3FFF), (127, 5)), ((1, 1),)]
    assert [(share.service_id, share.devices, share.body) for share in shares[5:]] == [
        (b"x" * 16, (), b""),
        (b"y" * 16, (), b""),
    ]
    for place, (one, share) in enumerate(zip(others, shares, strict=False)):
        assert share.service_id == one.address.service_id
        opened = sealed.open_sealed(share.body, one.identity)
        assert (opened.content.body, opened.content.group_id) == (b"to all", b"group")
        assert opened.content.certificate == certificate(alice)
        with pytest.raises(RemoteError):
            sealed.open_sealed(shares[(place + 1) % 5].body, one.identity)


@pytest.mark.attack(54)
def test_shares_do_not_mix() -> None:
    """Wrapped seed and tag are of one recipient each; a relay that swaps them is noticed."""
    _, others, sent = many()
    one, two = (share.body for share in sealed.split(sent)[:2])
    for mixed in (one[:33] + two[33:49] + one[49:], two[:33] + one[33:]):
        with pytest.raises(RemoteError):
            sealed.open_sealed(mixed, others[0].identity)


def test_every_cut_of_what_is_sent_is_refused_or_shorter() -> None:
    """The head in full; a shorter ciphertext splits, and then opens for nobody."""
    _, others, sent = many()
    for size in range(len(sent)):
        try:
            shares = sealed.split(sent[:size])
        except DecodeError:
            continue
        with pytest.raises(RemoteError):
            sealed.open_sealed(shares[0].body, others[0].identity)


ACCOUNT = bytes(range(16))
SHARE, END = bytes(48), bytes(48)
ONE = b"\x00" + ACCOUNT + b"\x01\x00\x05"


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"\x22\x01" + ONE + SHARE, id="version"),
        pytest.param(b"\x23\x00", id="nobody"),
        pytest.param(b"\x23\x81\x00" + ONE + SHARE, id="count not in its shortest form"),
        pytest.param(b"\x23\xe9\x07" + (ONE + SHARE) * 1001, id="too many"),
        pytest.param(b"\x23\x02" + ONE + SHARE, id="fewer than said"),
        pytest.param(b"\x23\x01\x01" + ONE[1:] + SHARE, id="another kind of account"),
        pytest.param(b"\x23\x01\x00" + ACCOUNT + b"\x80\x00\x05" + SHARE, id="device 128"),
        pytest.param(b"\x23\x01\x00" + ACCOUNT + b"\x01\x80\x05\x00\x00\x05" + SHARE, id="device 0, second"),
        pytest.param(b"\x23\x01\x00" + ACCOUNT + b"\x01\x40\x00" + SHARE, id="registration id"),
        pytest.param(b"\x23\x02" + (ONE + SHARE) * 2, id="a device twice"),
        pytest.param(b"\x23\x01\x00" + ACCOUNT + b"\x01\x80\x05\x01\x00\x05" + SHARE, id="twice in one"),
        pytest.param(b"\x23\x02" + (b"\x00" + ACCOUNT + b"\x00") * 2, id="left out twice"),
    ],
)  # fmt: skip
def test_messages_to_many_refused(head: bytes) -> None:
    assert len(sealed.split(b"\x23\x01" + ONE + SHARE + END)) == 1
    with pytest.raises(DecodeError):
        sealed.split(head + END)


def test_what_is_sent_has_a_longest_length_and_a_shortest_end() -> None:
    good = b"\x23\x01" + ONE + SHARE
    with pytest.raises(DecodeError):
        sealed.split(good + bytes(47))
    with pytest.raises(DecodeError):
        sealed.split(good + bytes(limits.SEALED_MESSAGE_MAX_BYTES))


def test_shares_hold_one_ciphertext_together() -> None:
    """The longest message to the most recipients is 384 kB; a body for each at once would be 325 MB."""
    count = limits.SEALED_RECIPIENTS_MAX
    ones = b"".join(b"\x00" + number.to_bytes(16, "big") + b"\x01\x00\x05" + SHARE for number in range(count))
    head = b"\x23\xe8\x07" + ones
    sent = head + bytes(limits.SEALED_MESSAGE_MAX_BYTES - len(head))
    tracemalloc.start()
    shares = sealed.split(sent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(sent)
    assert len(shares) == count
    assert shares[-1].body == b"\x22" + SHARE + sent[len(head) :]


def test_our_own_misuse() -> None:
    alice = Device("alice")
    content = Content(ContentKind.SENDER_KEY, certificate(alice), b"x")
    someone = Recipient(bytes(16), Device("bob").identity.public, ((1, 1),))
    with pytest.raises(LocalError):
        sealed.seal_to_many(content, alice.identity, [], alice.entropy, excluded=(bytes(16),))
    with pytest.raises(LocalError):
        sealed.seal_to_many(
            content,
            alice.identity,
            [someone],
            alice.entropy,
            excluded=(bytes(16),) * limits.SEALED_RECIPIENTS_MAX,
        )
    with pytest.raises(LocalError):
        sealed.seal_to_many(content, IdentityKeyPair(b"\x09" * 32), [someone], alice.entropy)
    twice = Recipient(bytes(16), someone.identity_key, ((1, 1), (1, 2)))
    for recipients, excluded in (
        ([someone], (bytes(15),)),
        ([someone], (b"x" * 16,) * 2),
        ([someone, someone], ()),
        ([twice], ()),
    ):
        with pytest.raises(LocalError):
            sealed.seal_to_many(content, alice.identity, recipients, alice.entropy, excluded)
    for account, devices in (
        (bytes(15), ((1, 1),)),
        (bytes(16), ()),
        (bytes(16), ((0, 1),)),
        (bytes(16), ((128, 1),)),
        (bytes(16), ((1, 1), (2, 0x4000))),
    ):
        with pytest.raises(LocalError):
            Recipient(account, someone.identity_key, devices)


def test_what_nobody_would_open_is_not_sealed() -> None:
    """The longest that is sealed opens; one byte more is our own error."""
    alice, bob = Device("alice"), Device("bob")
    someone = Recipient(bob.address.service_id, bob.identity.public, ((1, 1),))
    ways: list[Callable[[Content], bytes]] = [
        lambda content: sealed.seal(content, alice.identity, bob.identity.public, alice.entropy),
        lambda content: sealed.seal_v1(content, alice.identity, bob.identity.public, alice.entropy),
        lambda content: sealed.seal_to_many(content, alice.identity, [someone], alice.entropy),
    ]
    for way in ways:
        spare = limits.SEALED_MESSAGE_MAX_BYTES - 100_000
        content = Content(ContentKind.SENDER_KEY, certificate(alice), bytes(spare))
        room = spare + limits.SEALED_MESSAGE_MAX_BYTES - len(way(content))
        longest = way(replace(content, body=bytes(room)))
        assert len(longest) == limits.SEALED_MESSAGE_MAX_BYTES
        body = sealed.split(longest)[0].body if longest[:1] == b"\x23" else longest
        assert len(sealed.open_sealed(body, bob.identity).content.body) == room
        with pytest.raises(LocalError):
            way(replace(content, body=bytes(room + 1)))
