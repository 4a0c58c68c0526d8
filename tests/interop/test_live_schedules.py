"""lokket and libsignal-client under random schedules: the same model says what opens on either side."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from libsignal_peer import Peer, Refused
from lokket.errors import RemoteError
from lokket.limits import ARCHIVED_SESSIONS_MAX
from lokket.protocol.pairwise import Address
from node_device import NodeDevice
from tests.support.conversation import LIBSIGNAL_ARCHIVED_MAX, Conversation, Party
from tests.support.pairwise import Device
from tests.support.schedules import Schedule, run_schedules


def snapshot(party: Party, remote: Address) -> object:
    if isinstance(party, NodeDevice):
        left = party.peer.call("prekeys_left", party=party.party)
        stored = party.call("session", remote)
        return stored["record"] if stored["exists"] else None, left["prekeys"], left["kyber_prekeys"]
    assert isinstance(party, Device)
    store = party.store
    return party.records.get(remote), set(store.one_time), set(store.kem), set(store.signed)


class WithLibsignal(Schedule):
    """Party 0 is ours, 1 theirs; which of them begins is the first thing that is drawn."""

    @rule()
    def restart(self) -> None:
        """Ours restarts at every step anyway."""
        ours, theirs = self.conversation.parties
        assert isinstance(theirs, NodeDevice)
        if self.conversation.can_send(1):
            theirs.restart(ours.address)

    @rule(turns=st.integers(1, 4))
    def they_reset(self, turns: int) -> None:
        """More resets than we keep sessions for."""
        for _ in range(turns):
            self.conversation.begin(1)

    def teardown(self) -> None:
        super().teardown()
        theirs = self.conversation.parties[1]
        assert isinstance(theirs, NodeDevice)
        theirs.peer.call("forget", party=theirs.party)


@pytest.mark.timeout(0)
@pytest.mark.attack(23, 24, 25)
def test_with_libsignal_under_random_schedules(libsignal: Peer) -> None:
    names = iter(range(1_000_000_000))

    def make() -> Conversation:
        number = next(names)
        parties = (Device(f"schedule {number}"), NodeDevice(libsignal, f"node schedule {number}", 3))
        return Conversation(
            parties,
            archived=(ARCHIVED_SESSIONS_MAX, LIBSIGNAL_ARCHIVED_MAX),
            refusals=(RemoteError, Refused),
            snapshot=snapshot,
        )

    run_schedules(WithLibsignal, make)
