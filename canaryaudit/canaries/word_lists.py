"""Word lists: what ``{words:FILE}`` and ``{word}`` slots range over, read once and kept with the run.

A file has one word or phrase on each line. White space around it, empty lines and repeated lines do not count. A word
stands as it is written, unless the corpus is lower-cased, or has the word's characters only in another Unicode form.

The words of ``{word}`` are the corpus's own: runs of 2 to 30 letters, the 10,000 most frequent of them.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator

from canaryaudit.canaries.template import list_names_in, with_list_names
from canaryaudit.errors import CorpusError, TemplateError, UsageError
from canaryaudit.formatting import counted

CORPUS_WORDS = ""
"""The name of the list of the corpus's own words."""
MOST_CORPUS_WORDS = 10_000
"""Words of the corpus that ``{word}`` ranges over: rarer ones are mostly names and misspellings."""
MOST_BYTES = 2**26
"""Maximum size of a file of words; longer ones would not fit into a template's space anyway."""

_MARKS = "\u0300-\u036f"
_WORD = re.compile(rf"(?:[^\W\d_][{_MARKS}]*)+")
_SHORTEST_WORD, _LONGEST_WORD = 2, 30
_SHOWN_SYMBOLS = 12


class WordList(BaseModel):
    """The distinct words that a slot ranges over.

    Examples:
        >>> WordList(name="colors.txt", words=("red", "green")).words
        ('red', 'green')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9._-]{0,100}$")
    """What a template calls it: ``{words:NAME}``; the list of the corpus's own words has an empty name."""
    words: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], FailFast()] = Field(min_length=2)
    """Distinct, in the order of the file."""
    sha256: str = ""
    """Of the file that it was read from."""

    @model_validator(mode="after")
    def _check(self) -> "WordList":
        if len(set(self.words)) < len(self.words):
            raise ValueError("a word is given twice: give each word once")
        if any("\n" in word or any("\ud800" <= c <= "\udfff" for c in word) for word in self.words):
            raise ValueError("a word holds a line break, or is not valid UTF-8: remove it")
        return self


def read_word_lists(
    templates: Iterable[str], members: Sequence[str] = (), extended: str | None = None
) -> tuple[dict[str, str], tuple[WordList, ...], list[str]]:
    """Read the files that templates name.

    Args:
        templates: The templates, as the user wrote them.
        members: Secrets that belong to one list, wherever its file lacks them.
        extended: The path of that file, as it stands in a template; optional.

    Returns:
        The name of each list by the path of its file, the lists, and for each a note on what it was taken for.

    Raises:
        UsageError: A file cannot be read, or has fewer than two words.
    """
    paths = dict.fromkeys(path for text in templates for path in list_names_in(text))
    names: dict[str, str] = {}
    lists: list[WordList] = []
    notes = []
    for path in paths:
        names[path] = _free_name(path, names.values())
        word_list, note = read_word_list(path, names[path], members if path == extended else ())
        lists.append(word_list)
        notes.append(note)
    return names, tuple(lists), notes


def read_word_list(path: str, name: str, members: Sequence[str] = ()) -> tuple[WordList, str]:
    """Read a file of words, one on each line; return the list, and a note on what was left out and added.

    Raises:
        UsageError: It cannot be read, is larger than 64 MB, is not UTF-8, or has fewer than two words.
    """
    shown = f"word list {path}"
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path of a file"
        raise UsageError(f"{shown}: {reason}; give the path of a text file with one word on each line") from None
    if len(data) > MOST_BYTES:
        raise UsageError(f"{shown}: more than {MOST_BYTES:,} bytes: give a shorter list")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{shown}: expected UTF-8 text, one word on each line; convert the file") from None
    text = text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n")
    lines = [line.strip() for line in text.split("\n")] if text else []
    given = [line for line in lines if line]
    words = tuple(dict.fromkeys(given))
    added = [member for member in dict.fromkeys(members) if member not in set(words)]
    if len(words) + len(added) < 2:
        raise UsageError(f"{shown}: expected two words or more, one on each line, got {len(words)}")
    changes = (
        (len(lines) - len(given), "empty line", "skipped"),
        (len(given) - len(words), "repeated line", "skipped"),
        (len(added), "given secret", "added"),
    )
    details = ", ".join(f"{counted(count, noun)} {done}" for count, noun, done in changes if count)
    note = f"{shown} as {len(words) + len(added):,} words" + (f" ({details})" if details else "")
    return WordList(name=name, words=(*words, *added), sha256=hashlib.sha256(data).hexdigest()), note


