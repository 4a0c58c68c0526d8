"""Messaging Layer Security (RFC 9420): groups whose members agree on every epoch's keys.

``docs/mls.md`` shows a group's life, says what each refusal means and what is not carried. Time is an
argument (``now_s``, seconds since 1970) and so is randomness (``Entropy``). Errors are ``RemoteError`` where
others' bytes are refused (``RuleBroken`` names the rule), ``LocalError`` where we asked for what cannot be.
"""

from __future__ import annotations

from lokket.protocol.mls.committing import CommitOptions, Sent
from lokket.protocol.mls.creation import Founding
from lokket.protocol.mls.credentials import ChangeKind, CredentialCheck, LeafChange
from lokket.protocol.mls.external import ExternalOptions, propose_from_outside, propose_joining
from lokket.protocol.mls.group import (
    Group,
    StagedCommit,
    branch_group,
    create_group,
    join_by_commit,
    join_group,
    reinitialise_group,
)
from lokket.protocol.mls.key_packages import OwnKeyPackage, make_key_package, read_key_package
from lokket.protocol.mls.messages import WireFormat, decode_message, encode_message
from lokket.protocol.mls.proposals import (
    Add,
    ExternalPSK,
    GroupContextExtensions,
    PreSharedKey,
    PreSharedKeyID,
    ReInit,
    Remove,
    ResumptionPSK,
)
from lokket.protocol.mls.proposed import Proposed
from lokket.protocol.mls.receiving import Application, ProposalReceived
from lokket.protocol.mls.rules import RULES, RuleBroken
from lokket.protocol.mls.settings import Identity, Settings, capabilities
from lokket.protocol.mls.signatures import SignatureKeyPair
from lokket.protocol.mls.structs import (
    Capabilities,
    Credential,
    Extension,
    ExternalSender,
    ExternalSenders,
    GroupContext,
    KeyPackage,
    LeafNode,
    RequiredCapabilities,
    basic_credential,
    make_extension,
    x509_credential,
)
from lokket.protocol.mls.suite import POST_QUANTUM_ID, SUITES, CipherSuite, suites
from lokket.protocol.mls.welcoming import InfoOptions

__all__ = [
    "POST_QUANTUM_ID",
    "RULES",
    "SUITES",
    "Add",
    "Application",
    "Capabilities",
    "ChangeKind",
    "CipherSuite",
    "CommitOptions",
    "Credential",
    "CredentialCheck",
    "Extension",
    "ExternalOptions",
    "ExternalPSK",
    "ExternalSender",
    "ExternalSenders",
    "Founding",
    "Group",
    "GroupContext",
    "GroupContextExtensions",
    "Identity",
    "InfoOptions",
    "KeyPackage",
    "LeafChange",
    "LeafNode",
    "OwnKeyPackage",
    "PreSharedKey",
    "PreSharedKeyID",
    "ProposalReceived",
    "Proposed",
    "ReInit",
    "Remove",
    "RequiredCapabilities",
    "ResumptionPSK",
    "RuleBroken",
    "Sent",
    "Settings",
    "SignatureKeyPair",
    "StagedCommit",
    "WireFormat",
    "basic_credential",
    "branch_group",
    "capabilities",
    "create_group",
    "decode_message",
    "encode_message",
    "join_by_commit",
    "join_group",
    "make_extension",
    "make_key_package",
    "propose_from_outside",
    "propose_joining",
    "read_key_package",
    "reinitialise_group",
    "suites",
    "x509_credential",
]
