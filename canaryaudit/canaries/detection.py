"""Detect personal data and credentials in a text without templates.

Candidates are found by their form and checked by well-kept libraries: check digits and registries of numbers
(python-stdnum), numbering plans of telephones (phonenumbers), and the published prefixes of keys. A number without
check digits counts only in a form, or after a word, that no other number has.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from itertools import accumulate
from types import ModuleType
from typing import Literal, get_args

from canaryaudit.canaries.folding import INVISIBLE, with_ascii_forms
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
_IN_LINK = re.compile(r"//[^\s/?#\"'<>,;|]*\Z")
_LETTERS = "\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0300-\u036f\u0370-\u052f\u1e00-\u1fff"
"""Letters of scripts that write spaces between words: an address there begins at a space."""
_HIDDEN = "".join(c for c in INVISIBLE if c < "\U00010000")  # a set of characters beyond is slow
_LOCAL = re.compile(rf"[A-Za-z0-9_{_LETTERS}{_HIDDEN}.!#$%&'*+/=?^`{{|}}~-]{{1,64}}")
_DOMAIN = re.compile(
    rf"(?:[{_HIDDEN}]*[^\W_](?:[\w{_HIDDEN}-]{{0,61}}[^\W_])?\.)+"
    r"(?:xn--[A-Za-z0-9-]{2,59}|[A-Za-z]{2,24}|[^\W\d_A-Za-z]{2,24}(?!\w))(?![A-Za-z0-9_@-])(?!\.\w|:[\w.~-]*/)"
)
"""Followed by a colon and a path it is a place to copy from, such as git@example.org:a/b."""
_FILE_ENDING = re.compile(r"\.(?:png|jpe?g|gif|svg|webp|bmp|ico|css|m?js|json|xml|html?|txt|pdf|csv|zip|gz)\Z", re.I)

_HYPHEN = "[-\u2010\u2011\u2012\u2013]"
_NUMBER = re.compile(
    rf"(?<![\w.@/])(?<!\w-)(?<!\d:)[+(]?\d(?:(?:[ .\u00a0/()]|{_HYPHEN}){{0,3}}\d){{6,32}}+(?![\w@]|[-.]\w|:\d)"
)
_PIECE = re.compile(r"[^ \u00a0]+")
_CARD_PIECES, _MOST_PIECES = 5, 8
"""Pieces of a number with spaces between them: more are a table's row."""
_SSN = re.compile(rf"\d{{3}}({_HYPHEN}|[ .\u00a0])\d\d\1\d{{4}}|\d{{9}}")
_CARD = re.compile(
    rf"\d{{12,19}}|\d{{4}}([ .\u00a0]|{_HYPHEN})\d{{4}}\1\d{{4}}\1\d{{1,7}}"
    rf"|\d{{4}}([ .\u00a0]|{_HYPHEN})\d{{4}}\2\d{{4}}\2\d{{4}}\2\d{{1,3}}"
    rf"|\d{{4}}([ .\u00a0]|{_HYPHEN})\d{{6}}\3\d{{4,5}}"
)
_GROUPS = re.compile(
    rf"\(\d{{2,5}}\)[ \u00a0/-]?\d{{2,8}}(?:[ .\u00a0/]\d{{2,6}}|{_HYPHEN}\d{{2,6}}){{0,3}}"
    rf"|\d{{1,5}}(?:(?:[ .\u00a0/]|{_HYPHEN})\d{{2,8}}){{1,4}}"
)
_NANP = ([3, 3, 4], [1, 3, 3, 4])
"""Digits of each group of a number in North America."""
_SSN_FORM = re.compile(rf"\d{{3}}({_HYPHEN}|\.)\d\d\1\d{{4}}")
_CARD_FORM = re.compile(rf"\d{{4}}(?:(?:[ .\u00a0]|{_HYPHEN})\d{{4}}){{2,}}(?:(?:[ .\u00a0]|{_HYPHEN})\d{{1,4}})?")
_DECIMAL = re.compile(r"\d+(?:[ \u00a0]\d{3})*\.\d+")
_SPACED = re.compile(r"[\d \u00a0]+")
_IP = re.compile(r"(?:\d{1,3}\.){3}\d{1,3}")
_DATE = re.compile(
    r"(?:19|20)\d\d[-./ ](?:0?[1-9]|1[0-2])[-./ ](?:0?[1-9]|[12]\d|3[01])(?!\d)"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./ ](?:0?[1-9]|[12]\d|3[01])[-./ ](?:19|20)\d\d(?!\d)"
)
_IBAN = re.compile(
    r"(?<![A-Za-z0-9])(?:[A-Z]{2}\d{2}(?:[ \u00a0-]?[A-Z0-9]){11,30}|[a-z]{2}\d{2}(?:[ \u00a0-]?[a-z0-9]){11,30})"
    r"(?![A-Za-z0-9])"
)
_SSN_WORDS = re.compile(
    r"\b(?:ssns?|social security|social(?! media)|soc\.? ?sec|ss ?(?:#|no\b|number))", re.IGNORECASE
)
_PHONE_WORDS = re.compile(
    r"\b(?:tele?(?:phone|fone|fon|foon|fono|fax)?|t[\u00e9e]l(?:[\u00e9e](?:phone|fono))?|phones?|ph|(?:tele)?fax|call|dial|ring"
    r"|mobiles?|mobil|mob|m[o\u00f3]vil|cell(?:s|ulare|phone)?|celular|handy|gsm|portable|rufnummer|hotline|sms|whatsapp|viber)"
    r"(?:nummer|num)?\b",
    re.IGNORECASE,
)
_OTHER_WORDS = re.compile(
    r"\b(?:orders?|invoices?|tickets?|isbn|issn|ean|gtin|upc|sku|versions?|firmware|refs?|references?|ids?|serial|sn|tracking"
    r"|build|cases?|parts?|models?|accounts?|acct|batch|lot|parcels?|shipments?|sessions?|transactions?|txn|receipts?|imei"
    r"|vin|ein|vat|tax|tin|routing|cusip|doi|pid|tid|uid|uuid|pages?|pp|eur|usd|gbp|chf|zip|patients?|flights?)\b|[$\u20ac\u00a3]",
    re.IGNORECASE,
)
_CALLED_OTHERWISE = re.compile(
    r"\b(?:orders?|invoices?|isbn|ean|gtin|upc|imei|serial|sn|tracking|parcels?|shipments?|batch|lot|sessions?|transactions?"
    r"|txn|trace|requests?|span)(?: ?(?:ids?|no|nr|numbers?))?[\s.:=#\"']*\Z",
    re.IGNORECASE,
)
"""The word that names a number, directly before it."""
_ACCOUNT_HEAD = re.compile(r"\b[A-Z]{2}\d{2}[ \u00a0-]\Z")
"""The head of an account's number, whose check digits were wrong."""
_CARD_WORDS = re.compile(r"\b(?:cards?|cc|pan|visa|mastercard|amex|credit|debit|paid|pay)\b", re.IGNORECASE)
_IDENTIFIER = re.compile(r"_|(?<=[a-z])(?<!Whats)(?=[A-Z])")
"""Where the words of a name such as phone_number or phoneNumber meet."""

