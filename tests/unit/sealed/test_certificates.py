"""Row 54, certificates: what is refused, each rule by itself."""

from __future__ import annotations

import pytest

from lokket import limits
from lokket.crypto.xeddsa import IdentityKeyPair
from lokket.errors import DecodeError, KeyRefused, LocalError, RemoteError, SignatureRefused
from lokket.protocol import certificates
from lokket.protocol.certificates import SenderCertificate
from lokket.protocol.pairwise import Address
from tests.support import protobuf as lenient
from tests.support.pairwise import START_MS, Device
from tests.support.sealed import EXPIRES_MS, KEY_ID, ROOT, SERVER, certificate, server_certificate

pytestmark = pytest.mark.attack(54)

ALICE = Device("alice")
GOOD = certificate(ALICE)
ACCOUNT = b"00112233-4455-6677-8899-aabbccddeeff"
EXPIRY = b"\x19" + EXPIRES_MS.to_bytes(8, "little")


def check(data: bytes, **changes: object) -> SenderCertificate:
    decoded = certificates.decode_sender_certificate(data)
    fields = {"trust_roots": (ROOT.public,), "now_ms": START_MS, **changes}
    certificates.check_certificate(decoded, **fields)  # type: ignore[arg-type]
    return decoded


def made(
    before: list[lenient.Field],
    after: list[lenient.Field],
    expiry: bytes = EXPIRY,
    signer: IdentityKeyPair = SERVER,
) -> bytes:
    """A certificate, rightly signed, of any fields."""
    signed = lenient.write(before) + expiry + lenient.write(after)
    return lenient.write([(1, signed), (2, signer.sign(signed))])


BEFORE: list[lenient.Field] = [(2, 3)]
AFTER: list[lenient.Field] = [
    (4, ALICE.identity.public),
    (5, server_certificate().encode()),
    (6, ACCOUNT),
]


def changed(number: int, *values: int | bytes) -> list[lenient.Field]:
    """``AFTER`` with ``number`` once for each of ``values``, none removing it."""
    return [*(field for field in AFTER if field[0] != number), *((number, value) for value in values)]


def test_what_is_issued_is_accepted() -> None:
    decoded = check(GOOD.encode())
    assert decoded == GOOD
    assert (decoded.sender, decoded.identity_key) == (ALICE.address, ALICE.identity.public)
    assert (decoded.expires_ms, decoded.e164) == (EXPIRES_MS, None)
    assert check(made(BEFORE, AFTER)).sender.device == 3
    as_bytes = check(made([(1, b"+14151231234"), *BEFORE], [*changed(6), (7, bytes(range(16)))]))
    assert as_bytes.sender == Address(bytes(range(16)), 3)
    assert as_bytes.e164 == "+14151231234"


@pytest.mark.parametrize("late_ms", [0, 1, limits.CLOCK_SKEW_S * 1000])
def test_clocks_may_disagree_a_little(late_ms: int) -> None:
    check(GOOD.encode(), now_ms=EXPIRES_MS + late_ms)


def test_after_its_time() -> None:
    with pytest.raises(SignatureRefused) as refused:
        check(GOOD.encode(), now_ms=EXPIRES_MS + limits.CLOCK_SKEW_S * 1000 + 1)
    assert refused.value.code == "certificate-expired"


def test_no_root_that_we_trust() -> None:
    for roots in ((), (SERVER.public,), (ALICE.identity.public, SERVER.public)):
        with pytest.raises(SignatureRefused) as refused:
            check(GOOD.encode(), trust_roots=roots)
        assert refused.value.code == "unknown-server"
    check(GOOD.encode(), trust_roots=(ALICE.identity.public, ROOT.public))


@pytest.mark.parametrize("root", [b"\x05" + bytes(32), b"\x05" + bytes(31), b""])
def test_a_trust_root_that_is_no_key_is_our_own_error(root: bytes) -> None:
    """Wherever it stands in the list: else it would be noticed only when the roots before it fail."""
    for roots in ((root,), (ROOT.public, root), (root, ROOT.public)):
        with pytest.raises(LocalError):
            check(GOOD.encode(), trust_roots=roots)


def test_a_server_that_no_root_vouches_for() -> None:
    with pytest.raises(SignatureRefused):
        check(made(BEFORE, changed(5, server_certificate(SERVER).encode())))


def test_a_revoked_server() -> None:
    with pytest.raises(SignatureRefused) as refused:
        check(GOOD.encode(), revoked={KEY_ID})
    assert refused.value.code == "certificate-revoked"
    check(GOOD.encode(), revoked={KEY_ID + 1})


@pytest.mark.parametrize("signer", [ROOT, ALICE.identity], ids=["the root itself", "the sender itself"])
def test_a_certificate_that_another_signed(signer: IdentityKeyPair) -> None:
    with pytest.raises(SignatureRefused):
        check(made(BEFORE, AFTER, signer=signer))


