"""Three other implementations of MLS behind one interface: ts-mls (node), mls-rs and OpenMLS (wheels).

All bytes are MLSMessages. An endpoint has applied its own commit by the time it hands it out. What an
implementation's binding does not offer raises ``NotImplementedError``:

    mls-rs   suite 1 alone; no external join, no PSK; its commits are PublicMessages
    OpenMLS  suite 1 alone; takes and makes PrivateMessages alone; says that an application message
             opened, not what it says; makes none; a commit of its own adds or removes, nothing else
"""

from __future__ import annotations

import base64
import importlib.util
import json
import re
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

import libsignal_peer

DRIVER = Path(__file__).parent / "mls" / "peer.mjs"
MODULES = DRIVER.parent / "node_modules" / "ts-mls"
KEY_PACKAGE_HEADER = bytes.fromhex("00010005")  # MLS 1.0, mls_key_package

Refused = libsignal_peer.Refused


class Endpoint(Protocol):
    """One member, or one who wants to be: at most one group at a time."""

    name: str

    def key_package(self) -> bytes: ...
    def create(self) -> None: ...
    def join(self, welcome: bytes) -> None: ...
    def add(self, *key_packages: bytes) -> tuple[bytes, bytes]: ...  # commit, welcome
    def remove(self, leaf: int) -> bytes: ...
    def update(self) -> bytes: ...
    def encrypt(self, plaintext: bytes) -> bytes: ...
    def process(
        self, message: bytes
    ) -> bytes | None: ...  # plaintext; b"" where it is kept; None of a commit
    def export(self, label: str, context: bytes, length: int) -> bytes: ...


def missing_ts_mls() -> str | None:
    """Why ts-mls cannot run here, as a sentence, or None."""
    if shutil.which("node") is None:
        return "node is not installed: the live tests with ts-mls need it"
    if not MODULES.is_dir():
        return "ts-mls is not installed: run `make interop`"
    return None


def missing_mls_rs() -> str | None:
    if importlib.util.find_spec("mls_rs_uniffi") is None:
        return "mls-rs is not installed: agentvault-mls-rs-uniffi has no wheel for this machine"
    return None


def missing_openmls() -> str | None:
    if importlib.util.find_spec("gbp_stack") is None:
        return "OpenMLS is not installed: gbp-stack has a wheel for Python 3.11 on Linux x86_64 alone"
    return None


class TsMlsProcess(libsignal_peer.Peer):
    """One node process, home of any number of endpoints."""

    def __init__(self) -> None:
        super().__init__(DRIVER)

    def endpoint(self, name: str, suite: int = 1) -> TsMls:
        return TsMls(self, name, suite)


class TsMls:
    def __init__(self, process: TsMlsProcess, name: str, suite: int) -> None:
        self.name = name
        self.suite = suite
        self.process_ = process
        self.group = process.label()
        self.handle: str | None = None

    def call(self, command: str, **fields: Any) -> dict[str, Any]:
        return self.process_.call(command, **fields)

    def key_package(self) -> bytes:
        reply = self.call("key_package", identity=self.name.encode(), suite=self.suite)
        self.handle = reply["key_package_handle"]
        return base64.b64decode(reply["key_package"])

    def create(self) -> None:
        self.call("create", identity=self.name.encode(), suite=self.suite, as_group=self.group)

    def join(self, welcome: bytes, **fields: Any) -> None:
        self.call("join", key_package_handle=self.handle, welcome=welcome, as_group=self.group, **fields)

    def join_external(self, group_info: bytes, **fields: Any) -> bytes:
        """The commit. ``resync=True`` takes the place of the leaf of the same identity."""
        self.key_package()
        reply = self.call(
            "join_external",
            key_package_handle=self.handle,
            group_info=group_info,
            as_group=self.group,
            **fields,
        )
        return base64.b64decode(reply["commit"])

    def group_info(self, *, tree: bool = True) -> bytes:
        return base64.b64decode(self.call("group_info", group=self.group, tree=tree)["group_info"])

    def add(self, *key_packages: bytes, **fields: Any) -> tuple[bytes, bytes]:
        coded = [base64.b64encode(each).decode() for each in key_packages]
        reply = self.call("add", group=self.group, key_packages=coded, **fields)
        return base64.b64decode(reply["commit"]), base64.b64decode(reply["welcome"])

    def remove(self, leaf: int, **fields: Any) -> bytes:
        return base64.b64decode(self.call("remove", group=self.group, leaf=leaf, **fields)["commit"])

    def update(self, **fields: Any) -> bytes:
        return base64.b64decode(self.call("update", group=self.group, **fields)["commit"])

    def commit(self, *proposals: dict[str, Any], **fields: Any) -> bytes:
        """By value what is given, by reference what is pending."""
        reply = self.call("commit", group=self.group, proposals=list(proposals), **fields)
        return base64.b64decode(reply["commit"])

    def propose(self, proposal: dict[str, Any], **fields: Any) -> bytes:
        reply = self.call("propose", group=self.group, proposal=proposal, **fields)
        return base64.b64decode(reply["message"])

    def psk(self, name: bytes, secret: bytes) -> None:
        self.call("psk", psk_id=name, psk=secret)

    def encrypt(self, plaintext: bytes) -> bytes:
        return base64.b64decode(self.call("encrypt", group=self.group, plaintext=plaintext)["message"])

    def process(self, message: bytes) -> bytes | None:
        reply = self.call("process", group=self.group, message=message)
        return base64.b64decode(reply["plaintext"]) if reply["kind"] == "application" else None

    def export(self, label: str, context: bytes, length: int) -> bytes:
        reply = self.call("export", group=self.group, label=label, context=context, length=length)
        return base64.b64decode(reply["secret"])

    def epoch_authenticator(self) -> bytes:
        return base64.b64decode(self.call("state", group=self.group)["epoch_authenticator"])


