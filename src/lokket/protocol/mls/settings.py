"""What a client brings to its groups: hooks, choices, and who it is. None of it is stored with a group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableSet
from dataclasses import dataclass, field, replace

from lokket.crypto.entropy import Entropy
from lokket.errors import LocalError
from lokket.limits import (
    DAY_S,
    MLS_KEY_PACKAGE_DAYS,
    MLS_LIFETIME_MAX_DAYS,
    MLS_PAST_EPOCH_S,
    MLS_PAST_EPOCHS,
    PADDING_BLOCK_BYTES,
)
from lokket.protocol.mls.credentials import CredentialCheck
from lokket.protocol.mls.messages import WireFormat
from lokket.protocol.mls.proposals import ExternalPSK, ResumptionPSK
from lokket.protocol.mls.signatures import SignatureKeyPair
from lokket.protocol.mls.structs import GREASE, MLS10, Capabilities, Credential, CredentialType, ExtensionType
from lokket.protocol.mls.suite import SUITES, CipherSuite

FindPSK = Callable[[ExternalPSK | ResumptionPSK], bytes | None]


def no_psks(_: ExternalPSK | ResumptionPSK) -> bytes | None:
    """A ``find_psk`` that knows none."""
    return None


@dataclass(frozen=True, slots=True)
class Settings:
    """``check_credential`` has no default: a group without it would take anybody for anyone.

    ``find_psk`` gives external keys by id and resumption keys of other groups. ``handshake`` is how proposals
    and commits travel; ``padding_block_bytes`` is what the contents of PrivateMessages are filled up to.
    """

    check_credential: CredentialCheck
    find_psk: FindPSK = no_psks
    suites: Mapping[int, CipherSuite] = field(default_factory=lambda: SUITES)
    handshake: WireFormat = WireFormat.PRIVATE_MESSAGE
    padding_block_bytes: int = PADDING_BLOCK_BYTES
    past_epochs: int = MLS_PAST_EPOCHS  # whose late application messages still open
    past_epoch_s: int = MLS_PAST_EPOCH_S  # and for how long after their end
    key_package_s: int = MLS_KEY_PACKAGE_DAYS * DAY_S  # how long our own count
    verified_leaves: MutableSet[bytes] | None = None  # a cache: makes joining again cheap
    grease: bool = True  # section 13.5
    lifetime_max_s: int = MLS_LIFETIME_MAX_DAYS * DAY_S  # the whole lifetime of what we add, at most

    def __post_init__(self) -> None:
        if self.padding_block_bytes < 1:
            raise LocalError("a padding block has one byte or more; one byte is no padding")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is in a group: its credential, the key that it belongs to, and what it can do."""

    credential: Credential
    signature: SignatureKeyPair
    capabilities: Capabilities


def capabilities(
    suites: Mapping[int, CipherSuite] = SUITES,
    extensions: tuple[int, ...] = (),
    proposals: tuple[int, ...] = (),
    credentials: tuple[int, ...] = (CredentialType.BASIC,),
) -> Capabilities:
    """What this library can do (section 7.2), and what the application adds to it."""
    return Capabilities(
        versions=(MLS10,),
        cipher_suites=tuple(sorted(suites)),
        extensions=(ExtensionType.LAST_RESORT, *extensions),
        proposals=proposals,
        credentials=credentials,
    )


def greased(given: Capabilities, entropy: Entropy) -> Capabilities:
    """With one number from the reserved ones in each list, so that nobody learns to refuse the unknown."""
    numbers = [GREASE[byte % len(GREASE)] for byte in entropy.draw(4)]
    return replace(
        given,
        cipher_suites=(*given.cipher_suites, numbers[0]),
        extensions=(*given.extensions, numbers[1]),
        proposals=(*given.proposals, numbers[2]),
        credentials=(*given.credentials, numbers[3]),
    )
