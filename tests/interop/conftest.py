"""The peers of all interoperability tests of a run; where one is missing, tests skip and say so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import libsignal_peer
import mls_peers


@pytest.fixture(scope="session")
def libsignal() -> Iterator[libsignal_peer.Peer]:
    reason = libsignal_peer.missing()
    if reason is not None:
        pytest.skip(reason)
    peer = libsignal_peer.Peer()
    yield peer
    peer.close()


@pytest.fixture(scope="session")
def ts_mls() -> Iterator[mls_peers.TsMlsProcess]:
    reason = mls_peers.missing_ts_mls()
    if reason is not None:
        pytest.skip(reason)
    process = mls_peers.TsMlsProcess()
    yield process
    process.close()


@pytest.fixture(scope="session")
def mls_rs() -> type[mls_peers.MlsRs]:
    reason = mls_peers.missing_mls_rs()
    if reason is not None:
        pytest.skip(reason)
    return mls_peers.MlsRs


@pytest.fixture(scope="session")
def openmls() -> type[mls_peers.OpenMls]:
    reason = mls_peers.missing_openmls()
    if reason is not None:
        pytest.skip(reason)
    return mls_peers.OpenMls
