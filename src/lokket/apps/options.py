"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Petname = Annotated[str, typer.Argument(metavar="PETNAME", help="Your own name for them.")]
Timeout = Annotated[float, typer.Option("--timeout", min=0.0, help="Seconds to wait for the relay.")]
