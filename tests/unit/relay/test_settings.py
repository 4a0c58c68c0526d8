"""An operator's settings: where they come from, what is refused, and what a check-up finds."""

from __future__ import annotations

from pathlib import Path

import pytest

from lokket import limits
from lokket.errors import LocalError
from lokket.relay.checkup import checkup
from lokket.relay.config import Admission, RelayConfig, require_safe
from lokket.relay.settings import SETTINGS, load, shown
from tests.support.certificates import Authority

NOW_S = 1_790_000_000
EVERYTHING = """
origin = "wss://relay.example.org"
listen = "[::]:443"
data = "/var/lib/lokket"
open = true
tls_cert = "/etc/lokket/chain.pem"
tls_key = "/etc/lokket/key.pem"
behind_proxy = true
trusted_proxies = ["10.0.0.2", "10.1.0.0/16"]
metrics_from = ["10.0.0.3"]
mail_days = 7
mailbox_count_max = 500
mailbox_max_bytes = 1000000
blob_days = 20
blobs_max_bytes = 5_000_000
storage_max_bytes = 10000000000
connections_max = 50
connections_per_address_max = 5
admission_load_max = 2.5
admission_memory_min_bytes = 1
admission_disk_min_bytes = 2
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "relay.toml"


def test_every_setting_can_be_given_in_the_file(file: Path) -> None:
    file.write_text(EVERYTHING)
    settings = load(file, {})
    assert set(settings.values) == set(SETTINGS)
    assert set(settings.sources.values()) == {str(file)}
    assert settings.config(RelayConfig()) == RelayConfig(
        origin="wss://relay.example.org",
        open=True,
        data=Path("/var/lib/lokket"),
        host="::",
        port=443,
        tls_cert=Path("/etc/lokket/chain.pem"),
        tls_key=Path("/etc/lokket/key.pem"),
        behind_proxy=True,
        trusted_proxies=("10.0.0.2", "10.1.0.0/16"),
        metrics_from=("10.0.0.3",),
        mail_days=7,
        mailbox_count_max=500,
        mailbox_max_bytes=1_000_000,
        blob_days=20,
        blobs_max_bytes=5_000_000,
        storage_max_bytes=10_000_000_000,
        connections_max=50,
        connections_per_address_max=5,
        admission=Admission(2.5, 1, 2),
    )


def test_every_setting_can_be_given_by_the_environment(file: Path) -> None:
    """What ``shown`` prints is what the environment takes: the same configuration comes back."""
    file.write_text(EVERYTHING)
    config = load(file, {}).config(RelayConfig())
    environment = {f"LOKKET_RELAY_{name.upper()}": text for name, text in shown(config).items()}
    assert load(None, environment).config(RelayConfig()) == config


def test_the_environment_stands_over_the_file_and_the_command_line_over_both(file: Path) -> None:
    file.write_text('origin = "wss://file"\nmail_days = 3\nmailbox_count_max = 9\n')
    environment = {
        "LOKKET_RELAY_CONFIG": str(file),
        "LOKKET_RELAY_ORIGIN": "wss://environment",
        "LOKKET_RELAY_MAIL_DAYS": "4",
    }
    settings = load(None, environment).with_given({"mail_days": 5, "open": None})
    config = settings.config(RelayConfig())
    assert (config.origin, config.mail_days, config.mailbox_count_max) == ("wss://environment", 5, 9)
    assert settings.sources == {
        "origin": "LOKKET_RELAY_ORIGIN",
        "mail_days": "command line",
        "mailbox_count_max": str(file),
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mail_day = 3", "no setting 'mail_day'"),
        ("[tls]\ncert = 'x'", "no setting 'tls'"),
        ("mail_days = 0", "whole number from 1 to 30"),
        ("mail_days = 31", "whole number from 1 to 30"),
        ("mail_days = true", "whole number"),
        ("mail_days = '3 days'", "whole number"),
        ("open = 1", "true or false"),
        ("listen = '443'", "HOST:PORT"),
        ("listen = ':443'", "HOST:PORT"),
        ("listen = '::1:443'", "in brackets"),
        ("listen = 'a:70000'", "HOST:PORT"),
        ("trusted_proxies = '10.0.0.1/8'", "addresses or networks"),
        ("trusted_proxies = ['proxy.example']", "addresses or networks"),
        ("origin = 7", "printable ASCII"),
        ("data = ''", "a path"),
        ("admission_load_max = -1", "a number"),
        ("admission_load_max = nan", "a number"),
        ("origin = ", "not TOML"),
        ("origin = 'a'\norigin = 'b'", "not TOML"),
    ],
)
def test_what_is_not_known_or_will_not_do_is_refused(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    with pytest.raises(LocalError, match=sentence):
        load(file, {})


def test_bad_files_and_variables_are_refused(file: Path) -> None:
    with pytest.raises(LocalError, match="cannot be read"):
        load(file, {})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(LocalError, match="UTF-8"):
        load(file, {})
    with pytest.raises(LocalError, match="LOKKET_RELAY_MAILDAYS: there is no setting"):
        load(None, {"LOKKET_RELAY_MAILDAYS": "3"})
    with pytest.raises(LocalError, match="LOKKET_RELAY_OPEN: open must be true or false"):
        load(None, {"LOKKET_RELAY_OPEN": "perhaps"})
    assert load(None, {"LOKKET_HOME": "/x", "LOKKET_PROFILE": "y"}).values == {}


@pytest.mark.attack(60)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "relay.example", "127.0.0.1.example"])
def test_plaintext_off_this_machine_is_refused(host: str) -> None:
    with pytest.raises(LocalError, match="without TLS"):
        require_safe(RelayConfig(host=host, origin="wss://relay.example"))
    with pytest.raises(LocalError, match="without TLS"):
        require_safe(RelayConfig(host=host, origin="wss://relay.example", behind_proxy=True))


@pytest.mark.attack(60)
def test_clients_are_told_no_address_without_tls() -> None:
    with pytest.raises(LocalError, match="wss://"):
        require_safe(RelayConfig(origin="ws://relay.example"))
    with pytest.raises(LocalError, match="told an address"):
        require_safe(RelayConfig(behind_proxy=True))
    for origin in (
        "relay.example",
        "https://relay.example",
        "wss://",
        "wss://a?b",
        "wss://me@a",
        "wss://a:b",
    ):
        with pytest.raises(LocalError, match="address such as"):
            require_safe(RelayConfig(origin=origin))


@pytest.mark.parametrize(
    "config",
    [
        RelayConfig(),
        RelayConfig(host="::1"),
        RelayConfig(host="localhost", origin="ws://localhost:7677"),
        RelayConfig(origin="wss://relay.example", behind_proxy=True),
        RelayConfig(
            host="10.0.0.9", origin="wss://relay.example", behind_proxy=True, trusted_proxies=("10.0.0.2",)
        ),
        RelayConfig(host="0.0.0.0", origin="wss://a", tls_cert=Path("c"), tls_key=Path("k")),
    ],
)
def test_what_is_safe_is_taken(config: RelayConfig) -> None:
    require_safe(config)


def test_a_check_up_says_all_that_is_wrong(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    cert, key = authority.issue("relay.example.org", "*.chat.example.org", days=5)
    now_s = int(key.stat().st_mtime)

    def fatal(**changes: object) -> list[str]:
        config = RelayConfig(tls_cert=cert, tls_key=key, data=tmp_path / "data", **changes)  # type: ignore[arg-type]
        return [found.sentence for found in checkup(config, now_s) if found.fatal]

    assert fatal(origin="wss://relay.example.org", host="::") == []
    assert fatal(origin="wss://a.chat.example.org") == []
    assert "not for a.b.chat.example.org" in fatal(origin="wss://a.b.chat.example.org")[0]
    assert "not for 127.0.0.1" in fatal()[0]
    notes = checkup(
        RelayConfig(origin="wss://relay.example.org", open=True, tls_cert=cert, tls_key=key), now_s
    )
    assert [note.fatal for note in notes] == [False, False]
    assert "register" in notes[0].sentence
    assert "more days" in notes[1].sentence
    late = checkup(
        RelayConfig(origin="wss://relay.example.org", tls_cert=cert, tls_key=key), now_s + 10 * 86_400
    )
    assert "expired" in late[0].sentence
    (tmp_path / "file").touch()
    nowhere = RelayConfig(data=tmp_path / "file" / "data")
    assert any("cannot be used for data" in found.sentence for found in checkup(nowhere, now_s))


def test_mail_is_never_kept_longer_than_its_prekeys() -> None:
    with pytest.raises(LocalError):
        load(None, {"LOKKET_RELAY_MAIL_DAYS": str(limits.MAILBOX_TTL_DAYS + 1)})