def corpus_words(blocks: Iterable[str]) -> WordList:
    """Return the words of a corpus, the most frequent first.

    Args:
        blocks: The text, cut anywhere.

    Raises:
        CorpusError: It has fewer than two.
    """
    counts: Counter[str] = Counter()
    for block in _at_word_ends(blocks):
        counts.update(word for word in _WORD.findall(block) if _SHORTEST_WORD <= len(word) <= _LONGEST_WORD)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))[:MOST_CORPUS_WORDS]
    if len(ordered) < 2:
        raise CorpusError(
            "slot {word}: the corpus has fewer than two words of letters; use {words:FILE} with a list of words"
        )
    return WordList(name=CORPUS_WORDS, words=tuple(ordered))


def fitted(word_list: WordList, symbols: str, *, lowercase: bool, extend: bool) -> tuple[WordList, list[str]]:
    """Return a list as a corpus can have its words, and what the user should know of it.

    Args:
        word_list: The list.
        symbols: Those of the corpus.
        lowercase: Whether the corpus is lower-cased.
        extend: Whether symbols may be added to the vocabulary.

    Raises:
        TemplateError: A word has a symbol that the corpus lacks, and none may be added.
    """
    known, name = {*symbols}, word_list.name
    words = [word.lower() for word in word_list.words] if lowercase else list(word_list.words)
    forms = [_in_known_form(word, known) for word in words]
    notes = []
    if changed := sum(form != word for form, word in zip(forms, words, strict=True)):
        notes.append(f"word list {name}: {changed:,} words are taken in the Unicode form that the corpus has")
    if repeated := len(forms) - len(set(forms)):
        notes.append(f"word list {name}: {repeated:,} words became equal to others, and count once")
    missing = Counter(symbol for form in forms for symbol in {*form} - known)
    if missing:
        unknown = sum(not known.issuperset(form) for form in forms)
        most = ", ".join(f"{symbol!r} (U+{ord(symbol):04X})" for symbol, _ in missing.most_common(_SHOWN_SYMBOLS))
        most += f" and {len(missing) - _SHOWN_SYMBOLS} more" if len(missing) > _SHOWN_SYMBOLS else ""
        lacking = f"word list {name}: {unknown:,} of {len(forms):,} words have symbols that the corpus lacks: {most}"
        if not extend:
            raise TemplateError(
                f"{lacking}; no model of it could write them: remove these words, or add --extend-vocabulary"
            )
        notes.append(f"{lacking}; they were added, and a model that never read them ranks these words low")
    distinct = tuple(dict.fromkeys(forms))
    if len(distinct) < 2:
        raise TemplateError(f"word list {name}: expected two different words or more; give a longer list")
    return word_list.model_copy(update={"words": distinct}), notes


def named(templates: Iterable[str], names: dict[str, str]) -> tuple[str, ...]:
    """Return templates with the names of lists in the place of their paths."""
    return tuple(with_list_names(text, names) for text in templates)


def _in_known_form(word: str, known: set[str]) -> str:
    for form in (word, *(unicodedata.normalize(kind, word) for kind in ("NFC", "NFD", "NFKC"))):
        if known.issuperset(form):
            return form
    return word


def _free_name(path: str, taken: Iterable[str]) -> str:
    """Return the name of a file in lower case, with a number if another list has it."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", Path(path).name.lower())[-80:] or "list"
    others, number, name = {*taken}, 1, plain
    while name in others:
        number += 1
        name = f"{plain}-{number}"
    return name


def _at_word_ends(blocks: Iterable[str]) -> Iterator[str]:
    """Yield a text again, cut only where no word is."""
    rest: list[str] = []
    for block in blocks:
        ends = (index for index in range(len(block), 0, -1) if not _in_word(block[index - 1]))
        end = next(ends, 0)
        if end:
            yield "".join((*rest, block[:end]))
            rest = []
        rest.append(block[end:])
    yield "".join(rest)


def _in_word(character: str) -> bool:
    return character.isalpha() or unicodedata.combining(character) > 0
