"""What people read, type and scan: safety numbers, verify codes, invites, recovery codes, names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lokket.codec import tls
from lokket.errors import DecodeError, LocalError, RemoteError
from lokket.protocol import identity
from lokket.protocol.identity import Invite, VerifyCode
from lokket.protocol.identity.written import ALPHABET
from tests.support.entropy import SeededEntropy
from tests.support.identity import NOW_S, found

ALICE, BOB = found("alice"), found("bob")
SECRET = bytes(range(32))
INVITE = Invite(
    "wss://relay.example", ALICE.device_keys.auth.public, ALICE.hash, ALICE.device_hash, SECRET, NOW_S
)

# --- safety numbers ---


@pytest.mark.attack(72)
def test_both_sides_see_the_same_60_digits() -> None:
    number = identity.safety_number(ALICE.state, BOB.state)
    assert number == identity.safety_number(BOB.state, ALICE.state)
    assert len(number) == 60
    assert number.isascii()
    assert number.isdigit()
    assert number[:30] <= number[30:]
    assert identity.grouped(number).count(" ") == 11
    assert identity.grouped(number).replace(" ", "") == number


@pytest.mark.attack(72)
def test_a_safety_number_follows_the_account_keys_and_not_the_devices() -> None:
    carol = found("carol")
    before = identity.safety_number(carol.state, BOB.state)
    carol.add()
    assert identity.safety_number(carol.state, BOB.state) == before
    carol.rotate()
    assert identity.safety_number(carol.state, BOB.state) != before
    # Each of genesis, epoch and key counts on its own.
    fingerprint = identity.fingerprint32(carol.state)
    link = carol.state.link
    state = replace(carol.state, link=replace(link, key_epoch=link.key_epoch + 1))
    assert identity.fingerprint32(state) != fingerprint
    genesis = replace(carol.state.genesis, recovery_commitment=bytes(32))
    assert identity.fingerprint32(replace(carol.state, genesis=genesis)) != fingerprint
    assert identity.fingerprint32(replace(carol.state, rotations=())) != fingerprint
    assert len(fingerprint) == 32


@pytest.mark.attack(72)
def test_a_safety_number_is_a_fixed_function() -> None:
    """5,200 rounds of SHA-512 over the fingerprint, written out: another version must show the same."""
    import hashlib

    digest = fingerprint = identity.fingerprint32(ALICE.state)
    for _ in range(5200):
        digest = hashlib.sha512(digest + fingerprint).digest()
    digits = "".join(f"{int.from_bytes(digest[at : at + 5], 'big') % 100000:05}" for at in range(0, 30, 5))
    assert digits in identity.safety_number(ALICE.state, BOB.state)


# --- verify codes ---


def test_a_verify_code_is_scanned_by_the_one_it_was_shown_to() -> None:
    text = VerifyCode.of(ALICE.state, BOB.state).encode()
    assert text.startswith("lokket:verify#V")
    assert VerifyCode.decode(f" {text[:40]}\n {text[40:]} ").encode() == text
    identity.check_verify_code(BOB.state, ALICE.state, text)
    mallory = found("mallory")
    for own, their in ((ALICE, BOB), (mallory, ALICE), (BOB, mallory)):
        with pytest.raises(RemoteError) as refused:
            identity.check_verify_code(own.state, their.state, text)
        assert refused.value.code == "other-keys"


@pytest.mark.attack(89)
def test_a_verify_code_shows_a_hidden_device_list() -> None:
    carol = found("carol")
    known_to_bob = carol.state
    carol.add()
    code = VerifyCode.of(carol.state, BOB.state)
    with pytest.raises(RemoteError) as refused:
        identity.check_verify_code(BOB.state, known_to_bob, code)
    assert refused.value.code == "other-list"
    identity.check_verify_code(BOB.state, carol.state, code)


# --- invites ---


def test_an_invite_link_carries_everything_in_its_fragment() -> None:
    link = INVITE.link()
    before, fragment = link.split("#")
    assert before == "lokket:invite"
    assert fragment[0] == "I"
    assert not set(link) & set(" \"'$&;|<>`\\*?()[]{}!")
    assert Invite.parse(link) == INVITE
    assert Invite.parse(f"\n  {link[:60]}\n{link[60:]}\n") == INVITE
    assert SECRET.hex() not in repr(INVITE)
    assert repr(SECRET)[2:30] not in repr(INVITE)
    bare = replace(INVITE, genesis_hash=None, creator_device=None)
    assert Invite.parse(bare.link()) == bare


@pytest.mark.attack(85)
def test_no_code_does_the_work_of_another() -> None:
    """Also with the other's prefix, tag or content put on."""
    verify, invite = VerifyCode.of(ALICE.state, BOB.state).encode(), INVITE.link()
    v_data, i_data = verify.split("#V")[1], invite.split("#I")[1]
    for text in (verify, "lokket:invite#V" + v_data, "lokket:invite#I" + v_data, "lokket:link#I" + i_data):
        with pytest.raises(DecodeError):
            Invite.parse(text)
    for text in (invite, "lokket:verify#I" + i_data, "lokket:verify#V" + i_data, "lokket:verify#L" + v_data):
        with pytest.raises(DecodeError):
            VerifyCode.decode(text)


