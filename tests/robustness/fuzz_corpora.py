"""Corpora of every format, spoiled, for the fuzzer: packed files, tables, folders, mail, nested fields and secrets."""

import bz2
import gzip
import json
import lzma
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pydantic
from pyarrow import compress

from canaryaudit.canaries.canary import CanarySet, expected_strings
from canaryaudit.canaries.detection import Detector, detect, template_of
from canaryaudit.canaries.insertion import InsertionRequest, plan_insertion
from canaryaudit.canaries.locating import check_found, group_wordings, locate, located_templates
from canaryaudit.canaries.space import Lexicon
from canaryaudit.canaries.template import Template
from canaryaudit.canaries.word_lists import corpus_words, fitted, named, read_word_lists
from canaryaudit.corpus.corpus import Corpus, hold_out, read_corpus
from canaryaudit.errors import UsageError
from canaryaudit.plan import ALL_KINDS, CorpusFormat, ReadingSettings

Mutate = Callable[[bytes, random.Random], bytes]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": lambda data: compress(data, codec="zstd", asbytes=True),
    "bz2": bz2.compress,
    "xz": lzma.compress,
}
ENDINGS = ("txt", "md", "log", "csv", "tsv", "jsonl", "json", "mbox", "eml", "dat", "")
PATHS = (
    *("text", "id", "messages[].content", "messages[0].content", "a.b.c", "[]", "a[", "a..b", "", ".", "1", "0", "99"),
    *("messages[].content[].text", "messages[99999999999].content", "\ud800", "x" * 3_000, "a[-1]", "*", "role"),
)
CELLS = (
    *(
        "one",
        "",
        '"',
        '""',
        "a,b",
        "a;b",
        "a\tb",
        "a\nb",
        'a\\"b',
        "007",
        "1,5",
        "true",
        "2024-01-31",
        "é",
        "\0",
        "\ufeff",
    ),
    *("'", "-", "=1+1", "x" * 400, "\r", "\u2028", "None", "NaN"),
)
DATA = (
    *("a.b@example.org", "x@y", "@", "+1 202 555 0143", "(030) 123 456", "4111 1111 1111 1111", "078-05-1120"),
    *("GB82 WEST 1234 5698 7654 32", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1B2" * 9, "eyJhbGciOi", "sk_live_" + "0a" * 12),
    *("SG.", "-----BEGIN PRIVATE KEY-----\n", "tel", "ssn ", "{", "}", "\n", " ", "1" * 40, "१२३", "\u00a0", "٣-٤"),
)
WORDS = ("one", "on", "one two", "two", "three", "threes", "é", "e\u0301", "O'Neil", "x.y", "a" * 40, "7", "one")
WORDED = (
    *("is {words:FILE}.", "is {words:FILE} {words:FILE}.", "is {word} {words:FILE}\n", "{words:FILE}\n", "{word}"),
    *(
        "is {word}.",
        "IS {words:FILE}. one",
        "{words:FILE}{digits:1}",
        "is {words:FILE}-{digits:1-2}.",
        "{words:no file}",
    ),
    *(
        "is {digits:1} {words:FILE} {any:1-3}.",
        "{{words:FILE}} {choice:a|b}",
        "is {words:FILE}, {lower:1}{words:FILE};",
    ),
)
LOCATED = (
    *(
        "{digits:3}-{digits:2}",
        "is {digits:4}",
        "{[a-z]:2-4}!",
        "{choice:one|red} ",
        "{alnum:4}",
        "x{any:3}",
        "é{hex:1}",
    ),
    *("{digits:1-3},", "one\n{digits:1}", "{upper:1}{lower:1}", "ONE {digits:2}"),
)


def spoil_packed(place: Path, chance: random.Random, mutate: Mutate) -> None:
    """Read a packed file whose contents, packing or ending may be wrong."""
    data = _contents(chance, ending := chance.choice(ENDINGS), mutate)
    name = chance.choice([*PACKERS])
    packed = PACKERS[chance.choice([*PACKERS]) if chance.random() < 0.1 else name](data)
    if chance.random() < 0.1:
        packed += chance.choice([packed, b"", b"\0" * 9])
    if chance.random() < 0.4:
        packed = mutate(packed, chance)
    path = place / f"c.{ending}.{name}".replace("..", ".")
    path.write_bytes(packed)
    _read(path, _reading(chance) if chance.random() < 0.3 else ReadingSettings())


def spoil_table(place: Path, chance: random.Random, mutate: Mutate) -> None:
    """Read a delimited file of some dialect, with options that may not be its own."""
    mark = chance.choice([",", ";", "\t", "|"])
    quote = chance.choice(["double", "backslash", "none"])

    def cell(text: str) -> str:
        if quote == "none":
            return text
        return '"' + text.replace('"', '""' if quote == "double" else '\\"') + '"'

    columns = chance.randint(1, 4)
    header = [chance.choice(["text", "id", "text", "", "é", "1"]) for _ in range(columns)]
    rows = [[chance.choice(CELLS) for _ in range(columns)] for _ in range(chance.randint(0, 12))]
    lines = [mark.join(map(cell, row)) for row in ([header] if chance.random() < 0.6 else []) + rows]
    text = chance.choice(["\n", "\r\n", "\r"]).join(lines)
    encoding = chance.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
    data = text.encode(encoding, "replace")
    path = place / chance.choice(["c.csv", "c.tsv", "c.txt"])
    path.write_bytes(mutate(data, chance) if chance.random() < 0.3 else data)
    _read(path, _reading(chance) if chance.random() < 0.6 else ReadingSettings())


def spoil_fields(place: Path, chance: random.Random, mutate: Mutate) -> None:
    """Read nested records by paths that may lead nowhere."""

    def value(depth: int) -> Any:
        if depth == 0 or chance.random() < 0.3:
            return chance.choice([None, "word here", "", 7, True, [], {}, 1.5, "\ud800", ["a", None], "x" * 300])
        if chance.random() < 0.4:
            return [value(depth - 1) for _ in range(chance.randint(0, 3))]
        return {key: value(depth - 1) for key in chance.sample(["text", "content", "role", "a", "b", "messages"], 2)}

    rows = [
        {
            "messages": [{"role": chance.choice(["user", "system", None]), "content": value(1)}],
            "text": value(3),
            "a": value(2),
        }
        for _ in range(chance.randint(1, 9))
    ]
    text = "\n".join(json.dumps(own, ensure_ascii=chance.random() < 0.5) for own in rows)
    data = (json.dumps(rows) if chance.random() < 0.3 else text).encode("utf-8", "surrogatepass")
    path = place / chance.choice(["c.jsonl", "c.json"])
    path.write_bytes(mutate(data, chance) if chance.random() < 0.3 else data)
    _read(path, _reading(chance))


def spoil_folder(place: Path, chance: random.Random, mutate: Mutate) -> None:
    """Read a folder or a pattern of files of several formats."""
    folder = place / "folder"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number in range(chance.randint(0, 3)):
        ending = chance.choice(ENDINGS)
        data = _contents(chance, ending, mutate)
        if chance.random() < 0.3:
            packer = chance.choice([*PACKERS])
            ending, data = f"{ending}.{packer}", PACKERS[packer](data)
        (folder / chance.choice([f"f{number}.{ending}", f".hidden{number}", f"é[{number}].{ending}"])).write_bytes(data)
    _read(chance.choice([folder, folder / "*", folder / "f*.log", folder / "[", folder / "**"]), ReadingSettings())


def spoil_mail(place: Path, chance: random.Random, mutate: Mutate) -> None:
    """Read messages and mailboxes."""
    ending = chance.choice(["eml", "mbox"])
    data = _contents(chance, ending, mutate)
    path = place / f"c.{ending}"
    path.write_bytes(mutate(data, chance) if chance.random() < 0.4 else data)
    _read(path, ReadingSettings())


def spoil_secrets(place: Path, chance: random.Random, mutate: Mutate) -> None:
    """Detect and locate secrets in a text of pieces of secrets."""
    del place, mutate
    text = "".join(chance.choice([*DATA, "one two. ", "is 1234, "]) for _ in range(chance.randint(0, 60)))
    detector = Detector(
        chance.sample(ALL_KINDS, chance.randint(1, 6)), chance.choice([("US",), ("DE", "GB"), ("US", "IN")])
    )
    for finding, context in zip(*detect(text, detector), strict=True):
        template, completion, start = template_of(text, finding, context)
        assert text[start : start + len(template.fill(completion))] == template.fill(completion)
        assert completion in template.space(text)
    templates = located_templates(chance.sample(LOCATED, chance.randint(1, 3)), lowercase=chance.random() < 0.2)
    matches = locate(text, templates, chance.choice(["loose", "exact"]))
    for wordings in group_wordings(matches):
        for wording, completion, places in wordings:
            assert all(text.startswith(wording.fill(completion), start) for start in places)
            assert completion in wording.space(text)
    check_found(text, matches)


def spoil_words(place: Path, chance: random.Random, mutate: Mutate) -> None:
    """Read lists of words; fill slots with them, locate them, and insert them into a corpus."""
    path = place / chance.choice(["list.txt", "Liste é.txt"])
    drawn = [chance.choice([*WORDS, *CELLS]) for _ in range(chance.randint(0, 12))]
    data = chance.choice(["\n", "\r\n", "\r"]).join(drawn).encode(chance.choice(["utf-8", "utf-8", "utf-8-sig"]))
    path.write_bytes(mutate(data, chance) if chance.random() < 0.2 else data)
    text = chance.choice(WORDED).replace("FILE", str(path))
    names, lists, _ = read_word_lists([text], ("one", "a secret"), chance.choice([None, str(path)]))
    (named_text,) = named([text], names)
    after = (".", ", x", ";", "-1.", "\n", " one.", " two. one")
    story = "".join(f"is {chance.choice([*WORDS, *drawn])}{chance.choice(after)}\n\n" for _ in range(30))
    story = story.replace("\0", "")
    story += "one two three\n\n" * 3
    symbols = "".join(sorted({*story}))
    own = [fitted(one, symbols, lowercase=False, extend=chance.random() < 0.9)[0] for one in lists]
    lexicon = Lexicon(symbols, {one.name: one.words for one in (*own, corpus_words([story]))})
    template = Template.parse(named_text)
    space = template.space(lexicon)
    members = [*space] if space.size < 3_000 else [space.sample(np.random.default_rng(0))]
    assert len({*members}) == len(members)
    assert not any(two.startswith(one) for one, two in pairwise(sorted(members)))
    for member in members[:50]:
        fillings = iter(template.fillings(member))
        assert "".join(part if isinstance(part, str) else next(fillings) for part in template.body) == member
        assert template.completion_of(member.removesuffix(template.ending), lexicon) == member
    matches = locate(
        story, located_templates([named_text], lowercase=False), chance.choice(["loose", "exact"]), lexicon
    )
    for wordings in group_wordings(matches):
        for wording, completion, places in wordings:
            assert all(story.startswith(wording.fill(completion), start) for start in places)
            assert completion in wording.space(lexicon)
    (place / "story.txt").write_text(story, "utf-8")
    how = {"located": (named_text,)} if chance.random() < 0.5 else {"templates": (named_text,), "num_canaries": 2}
    request = {"templates": (), "word_lists": lists, "num_controls": 1, "holdout": 0.1, "extend_vocabulary": True}
    plan = plan_insertion(read_corpus(str(place / "story.txt")), InsertionRequest.model_validate(request | how))
    assert CanarySet.model_validate_json(plan.canary_set.model_dump_json()) == plan.canary_set
    audited = "".join(plan.assembly.training_blocks())
    strings = expected_strings(plan.canary_set)
    assert strings is not None
    assert all(audited.startswith(string, start) for start, string in strings)


def _contents(chance: random.Random, ending: str, mutate: Mutate) -> bytes:
    words = [*CELLS, "one two. ", "\n\n", "From x\n", "from: a@b\n", "\n"]
    text = "".join(chance.choice(words) for _ in range(chance.randint(0, 40)))
    if ending in ("eml", "mbox"):
        headers = [
            "Subject: =?utf-8?b?w6k=?=",
            "Content-Type: text/plain; charset=klingon",
            "To: x",
            "Content-Type: multipart/mixed; boundary=b",
        ]
        headers += [
            "Content-Transfer-Encoding: base64",
            "Content-Transfer-Encoding: quoted-printable",
            ": ",
            "\t folded",
        ]
        some = "\n".join(chance.sample(headers, chance.randint(0, 4)))
        text = f"From x\n{some}\n\n{text}\n--b\n\npart\n" * chance.choice([1, 1, 3])
    elif ending in ("jsonl", "json"):
        text = "\n".join(json.dumps({"id": n, "text": text[:50]}) for n in range(4))
    data = text.encode("utf-8", "surrogatepass")
    return mutate(data, chance) if chance.random() < 0.3 else data


def _reading(chance: random.Random) -> ReadingSettings:
    choices: dict[str, list[Any]] = {
        "column": [(chance.choice(PATHS),), (chance.choice(PATHS), "text"), ()],
        "role": [(), ("user",), ("",)],
        "delimiter": [None, "comma", ";", "tab", "x", "\\"],
        "escape": [None, "doubled", "backslash"],
        "header": [None, True, False],
        "encoding": [None, "utf-8", "latin-1", "utf-16", "klingon", "rot13", "idna", "utf-7"],
        "format": [None, *get_args(CorpusFormat)],
    }
    wanted = chance.sample([*choices], chance.randint(0, 3))
    try:
        return ReadingSettings(**{name: chance.choice(choices[name]) for name in wanted})
    except pydantic.ValidationError as error:
        raise UsageError("an option") from error


def _read(path: Path, reading: ReadingSettings) -> Corpus:
    corpus = read_corpus(str(path), reading)
    assert corpus.lengths.sum() == corpus.ends[-1] == len(corpus.text)
    assert corpus.num_documents > 0
    assert not hold_out(corpus.lengths, 0.2, 0).all()
    assert all("\n" not in own for own in (*corpus.notes, *corpus.warnings))
    return corpus
