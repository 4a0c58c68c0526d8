"""What the documents name exists: rooms, files, make targets."""

from __future__ import annotations

import re

from tests.house.test_layers import MAY_IMPORT
from tests.house.test_readme import documents
from tests.house.tree import ROOT, modules

PATH = re.compile(r"`((?:src|tests|docs|fuzz|bench|requirements)/[\w./-]+|[a-z]+\.py|[A-Z]+\.md)`")
TARGET = re.compile(r"`?make ([a-z][a-z-]+)")


def test_every_room_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = {module.room for module in modules().values()} - {""}
    missing = [room for room in sorted(rooms) if f"`{room}`" not in text and f"`{room}.py`" not in text]
    assert not missing
    assert rooms <= set(MAY_IMPORT)


def test_named_files_exist() -> None:
    missing = []
    for document in documents():
        for name in PATH.findall(document.read_text(encoding="utf-8")):
            if "NAME" in name:
                continue
            places = (ROOT / name, ROOT / "src" / "lokket" / name, document.parent / name)
            if not any(place.exists() for place in places):
                missing.append(f"{document.relative_to(ROOT)}: {name}")
    assert not missing, "\n".join(missing)


def test_named_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (document.name, target)
        for document in documents()
        for line in re.findall(r"`[^`\n]*`|^\s*make .*$", document.read_text(encoding="utf-8"), re.MULTILINE)
        for target in TARGET.findall(line)
    }
    assert not [pair for pair in named if pair[1] not in targets]
