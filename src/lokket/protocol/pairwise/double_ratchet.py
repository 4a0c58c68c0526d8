"""The Double Ratchet, revision 4 (signal.org/docs/specifications/doubleratchet), libsignal's variant.

Sending: ``send`` steps the sending chain. After a new remote ratchet key the sending half of the DH step
is done here, at the first message, not on receipt: a forged key costs one exchange, not two.
Receiving: ``receive`` finds the chain of the message's ratchet key or makes it by the receiving half of a
DH step; keys passed over are kept as seeds. Old receiving chains are kept too, so keys skipped at their
end are derived when a late message asks for them, and ``previous_counter`` is never read.

Knows no post-quantum ratchet: a seed becomes message keys in ``triple_ratchet``.
"""

from __future__ import annotations

from typing import Final

from lokket.crypto.entropy import Entropy
from lokket.crypto.keys import X25519KeyPair, check_x25519_encoding
from lokket.crypto.primitives import hkdf_sha256, hmac_sha256
from lokket.errors import DecryptionFailed, DuplicateMessage, LocalError
from lokket.limits import RECEIVER_CHAINS_MAX, SKIP_AHEAD_MAX, SKIPPED_KEYS_MAX
from lokket.protocol.pairwise import skipped
from lokket.protocol.pairwise.value import value
from lokket.protocol.pairwise.work import Work

_ROOT_INFO: Final = b"WhisperRatchet"
_COUNTER_MAX: Final = (1 << 32) - 1


@value
class ReceivingChain:
    """Keys of messages sent under one remote ratchet key; ``index`` is the next not yet derived."""

    remote: bytes  # 32
    chain_key: bytes  # 32
    index: int
    late: bytes  # skipped seeds, see ``skipped``


@value
class DoubleRatchet:
    """``own`` is our current ratchet key pair; an empty ``chain_key``: its sending chain is still to be made."""

    root: bytes  # 32
    own: X25519KeyPair
    chain_key: bytes  # 32 or 0
    index: int  # of the next message sent
    previous: int  # messages in our sending chain before this one, less one
    receiving: tuple[ReceivingChain, ...]  # newest last


@value
class Sent:
    state: DoubleRatchet
    seed: bytes  # 32
    ratchet_key: bytes  # 32
    counter: int
    previous: int


def initiator(root: bytes, chain: bytes, their_signed_prekey: bytes, entropy: Entropy) -> DoubleRatchet:
    """The state after PQXDH for who sends first; ``their_signed_prekey`` has 32 bytes. Draws 32."""
    first = ReceivingChain(their_signed_prekey, chain, 0, skipped.EMPTY)
    state = DoubleRatchet(root, X25519KeyPair(entropy.draw(32)), b"", 0, 0, (first,))
    return _finish_step(state)


def responder(root: bytes, chain: bytes, signed_prekey: X25519KeyPair) -> DoubleRatchet:
    """The state after PQXDH for who receives first: the signed prekey is the first ratchet key."""
    return DoubleRatchet(root, signed_prekey, chain, 0, 0, ())


def send(state: DoubleRatchet) -> Sent:
    """The next message seed of the sending chain."""
    if not state.chain_key:
        state = _finish_step(state)
    index, chain_key = state.index, state.chain_key
    if index > _COUNTER_MAX:
        raise LocalError("a sending chain is used up; begin a new session")
    after = DoubleRatchet(
        state.root, state.own, _next_chain_key(chain_key), index + 1, state.previous, state.receiving
    )
    return Sent(after, _message_seed(chain_key), state.own.public, index, state.previous)


