"""The package as published: the same bytes from the same tree, typed, whole, without strays."""

from __future__ import annotations

import tarfile
import zipfile
from pathlib import Path

from tests.house.conftest import Build
from tests.house.tree import SOURCE, modules


def test_two_builds_give_the_same_bytes(build: Build, tmp_path: Path) -> None:
    first, second = build(tmp_path / "first"), build(tmp_path / "second")
    assert [path.name for path in first] == [path.name for path in second]
    assert [path.suffix for path in first] == [".whl", ".gz"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), f"{one.name} differs between two builds"


def test_the_wheel_is_typed_and_whole(build: Build, tmp_path: Path) -> None:
    wheel = build(tmp_path)[0]
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "lokket/py.typed" in names
    assert {str(module.path.relative_to(SOURCE)) for module in modules().values()} <= names
    assert {name.split("/")[0] for name in names} == {"lokket", "lokket-0.1.0.dist-info"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_sdist_can_be_tested(build: Build, tmp_path: Path) -> None:
    sdist = build(tmp_path)[1]
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"Makefile", "README.md", "LICENSE", "requirements/dev.lock", "tests/house/tree.py"} <= names
    assert not [name for name in names if "node_modules" in name or name.endswith((".db", ".pyc"))]