_KEYS = {
    "AWS access key": (r"A[KBC]IA|ASIA|ACCA", r"[A-Z2-7]{16}"),
    "GitHub token": (r"gh[pousr]_", r"[A-Za-z0-9]{36,251}"),
    "GitHub fine-grained token": (r"github_pat_", r"\w{22}_\w{59}"),
    "GitLab token": (r"gl(?:pat|rt|dt|cbt|ptt|ft|imt|soat|agent)-", r"[\w-]{20,64}"),
    "Stripe key": (r"[srp]k_(?:live|test)_", r"[A-Za-z0-9]{16,128}"),
    "webhook secret": (r"whsec_", r"[A-Za-z0-9+/=]{24,88}"),
    "Slack token": (r"xox[abeoprs]-", r"[A-Za-z0-9-]{20,200}"),
    "Slack app token": (r"xapp-\d-", r"[A-Z0-9]{8,12}-\d{10,14}-[a-f0-9]{64}"),
    "Slack webhook": (r"https://hooks\.slack\.com/(?:services|workflows)/", r"[A-Za-z0-9]{8,12}/[\w/]{20,80}"),
    "Google key": (r"AIza", r"[\w-]{35}"),
    "Google client secret": (r"GOCSPX-", r"[\w-]{28}"),
    "Google access token": (r"ya29\.", r"[\w-]{20,500}"),
    "SendGrid key": (r"SG\.", r"[\w-]{22}\.[\w-]{43}"),
    "Brevo key": (r"xkeysib-", r"[a-f0-9]{64}-[A-Za-z0-9]{16}"),
    "Mailgun key": (r"key-", r"[a-f0-9]{32}"),
    "Twilio key": (r"SK", r"[a-f0-9]{32}"),
    "npm token": (r"npm_", r"[A-Za-z0-9]{36}"),
    "PyPI token": (r"pypi-AgE(?:IcHlwaS5vcmc|NdGVzdC5weXBpLm9yZw)", r"[\w-]{50,1000}"),
    "RubyGems key": (r"rubygems_", r"[a-f0-9]{48}"),
    "Docker token": (r"dckr_(?:pat|oat)_", r"[\w-]{27,64}"),
    "Hugging Face token": (r"hf_", r"[A-Za-z]{34}"),
    "OpenAI key": (r"sk-(?:proj|svcacct|admin)-", r"[\w-]{40,200}"),
    "OpenAI user key": (r"sk-", r"[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}"),
    "Anthropic key": (r"sk-ant-(?:api|admin|sid|oat)\d\d-", r"[\w-]{80,120}"),
    "Groq key": (r"gsk_", r"[A-Za-z0-9]{52}"),
    "Replicate token": (r"r8_", r"[A-Za-z0-9]{37}"),
    "xAI key": (r"xai-", r"[A-Za-z0-9]{80}"),
    "DigitalOcean token": (r"do[opr]_v1_", r"[a-f0-9]{64}"),
    "Shopify token": (r"shp(?:at|ca|pa|ss)_", r"[a-fA-F0-9]{32}"),
    "Square token": (r"sq0(?:atp|csp|idp)-", r"[\w-]{22,43}"),
    "Telegram bot token": (r"\d{8,10}:(?=AA)", r"[\w-]{35}"),
    "Databricks token": (r"dapi", r"[a-f0-9]{32}(?:-\d)?"),
    "Vault token": (r"hv[sbr]\.", r"[\w-]{24,300}"),
    "Grafana token": (r"gl(?:sa|c)_", r"[A-Za-z0-9+/_]{32,400}={0,2}"),
    "Linear key": (r"lin_(?:api|oauth)_", r"[A-Za-z0-9]{32,64}"),
    "Notion token": (r"(?:ntn|secret)_", r"[A-Za-z0-9]{43,46}"),
    "New Relic key": (r"NR(?:AK|JS|II)-", r"[\w-]{19,40}"),
    "Postman key": (r"PMAK-", r"[a-f0-9]{24}-[a-f0-9]{34}"),
    "Figma token": (r"figd_", r"[\w-]{40,60}"),
    "Atlassian token": (r"ATATT3x", r"[\w=-]{100,250}"),
    "Sentry token": (r"sntry[su]_", r"[\w+/=-]{40,300}"),
    "Supabase token": (r"sbp_", r"[a-f0-9]{40}"),
    "PlanetScale token": (r"pscale_(?:tkn|pw|oauth)_", r"[\w.=-]{32,64}"),
    "SonarQube token": (r"sq[pua]_", r"[a-f0-9]{40}"),
    "Tailscale key": (r"tskey-(?:auth|api|client)-", r"[A-Za-z0-9-]{20,64}"),
    "Doppler token": (r"dp\.(?:pt|st|ct|sa)\.", r"[\w.-]{40,64}"),
    "Pulumi token": (r"pul-", r"[a-f0-9]{40}"),
    "Razorpay key": (r"rzp_(?:live|test)_", r"[A-Za-z0-9]{14}"),
    "Discord bot token": (r"[MNO](?=[\w-]{23,27}\.[\w-]{6}\.)", r"[\w-]{23,27}\.[\w-]{6}\.[\w-]{27,38}"),
    "age key": (r"AGE-SECRET-KEY-1", r"[A-Z0-9]{58}"),
    "JSON web token": (r"eyJ", r"[\w-]{8,2000}\.eyJ[\w-]{4,4000}\.[\w-]{16,1000}"),
    "private key": (r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s+", r"[A-Za-z0-9+/=]{16,76}"),
}
"""Published prefixes of keys, and what follows them, which is secret."""
_KEY = re.compile(
    "|".join(rf"(?:{prefix})(?P<key{n}>{secret})(?![\w-])" for n, (prefix, secret) in enumerate(_KEYS.values())),
    re.ASCII,
)
_KEY_STARTS = re.compile(rf"(?<![\w-])(?:{'|'.join(prefix for prefix, _ in _KEYS.values())})", re.ASCII)
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

    Attributes:
        unread: Numbers of the last text that follow a word such as "phone", and are none of the regions'.

    Raises:
        UsageError: A kind or a region is unknown, or a library is missing.
    """

    def __init__(self, kinds: Iterable[str], regions: Sequence[str] = ("US",)) -> None:
        self.kinds = frozenset(kinds)
        self.unread = 0
        if unknown := sorted(self.kinds - {*KINDS}):
            raise UsageError(f"--detect {','.join(unknown)}: expected one or more of {', '.join(KINDS)}")
        self._luhn, self._iban, self._ssn = (_library(f"stdnum.{name}") for name in ("luhn", "iban", "us.ssn"))
        self._phones = _library("phonenumbers")
        self.regions = tuple(region.upper() for region in regions)
        metadata = self._phones.PhoneMetadata.metadata_for_region
        # Within these regions a number is dialled with this digit before it.
        self._trunks = {region: data.national_prefix for region in self.regions if (data := metadata(region))}
        if wrong := sorted({*self.regions} - {*self._phones.SUPPORTED_REGIONS}):
            raise UsageError(f"--detect-regions {','.join(wrong)}: expected ISO codes of countries, such as US,GB,DE")

    def every(self, text: str) -> list[Finding]:
        """Return all findings of every kind, in order, without overlaps: the longer of two wins."""
        self.unread = 0
        text = with_ascii_forms(text)
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
            local = _LOCAL.match(text[max(0, place - 64) : place][::-1])
            domain = _DOMAIN.match(text, place + 1)
            if not local or not domain:
                continue
            # What stands before an equals sign or a brace, as in a query or a template, is no part of the name.
            name = re.split("[={}]", local[0][::-1])[-1].lstrip(".'`*/|!#&?" + _HIDDEN)
            start = place - len(name)
            # A link, or the name and password of one; "mailto:" is none.
            link = start > 0 and (text[start - 1] in "/@" or _IN_LINK.search(text, max(0, start - 64), start))
            if not name or name[-1] == "." or ".." in name or link:
                continue
            if not _FILE_ENDING.search(domain[0]):
                value = f"{name}@{domain[0]}".translate(dict.fromkeys(map(ord, INVISIBLE))).casefold()
                yield Finding("email", start, start, place, domain.end(), value)

    def _accounts(self, text: str) -> Iterator[Finding]:
        for match in _IBAN.finditer(text):
            # The pattern is greedy: capitals and digits that follow may have been taken with it.
            cuts = (cut.start() for cut in reversed(list(_SPACE.finditer(match[0]))))
            for length in (len(match[0]), *cuts):
                value = _compact(match[0][:length].upper())
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
            before = _IDENTIFIER.sub(" ", before)
            number = taken = 0
            # Several numbers in a row are one match: the longest that is valid wins, from left to right.
            while number < len(pieces):
                for last in range(min(len(pieces), number + _MOST_PIECES), number, -1):
                    start, end = pieces[number][0], pieces[last - 1][1]
                    if last - number > _CARD_PIECES and pieces[last - 1][0] == end - 1:
                        continue  # Longer numbers are telephones, and these end with no single digit.
                    beside = (pieces[taken:number][-1:], pieces[last : last + 1])
                    if last - number > 1 and _goes_on(match[0], start, [own for side in beside for own in side]):
                        continue
                    own = self._number(match[0][start:end], before, match.start() + start)
                    if own:
                        yield own
                        number = taken = last
                        break
                else:
                    number += 1
            if not taken and 7 <= len(_compact(match[0])) <= 15 and _is_called_phone(before):
                self.unread += not any(form.match(match[0]) for form in (_DATE, _IP, _CARD_FORM))

    def _number(self, shown: str, before: str, start: int) -> Finding | None:
        """Return the finding that a number is, if it is any."""
        if shown.startswith("(") and ")" not in shown:
            shown, start = shown[1:], start + 1
        digits, end = _compact(shown), start + len(shown)
        if not 7 <= len(digits) <= 19:
            return None
        hyphenated = shown[3] not in "0123456789. \u00a0"
        if _SSN.fullmatch(shown) and (hyphenated or _SSN_WORDS.search(before)) and self._ssn.is_valid(digits):
            return Finding("ssn", start, start, end, end, digits)
        if _CARD.fullmatch(shown) and _ISSUERS.fullmatch(digits) and self._luhn.is_valid(digits):
            doubtful = len(digits) < 14 or _CALLED_OTHERWISE.search(before) or _ACCOUNT_HEAD.search(before)
            if doubtful and not _CARD_WORDS.search(before):
                return None
            return Finding("card", start, start, end, end, digits)
        return self._phone(shown, before, start)

    def _phone(self, shown: str, before: str, start: int) -> Finding | None:
        groups = [len(group) for group in re.findall(r"\d+", shown)]
        if groups[-1] == 1:  # a number and a count after it
            return None
        others = (_DATE.match(shown), *(form.fullmatch(shown) for form in (_IP, _SSN_FORM, _DECIMAL, _CARD_FORM)))
        if any(others) or len(_compact(shown)) > 15:
            return None
        named, plus = _is_called_phone(before), shown.startswith("+")
        if not plus and not named and (_is_called_otherwise(before) or not _GROUPS.fullmatch(shown)):
            return None
        written = f"+{shown[2:]}" if shown.startswith("00") else shown
        for region in (None,) if written.startswith("+") else self.regions:
            try:
                number = self._phones.parse(written, region)
            except self._phones.NumberParseException:
                continue
            national = not written.startswith("+") and not named
            trunk = self._trunks.get(region or "")
            if national and (
                groups not in _NANP or _SPACED.fullmatch(shown)
                if number.country_code == 1
                else shown.strip("(")[:1] != (trunk or "0") or not self._usual(number, groups)
            ):
                continue
            if self._phones.is_valid_number(number):
                code = str(number.country_code)
                known = len(code) if plus else len(code) + 2 if written != shown else 0
                value = f"+{code}{self._phones.national_significant_number(number)}"
                end = start + len(shown)
                return Finding("phone", start, start + _after_digits(shown, known), end, end, value)
        return None

    def _usual(self, number: object, groups: Sequence[int]) -> bool:
        """Return whether a number's digits stand in the groups of its country, or in several of these together."""
        national = self._phones.format_number(number, self._phones.PhoneNumberFormat.NATIONAL)
        usual = accumulate(len(group) for group in re.findall(r"\d+", national))
        return {*accumulate(groups)} <= {*usual}


@lru_cache(maxsize=64)  # many numbers may follow the same words
def _is_called_otherwise(before: str) -> bool:
    return _OTHER_WORDS.search(before) is not None or before.rstrip().endswith("#")


@lru_cache(maxsize=64)
def _is_called_phone(before: str) -> bool:
    """Return whether the last word before a number that says what it is says that it is a telephone's."""
    said = [match.end() for match in _PHONE_WORDS.finditer(before)]
    other = [match.end() for match in _OTHER_WORDS.finditer(before)]
    return bool(said) and (not other or said[-1] > other[-1])


def _goes_on(text: str, start: int, beside: Sequence[tuple[int, int]]) -> bool:
    """Return whether groups of digits are part of a longer row of groups, as of a parcel's number or an amount.

    Args:
        text: The whole row.
        start: Offset of the groups.
        beside: Spans of the pieces before and after them that belong to no other number.
    """
    return text[start] not in "+(" and any(text[first:last].isdigit() and last - first > 2 for first, last in beside)


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
            dot = max(text.rfind(".", own.start, own.end), text.rfind("\uff0e", own.start, own.end))
            wanted.append(replace(own, secret_end=dot) if alone else own)
            contexts.append(_context(text, max(before, own.start - _CONTEXT), own.start))
        before = own.end
    return wanted, contexts


def template_of(text: str, finding: Finding, context: str) -> tuple[Template, str, int]:
    """Return a template of a finding with the words before it, what fills it, and where its text begins.

    Runs of digits, of letters of one case and of other secret characters become slots of their kinds; separators stay.
    """
    body = text[finding.secret : finding.secret_end]
    pieces: list[str] = []
    position = 0
    form = {"email": "[^@\uff20]+", "key": ".+"}.get(finding.kind, r"\d+|[A-Z]+|[a-z]+|[^\W\d_]+")
    for run in re.finditer(form, body):
        pieces += (quoted(body[position : run.start()]), _slot(run[0], finding.kind))
        position = run.end()
    start = finding.start - len(context)
    end = finding.end if finding.kind == "email" else finding.secret_end
    after = text[finding.secret_end : end]
    template = Template.parse(quoted(text[start : finding.secret]) + "".join(pieces) + quoted(body[position:] + after))
    return template, text[start + len(template.prefix) : end - len(template.suffix)], start


def _slot(run: str, kind: Kind) -> str:
    if kind not in ("email", "key") and run.isascii():
        return f"{{{'digits' if run[0].isdigit() else 'upper' if run[0].isupper() else 'lower'}:{len(run)}}}"
    ranges = [shown for shown in ("a-z", "A-Z", "0-9") if re.search(f"[{shown}]", run)]
    # Digits of another script range over all ten, and a single sign over the small letters too.
    tens = {chr(ord(c) - unicodedata.digit(c)) for c in run if c.isdecimal() and not c.isascii()}
    ranges += [f"{zero}-{chr(ord(zero) + 9)}" for zero in sorted(tens)]
    signs = {c for c in run if not re.match("[a-zA-Z0-9{}]", c) and not c.isdecimal()}
    ranges += ["a-z"] if not ranges and len(signs) < 2 else []
    others = character_set(sorted(signs))[1:-1]
    return f"{{[{''.join(ranges)}{others}]:{len(run)}}}"


def _context(text: str, start: int, end: int) -> str:
    """Return the words of a line before ``end``: none with two or more digits, and none of an address or a link."""
    words = text[start:end].rpartition("\n")[2]
    if start and len(words) == end - start and words[:1].isalnum() and text[start - 1].isalnum():
        words = words.partition(" ")[2]  # not half a word
    unsafe = list(re.finditer(r"\S*(?:\d\S*\d|[@\uff20{}]|//)\S*", words))
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
