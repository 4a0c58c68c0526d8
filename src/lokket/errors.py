"""Two kinds of failure: theirs and ours.

A ``RemoteError`` says that bytes from outside are bad: drop them, count them, never crash. A
``LocalError`` says that the caller misused an interface, or that this machine cannot do what was
asked. Neither ever carries plaintext or key material in its message.
"""

from __future__ import annotations


class LokketError(Exception):
    """Base of everything this package raises on purpose."""


class LocalError(LokketError):
    """Our misuse or our machine: raised to the caller, with a sentence that says what to do."""


class RemoteError(LokketError):
    """Their bytes are bad. ``code`` is a stable word for records and metrics; peers never see it."""

    code = "refused"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class DecodeError(RemoteError):
    """Bytes that are not the structure they claim to be."""

    code = "malformed"


class KeyRefused(RemoteError):
    """A public key that is not canonical, of low order, outside the prime-order group, or degenerate."""

    code = "bad-key"


class SignatureRefused(RemoteError):
    """A signature that does not verify under the key it names."""

    code = "bad-signature"


class DecryptionFailed(RemoteError):
    """A ciphertext that no key of ours opens. The code says which step refused; the peer never learns it."""

    code = "undecryptable"


class DuplicateMessage(RemoteError):
    """A ciphertext whose message key is gone: nearly always one that was delivered before.

    It may also be a late message whose key was dropped for the bounds in ``limits``, or, in a session, a
    forgery under a number that was used: the number is looked up before the MAC is checked.
    """

    code = "duplicate"
