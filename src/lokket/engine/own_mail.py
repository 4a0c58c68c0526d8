"""What another of our own devices says that is no message, given to the room that it concerns.

That it comes from one of our own, on our account's list, is verified before.
"""

from __future__ import annotations

from lokket.engine import handover, history, reading, siblings
from lokket.engine.step import Step
from lokket.wire import content


def received(step: Step, device_hash: bytes, body: content.Body) -> None:
    match body:
        case content.DeviceName():
            siblings.name_received(step, body)
        case content.Read():
            reading.received(step, body)
        case content.History():
            history.offered(step, device_hash, body)
        case content.HistoryAsk():
            history.asked(step, device_hash, body)
        case content.Handover():
            handover.received(step, device_hash, body)
        case content.HistoryPage():
            history.page_arrived(step, device_hash, body)
