"""Every method of the daemon's socket: what it is given, and what it answers (docs/using.md).

A line each way, JSON-RPC 2.0: ``{"jsonrpc":"2.0","id":1,"method":"send","params":{…}}``. Bytes are base64.
No batches, and no notifications from a caller: what has no id gets no effect. The first request is ``hello``.
Knows no socket.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Final, Literal, cast, get_type_hints

import msgspec
from msgspec import Meta, Raw, Struct

from lokket import limits
from lokket.engine import commands
from lokket.errors import RemoteError

VERSION: Final = 1
VERSIONS: Final = (1,)  # spoken here, newest last

# --- faults (JSON-RPC 2.0 section 5.1; ours from -32000 down) ---
NO_JSON: Final = -32700
NO_REQUEST: Final = -32600
NO_METHOD: Final = -32601
NO_PARAMS: Final = -32602
INTERNAL: Final = -32603
FAILED: Final = -32001  # it cannot be done; the sentence says what to do
NOT_REACHED: Final = -32002  # the relay, or an answer, did not come in time
REFUSED: Final = -32003  # bytes of others that are bad, such as a damaged invite
UNGREETED: Final = -32004  # no hello yet, or no version in common
TOO_LARGE: Final = -32005

Petname = Annotated[str, Meta(max_length=256)]
Mid = Annotated[bytes, Meta(min_length=16, max_length=16)]
CursorName = Annotated[str, Meta(max_length=limits.CURSOR_NAME_MAX_CHARS)]
Order = Annotated[int, Meta(ge=0, le=2**53)]
Seconds = Annotated[float, Meta(ge=0, le=limits.RPC_WAIT_MAX_S)]


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what a method is given."""


class Hello(Params, frozen=True):
    """The first request. -> the version that is spoken, lokket's version, the daemon's process id."""

    versions: Annotated[tuple[int, ...], Meta(min_length=1, max_length=16)]


class Status(Params, frozen=True):
    """-> since_ms, callers, online, queued, messages waiting at each cursor"""


class Stop(Params, frozen=True):
    """End the daemon. -> null, before it ends"""


class Watch(Params, frozen=True):
    """From now on this connection gets a ``happened`` notification for all that happens. -> null"""


class NewId(Params, frozen=True):
    """-> 16 random bytes: for ``send``, so that the same message can be asked for twice and is sent once"""


class WaitOnline(Params, frozen=True):
    """Until logged in. -> how many envelopes waited at the relay"""

    timeout_s: Seconds


class Settle(Params, frozen=True):
    """Until nothing waits to be sent or answered. -> whether it came to that"""

    timeout_s: Seconds


class CatchUp(Params, frozen=True):
    """Until all that waited at the relay is in the vault. -> whether it came to that"""

    timeout_s: Seconds


class WhoAmI(Params, frozen=True):
    """-> the account and its devices; null: none yet"""


class Health(Params, frozen=True):
    """-> what waits, what is held, warnings as sentences"""


class VaultFaults(Params, frozen=True):
    """Reads every page of the vault. -> sentences; none: nothing wrong"""


class AccountCode(Params, frozen=True):
    """-> the line that is written down with the recovery code; no secret"""


class IsDeleted(Params, frozen=True):
    """-> whether the relay has forgotten the account, as was asked"""


class Transfer(Params, frozen=True):
    """-> history on its way from another of your devices; null: none"""


class Contacts(Params, frozen=True):
    """-> every contact: petname, level, blocked, unread, …"""


class Contact(Params, frozen=True):
    """-> one contact"""

    petname: Petname


class IsContact(Params, frozen=True):
    """-> whether somebody goes by this petname"""

    petname: Petname


class SafetyNumber(Params, frozen=True):
    """-> 60 digits"""

    petname: Petname


class VerifyCode(Params, frozen=True):
    """-> what the contact scans"""

    petname: Petname


