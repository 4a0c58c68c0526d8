"""The daemon's methods in docs/using.md, from the code: ``-m tests.house.daemon_table`` writes them."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from lokket.client.rpc import table
from tests.house.tree import ROOT

DOCUMENT: Final = ROOT / "docs" / "using.md"
_BEGIN, _END = "<!-- methods: written by tests.house.daemon_table -->\n", "<!-- end of methods -->\n"


def rows() -> str:
    lines = ["| Method | Parameters | What it does, and answers |\n", "|---|---|---|\n"]
    for name, kind in table.METHODS.items():
        fields = [
            f"`{field.name}`" + ("" if field.required else "?") for field in msgspec.structs.fields(kind)
        ]
        lines.append(f"| `{name}` | {', '.join(fields)} | {_says(kind.__doc__ or '')} |\n")
    return "".join(lines)


def _says(docstring: str) -> str:
    first = docstring.strip().split("\n\n")[0]
    text = re.sub(r"\s+", " ", first).replace("``", "`").replace("->", "→").replace("|", "/")
    return "" if re.fullmatch(r"\w+\(.*\)", text) else text  # what a dataclass without words calls itself


def written() -> str:
    """The document as it should be."""
    text = DOCUMENT.read_text(encoding="utf-8")
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    return text[:begin] + rows() + text[end:]


if __name__ == "__main__":
    DOCUMENT.write_text(written(), encoding="utf-8")
