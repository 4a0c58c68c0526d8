"""The fuzzers' promise on their own corpus and on mutations of it: a value or a RemoteError, nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lokket.errors import RemoteError

FUZZ = Path(__file__).parent.parent.parent / "fuzz"
MUTATIONS = 200


def _load(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(f"fuzz_{name}", FUZZ / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


TARGETS = _load("targets").TARGETS


def corpus(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((FUZZ / "corpus" / name).iterdir())]


def outcome(name: str, data: bytes) -> type[RemoteError] | None:
    """None: the bytes were accepted. Anything but a RemoteError passes through and fails the test."""
    try:
        TARGETS[name](data)
    except RemoteError as error:
        return type(error)
    return None


@pytest.mark.attack(16)
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_corpus_gives_values_or_remote_errors(name: str) -> None:
    outcomes = [outcome(name, data) for data in corpus(name)]
    assert None in outcomes, "the corpus of a target holds something that decodes (fuzz/seeds.py renews it)"


@pytest.mark.attack(16)
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_mutations_give_values_or_remote_errors(name: str) -> None:
    seeds = corpus(name)

    @settings(max_examples=MUTATIONS, deadline=None, database=None)
    @given(mutations(seeds))
    def mutate(data: bytes) -> None:
        outcome(name, data)

    mutate()


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A corpus entry after one to four cuts, flips, insertions, repetitions or splices."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(("cut", "flip", "set", "insert", "repeat", "splice", "truncate"))):
            case "cut":
                del data[at : at + draw(st.integers(1, 40))]
            case "flip" if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "set" if at < len(data):
                data[at] = draw(st.sampled_from((0x00, 0x01, 0x3F, 0x40, 0x7F, 0x80, 0xBF, 0xC0, 0xFF)))
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=12))
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
            case "splice":
                data[at:] = draw(st.sampled_from(seeds))[draw(st.integers(0, 200)) :]
            case "truncate":
                del data[at:]
    return bytes(data)
