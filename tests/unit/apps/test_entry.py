"""The command line without one of its three streams, or with one that refuses: a sentence, no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.machine import environment

pytestmark = pytest.mark.skipif(os.name != "posix", reason="how a shell closes a stream is POSIX' own")


def run(home: Path, redirections: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m lokket.apps.entry "$@" {redirections}', sys.executable, *arguments],
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("arguments", [("--version",), ("-h",), ("--json", "whoami"), ("daemon", "stop")])
@pytest.mark.parametrize("redirection", [">&-", ">/dev/full"])
def test_output_that_goes_nowhere_is_an_error(
    tmp_path: Path, redirection: str, arguments: tuple[str, ...]
) -> None:
    if redirection == ">/dev/full" and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    result = run(tmp_path, redirection, *arguments)
    assert result.returncode == 1
    assert result.stderr.startswith("lokket: the system refused: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("redirections", ["<&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_not_missed(tmp_path: Path, redirections: str) -> None:
    assert run(tmp_path, redirections, "send", "bob", "-").returncode == 1  # there is nothing to send
    result = run(tmp_path, redirections, "whoami")
    assert result.returncode == 4
    assert "Traceback" not in result.stderr
