"""Imports point down only, in no circle, and the layers that decide touch neither clock nor chance nor world.

docs/architecture.md, "Layers". A room may import itself, what ``MAY_IMPORT`` names, and nothing else of ours.
"""

from __future__ import annotations

import ast
import sys
import textwrap
import tomllib
from graphlib import CycleError, TopologicalSorter
from typing import Final

import pytest

from tests.house.tree import ROOT, SOURCE, Module, imports_of, modules, room_of, targets

GROUND: Final = frozenset({"errors", "limits"})
DOWN_TO_WIRE: Final = GROUND | {"codec", "crypto", "protocol", "wire"}
MAY_IMPORT: Final = {
    "errors": frozenset[str](),
    "limits": frozenset[str](),
    "codec": GROUND,
    "crypto": GROUND | {"codec"},
    "system": GROUND | {"codec", "crypto"},
    "disk": GROUND,
    "protocol": GROUND | {"codec", "crypto"},
    "wire": DOWN_TO_WIRE,
    "engine": DOWN_TO_WIRE,
    "relay": DOWN_TO_WIRE | {"system", "disk"},
    "client": DOWN_TO_WIRE | {"system", "disk", "engine"},
    "bot": DOWN_TO_WIRE | {"system", "engine", "client"},
    "testing": DOWN_TO_WIRE | {"system", "engine", "client", "bot", "relay"},
    "apps": DOWN_TO_WIRE | {"system", "engine", "client", "bot", "relay", "testing", ""},
    "": GROUND,
}

# What the relay may see of the protocol: enough to verify, nothing that decrypts.
RELAY_SEES: Final = ("lokket.protocol.identity", "lokket.protocol.prekeys")

PURE: Final = frozenset({"codec", "crypto", "protocol", "wire", "engine"})
IMPURE_MODULES: Final = frozenset(
    {"asyncio", "time", "datetime", "os", "random", "secrets", "socket", "sqlite3", "threading"}
    | {"concurrent", "contextvars", "http", "logging", "multiprocessing", "pathlib", "queue", "select"}
    | {"selectors", "shutil", "signal", "ssl", "subprocess", "tempfile"}
)
THIRD_PARTY: Final = {
    "errors": frozenset[str](),
    "limits": frozenset[str](),
    "codec": frozenset[str](),
    "crypto": frozenset({"cryptography"}),
    "system": frozenset({"cryptography"}),
    "disk": frozenset({"apsw"}),
    "protocol": frozenset({"cryptography"}),
    "wire": frozenset({"msgspec"}),
    "engine": frozenset({"msgspec"}),
    "": frozenset[str](),
}


def violations(module: Module, known: frozenset[str]) -> list[str]:
    """What ``module`` imports of ours and may not."""
    allowed = MAY_IMPORT[module.room] | {module.room}
    wrong = []
    for target, line in targets(module, known):
        room = room_of(target)
        if room not in allowed:
            wrong.append(f"{module.at(line)}: {module.room or 'lokket'} may not import {target}")
        elif module.room == "relay" and room == "protocol" and not within(target, RELAY_SEES):
            wrong.append(f"{module.at(line)}: the relay may see only {', '.join(RELAY_SEES)}")
    return wrong


def impurities(module: Module) -> list[str]:
    """What ``module`` imports from outside and may not."""
    wrong = []
    for item in module.imports:
        top = item.module.split(".")[0]
        if top in ("lokket", "__future__"):
            continue
        if top in sys.stdlib_module_names:
            if module.room in PURE and top in IMPURE_MODULES:
                wrong.append(
                    f"{module.at(item.line)}: {top} in a layer that decides; hand it in as an argument"
                )
        elif module.room in THIRD_PARTY and top not in THIRD_PARTY[module.room]:
            wrong.append(f"{module.at(item.line)}: {module.room or 'lokket'} may not import {top}")
    return wrong


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_every_room_has_its_place() -> None:
    assert {module.room for module in modules().values()} <= set(MAY_IMPORT)


def test_imports_point_down() -> None:
    known = frozenset(modules())
    wrong = [line for module in modules().values() for line in violations(module, known)]
    assert not wrong, "\n".join(wrong)


def test_no_import_circles() -> None:
    known = frozenset(modules())
    graph = {
        name: {target for target, _ in targets(module, known) if target in known and target != name}
        for name, module in modules().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("import circle: " + " <- ".join(error.args[1]))


def test_layers_that_decide_are_pure() -> None:
    wrong = [line for module in modules().values() for line in impurities(module)]
    assert not wrong, "\n".join(wrong)


def test_third_party_imports_are_declared() -> None:
    declared = declared_packages()
    wrong = [
        f"{module.at(item.line)}: {item.module} is no dependency in pyproject.toml"
        for module in modules().values()
        for item in module.imports
        if (top := item.module.split(".")[0]) not in sys.stdlib_module_names
        and top not in declared | {"lokket", "__future__"}
    ]
    assert not wrong, "\n".join(wrong)


def declared_packages() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.split(">=")[0].split(";")[0].strip().replace("-", "_") for line in project["dependencies"]}
    return names - {"apsw_sqlite3mc"} | {"apsw"}


