"""The relay's storage: few verbs, each one atomic transaction.

A verb that changes something returns only when the change is durable; what it refuses has changed
nothing. Codes are ``lokket.wire.api``'s refusal codes, "" means done. Storage compares hashes, numbers
and times; it must not know what a signature is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lokket.errors import LocalError


class StorageFull(LocalError):
    """No room for something new. Reading, acknowledging and deleting go on."""


class StorageBroken(LocalError):
    """The disk fails: nothing is accepted and nothing read until it works again."""


class StorageDamaged(LocalError):
    """What is in the data is not what was written: a backup must be restored."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    genesis_hash: bytes
    account_id: bytes  # 16 bytes: two geneses for one id are refused
    head: bytes  # of the last list link
    key_epoch: int
    version: int
    state: bytes  # identity.AccountState, as this relay verified it
    chain: bytes  # identity.AccountUpdate: the whole chain, as it is served


@dataclass(frozen=True, slots=True)
class NameRow:
    name: str
    genesis_hash: bytes
    claim: bytes  # identity.SignedNameClaim


@dataclass(frozen=True, slots=True)
class NewAccount:
    account: AccountRow
    device_hashes: tuple[bytes, ...]
    name: NameRow | None


@dataclass(frozen=True, slots=True)
class ListChange:
    """The next list of an account, if ``expected_head`` still is its head."""

    expected_head: bytes
    account: AccountRow
    device_hashes: tuple[bytes, ...]  # all that are listed now; what others held is deleted
    heads_between: tuple[bytes, ...] = ()  # of lists that were never stored: older than the new one, too


@dataclass(frozen=True, slots=True)
class DeviceRow:
    device_hash: bytes
    genesis_hash: bytes
    last_nonce: bytes | None  # the client nonce of the last login
    manifest_number: int  # 0: no batch
    pairs_left: int
    mail_count: int
    mail_bytes: int


@dataclass(frozen=True, slots=True)
class Taken:
    """A prekey batch, and the one-time pair's slot in it that nobody else gets (None: without a pair)."""

    batch: bytes
    slot: int | None
    left: int


@dataclass(frozen=True, slots=True)
class InviteRow:
    token_hash: bytes
    creator: bytes | None  # genesis hash; None: the relay itself, for its first member
    expires_s: int


@dataclass(frozen=True, slots=True)
class Mail:
    genesis_hash: bytes
    device_hash: bytes
    head: bytes  # the recipient's list head as the sender knows it
    envelope_id: bytes
    expires_h: int  # hours since 1970: the relay keeps no finer time
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Waiting:
    order: int  # rises with arrival, never reused while the process lives
    envelope_id: bytes
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Quota:
    """Of one device's mailbox."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BlobRow:
    """An opaque file of an account, whole or under way."""

    blob_id: bytes
    size_bytes: int
    received: int  # bytes that are on the disk
    committed: bool
    expires_h: int  # hours since 1970


@dataclass(frozen=True, slots=True)
class Counts:
    accounts: int
    devices: int
    mail: int
    mail_bytes: int
    blobs: int = 0
    blob_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the operator decided on one account; None: as for everyone."""

    genesis_hash: bytes
    banned: bool = False
    count_max: int | None = None  # of envelopes waiting for one of its devices
    max_bytes: int | None = None
    blobs_max_bytes: int | None = None  # of its blobs together

    @property
    def says_nothing(self) -> bool:
        return self == Ruling(self.genesis_hash)


@dataclass(frozen=True, slots=True)
class UserRow:
    """An account as its operator sees it."""

    genesis_hash: bytes
    name: str | None
    devices: int
    mail: int
    mail_bytes: int
    ruling: Ruling
    blobs: int = 0
    blob_bytes: int = 0


Value = bytes | int | str | None


@dataclass(frozen=True, slots=True)
class Held:
    """One stored row, column by column, for ``explain``."""

    table: str
    columns: tuple[tuple[str, Value], ...]


