"""The other party: a libsignal endpoint in node, driven over stdio in JSON lines (libsignal/README.md)."""

from __future__ import annotations

import base64
import json
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

DRIVER = Path(__file__).parent / "libsignal" / "peer.mjs"
MODULES = DRIVER.parent / "node_modules" / "@signalapp" / "libsignal-client"
REPLY_TIMEOUT_S = 20.0

Reply = dict[str, Any]


class Refused(Exception):
    """libsignal, or the driver, said no. ``name`` is libsignal's error class or ``BadRequest``."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['name']}: {error['message']}")
        self.name: str = error["name"]
        self.message: str = error["message"]


def missing() -> str | None:
    """Why the driver cannot run here, as a sentence, or None."""
    if shutil.which("node") is None:
        return "node is not installed: the live libsignal tests need it"
    if not MODULES.is_dir():
        return "libsignal-client is not installed: run `npm ci` in tests/interop/libsignal"
    return None


class Peer:
    """One driver process. Bytes become base64 on the way out; ``decode`` turns a reply's field back."""

    def __init__(self, driver: Path = DRIVER) -> None:
        self._process = subprocess.Popen(
            ["node", str(driver)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._parties = 0

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def call(self, command: str, **fields: Any) -> Reply:
        """The reply to one command. Refused: it says no. TimeoutError, EOFError: it hangs or died."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"cmd": command, **_text(fields)}) + "\n")
        self._process.stdin.flush()
        try:
            line = self._lines.get(timeout=REPLY_TIMEOUT_S)
        except queue.Empty:
            self.close()
            raise TimeoutError(f"the driver gave no answer to {command} in {REPLY_TIMEOUT_S} s") from None
        if not line:
            raise EOFError(f"the driver ended with status {self._process.wait()}")
        reply: Reply = json.loads(line)
        if not reply["ok"]:
            raise Refused(reply["error"])
        return reply

    def label(self) -> str:
        """A party name nobody used before in this process."""
        self._parties += 1
        return f"party-{self._parties}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


def decode(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: _text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_text(item) for item in value]
    return value
