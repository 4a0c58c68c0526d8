"""Targets and starting values of sealed sender and sender keys, for ``targets.py`` and ``seeds.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Final

from fuzz import sessions
from fuzz.work import counted
from lokket.crypto.xeddsa import IdentityKeyPair
from lokket.errors import RemoteError
from lokket.limits import SKIP_AHEAD_MAX
from lokket.protocol import certificates, sealed, sender_keys
from lokket.protocol.pairwise import Ciphertext, MessageKind, Work
from lokket.protocol.sealed import Content, ContentKind, Recipient, Verified
from lokket.protocol.sender_keys import OwnSenderKey, SenderKeys
from tests.support import protobuf as lenient
from tests.support.entropy import SeededEntropy
from tests.support.pairwise import START_MS, Device
from tests.support.sealed import ROOT, certificate, server_certificate

_GROUP: Final = bytes(range(16))


def sender_certificate(data: bytes) -> object:
    decoded = certificates.decode_sender_certificate(data)
    assert certificates.decode_sender_certificate(decoded.encode()) == decoded
    certificates.check_certificate(decoded, (ROOT.public,), START_MS)
    return decoded


def server(data: bytes) -> object:
    decoded = certificates.decode_server_certificate(data)
    assert certificates.decode_server_certificate(decoded.encode()) == decoded
    return decoded


def open_sealed(data: bytes) -> object:
    return sealed.open_sealed(data, sessions.bob().identity)


def content(data: bytes) -> object:
    """What a sender put inside, believed, and tried in the session that it names; unchanged when refused."""
    decoded = sealed.decode_content(data)
    assert sealed.decode_content(decoded.encode()) == decoded
    device, given = sessions.bob_in_session(), Verified(decoded)
    record = device.record(given.sender)
    before, work = None if record is None else record.encode(), Work()
    with counted() as found:
        try:
            return sealed.decrypt(
                record, device.local, given, device.store, START_MS, device.entropy, work=work
            )
        finally:
            found.check(work)
            assert (None if record is None else record.encode()) == before


def split(data: bytes) -> object:
    shares = sealed.split(data)
    for share in shares:
        assert len(share.service_id) == 16
        assert bool(share.devices) == bool(share.body)
        assert share.body in (b"", b"\x22" + share.body[1:])
    return shares


@cache
def _member() -> tuple[OwnSenderKey, SenderKeys]:
    """A sender, and a member who is at the fourth message and lacks the second."""
    own = sender_keys.create(_GROUP, SeededEntropy("fuzz sender"))
    record = sender_keys.process(None, sender_keys.distribution_message(own))
    for number in range(4):
        own, message = sender_keys.encrypt(own, b"%d" % number)
        if number != 1:
            record, _ = sender_keys.decrypt(record, message)
    return own, record


def group_message(data: bytes) -> object:
    """As it is, and with its last 64 bytes replaced by the sender's own signature."""
    own, record = _member()
    signer = IdentityKeyPair(own.signing_seed)
    refusal: RemoteError | None = None
    read = None
    for message in (data, data[:-64] + signer.sign(data[:-64])):
        try:
            read = _watched(record, message)
        except RemoteError as error:
            refusal = error
    if read is None:
        assert refusal is not None
        raise refusal
    return read


def _watched(record: SenderKeys, message: bytes) -> object:
    before, work = record.encode(), Work()
    with counted() as found:
        try:
            return sender_keys.decrypt(record, message, work)
        finally:
            assert record.encode() == before, "a decrypt changed the record it was given"
            assert work.chain_steps == found.chain_steps <= SKIP_AHEAD_MAX + 1
            assert found.derivations <= 1


def distribution(data: bytes) -> object:
    _, record = _member()
    before = record.encode()
    try:
        after = sender_keys.process(record, data)
    finally:
        assert record.encode() == before
    assert SenderKeys.decode(after.encode()).encode() == after.encode()
    return after


def group_record(data: bytes) -> object:
    record = SenderKeys.decode(data)
    assert record.encode() == data, "a sender key's record has a second encoding"
    own, _ = _member()
    try:
        return _watched(record, sender_keys.encrypt(own, b"next")[1])
    except RemoteError as error:
        return error


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "sender-certificate": sender_certificate,
    "server-certificate": server,
    "sealed": open_sealed,
    "sealed-content": content,
    "sealed-to-many": split,
    "group-message": group_message,
    "group-distribution": distribution,
    "group-record": group_record,
}


def sender_certificates() -> Iterator[bytes]:
    good = certificate(Device("fuzz alice"))
    yield good.encode()
    signed = b"\x0a\x03+12" + good.signed
    yield lenient.write([(1, signed), (2, bytes(64))])


def server_certificates() -> Iterator[bytes]:
    yield server_certificate().encode()


def _message() -> Ciphertext:
    """Of the corpus: a message that Bob's record opens."""
    folder = sessions.BOBS_RECORD.parent.parent / "corpus" / "decrypt"
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        kind = MessageKind.PREKEY if data[:1] == b"\x03" else MessageKind.WHISPER
        message = Ciphertext(kind, data[1:])
        device, alice = sessions.bob_in_session(), Device("fuzz alice").address
        try:
            sessions.watched(device, device.record(alice), alice, message)
        except RemoteError:
            continue
        if kind == MessageKind.WHISPER:
            return message
    raise AssertionError("no message of the corpus opens: run seeds.py decrypt first")


def contents() -> Iterator[bytes]:
    alice = Device("fuzz alice")
    yield Content.of(_message(), certificate(alice)).encode()
    yield Content(ContentKind.SENDER_KEY, certificate(alice), b"body", 1, b"group").encode()
    yield Content(ContentKind.PREKEY, certificate(alice), b"\x44").encode()


def sealed_messages() -> Iterator[bytes]:
    alice, bob = Device("fuzz alice"), sessions.bob()
    given = Content(ContentKind.WHISPER, certificate(alice), b"body")
    for seal in (sealed.seal, sealed.seal_v1):
        yield seal(given, alice.identity, bob.identity.public, SeededEntropy("fuzz"))


def sent_to_many() -> Iterator[bytes]:
    alice, bob = Device("fuzz alice"), sessions.bob()
    given = Content(ContentKind.SENDER_KEY, certificate(alice), b"body")
    key = bob.identity.public
    recipients = [Recipient(bytes(16), key, ((1, 2), (3, 4))), Recipient(b"1" * 16, key, ((1, 5),))]
    yield sealed.seal_to_many(given, alice.identity, recipients, SeededEntropy("fuzz"), excluded=(b"2" * 16,))


def group_messages() -> Iterator[bytes]:
    own = sender_keys.create(_GROUP, SeededEntropy("fuzz sender"))
    for number in range(6):
        own, message = sender_keys.encrypt(own, b"%d" % number)
        if number in (0, 1, 4, 5):
            yield message


def distributions() -> Iterator[bytes]:
    yield sender_keys.distribution_message(_member()[0])
    yield sender_keys.distribution_message(sender_keys.create(_GROUP, SeededEntropy("fuzz other")))


def group_records() -> Iterator[bytes]:
    yield _member()[1].encode()
    yield SenderKeys(sender_keys.FORMAT, _GROUP, ()).encode()


SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "sender-certificate": sender_certificates,
    "server-certificate": server_certificates,
    "sealed": sealed_messages,
    "sealed-content": contents,
    "sealed-to-many": sent_to_many,
    "group-message": group_messages,
    "group-distribution": distributions,
    "group-record": group_records,
}
