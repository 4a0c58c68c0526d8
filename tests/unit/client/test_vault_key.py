"""Where the vault's key is kept, and that it is nowhere else."""

from __future__ import annotations

import contextlib
import itertools
import json
import stat
import unicodedata
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import keyring.backends.null
import keyring.errors
import pytest

from lokket import limits
from lokket.client import vault_key
from lokket.client.vault_key import (
    InKeyring,
    InPlainFile,
    UnderPassphrase,
    forget_key,
    guard_anew,
    keyring_works,
    load_key,
    make_key,
)
from lokket.errors import LocalError
from tests.support.entropy import SeededEntropy
from tests.support.keyrings import Drawer, in_place

ENTROPY = SeededEntropy("vault key")
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def drawer(monkeypatch: pytest.MonkeyPatch) -> Drawer:
    return in_place(monkeypatch)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vault_key, "_MEMORY_KIB", 64)
    monkeypatch.setattr(vault_key, "_PASSES", 1)


def nobody() -> str:
    raise AssertionError("nobody should be asked")


def everything(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_passphrase_opens_and_a_wrong_one_is_told_in_a_sentence(tmp_path: Path, cheap: None) -> None:
    key = make_key(tmp_path, UnderPassphrase(PASSPHRASE), ENTROPY)
    assert len(key) == 32
    assert load_key(tmp_path, lambda: PASSPHRASE) == key
    with pytest.raises(LocalError, match="passphrase does not open"):
        load_key(tmp_path, lambda: PASSPHRASE + " ")


def test_the_cost_of_guessing_is_what_rfc_9106_recommends(tmp_path: Path) -> None:
    make_key(tmp_path, UnderPassphrase(PASSPHRASE), ENTROPY)
    costs = json.loads((tmp_path / "vault.key").read_text())["argon2id"]
    assert costs == {"memory_kib": 65536, "passes": 3, "lanes": 4}


def test_one_passphrase_however_it_was_typed(tmp_path: Path, cheap: None) -> None:
    key = make_key(tmp_path, UnderPassphrase(unicodedata.normalize("NFD", "Schlüssel")), ENTROPY)
    assert load_key(tmp_path, lambda: unicodedata.normalize("NFC", "Schlüssel")) == key


def test_an_empty_passphrase_is_none(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="empty"):
        make_key(tmp_path, UnderPassphrase(""), ENTROPY)
    assert not (tmp_path / "vault.key").exists()


@pytest.mark.attack(92)
def test_the_key_is_in_no_file_under_a_passphrase(tmp_path: Path, cheap: None) -> None:
    key = make_key(tmp_path, UnderPassphrase(PASSPHRASE), ENTROPY)
    data = everything(tmp_path)
    for secret in (key, key.hex().encode(), PASSPHRASE.encode()):
        assert secret not in data


@pytest.mark.attack(92)
def test_the_key_is_in_no_file_with_a_keyring(tmp_path: Path, drawer: Drawer) -> None:
    key = make_key(tmp_path, InKeyring(), ENTROPY)
    assert key.hex() in drawer.kept.values()
    assert load_key(tmp_path, nobody) == key
    data = everything(tmp_path)
    assert key not in data
    assert key.hex().encode() not in data


@pytest.mark.attack(92)
def test_a_plain_file_only_when_asked_for_and_then_private(tmp_path: Path) -> None:
    key = make_key(tmp_path / "profile", InPlainFile(), ENTROPY)
    assert load_key(tmp_path / "profile", nobody) == key
    path = tmp_path / "profile" / "vault.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["kind"] == "plain"


@pytest.mark.parametrize("backend", [keyring.backends.fail.Keyring, keyring.backends.null.Keyring])
def test_a_keyring_that_keeps_nothing_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backend: type[keyring.backend.KeyringBackend]
) -> None:
    monkeypatch.setattr(keyring, "get_keyring", backend)
    assert not keyring_works()
    with pytest.raises(LocalError, match="no keyring"):
        make_key(tmp_path, InKeyring(), ENTROPY)
    assert not everything(tmp_path)


