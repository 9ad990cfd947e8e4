"""Cards of known corpora: the source of a text, its checksum, and how published experiments cut it."""

import re
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from canaryaudit.errors import CorpusError, one_line

_CORPUS_NAME = re.compile(r"[A-Za-z0-9_-]+")


def looks_like_a_name(text: str) -> bool:
    """Return whether ``text`` could be the name of a known corpus rather than a path."""
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
    """SHA-256 of the text in UTF-8; without it, any text is accepted."""
    source: str
    """The source of the text, in words and as a public URL."""
    file: str
    """The text's file name, in the card's directory."""
    experiment: str = ""
    """The flags that reproduce a published experiment's text."""
    notes: str = ""


def corpus_directories() -> tuple[Path, ...]:
    """Return the directories to search for cards and texts: the current one, the repository, the installed package."""
    package = Path(__file__).resolve().parents[1]
    return (Path("corpora"), package.parent / "corpora", package / "_corpora")


def known_corpora() -> tuple[str, ...]:
    """Return the names of all corpora with a card."""
    return tuple(sorted({card.stem for directory in corpus_directories() for card in directory.glob("*.toml")}))


def find_card(name: str) -> CorpusCard | None:
    """Return the card of a known corpus, or None if it has none.

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
                raise CorpusError(f"corpus card {path} is damaged ({one_line(error)}): correct or remove it") from None
    return None
