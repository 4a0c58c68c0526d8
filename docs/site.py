"""The documentation site is docs/ and the four documents of the root, whose links are turned to match."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT_DOCUMENTS = ("README.md", "SECURITY.md", "CHANGELOG.md", "CONTRIBUTING.md")
_ANY = "(" + "|".join(map(re.escape, ROOT_DOCUMENTS)) + ")"
_UP = re.compile(r"\]\((?:\.\./)+" + _ANY)
_BESIDE = re.compile(r"\]\(" + _ANY)
_DOWN = re.compile(r"\]\(docs/")
_LICENCE = re.compile(r"\[([^\]]*)\]\(LICENSE\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    root = Path(config.config_file_path).parent
    for name in ROOT_DOCUMENTS:
        # index.md is the site's front: a README beside it would be taken for it.
        content = (root / name).read_text(encoding="utf-8")
        files.append(File.generated(config, _placed(name), content=content))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    depth = page.file.src_uri.count("/")
    turned = _UP.sub(lambda link: "](" + "../" * depth + _placed(link[1]), markdown)
    if page.file.src_uri in map(_placed, ROOT_DOCUMENTS):
        turned = _BESIDE.sub(lambda link: "](" + _placed(link[1]), _DOWN.sub("](", turned))
    return _LICENCE.sub(r"\1", turned)


def _placed(name: str) -> str:
    return "overview.md" if name == "README.md" else name.lower()
