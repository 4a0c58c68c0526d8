"""doctor: is everything as it should be, and what to do where it is not."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated

import apsw
import typer

from lokket import __version__, limits
from lokket.apps import output
from lokket.apps.command import command
from lokket.apps.output import VaultTrouble, clock
from lokket.apps.session import Session
from lokket.apps.visible import visible
from lokket.client import vault_key
from lokket.client.client import Client
from lokket.client.rpc import place
from lokket.client.rpc.remote import DaemonClient
from lokket.client.salvage import salvage_vault
from lokket.client.vault import DATABASE, require_cipher_sqlite
from lokket.engine import events
from lokket.errors import LocalError
from lokket.system import SystemEntropy, now_ms


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    good: bool
    sentence: str


def register(app: typer.Typer) -> None:
    command(app, "doctor")(doctor)


async def doctor(
    session: Session,
    timeout: Annotated[float, typer.Option(min=0.0, help="Seconds to wait for the relay.")] = 5.0,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Make a new vault of what can be read in a damaged one.")
    ] = False,
) -> int:
    """Check the installation, the vault, the account and the way to the relay."""
    if salvage:
        return _salvage(session)
    findings = [Finding("lokket", True, f"version {__version__}"), _sqlite()]
    try:
        client = await session.open()
    except VaultTrouble as error:
        findings.append(Finding("vault", False, str(error)))
    else:
        async with client:
            findings += [_files(session), _key(session), _pages(client), _daemon(client)]
            findings += await _account(client, timeout)
    for finding in findings:
        session.out.record("check", name=finding.name, good=finding.good, sentence=finding.sentence)
        mark, style = ("✓", "green") if finding.good else ("✗", "red")
        session.out.say(f"{mark} {finding.name:10} {visible(finding.sentence)}", style)
    return output.OK if all(finding.good for finding in findings) else output.FAILED


def _salvage(session: Session) -> int:
    """VaultTrouble: nothing can be read, or nothing is wrong."""
    try:
        key = vault_key.load_key(session.folder, session.ask_passphrase)
        made = salvage_vault(session.folder, key, now_ms(), SystemEntropy())
    except LocalError as error:
        raise VaultTrouble(str(error)) from None
    session.out.record(
        "salvaged",
        contacts=made.contacts,
        messages=made.messages,
        gaps=made.gaps,
        kept=str(made.kept),
    )
    session.out.say(f"{made.contacts} contacts and {made.messages} messages are in a new vault.", "green")
    if made.gaps:
        session.out.say(f"{made.gaps} places could not be read: what stood there is missing, too.", "yellow")
    session.out.say(
        "All sessions start anew by themselves. What came last may be missing; a backup may have it."
    )
    session.out.say(f"The damaged vault is kept in {made.kept}.", "dim")
    return output.OK


def _sqlite() -> Finding:
    version, ciphers = apsw.sqlite_lib_version(), str(getattr(apsw, "mc_version", ""))
    try:
        require_cipher_sqlite(version, ciphers)
    except LocalError as error:
        return Finding("sqlite", False, str(error))
    return Finding("sqlite", True, f"{version}, {ciphers}")


def _files(session: Session) -> Finding:
    folder = session.folder
    loose = [
        path.name
        for path in (folder, folder / DATABASE, folder / vault_key.KEY_FILE)
        if path.stat().st_mode & 0o077
    ]
    if loose:
        return Finding("files", False, f"others may read {', '.join(loose)}: chmod go-rwx {folder}")
    return Finding("files", True, f"in {folder}, for you alone")


def _key(session: Session) -> Finding:
    match vault_key.kind_of(session.folder):
        case "keyring":
            return Finding("key", True, "in the keyring of this machine")
        case "passphrase":
            return Finding("key", True, "under a passphrase (Argon2id)")
    return Finding("key", True, "in a plain file beside the vault, as you asked: who has the folder reads it")


def _daemon(client: Client) -> Finding:
    if not place.has_sockets():
        return Finding("daemon", True, place.NO_SOCKETS)
    if not isinstance(client, DaemonClient):
        return Finding("daemon", True, "none runs: one command at a time uses this vault")
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(client.status()["since_ms"] / 1000))
    return Finding("daemon", True, f"process {client.pid} has this vault since {since}")


def _pages(client: Client) -> Finding:
    faults = client.vault_faults()
    if faults:
        return Finding(
            "vault",
            False,
            f"damaged ({faults[0]}): 'lokket doctor --salvage' makes a new one of what can be read",
        )
    return Finding("vault", True, "every page is whole")


async def _account(client: Client, timeout_s: float) -> list[Finding]:
    try:
        waiting = await client.wait_online(timeout_s)
    except LocalError as error:
        found = [Finding("relay", False, str(error))]
    else:
        await client.settle(timeout_s)
        found = [Finding("relay", True, f"{client.me().origin} answers; {waiting} messages waited there")]
    health = client.health()
    left_days = (health.list_expires_s - now_ms() // 1000) // limits.DAY_S
    until = time.strftime("%Y-%m-%d", time.localtime(health.list_expires_s))
    found.append(Finding("devices", left_days >= 0, f"your device list is valid until {until}"))
    found.append(
        Finding("prekeys", health.prekey_pairs > 0, f"{health.prekey_pairs} private pairs on this device")
    )
    found.append(
        Finding("messages", True, f"{health.queued} to send, {health.awaiting_receipt} without a receipt yet")
    )
    if health.held:
        reasons = ", ".join(f"{count} {code}" for code, count in health.held)
        found.append(
            Finding("held", True, f"messages kept aside: {reasons}; they heal or expire by themselves")
        )
    found += [Finding("warning", False, sentence) for sentence in health.warnings]
    for alarm in health.alarms:
        about = f"{alarm.petname}: {alarm.sentence}" if alarm.petname else alarm.sentence
        bad = alarm.kind != "relay-restored"  # which is over by the time that it is told
        found.append(Finding("alarm", not bad, f"{clock(alarm.time_ms)}: {about}"))
    await client.perform(events.AlarmsShown())
    return found
