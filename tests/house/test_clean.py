"""Nothing in the tree belongs to one machine: no package host, no absolute path; locks pin and hash."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.house.tree import ROOT, tracked_files

HOSTS: Final = re.compile(
    r"(?:pypi|pythonhosted|npmjs|yarnpkg|crates)\.(?:org|io|com)|--(?:extra-)?index-url[ =]|--find-links[ =]"
    r"|\"resolved\": *\"|/packages/[0-9a-f]{2}/[0-9a-f]{2}/"
)
PATHS: Final = re.compile(r"(?<![\w.~}>-])/(?:root|work|tmp|opt|mnt|home/\w+|Users/\w+)/[\w.]")
REQUIREMENT: Final = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; [^\\]+)? \\$")
LOCKS: Final = ("run", "dev", "bare", "fuzz", "mutation", "lock", "bench")


def strangers(text: str) -> list[str]:
    parent = str(ROOT.parent).rstrip("/") + "/"
    here = re.compile(r"(?<![\w.~}>-])" + re.escape(parent) + r"\w") if parent != "/" else PATHS
    return [
        line.strip()[:120]
        for line in text.splitlines()
        if HOSTS.search(line) or PATHS.search(line) or here.search(line)
    ]


def test_no_package_hosts_and_no_paths_of_a_machine() -> None:
    wrong = []
    for path in tracked_files():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        wrong += [f"{path.relative_to(ROOT)}: {line}" for line in strangers(text)]
    assert not wrong, "\n".join(wrong[:40])


@pytest.mark.parametrize(
    "line",
    [
        '"resolved": "https:',
        "see https://files.pythonhosted.org",
        "registry.npmjs.org",
        "pip install --index-url https",
        'open("/root/x")',
        "/home/alice/lokket",
        f"{ROOT.parent}/other",
    ],
)
def test_a_stranger_is_seen(line: str) -> None:
    assert strangers(line)


@pytest.mark.parametrize("line", ["~/.local/share/lokket", "{root}/tmp/x", "../shared/vectors", "a/work/b"])
def test_a_path_of_nobody_is_allowed(line: str) -> None:
    assert not strangers(line)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything(name: str) -> None:
    for line in lock_lines(name):
        assert REQUIREMENT.match(line) or re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?", line), line
    assert pins(name)


def test_locks_agree_and_hold_what_the_project_asks_for() -> None:
    run, dev = pins("run"), pins("dev")
    assert run.items() <= dev.items()
    assert pins("bare").items() <= run.items()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert {requirement_name(line) for line in project["project"]["dependencies"]} <= run.keys()
    for group in ("build", "test", "quality"):
        assert {requirement_name(line) for line in project["dependency-groups"][group]} <= dev.keys()


def test_the_protocol_library_needs_cryptography_alone() -> None:
    assert set(pins("bare")) == {"cryptography", "cffi", "pycparser"}


def test_npm_lock_has_integrity_and_no_addresses() -> None:
    path = ROOT / "tests" / "interop" / "libsignal" / "package-lock.json"
    packages = json.loads(path.read_text())["packages"]
    installed = {name: entry for name, entry in packages.items() if name}
    assert installed
    assert all("integrity" in entry and "resolved" not in entry for entry in installed.values())


def lock_lines(name: str) -> list[str]:
    lines = (ROOT / "requirements" / f"{name}.lock").read_text().splitlines()
    return [line for line in lines if not line.startswith("#")]


def pins(name: str) -> dict[str, str]:
    return {match[1]: match[2] for line in lock_lines(name) if (match := REQUIREMENT.match(line))}


def requirement_name(line: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", line)
    assert match is not None
    return re.sub(r"[-_.]+", "-", match[0]).lower()
