"""A second labelled text: items and look-alikes as they stand in code, configuration, logs, CSV, JSON and mail.

None of its forms are those of ``labelled``: other countries, separators, brands, kinds of keys, words before an item,
and hard negatives. Forms and surroundings are dealt into two halves by a seed, before anything was measured. The
detector was developed on the first half; the second one was looked at once, at the end. Both looks are in
docs/notes/detectors.md.
"""

import random
import string
from collections.abc import Callable, Sequence
from typing import TypeVar

import phonenumbers

from tests.canaries.labelled import Label, iban, luhn

REGIONS = ("CA", "IT", "NL", "AU", "AT")
"""Whose national forms the detector is asked to read."""
_ABROAD = (
    *("CH", "HU", "RO", "CL", "AR", "CO", "TH", "VN", "PH", "NG"),
    *("KE", "EG", "UA", "HR", "SI", "EE", "LT", "AE", "SA"),
)
_BOTH = string.ascii_letters + string.digits
_URL = _BOTH + "-_"
_FIRST = (
    *["amara", "bjorn", "chiara", "dmitri", "elif", "farid"],
    *["giulia", "haruto", "ines", "joost", "katarzyna", "lars"],
)
_LAST = (
    *["vandermeer", "okafor", "silva", "kowalska", "tanaka"],
    *["bauer", "moretti", "larsen", "osullivan", "nguyen", "haddad"],
)
_HOSTS = (
    *["acme-tools.com", "web.de", "students.uni-x.edu.au", "kpn.nl"],
    *["libero.it", "a1.at", "city.toronto.ca", "co.photography"],
)

T = TypeVar("T")
Item = tuple[str, str, str]
"""What stands before an item, the item, and what stands after it."""


class Drawing(random.Random):
    """Draws what items are made of."""

    def digits(self, count: int) -> str:
        return "".join(self.choices(string.digits, k=count))

    def symbols(self, alphabet: str, count: int) -> str:
        return "".join(self.choices(alphabet, k=count))

    def hex(self, count: int) -> str:
        return self.symbols("0123456789abcdef", count)

    def upper(self, count: int) -> str:
        return self.symbols(string.ascii_uppercase, count)

    def host(self) -> str:
        return self.choice(_HOSTS)

    def name(self) -> str:
        return f"{self.choice(_FIRST)}.{self.choice(_LAST)}"

    def address(self) -> str:
        return f"{self.name()}@{self.host()}"

    def number(self, regions: Sequence[str], *, mobile: bool | None = None) -> phonenumbers.PhoneNumber:
        """Return a number of the numbering plan, with its last three digits drawn."""
        kinds = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)
        kind = self.choice(kinds) if mobile is None else kinds[not mobile]
        number = phonenumbers.example_number_for_type(self.choice(regions), kind)
        for _ in range(50):
            drawn = phonenumbers.PhoneNumber()
            drawn.merge_from(number)
            drawn.national_number = number.national_number // 1000 * 1000 + self.randrange(1000)
            if phonenumbers.is_valid_number(drawn):
                return drawn
        return number

    def abroad(self) -> str:
        return phonenumbers.format_number(self.number(_ABROAD), phonenumbers.PhoneNumberFormat.INTERNATIONAL)

    def national(self, *regions: str, mobile: bool | None = None) -> str:
        number = self.number(regions or REGIONS, mobile=mobile)
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)

    def account(self) -> str:
        country, form = self.choice(
            (
                *(("LU", "n3c13"), ("IE", "a4n14"), ("LT", "n16"), ("RO", "a4c16"), ("AE", "n19"), ("LI", "n5c12")),
                *(
                    ("LV", "a4c13"),
                    ("SA", "n2c18"),
                    ("MT", "a4n5c18"),
                    ("BG", "a4n6c8"),
                    ("CY", "n8c16"),
                    ("GE", "a2n16"),
                ),
            )
        )
        alphabets = {"n": string.digits, "a": string.ascii_uppercase, "c": string.ascii_uppercase + string.digits}
        pieces = form.replace("n", " n").replace("a", " a").replace("c", " c").split()
        return iban(country, "".join(self.symbols(alphabets[own[0]], int(own[1:])) for own in pieces))

    def card(self) -> str:
        start, length = self.choice((("4", 16), ("2320", 16), ("53", 16), ("6011", 16), ("65", 16), ("3540", 16)))
        return luhn(start + self.digits(length - 1 - len(start)))

    def ssn(self) -> tuple[str, str, str]:
        area = self.choice([*range(1, 666), *range(667, 900)])
        return f"{area:03}", f"{self.randrange(1, 100):02}", f"{self.randrange(1, 10000):04}"


