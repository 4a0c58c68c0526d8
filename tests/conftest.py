"""For all tests: hypothesis without deadlines (machines differ), the same examples in every CI run."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("lokket", deadline=None, print_blob=True, derandomize="CI" in os.environ)
settings.load_profile("lokket")
