"""A labelled text of personal data, credentials, and what looks like them: made from a seed, nobody's data.

Every line is a sentence with one item. Items with check digits get right ones from the algorithms as written down here
(Luhn, ISO 7064 mod 97-10), not from the libraries that the detector asks. Telephone numbers are the metadata's own
example numbers of thirty regions, as formatted for use inside and outside the country, with their last digits drawn
anew where that leaves them in the numbering plan. Hard negatives have the same forms: wrong check digits, numbers of
orders, dates, hashes, versions, ISBNs, IP addresses, coordinates, handles, packages, placeholders.
"""

import random
import string
from dataclasses import dataclass

import phonenumbers

REGIONS = ("US", "GB", "DE", "FR")
"""Whose national forms the detector is asked to read."""
_ABROAD = (
    "US",
    "GB",
    "DE",
    "FR",
    "ES",
    "IT",
    "NL",
    "BE",
    "CH",
    "AT",
    "SE",
    "NO",
    "DK",
    "FI",
    "PL",
    "CZ",
    "PT",
    "IE",
    "AU",
    "NZ",
    "IN",
    "JP",
    "KR",
    "BR",
    "MX",
    "ZA",
    "IL",
    "TR",
    "GR",
    "SG",
)
_IBANS = {"DE": "n18", "GB": "a4n14", "FR": "n20", "ES": "n20", "NL": "a4n10", "BE": "n12", "AT": "n16", "PT": "n21"}
_IBANS |= {"PL": "n24", "SE": "n20", "CH": "n17", "NO": "n11", "DK": "n14", "FI": "n14"}
_FREE = ("DE", "NL", "AT", "SE", "GB", "PL", "DK", "CH")
"""Countries whose accounts have no check digits within the national part, or none that the registry demands."""
_NAMES = (
    "anna",
    "ben",
    "carla",
    "david",
    "eva",
    "frank",
    "grace",
    "hugo",
    "ida",
    "jan",
    "kim",
    "lena",
    "max",
    "nora",
    "otto",
    "paula",
    "rita",
    "sam",
    "tom",
    "uma",
)
_FAMILIES = (
    "berg",
    "costa",
    "diaz",
    "evans",
    "fischer",
    "garcia",
    "hansen",
    "ito",
    "jones",
    "khan",
    "lopez",
    "meyer",
    "novak",
    "olsen",
    "price",
    "quinn",
    "rossi",
)
_DOMAINS = ("example.com", "mail.example.org", "uni-ex.ac.uk", "post.example.de", "firm.io", "shop.example.co.jp")


@dataclass(frozen=True)
class Label:
    """One item: its kind, and where it begins and ends."""

    kind: str
    start: int
    end: int


def luhn(digits: str) -> str:
    """Return digits with their check digit."""
    doubled = [int(d) * (2 if i % 2 == 0 else 1) for i, d in enumerate(reversed(digits))]
    return digits + str(-sum(d - 9 if d > 9 else d for d in doubled) % 10)


def iban(country: str, account: str) -> str:
    """Return an account number with its check digits."""
    number = "".join(str(int(c, 36)) for c in account + country + "00")
    return f"{country}{98 - int(number) % 97:02}{account}"