def spaced(text: str, by: str = " ", groups: Sequence[int] = (4,) * 9) -> str:
    pieces, place = [], 0
    for length in groups:
        pieces.append(text[place : place + length])
        place += length
    return by.join(piece for piece in pieces if piece)


def _email() -> list[Callable[[Drawing], Item]]:
    return [
        lambda d: (f'"{d.choice(_LAST).title()}, {d.choice(_FIRST).title()}" <', d.address(), ">"),
        lambda d: ("mailto:", d.address(), "?subject=hello"),
        lambda d: ("", f"{d.name()}+{d.symbols(string.ascii_lowercase, 5)}@{d.host()}", ""),
        lambda d: ("", f"o'{d.choice(_LAST)}@{d.host()}", ""),
        lambda d: ("", f"{d.digits(9)}@qq.com", ""),
        lambda d: ("", f"{d.choice(_FIRST)}-{d.choice(_LAST)}_{d.digits(2)}@{d.host()}", "."),
        lambda d: ("", f"{d.choice(_FIRST).title()}@xn--mller-kva.de", ""),
        lambda d: (f"Author: {d.choice(_FIRST).title()} <", d.address(), "> 2 days ago"),
        lambda d: ("to=", d.address(), "; relay=mx1"),
        lambda d: ("user=", d.address(), "&next=/home"),
        lambda d: ("Contact:", d.address().upper(), "!"),
        lambda d: ("'", f"{d.choice(_FIRST)[0]}.{d.choice(_LAST)}@{d.host()}", "'"),
        lambda d: ("cc ", d.address(), ", and others"),
        lambda d: ('<a href="mailto:', d.address(), '">write</a>'),
        lambda d: ("SMTP RCPT TO:<", f"{d.choice(_LAST)}{d.randrange(60, 99)}@{d.host()}", ">"),
        lambda d: ("(", d.address(), ")"),
    ]


def _phone() -> list[Callable[[Drawing], Item]]:
    form = phonenumbers.PhoneNumberFormat

    def trunk(d: Drawing) -> Item:
        number = d.number(("AT", "NL", "AU"), mobile=False)
        national = phonenumbers.format_number(number, form.NATIONAL).strip("()").replace(")", "").removeprefix("0")
        return "", f"+{number.country_code} (0){national}", ""

    def rfc(d: Drawing) -> Item:
        return "tel:", phonenumbers.format_number(d.number((*REGIONS, *_ABROAD)), form.RFC3966).removeprefix("tel:"), ""

    def canadian(text: str) -> Callable[[Drawing], Item]:
        def make(d: Drawing) -> Item:
            number = str(d.number(("CA",)).national_number)
            return "", text.format(number[:3], number[3:6], number[6:]), ""

        return make

    return [
        lambda d: ("", d.abroad(), ""),
        lambda d: ("", d.abroad().replace(" ", "-"), ""),
        lambda d: ("", d.abroad().replace(" ", "."), ""),
        lambda d: ("", d.abroad().replace(" ", "\u00a0"), ""),
        lambda d: ("Tel ", d.abroad().replace("+", "00"), ""),
        trunk,
        rfc,
        lambda d: ("TEL;TYPE=CELL:", d.abroad(), ""),
        canadian("{0}.{1}.{2}"),
        canadian("({0}) {1}-{2}"),
        canadian("1-{0}-{1}-{2}"),
        canadian("+1{0}{1}{2}"),
        canadian("{0}\u2011{1}\u2011{2}"),
        canadian("+1 ({0}) {1}-{2}"),
        lambda d: ('"mobile": "', d.national("AU", "IT", "NL", mobile=True), '"'),
        lambda d: ("Mob.: ", d.national("AU", "NL", mobile=True), ""),
        lambda d: ("cellulare ", d.national("IT", mobile=True), ""),
        lambda d: ("phone_number=", d.national("AU", "AT", mobile=True).replace(" ", ""), ""),
        lambda d: ("Tél. : ", d.national("NL", mobile=False), ""),
        lambda d: ("Ph: ", d.national("AU", mobile=False), ""),
        lambda d: ("Fax ", d.national("AT", mobile=False).replace(" ", "/", 1), ""),
        lambda d: ("call ", d.national("CA"), " ext. 12"),
        lambda d: ("", d.national("AU", mobile=False), ""),
        lambda d: ("Telefoon ", d.national("NL", mobile=False), ""),
    ]


