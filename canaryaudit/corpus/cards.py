"""Cards of known corpora: where a text comes from, how to tell it, how experiments cut it."""

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from canaryaudit.errors import CorpusError, one_line

_CORPUS_NAME = re.compile(r"[A-Za-z0-9_-]+")


def looks_like_a_name(text: str) -> bool:
    """Tell whether ``text`` could be the name of a known corpus, rather than a path."""
    return _CORPUS_NAME.fullmatch(text) is not None


class CorpusCard(BaseModel):
    """corpora/NAME.toml: the facts about a known corpus, whether or not its text is shipped."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    author: str
    license: str
    language: str
    characters: int
    sha256: str | None = None
    """SHA-256 of the text's UTF-8; without it any text is taken."""
    source: str
    """Where the text comes from, in words and a public address."""
    file: str
    """The text's file name beside the card."""
    experiment: str = ""
    """The flags with which a published experiment cuts the text."""
    notes: str = ""


def corpus_directories() -> tuple[Path, ...]:
    """Return where cards and their texts are looked for: here, in the repository, in an installed package."""
    package = Path(__file__).resolve().parents[1]
    return (Path("corpora"), package.parent / "corpora", package / "_corpora")


def known_corpora() -> tuple[str, ...]:
    """Return the names of all corpora that have a card."""
    return tuple(sorted({card.stem for directory in corpus_directories() for card in directory.glob("*.toml")}))


def find_card(name: str) -> CorpusCard | None:
    """Return the card of a known corpus, or None if there is no such card.

    Raises:
        CorpusError: The card is damaged.
    """
    if not looks_like_a_name(name):
        return None
    for directory in corpus_directories():
        path = directory / f"{name}.toml"
        if path.is_file():
            try:
                return CorpusCard.model_validate(tomllib.loads(path.read_text("utf-8")))
            except (OSError, ValueError, ValidationError) as error:
                raise CorpusError(f"corpus card {path} is damaged ({one_line(error)}): mend or remove it") from None
    return None
