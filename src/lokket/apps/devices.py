"""device and recover: the devices of an account, and a lost one replaced."""

from __future__ import annotations

import asyncio
import platform
import sys
from typing import Annotated, Final

import typer

from lokket import limits
from lokket.apps import output
from lokket.apps.account import protection, show_code
from lokket.apps.command import command, default_command
from lokket.apps.options import Timeout
from lokket.apps.output import Output
from lokket.apps.session import Session, text_argument
from lokket.apps.typed import typed_line
from lokket.apps.visible import visible
from lokket.client import devices
from lokket.client.client import Client
from lokket.client.happenings import NotReached
from lokket.engine import answers, events
from lokket.errors import LocalError, LokketError
from lokket.protocol.linking import NUMBER_DIGITS, AccountCode, LinkCode

_HISTORY_WAIT_S: Final = 8.0
_SETTLE_S: Final = 10.0

Number = Annotated[int, typer.Argument(metavar="NUMBER", help="As 'lokket device list' shows it.")]
DeviceName = Annotated[str, typer.Option("--device-name", help="What you call this device.")]
AskPassphrase = Annotated[
    bool, typer.Option("--passphrase", help="Guard the vault by a passphrase, not the keyring.")
]
Bare = Annotated[
    bool, typer.Option("--insecure-no-passphrase", help="Keep the vault's key in a plain file beside it.")
]


def register(app: typer.Typer, device_app: typer.Typer) -> None:
    default_command(device_app, list_devices)
    command(device_app, "list")(list_devices)
    command(device_app, "link")(link)
    command(device_app, "rename")(rename)
    command(device_app, "revoke")(revoke)
    command(device_app, "history")(history)
    command(device_app, "admin")(admin)
    command(app, "recover")(recover)


async def list_devices(session: Session) -> int:
    """Your devices, and which of them holds the account key."""
    async with await session.open(online=False) as client:
        me = client.me()
    for device in me.devices:
        _say_device(session.out, device)
    if not me.devices:
        session.out.aside("This device is not on its account's list yet.")
    return output.OK


def _say_device(out: Output, device: answers.DeviceView) -> None:
    out.record(
        "device",
        number=device.number,
        name=device.name or None,
        hash=device.device_hash,
        this=device.own,
        admin=device.admin,
    )
    marks = [mark for mark, true in (("this device", device.own), ("admin", device.admin)) if true]
    about = f"  ({', '.join(marks)})" if marks else ""
    out.say(f"{device.number:3}  {visible(device.name) if device.name else '(no name)'}{about}")


async def rename(
    session: Session, number: Number, name: Annotated[str, typer.Argument(metavar="NAME")]
) -> int:
    """Call one of your devices something; only your own devices learn it."""
    async with await session.open() as client:
        await client.perform(events.RenameDevice(number, name))
        await client.settle(_SETTLE_S)
        device = next(device for device in client.me().devices if device.number == number)
    _say_device(session.out, device)
    return output.OK


async def revoke(
    session: Session,
    number: Number,
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    timeout: Timeout = 15.0,
) -> int:
    """Take a device off your account for good: from then on nobody sends to it."""
    async with await session.open() as client:
        found = _own_device(client, number)
        name = f" ({visible(found.name)})" if found.name else ""
        if not sure:
            await _agree(f"Revoke device {number}{name}? It cannot be undone. Type yes: ")
        await client.wait_online(timeout)
        await devices.revoke(client, number, timeout)
        await client.settle(_SETTLE_S)
        left = client.me().devices
    session.out.record("revoked", number=number)
    session.out.say(f"Device {number}{name} is revoked. You have {len(left)} now.", "bold")
    return output.OK


def _own_device(client: Client, number: int) -> answers.DeviceView:
    """Before anything is asked or told. LocalError: there is none of this number."""
    for device in client.me().devices:
        if device.number == number:
            return device
    raise LocalError(f"your account has no device {number}: see 'lokket device list'")


async def history(session: Session, number: Number) -> int:
    """Let another of your devices have this one's messages; it fetches them when it is online."""
    async with await session.open() as client:
        await client.perform(events.GiveHistory(number))
        session.out.say(f"Device {number} may have this device's messages for two weeks.")
        await _give(client, session.out)
    return output.OK