def _iban() -> list[Callable[[Drawing], Item]]:
    return [
        lambda d: ("", d.account(), ""),
        lambda d: ("IBAN:", d.account(), ""),
        lambda d: ("IBAN ", spaced(d.account()), ""),
        lambda d: ("", spaced(d.account(), "\u00a0"), ""),
        lambda d: ("", spaced(d.account(), "-"), ""),
        lambda d: ("iban=", d.account().lower(), ""),
        lambda d: ('"iban":"', d.account(), '"'),
        lambda d: ("pay ", spaced(d.account()), " by Friday"),
        lambda d: ("", spaced(d.account()), " BIC AGRIIE2D"),
        lambda d: ("<IBAN>", d.account(), "</IBAN>"),
        lambda d: ("(", d.account(), ")"),
        lambda d: ("account no. ", spaced(d.account()), ", thanks"),
    ]


def _card() -> list[Callable[[Drawing], Item]]:
    return [
        lambda d: ("", d.card(), ""),
        lambda d: ("PAN:", d.card(), ""),
        lambda d: ("", d.card(), f"|{d.randrange(1, 13):02}/{d.randrange(26, 32)}|{d.digits(3)}"),
        lambda d: ("", spaced(d.card(), "\u00a0"), ""),
        lambda d: ("", spaced(d.card(), "."), ""),
        lambda d: (";", d.card(), f"={d.digits(4)}101{d.digits(5)}?"),
        lambda d: ("", luhn("36" + d.digits(11)), ""),
        lambda d: ("", spaced(luhn("3056" + d.digits(9)), " ", (4, 6, 4)), ""),
        lambda d: ("", spaced(luhn("34" + d.digits(12)), "-", (4, 6, 5)), ""),
        lambda d: ("", luhn("62" + d.digits(16)), ""),
        lambda d: ("card number ", luhn("5018" + d.digits(13)), ""),
        lambda d: ("'", spaced(d.card(), "-"), "'"),
        lambda d: ("cc=", d.card(), f"&cvv={d.digits(3)}"),
        lambda d: ("paid with ", spaced(d.card()), f" exp {d.randrange(1, 13):02}/{d.randrange(26, 32)}"),
        lambda d: ("", d.card(), f",{d.randrange(1, 13):02}{d.randrange(26, 32)},{d.digits(3)}"),
        lambda d: ("", spaced(luhn("6212" + d.digits(14))), ""),
    ]


def _ssn() -> list[Callable[[Drawing], Item]]:
    return [
        lambda d: ("", "-".join(d.ssn()), ""),
        lambda d: ("SSN: ", "".join(d.ssn()), ""),
        lambda d: ("ssn=", "".join(d.ssn()), ""),
        lambda d: ("Social Security Number ", " ".join(d.ssn()), ""),
        lambda d: ("SS# ", " ".join(d.ssn()), ""),
        lambda d: ("soc. sec. no. ", "".join(d.ssn()), ""),
        lambda d: ("", "\u2013".join(d.ssn()), ""),
        lambda d: ("SSN ", ".".join(d.ssn()), ""),
        lambda d: ('"ssn":"', "-".join(d.ssn()), '"'),
        lambda d: ('"social_security_number": ', "".join(d.ssn()), ""),
        lambda d: ("<ssn>", "-".join(d.ssn()), "</ssn>"),
        lambda d: ("taxpayer ", "-".join(d.ssn()), ", single"),
        lambda d: ("my social is ", "-".join(d.ssn()), "."),
        lambda d: ("SSN:", "\u00a0".join(d.ssn()), ""),
    ]


