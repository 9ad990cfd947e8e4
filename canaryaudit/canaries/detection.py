"""Detect personal data and credentials in a text without templates.

Candidates are found by their form and checked by well-kept libraries: check digits and registries of numbers
(python-stdnum), numbering plans of telephones (phonenumbers), and the published prefixes of keys. A number without
check digits counts only in a form, or after a word, that no other number has.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import Literal, get_args

from canaryaudit.canaries.space import character_set
from canaryaudit.canaries.template import Template, quoted
from canaryaudit.errors import UsageError

Kind = Literal["email", "phone", "iban", "card", "ssn", "key"]
"""What can be detected."""
KINDS: tuple[Kind, ...] = get_args(Kind)

_CONTEXT = 40
"""Characters of text before a secret that its template keeps: a few words."""
_AROUND = 48
"""Characters before a number in which a word may say what it is."""
_MAX_KEY = 400
"""Characters of a key or token that its canary has; the rest of a longer one is left out."""
_FEW_SYMBOLS = 4
"""A key of fewer different symbols is a placeholder, such as AKIAXXXXXXXXXXXXXXXX."""
_SHARED_DOMAIN = 2
"""Addresses that share a domain, which is then no secret."""
_SPACE = re.compile("[ \u00a0-]")

_AT = re.compile("@")
_LOCAL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}\Z", re.ASCII)
_DOMAIN = re.compile(r"(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w@])(?!\.\w)")
_FILE_ENDING = re.compile(r"\.(?:png|jpe?g|gif|svg|webp|bmp|ico|css|m?js|json|xml|html?|txt|pdf|csv|zip|gz)\Z", re.I)

_HYPHEN = "[-\u2010\u2011\u2012\u2013]"
_NUMBER = re.compile(
    rf"(?<![\w.#@/])(?<!\w-)(?<!\d:)[+(]?\d(?:(?:[ .\u00a0/()]|{_HYPHEN}){{0,3}}\d){{6,32}}+(?![\w@]|[-.]\w|:\d)"
)
_PIECE = re.compile(r"[^ \u00a0]+")
_SSN = re.compile(rf"\d{{3}}({_HYPHEN})\d\d\1\d{{4}}|\d{{3}}[ \u00a0]\d\d[ \u00a0]\d{{4}}|\d{{9}}")
_CARD = re.compile(r"\d{12,19}|\d{4}([ \u00a0-])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ \u00a0-])\d{6}\2\d{4,5}")
_GROUPS = re.compile(
    rf"\(\d{{2,5}}\)[ \u00a0/-]?\d{{2,8}}(?:[ .\u00a0/]\d{{2,6}}|{_HYPHEN}\d{{2,6}}){{0,3}}"
    rf"|\d{{1,5}}(?:(?:[ .\u00a0/]|{_HYPHEN})\d{{2,8}}){{1,4}}"
)
_NANP = ([3, 3, 4], [1, 3, 3, 4])
"""Digits of each group of a number in North America."""
_SSN_FORM = re.compile(rf"\d{{3}}{_HYPHEN}\d\d{_HYPHEN}\d{{4}}")
_CARD_FORM = re.compile(r"\d{4}(?:[ \u00a0-]\d{4}){2,}(?:[ \u00a0-]\d{1,4})?")
_DECIMAL = re.compile(r"\d+\.\d+")
_SPACED = re.compile(r"[\d \u00a0]+")
_IP = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:0?[1-9]|[12]\d|3[01])(?!\d)"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./ ](?:0?[1-9]|[12]\d|3[01])[-./ ](?:19|20)\d\d(?!\d)"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ \u00a0-]?[A-Z0-9]){11,30}(?![A-Za-z0-9])")
_SSN_WORDS = re.compile(r"\b(?:ssn|social security)\b", re.IGNORECASE)
_PHONE_WORDS = re.compile(
    r"\b(?:tel|phone|telephone|mobile|cell|call|dial|fax|sms|whatsapp|telefon|handy|mobil)\b", re.IGNORECASE
)
_OTHER_WORDS = re.compile(
    r"\b(?:orders?|invoice|ticket|isbn|issn|ean|upc|sku|version|ref|reference|id|serial|tracking|build|case|part|model"
    r"|account|batch|lot)\b",
    re.IGNORECASE,
)

_KEYS = {
    "AWS access key": r"(?:AKIA|ASIA)(?P<a>[A-Z2-7]{16})",
    "GitHub token": r"gh[pousr]_(?P<b>[A-Za-z0-9]{36,251})|github_pat_(?P<c>\w{22}_\w{59})",
    "GitLab token": r"glpat-(?P<d>[\w-]{20,64})",
    "Stripe key": r"[srp]k_(?:live|test)_(?P<e>[A-Za-z0-9]{16,128})",
    "Slack token": r"xox[abeoprs]-(?P<f>[A-Za-z0-9-]{20,200})",
    "Google key": r"AIza(?P<g>[\w-]{35})",
    "SendGrid key": r"SG\.(?P<h>[\w-]{22}\.[\w-]{43})",
    "npm token": r"npm_(?P<i>[A-Za-z0-9]{36})",
    "Hugging Face token": r"hf_(?P<j>[A-Za-z]{34})",
    "JSON web token": r"eyJ(?P<k>[\w-]{8,2000}\.eyJ[\w-]{4,4000}\.[\w-]{16,1000})",
    "private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+(?P<l>[A-Za-z0-9+/=]{16,76})",
}
"""Published prefixes of keys, each with a group for what is secret."""
_KEY = re.compile(rf"(?<![\w-])(?:{'|'.join(_KEYS.values())})(?![\w-])", re.ASCII)
_KEY_STARTS = re.compile(
    r"A[KS]IA|gh[pousr]_|github_pat_|glpat-|[srp]k_(?:live|test)_|xox|AIza|SG\.|npm_|hf_|eyJ|-----B"
)
_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|(?:50|5[6-9]|6\d)\d{10,17}"
)


@dataclass(frozen=True)
class Finding:
    """A piece of personal data, or a credential, at one place.

    Attributes:
        kind: What it is.
        start: Offset of its first character.
        secret: Offset of the first character that is secret: after a country code or a key's prefix.
        secret_end: Offset after the last secret character: before an address's domain.
        end: Offset after its last character.
        value: The whole of it without separators, in one case where case does not matter: equal for the same datum.
    """

    kind: Kind
    start: int
    secret: int
    secret_end: int
    end: int
    value: str


class Detector:
    """Finds personal data and credentials.

    Args:
        kinds: What is wanted; all kinds are looked for, so that no template quotes one that was not asked for.
        regions: ISO codes of countries in whose national form telephone numbers are read.

    Raises:
        UsageError: A kind or a region is unknown, or a library is missing.
    """

    def __init__(self, kinds: Iterable[str], regions: Sequence[str] = ("US",)) -> None:
        self.kinds = frozenset(kinds)
        if unknown := sorted(self.kinds - {*KINDS}):
            raise UsageError(f"--detect {','.join(unknown)}: expected one or more of {', '.join(KINDS)}")
        self._luhn, self._iban, self._ssn = (_library(f"stdnum.{name}") for name in ("luhn", "iban", "us.ssn"))
        self._phones = _library("phonenumbers")
        self._regions = tuple(region.upper() for region in regions)
        metadata = self._phones.PhoneMetadata.metadata_for_region
        # Within these regions a number is dialled with this digit before it.
        self._trunks = {region: data.national_prefix for region in self._regions if (data := metadata(region))}
        if wrong := sorted({*self._regions} - {*self._phones.SUPPORTED_REGIONS}):
            raise UsageError(f"--detect-regions {','.join(wrong)}: expected ISO codes of countries, such as US,GB,DE")

    def every(self, text: str) -> list[Finding]:
        """Return all findings of every kind, in order, without overlaps: the longer of two wins."""
        found = [*self._keys(text), *self._addresses(text), *self._accounts(text), *self._numbers(text)]
        found.sort(key=lambda own: (own.start, -own.end))
        kept: list[Finding] = []
        for own in found:
            if not kept or own.start >= kept[-1].end:
                kept.append(own)
            elif own.end - own.start > kept[-1].end - kept[-1].start:
                kept[-1] = own
        return kept

    # --- kinds

    def _addresses(self, text: str) -> Iterator[Finding]:
        for at in _AT.finditer(text):
            place = at.start()
            local = _LOCAL.search(text, max(0, place - 64), place)
            domain = _DOMAIN.match(text, place + 1)
            if not local or not domain:
                continue
            # What stands before an equals sign or a brace, as in a query or a template, is no part of the name.
            name = re.split("[={}]", local[0])[-1].lstrip(".'`*/|!#&?")
            start = place - len(name)
            # A link, or the name and password of one; "mailto:" is none.
            link = start > 0 and (
                text[start - 1] in "/@" or "//" in text[max(0, start - 64) : start].rpartition(" ")[2]
            )
            if not name or name[-1] == "." or ".." in name or link:
                continue
            if not _FILE_ENDING.search(domain[0]):
                yield Finding("email", start, start, place, domain.end(), f"{name}@{domain[0]}".casefold())

    def _accounts(self, text: str) -> Iterator[Finding]:
        for match in _IBAN.finditer(text):
            # The pattern is greedy: capitals and digits that follow may have been taken with it.
            cuts = (cut.start() for cut in reversed(list(_SPACE.finditer(match[0]))))
            for length in (len(match[0]), *cuts):
                value = _compact(match[0][:length])
                if 15 <= len(value) <= 34 and self._iban.is_valid(value):
                    start, end = match.start(), match.start() + length
                    yield Finding("iban", start, start + 2, end, end, value)
                    break

    def _keys(self, text: str) -> Iterator[Finding]:
        position = 0
        while begin := _KEY_STARTS.search(text, position):
            position = begin.end()
            match = _KEY.match(text, begin.start())
            if match and match.lastgroup:
                first, last = match.span(match.lastgroup)
                if len(set(text[first:last])) > _FEW_SYMBOLS:
                    yield Finding("key", match.start(), first, min(last, first + _MAX_KEY), last, match[0])
                position = match.end()

    def _numbers(self, text: str) -> Iterator[Finding]:
        for match in _NUMBER.finditer(text):
            # Groups of four with wrong check digits are no telephone number either.
            whole = _CARD.fullmatch(match[0].lstrip("("))
            pieces = [(0, len(match[0]))] if whole else [piece.span() for piece in _PIECE.finditer(match[0])]
            before = text[max(0, match.start() - _AROUND) : match.start()].rpartition("\n")[2]
            number = 0
            # Several numbers in a row are one match: the longest that is valid wins, from left to right.
            while number < len(pieces):
                for last in range(len(pieces), number, -1):
                    start, end = pieces[number][0], pieces[last - 1][1]
                    own = self._number(match[0][start:end], before, match.start() + start)
                    if own:
                        yield own
                        number = last
                        break
                else:
                    number += 1

    def _number(self, shown: str, before: str, start: int) -> Finding | None:
        """Return the finding that a number is, if it is any."""
        if shown.startswith("(") and ")" not in shown:
            shown, start = shown[1:], start + 1
        digits, end = _compact(shown), start + len(shown)
        if not 7 <= len(digits) <= 19:
            return None
        hyphenated = shown[3] not in "0123456789 \u00a0"
        if _SSN.fullmatch(shown) and (hyphenated or _SSN_WORDS.search(before)) and self._ssn.is_valid(digits):
            return Finding("ssn", start, start, end, end, digits)
        if _CARD.fullmatch(shown) and _ISSUERS.fullmatch(digits) and self._luhn.is_valid(digits):
            return Finding("card", start, start, end, end, digits)
        return self._phone(shown, before, start)

    def _phone(self, shown: str, before: str, start: int) -> Finding | None:
        others = (_DATE.match(shown), *(form.fullmatch(shown) for form in (_IP, _SSN_FORM, _DECIMAL, _CARD_FORM)))
        if any(others) or len(_compact(shown)) > 15:
            return None
        said = [match.end() for match in _PHONE_WORDS.finditer(before)]
        other = [match.end() for match in _OTHER_WORDS.finditer(before)]
        named = bool(said) and (not other or said[-1] > other[-1])
        plus = shown.startswith("+")
        if not plus and not named and (other or not _GROUPS.fullmatch(shown)):
            return None
        groups = [len(group) for group in re.findall(r"\d+", shown)]
        if groups[-1] == 1:  # a number and a count after it
            return None
        written = f"+{shown[2:]}" if shown.startswith("00") else shown
        for region in (None,) if written.startswith("+") else self._regions:
            try:
                number = self._phones.parse(written, region)
            except self._phones.NumberParseException:
                continue
            national = not written.startswith("+") and not named
            trunk = self._trunks.get(region or "")
            if national and (
                groups not in _NANP or _SPACED.fullmatch(shown)
                if number.country_code == 1
                else trunk not in (None, shown.strip("(")[:1])
            ):
                continue
            if self._phones.is_valid_number(number):
                code = str(number.country_code)
                known = len(code) if plus else len(code) + 2 if written != shown else 0
                value = f"+{code}{self._phones.national_significant_number(number)}"
                end = start + len(shown)
                return Finding("phone", start, start + _after_digits(shown, known), end, end, value)
        return None


def detect(text: str, detector: Detector) -> tuple[list[Finding], list[str]]:
    """Return what was asked for in a text, and the text before each that a template may quote.

    Args:
        text: The text to search.
        detector: What to look for.

    Returns:
        The findings in order, and for each the words before it: at most a few, on its line, and without digits or
        addresses that might be secrets themselves. The domain of an address is secret too unless others share it.
    """
    every = detector.every(text)
    addresses = {own.value for own in every if own.kind == "email"}
    shared = Counter(value.rpartition("@")[2] for value in addresses)
    wanted, contexts, before = [], [], 0
    for own in every:
        if own.kind in detector.kinds:
            alone = own.kind == "email" and shared[own.value.rpartition("@")[2]] < _SHARED_DOMAIN
            wanted.append(replace(own, secret_end=text.rindex(".", own.start, own.end)) if alone else own)
            contexts.append(_context(text, max(before, own.start - _CONTEXT), own.start))
        before = own.end
    return wanted, contexts


def template_of(text: str, finding: Finding, context: str) -> tuple[Template, str, int]:
    """Return a template of a finding with the words before it, what fills it, and where its text begins.

    Runs of digits, of capitals and of other secret characters become slots of their kinds; separators stay.
    """
    body = text[finding.secret : finding.secret_end]
    pieces: list[str] = []
    position = 0
    for run in re.finditer({"email": "[^@]+", "key": ".+"}.get(finding.kind, r"[0-9]+|[A-Z]+"), body):
        pieces += (quoted(body[position : run.start()]), _slot(run[0], finding.kind))
        position = run.end()
    start = finding.start - len(context)
    end = finding.end if finding.kind == "email" else finding.secret_end
    after = text[finding.secret_end : end]
    template = Template.parse(quoted(text[start : finding.secret]) + "".join(pieces) + quoted(body[position:] + after))
    return template, text[start + len(template.prefix) : end - len(template.suffix)], start


def _slot(run: str, kind: Kind) -> str:
    if kind not in ("email", "key"):
        return f"{{{'digits' if run[0].isdigit() else 'upper'}:{len(run)}}}"
    ranges = [shown for shown in ("a-z", "A-Z", "0-9") if re.search(f"[{shown}]", run)]
    others = character_set(sorted(set(re.sub("[a-zA-Z0-9]", "", run)) - {*"{}"}))[1:-1]
    return f"{{[{''.join(ranges)}{others}]:{len(run)}}}"


def _context(text: str, start: int, end: int) -> str:
    """Return the words of a line before ``end``: none with two or more digits, and none of an address or a link."""
    words = text[start:end].rpartition("\n")[2]
    if start and len(words) == end - start and words[:1].isalnum() and text[start - 1].isalnum():
        words = words.partition(" ")[2]  # not half a word
    unsafe = list(re.finditer(r"\S*(?:\d\S*\d|[@{}]|//)\S*", words))
    return words[unsafe[-1].end() :] if unsafe else words


def _compact(text: str) -> str:
    return re.sub("[^0-9A-Z]", "", text)


def _after_digits(text: str, count: int) -> int:
    """Return the offset after the first ``count`` digits."""
    places = [index for index, character in enumerate(text) if character.isdigit()]
    return places[count - 1] + 1 if count else 0


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise UsageError(
            "--detect needs the libraries python-stdnum and phonenumbers: pip install 'canaryaudit[detect]'"
        ) from error
