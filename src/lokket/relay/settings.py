"""An operator's settings: a TOML file, over it ``LOKKET_RELAY_*``, over both the command line.

A key that is not known is refused: a limit that was misspelt is a limit that is not there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from lokket import limits
from lokket.errors import LocalError
from lokket.relay.config import Admission, RelayConfig, network

PREFIX: Final = "LOKKET_RELAY_"
FILE_VARIABLE: Final = PREFIX + "CONFIG"
_TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_FILE_MAX_BYTES: Final = 1024 * 1024


class _Wrong(Exception):
    """The text is the end of a sentence: what a value should be."""


@dataclass(frozen=True, slots=True)
class Setting:
    """``read`` takes a TOML value or an environment's text."""

    read: Callable[[Any], Any]
    about: str


@dataclass(frozen=True, slots=True)
class Settings:
    """Values by name, and where each of them comes from."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]

    def with_given(self, given: Mapping[str, Any]) -> Settings:
        """Over them what the command line says; None was not said. LocalError."""
        said = {name: value for name, value in given.items() if value is not None}
        read = {name: _read(name, value, "the command line") for name, value in said.items()}
        return Settings({**self.values, **read}, {**self.sources, **dict.fromkeys(said, "command line")})

    def config(self, base: RelayConfig) -> RelayConfig:
        """``base`` with these in place of its own."""
        values = dict(self.values)
        if "listen" in values:
            values["host"], values["port"] = values.pop("listen")
        admission = {
            name.removeprefix("admission_"): values.pop(name)
            for name in list(values)
            if name.startswith("admission_")
        }
        return replace(base, **values, admission=replace(base.admission, **admission))


def load(path: Path | None, environment: Mapping[str, str]) -> Settings:
    """LocalError: the file cannot be read, a key or variable is not known, a value will not do."""
    named = environment.get(FILE_VARIABLE, "")
    where = path or (Path(named) if named else None)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, value in (_of_file(where) if where is not None else {}).items():
        values[name] = _read(name, value, str(where))
        sources[name] = str(where)
    for variable, text in environment.items():
        if variable.startswith(PREFIX) and variable != FILE_VARIABLE:
            name = variable.removeprefix(PREFIX).lower()
            values[name] = _read(name, text, variable)
            sources[name] = variable
    return Settings(values, sources)


def _of_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_MAX_BYTES + 1)
        if len(data) > _FILE_MAX_BYTES:
            raise LocalError(f"{path} is too large to be a relay's settings")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LocalError(f"{path} is not text in UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise LocalError(f"{path} is not TOML: {error}") from None


def _read(name: str, value: Any, source: str) -> Any:
    setting = SETTINGS.get(name)
    if setting is None:
        raise LocalError(f"{source}: there is no setting {name!r}; 'lokket relay check-config' lists them")
    try:
        return setting.read(value)
    except _Wrong as wrong:
        raise LocalError(f"{source}: {name} must be {wrong}") from None


# --- kinds of values ---


def _text(value: Any) -> str:
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        raise _Wrong("a text in printable ASCII")
    return value


def _truth(value: Any) -> bool:
    found = _TRUTHS.get(value.lower()) if isinstance(value, str) else value
    if not isinstance(found, bool):
        raise _Wrong("true or false")
    return found


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        try:
            found = int(value) if isinstance(value, str) else value
        except ValueError:
            found = None
        if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
            raise _Wrong(f"a whole number from {low} to {high}")
        return found

    return read


def _share(value: Any) -> float:
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = -1.0
    if isinstance(value, bool) or not 0 <= found <= 1_000:
        raise _Wrong("a number from 0 to 1000")
    return found


def _path(value: Any) -> Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise _Wrong("a path")
    return Path(value).expanduser()


def _addresses(value: Any) -> tuple[str, ...]:
    found = [entry.strip() for entry in value.split(",")] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(entry, str) for entry in found):
        raise _Wrong("a list of addresses or networks")
    for entry in found:
        try:
            network(entry)
        except LocalError:
            raise _Wrong("a list of addresses or networks, such as 10.0.0.2 or 10.0.0.0/24") from None
    return tuple(found)


def _listen(value: Any) -> tuple[str, int]:
    text = value if isinstance(value, str) else ""
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (colon and bare and port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise _Wrong("HOST:PORT, such as 0.0.0.0:443 or [::]:443")
    if ":" in bare and bare == host:
        raise _Wrong("HOST:PORT with an IPv6 address in brackets, such as [::]:443")
    return bare, int(port)


_GIB: Final = 1 << 30
_SIZE = _whole(0, 1 << 50)

SETTINGS: Final[Mapping[str, Setting]] = {
    "origin": Setting(_text, "the address that clients are told: wss://NAME"),
    "listen": Setting(_listen, "where it listens: HOST:PORT"),
    "data": Setting(_path, "its folder"),
    "open": Setting(_truth, "whether anyone may register, without an invite"),
    "tls_cert": Setting(_path, "certificate chain, PEM"),
    "tls_key": Setting(_path, "the certificate's key, PEM"),
    "behind_proxy": Setting(_truth, "whether X-Forwarded-For of a trusted proxy is believed"),
    "trusted_proxies": Setting(_addresses, "proxies beside those on this machine"),
    "metrics_from": Setting(_addresses, "who may read /metrics beside this machine"),
    "mail_days": Setting(
        _whole(1, limits.MAILBOX_TTL_DAYS), "undelivered mail is deleted after as many days"
    ),
    "mailbox_count_max": Setting(_whole(1, limits.MAILBOX_COUNT_MAX), "envelopes waiting for one device"),
    "mailbox_max_bytes": Setting(
        _whole(limits.ENVELOPE_BODY_MAX_BYTES, _GIB), "bytes of envelopes waiting for one device"
    ),
    "blob_days": Setting(_whole(1, 3_650), "members' backups are deleted after as many days"),
    "blobs_max_bytes": Setting(_SIZE, "bytes of one account's backups together; 0: none are kept"),
    "storage_max_bytes": Setting(_SIZE, "of the data file; 0: what the disk has"),
    "connections_max": Setting(_whole(1, 1_000_000), "open connections"),
    "connections_per_address_max": Setting(_whole(1, 1_000_000), "open connections of one address"),
    "admission_load_max": Setting(_share, "no new accounts above this load per processor; 0: no limit"),
    "admission_memory_min_bytes": Setting(_SIZE, "no new accounts with less memory; 0: no limit"),
    "admission_disk_min_bytes": Setting(_SIZE, "no new accounts with less free disk; 0: no limit"),
}


def shown(config: RelayConfig) -> dict[str, str]:
    """Every setting as the configuration has it, as text."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    values: dict[str, object] = {
        name: getattr(config, name) for name in SETTINGS if name != "listen" and not name.startswith("adm")
    }
    values["listen"] = f"{host}:{config.port}"
    for name in Admission.__slots__:
        values[f"admission_{name}"] = getattr(config.admission, name)
    return {name: _as_text(values[name]) for name in SETTINGS}


def _as_text(value: object) -> str:
    match value:
        case None | "" | ():
            return "-"
        case bool():
            return "true" if value else "false"
        case tuple():
            return ", ".join(str(entry) for entry in value)
    return str(value)
