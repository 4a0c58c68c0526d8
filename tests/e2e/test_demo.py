"""``lokket demo`` without a terminal and with one."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.machine import Machine, environment

IN_TIME_S = 15.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "home")


def delivered(text: str) -> list[str]:
    found = re.findall(r"^delivered and decrypted: (.*)$", text, re.MULTILINE)
    assert all(isinstance(line, str) for line in found)
    return found


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("lokket-demo-*")}


def test_its_own_script(machine: Machine) -> None:
    before, started_s = leftovers(), time.monotonic()
    result = machine.run("demo")
    assert result.returncode == 0, result.stdout + result.stderr
    assert time.monotonic() - started_s < IN_TIME_S
    assert len(delivered(result.stdout)) >= 3
    assert [int(at) for at in re.findall(r"^ ?(\d+)  ", result.stdout, re.MULTILINE)] == list(range(1, 11))
    assert "✓ the text itself is in none of its files" in result.stdout
    assert "✓ the relay has deleted the message" in result.stdout
    assert "FAILED" not in result.stdout
    assert "\x1b" not in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert leftovers() <= before
    assert not machine.home.exists()


def test_each_line_of_input_is_a_message(machine: Machine) -> None:
    lines = [
        "first",
        "x",
        "",
        "CREATE TABLE accounts",
        "добрый день 🎉",
        "  spaces  ",
        "no newline at the end",
    ]
    result = machine.run("demo", text="\n".join(lines))
    assert result.returncode == 0, result.stdout + result.stderr
    found = [line for line in delivered(result.stdout) if not line.startswith("Hi Alice.")]
    assert found == [line for line in lines if line]


def test_as_json(machine: Machine) -> None:
    records = machine.json("demo", text="one\ntwo\n")
    assert [record["text"] for record in records if record["type"] == "delivered"][0::2] == ["one", "two"]
    assert all(record["good"] for record in records if record["type"] == "check")
    assert records[-1]["type"] == "result"
    assert records[-1]["failed"] == 0


def test_a_step_that_fails_is_seen(machine: Machine) -> None:
    """A message that cannot be delivered as it was written: here, one that is too long to be one."""
    result = machine.run("demo", text="x" * 200_000 + "\n")
    assert result.returncode == 1
    assert "FAILED" in result.stdout
    assert "Traceback" not in result.stderr


def test_text_in_the_relays_files_is_found(machine: Machine) -> None:
    """The search can fail: run the demo with a relay that also writes what it should not have."""
    code = """
import sys
from lokket.apps import demo_stage
from lokket.apps.entry import main
count = demo_stage.Stage.count
asked = []
def leaking(self, needle):
    asked.append(needle)
    return count(self, needle) + (asked.count(needle) > 1 and needle == b"find me in there")
demo_stage.Stage.count = leaking
sys.argv = ["lokket", "demo"]
sys.exit(main())
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(machine.home),
        input="find me in there\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "FAILED" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals to test with here")
def test_a_person_types(machine: Machine) -> None:
    import pty

    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(environment(machine.home), TERM="xterm-256color", COLUMNS="80", LINES="24")
        os.execv(sys.executable, [sys.executable, "-m", "lokket.apps.entry", "demo"])
    shown = b""
    answers = [b"typed by hand\n", b"\n"]
    give_up_s = time.monotonic() + 60
    while time.monotonic() < give_up_s:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                part = os.read(terminal, 65536)
            except OSError:
                break
            shown += part
        if answers and shown.count(b"alice> ") == 3 - len(answers):
            os.write(terminal, answers.pop(0))
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0, shown.decode()
    assert b"delivered and decrypted: typed by hand" in shown
    assert json.dumps("typed by hand") not in shown.decode()