def _key() -> list[Callable[[Drawing], Item]]:
    return [
        lambda d: ("", "ASIA" + d.symbols(string.ascii_uppercase + "234567", 16), ""),
        lambda d: ("", "gho_" + d.symbols(_BOTH, 36), ""),
        lambda d: ("", f"github_pat_{d.symbols(_BOTH, 22)}_{d.symbols(_BOTH, 59)}", ""),
        lambda d: ("", "rk_live_" + d.symbols(_BOTH, 24), ""),
        lambda d: ("", "whsec_" + d.symbols(_BOTH, 32), ""),
        lambda d: ("", f"xoxp-{d.digits(11)}-{d.digits(11)}-{d.digits(12)}-{d.hex(32)}", ""),
        lambda d: ("", f"xapp-1-A{d.symbols(string.ascii_uppercase, 9)}-{d.digits(12)}-{d.hex(64)}", ""),
        lambda d: ("", f"SG.{d.symbols(_BOTH, 22)}.{d.symbols(_BOTH, 43)}", ""),
        lambda d: ("", "hf_" + d.symbols(string.ascii_letters, 34), ""),
        lambda d: ("", "npm_" + d.symbols(_BOTH, 36), ""),
        lambda d: ("", "pypi-AgEIcHlwaS5vcmc" + d.symbols(_URL, 150) + "x", ""),
        lambda d: ("", "sk-proj-" + d.symbols(_BOTH, 48), ""),
        lambda d: ("", "sk-ant-api03-" + d.symbols(_URL, 92) + "x", ""),
        lambda d: ("", "dop_v1_" + d.hex(64), ""),
        lambda d: ("", "shpat_" + d.hex(32), ""),
        lambda d: ("", "GOCSPX-" + d.symbols(_BOTH, 28), ""),
        lambda d: ("", f"{d.digits(10)}:AA{d.symbols(_URL, 32)}x", ""),
        lambda d: ("", "dapi" + d.hex(32), ""),
        lambda d: ("", "hvs." + d.symbols(_BOTH, 24), ""),
        lambda d: ("", "glsa_" + d.symbols(_BOTH, 32) + "_" + d.hex(8), ""),
        lambda d: ("", "dckr_pat_" + d.symbols(_BOTH, 27), ""),
        lambda d: ("", "lin_api_" + d.symbols(_BOTH, 40), ""),
        lambda d: ("", "SK" + d.hex(32), ""),
        lambda d: ("", "ya29." + d.symbols(_URL, 80) + "x", ""),
        lambda d: ("Bearer ", f"eyJ{d.symbols(_BOTH, 17)}.eyJ{d.symbols(_URL, 90)}.{d.symbols(_BOTH, 86)}", ""),
        lambda d: ("", f"-----BEGIN EC PRIVATE KEY-----\n{d.symbols(_BOTH, 64)}", "\n" + d.symbols(_BOTH, 64)),
        lambda d: ("", f"-----BEGIN OPENSSH PRIVATE KEY-----\n{d.symbols(_BOTH, 70)}", "\n"),
        lambda d: ("", "glrt-" + d.symbols(_BOTH, 20), ""),
        lambda d: ("", "NRAK-" + d.symbols(string.ascii_uppercase + string.digits, 27), ""),
        lambda d: ("", f"PMAK-{d.hex(24)}-{d.hex(34)}", ""),
        lambda d: ("", "sq0atp-" + d.symbols(_BOTH, 22), ""),
        lambda d: ("", f"https://hooks.slack.com/services/T{d.upper(8)}/B{d.upper(8)}/{d.symbols(_BOTH, 24)}", ""),
    ]


ITEMS = {"email": _email(), "phone": _phone(), "iban": _iban(), "card": _card(), "ssn": _ssn(), "key": _key()}


def _day(d: Drawing) -> tuple[int, int, int]:
    return d.randrange(1980, 2031), d.randrange(1, 13), d.randrange(1, 29)


