"""Who somebody is: accounts, their devices, the signed lists, and the proofs between them.

Source: docs/identity.md. Pure: time and entropy are arguments; bytes come in and go out by
``lokket.codec.tls``.
"""

from lokket.protocol.identity.account import (
    AccountState,
    AccountUpdate,
    DeviceStatus,
    KnownDevice,
    step_update,
)
from lokket.protocol.identity.chain import (
    Change,
    DeviceAdded,
    DeviceRemoved,
    ForkDetected,
    ForkEvidence,
    Rotated,
    advance,
    first_contact,
)
from lokket.protocol.identity.device import (
    Device,
    check_device,
    device_address,
    device_hash,
    make_device,
)
from lokket.protocol.identity.device_keys import DeviceKeys
from lokket.protocol.identity.devicelist import (
    ListBody,
    ListLink,
    Revoked,
    Rotation,
    SignedLink,
    SignedRotation,
    list_body,
)
from lokket.protocol.identity.encoding import Extension, hash_labelled, mac, message
from lokket.protocol.identity.genesis import (
    Genesis,
    account_id,
    direct_conversation,
    genesis_hash,
    make_genesis,
)
from lokket.protocol.identity.invite import (
    Invite,
    InviteKeys,
    derive_invite,
    invitee_mac,
    inviter_mac,
)
from lokket.protocol.identity.keys import HybridKey, HybridKeyPair, HybridSignature
from lokket.protocol.identity.names import (
    NameClaim,
    SignedNameClaim,
    check_name,
    check_name_claim,
    check_name_of,
    is_name,
    sign_name_claim,
)
from lokket.protocol.identity.recovery import new_recovery_code, recovery_commitment, recovery_key
from lokket.protocol.identity.safety_number import (
    VerifyCode,
    check_verify_code,
    fingerprint32,
    grouped,
    safety_number,
)
from lokket.protocol.identity.signing import (
    extend_list,
    found_account,
    free_number,
    renew,
    rotate,
    sign_list,
)
from lokket.protocol.identity.statements import (
    LoginStatement,
    RegisterProof,
    RegisterStatement,
    RelayHello,
    check_hello,
    check_login,
    check_register,
    sign_hello,
    sign_login,
    sign_register,
)
from lokket.protocol.identity.written import read_code, write_code

__all__ = [
    "AccountState",
    "AccountUpdate",
    "Change",
    "Device",
    "DeviceAdded",
    "DeviceKeys",
    "DeviceRemoved",
    "DeviceStatus",
    "Extension",
    "ForkDetected",
    "ForkEvidence",
    "Genesis",
    "HybridKey",
    "HybridKeyPair",
    "HybridSignature",
    "Invite",
    "InviteKeys",
    "KnownDevice",
    "ListBody",
    "ListLink",
    "LoginStatement",
    "NameClaim",
    "RegisterProof",
    "RegisterStatement",
    "RelayHello",
    "Revoked",
    "Rotated",
    "Rotation",
    "SignedLink",
    "SignedNameClaim",
    "SignedRotation",
    "VerifyCode",
    "account_id",
    "advance",
    "check_device",
    "check_hello",
    "check_login",
    "check_name",
    "check_name_claim",
    "check_name_of",
    "check_register",
    "check_verify_code",
    "derive_invite",
    "device_address",
    "device_hash",
    "direct_conversation",
    "extend_list",
    "fingerprint32",
    "first_contact",
    "found_account",
    "free_number",
    "genesis_hash",
    "grouped",
    "hash_labelled",
    "invitee_mac",
    "inviter_mac",
    "is_name",
    "list_body",
    "mac",
    "make_device",
    "make_genesis",
    "message",
    "new_recovery_code",
    "read_code",
    "recovery_commitment",
    "recovery_key",
    "renew",
    "rotate",
    "safety_number",
    "sign_hello",
    "sign_list",
    "sign_login",
    "sign_name_claim",
    "sign_register",
    "step_update",
    "write_code",
]
