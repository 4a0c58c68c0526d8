"""Where a vault's key comes from: the OS keyring, a passphrase, or, when asked for by name, a plain file.

The key itself is always 32 random bytes. Beside the vault stands a small JSON file that says which of the
three it is; Argon2id (RFC 9106) wraps the key under a passphrase, with a commitment that is compared first,
so that no ciphertext opens under two passphrases. Never falls back from one kind to another.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from lokket import limits
from lokket.client.files import sync_folder
from lokket.client.lock import VaultLock
from lokket.client.vault import make_private_folder
from lokket.crypto.entropy import Entropy
from lokket.crypto.primitives import equal, hmac_sha256
from lokket.errors import LocalError

KEY_FILE: Final = "vault.key"
KEY_BYTES: Final = 32
_FORMAT: Final = 1
_SERVICE: Final = "lokket"
_GENERATION: Final = " generation"  # behind a vault's id: how often it was opened
_CHANGE_LOCK: Final = "vault.key.lock"
_CHECK: Final = b"lokket vault key check"

# RFC 9106, section 4, second recommended option: 64 MiB, 3 passes, 4 lanes.
_MEMORY_KIB: Final = 64 * 1024
_PASSES: Final = 3
_LANES: Final = 4


@dataclass(frozen=True, slots=True)
class InKeyring:
    """Kept by the operating system for the person who is logged in."""


@dataclass(frozen=True, slots=True)
class UnderPassphrase:
    passphrase: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class InPlainFile:
    """Readable by whoever reads the folder: only on express request."""


Protection = InKeyring | UnderPassphrase | InPlainFile
AskPassphrase = Callable[[], str]


def keyring_works() -> bool:
    """Is there a real keyring here? The library's ``fail`` and ``null`` stand-ins are none."""
    import keyring  # noqa: PLC0415 (slow to load, and most commands do without)
    import keyring.errors  # noqa: PLC0415

    try:
        backend = keyring.get_keyring()
        if float(backend.priority) <= 0 or type(backend).__module__.endswith((".fail", ".null")):
            return False
        backend.get_password(_SERVICE, "is there a keyring?")
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        return False
    return True


def make_key(folder: Path, protection: Protection, entropy: Entropy) -> bytes:
    """A new vault key, 32 bytes, kept as ``protection`` says. LocalError: that place does not work here."""
    key, vault_id = entropy.draw(KEY_BYTES), entropy.draw(16).hex()
    record = _guarded(key, vault_id, protection, entropy)
    make_private_folder(folder)
    _write(folder, record)
    return key


def guard_anew(folder: Path, ask: AskPassphrase, protection: Protection, entropy: Entropy) -> None:
    """Keep the same key as ``protection`` says from now on; ``ask`` is for what guards it today.

    1. The new place has the key. 2. The file says so, whole or not at all. 3. The old place forgets it. At
    every moment one of the two opens the vault. A copy of the old file goes on opening it.
    """
    lock = VaultLock(folder / _CHANGE_LOCK)
    try:
        key, before = load_key(folder, ask), _read(folder)
        vault_id = str(before["vault"])
        after = _guarded(key, vault_id, protection, entropy)
        try:
            _write(folder, after)
        except LocalError:
            if before["kind"] != "keyring":
                _forget_in_keyring(vault_id)
            raise
        if before["kind"] == "keyring" and after["kind"] != "keyring":
            _forget_in_keyring(vault_id)
    finally:
        lock.release()


def _guarded(key: bytes, vault_id: str, protection: Protection, entropy: Entropy) -> dict[str, Any]:
    """The key's record, with the key where it belongs. LocalError: that place does not work here."""
    record: dict[str, Any] = {"format": _FORMAT, "vault": vault_id, "check": _check(key)}
    match protection:
        case InKeyring():
            record["kind"] = "keyring"
            _into_keyring(vault_id, key)
        case UnderPassphrase(passphrase=passphrase):
            record["kind"] = "passphrase"
            record.update(_wrap(key, passphrase, entropy))
        case InPlainFile():
            record["kind"] = "plain"
            record["key"] = key.hex()
    return record