@pytest.mark.attack(16)
def test_a_damaged_invite_is_refused_or_another_invite() -> None:
    """Cut anywhere it is refused; no two texts mean the same."""
    link = INVITE.link()
    for size in range(len(link)):
        with pytest.raises(RemoteError):
            Invite.parse(link[:size])
    for text in ("", "lokket:invite#I", link + "A", link + "=", link.replace("#I", "#I="), link + "é"):
        with pytest.raises(DecodeError):
            Invite.parse(text)
    seen = {INVITE}
    for position in range(len("lokket:invite#I"), len(link), 5):
        changed = link[:position] + ("B" if link[position] == "A" else "A") + link[position + 1 :]
        try:
            parsed = Invite.parse(changed)
        except RemoteError:
            continue
        assert parsed not in seen
        assert parsed.link() == changed
        seen.add(parsed)


def test_half_an_inviter_is_none() -> None:
    with pytest.raises(LocalError):
        replace(INVITE, genesis_hash=None).link()
    with pytest.raises(LocalError):
        replace(INVITE, origin="").link()
    with pytest.raises(LocalError):
        replace(INVITE, origin="wss://r\u00e9lay").link()


def test_the_relay_knows_neither_id_nor_key_of_an_invite() -> None:
    keys = identity.derive_invite(SECRET)
    assert (len(keys.id), len(keys.token), len(keys.key), len(keys.token_hash)) == (16, 32, 32, 32)
    assert len({keys.id, keys.token[:16], keys.key[:16], keys.token_hash[:16]}) == 4
    assert keys.token.hex() not in repr(keys)
    assert keys == identity.derive_invite(SECRET)
    assert keys != identity.derive_invite(bytes(32))
    with pytest.raises(LocalError):
        identity.derive_invite(b"short")


@pytest.mark.attack(19)
@pytest.mark.attack(31)
def test_invite_proofs_are_of_one_direction_session_and_pair() -> None:
    keys, other = identity.derive_invite(SECRET), identity.derive_invite(bytes(32))
    alice, bob, carol = (identity.fingerprint32(found(name).state) for name in ("alice", "bob", "carol"))
    session = b"s" * 32
    proof = identity.invitee_mac(keys, bob, alice, session)
    assert proof == identity.invitee_mac(keys, alice, bob, session)
    assert proof not in (
        identity.inviter_mac(keys, bob, alice, session),
        identity.invitee_mac(other, bob, alice, session),
        identity.invitee_mac(keys, carol, alice, session),
        identity.invitee_mac(keys, bob, alice, b"t" * 32),
    )


# --- recovery codes ---


def test_a_recovery_code_gives_the_same_keys_however_it_is_typed() -> None:
    code = identity.new_recovery_code(SeededEntropy("code"))
    groups = code.split("-")
    assert [len(group) for group in groups] == [4] * 14
    assert not set(code) & set("ILOU")
    key = identity.recovery_key(code, 0)
    sloppy = f"  {code.lower().replace('-', ' ').replace('0', 'o').replace('1', 'l')}\n"
    assert identity.recovery_key(sloppy, 0).public == key.public
    assert identity.recovery_key(code, 1).public != key.public
    assert identity.recovery_commitment(key.public) == identity.recovery_commitment(key.public)
    assert code not in repr(key)
    assert identity.new_recovery_code(SeededEntropy("other")) != code


