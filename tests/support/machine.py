"""Real processes: a machine with a home of its own, its command lines, and a relay."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WAIT_S = 60.0


def environment(home: Path) -> dict[str, str]:
    """No keyring, no colours, nothing of who runs the tests."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("LOKKET", "PYTEST"))},
        "LOKKET_HOME": str(home),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "PYTHONUNBUFFERED": "1",
        **{
            f"LOKKET_RELAY_ADMISSION_{name}": "0"
            for name in ("LOAD_MAX", "MEMORY_MIN_BYTES", "DISK_MIN_BYTES")
        },
        "NO_COLOR": "1",
    }


class Process:
    """One command that goes on; its lines are read as they come."""

    def __init__(self, home: Path, *arguments: str, **options: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lokket.apps.entry", *arguments],
            env=environment(home),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.errors: list[str] = []
        self.passed_over: list[str] = []  # with --json, what went wrong is among them
        self._readers = [
            threading.Thread(target=self._read, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self.errors.extend(self._process.stderr)

    def line(self, wait_s: float = WAIT_S) -> str:
        """The next one. AssertionError: the process ended, or is mute."""
        try:
            line = self.lines.get(timeout=wait_s)
        except queue.Empty:
            raise AssertionError(f"no line in {wait_s} s; errors: {self.errors}") from None
        assert line is not None, f"it ended; errors: {self.errors}; passed over: {self.passed_over[-5:]}"
        return line

    def record(self, kind: str, wait_s: float = WAIT_S) -> dict[str, Any]:
        """The next JSON line of this type; others are passed over."""
        while True:
            line = self.line(wait_s)
            record: dict[str, Any] = json.loads(line)
            if record["type"] == kind:
                return record
            self.passed_over.append(line)

    def write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def close_input(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def kill(self) -> None:
        """As power loss does, without the disk's part in it."""
        self._process.kill()
        self.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self.wait()

    def wait(self, wait_s: float = WAIT_S) -> int:
        code = self._process.wait(wait_s)
        for reader in self._readers:
            reader.join(5)
        with contextlib.suppress(BrokenPipeError):
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
        return code

    def rest(self) -> list[str]:
        """Lines not yet taken, of a process that has ended."""
        found = []
        while not self.lines.empty():
            line = self.lines.get_nowait()
            if line is not None:
                found.append(line)
        return found


class Machine:
    """Somebody's computer."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.started: list[Process] = []

    def run(self, *arguments: str, text: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lokket.apps.entry", *arguments],
            env=options.pop("env", None) or environment(self.home),
            input=text,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            **options,
        )

    def json(self, *arguments: str, text: str = "", code: int = 0) -> list[dict[str, Any]]:
        """The records of a command that ends with ``code``."""
        result = self.run(*arguments, "--json", text=text)
        assert result.returncode == code, (
            f"{arguments}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        )
        return [json.loads(line) for line in result.stdout.splitlines()]

    def start(self, *arguments: str, **options: Any) -> Process:
        process = Process(self.home, *arguments, **options)
        self.started.append(process)
        return process

    def daemon(self, *arguments: str) -> Process:
        """``lokket daemon`` in the foreground, once its socket is there: ``kill`` it, or ``stop``."""
        process = self.start("daemon", "run", "--json", *arguments)
        process.record("daemon")
        return process

    def stop_all(self) -> None:
        for process in self.started:
            if process._process.poll() is None:
                process.kill()


class RelayMachine(Machine):
    """Runs ``lokket serve``; after a kill, again on the same port and data."""

    port = 0
    invite = ""
    serving: Process

    def serve(self, *arguments: str) -> Process:
        self.serving = self.start("serve", "--port", str(self.port), "--json", *arguments)
        record = self.serving.record("relay")
        self.port = record["port"]
        self.invite = record["invite"] or self.invite
        return self.serving


def eventually(true: Any, wait_s: float = WAIT_S) -> None:
    give_up_s = time.monotonic() + wait_s
    while not true():
        assert time.monotonic() < give_up_s, "it did not come about in time"
        time.sleep(0.05)


@contextlib.contextmanager
def machines(root: Path, *names: str) -> Iterator[list[Machine]]:
    made: list[Machine] = [RelayMachine(root / "relay"), *(Machine(root / name) for name in names)]
    try:
        yield made
    finally:
        for machine in made:
            machine.stop_all()
