"""Every Python block of the README and of docs/ runs as it stands, in a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lokket.errors import DecodeError
from lokket.limits import ARCHIVED_SESSIONS_MAX
from lokket.protocol import pairwise
from tests.house.tree import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks() -> Iterator[tuple[str, str]]:
    for path in documents():
        text = path.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{path.relative_to(ROOT)}:{line}", match[1]


@pytest.mark.parametrize(("place", "code"), [pytest.param(*block, id=block[0]) for block in blocks()])
def test_a_python_block_runs(place: str, code: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, f"{place}:\n{result.stderr}"


def test_the_readme_shows_code_that_runs() -> None:
    assert any(place.startswith("README.md") for place, _ in blocks())


def test_links_between_documents_lead_somewhere() -> None:
    dead = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents()
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not dead, "\n".join(dead)


def test_the_store_that_the_library_shows_is_as_safe_as_it_says() -> None:
    """It will be copied: two devices of one account, a first message replayed, a record that is damaged."""
    code = next(code for place, code in blocks() if place.startswith("docs/library/state.md"))
    shown: dict[str, Any] = {}
    exec(code, shown)
    entropy, alice, bob = shown["entropy"], shown["alice"], shown["bob"]

    def begun(store: Any) -> None:
        record, now = store.record(bob.local.address), shown["now_ms"]()
        record = pairwise.begin(record, store.local, shown["bundle"], now, entropy)
        store.keep(bob.local.address, record)

    address = pairwise.Address(alice.local.address.service_id, 2)
    second = shown["Store"](
        pairwise.LocalDevice(pairwise.IdentityKeyPair(entropy.draw(32)), 1, address), bob.prekeys
    )
    begun(second)
    for store in (second, alice, second):
        assert bob.receive(store.local.address, store.send(bob.local.address, b"from either"))

    for _ in range(ARCHIVED_SESSIONS_MAX + 1):
        begun(alice)
        assert bob.receive(alice.local.address, alice.send(bob.local.address, b"anew"))
    assert not bob.receive(alice.local.address, shown["first"])
    assert bob.rows.execute("SELECT count(*) FROM inbox WHERE text = ?", (b"hi",)).fetchone() == (1,)
    assert bob.receive(alice.local.address, alice.send(bob.local.address, b"the session is the newest still"))

    bob.rows.execute("UPDATE session SET record = x'00'")
    with pytest.raises(DecodeError):
        bob.receive(alice.local.address, alice.send(bob.local.address, b"not dropped"))
