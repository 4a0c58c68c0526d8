"""Rows for storage tests: 32 bytes that say what they are."""

from __future__ import annotations

from lokket.crypto.primitives import sha256
from lokket.relay.storage.base import AccountRow, ListChange, Mail, NameRow, NewAccount, Quota

NOW_S = 1_800_000_000
NOW_H = NOW_S // 3600
ROOMY = Quota(1_000, 1_000_000)


def h(text: str) -> bytes:
    """A hash that stands for ``text``."""
    return sha256(text.encode())


def account(who: str, version: int = 1, *, account_id: bytes = b"") -> AccountRow:
    return AccountRow(
        genesis_hash=h(who),
        account_id=account_id or h(who)[:16],
        head=h(f"{who} head {version}"),
        key_epoch=0,
        version=version,
        state=f"{who} state {version}".encode(),
        chain=f"{who} chain {version}".encode(),
    )


def device(who: str, number: int = 1) -> bytes:
    return h(f"{who} device {number}")


def new_account(who: str, *, name: str | None = None, account_id: bytes = b"") -> NewAccount:
    row = NameRow(name, h(who), f"{who} claims {name}".encode()) if name is not None else None
    return NewAccount(account(who, account_id=account_id), (device(who),), row)


def next_list(who: str, version: int, *numbers: int) -> ListChange:
    return ListChange(
        expected_head=h(f"{who} head {version - 1}"),
        account=account(who, version),
        device_hashes=tuple(device(who, number) for number in numbers),
    )


def mail(
    who: str,
    text: str,
    number: int = 1,
    *,
    head: bytes = b"",
    expires_h: int = NOW_H + 720,
    body: bytes = b"",
) -> Mail:
    return Mail(
        genesis_hash=h(who),
        device_hash=device(who, number),
        head=head or h(f"{who} head 1"),
        envelope_id=h(text)[:16],
        expires_h=expires_h,
        envelope=body or text.encode(),
    )
