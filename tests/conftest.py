"""For all tests: hypothesis without deadlines (machines differ), the same examples in every CI run.

And Ctrl-C as from a terminal: a shell that starts us in the background has it ignored, and what we start
would ignore it, too.
"""

from __future__ import annotations

import os
import signal

from hypothesis import settings

settings.register_profile("lokket", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("lokket")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
