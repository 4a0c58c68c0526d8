"""The Double Ratchet, revision 4 (signal.org/docs/specifications/doubleratchet), libsignal's variant.

Sending: ``send`` steps the sending chain. After a new remote ratchet key the sending half of the DH step
is done here, at the first message, not on receipt: a forged key costs one exchange, not two.
Receiving: ``receive`` finds the chain of the message's ratchet key or makes it by the receiving half of a
DH step; keys passed over are kept as seeds. Old receiving chains are kept too, so keys skipped at their
end are derived when a late message asks for them, and ``previous_counter`` is never read.

Knows no post-quantum ratchet: a seed becomes message keys in ``triple_ratchet``.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import X25519KeyPair, check_x25519_encoding
from lokket.crypto.primitives import hkdf_sha256_pair, hmac_sha256_pair
from lokket.errors import DecryptionFailed, DuplicateMessage, LocalError
from lokket.limits import RECEIVER_CHAINS_MAX, SKIP_AHEAD_MAX, SKIPPED_KEYS_MAX
from lokket.protocol.pairwise import skipped
from lokket.protocol.pairwise.skipped import replaced
from lokket.protocol.pairwise.value import value
from lokket.protocol.pairwise.work import Work

_ROOT_INFO: Final = b"WhisperRatchet"
_COUNTER_MAX: Final = (1 << 32) - 1  # of no message: the index after it must be stored, too

CHAIN: Final = Struct(">32s32sI")
"""A receiving chain is kept packed, as it is stored: the remote ratchet key, the chain key, the index of
the next message, then the skipped seeds (see ``skipped``). A step reads and writes one chain of five."""


@value
class DoubleRatchet:
    """``own`` is our ratchet key pair; an empty ``chain_key``: its sending chain is still to be made."""

    root: bytes  # 32
    own: X25519KeyPair
    chain_key: bytes  # 32 or 0
    index: int  # of the next message sent
    previous: int  # messages in our sending chain before this one, less one
    receiving: tuple[bytes, ...]  # packed chains, newest last


@value
class Sent:
    state: DoubleRatchet
    seed: bytes  # 32
    ratchet_key: bytes  # 32
    counter: int
    previous: int


def initiator(root: bytes, chain: bytes, their_signed_prekey: bytes, entropy: Entropy) -> DoubleRatchet:
    """The state after PQXDH for who sends first; ``their_signed_prekey`` has 32 bytes. Draws 32."""
    first = CHAIN.pack(their_signed_prekey, chain, 0)
    return DoubleRatchet(root, X25519KeyPair(entropy.draw(32)), b"", 0, 0, (first,))


def responder(root: bytes, chain: bytes, signed_prekey: X25519KeyPair) -> DoubleRatchet:
    """The state after PQXDH for who receives first: the signed prekey is the first ratchet key."""
    return DoubleRatchet(root, signed_prekey, chain, 0, 0, ())


def send(state: DoubleRatchet) -> Sent:
    """The next message seed of the sending chain."""
    if not state.chain_key:
        state = _finish_step(state)
    index, own = state.index, state.own
    if index >= _COUNTER_MAX:
        raise LocalError("a sending chain is used up; begin a new session")
    chain_key, seed = _chain_step(state.chain_key)
    after = DoubleRatchet(state.root, own, chain_key, index + 1, state.previous, state.receiving)
    return Sent(after, seed, own.public, index, state.previous)


def receive(
    state: DoubleRatchet, ratchet_key: bytes, counter: int, entropy: Entropy, work: Work
) -> tuple[DoubleRatchet, bytes]:
    """(state, message seed) for message ``counter`` under the 32-byte ``ratchet_key``.

    DuplicateMessage: its key was used, or dropped for SKIPPED_KEYS_MAX. DecryptionFailed: too far ahead.
    KeyRefused: the ratchet key. Draws 32 for a new ratchet key.
    """
    place = len(state.receiving) - 1
    while place >= 0 and not state.receiving[place].startswith(ratchet_key):
        place -= 1
    if place < 0:
        if counter > SKIP_AHEAD_MAX:
            raise DecryptionFailed("a message is too far ahead", code="too-far-ahead")
        state = _begin_step(state, ratchet_key, entropy, work)
        place = len(state.receiving) - 1
    chains = state.receiving
    chain, seed, grown = _take_seed(chains[place], counter, work)
    chains = replaced(chains, place, chain)
    if grown:
        chains = skipped.bound(chains, CHAIN.size, SKIPPED_KEYS_MAX)
    after = DoubleRatchet(state.root, state.own, state.chain_key, state.index, state.previous, chains)
    return after, seed


def _take_seed(chain: bytes, counter: int, work: Work) -> tuple[bytes, bytes, bool]:
    """(the chain moved past ``counter``, the seed of ``counter``, whether seeds were skipped)."""
    remote, chain_key, index = CHAIN.unpack_from(chain)
    late = chain[CHAIN.size :]
    if counter < index:
        found = skipped.take(late, counter)
        if found is None:
            raise DuplicateMessage("a message key was used before")
        return chain[: CHAIN.size] + found[0], found[1], False
    if counter - index > SKIP_AHEAD_MAX or counter >= _COUNTER_MAX:
        raise DecryptionFailed("a message is too far ahead", code="too-far-ahead")
    work.chain_steps += counter - index + 1
    if counter == index:  # the next in order: nothing is skipped
        chain_key, seed = _chain_step(chain_key)
        return CHAIN.pack(remote, chain_key, counter + 1) + late, seed, False
    entries = [late]
    for passed in range(index, counter):
        chain_key, seed = _chain_step(chain_key)
        entries.append(skipped.entry(passed, seed))
    chain_key, seed = _chain_step(chain_key)
    return CHAIN.pack(remote, chain_key, counter + 1) + b"".join(entries), seed, True


def _begin_step(state: DoubleRatchet, ratchet_key: bytes, entropy: Entropy, work: Work) -> DoubleRatchet:
    """The receiving half of a DH ratchet step, and a fresh own key for the sending half."""
    check_x25519_encoding(ratchet_key)
    work.exchanges += 1
    if not state.chain_key:  # no honest peer turns twice without an answer
        state = _finish_step(state)
        work.exchanges += 1
    root, chain_key = _root_step(state.root, state.own.exchange(ratchet_key))
    kept = state.receiving[1 - RECEIVER_CHAINS_MAX :]
    own = X25519KeyPair(entropy.draw(32))
    chains = (*kept, CHAIN.pack(ratchet_key, chain_key, 0))
    return DoubleRatchet(root, own, b"", 0, max(state.index - 1, 0), chains)


def _finish_step(state: DoubleRatchet) -> DoubleRatchet:
    """The sending half: a chain under our fresh key and the newest remote one."""
    root, chain_key = _root_step(state.root, state.own.exchange(state.receiving[-1][:32]))
    return DoubleRatchet(root, state.own, chain_key, 0, state.previous, state.receiving)


def _root_step(root: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """KDF_RK: (new root, chain key)."""
    return hkdf_sha256_pair(secret, root, _ROOT_INFO)


def _chain_step(chain_key: bytes) -> tuple[bytes, bytes]:
    """KDF_CK: (next chain key, message seed)."""
    return hmac_sha256_pair(chain_key, b"\x02", b"\x01")