def load_key(folder: Path, ask: AskPassphrase) -> bytes:
    """The key of the vault in ``folder``; ``ask`` is called only where a passphrase guards it.

    LocalError: no vault there, the wrong passphrase, or a keyring that is locked or has no such entry.
    """
    record = _read(folder)
    try:
        match record["kind"]:
            case "keyring":
                key = _from_keyring(str(record["vault"]))
            case "passphrase":
                key = _unwrap(record, ask())
            case "plain":
                key = bytes.fromhex(record["key"])
            case _:
                raise LocalError("a newer lokket made this vault: install that version again")
        right = len(key) == KEY_BYTES and equal(bytes.fromhex(record["check"]), bytes.fromhex(_check(key)))
    except (KeyError, ValueError, TypeError):
        raise LocalError(_damaged(folder)) from None
    if not right:
        raise LocalError("the key found for this vault is another vault's: restore vault.key or the keyring")
    return key


def kind_of(folder: Path) -> str:
    """keyring, passphrase or plain."""
    return str(_read(folder).get("kind", "unknown"))


def forget_key(folder: Path) -> None:
    """Undo ``make_key``, for a vault that did not come about."""
    with contextlib.suppress(LocalError, KeyError):
        record = _read(folder)
        if record["kind"] == "keyring":
            _forget_in_keyring(str(record["vault"]))
            _forget_in_keyring(str(record["vault"]) + _GENERATION)
    (folder / KEY_FILE).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class KeyringGeneration:
    """How often the vault was opened, as the keyring knows it: an older copy of the folder lags behind.

    A keyring that is locked, gone or asks somebody first is not waited for: then nothing is known.
    """

    vault_id: str

    def read(self) -> int:
        import keyring  # noqa: PLC0415

        kept = _soon(lambda: keyring.get_password(_SERVICE, self.vault_id + _GENERATION))
        return int(kept) if kept is not None and kept.isascii() and kept.isdigit() and len(kept) < 16 else 0

    def write(self, number: int) -> None:
        import keyring  # noqa: PLC0415

        _soon(lambda: keyring.set_password(_SERVICE, self.vault_id + _GENERATION, str(number)))


def generation_of(folder: Path) -> KeyringGeneration | None:
    """None: this vault's key is in no keyring: there may be none, and no command waits to find out."""
    record = _read(folder)
    return KeyringGeneration(str(record.get("vault"))) if record.get("kind") == "keyring" else None


def _soon(ask: Callable[[], str | None]) -> str | None:
    """Its answer; None: it failed, or took too long."""
    answers: list[str | None] = []

    def run() -> None:
        with contextlib.suppress(Exception):  # backends raise what they like; nothing hangs on the answer
            answers.append(ask())

    thread = threading.Thread(target=run, name="lokket-keyring", daemon=True)
    thread.start()
    thread.join(limits.KEYRING_WAIT_S)
    return answers[0] if answers else None


def _check(key: bytes) -> str:
    return hmac_sha256(key, _CHECK).hex()


# --- the keyring ---


def _into_keyring(vault_id: str, key: bytes) -> None:
    import keyring  # noqa: PLC0415
    import keyring.errors  # noqa: PLC0415

    if not keyring_works():
        raise LocalError(
            "there is no keyring on this machine: give --passphrase-fd N, or --insecure-no-passphrase"
        )
    try:
        keyring.set_password(_SERVICE, vault_id, key.hex())
        kept = keyring.get_password(_SERVICE, vault_id)
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        kept = None
    if kept != key.hex():
        raise LocalError("the keyring does not keep the key: unlock it, or give --passphrase-fd N")


def _from_keyring(vault_id: str) -> bytes:
    import keyring  # noqa: PLC0415
    import keyring.errors  # noqa: PLC0415

    try:
        kept = keyring.get_password(_SERVICE, vault_id)
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        raise LocalError("the keyring that holds this vault's key is locked: unlock it") from None
    if kept is None:
        raise LocalError("this vault's key is not in this person's keyring: log in as who made the vault")
    return bytes.fromhex(kept)


