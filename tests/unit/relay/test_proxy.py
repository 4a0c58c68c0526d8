"""Whose connection it is: X-Forwarded-For is believed of trusted proxies alone."""

from __future__ import annotations

import pytest

from lokket.relay.config import RelayConfig
from lokket.relay.proxy import Peers, counted_as

BEHIND = RelayConfig(behind_proxy=True, trusted_proxies=("10.0.0.2", "10.1.0.0/16"))
DIRECT = RelayConfig()


@pytest.mark.attack(50)
@pytest.mark.parametrize(
    ("config", "peer", "forwarded", "client"),
    [
        (DIRECT, "192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        (DIRECT, "127.0.0.1", ["198.51.100.7"], "127.0.0.1"),
        (BEHIND, "127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        (BEHIND, "::1", ["2001:db8::7"], "2001:db8::7"),
        (BEHIND, "::ffff:127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        (BEHIND, "10.0.0.2", ["198.51.100.7"], "198.51.100.7"),
        (BEHIND, "10.0.0.3", ["198.51.100.7"], "10.0.0.3"),
        (BEHIND, "127.0.0.1", ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (BEHIND, "127.0.0.1", ["6.6.6.6", "198.51.100.7"], "198.51.100.7"),
        (BEHIND, "127.0.0.1", ["6.6.6.6, 198.51.100.7, 10.1.2.3"], "198.51.100.7"),
        (BEHIND, "127.0.0.1", ["10.1.2.3"], "10.1.2.3"),
        (BEHIND, "127.0.0.1", ["127.0.0.1, rubbish"], "127.0.0.1"),
        (BEHIND, "127.0.0.1", ["198.51.100.7, "], "127.0.0.1"),
        (BEHIND, "127.0.0.1", [], "127.0.0.1"),
        (BEHIND, "127.0.0.1", ["1" * 9_000], "127.0.0.1"),
    ],
)
def test_the_client_is_the_last_whom_no_trusted_proxy_stands_for(
    config: RelayConfig, peer: str, forwarded: list[str], client: str
) -> None:
    assert Peers(config).client(peer, forwarded) == client


@pytest.mark.attack(60)
def test_without_tls_only_the_listed_proxies_come_in() -> None:
    peers = Peers(BEHIND)
    assert all(peers.admits(peer) for peer in ("127.0.0.1", "::1", "10.0.0.2", "10.1.9.9"))
    assert not any(peers.admits(peer) for peer in ("10.0.0.3", "192.0.2.1", "", "unix"))
    assert Peers(DIRECT).admits("127.0.0.1")


def test_figures_are_for_this_machine_and_who_is_named() -> None:
    peers = Peers(RelayConfig(metrics_from=("10.9.0.0/24",)))
    assert all(peers.may_read_metrics(client) for client in ("127.0.0.1", "::1", "10.9.0.4"))
    assert not any(peers.may_read_metrics(client) for client in ("10.0.0.2", "192.0.2.1", ""))


@pytest.mark.attack(50)
def test_the_addresses_of_one_household_count_as_one() -> None:
    assert counted_as("2001:db8:1:2::3") == counted_as("2001:db8:1:2:ffff::9")
    assert counted_as("2001:db8:1:2::3") != counted_as("2001:db8:1:3::3")
    assert counted_as("192.0.2.1") == "192.0.2.1"
    assert counted_as("::ffff:192.0.2.1") == "::ffff:192.0.2.1"