NEGATIVES: list[Callable[[Drawing], str]] = [
    lambda d: f"order #{d.digits(8)}",
    lambda d: f"Order-ID {d.digits(3)}-{d.digits(4)}-{d.digits(4)}",
    lambda d: f"PO {d.digits(10)}",
    lambda d: f"tracking 1Z{d.symbols(string.ascii_uppercase + string.digits, 16)}",
    lambda d: f"parcel {spaced(d.digits(22))}",
    lambda d: f"md5 {d.hex(32)}",
    lambda d: f'etag W/"{d.hex(16)}-{d.digits(10)}"',
    lambda d: f"sha1:{d.hex(40).upper()}",
    lambda d: f"image@sha256:{d.hex(64)}",
    lambda d: f"v{d.randrange(20)}.{d.randrange(30)}.{d.randrange(300)}-rc.{d.randrange(9)}+build.{d.digits(8)}",
    lambda d: f"firmware {d.randrange(10)}.{d.digits(2)}.{d.digits(3)}.{d.digits(4)}",
    lambda d: "{2:02}/{1:02}/{0} {3}".format(*_day(d), d.digits(4)),
    lambda d: "{}{:02}{:02}T{}Z".format(*_day(d), d.digits(6)),
    lambda d: "{}.{:02}.{:02} 07.30".format(*_day(d)),
    lambda d: "{2}-{1}-{0}".format(*_day(d)),
    lambda d: "{}/{:02}/{:02} 12:{}:{}".format(*_day(d), d.digits(2), d.digits(2)),
    lambda d: f"lat={d.uniform(-90, 90):.7f}&lon={d.uniform(-180, 180):.7f}",
    lambda d: f"{d.randrange(90)}°{d.randrange(60):02}'{d.randrange(60):02}.{d.digits(3)}\"N",
    lambda d: f"POINT({d.uniform(-180, 180):.5f} {d.uniform(-90, 90):.5f})",
    lambda d: f"ISBN-10 {d.digits(1)}-{d.digits(3)}-{d.digits(5)}-{d.choice('0123456789X')}",
    lambda d: f"ISBN 978{d.digits(10)}",
    lambda d: f"ISSN {d.digits(4)}-{d.digits(4)}",
    lambda d: f"doi:10.{d.digits(4)}/{d.symbols(string.ascii_lowercase, 4)}.{d.digits(7)}",
    lambda d: f"arXiv:{d.digits(4)}.{d.digits(5)}v2",
    lambda d: f"{d.hex(8)}-{d.hex(4)}-4{d.hex(3)}-8{d.hex(3)}-{d.hex(12)}",
    lambda d: f"urn:uuid:{d.digits(8)}-{d.digits(4)}-{d.digits(4)}-{d.digits(4)}-{d.digits(12)}",
    lambda d: f"ts={d.randrange(10**9, 2 * 10**9)}",
    lambda d: f"epoch_ms: {d.randrange(10**12, 2 * 10**12)}",
    lambda d: f"IMEI {luhn('35' + d.digits(12))}",
    lambda d: f"VIN {d.symbols('ABCDEFGHJKLMNPRSTUVWXYZ0123456789', 17)}",
    lambda d: ":".join(d.hex(4) for _ in range(8)),
    lambda d: f"{'.'.join(str(d.randrange(256)) for _ in range(4))}:{d.randrange(1024, 65535)}",
    lambda d: f"{d.digits(5)}-{d.digits(4)} ZIP",
    lambda d: f"EIN {d.digits(2)}-{d.digits(7)}",
    lambda d: f"VAT DE{d.digits(9)}",
    lambda d: f"BIC {d.symbols(string.ascii_uppercase, 6)}2A",
    lambda d: f"routing {d.digits(9)}",
    lambda d: f"arn:aws:iam::{d.digits(12)}:role/x",
    lambda d: f"GET /items/{d.digits(10)}?page={d.digits(3)}",
    lambda d: f"{d.choice(_LAST)}.java:{d.digits(3)}",
    lambda d: f"pid={d.digits(5)} tid={d.digits(7)} took {d.digits(4)}ms",
    lambda d: f"0x{d.hex(16)}",
    lambda d: f"{d.choice(_FIRST)}@localhost",
    lambda d: f"ssh {d.choice(_FIRST)}@web-{d.digits(2)}",
    lambda d: f"@types/{d.choice(_FIRST)}@{d.randrange(20)}.{d.randrange(20)}.{d.randrange(20)}",
    lambda d: f"git@github.com:{d.choice(_FIRST)}/{d.choice(_LAST)}.git",
    lambda d: f"https://{d.choice(_FIRST)}:{d.symbols(_BOTH, 10)}@registry.example.com/v2",
    lambda d: f"user @{d.choice(_FIRST)}.{d.choice(_LAST)} wrote",
    lambda d: f"icon@3x.webp and sprite@2x.jpeg {d.digits(2)}",
    lambda d: f"**** **** **** {d.digits(4)}",
    lambda d: f"card ending in {d.digits(4)}, auth {d.digits(6)}",
    lambda d: f"transaction {d.digits(16)}",
    lambda d: f"session {d.digits(19)}",
    lambda d: f"GTIN {d.digits(14)}",
    lambda d: f"EUR {d.randrange(10**6, 10**9):,}.{d.digits(2)}".replace(",", "\u00a0"),
    lambda d: f"1 {d.digits(3)} {d.digits(3)},{d.digits(2)} kr",
    lambda d: f"{d.digits(2)} {d.digits(2)} {d.digits(2)} {d.digits(2)} {d.digits(2)} lotto",
    lambda d: ", ".join(f"{d.randrange(21)}-{d.randrange(21)}" for _ in range(3)),
    lambda d: f"10:{d.digits(2)}-11:{d.digits(2)} room {d.digits(3)}",
    lambda d: f"{d.digits(3)}-{d.digits(2)}-{d.digits(3)} bolts",
    lambda d: f"000-{d.digits(2)}-{d.digits(4)}",
    lambda d: f"666-{d.digits(2)}-{d.digits(4)}",
    lambda d: f"{d.digits(3)}-00-{d.digits(4)}",
    lambda d: f"SN {d.digits(4)}-{d.digits(4)}-{d.digits(4)}",
    lambda d: f"license {spaced(d.symbols(string.ascii_uppercase + string.digits, 25), '-', (5,) * 5)}",
    lambda d: f"pk_live_short sk_live_ ghp_ AKIA{d.digits(3)}",
    lambda d: f"sk-learn and hf_hub and npm_config_{d.symbols(string.ascii_lowercase, 8)}",
    lambda d: "xoxb-your-token-here and ghp_" + "x" * 36,
    lambda d: f"data:image/png;base64,{d.symbols(_BOTH + '+/', 60)}==",
    lambda d: f"nonce={d.symbols(_BOTH, 43)}",
    lambda d: f"DE{d.digits(2)} {d.digits(4)} {d.digits(4)} {d.digits(4)} {d.digits(4)} {d.digits(1)}0",
    lambda d: f"flight LH{d.digits(4)} seat {d.randrange(40)}A ticket 220-{d.digits(10)}",
    lambda d: f"pi is 3.{d.digits(15)} and e is 2.{d.digits(12)}",
    lambda d: f"mean {d.random():.8f} ({d.random():.8f}), n = {d.digits(7)}",
    lambda d: f"pages {d.digits(3)}-{d.digits(3)}, vol. {d.digits(2)}, {d.randrange(1950, 2026)}",
    lambda d: f"{d.randrange(1, 30)}x{d.digits(3)}x{d.digits(4)} mm, {d.digits(5)} pcs",
    lambda d: f"patient {d.digits(8)} room {d.digits(4)}",
    lambda d: f"CUSIP {d.digits(6)}{d.symbols(string.ascii_uppercase, 2)}{d.digits(1)}",
]

