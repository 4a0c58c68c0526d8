"""Sealed sender and sender keys with libsignal-client, both ways, in both versions, to one and to many."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Any

import pytest

from libsignal_peer import Peer, Refused, decode
from lokket.errors import RemoteError
from lokket.protocol import certificates, sealed, sender_keys
from lokket.protocol.certificates import SenderCertificate
from lokket.protocol.pairwise import Ciphertext, IdentityKeyPair, MessageKind
from lokket.protocol.sealed import Content, ContentKind, Recipient, Verified
from lokket.protocol.sender_keys import OwnSenderKey, SenderKeys
from node_device import NodeDevice, remote
from tests.support.pairwise import START_MS, Device

DAY_MS = 86_400_000


@dataclass
class Town:
    """Both parties in a session, and a server of ours that certifies either."""

    ours: Device
    theirs: NodeDevice
    root: IdentityKeyPair
    server_key: IdentityKeyPair

    def certificate(self, *, of_theirs: bool, expires_ms: int = START_MS + DAY_MS) -> SenderCertificate:
        server = certificates.issue_server_certificate(self.root, 7, self.server_key.public)
        sender = self.theirs.address if of_theirs else self.ours.address
        key = self.theirs.identity_key if of_theirs else self.ours.identity.public
        return certificates.issue_sender_certificate(self.server_key, server, sender, key, expires_ms)

    def content(self, message: Ciphertext) -> Content:
        return Content.of(message, self.certificate(of_theirs=False))

    def verified(self, sealed_bytes: bytes) -> Verified:
        opened = sealed.open_sealed(sealed_bytes, self.ours.identity)
        return sealed.check(opened, (self.root.public,), START_MS)

    def read(self, verified: Verified) -> bytes:
        ours = self.ours
        record = ours.record(verified.sender)
        decrypted = sealed.decrypt(record, ours.local, verified, ours.store, ours.now_ms, ours.entropy)
        ours.records[verified.sender] = decrypted.record.encode()
        return decrypted.plaintext

    def they_read(self, sealed_bytes: bytes, now_ms: int = START_MS) -> dict[str, Any]:
        return self.theirs.peer.call(
            "sealed_decrypt",
            party=self.theirs.party,
            ciphertext=sealed_bytes,
            trust_root=self.root.public,
            now_ms=now_ms,
        )


@pytest.fixture
def town(libsignal: Peer, request: pytest.FixtureRequest) -> Town:
    name = request.node.name
    ours, theirs = Device(f"lokket {name}"), NodeDevice(libsignal, f"node {name}", 3)
    ours.begin(theirs.bundle())
    assert theirs.receive(ours.address, ours.send(theirs.address, b"hello")) == b"hello"
    assert ours.receive(theirs.address, theirs.send(ours.address, b"hello back")) == b"hello back"
    return Town(ours, theirs, IdentityKeyPair(b"\x01" * 32), IdentityKeyPair(b"\x02" * 32))


seal_by = pytest.mark.parametrize("seal", [sealed.seal_v1, sealed.seal], ids=["v1", "v2"])


@pytest.mark.parametrize("of_theirs", [True, False])
def test_libsignal_takes_our_certificates(town: Town, of_theirs: bool) -> None:
    certificate = town.certificate(of_theirs=of_theirs)
    reply = town.theirs.peer.call(
        "check_certificate",
        certificate=certificate.encode(),
        trust_root=town.root.public,
        now_ms=START_MS,
    )
    assert reply["valid"]
    assert uuid.UUID(reply["sender_uuid"]).bytes == certificate.sender.service_id
    assert reply["sender_device_id"] == certificate.sender.device
    assert decode(reply["sender_key"]) == certificate.identity_key
    assert reply["expires_ms"] == certificate.expires_ms
    for change in ({"now_ms": certificate.expires_ms + 1}, {"trust_root": town.server_key.public}):
        fields = {"trust_root": town.root.public, "now_ms": START_MS, **change}
        reply = town.theirs.peer.call("check_certificate", certificate=certificate.encode(), **fields)
        assert not reply["valid"]


def test_we_take_libsignals_certificates(town: Town, libsignal: Peer) -> None:
    reply = libsignal.call(
        "sender_certificate",
        party=town.theirs.party,
        expires_ms=START_MS + DAY_MS,
        sender_e164="+14151231234",
        sender_device_id=3,
    )
    certificate = certificates.decode_sender_certificate(decode(reply["certificate"]))
    assert certificate.encode() == decode(reply["certificate"])
    assert (certificate.sender, certificate.identity_key) == (town.theirs.address, town.theirs.identity_key)
    assert (certificate.e164, certificate.expires_ms) == ("+14151231234", START_MS + DAY_MS)
    assert certificate.server.encode() == decode(reply["server_certificate"])
    certificates.check_certificate(certificate, (decode(reply["trust_root"]),), START_MS)


@seal_by
def test_libsignal_reads_what_we_seal(town: Town, seal: Any) -> None:
    for plaintext in (b"", b"sealed", bytes(3_000)):
        message = town.ours.send(town.theirs.address, plaintext)
        sent = seal(town.content(message), town.ours.identity, town.theirs.identity_key, town.ours.entropy)
        reply = town.they_read(sent)
        assert decode(reply["plaintext"]) == plaintext
        assert uuid.UUID(reply["sender_uuid"]).bytes == town.ours.address.service_id
        assert reply["sender_device_id"] == town.ours.address.device


@seal_by
def test_libsignal_reads_a_sealed_first_message(town: Town, seal: Any) -> None:
    town.ours.begin(town.theirs.bundle())
    message = town.ours.send(town.theirs.address, b"anew")
    assert message.kind == MessageKind.PREKEY
    sent = seal(town.content(message), town.ours.identity, town.theirs.identity_key, town.ours.entropy)
    assert decode(town.they_read(sent)["plaintext"]) == b"anew"


@pytest.mark.parametrize("anew", [False, True], ids=["in the session", "first message"])
def test_we_read_what_libsignal_seals(town: Town, anew: bool) -> None:
    if anew:
        town.theirs.begin(town.ours.bundle())
    certificate = town.certificate(of_theirs=True)
    for number in range(3):
        reply = town.theirs.call(
            "sealed_encrypt",
            town.ours.address,
            certificate=certificate.encode(),
            plaintext=b"sealed %d" % number,
        )
        verified = town.verified(decode(reply["ciphertext"]))
        assert verified.sender == town.theirs.address
        assert verified.content.kind == (ContentKind.PREKEY if anew else ContentKind.WHISPER)
        assert town.read(verified) == b"sealed %d" % number


@seal_by
@pytest.mark.parametrize("hint", [0, 1, 2])
def test_libsignal_opens_our_content(town: Town, seal: Any, hint: int) -> None:
    certificate = town.certificate(of_theirs=False)
    content = Content(ContentKind.SENDER_KEY, certificate, b"\x33 body", hint, b"group")
    sent = seal(content, town.ours.identity, town.theirs.identity_key, town.ours.entropy)
    reply = town.theirs.peer.call("sealed_open", party=town.theirs.party, ciphertext=sent)
    assert (reply["type"], reply["content_hint"]) == (7, hint)
    assert decode(reply["contents"]) == content.body
    assert decode(reply["group_id"]) == b"group"
    assert decode(reply["certificate"]) == certificate.encode()


def test_our_message_to_many_reaches_libsignal(town: Town, libsignal: Peer) -> None:
    """A sender key message, sealed once for two of their devices and a third account of ours."""
    group, other = bytes(range(16)), NodeDevice(libsignal, "another member", 2)
    own = sender_keys.create(group, town.ours.entropy)
    members = (town.theirs, other)
    for member in members:
        accept(member, town.ours, sender_keys.distribution_message(own))
    bystander = Device("bystander")
    own, message = sender_keys.encrypt(own, b"to all")
    content = Content(ContentKind.SENDER_KEY, town.certificate(of_theirs=False), message, 0, group)
    recipients = [
        *(
            Recipient(
                member.address.service_id,
                member.identity_key,
                ((member.address.device, member.registration_id),),
            )
            for member in members
        ),
        Recipient(bystander.address.service_id, bystander.identity.public, ((1, 5), (2, 6))),
    ]
    sent = sealed.seal_to_many(
        content, town.ours.identity, recipients, town.ours.entropy, excluded=(bytes(16),)
    )
    shares = {share.service_id: share for share in sealed.split(sent)}
    assert shares[bytes(16)].devices == ()
    assert shares[bystander.address.service_id].devices == ((1, 5), (2, 6))
    for member in members:
        reply = libsignal.call(
            "sealed_open", party=member.party, ciphertext=shares[member.address.service_id].body
        )
        read = libsignal.call(
            "group_decrypt",
            party=member.party,
            sender=remote(town.ours.address),
            ciphertext=reply["contents"],
        )
        assert decode(read["plaintext"]) == b"to all"
    opened = sealed.open_sealed(shares[bystander.address.service_id].body, bystander.identity)
    assert opened.content == content


def accept(member: NodeDevice, sender: Device, distribution: bytes) -> None:
    member.peer.call(
        "sender_key_process", party=member.party, sender=remote(sender.address), distribution=distribution
    )


def test_libsignals_message_to_many_reaches_us(town: Town, libsignal: Peer) -> None:
    theirs, group = town.theirs, str(uuid.UUID(int=77))
    reply = libsignal.call("sender_key_create", party=theirs.party, distribution_id=group)
    record = sender_keys.process(None, decode(reply["distribution"]))
    assert record.distribution == uuid.UUID(group).bytes
    second = Device("a second recipient", 9)
    theirs.begin(second.bundle())
    for number in range(3):
        reply = libsignal.call(
            "sealed_group_encrypt",
            party=theirs.party,
            distribution_id=group,
            remotes=[remote(town.ours.address), remote(second.address)],
            certificate=town.certificate(of_theirs=True).encode(),
            plaintext=b"to all %d" % number,
            group_id=b"group",
        )
        shares = {share.service_id: share for share in sealed.split(decode(reply["sent"]))}
        assert {account: share.devices for account, share in shares.items()} == {
            device.address.service_id: ((device.address.device, device.local.registration_id),)
            for device in (town.ours, second)
        }
        verified = town.verified(shares[town.ours.address.service_id].body)
        assert verified.sender == theirs.address
        assert verified.content.group_id == b"group"
        record, plaintext = sender_keys.decrypt(record, verified.content.body)
        assert plaintext == b"to all %d" % number
        opened = sealed.open_sealed(shares[second.address.service_id].body, second.identity)
        assert opened.content.body == verified.content.body


def test_libsignal_names_all_devices_of_an_account(town: Town, libsignal: Peer) -> None:
    """Two devices under one identity key share what is made for it."""
    second = Device("the same account", 2)
    second.local = replace(
        second.local,
        identity=town.ours.identity,
        address=replace(town.ours.address, device=2),
    )
    town.theirs.begin(second.bundle())
    group = str(uuid.UUID(int=79))
    libsignal.call("sender_key_create", party=town.theirs.party, distribution_id=group)
    reply = libsignal.call(
        "sealed_group_encrypt",
        party=town.theirs.party,
        distribution_id=group,
        remotes=[remote(town.ours.address), remote(second.address)],
        certificate=town.certificate(of_theirs=True).encode(),
        plaintext=b"to both",
    )
    (share,) = sealed.split(decode(reply["sent"]))
    assert share.devices == ((1, town.ours.local.registration_id), (2, second.local.registration_id))
    assert town.verified(share.body).content.group_id is None


def test_sender_keys_both_ways_in_any_order(town: Town, libsignal: Peer) -> None:
    theirs, group = town.theirs, uuid.UUID(int=78)
    own = sender_keys.create(group.bytes, town.ours.entropy)
    accept(theirs, town.ours, sender_keys.distribution_message(own))
    sent = []
    for number in range(6):
        own, message = sender_keys.encrypt(OwnSenderKey.decode(own.encode()), b"ours %d" % number)
        sent.append(message)
    for number in (3, 0, 5, 1, 2, 4):
        fields = {"party": theirs.party, "sender": remote(town.ours.address), "ciphertext": sent[number]}
        assert decode(libsignal.call("group_decrypt", **fields)["plaintext"]) == b"ours %d" % number
        with pytest.raises(Refused):
            libsignal.call("group_decrypt", **fields)
    reply = libsignal.call("sender_key_create", party=theirs.party, distribution_id=str(group))
    record = sender_keys.process(None, decode(reply["distribution"]))
    messages = [
        decode(
            libsignal.call(
                "group_encrypt",
                party=theirs.party,
                distribution_id=str(group),
                plaintext=b"theirs %d" % number,
            )["ciphertext"]
        )
        for number in range(6)
    ]
    for number in (4, 5, 0, 3, 1, 2):
        record, plaintext = sender_keys.decrypt(SenderKeys.decode(record.encode()), messages[number])
        assert plaintext == b"theirs %d" % number
        with pytest.raises(RemoteError):
            sender_keys.decrypt(record, messages[number])


@seal_by
def test_libsignal_refuses_what_was_changed_or_is_not_certified(town: Town, seal: Any) -> None:
    ours, theirs = town.ours, town.theirs
    message = ours.send(theirs.address, b"good")
    good = seal(town.content(message), ours.identity, theirs.identity_key, ours.entropy)
    for place in (0, 1, 20, 40, 60, 81, len(good) - 1):
        changed = bytearray(good)
        changed[place] ^= 4 if place else 0x40  # libsignal reads only the upper half of the version byte
        with pytest.raises(Refused):
            town.they_read(bytes(changed))
    with pytest.raises(Refused):
        town.they_read(good, now_ms=START_MS + 2 * DAY_MS)
    other = seal(town.content(message), ours.identity, ours.identity.public, ours.entropy)
    with pytest.raises(Refused):
        town.they_read(other)
    assert decode(town.they_read(good)["plaintext"]) == b"good"


def test_we_refuse_libsignals_certificate_after_its_time(town: Town) -> None:
    certificate = town.certificate(of_theirs=True)
    reply = town.theirs.call(
        "sealed_encrypt", town.ours.address, certificate=certificate.encode(), plaintext=b"late"
    )
    opened = sealed.open_sealed(decode(reply["ciphertext"]), town.ours.identity)
    with pytest.raises(RemoteError) as refused:
        sealed.check(opened, (town.root.public,), START_MS + 2 * DAY_MS)
    assert refused.value.code == "certificate-expired"
    assert town.read(town.verified(decode(reply["ciphertext"]))) == b"late"


@seal_by
def test_another_identity_than_the_sessions(town: Town, libsignal: Peer, seal: Any) -> None:
    """A certificate for our address and another key around our session's message: libsignal opens it, we do
    not (unit/sealed/test_sealed.py)."""
    ours, theirs = town.ours, town.theirs
    message = ours.send(theirs.address, b"mine")
    other = IdentityKeyPair(b"\x09" * 32)
    server = certificates.issue_server_certificate(town.root, 7, town.server_key.public)
    lie = certificates.issue_sender_certificate(
        town.server_key, server, ours.address, other.public, START_MS + DAY_MS
    )
    sent = seal(Content.of(message, lie), other, theirs.identity_key, ours.entropy)
    assert decode(town.they_read(sent)["plaintext"]) == b"mine"
