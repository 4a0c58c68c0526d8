"""The ``lokket`` command. Everything but ``--version`` is loaded when it is asked for."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """The exit code; see docs/using.md."""
    _open_what_is_closed()
    code = 0
    try:
        code = _run()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        from lokket.apps.output import NO_READER  # noqa: PLC0415

        code = NO_READER
    except OSError as error:  # of standard output: all else is said by the command itself, and so may this be
        if code == 0:
            sys.stderr.write(f"lokket: the system refused: {error.strerror}\n")
            code = 1
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python would complain once more when it flushes at exit
    return code


def _open_what_is_closed() -> None:
    """``>&-`` and the like: no file of ours gets such a number; what is printed there is refused."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)  # the lowest that is free
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))


def _run() -> int:
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