AROUND = (
    '{"ts":"2025-03-04T05:06:07Z","level":"info","msg":"%s"}',
    "2025-03-04 05:06:07,123 INFO [worker-3] %s",
    "Mar  4 05:06:07 host7 app[2211]: %s",
    '10.0.0.7 - - [04/Mar/2025:05:06:07 +0000] "POST /f HTTP/1.1" 200 312 "%s"',
    "    value = '%s'  # from the ticket",
    'const x = "%s";',
    "INSERT INTO t VALUES (17, '%s', NULL);",
    "12;%s;ja;3,50",
    "a,%s,b",
    '"17","%s","x"',
    "FIELD=%s",
    "field: %s",
    "  - %s",
    "<td>%s</td><td>9</td>",
    "| 4 | %s | ok |",
    "> %s",
    "So I told them %s and left.",
    "Customer says: %s",
    "[%s]",
    "%s",
    "Re: %s (was: again)",
    "key\t%s\t0",
    "* %s -- see above",
    "// %s",
)


def _later_account(d: Drawing) -> str:
    country, letters, rest = d.choice((("KW", 4, 22), ("QA", 4, 21), ("GI", 4, 15), ("FO", 0, 14), ("GL", 0, 14)))
    return iban(country, d.upper(letters) + d.digits(rest))


