"""The ``lokket`` command. Answers ``--version`` by itself; everything else is loaded when it is asked for."""

from __future__ import annotations

import sys


def main() -> int:
    """The exit code; see docs/using.md."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from lokket import __version__  # noqa: PLC0415

        print(f"lokket {__version__}")
        return 0
    from lokket.apps.cli import run  # noqa: PLC0415

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
