"""Makes the lock files beside it anew from pyproject.toml: exact versions, every file's hash, no addresses.

Run by ``make lock``. ``run.lock`` holds what ``lokket`` runs on and what builds it, ``dev.lock`` the tests
and checks as well, ``bare.lock`` what the protocol library alone needs, ``fuzz.lock`` the fuzzer,
``mutation.lock`` mutmut, ``lock.lock`` this script's own tool and ``bench.lock`` the libraries that lokket is
measured beside. All agree on every version that they share.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
HEADER = "# Made by `make lock`; do not edit.\n"
OPTIONS = (
    "--universal",
    "--python-version=3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-annotate",
    "--no-header",
    "--quiet",
)


def compile_lock(name: str, *sources: str, stdin: str | None = None) -> None:
    """Writes ``requirements/NAME.lock``; versions already pinned by ``dev.lock`` are kept equal to it."""
    target = HERE / f"{name}.lock"
    constraint = () if name == "dev" else ("--constraint", "requirements/dev.lock")
    upgrade = ("--upgrade",) if "--upgrade" in sys.argv[1:] else ()
    command = [sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, *upgrade, *constraint, *sources]
    subprocess.run(
        [*command, "--output-file", str(target)], check=True, cwd=HERE.parent, input=stdin, text=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    target.write_text(HEADER + target.read_text())
    print(f"requirements/{name}.lock: {target.read_text().count('--hash=')} hashes")


compile_lock("dev", "--group", "dev", "pyproject.toml")
compile_lock("run", "--group", "build", "pyproject.toml")
compile_lock("bare", "-", stdin="cryptography\n")
compile_lock("fuzz", "--group", "fuzz")
compile_lock("mutation", "--group", "mutation")
compile_lock("lock", "--group", "lock")
compile_lock("bench", "--group", "bench")