async def admin(
    session: Session,
    number: Annotated[
        int, typer.Argument(metavar="[NUMBER]", help="Of the device that shall have the role.")
    ] = 0,
    *,
    take: Annotated[bool, typer.Option("--accept", help="On that device: take it.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Take back or decline the offer.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.0, help="Seconds to wait for the other device.")
    ] = 120.0,
) -> int:
    """Move the account key, and with it the right to add and revoke devices, to another device."""
    if sum((bool(number), take, cancel)) != 1:
        raise LocalError("give the number of a device, or --accept on that device, or --cancel")
    out = session.out
    async with await session.open() as client:
        if cancel:
            await client.perform(events.CancelAdmin())
        elif take:
            await devices.accept_admin(client, timeout)
        else:
            _own_device(client, number)
            out.aside(f"Now, on device {number}: lokket device admin --accept")
            await devices.offer_admin(client, number, timeout)
        await client.settle(_SETTLE_S)
        holder = next(device for device in client.me().devices if device.admin)
    out.record("admin", number=holder.number)
    out.say(f"Device {holder.number} is the admin device.", "bold")
    return output.OK


async def link(
    session: Session,
    code: Annotated[
        str,
        typer.Argument(
            metavar="[CODE]", help="On the new device: what the other one shows ('-': standard input)."
        ),
    ] = "",
    *,
    device_name: DeviceName = "",
    give_history: Annotated[
        bool, typer.Option("--history/--no-history", help="Whether the new device gets the messages.")
    ] = True,
    ask_passphrase: AskPassphrase = False,
    bare: Bare = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.0, help="Seconds to wait for the other device.")
    ] = float(limits.LINK_CODE_VALID_S),
) -> int:
    """Add a device: run it here without a code, then on the new device with the code that this one shows."""
    if code:
        return await _join(
            session,
            text_argument(code).strip(),
            device_name or default_name(),
            ask_passphrase=ask_passphrase,
            bare=bare,
            timeout_s=timeout,
        )
    async with await session.open() as client:
        added = await devices.link(
            client,
            on_code=lambda made: _show_link(session.out, made),
            ask_number=lambda asked: _ask_number(session.out, asked),
            history=give_history,
            timeout_s=timeout,
        )
        session.out.say("It is one of your devices now:", "bold")
        _say_device(session.out, added)
        if give_history:
            session.out.aside("It fetches your contacts and messages: this goes on while this command runs.")
            await _give(client, session.out)
    return output.OK


async def _give(client: Client, out: Output) -> None:
    given = 0

    def page(step: events.HistoryGiven) -> None:
        nonlocal given
        given += step.count
        out.record("history-given", messages=given, done=step.done)

    done = await devices.give_history(client, page, _HISTORY_WAIT_S)
    await client.settle(_SETTLE_S)
    if done:
        out.aside(f"{given} messages given.")
    else:
        out.aside("The new device asks for the rest when both are online, as with 'lokket listen' here.")


def _show_link(out: Output, made: events.LinkCodeMade) -> None:
    out.record("link", code=made.code, expires_s=made.expires_s)
    if out.as_json:
        return
    out.say("On the new device, within ten minutes:")
    out.say(f"    lokket device link '{made.code}'", "bold")
    out.qr(made.code)
    out.aside("Show it to nobody else. Nothing is added before you have typed the new device's number here.")


async def _ask_number(out: Output, asked: events.LinkAsked) -> str:
    out.record("link-asked", name=asked.name, time_ms=asked.time_ms)
    out.say(f"At {output.clock(asked.time_ms)} a device answered that calls itself {visible(asked.name)}.")
    out.say(
        f"It will read and write as you. Type the {NUMBER_DIGITS} digits that it shows, or nothing to stop:"
    )
    number = (await typed_line()).strip()
    if not number:
        raise LocalError("nothing was added")
    return number