# --- randomness enters at one place ---

DRAWING_METHODS: Final = frozenset({"encapsulate", "generate", "generate_private_key"})
DRAWING_FUNCTIONS: Final = frozenset({"urandom", "uuid1", "uuid4"})


def draws(module: Module) -> list[str]:
    """Calls by which ``cryptography`` would draw randomness of its own."""
    foreign = {
        name for item in module.imports if item.module.split(".")[0] == "cryptography" for name in item.names
    }
    has_hpke = any("hpke" in f"{item.module} {item.names}".lower() for item in module.imports
                   if item.module.startswith("cryptography"))  # fmt: skip
    wrong = [
        f"{module.at(item.line)}: {name} draws; take it from Entropy"
        for item in module.imports
        for name in item.names
        if name in DRAWING_FUNCTIONS
    ]
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Attribute):
            continue
        receiver = ast.unparse(node.value)
        if (
            (node.attr in DRAWING_METHODS and receiver.split(".")[0] in foreign)
            or (node.attr == "encapsulate" and not receiver.endswith("entropy"))
            or (node.attr == "sign" and receiver.endswith(".key"))
            or (has_hpke and node.attr in ("encrypt", "seal"))
            or node.attr in DRAWING_FUNCTIONS
        ):
            wrong.append(f"{module.at(node.lineno)}: {receiver}.{node.attr} draws; take it from Entropy")
    return wrong


def test_randomness_is_drawn_in_system_alone() -> None:
    wrong = [line for module in modules().values() if module.room != "system" for line in draws(module)]
    assert not wrong, "\n".join(wrong)


def test_mldsa_private_keys_stay_in_two_files() -> None:
    users = {
        module.name
        for module in modules().values()
        for item in module.imports
        if any(name.startswith("MLDSA") and name.endswith("PrivateKey") for name in item.names)
    }
    assert users <= {"lokket.crypto.keys", "lokket.system"}


# --- the checks above can fail ---


def sample(name: str, text: str) -> Module:
    tree = ast.parse(textwrap.dedent(text))
    path = SOURCE.joinpath(*name.split(".")).with_suffix(".py")
    return Module(name, path, text, tree, tuple(imports_of(tree, name, is_package=False)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lokket.codec.x", "from lokket.crypto import keys"),
        ("lokket.protocol.x", "from ..wire import api"),
        ("lokket.engine.x", "import lokket.relay.relay"),
        ("lokket.relay.x", "from lokket.engine import events"),
        ("lokket.relay.x", "from lokket.protocol import pairwise"),
        ("lokket.relay.x", "from lokket.protocol.pairwise.sesame import begin"),
        ("lokket.wire.x", "def later():\n    from lokket.client import client"),
        ("lokket.client.x", "from .. import relay"),
    ],
)
def test_an_import_upwards_is_seen(name: str, text: str) -> None:
    known = frozenset(modules()) | {"lokket.relay", "lokket.protocol.pairwise", "lokket.client"}
    assert violations(sample(name, text), known)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lokket.engine.x", "import time"),
        ("lokket.codec.x", "from os import urandom"),
        ("lokket.protocol.x", "import msgspec"),
        ("lokket.codec.x", "from cryptography.hazmat.primitives import hashes"),
        ("lokket.engine.x", "from pydantic import BaseModel"),
        ("lokket.crypto.x", "def later():\n    import asyncio.events"),
    ],
)
def test_an_impurity_is_seen(name: str, text: str) -> None:
    assert impurities(sample(name, text))


@pytest.mark.parametrize(
    "text",
    [
        "from cryptography.x import X25519PrivateKey\nX25519PrivateKey.generate()",
        "public_key.encapsulate()",
        "pair.key.sign(message, context)",
        "from cryptography.hazmat.primitives import hpke\nsuite.encrypt(message, key)",
        "import os\nos.urandom(3)",
        "from uuid import uuid4",
    ],
)
def test_a_draw_is_seen(text: str) -> None:
    assert draws(sample("lokket.crypto.x", text))


def test_entropy_may_be_used() -> None:
    assert not draws(sample("lokket.crypto.x", "entropy.encapsulate(key)\nself.entropy.sign_mldsa(a, b, c)"))
