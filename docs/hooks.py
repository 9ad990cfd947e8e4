"""What the site's build adds to mkdocs: links to the repository's other files, and docstrings that must not miss."""

import logging
import re
from pathlib import Path
from typing import Any

import griffe

LOG = logging.getLogger("mkdocs.hooks.canaryaudit")
ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)\s#]*)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Show links to files outside the pages as their names: the site holds the pages alone."""
    here = (ROOT / "docs" / page.file.src_uri).parent

    def name(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        if target.is_relative_to(ROOT / "docs"):
            return match[0]
        if not target.exists():
            LOG.warning("%s: the link to %s leads nowhere", page.file.src_uri, match[2])
        path = f"`{target.relative_to(ROOT)}`"
        return path if match[1] in path else f"{match[1]} ({path})"

    return LINK.sub(name, markdown)


def on_pre_build(**_: Any) -> None:
    """Refuse what the API's page would not show well: no docstring, or examples under a heading that is not known."""
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    for name in re.findall(r"^::: (\S+)", text, re.MULTILINE):
        shown = griffe.load(name, search_paths=[str(ROOT)], resolve_aliases=True, docstring_parser="google")
        for missing in undocumented(shown):
            LOG.warning("%s has no docstring", missing)
    for path in sorted((ROOT / "canaryaudit").rglob("*.py")):
        if re.search(r"^ *Example:$", path.read_text("utf-8"), re.MULTILINE):
            LOG.warning("%s: write 'Examples:', or the page shows code as prose", path.relative_to(ROOT))


def undocumented(shown: Any) -> list[str]:
    """Return the paths of the public functions, classes and methods below an object that have no docstring."""
    if shown.is_alias:
        shown = shown.final_target
    found = [] if shown.docstring or not (shown.is_function or shown.is_class or shown.is_module) else [shown.path]
    if shown.is_module or shown.is_class:
        for name, member in shown.members.items():
            exported = shown.exports is None or name in shown.exports
            inside = not member.is_alias or (shown.is_module and shown.exports is not None)
            if not name.startswith("_") and exported and inside and not name.startswith("__"):
                found += undocumented(member)
    return sorted(set(found))