def test_every_bit_of_a_certificate_counts() -> None:
    data = GOOD.encode()
    for bit in range(8 * len(data)):
        spoiled = bytearray(data)
        spoiled[bit // 8] ^= 1 << bit % 8
        with pytest.raises(RemoteError):
            check(bytes(spoiled))


def test_every_cut_of_a_certificate_is_refused() -> None:
    data = GOOD.encode()
    for size in range(len(data)):
        with pytest.raises(RemoteError):
            check(data[:size])


LOW_ORDER = b"\x05" + bytes(32)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([], AFTER, id="no device"),
        pytest.param([(2, 0)], AFTER, id="device 0"),
        pytest.param([(2, 128)], AFTER, id="device 128"),
        pytest.param([(2, 3), (2, 3)], AFTER, id="device twice"),
        pytest.param([(1, b"+1" * 17), *BEFORE], AFTER, id="number too long"),
        pytest.param([(1, b"\xff"), *BEFORE], AFTER, id="number no text"),
        pytest.param([(1, b"+1\n"), *BEFORE], AFTER, id="number not printable"),
        pytest.param(BEFORE, changed(4), id="no identity key"),
        pytest.param(BEFORE, changed(4, LOW_ORDER), id="identity key of low order"),
        pytest.param(BEFORE, changed(4, ALICE.identity.public + b"\x00"), id="longer identity key"),
        pytest.param(BEFORE, changed(4, b"\x08" + ALICE.identity.public[1:]), id="another key type"),
        pytest.param(BEFORE, changed(5), id="no server"),
        pytest.param(BEFORE, changed(5, b""), id="empty server"),
        pytest.param(BEFORE, [*changed(5), (8, 1)], id="server by number"),
        pytest.param(BEFORE, [*AFTER, (8, 1)], id="server by number, too"),
        pytest.param(BEFORE, changed(6), id="no account"),
        pytest.param(BEFORE, [*AFTER, (7, bytes(16))], id="account twice"),
        pytest.param(BEFORE, [*changed(6), (7, bytes(15))], id="account too short"),
        pytest.param(BEFORE, changed(6, ACCOUNT.upper()), id="account in capitals"),
        pytest.param(BEFORE, changed(6, ACCOUNT.replace(b"-", b"")), id="account without dashes"),
        pytest.param(BEFORE, changed(6, b"PNI:" + ACCOUNT), id="account of another kind"),
        pytest.param(BEFORE, changed(6, "é".encode() * 18), id="account no ASCII"),
    ],
)  # fmt: skip
def test_fields_that_no_honest_server_writes(before: list[lenient.Field], after: list[lenient.Field]) -> None:
    with pytest.raises((DecodeError, KeyRefused)):
        check(made(before, after))


@pytest.mark.parametrize(
    "expiry",
    [b"", EXPIRY[:-1], EXPIRY * 2, b"\x18\x01", b"\x1a\x01\x00", b"\x1d" + bytes(4)],
    ids=["none", "cut", "twice", "varint", "bytes", "fixed32"],
)
def test_expiry_is_one_fixed64(expiry: bytes) -> None:
    with pytest.raises(DecodeError):
        check(made(BEFORE, AFTER, expiry))


def test_an_expiry_at_the_very_end_of_the_bytes() -> None:
    signed = lenient.write([*BEFORE, *AFTER]) + EXPIRY
    assert check(lenient.write([(1, signed), (2, SERVER.sign(signed))])).expires_ms == EXPIRES_MS
    short = signed[:-1]
    with pytest.raises(DecodeError):
        check(lenient.write([(1, short), (2, SERVER.sign(short))]))


@pytest.mark.parametrize(
    "fields",
    [[], [(1, 7)], [(2, SERVER.public)], [(1, 7), (2, LOW_ORDER)], [(1, 2**32), (2, SERVER.public)]],
    ids=["nothing", "no key", "no id", "key of low order", "id too large"],
)
def test_server_certificates_refused(fields: list[lenient.Field]) -> None:
    signed = lenient.write(fields)
    with pytest.raises((DecodeError, KeyRefused)):
        certificates.decode_server_certificate(lenient.write([(1, signed), (2, ROOT.sign(signed))]))


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_signature_has_64_bytes(size: int) -> None:
    with pytest.raises(DecodeError):
        certificates.decode_sender_certificate(lenient.write([(1, GOOD.signed), (2, bytes(size))]))
    server = server_certificate()
    with pytest.raises(DecodeError):
        certificates.decode_server_certificate(lenient.write([(1, server.signed), (2, bytes(size))]))


def test_a_certificate_has_a_longest_length() -> None:
    with pytest.raises(DecodeError) as refused:
        check(made(BEFORE, [*AFTER, (99, bytes(limits.CERTIFICATE_MAX_BYTES))]))
    assert refused.value.code == "too-long"
    check(made(BEFORE, [*AFTER, (99, b"a field of the future")]))


def test_our_own_misuse() -> None:
    with pytest.raises(LocalError):
        certificates.issue_server_certificate(ROOT, 1 << 32, SERVER.public)
    for key, expires_ms in ((ROOT, EXPIRES_MS), (SERVER, -1), (SERVER, 1 << 64)):
        with pytest.raises(LocalError):
            certificates.issue_sender_certificate(
                key, server_certificate(), ALICE.address, ALICE.identity.public, expires_ms
            )
