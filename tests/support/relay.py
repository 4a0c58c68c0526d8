"""A relay without a socket, and members who sign what a client signs: for tests of the relay alone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lokket.codec import tls
from lokket.crypto.keys import Ed25519KeyPair
from lokket.crypto.primitives import sha256
from lokket.protocol import identity, prekeys
from lokket.relay.bus import LocalBus
from lokket.relay.config import RelayConfig
from lokket.relay.relay import Caller, Relay
from lokket.relay.storage.base import Storage
from lokket.relay.storage.memory import MemoryStorage
from lokket.wire import api
from tests.support.entropy import SeededEntropy

START_MS = 1_800_000_000_000
ORIGIN = "ws://relay.test:7677"


@dataclass
class Desk:
    """One relay, its clock and its entropy."""

    storage: Storage = field(default_factory=MemoryStorage)
    config: RelayConfig = field(default_factory=lambda: RelayConfig(origin=ORIGIN, open=True))
    seed: str = "desk"

    def __post_init__(self) -> None:
        self.entropy = SeededEntropy(self.seed)
        self.now_ms = START_MS
        self.key = Ed25519KeyPair(self.entropy.draw(32))
        self.relay = Relay(self.storage, self.config, self.key, LocalBus())

    @property
    def now_s(self) -> int:
        return self.now_ms // 1000

    def connect(self) -> Caller:
        return self.relay.connect(self.now_ms, self.entropy)

    async def ask(self, caller: Caller, request: api.Request) -> api.Reply:
        return await self.relay.handle(caller, request, self.now_ms, self.entropy)

    async def upkeep(self) -> None:
        """The upkeep of an hour in which the clock ran evenly, ending now."""
        for minutes in range(60, -1, -20):
            await self.relay.upkeep(self.now_ms - minutes * 60_000)

    async def drained(self, caller: Caller) -> list[api.Envelope]:
        found: list[api.Envelope] = []
        while (deliver := await self.relay.drain(caller, self.now_ms)) is not None:
            found += [api.decode_envelope(envelope) for envelope in deliver.envelopes]
        return found

    async def join(self, seed: str, *, name: str | None = None, token: bytes = b"") -> Member:
        """A new account whose first device is logged in by registering."""
        member = Member.new(self, seed)
        member.caller = self.connect()
        reply = await self.ask(
            member.caller, member.registration(member.caller.hello, token=token, name=name)
        )
        assert isinstance(reply, api.LoggedIn), reply
        return member


@dataclass
class Member:
    """One device of one account, with the account key."""

    desk: Desk
    entropy: SeededEntropy
    account: identity.HybridKeyPair
    keys: identity.DeviceKeys
    device: identity.Device
    state: identity.AccountState
    caller: Caller = field(init=False)

    @classmethod
    def new(cls, desk: Desk, seed: str) -> Member:
        entropy = SeededEntropy(f"{desk.seed} {seed}")
        account = identity.HybridKeyPair.from_seed(entropy.draw(64))
        keys = identity.DeviceKeys.generate(entropy)
        genesis = identity.make_genesis(account.public, entropy.draw(32))
        device = identity.make_device(
            keys,
            identity.genesis_hash(genesis),
            number=1,
            registration=77,
            added_version=1,
            entropy=entropy,
        )
        state = identity.found_account(genesis, account, device, desk.now_s, entropy)
        return cls(desk, entropy, account, keys, device, state)

    @property
    def genesis_hash(self) -> bytes:
        return self.state.genesis_hash

    @property
    def device_hash(self) -> bytes:
        return identity.device_hash(self.device)

    def claim(self, name: str) -> bytes:
        return identity.sign_name_claim(
            self.account, name, self.genesis_hash, self.desk.now_s, self.entropy
        ).encode()

    def registration(self, hello: api.Hello, *, token: bytes = b"", name: str | None = None) -> api.Register:
        statement = identity.RegisterStatement(
            hello.origin.encode(),
            hello.relay_key,
            sha256(token),
            self.genesis_hash,
            self.device_hash,
            hello.nonce,
        )
        return api.Register(
            token=token,
            genesis=tls.encode(self.state.genesis),
            link=tls.encode(self.state.signed_link),
            body=tls.encode(self.state.body),
            devices=(tls.encode(self.device),),
            proof=tls.encode(identity.sign_register(self.account, self.keys, statement, self.entropy)),
            name_claim=self.claim(name) if name is not None else None,
        )

    def login(self, hello: api.Hello, client_nonce: bytes = bytes(32)) -> api.Login:
        statement = identity.LoginStatement(
            hello.origin.encode(),
            hello.relay_key,
            self.genesis_hash,
            self.device_hash,
            hello.nonce,
            client_nonce,
            self.desk.now_s,
        )
        return api.Login(
            self.genesis_hash,
            self.device_hash,
            client_nonce,
            statement.time_s,
            identity.sign_login(self.keys.auth, statement),
        )

    async def log_in(self, client_nonce: bytes = bytes(32)) -> api.LoggedIn:
        self.caller = self.desk.connect()
        reply = await self.ask(self.login(self.caller.hello, client_nonce))
        assert isinstance(reply, api.LoggedIn), reply
        assert await self.ask(api.Ping()) == api.Ok()  # the answer came
        return reply

    async def ask(self, request: api.Request) -> api.Reply:
        return await self.desk.ask(self.caller, request)

    def batch(self, number: int, pairs: int = 3) -> prekeys.PublicBatch:
        public, _ = prekeys.make_batch(
            self.keys,
            self.genesis_hash,
            self.device_hash,
            number=number,
            head=self.state.head,
            now_s=self.desk.now_s,
            entropy=self.entropy,
            pairs=pairs,
        )
        return public

    def encoded_batch(self, number: int, pairs: int = 3) -> bytes:
        return tls.encode(self.batch(number, pairs))

    def envelope(self, to: Member, body: bytes = b"ciphertext") -> api.Envelope:
        return api.Envelope(
            format=1,
            kind=api.KIND_WHISPER,
            envelope_id=self.entropy.draw(16),
            recipient=to.genesis_hash,
            device_hash=to.device_hash,
            recipient_head=to.state.head,
            deposit=api.DEPOSIT_LOGIN,
            deposit_data=b"",
            sender=api.Sender(self.genesis_hash, self.device_hash),
            body=body,
        )

    async def send(self, *envelopes: api.Envelope) -> tuple[str, ...]:
        reply = await self.ask(api.Send(envelopes))
        assert isinstance(reply, api.Sent), reply
        return tuple(result.code for result in reply.results)

    async def acknowledge(self, *envelopes: api.Envelope) -> None:
        reply = await self.ask(api.Acknowledge(tuple(envelope.envelope_id for envelope in envelopes)))
        assert reply == api.Ok()

    # --- lists ---

    def second_device(self, number: int = 2) -> Member:
        """Another device of this account, not yet on its list."""
        keys = identity.DeviceKeys.generate(self.entropy)
        device = identity.make_device(
            keys,
            self.genesis_hash,
            number=number,
            registration=70 + number,
            added_version=self.state.version + 1,
            entropy=self.entropy,
        )
        return replace(self, keys=keys, device=device)

    def next_list(
        self, *, add: tuple[identity.Device, ...] = (), remove: tuple[bytes, ...] = ()
    ) -> tuple[api.PutList, identity.AccountState]:
        """The request, and the account after it."""
        signed, body = identity.extend_list(
            self.state,
            self.account,
            now_s=self.desk.now_s,
            entropy=self.entropy,
            add=add,
            remove=remove,
        )
        devices = tuple(tls.encode(device) for device in add)
        after, _ = identity.advance(self.state, identity.step_update(signed, body, devices), self.desk.now_s)
        return api.PutList(None, tls.encode(signed), tls.encode(body), devices), after
