"""The devices of an account, and getting it back when the admin device is lost: what takes several steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from lokket.client.client import Client, outcome
from lokket.client.happenings import Happening
from lokket.engine import answers, events, views
from lokket.errors import LocalError
from lokket.protocol import identity
from lokket.protocol.linking import AccountCode, LinkCode

_LOOK_S = 0.05


async def link(
    client: Client,
    *,
    on_code: Callable[[events.LinkCodeMade], None],
    ask_number: Callable[[events.LinkAsked], Awaitable[str]],
    history: bool,
    timeout_s: float,
) -> answers.DeviceView:
    """On the admin device: show a code, wait for a device, let the person type its number, list it.

    LocalError: the number is another's, or the code's time is over.
    """
    await client.wait_online(timeout_s)
    made: list[events.LinkCodeMade] = []

    def asked(seen: Happening) -> events.LinkAsked | None:
        if isinstance(seen, events.LinkCodeMade) and not made:
            made.append(seen)
            on_code(seen)
        return outcome(events.LinkAsked, "link")(seen)

    try:
        word = await client.ask(events.OpenLink(), asked, timeout_s)
        number = await ask_number(word)
        before = {device.device_hash for device in client.me().devices}
        added = outcome(events.TrustNotice, "list")
        await client.ask(
            events.ConfirmLink(number, history),
            lambda seen: found if (found := added(seen)) and found.kind == "device-added" else None,
            timeout_s,
        )
    except (LocalError, asyncio.CancelledError):
        await client.perform(events.CancelLink())
        raise
    return next(device for device in client.me().devices if device.device_hash not in before)


async def join(
    client: Client, code: str, name: str, *, on_number: Callable[[str], None], timeout_s: float
) -> answers.Me:
    """In a new vault: become a device of the account whose code this is."""

    def listed(seen: Happening) -> events.Listed | None:
        if isinstance(seen, events.LinkNumber):
            on_number(seen.number)
            client.go_online(LinkCode.decode(code).origin)
        return outcome(events.Listed, "link")(seen)

    await client.ask(events.LinkDevice(code, name), listed, timeout_s)
    return client.me()


async def wait_history(
    client: Client, on_progress: Callable[[answers.TransferView], None], timeout_s: float
) -> answers.TransferView | None:
    """Until the last page is here, or nothing moved for ``timeout_s``: how far it came, if it came at all."""
    seen: answers.TransferView | None = None
    idle_since_s = asyncio.get_running_loop().time()
    while asyncio.get_running_loop().time() - idle_since_s < timeout_s:
        now = client.read(views.transfer)
        if now is not None and now != seen:
            on_progress(now)
            idle_since_s = asyncio.get_running_loop().time()
        seen = now
        if seen is not None and seen.done:
            break
        await asyncio.sleep(_LOOK_S)
    return seen


async def give_history(
    client: Client, on_page: Callable[[events.HistoryGiven], None], quiet_s: float
) -> bool:
    """Stay while another device fetches pages, until the last or ``quiet_s`` without one; whether it was."""
    happenings = client.events()
    try:
        while True:
            async with asyncio.timeout(quiet_s):
                seen = await anext(happenings)
                while not isinstance(seen, events.HistoryGiven):
                    seen = await anext(happenings)
            on_page(seen)
            if seen.done:
                return True
    except TimeoutError:
        return False


async def revoke(client: Client, number: int, timeout_s: float) -> None:
    """Once the relay has the list without it. NotReached: it goes there when the relay is back."""
    gone = outcome(events.TrustNotice, "list")
    await client.ask(
        events.RevokeDevice(number),
        lambda seen: found if (found := gone(seen)) and found.kind == "device-removed" else None,
        timeout_s,
    )


async def offer_admin(client: Client, number: int, timeout_s: float) -> None:
    """On the admin device: until the other one has taken the role. NotReached: the offer stands.

    LocalError: it was declined.
    """
    await client.wait_online(timeout_s)

    def moved(seen: Happening) -> bool | None:
        if isinstance(seen, events.TrustNotice) and seen.kind == "admin":
            return not client.me().admin
        return None

    if not await client.ask(events.OfferAdmin(number), moved, timeout_s):
        raise LocalError("the other device declined the admin role")


async def accept_admin(client: Client, timeout_s: float) -> None:
    """On the other device: take the offer, and wait until the list names this device. NotReached."""
    await client.catch_up(timeout_s)

    def mine(seen: Happening) -> bool | None:
        return client.me().admin or None

    await client.ask(events.AcceptAdmin(), mine, timeout_s)


@dataclass(frozen=True, slots=True)
class Restored:
    """``recovery_code`` replaces the one that was used; it is kept nowhere."""

    me: answers.Me
    recovery_code: str = field(repr=False)


async def recover(
    client: Client,
    account: str,
    code: str,
    *,
    keep: tuple[int, ...],
    name: str | None,
    device_name: str,
    on_code: Callable[[str], None],
    timeout_s: float,
) -> Restored:
    """In a new vault: replace the account's lost admin device. ``on_code`` is given the next recovery code
    before anything leaves. NotReached: it goes on when the relay is back."""
    next_code = identity.new_recovery_code(client.entropy)
    origin = AccountCode.decode(account).origin
    await client.perform(events.RecoverAccount(account, code, next_code, keep, name, device_name))
    on_code(next_code)
    recovered = outcome(events.Recovered, "recover")
    await client.online_until(origin, recovered, timeout_s)
    return Restored(client.me(), next_code)
