"""What is done with a message that came, and what does not count as done."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lokket.apps import handlers
from lokket.apps.handlers import Command, Lines, Webhook
from lokket.errors import LocalError

LINE = json.dumps({"type": "message", "text": "the canary sings"}).encode()
ID = "00ff"


def handled(handler: handlers.Handler) -> str:
    return asyncio.run(handler.handle(LINE, ID))


def program(tmp_path: Path, text: str) -> str:
    path = tmp_path / "handler.py"
    path.write_text(text)
    return f"{sys.executable} {path}"


# --- commands ---


@pytest.mark.attack(58)
def test_a_command_gets_the_message_on_its_input_and_nowhere_else(tmp_path: Path) -> None:
    said = tmp_path / "said"
    text = (
        "import json, os, sys\n"
        f"json.dump([sys.stdin.read(), sys.argv, dict(os.environ)], open({str(said)!r}, 'w'))"
    )
    assert handled(Command(program(tmp_path, text) + " --quoted 'two words'", 30)) == ""
    line, arguments, environment = json.loads(said.read_text())
    assert json.loads(line) == json.loads(LINE)
    assert line.endswith("\n")
    assert arguments[1:] == ["--quoted", "two words"]
    assert "canary" not in json.dumps([arguments, environment])


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        ("raise SystemExit(3)", "the command ended with 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the command ended with -9"),
        ("import sys; sys.stdin.close()", ""),  # who does not read it may still be content
    ],
)
def test_only_an_end_with_zero_counts(tmp_path: Path, text: str, trouble: str) -> None:
    assert handled(Command(program(tmp_path, text), 30)) == trouble


def test_a_command_that_cannot_be_run_is_a_failure_and_one_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "No such file" in handled(Command(str(tmp_path / "nothing"), 30))
    for words in ("", "   ", "'open"):
        with pytest.raises(LocalError):
            Command(words, 30)


def test_a_command_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(600)"
    )
    assert handled(Command(program(tmp_path, text), 3)) == "the command took longer than 3 s"
    pid = int((tmp_path / "pid").read_text())
    give_up_s = time.monotonic() + 20
    while runs(pid):
        assert time.monotonic() < give_up_s, "the handler's child still runs"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


# --- web addresses ---


class Server:
    """Answers with ``codes`` in turn, then with the last; keeps what it was sent."""

    def __init__(self, codes: list[int]) -> None:
        self.codes = codes
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.release = threading.Event()
        server = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.got.append((self.path, dict(self.headers), body))
                code = server.codes.pop(0) if len(server.codes) > 1 else server.codes[0]
                if code == 0:
                    server.release.wait(30)
                    return
                self.send_response(code)
                if 300 <= code < 400:
                    self.send_header("Location", f"http://127.0.0.1:{server.port}/elsewhere")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?for=me"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server([200])
    yield made
    made.close()


def hook(server: Server, wait_s: float = 30) -> Webhook:
    return Webhook(server.address, wait_s, allow_plaintext=False)


@pytest.mark.attack(58)
def test_a_post_carries_the_message_in_its_body_alone(server: Server) -> None:
    assert handled(hook(server)) == ""
    [(path, headers, body)] = server.got
    assert (path, body) == ("/hook?for=me", LINE)
    assert headers["Content-Type"] == "application/json"
    assert headers["Idempotency-Key"] == ID
    assert "canary" not in path + json.dumps(headers)


@pytest.mark.parametrize("code", [199 + 2, 204, 299])
def test_every_answer_of_two_hundred_and_something_counts(server: Server, code: int) -> None:
    server.codes = [code]
    assert handled(hook(server)) == ""


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 404, 500, 503])
def test_no_other_answer_counts_and_no_redirect_is_followed(server: Server, code: int) -> None:
    server.codes = [code]
    assert handled(hook(server)) == f"the server answered {code}"
    assert [path for path, _, _ in server.got] == ["/hook?for=me"]


def test_a_server_that_is_mute_or_away_is_a_failure(server: Server) -> None:
    server.codes = [0]
    assert handled(hook(server, 0.5)).startswith("the server")
    address = server.address
    server.close()
    trouble = handled(Webhook(address, 5, allow_plaintext=False))
    assert trouble.startswith("the server cannot be reached: ")
    assert "canary" not in trouble


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://example.org/hook", "without TLS"),
        ("ftp://example.org/", "needs an http"),
        ("example.org", "needs an http"),
        ("https://", "needs an http"),
        ("https://user:secret@example.org/", "needs an http"),
        ("https://example.org:port/", "needs an http"),
        ("file:///etc/passwd", "needs an http"),
    ],
)
def test_addresses_that_are_refused(address: str, words: str) -> None:
    with pytest.raises(LocalError, match=words) as refused:
        Webhook(address, 5, allow_plaintext=False)
    assert "secret" not in str(refused.value)


def test_plain_http_elsewhere_only_on_demand() -> None:
    Webhook("http://example.org/hook", 5, allow_plaintext=True)
    Webhook("http://localhost:1/hook", 5, allow_plaintext=False)


# --- files ---


def test_lines_are_appended_and_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "mail.jsonl"
    for _ in range(2):
        assert handled(Lines(str(path))) == ""
    assert path.read_bytes() == (LINE + b"\n") * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(LocalError, match="cannot write"):
        Lines(str(tmp_path / "no" / "folder"))


def test_a_full_disk_is_a_failure() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    assert handled(Lines("/dev/full")) == "the line cannot be written: No space left on device"