async def _join(
    session: Session, code: str, name: str, *, ask_passphrase: bool, bare: bool, timeout_s: float
) -> int:
    LinkCode.decode(code)
    client = await session.create(protection(session, ask_passphrase=ask_passphrase, bare=bare))
    out, keep = session.out, False

    def show_number(number: str) -> None:
        out.record("link-number", number=number)
        grouped = " ".join(number[start : start + 4] for start in range(0, len(number), 4))
        out.say("Type this number on the device that showed you the code:")
        out.say(f"    {grouped}", "bold cyan")

    try:
        me = await devices.join(client, code, name, on_number=show_number, timeout_s=timeout_s)
        keep = True
        transfer = await devices.wait_history(client, lambda step: _show_progress(out, step), _HISTORY_WAIT_S)
        await client.settle(_SETTLE_S)
        contacts = client.contacts()
    finally:
        await client.close()
        if not keep:
            session.discard()
    out.record(
        "linked",
        account=me.account_id,
        device=me.device_number,
        contacts=len(contacts),
        messages=transfer.received if transfer else 0,
        complete=transfer is not None and transfer.done,
    )
    out.say(f"This is device {me.device_number} of your account, with {len(contacts)} contacts.", "bold")
    if transfer is not None and not transfer.done:
        out.aside("Not all messages are here yet: they go on coming with the next commands on both devices.")
    return output.OK


def _show_progress(out: Output, step: answers.TransferView) -> None:
    out.record("history", received=step.received, total=step.total, done=step.done)
    out.aside(f"{step.received} of {step.total} messages")


def default_name() -> str:
    """The machine's name, without its domain."""
    return platform.node().partition(".")[0][: limits.DEVICE_NAME_MAX_CHARS].strip() or "computer"


async def _agree(question: str) -> None:
    print(question, end="", file=sys.stderr, flush=True)
    if (await typed_line()).strip().lower() != "yes":
        raise LocalError("nothing was changed")


async def recover(
    session: Session,
    account: Annotated[
        str,
        typer.Argument(metavar="ACCOUNT", help="The line that begins with lokket:account."),
    ],
    *,
    keep: Annotated[
        list[int] | None, typer.Option("--keep", help="Number of a device that you still have; may repeat.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Your name at the relay, to claim it anew.")] = None,
    device_name: DeviceName = "",
    ask_passphrase: AskPassphrase = False,
    bare: Bare = False,
    timeout: Timeout = 30.0,
) -> int:
    """Replace a lost or stolen admin device: reads the recovery code from the terminal or standard input.

    Every device that is not kept is revoked. Contacts see a new account key and have to accept it.
    """
    out = session.out
    AccountCode.decode(account)
    chosen = protection(session, ask_passphrase=ask_passphrase, bare=bare)
    code = await _ask_code()
    client = await session.create(chosen)
    keep_vault = False
    fresh = ""

    def new_code(code: str) -> None:
        nonlocal fresh
        fresh = code
        show_code(out, code)

    try:
        try:
            restored = await devices.recover(
                client,
                account,
                code,
                keep=tuple(keep or ()),
                name=name,
                device_name=device_name or default_name(),
                on_code=new_code,
                timeout_s=timeout,
            )
            keep_vault = True
            await client.settle(_SETTLE_S)
        except (NotReached, asyncio.CancelledError) as error:
            if fresh:  # the vault goes on with it, and has the code nowhere
                keep_vault = True
                out.record("account", registered=False, recovery_code=fresh, sentence=str(error))
                out.aside("The relay has not answered: it goes on with the next command.")
            raise
        me = client.me()
    except (LokketError, asyncio.CancelledError):
        if not keep_vault:
            await client.close()
            session.discard()
            if fresh:
                out.aside("Nothing was changed: the code above is void, and the one before stays.", "yellow")
        raise
    finally:
        await client.close()
    _say_recovered(out, me, restored.recovery_code)
    return output.OK


async def _ask_code() -> str:
    if sys.stdin.isatty():
        print("Your recovery code: ", end="", file=sys.stderr, flush=True)
    return (await typed_line()).strip()


def _say_recovered(out: Output, me: answers.Me, code: str) -> None:
    out.record(
        "recovered",
        account=me.account_id,
        device=me.device_number,
        devices=[device.number for device in me.devices],
        recovery_code=code,
    )
    out.say(f"Your account {me.account_id} is yours again: this is device {me.device_number}.", "bold")
    out.say("The code above replaces the one you used. Your contacts will be asked to accept your new key.")
