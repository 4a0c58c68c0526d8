"""libsignal's device with the interface of ``tests.support.pairwise.Device``, so a test can swap sides."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from libsignal_peer import Peer, decode
from lokket.protocol.pairwise import Address, Ciphertext, MessageKind, PreKeyBundle
from tests.support.pairwise import START_MS


class NodeDevice:
    """Every answer of ``receive`` is plaintext or ``libsignal_peer.Refused``."""

    def __init__(self, peer: Peer, name: str, number: int = 1, **options: Any) -> None:
        self.peer = peer
        self.address = Address(hashlib.sha256(name.encode()).digest()[:16], number)
        self.party = peer.label()
        self.now_ms = START_MS
        reply = peer.call("new_identity", party=self.party, **remote(self.address), **options)
        self.identity_key = decode(reply["identity_key"])
        self.registration_id: int = reply["registration_id"]

    def bundle(self, *, one_time: bool = True, one_time_kem: bool = False) -> PreKeyBundle:
        reply = self.peer.call(
            "prekey_bundle",
            party=self.party,
            one_time=one_time,
            kyber_one_time=one_time_kem,
            timestamp_ms=self.now_ms,
        )
        fields = reply["bundle"]
        return PreKeyBundle(
            registration_id=fields["registration_id"],
            address=self.address,
            identity_key=decode(fields["identity_key"]),
            signed_prekey_id=fields["signed_prekey_id"],
            signed_prekey=decode(fields["signed_prekey"]),
            signed_prekey_signature=decode(fields["signed_prekey_signature"]),
            kem_prekey_id=fields["kyber_prekey_id"],
            kem_prekey=decode(fields["kyber_prekey"]),
            kem_prekey_signature=decode(fields["kyber_prekey_signature"]),
            one_time_prekey_id=fields["prekey_id"],
            one_time_prekey=None if fields["prekey"] is None else decode(fields["prekey"]),
        )

    def begin(self, bundle: PreKeyBundle) -> None:
        fields = {
            "registration_id": bundle.registration_id,
            "device_id": bundle.address.device,
            "identity_key": bundle.identity_key,
            "signed_prekey_id": bundle.signed_prekey_id,
            "signed_prekey": bundle.signed_prekey,
            "signed_prekey_signature": bundle.signed_prekey_signature,
            "kyber_prekey_id": bundle.kem_prekey_id,
            "kyber_prekey": bundle.kem_prekey,
            "kyber_prekey_signature": bundle.kem_prekey_signature,
            "prekey_id": bundle.one_time_prekey_id,
            "prekey": bundle.one_time_prekey,
        }
        self.call("process_bundle", bundle.address, bundle=fields, now_ms=self.now_ms)

    def send(self, address: Address, plaintext: bytes) -> Ciphertext:
        reply = self.call("encrypt", address, plaintext=plaintext, now_ms=self.now_ms)
        return Ciphertext(MessageKind(reply["type"]), decode(reply["ciphertext"]))

    def receive(self, address: Address, ciphertext: Ciphertext) -> bytes:
        reply = self.call("decrypt", address, ciphertext=ciphertext.body, type=int(ciphertext.kind))
        return decode(reply["plaintext"])

    def call(self, command: str, address: Address, **fields: Any) -> dict[str, Any]:
        """A command about the session with ``address``."""
        return self.peer.call(command, party=self.party, remote=remote(address), **fields)

    def restart(self, address: Address) -> None:
        """Store the session, drop it, load it again."""
        stored = self.call("session", address)["record"]
        self.call("delete_session", address)
        self.call("load_session", address, record=stored)


def remote(address: Address) -> dict[str, Any]:
    return {"name": str(uuid.UUID(bytes=address.service_id)), "device_id": address.device}