def receive(
    state: DoubleRatchet, ratchet_key: bytes, counter: int, entropy: Entropy, work: Work
) -> tuple[DoubleRatchet, bytes]:
    """(state, message seed) for message ``counter`` under the 32-byte ``ratchet_key``.

    DuplicateMessage: its key was used. DecryptionFailed: too far ahead, or its chain or key is gone.
    KeyRefused: the ratchet key. Draws 32 for a new ratchet key.
    """
    chains = state.receiving
    for place in range(len(chains) - 1, -1, -1):
        if chains[place].remote == ratchet_key:
            break
    else:
        if counter > SKIP_AHEAD_MAX:
            raise DecryptionFailed("a message is too far ahead", code="too-far-ahead")
        state = _begin_step(state, ratchet_key, entropy, work)
        chains = state.receiving
        place = len(chains) - 1
    chain, seed = _step_chain(chains[place], counter, work)
    if place == len(chains) - 1:
        chains = (*chains[:place], chain)
    else:
        chains = (*chains[:place], chain, *chains[place + 1 :])
    if len(chain.late) > len(state.receiving[place].late):
        chains = _bound_skipped(chains)
    after = DoubleRatchet(state.root, state.own, state.chain_key, state.index, state.previous, chains)
    return after, seed


def _step_chain(chain: ReceivingChain, counter: int, work: Work) -> tuple[ReceivingChain, bytes]:
    """(the chain moved past ``counter``, the seed of ``counter``)."""
    chain_key, index = chain.chain_key, chain.index
    if counter == index:
        work.chain_steps += 1
        after = ReceivingChain(chain.remote, _next_chain_key(chain_key), index + 1, chain.late)
        return after, _message_seed(chain_key)
    if counter < index:
        found = skipped.take(chain.late, counter)
        if found is None:
            raise DuplicateMessage("a message key was used before")
        return ReceivingChain(chain.remote, chain_key, index, found[0]), found[1]
    if counter - index > SKIP_AHEAD_MAX:
        raise DecryptionFailed("a message is too far ahead", code="too-far-ahead")
    work.chain_steps += counter - index + 1
    late = [chain.late]
    while index < counter:
        late.append(skipped.entry(index, _message_seed(chain_key)))
        chain_key = _next_chain_key(chain_key)
        index += 1
    after = ReceivingChain(chain.remote, _next_chain_key(chain_key), index + 1, b"".join(late))
    return after, _message_seed(chain_key)


def _bound_skipped(chains: tuple[ReceivingChain, ...]) -> tuple[ReceivingChain, ...]:
    """At most SKIPPED_KEYS_MAX seeds in all; the oldest go first."""
    excess = sum(skipped.count(chain.late) for chain in chains) - SKIPPED_KEYS_MAX
    if excess <= 0:
        return chains
    out = []
    for chain in chains:
        dropped = min(excess, skipped.count(chain.late))
        excess -= dropped
        late = skipped.drop_oldest(chain.late, dropped)
        out.append(ReceivingChain(chain.remote, chain.chain_key, chain.index, late))
    return tuple(out)


def _begin_step(state: DoubleRatchet, ratchet_key: bytes, entropy: Entropy, work: Work) -> DoubleRatchet:
    """The receiving half of a DH ratchet step, and a fresh own key for the sending half."""
    check_x25519_encoding(ratchet_key)
    work.exchanges += 1
    if not state.chain_key:
        state = _finish_step(state)
    root, chain_key = _root_step(state.root, state.own.exchange(ratchet_key))
    chain = ReceivingChain(ratchet_key, chain_key, 0, skipped.EMPTY)
    kept = state.receiving[1 - RECEIVER_CHAINS_MAX :]
    own = X25519KeyPair(entropy.draw(32))
    return DoubleRatchet(root, own, b"", 0, max(state.index - 1, 0), (*kept, chain))


def _finish_step(state: DoubleRatchet) -> DoubleRatchet:
    """The sending half: a chain under our fresh key and the newest remote one."""
    root, chain_key = _root_step(state.root, state.own.exchange(state.receiving[-1].remote))
    return DoubleRatchet(root, state.own, chain_key, 0, state.previous, state.receiving)


def _root_step(root: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """KDF_RK: (new root, chain key)."""
    output = hkdf_sha256(secret, salt=root, info=_ROOT_INFO, length=64)
    return output[:32], output[32:]


def _message_seed(chain_key: bytes) -> bytes:
    return hmac_sha256(chain_key, b"\x01")


def _next_chain_key(chain_key: bytes) -> bytes:
    return hmac_sha256(chain_key, b"\x02")