class MlsRs:
    def __init__(self, name: str) -> None:
        import mls_rs_uniffi

        self.name = name
        self.binding = mls_rs_uniffi
        keys = mls_rs_uniffi.generate_signature_keypair(mls_rs_uniffi.CipherSuite.CURVE25519_AES128)
        self.client = mls_rs_uniffi.Client(name.encode(), keys, mls_rs_uniffi.client_config_default())
        self.group: Any = None
        self.last_sender: Any = None
        self.removed = False

    def refusing(self, step: Any, *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except self.binding.Error as error:
            raise Refused({"name": type(error).__name__, "message": str(error)}) from None

    def message(self, data: bytes) -> Any:
        return self.refusing(self.binding.Message.from_bytes, data)

    def key_package(self) -> bytes:
        return self.client.generate_key_package_message().to_bytes()

    def create(self) -> None:
        self.group = self.client.create_group(None)

    def join(self, welcome: bytes) -> None:
        self.group = self.refusing(self.client.join_group, None, self.message(welcome)).group

    def own(self, output: Any) -> bytes:
        """mls-rs applies its own commit when that comes back from the relay."""
        self.group.process_incoming_message(output.commit_message)
        return output.commit_message.to_bytes()

    def add(self, *key_packages: bytes) -> tuple[bytes, bytes]:
        output = self.refusing(self.group.add_members, [self.message(each) for each in key_packages])
        return self.own(output), output.welcome_message.to_bytes()

    def remove(self, leaf: int) -> bytes:
        raise NotImplementedError("the binding of mls-rs names members otherwise: see remove_last_sender")

    def remove_last_sender(self) -> bytes:
        """Of a commit or an application message: so the binding shows who is who, and no other way."""
        return self.own(self.refusing(self.group.remove_members, [self.last_sender]))

    def propose_removing_last_sender(self) -> bytes:
        (message,) = self.refusing(self.group.propose_remove_members, [self.last_sender])
        return message.to_bytes()

    def propose_adding(self, key_package: bytes) -> bytes:
        (message,) = self.refusing(self.group.propose_add_members, [self.message(key_package)])
        return message.to_bytes()

    def update(self) -> bytes:
        """A commit of whatever waits, and of fresh keys."""
        return self.own(self.refusing(self.group.commit))

    def encrypt(self, plaintext: bytes) -> bytes:
        return self.refusing(self.group.encrypt_application_message, plaintext).to_bytes()

    def process(self, message: bytes) -> bytes | None:
        received = self.refusing(self.group.process_incoming_message, self.message(message))
        if received.is_application_message():
            self.last_sender = received.sender
            return bytes(received.data)
        if received.is_commit():
            self.last_sender = received.committer
            self.removed = received.effect.is_removed()
        return None

    def export(self, label: str, context: bytes, length: int) -> bytes:
        return bytes(self.group.export_secret(label.encode(), context, length))


class OpenMls:
    def __init__(self, name: str) -> None:
        from gbp_stack.mls_context import MlsContext

        self.name = name
        self.context = MlsContext.create(name)

    def refusing(self, step: Any, *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except OSError as error:
            raise Refused({"name": "OpenMls", "message": str(error)}) from None

    def key_package(self) -> bytes:
        return KEY_PACKAGE_HEADER + self.context.export_key_package()

    def create(self) -> None:
        """A context begins as the only member of a group."""

    def join(self, welcome: bytes) -> None:
        self.refusing(self.context.accept_welcome, welcome)

    def add(self, *key_packages: bytes) -> tuple[bytes, bytes]:
        (key_package,) = key_packages
        assert key_package.startswith(KEY_PACKAGE_HEADER)
        commit, welcome = self.refusing(self.context.invite_full, key_package[4:])
        self.context.finalize_commit()
        return commit, welcome

    def remove(self, leaf: int) -> bytes:
        commit: bytes = self.refusing(self.context.remove_member, leaf)
        self.context.finalize_commit()
        return commit

    def update(self) -> bytes:
        raise NotImplementedError("the OpenMLS binding commits additions and removals alone")

    def encrypt(self, plaintext: bytes) -> bytes:
        raise NotImplementedError("the OpenMLS binding makes no application messages")

    def process(self, message: bytes) -> bytes | None:
        kind = self.refusing(self.context.process_message, message)
        if kind == "commit":
            self.context.finalize_commit()
        return b"" if kind == "application" else None

    def secret(self, name: str) -> bytes:
        """A secret of the epoch, from the stored state: maps in JSON, of which the last one is current."""
        group = json.dumps(list(self.context.group_id), separators=(",", ":")).encode()
        state: bytes = self.context.export_state()
        at = state.rindex(b'EpochSecrets{"value":{"vec":' + group)
        found = re.search(rb'"%s":\{"secret":\{"value":\{"vec":(\[[0-9,]+\])' % name.encode(), state[at:])
        assert found is not None
        return bytes(json.loads(found[1]))

    def epoch_authenticator(self) -> bytes:
        return self.secret("epoch_authenticator")

    def export(self, label: str, context: bytes, length: int) -> bytes:
        raise NotImplementedError("the OpenMLS binding has no exporter: compare secret('exporter_secret')")


def wait_for_the_next_second() -> None:
    """OpenMLS takes a lifetime that begins in this very second for one that has not begun."""
    time.sleep(1.02 - time.time() % 1)