class Maker:
    """Draws items."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def digits(self, count: int) -> str:
        return "".join(self.rng.choices(string.digits, k=count))

    def symbols(self, alphabet: str, count: int) -> str:
        return "".join(self.rng.choices(alphabet, k=count))

    def hex(self, count: int) -> str:
        return self.symbols("0123456789abcdef", count)

    def grouped(self, text: str) -> str:
        return " ".join(text[i : i + 4] for i in range(0, len(text), 4))

    # --- what is to be found

    def email(self) -> str:
        first, last = self.rng.choice(_NAMES), self.rng.choice(_FAMILIES)
        ways = (f"{first}.{last}", f"{first[0]}{last}{self.digits(2)}", f"{first}+news", f"{last}_{first}", first)
        address = f"{self.rng.choice(ways)}@{self.rng.choice(_DOMAINS)}"
        return self.rng.choice((address, address, address.title(), address.upper()))

    def phone(self) -> str:
        abroad = self.rng.random() < 0.5
        region = self.rng.choice(_ABROAD if abroad else REGIONS)
        kind = self.rng.choice((phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE))
        number = phonenumbers.example_number_for_type(region, kind)
        for _ in range(20):
            drawn = phonenumbers.PhoneNumber(number.country_code, number.national_number // 100 * 100)
            drawn.national_number += self.rng.randrange(100)
            if number.italian_leading_zero:
                drawn.italian_leading_zero = True
            if phonenumbers.is_valid_number(drawn):
                number = drawn
                break
        form = phonenumbers.PhoneNumberFormat
        if abroad:
            return phonenumbers.format_number(number, self.rng.choice((form.E164, form.INTERNATIONAL)))
        national = phonenumbers.format_number(number, form.NATIONAL)
        return self.rng.choice((national, national.replace(" ", "-"))) if region == "US" else national

    def iban(self) -> str:
        country = self.rng.choice(_FREE)
        form = _IBANS[country]
        letters = self.symbols(string.ascii_uppercase, 4) if form.startswith("a4") else ""
        account = iban(country, letters + self.digits(int(form.rpartition("n")[2])))
        return self.rng.choice((account, self.grouped(account)))

    def card(self) -> str:
        start, length = self.rng.choice((("4", 16), ("51", 16), ("55", 16), ("2221", 16), ("37", 15), ("6011", 16)))
        number = luhn(start + self.digits(length - 1 - len(start)))
        if length == 15:
            return self.rng.choice((number, f"{number[:4]} {number[4:10]} {number[10:]}"))
        return self.rng.choice((number, self.grouped(number), self.grouped(number).replace(" ", "-")))

    def ssn(self) -> str:
        area = self.rng.choice([*range(1, 666), *range(667, 900)])
        group, serial = self.rng.randrange(1, 100), self.rng.randrange(1, 10000)
        return self.rng.choice(("-", "-", "-", "\u2010")).join((f"{area:03}", f"{group:02}", f"{serial:04}"))

    def key(self) -> str:
        both, url = string.ascii_letters + string.digits, string.ascii_letters + string.digits + "-_"
        ways = (
            "AKIA" + self.symbols(string.ascii_uppercase + "234567", 16),
            "ghp_" + self.symbols(both, 36),
            "sk_live_" + self.symbols(both, self.rng.randrange(24, 60)),
            f"xoxb-{self.digits(12)}-{self.digits(12)}-{self.symbols(both, 24)}",
            "AIza" + self.symbols(url, 34) + "x",
            f"eyJ{self.symbols(both, 33)}.eyJ{self.symbols(both, 60)}.{self.symbols(url, 42)}z",
            "glpat-" + self.symbols(both, 20),
        )
        return self.rng.choice(ways)

    # --- what looks like it

    def negatives(self) -> tuple[str, ...]:
        good_card, good_iban = luhn("4" + self.digits(14)), iban("DE", self.digits(18))
        wrong = str((int(good_card[-1]) + 1 + self.rng.randrange(8)) % 10)
        year, month, day = self.rng.randrange(1950, 2030), self.rng.randrange(1, 13), self.rng.randrange(1, 29)
        name, number = self.rng.choice(_NAMES), self.digits(10)
        versions = ".".join(str(self.rng.randrange(30)) for _ in range(4))
        isbn = f"978-{self.digits(1)}-{self.digits(2)}-{self.digits(6)}-{self.digits(1)}"
        return (
            f"the card {self.grouped(good_card[:-1] + wrong)}",
            f"the account {good_iban[:2]}{(int(good_iban[2:4]) + 1) % 100:02}{good_iban[4:]}",
            f"no 000-{self.digits(2)}-{self.digits(4)}",
            f"no 9{self.digits(2)}-{self.digits(2)}-{self.digits(4)}",
            f"order {number}",
            f"order number {self.digits(3)}-{self.digits(7)}-{self.digits(7)}",
            f"invoice {year}-{self.digits(6)}",
            f"on {year}-{month:02}-{day:02} {self.rng.randrange(24):02}:{self.digits(2)}",
            f"on {day:02}.{month:02}.{year}",
            f"at {self.digits(10)}",
            f"commit {self.symbols('0123456789abcdef', 40)}",
            f"id {self.hex(8)}-{self.digits(4)}-4{self.digits(3)}-a{self.digits(3)}-{self.digits(12)}",
            f"version {versions}",
            f"from {'.'.join(str(self.rng.randrange(1, 255)) for _ in range(4))}",
            f"ISBN {isbn}",
            f"at {self.rng.uniform(-90, 90):.6f}, {self.rng.uniform(-180, 180):.6f}",
            f"by @{name}",
            f"the package {name}@{self.rng.randrange(9)}.{self.rng.randrange(20)}.{self.rng.randrange(9)}",
            f"the file {name}@2x.png",
            f"clone git@{self.rng.choice(_NAMES)}:{name}/tools.git",
            f"the sum of {self.rng.randrange(10**6, 10**9):,}",
            "the key AKIAXXXXXXXXXXXXXXXX",
            f"the id AKIA{self.symbols(string.ascii_lowercase, 16)}",
            f"the token ghp_{self.symbols(string.ascii_letters, 20)}",
            f"the hash sk_live_{self.symbols('0123456789', 6)}",
            f"part {self.digits(3)}-{self.digits(4)}-{self.digits(2)}",
            f"from {year} to {year + 10} {self.digits(3)} times {self.digits(2)}",
            f"EAN {self.digits(13)}",
            f"{year}-{month:02}-{day:02}T{self.digits(2)}:{self.digits(2)}:{self.digits(2)}.{self.digits(6)}Z",
            f"took {self.digits(7)} ms at 17{self.digits(11)}",
            f"the MAC {':'.join(self.hex(2) for _ in range(6))}",
            f"the substance {self.digits(4)}-{self.digits(2)}-{self.digits(1)}",
            f"{self.rng.randrange(1, 99)} {self.digits(3)} {self.digits(3)} people",
            f"sort code {self.digits(2)}-{self.digits(2)}-{self.digits(2)}",
            f"see https://anna.example.com/@{name}/{self.digits(10)}",
            f"postgres://{name}:{self.symbols(string.ascii_lowercase, 8)}@db.example.com:5432/x",
            f"x = {self.rng.random():.12f}e-{self.digits(2)}",
            f"rows {self.digits(5)}-{self.digits(5)} of {self.digits(7)}",
            f"DE{self.digits(20)} and GB{self.digits(2)}{self.symbols(string.ascii_uppercase, 4)}{self.digits(14)}",
            f"sha256:{self.hex(64)}",
            f"the score was {self.digits(3)} {self.digits(3)} {self.digits(4)}",
        )


_AROUND = ("She wrote {} in the log.", "({})", "{}", "note: {}; done", "we have {}, and more", '"{}"', "a={} b=1")
_AROUND += ('{{"user": "{}", "n": 1}}', "7,{},ok", "<{}>", "\t{}\t", "[{}](x)", "{}: yes", "| {} |")
_BEFORE = {
    "phone": ("phone ", "call ", "", "reach me at ", "tel:"),
    "email": ("", "", "mailto:"),
    "ssn": ("SSN ", ""),
    "card": ("card ", ""),
}


def labelled_text(seed: int, count: int) -> tuple[str, list[Label]]:
    """Return a text with ``count`` items of each kind, and as many lines of hard negatives as of items."""
    make = Maker(seed)
    lines: list[tuple[str, str, str]] = []
    for kind in ("email", "phone", "iban", "card", "ssn", "key"):
        lines += [(kind, make.rng.choice(_BEFORE.get(kind, ("",))), getattr(make, kind)()) for _ in range(count)]
    lines += [("", "", make.rng.choice(make.negatives())) for _ in range(6 * count)]
    make.rng.shuffle(lines)
    text, labels = "", []
    for kind, before, item in lines:
        head, tail = make.rng.choice(_AROUND).replace("{{", "{").replace("}}", "}").split("{}")
        start = len(text) + len(head) + len(before)
        if kind:
            labels.append(Label(kind, start, start + len(item)))
        text += f"{head}{before}{item}{tail}\n\n"
    return text, labels