class History(Params, frozen=True):
    """-> the last messages with a contact, oldest first"""

    petname: Petname
    limit: Annotated[int, Meta(ge=1, le=limits.HISTORY_MAX)] = 50


class MessageState(Params, frozen=True):
    """-> queued, sent, delivered or failed"""

    mid: Mid


class WaitState(Params, frozen=True):
    """Until the message is as far as ``state``, failed, or the time is over. -> how far it is then"""

    mid: Mid
    timeout_s: Seconds
    state: Literal["sent", "delivered"] = "delivered"


class Next(Params, frozen=True):
    """Waits for messages not handled at ``cursor``, beyond order ``after``. -> none: the time is over"""

    cursor: CursorName = ""
    after: Order = 0
    limit: Annotated[int, Meta(ge=1, le=limits.RPC_MESSAGES_MAX)] = 64
    wait_s: Seconds = 0.0


class Unhandled(Params, frozen=True):
    """-> every message not handled at ``cursor``"""

    cursor: CursorName = ""


class Cursors(Params, frozen=True):
    """-> the named cursors, how far each is and how much waits there"""


class DeadLetters(Params, frozen=True):
    """-> messages that the reader of a cursor gave up, and why"""


class BackupState(Params, frozen=True):
    """-> the key of the backups and where they go, for ``lokket backup``; null: no backup was made yet"""


class ArchivePage(Params, frozen=True):
    """-> kinds and bodies of records after ``place``, and the next place; both ends are empty"""

    place: Annotated[bytes, Meta(max_length=256)] = b""
    limit: Annotated[int, Meta(ge=1, le=limits.RPC_MESSAGES_MAX)] = 64
    only: Annotated[bytes, Meta(max_length=32)] = b""


class Exchange(Params, frozen=True):
    """A client frame of ``wire.api`` with a request for files at the relay. -> the relay's frame"""

    frame: Annotated[bytes, Meta(max_length=limits.FRAME_MAX_BYTES)]
    timeout_s: Seconds


QUESTIONS: Final[dict[str, type[Params]]] = {
    "hello": Hello,
    "status": Status,
    "stop": Stop,
    "watch": Watch,
    "new_id": NewId,
    "wait_online": WaitOnline,
    "settle": Settle,
    "catch_up": CatchUp,
    "whoami": WhoAmI,
    "health": Health,
    "vault_faults": VaultFaults,
    "account_code": AccountCode,
    "is_deleted": IsDeleted,
    "transfer": Transfer,
    "contacts": Contacts,
    "contact": Contact,
    "is_contact": IsContact,
    "safety_number": SafetyNumber,
    "verify_code": VerifyCode,
    "history": History,
    "message_state": MessageState,
    "wait_state": WaitState,
    "next": Next,
    "unhandled": Unhandled,
    "cursors": Cursors,
    "dead_letters": DeadLetters,
    "backup_state": BackupState,
    "archive_page": ArchivePage,
    "exchange": Exchange,
}

# One step of the engine each; answered by the list of what it had to tell, each with its ``happening``. What
# the relay's answer brings later is told to those who watch.
COMMANDS: Final[dict[str, type[Any]]] = {
    "send": commands.SendText,
    "handled": commands.HandledNotices,
    "open_cursor": commands.OpenCursor,
    "close_cursor": commands.CloseCursor,
    "give_up": commands.GiveUpNotice,
    "forget_dead_letter": commands.ForgetDeadLetter,
    "mark_read": commands.MarkRead,
    "alarms_shown": commands.AlarmsShown,
    "add_contact": commands.AddContact,
    "accept_contact": commands.AcceptContact,
    "verify_contact": commands.MarkVerified,
    "rename_contact": commands.RenameContact,
    "block_contact": commands.BlockContact,
    "unblock_contact": commands.UnblockContact,
    "create_invite": commands.CreateInvite,
    "open_link": commands.OpenLink,
    "confirm_link": commands.ConfirmLink,
    "cancel_link": commands.CancelLink,
    "give_history": commands.GiveHistory,
    "add_device": commands.AddDevice,
    "revoke_device": commands.RevokeDevice,
    "rename_device": commands.RenameDevice,
    "offer_admin": commands.OfferAdmin,
    "accept_admin": commands.AcceptAdmin,
    "cancel_admin": commands.CancelAdmin,
    "refill_prekeys": commands.RefillPrekeys,
    "delete_account": commands.DeleteAccount,
    "use_backup_key": commands.UseBackupKey,
    "begin_backup": commands.BeginBackup,
    "backup_written": commands.BackupWritten,
    "backup_daily": commands.BackupDaily,
    "backup_blobs": commands.BackupBlobs,
    "opened_backup": commands.OpenedBackup,
    "import_records": commands.ImportRecords,
}


