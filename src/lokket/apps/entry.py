"""The ``lokket`` command. Everything but ``--version`` is loaded when it is asked for."""

from __future__ import annotations

import sys


def main() -> int:
    """The exit code; see docs/using.md."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from lokket import __version__  # noqa: PLC0415

        print(f"lokket {__version__}")
        return 0
    if sys.argv[1:2] == ["send"]:
        from lokket.apps import quick  # noqa: PLC0415

        code = quick.run(sys.argv[2:])
        if code is not None:
            return code
    from lokket.apps.cli import run  # noqa: PLC0415

    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
