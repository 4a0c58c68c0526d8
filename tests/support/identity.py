"""Accounts for tests: keys, devices and chains made from a seed, and a chain as a relay would keep it."""

from __future__ import annotations

from dataclasses import dataclass

from lokket.codec import tls
from lokket.protocol import identity
from lokket.protocol.identity import AccountState, AccountUpdate, Device, DeviceKeys, HybridKeyPair
from tests.support.entropy import SeededEntropy

NOW_S = 1_800_000_000
DAY_S = 86_400


@dataclass
class Account:
    """An owner: its keys, its own verified state, and the whole chain as a relay serves it."""

    entropy: SeededEntropy
    code: str
    key: HybridKeyPair
    genesis: identity.Genesis
    state: AccountState
    chain: AccountUpdate
    keys: dict[bytes, DeviceKeys]
    now_s: int
    rotations: int = 0

    @property
    def hash(self) -> bytes:
        return self.state.genesis_hash

    @property
    def device_hash(self) -> bytes:
        """Of the admin device."""
        admin = self.state.body.admin_device
        return next(key for key, device in self.state.listed if device.device == admin)

    @property
    def device(self) -> Device:
        return dict(self.state.listed)[self.device_hash]

    @property
    def device_keys(self) -> DeviceKeys:
        return self.keys[self.device_hash]

    def new_device(self, number: int, **fields: object) -> Device:
        keys = DeviceKeys.generate(self.entropy)
        values = {"registration": 7, "added_version": self.state.version + 1, **fields}
        device = identity.make_device(keys, self.hash, number=number, entropy=self.entropy, **values)  # type: ignore[arg-type]
        self.keys[identity.device_hash(device)] = keys
        return device

    def accept(
        self,
        signed: identity.SignedLink,
        body: identity.ListBody,
        devices: tuple[Device, ...] = (),
        rotation: identity.SignedRotation | None = None,
    ) -> AccountUpdate:
        """The step as an update; state and chain go on."""
        encoded = tuple(tls.encode(device) for device in devices)
        step = identity.step_update(signed, body, encoded, rotation=rotation)
        known = tuple(entry.device for entry in self.state.devices if entry.device)
        self.state, _ = identity.advance(self.state, step, self.now_s)
        self.chain = self.chain.extended(signed, body, (*known, *encoded), rotation)
        return step

    def add(self, number: int | None = None) -> Device:
        number = identity.free_number(self.state, self.now_s) if number is None else number
        device = self.new_device(number)
        signed, body = identity.extend_list(
            self.state, self.key, add=(device,), now_s=self.now_s, entropy=self.entropy
        )
        self.accept(signed, body, (device,))
        return device

    def remove(self, device_hash: bytes) -> None:
        signed, body = identity.extend_list(
            self.state, self.key, remove=(device_hash,), now_s=self.now_s, entropy=self.entropy
        )
        self.accept(signed, body)

    def renew(self) -> None:
        signed = identity.renew(self.key, self.state, self.now_s, self.entropy)
        self.accept(signed, self.state.body)

    def rotate(self, base: AccountState | None = None) -> None:
        """A new account key, from the recovery code, following ``base``: its later links are void."""
        base = base or self.state
        new_key = HybridKeyPair.generate(self.entropy)
        following = identity.recovery_key(self.code, self.rotations + 1)
        rotation = identity.rotate(
            base,
            identity.recovery_key(self.code, self.rotations),
            new_key,
            identity.recovery_commitment(following.public),
            now_s=self.now_s,
            entropy=self.entropy,
        )
        signed, body = identity.sign_list(
            new_key, base, base.body, (), now_s=self.now_s, entropy=self.entropy, rotation=rotation
        )
        self.key = new_key
        self.rotations += 1
        self.accept(signed, body, (), rotation)


def found(seed: str, now_s: int = NOW_S) -> Account:
    """A new account with one device."""
    entropy = SeededEntropy(seed)
    code = identity.new_recovery_code(entropy)
    key = HybridKeyPair.generate(entropy)
    commitment = identity.recovery_commitment(identity.recovery_key(code, 0).public)
    genesis = identity.make_genesis(key.public, commitment)
    keys = DeviceKeys.generate(entropy)
    device = identity.make_device(
        keys, identity.genesis_hash(genesis), number=1, registration=7, added_version=1, entropy=entropy
    )
    state = identity.found_account(genesis, key, device, now_s=now_s, entropy=entropy)
    chain = identity.step_update(state.signed_link, state.body, (tls.encode(device),), genesis=genesis)
    keyring = {identity.device_hash(device): keys}
    return Account(entropy, code, key, genesis, state, chain, keyring, now_s)