LATER: dict[str, list[Callable[[Drawing], Item]]] = {
    "email": [
        lambda d: ("E-Mail: ", d.address(), "\\nRegards"),
        lambda d: ('{"from":{"address":"', d.address(), '"}}'),
        lambda d: ("https://app.example/login?email=", d.address(), ""),
        lambda d: ("", f"{d.choice(_LAST)}@{d.host()}", " (work)"),
        lambda d: ("X-Forwarded-To: ", f"{d.choice(_FIRST)}.{d.digits(3)}@mail.{d.host()}", ""),
    ],
    "phone": [
        lambda d: ("", d.national("FR").replace(" ", "."), ""),
        lambda d: ("WhatsApp ", d.national("ZA", mobile=True).replace(" ", ""), ""),
        lambda d: ('"tel":"', d.abroad(), '"'),
        lambda d: ("SMS to ", d.national("ZA", mobile=True), " please"),
        lambda d: ("T. ", d.abroad(), " / office"),
        lambda d: ("customerPhone: ", d.national("IN", mobile=True), ""),
        lambda d: ("Portable : ", d.national("FR", mobile=True), ""),
    ],
    "iban": [
        lambda d: ("IBAN/", _later_account(d), ""),
        lambda d: ("to account ", spaced(_later_account(d)), "."),
        lambda d: ("", _later_account(d), ";EUR;12,50"),
        lambda d: ("iban: ", spaced(_later_account(d)).lower(), ""),
    ],
    "card": [
        lambda d: ('"number": "', d.card(), '"'),
        lambda d: ("Visa ", spaced(luhn("4" + d.digits(14))), " (exp. 03/27)"),
        lambda d: ("", spaced(d.card()), ", CVC " + d.digits(3)),
        lambda d: ("cardNumber:", d.card(), ""),
        lambda d: ("card ", spaced(d.card(), "\u2011"), ""),
    ],
    "ssn": [
        lambda d: ("SSN#", "".join(d.ssn()), ""),
        lambda d: ("(SSN) ", " ".join(d.ssn()), ""),
        lambda d: ("Social Security: ", "-".join(d.ssn()), ";"),
        lambda d: ('"SSN","', "-".join(d.ssn()), '"'),
        lambda d: ("employeeSsn=", "".join(d.ssn()), ""),
    ],
    "key": [
        lambda d: ("Authorization: token ", "ghs_" + d.symbols(_BOTH, 36), ""),
        lambda d: ("export KEY=", "sk_test_" + d.symbols(_BOTH, 24), ""),
        lambda d: ("", f"xkeysib-{d.hex(64)}-{d.symbols(_BOTH, 16)}", ""),
        lambda d: ("api:", "key-" + d.hex(32), ""),
        lambda d: ("", "AGE-SECRET-KEY-1" + d.symbols(string.ascii_uppercase + string.digits, 58), ""),
        lambda d: ("https://x-access-token:", "ghu_" + d.symbols(_BOTH, 36), "@github.com/a/b"),
        lambda d: ("'", "figd_" + d.symbols(_URL, 42) + "x", "'"),
    ],
}
"""Written after both halves had been looked at, and measured once."""
LATER_NEGATIVES: list[Callable[[Drawing], str]] = [
    lambda d: f"Apache/2.4.{d.digits(2)} ({d.digits(3)}.{d.digits(3)}.{d.digits(4)})",
    lambda d: f"{d.randrange(10**6, 10**9):,} views",
    lambda d: f"CAS {d.digits(5)}-{d.digits(2)}-{d.digits(1)}",
    lambda d: f"{d.randrange(1990, 2030)}0105-{d.digits(3)}-{d.digits(4)}",
    lambda d: f"+{d.digits(2)}.{d.digits(1)} % and -{d.digits(2)}.{d.digits(4)}",
    lambda d: f"20:{d.digits(2)}:55,{d.digits(3)} --> 20:{d.digits(2)}:57,{d.digits(3)}",
    lambda d: f"INC00{d.digits(8)}",
    lambda d: f"#{d.digits(10)}",
    lambda d: f"user_{d.digits(10)} joined",
    lambda d: f"EU-{d.digits(4)}-{d.digits(4)}-{d.digits(4)}",
    lambda d: f"2 x {d.digits(3)} 000 000",
    lambda d: f"rs{d.digits(9)} and chr7:{d.digits(8)}-{d.digits(8)}",
    lambda d: f"price@12.{d.digits(2)} and a@b",
    lambda d: f"c0ffee-{d.digits(4)}-{d.digits(4)}",
    lambda d: f"width: {d.digits(4)}px; margin: 0 {d.digits(2)}px {d.digits(2)}px",
    lambda d: f"Bates {d.digits(8)}-{d.digits(8)}",
    lambda d: f"row {d.digits(7)}: {d.digits(3)}, {d.digits(3)}, {d.digits(4)}",
    lambda d: f"lot {d.digits(2)}-{d.digits(3)}-{d.digits(4)}",
    lambda d: f"polygon {d.digits(3)},{d.digits(3)} {d.digits(3)},{d.digits(3)} {d.digits(3)},{d.digits(3)}",
    lambda d: f"checksum {d.digits(10)} {d.digits(6)}",
    lambda d: f"scp {d.choice(_FIRST)}@host.example.com:/srv/x.tar",
    lambda d: f"blob {d.hex(7)}..{d.hex(7)} {d.digits(6)}",
    lambda d: f"{d.digits(4)} {d.digits(4)} {d.digits(4)} {d.digits(4)} {d.digits(4)} meter readings",
    lambda d: f"between {d.digits(6)} and {d.digits(7)} rows in {d.digits(3)}.{d.digits(3)} s",
]


