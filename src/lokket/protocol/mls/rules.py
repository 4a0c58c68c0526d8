"""The numbered rules of RFC 9420: what each refusal is called, so that a test can ask for every one.

An id is the RFC's section and a number of our own in it, in the order of the section's text.
"""

from __future__ import annotations

from typing import Final, NoReturn

from lokket.errors import RemoteError

RULES: Final[dict[str, str]] = {}  # id -> what the rule asks for


class RuleBroken(RemoteError):
    """A peer's bytes break a rule of RFC 9420. ``rule`` is its id, ``code`` is ``mls-`` and the id."""

    def __init__(self, rule: str) -> None:
        super().__init__(f"RFC 9420 {rule}: {RULES[rule]}", code=f"mls-{rule}")
        self.rule = rule


class Rule:
    """One rule, made where its module keeps it; calling it refuses."""

    __slots__ = ("id",)

    def __init__(self, number: str, asks: str) -> None:
        assert number not in RULES, f"two rules have the number {number}"
        RULES[number] = asks
        self.id = number

    def broken(self) -> NoReturn:
        raise RuleBroken(self.id)

    def require(self, kept: bool) -> None:
        """RuleBroken: ``kept`` is false."""
        if not kept:
            raise RuleBroken(self.id)
