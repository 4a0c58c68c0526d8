"""Fuzz one decoder: ``python fuzz/run.py NAME --seconds 60``; without a name, list them.

``campaign.py`` runs all of them.

Coverage-guided by atheris (optional: ``pip install atheris``). New inputs and crashes go to
``build/fuzz/NAME``; a crash that was fixed moves to ``fuzz/corpus/NAME``, where every test run replays it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
WORK = HERE.parent / "build" / "fuzz"


def main() -> None:
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    try:
        import atheris  # noqa: PLC0415
    except ImportError:
        sys.exit("atheris is not installed here: `pip install atheris` (Linux and macOS)")
    with atheris.instrument_imports(include=["lokket", "fuzz", "targets"]):
        from lokket.errors import RemoteError  # noqa: PLC0415
        from targets import TARGETS  # noqa: PLC0415

    parser = argparse.ArgumentParser(description="Fuzz one decoder.")
    parser.add_argument("name", nargs="?", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    if arguments.name is None:
        print("\n".join(sorted(TARGETS)))
        return
    target = TARGETS[arguments.name]

    def one_input(data: bytes) -> None:
        try:
            target(data)
        except RemoteError:
            return

    found = WORK / arguments.name
    found.mkdir(parents=True, exist_ok=True)
    atheris.Setup(
        [
            sys.argv[0],
            f"-max_total_time={arguments.seconds}",
            f"-artifact_prefix={found}/crash-",
            "-max_len=16384",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            str(found),
            str(HERE / "corpus" / arguments.name),
        ],
        one_input,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