def dealt(forms: Sequence[T], half: int) -> list[T]:
    """Return one of two halves of forms."""
    order = [*range(len(forms))]
    random.Random(f"forms {len(forms)}").shuffle(order)
    return [forms[index] for index in sorted(order[half::2])]


def labelled_fields(half: int, seed: int, count: int) -> tuple[str, list[Label]]:
    """Return a text with ``count`` items of each kind, and as many look-alikes as items.

    Args:
        half: Whose forms to use: 0 for development, 1 for the test, 2 for those written later.
        seed: Of all draws.
        count: Items of each kind.
    """
    drawing = Drawing(f"{half} {seed}")
    items = LATER if half == 2 else {kind: dealt(forms, half) for kind, forms in ITEMS.items()}
    looks = LATER_NEGATIVES if half == 2 else dealt(NEGATIVES, half)
    lines: list[tuple[str, Item]] = []
    for kind, forms in items.items():
        lines += [(kind, forms[number % len(forms)](drawing)) for number in range(count)]
    lines += [("", ("", looks[number % len(looks)](drawing), "")) for number in range(len(ITEMS) * count)]
    drawing.shuffle(lines)
    text, labels, around = "", [], dealt(AROUND, half % 2)
    for kind, (before, item, after) in lines:
        head, _, tail = drawing.choice(around).partition("%s")
        start = len(text) + len(head) + len(before)
        if kind:
            labels.append(Label(kind, start, start + len(item)))
        text += f"{head}{before}{item}{after}{tail}\n"
    return text, labels