def _params_of(command: type[Any]) -> type[Params]:
    """The command's fields as a method's parameters: typed, and no others."""
    types = get_type_hints(command)
    named = [
        (each.name, types[each.name])
        if each.default is dataclasses.MISSING
        else (each.name, types[each.name], each.default)
        for each in dataclasses.fields(command)
    ]
    made = msgspec.defstruct(command.__name__, named, bases=(Params,), frozen=True)
    made.__doc__ = command.__doc__
    return cast(type[Params], made)


METHODS: Final[dict[str, type[Params]]] = {
    **QUESTIONS,
    **{name: _params_of(command) for name, command in COMMANDS.items()},
}


# --- the decoder ---

RequestId = Annotated[int, Meta(ge=-(2**53), le=2**53)] | Annotated[str, Meta(max_length=64)]


class _Request(Struct, frozen=True, forbid_unknown_fields=True):
    jsonrpc: Literal["2.0"]
    id: RequestId
    method: Annotated[str, Meta(max_length=64)]
    params: Raw = Raw(b"{}")


class Fault(RemoteError):
    """A request that is none, with its number among JSON-RPC's and the id to answer it under."""

    def __init__(self, number: int, sentence: str, request_id: int | str | None = None) -> None:
        super().__init__(sentence, code="malformed")
        self.number = number
        self.request_id = request_id


_requests: Final = msgspec.json.Decoder(_Request)
_params: Final = {name: msgspec.json.Decoder(kind) for name, kind in METHODS.items()}
_BAD: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


def decode(line: bytes) -> tuple[int | str, str, Any]:
    """Id, method, and its parameters: of ``QUESTIONS[method]``, or a command. Fault: it is no request."""
    try:
        request = _requests.decode(line)
    except msgspec.ValidationError:
        raise Fault(
            NO_REQUEST,
            'this is no request: jsonrpc "2.0", an id, a method and params in an object are needed',
            _id_of(line),
        ) from None
    except _BAD:
        raise Fault(NO_JSON, "this is not one line of JSON") from None
    decoder = _params.get(request.method)
    if decoder is None:
        raise Fault(NO_METHOD, "there is no such method", request.id)
    try:
        params = decoder.decode(request.params)
    except msgspec.ValidationError as error:
        raise Fault(NO_PARAMS, f"the parameters do not fit: {error}", request.id) from None
    except _BAD:
        raise Fault(NO_JSON, "this is not one line of JSON", request.id) from None
    command = COMMANDS.get(request.method)
    if command is not None:
        params = command(**{name: getattr(params, name) for name in params.__struct_fields__})
    return request.id, request.method, params


class _Identified(Struct, frozen=True):
    id: RequestId | None = None


def _id_of(line: bytes) -> int | str | None:
    """Of what is no request otherwise, so that its sender knows which was meant."""
    try:
        return msgspec.json.decode(line, type=_Identified).id
    except _BAD:
        return None


# --- answers ---


def answer(request_id: int | str, result: Any) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "result": result}) + b"\n"


def fault(request_id: int | str | None, number: int, sentence: str) -> bytes:
    error = {"code": number, "message": sentence}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": error}) + b"\n"


def notification(params: Any) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "method": "happened", "params": params}) + b"\n"