def _forget_in_keyring(vault_id: str) -> None:
    import keyring  # noqa: PLC0415
    import keyring.errors  # noqa: PLC0415

    with contextlib.suppress(keyring.errors.KeyringError, RuntimeError, OSError):
        keyring.delete_password(_SERVICE, vault_id)


# --- the passphrase ---


def _wrap(key: bytes, passphrase: str, entropy: Entropy) -> dict[str, Any]:
    if not passphrase:
        raise LocalError("the passphrase is empty: type one, or say --insecure-no-passphrase")
    parameters: dict[str, Any] = {
        "argon2id": {"memory_kib": _MEMORY_KIB, "passes": _PASSES, "lanes": _LANES},
        "salt": entropy.draw(16).hex(),
    }
    wrapping, commitment = _derive(parameters, passphrase)
    # Each salt, and so each wrapping key, is used for this one encryption: the nonce may be constant.
    wrapped = ChaCha20Poly1305(wrapping).encrypt(bytes(12), key, _associated(parameters))
    return {**parameters, "commitment": commitment.hex(), "wrapped": wrapped.hex()}


def _unwrap(record: dict[str, Any], passphrase: str) -> bytes:
    parameters = {name: record[name] for name in ("argon2id", "salt")}
    wrapping, commitment = _derive(parameters, passphrase)
    if not equal(commitment, bytes.fromhex(record["commitment"])):
        raise LocalError("the passphrase does not open this vault")
    try:
        return ChaCha20Poly1305(wrapping).decrypt(
            bytes(12), bytes.fromhex(record["wrapped"]), _associated(parameters)
        )
    except InvalidTag:
        raise ValueError("damaged") from None


def _derive(parameters: dict[str, Any], passphrase: str) -> tuple[bytes, bytes]:
    """Wrapping key and commitment, 32 bytes each. ValueError: parameters out of bounds."""
    costs = parameters["argon2id"]
    memory_kib, passes, lanes = int(costs["memory_kib"]), int(costs["passes"]), int(costs["lanes"])
    if (
        not 8 * lanes <= memory_kib <= limits.ARGON2_MEMORY_MAX_KIB
        or not 1 <= passes <= limits.ARGON2_PASSES_MAX
        or not 1 <= lanes <= limits.ARGON2_LANES_MAX
    ):
        raise ValueError("out of bounds")
    output = Argon2id(
        salt=bytes.fromhex(parameters["salt"]),
        length=64,
        iterations=passes,
        lanes=lanes,
        memory_cost=memory_kib,
    ).derive(unicodedata.normalize("NFC", passphrase).encode())
    return output[:32], output[32:]


def _associated(parameters: dict[str, Any]) -> bytes:
    return json.dumps(parameters, sort_keys=True).encode()


# --- the file ---


def _read(folder: Path) -> dict[str, Any]:
    path = folder / KEY_FILE
    try:
        record = json.loads(path.read_bytes()[: limits.KEY_FILE_MAX_BYTES])
    except FileNotFoundError:
        raise LocalError(f"there is no vault in {folder}: run 'lokket join LINK' first") from None
    except OSError as error:
        raise LocalError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise LocalError(_damaged(folder)) from None
    if not isinstance(record, dict):
        raise LocalError(_damaged(folder))
    return record


def _damaged(folder: Path) -> str:
    return f"{folder / KEY_FILE} is damaged: without it the vault cannot be opened; restore it from a copy"


def _write(folder: Path, record: dict[str, Any]) -> None:
    _write_private(folder / KEY_FILE, json.dumps(record, indent=1).encode() + b"\n")


def _write_private(path: Path, data: bytes) -> None:
    """Mode 0600 from the first byte on, and whole or not at all."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    try:
        file = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(file, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise LocalError(f"cannot write {path}: {error.strerror}") from None
