"""One libsignal process for all interoperability tests of a run; without node they skip and say so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import libsignal_peer


@pytest.fixture(scope="session")
def libsignal() -> Iterator[libsignal_peer.Peer]:
    reason = libsignal_peer.missing()
    if reason is not None:
        pytest.skip(reason)
    peer = libsignal_peer.Peer()
    yield peer
    peer.close()