class Storage(Protocol):
    @property
    def broken(self) -> bool:
        """Whether every verb is refused with StorageBroken now. It tries the disk again by itself."""

    @property
    def damaged(self) -> bool:
        """Whether that will not end."""

    def when_mended(self, callback: Callable[[], None]) -> None:
        """Called whenever ``broken`` has ended: what was refused may be asked for again."""

    # --- accounts ---

    async def register(self, new: NewAccount, token_hash: bytes | None, now_s: int) -> str:
        """Create the account and spend the token, both or neither; ``None`` asks for no token.

        An account that exists already is left as it is, nothing is spent: "". TOKEN_REFUSED: no such
        token, expired or spent. CONFLICT: the name is taken, or the account id belongs to another genesis.
        """

    async def account(self, genesis_hash: bytes) -> AccountRow | None: ...

    async def put_list(self, change: ListChange) -> bool:
        """Compare-and-set. True also when ``change.account.head`` is the head already."""

    async def delete_account(self, genesis_hash: bytes, now_s: int) -> None:
        """Its rows go, with devices, prekeys and waiting mail; its name rests. Nobody there: nothing.

        A token that it spent stays spent, without saying by whom.
        """

    async def ruling(self, genesis_hash: bytes) -> Ruling:
        """The operator's, or one that says nothing."""

    async def rule(self, ruling: Ruling) -> bool:
        """False: no such account. A ban outlives its account; what says nothing is not kept."""

    async def users(self, after: bytes, limit: int) -> tuple[UserRow, ...]:
        """Accounts with a genesis hash above ``after``, in its order: for the operator alone."""

    async def find(self, prefix: bytes, limit: int) -> tuple[bytes, ...]:
        """Genesis hashes that begin with ``prefix``: for the operator, never for a caller."""

    # --- devices and their prekeys ---

    async def device(self, device_hash: bytes) -> DeviceRow | None:
        """A listed device."""

    async def login(self, device_hash: bytes, client_nonce: bytes) -> DeviceRow | None:
        """Remember the nonce; the row as it was before."""

    async def publish(self, device_hash: bytes, number: int, batch: bytes, slots: bytes) -> bool:
        """Replace the batch; ``slots``: one byte per pair. False: number fallen, or other bytes."""

    async def take_pair(self, genesis_hash: bytes, device_hash: bytes, pick: int | None) -> Taken | None:
        """The device's batch with its ``pick``-th remaining pair (modulo), which is then gone.

        ``pick`` None takes none. None: no such device of that account, or no batch.
        """

    # --- names and invites ---

    async def claim_name(self, row: NameRow, now_s: int) -> bool:
        """Give the account this name; its former one rests. False: taken, or resting after another."""

    async def name(self, name: str) -> NameRow | None: ...

    async def put_invite(self, row: InviteRow, open_max: int, now_s: int) -> str:
        """RATE_LIMITED: ``open_max`` of this creator are open. CONFLICT: known, of another creator.

        The relay's own (creator None) replaces the one before it.
        """

    async def token_open(self, token_hash: bytes, genesis_hash: bytes, now_s: int) -> bool:
        """Whether ``register`` would accept the token. A look before costly checks; decides nothing."""

    # --- mailboxes ---

    async def append(self, mail: tuple[Mail, ...], quota: Quota) -> tuple[str, ...]:
        """One code each, in order. "": it is stored, by this call or an earlier one with the same bytes.

        UNKNOWN: no such listed device of that account. CONFLICT: the id is there with other bytes.
        STALE_LIST: ``head`` was the account's once. MAILBOX_FULL: ``quota``, or the account's own ruling.
        """

    async def waiting(
        self, device_hash: bytes, after: int, limit: int, max_bytes: int
    ) -> tuple[Waiting, ...]:
        """Mail with ``order`` above ``after``, oldest first; at least one, even over ``max_bytes``."""

    async def acknowledge(self, device_hash: bytes, envelope_ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Delete those of them that wait for this device; these are returned."""

    # --- blobs: of an account, so that another device of it may fetch them ---

    async def begin_blob(self, genesis_hash: bytes, row: BlobRow, quota: Quota) -> str:
        """Reserve room for ``row.size_bytes``; what has begun already is left as it is: "".

        UNKNOWN: no such account. CONFLICT: the id is there with another size. QUOTA_FULL: ``quota``, of the
        account's blobs together, or its own ruling.
        """

    async def put_part(self, genesis_hash: bytes, blob_id: bytes, offset: int, part: bytes) -> BlobRow | None:
        """Append where ``offset`` is the end, and no more than was announced; else change nothing.

        The row as it is then. None: the account has no such blob.
        """

    async def commit_blob(self, genesis_hash: bytes, blob_id: bytes, expires_h: int) -> BlobRow | None:
        """Keep it, if it is whole; again is once. The row as it is then; None: no such blob."""

    async def blobs(self, genesis_hash: bytes) -> tuple[BlobRow, ...]:
        """Oldest first."""

    async def blob_part(self, genesis_hash: bytes, blob_id: bytes, offset: int) -> bytes:
        """What one part holds from ``offset`` on. Empty: no such blob, not committed, or beyond its end."""

    async def delete_blob(self, genesis_hash: bytes, blob_id: bytes) -> None: ...

    # --- upkeep ---

    async def expire(self, now_s: int, limit: int) -> int:
        """Delete up to ``limit`` rows of each kind whose time is over; how many went."""

    async def counts(self) -> Counts: ...

    async def held(self, genesis_hash: bytes) -> tuple[Held, ...]:
        """Every row that belongs to the account or names it."""

    async def close(self) -> None: ...
