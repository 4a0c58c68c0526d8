"""Storage in memory, for the simulator, the test kit and ``demo`` parts: gone with the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from lokket import limits
from lokket.relay.storage.base import (
    AccountRow,
    BlobRow,
    Counts,
    DeviceRow,
    Held,
    InviteRow,
    ListChange,
    Mail,
    NameRow,
    NewAccount,
    Quota,
    Ruling,
    Taken,
    UserRow,
    Waiting,
)
from lokket.wire import api


@dataclass(slots=True)
class _Device:
    genesis_hash: bytes
    last_nonce: bytes | None = None
    manifest_number: int = 0
    batch: bytes = b""
    slots: bytes = b""
    mail: dict[bytes, tuple[int, Mail]] = field(default_factory=dict)  # oldest first
    mail_bytes: int = 0


@dataclass(slots=True)
class _Blob:
    row: BlobRow
    parts: dict[int, bytes] = field(default_factory=dict)  # by where they begin, in order


@dataclass(slots=True)
class _Name:
    row: NameRow
    freed_s: int | None = None


class MemoryStorage:
    """``Storage``. No verb waits inside, so each is atomic under asyncio."""

    def __init__(self) -> None:
        self._accounts: dict[bytes, AccountRow] = {}
        self._ids: dict[bytes, bytes] = {}
        self._heads: dict[bytes, list[bytes]] = {}
        self._devices: dict[bytes, _Device] = {}
        self._names: dict[str, _Name] = {}
        self._invites: dict[bytes, tuple[InviteRow, bytes | None]] = {}  # with who spent it
        self._rulings: dict[bytes, Ruling] = {}
        self._blobs: dict[tuple[bytes, bytes], _Blob] = {}  # by genesis hash and blob id, oldest first
        self._order = 0

    @property
    def broken(self) -> bool:
        return False

    @property
    def damaged(self) -> bool:
        return False

    def when_mended(self, callback: Callable[[], None]) -> None:
        """It never breaks."""

    # --- accounts ---

    async def register(self, new: NewAccount, token_hash: bytes | None, now_s: int) -> str:
        account = new.account
        if account.genesis_hash in self._accounts:
            return ""
        if token_hash is not None and not await self.token_open(token_hash, account.genesis_hash, now_s):
            return api.TOKEN_REFUSED
        if account.account_id in self._ids or (new.name and not self._name_free(new.name)):
            return api.CONFLICT
        if token_hash is not None:
            self._invites[token_hash] = (self._invites[token_hash][0], account.genesis_hash)
        self._accounts[account.genesis_hash] = account
        self._ids[account.account_id] = account.genesis_hash
        self._heads[account.genesis_hash] = [account.head]
        for device_hash in new.device_hashes:
            self._devices[device_hash] = _Device(account.genesis_hash)
        if new.name is not None:
            self._names[new.name.name] = _Name(new.name)
        return ""

    async def account(self, genesis_hash: bytes) -> AccountRow | None:
        return self._accounts.get(genesis_hash)

    async def put_list(self, change: ListChange) -> bool:
        genesis_hash = change.account.genesis_hash
        held = self._accounts.get(genesis_hash)
        if held is None or change.account.head == held.head:
            return held is not None
        if change.expected_head != held.head:
            return False
        self._accounts[genesis_hash] = change.account
        heads = self._heads[genesis_hash]
        heads += [head for head in (*change.heads_between, change.account.head) if head not in heads]
        for device_hash in [
            key for key, device in self._devices.items() if device.genesis_hash == genesis_hash
        ]:
            if device_hash not in change.device_hashes:
                del self._devices[device_hash]
        for device_hash in change.device_hashes:
            self._devices.setdefault(device_hash, _Device(genesis_hash))
        return True

    async def delete_account(self, genesis_hash: bytes, now_s: int) -> None:
        account = self._accounts.pop(genesis_hash, None)
        if account is not None:
            del self._ids[account.account_id], self._heads[genesis_hash]
        for key in [key for key, device in self._devices.items() if device.genesis_hash == genesis_hash]:
            del self._devices[key]
        for blob in await self.blobs(genesis_hash):
            del self._blobs[genesis_hash, blob.blob_id]
        for token_hash, (row, spent_by) in list(self._invites.items()):
            if row.creator == genesis_hash and spent_by is None:
                del self._invites[token_hash]
            elif genesis_hash in (row.creator, spent_by):
                creator = b"" if row.creator == genesis_hash else row.creator
                spender = b"" if spent_by == genesis_hash else spent_by
                self._invites[token_hash] = (replace(row, creator=creator), spender)
        if genesis_hash in self._rulings and not self._rulings[genesis_hash].banned:
            del self._rulings[genesis_hash]
        for name in self._names.values():
            if name.row.genesis_hash == genesis_hash:
                name.freed_s = now_s if name.freed_s is None else name.freed_s
                name.row = replace(name.row, claim=b"")

    async def ruling(self, genesis_hash: bytes) -> Ruling:
        return self._rulings.get(genesis_hash, Ruling(genesis_hash))

    async def rule(self, ruling: Ruling) -> bool:
        genesis_hash = ruling.genesis_hash
        if genesis_hash not in self._accounts and genesis_hash not in self._rulings:
            return False
        self._rulings[genesis_hash] = ruling
        if ruling.says_nothing:
            del self._rulings[genesis_hash]
        return True

    async def users(self, after: bytes, limit: int) -> tuple[UserRow, ...]:
        return tuple([await self._user(key) for key in sorted(self._accounts) if key > after][:limit])

    async def _user(self, genesis_hash: bytes) -> UserRow:
        names = [
            name.row.name
            for name in self._names.values()
            if name.freed_s is None and name.row.genesis_hash == genesis_hash
        ]
        devices = [device for device in self._devices.values() if device.genesis_hash == genesis_hash]
        blobs = await self.blobs(genesis_hash)
        return UserRow(
            genesis_hash,
            names[0] if names else None,
            len(devices),
            sum(len(device.mail) for device in devices),
            sum(device.mail_bytes for device in devices),
            await self.ruling(genesis_hash),
            len(blobs),
            sum(blob.received for blob in blobs),
        )

    async def find(self, prefix: bytes, limit: int) -> tuple[bytes, ...]:
        return tuple(sorted(key for key in self._accounts if key.startswith(prefix)))[:limit]

    # --- devices and their prekeys ---

    async def device(self, device_hash: bytes) -> DeviceRow | None:
        device = self._devices.get(device_hash)
        if device is None:
            return None
        return DeviceRow(
            device_hash,
            device.genesis_hash,
            device.last_nonce,
            device.manifest_number,
            len(device.slots),
            len(device.mail),
            device.mail_bytes,
        )

    async def login(self, device_hash: bytes, client_nonce: bytes) -> DeviceRow | None:
        before = await self.device(device_hash)
        if before is not None:
            self._devices[device_hash].last_nonce = client_nonce
        return before

    async def publish(self, device_hash: bytes, number: int, batch: bytes, slots: bytes) -> bool:
        device = self._devices.get(device_hash)
        if device is None or number < device.manifest_number:
            return False
        if number == device.manifest_number:
            return batch == device.batch
        device.manifest_number, device.batch, device.slots = number, batch, slots
        return True

    async def take_pair(self, genesis_hash: bytes, device_hash: bytes, pick: int | None) -> Taken | None:
        device = self._devices.get(device_hash)
        if device is None or device.genesis_hash != genesis_hash or not device.manifest_number:
            return None
        if pick is None or not device.slots:
            return Taken(device.batch, None, len(device.slots))
        at = pick % len(device.slots)
        slot = device.slots[at]
        device.slots = device.slots[:at] + device.slots[at + 1 :]
        return Taken(device.batch, slot, len(device.slots))

    # --- names and invites ---

    def _name_free(self, row: NameRow) -> bool:
        held = self._names.get(row.name)
        return held is None or held.row.genesis_hash == row.genesis_hash

    async def claim_name(self, row: NameRow, now_s: int) -> bool:
        if not self._name_free(row):
            return False
        for held in self._names.values():
            if held.row.genesis_hash == row.genesis_hash and held.freed_s is None:
                held.freed_s = now_s
        self._names[row.name] = _Name(row)
        return True

    async def name(self, name: str) -> NameRow | None:
        held = self._names.get(name)
        return held.row if held is not None and held.freed_s is None else None

    async def put_invite(self, row: InviteRow, open_max: int, now_s: int) -> str:
        if row.token_hash in self._invites:
            return "" if self._invites[row.token_hash][0].creator == row.creator else api.CONFLICT
        of_creator = [
            held.token_hash
            for held, spent_by in self._invites.values()
            if held.creator == row.creator and spent_by is None and held.expires_s > now_s
        ]
        if row.creator is None:
            for token_hash in of_creator:
                del self._invites[token_hash]
        elif len(of_creator) >= open_max:
            return api.RATE_LIMITED
        self._invites[row.token_hash] = (row, None)
        return ""

    async def token_open(self, token_hash: bytes, genesis_hash: bytes, now_s: int) -> bool:
        row, spent_by = self._invites.get(token_hash, (None, None))
        return row is not None and row.expires_s > now_s and spent_by in (None, genesis_hash)

    # --- mailboxes ---

    async def append(self, mail: tuple[Mail, ...], quota: Quota) -> tuple[str, ...]:
        return tuple(self._append(one, quota) for one in mail)

    def _append(self, mail: Mail, quota: Quota) -> str:
        device = self._devices.get(mail.device_hash)
        if device is None or device.genesis_hash != mail.genesis_hash:
            return api.UNKNOWN
        if mail.envelope_id in device.mail:
            same = device.mail[mail.envelope_id][1].envelope == mail.envelope
            return "" if same else api.CONFLICT
        if mail.head in self._heads[mail.genesis_hash][:-1]:
            return api.STALE_LIST
        size = len(mail.envelope)
        ruling = self._rulings.get(mail.genesis_hash, Ruling(b""))
        count_max = quota.count if ruling.count_max is None else ruling.count_max
        max_bytes = quota.size_bytes if ruling.max_bytes is None else ruling.max_bytes
        if len(device.mail) >= count_max or device.mail_bytes + size > max_bytes:
            return api.MAILBOX_FULL
        self._order += 1
        device.mail[mail.envelope_id] = (self._order, mail)
        device.mail_bytes += size
        return ""

    async def waiting(
        self, device_hash: bytes, after: int, limit: int, max_bytes: int
    ) -> tuple[Waiting, ...]:
        device = self._devices.get(device_hash)
        found: list[Waiting] = []
        size = 0
        for order, mail in device.mail.values() if device is not None else ():
            if order <= after:
                continue
            size += len(mail.envelope)
            if len(found) == limit or (found and size > max_bytes):
                break
            found.append(Waiting(order, mail.envelope_id, mail.envelope))
        return tuple(found)

    async def acknowledge(self, device_hash: bytes, envelope_ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
        device = self._devices.get(device_hash)
        if device is None:
            return ()
        deleted = tuple(key for key in dict.fromkeys(envelope_ids) if key in device.mail)
        for key in deleted:
            device.mail_bytes -= len(device.mail.pop(key)[1].envelope)
        return deleted

    # --- blobs ---

    async def begin_blob(self, genesis_hash: bytes, row: BlobRow, quota: Quota) -> str:
        held = self._blobs.get((genesis_hash, row.blob_id))
        if held is not None:
            return "" if held.row.size_bytes == row.size_bytes else api.CONFLICT
        if genesis_hash not in self._accounts:
            return api.UNKNOWN
        own_max = self._rulings.get(genesis_hash, Ruling(b"")).blobs_max_bytes
        mine = await self.blobs(genesis_hash)
        total = sum(blob.size_bytes for blob in mine) + row.size_bytes
        if len(mine) >= quota.count or total > (quota.size_bytes if own_max is None else own_max):
            return api.QUOTA_FULL
        self._blobs[genesis_hash, row.blob_id] = _Blob(row)
        return ""

    async def put_part(self, genesis_hash: bytes, blob_id: bytes, offset: int, part: bytes) -> BlobRow | None:
        held = self._blobs.get((genesis_hash, blob_id))
        if held is None:
            return None
        row, end = held.row, offset + len(part)
        if not row.committed and offset == row.received and end <= row.size_bytes:
            held.parts[offset] = part
            held.row = replace(row, received=end)
        return held.row

    async def commit_blob(self, genesis_hash: bytes, blob_id: bytes, expires_h: int) -> BlobRow | None:
        held = self._blobs.get((genesis_hash, blob_id))
        if held is None:
            return None
        if held.row.received == held.row.size_bytes and not held.row.committed:
            held.row = replace(held.row, committed=True, expires_h=expires_h)
        return held.row

    async def blobs(self, genesis_hash: bytes) -> tuple[BlobRow, ...]:
        return tuple(held.row for key, held in self._blobs.items() if key[0] == genesis_hash)

    async def blob_part(self, genesis_hash: bytes, blob_id: bytes, offset: int) -> bytes:
        held = self._blobs.get((genesis_hash, blob_id))
        if held is None or not held.row.committed:
            return b""
        at = max(at for at in held.parts if at <= offset)
        return held.parts[at][offset - at :]

    async def delete_blob(self, genesis_hash: bytes, blob_id: bytes) -> None:
        self._blobs.pop((genesis_hash, blob_id), None)

    # --- upkeep ---

    async def expire(self, now_s: int, limit: int) -> int:
        old_mail = [
            (device_hash, key)
            for device_hash, device in self._devices.items()
            for key, (_, mail) in device.mail.items()
            if mail.expires_h * 3600 <= now_s
        ][:limit]
        for device_hash, key in old_mail:
            await self.acknowledge(device_hash, (key,))
        old_invites = [key for key, (row, _) in self._invites.items() if row.expires_s <= now_s][:limit]
        for token_hash in old_invites:
            del self._invites[token_hash]
        rested_s = now_s - limits.NAME_REST_DAYS * limits.DAY_S
        old_names = [
            key for key, held in self._names.items() if held.freed_s is not None and held.freed_s <= rested_s
        ][:limit]
        for name in old_names:
            del self._names[name]
        old_blobs = [key for key, held in self._blobs.items() if held.row.expires_h * 3600 <= now_s]
        for blob in old_blobs[: limits.EXPIRE_BLOBS_PER_UPKEEP]:
            del self._blobs[blob]
        gone = min(len(old_blobs), limits.EXPIRE_BLOBS_PER_UPKEEP)
        return len(old_mail) + len(old_invites) + len(old_names) + gone

    async def counts(self) -> Counts:
        return Counts(
            len(self._accounts),
            len(self._devices),
            sum(len(device.mail) for device in self._devices.values()),
            sum(device.mail_bytes for device in self._devices.values()),
            len(self._blobs),
            sum(held.row.received for held in self._blobs.values()),
        )

    async def held(self, genesis_hash: bytes) -> tuple[Held, ...]:
        account = self._accounts.get(genesis_hash)
        if account is None:
            return ()
        rows: list[Held] = [_held("accounts", account)]
        for head in self._heads[genesis_hash]:
            rows.append(Held("heads", (("genesis_hash", genesis_hash), ("head", head))))
        mine = {key: device for key, device in self._devices.items() if device.genesis_hash == genesis_hash}
        for key, device in mine.items():
            rows.append(_held_device(key, device))
        for key, device in mine.items():
            if device.manifest_number:
                rows.append(Held("batches", (("device_hash", key), ("batch", device.batch))))
        for name in self._names.values():
            if name.row.genesis_hash == genesis_hash:
                rows.append(Held("names", (*_held("names", name.row).columns, ("freed_s", name.freed_s))))
        for row, spent_by in self._invites.values():
            if genesis_hash in (row.creator, spent_by):
                rows.append(Held("invites", (*_held("invites", row).columns, ("spent_by", spent_by))))
        if genesis_hash in self._rulings:
            rows.append(_held("rulings", self._rulings[genesis_hash]))
        for blob in await self.blobs(genesis_hash):
            rows.append(Held("blobs", (("genesis_hash", genesis_hash), *_held("", blob).columns)))
        all_mail = (each for device in self._devices.values() for each in device.mail.values())
        rows += [
            _held_mail(order, mail)
            for order, mail in sorted(all_mail)
            if mail.device_hash in mine or genesis_hash in mail.envelope
        ]
        return tuple(rows)

    async def close(self) -> None:
        pass


def _held(table: str, row: AccountRow | NameRow | InviteRow | Ruling | BlobRow) -> Held:
    return Held(table, tuple((column.name, getattr(row, column.name)) for column in fields(row)))


def _held_device(device_hash: bytes, device: _Device) -> Held:
    return Held(
        "devices",
        (
            ("device_hash", device_hash),
            ("genesis_hash", device.genesis_hash),
            ("last_nonce", device.last_nonce),
            ("manifest_number", device.manifest_number),
            ("slots", device.slots),
            ("mail_count", len(device.mail)),
            ("mail_bytes", device.mail_bytes),
        ),
    )


def _held_mail(order: int, mail: Mail) -> Held:
    return Held(
        "mail",
        (
            ("id", order),
            ("device_hash", mail.device_hash),
            ("envelope_id", mail.envelope_id),
            ("expires_h", mail.expires_h),
            ("envelope", mail.envelope),
        ),
    )