def test_a_keyring_that_forgets_at_once_is_noticed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawer: Drawer
) -> None:
    monkeypatch.setattr(keyring, "set_password", lambda *_: None)
    with pytest.raises(LocalError, match="does not keep"):
        make_key(tmp_path, InKeyring(), ENTROPY)
    assert not everything(tmp_path)


def test_a_locked_keyring_and_an_emptied_one(tmp_path: Path, drawer: Drawer) -> None:
    make_key(tmp_path, InKeyring(), ENTROPY)
    assert keyring_works()
    drawer.locked = True
    with pytest.raises(LocalError, match="locked"):
        load_key(tmp_path, nobody)
    assert not keyring_works()
    drawer.locked = False
    drawer.kept.clear()
    with pytest.raises(LocalError, match="not in this person's keyring"):
        load_key(tmp_path, nobody)


def test_another_vaults_key_is_noticed(tmp_path: Path, drawer: Drawer) -> None:
    make_key(tmp_path, InKeyring(), ENTROPY)
    for name in drawer.kept:
        drawer.kept[name] = bytes(32).hex()
    with pytest.raises(LocalError, match="another vault's"):
        load_key(tmp_path, nobody)


def test_forgetting_takes_the_entry_out_of_the_keyring(tmp_path: Path, drawer: Drawer) -> None:
    make_key(tmp_path, InKeyring(), ENTROPY)
    forget_key(tmp_path)
    assert not drawer.kept
    assert not everything(tmp_path)
    forget_key(tmp_path)


@pytest.mark.attack(100)
def test_a_wrapped_key_opens_under_one_passphrase_only(tmp_path: Path, cheap: None) -> None:
    """Whoever can write the file cannot make it answer two passphrases: the commitment is of one."""
    make_key(tmp_path, UnderPassphrase(PASSPHRASE), ENTROPY)
    path = tmp_path / "vault.key"
    record = json.loads(path.read_text())
    other = tmp_path / "other"
    make_key(other, UnderPassphrase("another"), ENTROPY)
    theirs = json.loads((other / "vault.key").read_text())
    for taken in (
        ("wrapped",),
        ("commitment",),
        ("salt",),
        ("wrapped", "commitment"),
        ("salt", "commitment"),
    ):
        path.write_text(json.dumps({**record, **{name: theirs[name] for name in taken}}))
        for passphrase in (PASSPHRASE, "another"):
            with pytest.raises(LocalError):
                load_key(tmp_path, lambda passphrase=passphrase: passphrase)


@pytest.mark.parametrize(
    "change",
    [
        {"argon2id": {"memory_kib": limits.ARGON2_MEMORY_MAX_KIB + 1, "passes": 1, "lanes": 1}},
        {"argon2id": {"memory_kib": 64, "passes": limits.ARGON2_PASSES_MAX + 1, "lanes": 1}},
        {"argon2id": {"memory_kib": 512, "passes": 1, "lanes": limits.ARGON2_LANES_MAX + 1}},
        {"argon2id": {"memory_kib": 1, "passes": 1, "lanes": 1}},
        {"argon2id": {}},
        {"argon2id": None},
        {"salt": "no hex"},
        {"salt": ""},
        {"wrapped": "00"},
        {"check": 7},
        {"kind": "of tomorrow"},
    ],
)
def test_a_damaged_key_file_is_told_in_a_sentence(
    tmp_path: Path, cheap: None, change: dict[str, object]
) -> None:
    make_key(tmp_path, UnderPassphrase(PASSPHRASE), ENTROPY)
    path = tmp_path / "vault.key"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(LocalError):
        load_key(tmp_path, lambda: PASSPHRASE)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", b"\xff", b"{}" + b" " * 10_000 + b"x"])
def test_any_bytes_for_a_key_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "vault.key").write_bytes(content)
    with pytest.raises(LocalError):
        load_key(tmp_path, nobody)


