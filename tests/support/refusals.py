"""A refusal is held to its kind, its code and a sentence: not to the words of the sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lokket.errors import LokketError, RemoteError


@contextmanager
def refusal(kind: type[LokketError], code: str | None = None) -> Iterator[None]:
    """What stands in it is refused: by exactly this kind of error, under this code or else its kind's own."""
    with pytest.raises(kind) as refused:
        yield
    error = refused.value
    assert type(error) is kind
    if isinstance(error, RemoteError):
        assert error.code == (code or kind.code)  # type: ignore[attr-defined]
    assert re.fullmatch(r"([a-z]+|ML-(DSA|KEM)|HKDF) .*[a-z0-9]", str(error)), error
