"""Targets and starting values of the signed formats and of contents, for ``targets.py`` and ``seeds.py``."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from msgspec.structs import replace

from lokket.codec import tls
from lokket.errors import DecodeError, RemoteError
from lokket.protocol import identity, prekeys
from lokket.protocol.identity import AccountState, AccountUpdate, Invite, SignedNameClaim, VerifyCode
from lokket.protocol.linking import AccountCode, LinkCode, derive_link, open_word, seal_word
from lokket.wire import content
from tests.support.entropy import SeededEntropy
from tests.support.identity import NOW_S, Account, found

_HEADER: Final = content.Header(
    1, content.TEXT, b"c" * 32, b"s" * 32, b"S" * 32, b"r" * 32, b"R" * 32, b"m" * 16, 0, 1, bytes(32),
    (1, 2), b"1" * 32, b"2" * 32, NOW_S * 1000, b"b" * 32,
)  # fmt: skip
_BODIES: Final = (
    content.Text("hello"),
    content.Sync(b"p" * 32, content.TEXT, content.encode_body(content.Text("hello"))),
    content.Receipt((b"i" * 16,)),
    content.Introduction("alice", b"i" * 16, b"m" * 32),
    content.InviteAnswer(b"i" * 16, b"m" * 32),
    content.Heal((b"i" * 16, b"j" * 16)),
    content.DeviceName(b"D" * 32, "phone", NOW_S * 1000),
    content.Read(b"p" * 32, NOW_S * 1000),
    content.History(7),
    content.HistoryAsk(b"place"),
    content.HistoryPage(
        b"",
        b"place",
        (content.Remembered(b"m" * 16, b"p" * 32, b"s" * 32, b"S" * 32, 1, NOW_S * 1000, "hi", "sent"),),
    ),
    content.Handover("key", b"h" * 32, bytes(64)),
)


def _canonical(kind: type[Any]) -> Callable[[bytes], object]:
    def target(data: bytes) -> object:
        value = tls.decode(kind, data)
        assert tls.encode(value) == data, f"{kind.__name__} accepts a second encoding"
        return value

    return target


def first_contact(data: bytes) -> object:
    """A whole account, judged; what passes is stored, read again, and followed by itself without change."""
    update = tls.decode(AccountUpdate, data)
    assert tls.encode(update) == data, "an account update has a second encoding"
    account = bytes(32) if update.genesis is None else identity.genesis_hash(update.genesis)
    state = identity.first_contact(update, account, NOW_S)
    assert AccountState.decode(state.encode()) == state
    last = update.since(state.key_epoch, state.version)
    assert identity.advance(state, last, NOW_S) == (state, ())
    return state


def account_state(data: bytes) -> object:
    state = AccountState.decode(data)
    assert state.encode() == data, "an account state has a second encoding"
    return state


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise DecodeError("no text") from None


def invite(data: bytes) -> object:
    parsed = Invite.parse(_text(data))
    assert parsed.link() == "".join(_text(data).split())
    return parsed


def verify_code(data: bytes) -> object:
    decoded = VerifyCode.decode(_text(data))
    assert decoded.encode() == "".join(_text(data).split())
    return decoded


def link_code(data: bytes) -> object:
    decoded = LinkCode.decode(_text(data))
    assert decoded.encode() == "".join(_text(data).split())
    return decoded


def account_code(data: bytes) -> object:
    decoded = AccountCode.decode(_text(data))
    assert decoded.encode() == "".join(_text(data).split())
    return decoded


def link_word(data: bytes) -> object:
    """A word under a known secret; and the same bytes as what is inside one that is sealed rightly."""
    keys = derive_link(bytes(32))
    with contextlib.suppress(RemoteError):
        return open_word(keys, data)
    return open_word(keys, seal_word(keys, data, "name", SeededEntropy("fuzz")))


def decode_content(data: bytes) -> object:
    decoded = content.decode_content(data)
    assert content.decode_content(content.encode_content(decoded)) == decoded
    return content.decode_body(decoded.header.kind, decoded.body)


def content_body(data: bytes) -> object:
    """The kind in the first byte."""
    kind = data[0] if data else 0
    body = content.decode_body(kind, data[1:])
    assert body is None or content.decode_body(kind, content.encode_body(body)) == body
    return body


TARGETS: Final[dict[str, Callable[[bytes], object]]] = {
    "account-update": first_contact,
    "account-state": account_state,
    "prekey-batch": _canonical(prekeys.PublicBatch),
    "prekey-bundle": _canonical(prekeys.ServedBundle),
    "name-claim": _canonical(SignedNameClaim),
    "invite": invite,
    "verify-code": verify_code,
    "link-code": link_code,
    "account-code": account_code,
    "link-word": link_word,
    "content": decode_content,
    "content-body": content_body,
}


def _grown() -> Account:
    """Two devices, one gone, a rotation, an extension."""
    owner = found("fuzz")
    owner.add()
    owner.remove(identity.device_hash(owner.add()))
    owner.rotate()
    return owner


def updates() -> Iterator[bytes]:
    owner = _grown()
    yield tls.encode(found("fuzz").chain)
    yield tls.encode(owner.chain)


def states() -> Iterator[bytes]:
    yield found("fuzz").state.encode()
    yield _grown().state.encode()


def _batch() -> prekeys.PublicBatch:
    owner = found("fuzz")
    public, _ = prekeys.make_batch(
        owner.device_keys, owner.hash, owner.device_hash,
        number=1, head=owner.state.head, now_s=NOW_S, entropy=owner.entropy, pairs=2,
    )  # fmt: skip
    return public


def batches() -> Iterator[bytes]:
    yield tls.encode(_batch())


def bundles() -> Iterator[bytes]:
    yield tls.encode(prekeys.served_bundle(_batch(), None))
    yield tls.encode(prekeys.served_bundle(_batch(), 1))


def claims() -> Iterator[bytes]:
    owner = found("fuzz")
    yield tls.encode(identity.sign_name_claim(owner.key, "fuzz", owner.hash, NOW_S, owner.entropy))


def invites() -> Iterator[bytes]:
    owner = found("fuzz")
    relay = owner.device_keys.auth.public
    yield (
        Invite("wss://relay.example", relay, owner.hash, owner.device_hash, bytes(32), NOW_S).link().encode()
    )
    yield Invite("ws://127.0.0.1:8080", relay, None, None, bytes(32), NOW_S).link().encode()


def verify_codes() -> Iterator[bytes]:
    yield VerifyCode.of(found("fuzz").state, found("other").state).encode().encode()


def _codes() -> tuple[LinkCode, AccountCode]:
    owner = found("fuzz")
    relay = owner.device_keys.auth.public
    return (
        LinkCode("wss://relay.example", relay, owner.hash, 2, 2, bytes(32), NOW_S),
        AccountCode("wss://relay.example", relay, owner.hash),
    )


def link_codes() -> Iterator[bytes]:
    yield _codes()[0].encode().encode()


def account_codes() -> Iterator[bytes]:
    yield _codes()[1].encode().encode()


def link_words() -> Iterator[bytes]:
    owner = found("fuzz")
    ((_, device),) = owner.state.listed
    yield tls.encode(device)
    yield seal_word(derive_link(bytes(32)), tls.encode(device), "phone", owner.entropy)


def _contents() -> Iterator[content.Content]:
    for body in _BODIES:
        kind = content.kind_of(body)
        number = 1 if content.is_counted(kind) else 0
        yield content.Content(replace(_HEADER, kind=kind, seq=number), content.encode_body(body))


def contents() -> Iterator[bytes]:
    for made in _contents():
        yield content.encode_content(made)


def content_bodies() -> Iterator[bytes]:
    for made in _contents():
        yield bytes((made.header.kind,)) + made.body


SEEDS: Final[dict[str, Callable[[], Iterator[bytes]]]] = {
    "account-update": updates,
    "account-state": states,
    "prekey-batch": batches,
    "prekey-bundle": bundles,
    "name-claim": claims,
    "invite": invites,
    "verify-code": verify_codes,
    "link-code": link_codes,
    "account-code": account_codes,
    "link-word": link_words,
    "content": contents,
    "content-body": content_bodies,
}