def test_slips_of_the_pen_are_found() -> None:
    """One wrong character, two neighbours swapped, a group left out: 20 bits of checksum."""
    code = identity.new_recovery_code(SeededEntropy("slips"))
    flat = code.replace("-", "")
    slips = []
    for position in range(len(flat)):
        other = ALPHABET[(ALPHABET.index(flat[position]) + 7) % 32]
        slips.append(flat[:position] + other + flat[position + 1 :])
        if position and flat[position] != flat[position - 1]:
            slips.append(flat[: position - 1] + flat[position] + flat[position - 1] + flat[position + 1 :])
    slips += [code[5:], code + "-0000", "", flat[:-1] + "U", flat[:-1] + "\u00df"]
    for slip in slips:
        with pytest.raises(LocalError) as refused:
            identity.recovery_key(slip, 0)
        assert not slip or slip not in str(refused.value)
    with pytest.raises(LocalError):
        identity.recovery_key(code, -1)


# --- names ---


@pytest.mark.parametrize("name", ["a", "alice", "a1", "bob.smith-2_x", "z" * 32])
def test_names(name: str) -> None:
    identity.check_name(name)
    claim = identity.sign_name_claim(ALICE.key, name, ALICE.hash, NOW_S, ALICE.entropy)
    again = identity.SignedNameClaim.decode(claim.encode())
    assert identity.check_name_claim(ALICE.state, again).name == name.encode()
    identity.check_name_of(again, name, ALICE.hash)


@pytest.mark.parametrize(
    "name", ["", "1a", "-a", "A", "al ice", "z" * 33, "\u0430lice", "alice\n", "al\u0131ce", "a/b", "a@b"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(LocalError):
        identity.check_name(name)
    with pytest.raises(LocalError):
        identity.sign_name_claim(ALICE.key, name, ALICE.hash, NOW_S, ALICE.entropy)


def test_name_claims_are_of_one_account_and_its_current_key() -> None:
    claim = identity.sign_name_claim(ALICE.key, "alice", ALICE.hash, NOW_S, ALICE.entropy)
    with pytest.raises(RemoteError) as refused:
        identity.check_name_claim(BOB.state, claim)
    assert refused.value.code == "other-genesis"
    taken = replace(claim, claim=replace(claim.claim, genesis_hash=BOB.hash))
    with pytest.raises(RemoteError):
        identity.check_name_claim(BOB.state, taken)
    for name, genesis_hash in (("alicf", ALICE.hash), ("alice", BOB.hash), ("ali\u00e7e", ALICE.hash)):
        with pytest.raises(RemoteError) as refused:
            identity.check_name_of(claim, name, genesis_hash)
        assert refused.value.code == "other-name"
    carol = found("carol")
    old = identity.sign_name_claim(carol.key, "carol", carol.hash, NOW_S, carol.entropy)
    carol.rotate()
    with pytest.raises(RemoteError):
        identity.check_name_claim(carol.state, old)


@pytest.mark.attack(16)
def test_every_byte_of_a_name_claim_counts() -> None:
    claim = identity.sign_name_claim(ALICE.key, "alice", ALICE.hash, NOW_S, ALICE.entropy)
    data = tls.encode(claim)
    for position in [*range(46 + 64), *range(110, len(data), 53)]:
        changed = bytearray(data)
        changed[position] ^= 1
        with pytest.raises(RemoteError):
            identity.check_name_claim(ALICE.state, identity.SignedNameClaim.decode(bytes(changed)))


def test_a_conversation_of_two_has_one_id() -> None:
    assert identity.direct_conversation(ALICE.hash, BOB.hash) == identity.direct_conversation(
        BOB.hash, ALICE.hash
    )
    assert identity.direct_conversation(ALICE.hash, BOB.hash) != identity.direct_conversation(
        ALICE.hash, ALICE.hash
    )
    with pytest.raises(LocalError):
        identity.direct_conversation(ALICE.hash, b"short")