@pytest.mark.attack(98)
def test_repr_hides_the_passphrase() -> None:
    assert PASSPHRASE not in repr(UnderPassphrase(PASSPHRASE))


# --- another guard for the same key ---

GUARDS = (InKeyring(), UnderPassphrase(PASSPHRASE), UnderPassphrase("another one"), InPlainFile())


def passphrase_of(guard: vault_key.Protection) -> str:
    return guard.passphrase if isinstance(guard, UnderPassphrase) else nobody()


@pytest.mark.parametrize("before", GUARDS)
@pytest.mark.parametrize("after", GUARDS)
def test_the_guard_changes_and_the_key_stays(
    tmp_path: Path, drawer: Drawer, cheap: None, before: vault_key.Protection, after: vault_key.Protection
) -> None:
    key = make_key(tmp_path, before, ENTROPY)
    guard_anew(tmp_path, lambda: passphrase_of(before), after, ENTROPY)
    assert load_key(tmp_path, lambda: passphrase_of(after)) == key
    assert len(drawer.kept) == isinstance(after, InKeyring)
    assert (key.hex().encode() in everything(tmp_path)) == isinstance(after, InPlainFile)
    if before != after and isinstance(after, UnderPassphrase):
        with pytest.raises(LocalError):
            load_key(tmp_path, lambda: "neither")


def test_the_old_passphrase_is_needed_and_then_worth_nothing(tmp_path: Path, cheap: None) -> None:
    make_key(tmp_path, UnderPassphrase(PASSPHRASE), ENTROPY)
    with pytest.raises(LocalError, match="does not open"):
        guard_anew(tmp_path, lambda: "wrong", UnderPassphrase("new"), ENTROPY)
    guard_anew(tmp_path, lambda: PASSPHRASE, UnderPassphrase("new"), ENTROPY)
    with pytest.raises(LocalError, match="does not open"):
        load_key(tmp_path, lambda: PASSPHRASE)


class Killed(BaseException):
    """The process is gone."""


STEPS = ("_into_keyring", "_write_private", "_forget_in_keyring")


@pytest.mark.parametrize("change", list(itertools.product(GUARDS, GUARDS)), ids=str)
def test_a_crash_at_any_moment_leaves_a_vault_that_opens(
    tmp_path: Path,
    drawer: Drawer,
    cheap: None,
    monkeypatch: pytest.MonkeyPatch,
    change: tuple[vault_key.Protection, vault_key.Protection],
) -> None:
    """Killed before and after each of the steps that change anything."""
    before, after = change
    for name, done in itertools.product(STEPS, (False, True)):
        folder = tmp_path / f"{name} {done}"
        key = make_key(folder, before, ENTROPY)
        real = getattr(vault_key, name)

        def step(*arguments: object, real: object = real, done: bool = done) -> None:
            if done:
                real(*arguments)  # type: ignore[operator]
            raise Killed

        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(vault_key, name, step)
            guard_anew(folder, lambda: passphrase_of(before), after, ENTROPY)
        opens = []
        for guard in change:
            with contextlib.suppress(LocalError, AssertionError):
                opens.append(load_key(folder, lambda guard=guard: passphrase_of(guard)))  # type: ignore[misc]
        assert key in opens, (name, done)


def test_a_disk_that_refuses_leaves_everything_as_it_was(
    tmp_path: Path, drawer: Drawer, cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make_key(tmp_path, UnderPassphrase(PASSPHRASE), ENTROPY)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        with pytest.raises(LocalError, match="No space"):
            guard_anew(tmp_path, lambda: PASSPHRASE, InKeyring(), ENTROPY)
    assert drawer.kept == {}
    assert load_key(tmp_path, lambda: PASSPHRASE) == key
    guard_anew(tmp_path, lambda: PASSPHRASE, InKeyring(), ENTROPY)
    assert load_key(tmp_path, nobody) == key
