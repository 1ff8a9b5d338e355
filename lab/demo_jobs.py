"""The demo's jobs: all mail types, their data varied from `templates/*/sample.json`, and the cases that go wrong.

The same jobs in every run. A campaign and a first rush are there when the workers start; the rest arrives while they
work, as it does in life.
"""

import json
import random
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

# How many of each type: campaigns of some hundred, the rest as busy as a ticket shop's day.
NUMBERS = {
    "newsletter": 560,
    "event-announcement": 320,
    "special-offer": 240,
    "maintenance-notice": 110,
    "system-update": 70,
    "booking-confirmation": 160,
    "payment-confirmation": 150,
    "booking-reminder": 100,
    "email-verification": 80,
    "password-reset": 70,
    "welcome-email": 50,
    "payment-failed": 35,
    "security-alert": 25,
    "booking-cancellation": 15,
    "refund-confirmation": 15,
}
CAMPAIGNS = ("newsletter", "event-announcement", "special-offer", "maintenance-notice", "system-update")
# Transactional mail there at the start, and for how many seconds the rest keeps arriving.
RUSH = 100
ARRIVING_SECONDS = 10.0

GONE, BUSY, FULL = "gone.example", "busy.example", "full.example"
GONE_JOBS, BUSY_JOBS, FULL_JOBS, SCHEDULED_JOBS, REPEATED_CALLS = 24, 14, 3, 60, 20

FIRST_NAMES = (
    "Zoë Jürgen Søren François Noémie Łukasz Ingrid Amara Kwame Priya Tomás Leila Maja Björn Chloé Éva Ayşe Ana Peter "
    "Ruth Hugo Emma Noah Olivia Liam Mia Aoife João İpek Håkon Šárka Žofia Thuý Niamh Agnieszka Iñaki"
)
LAST_NAMES = (
    "Müller Weiß Lindqvist Dubois Laurent Kowalczyk Åström Okafor Mensah Raman Ferreira Haddad O'Brien Smith Garcia "
    "Novák Øvrebø Yılmaz Trần Jansen Rossi Fischer Evans Nowak Núñez d'Angelo Þórsdóttir Dvořák Ó'Súilleabháin"
)
# Names in other scripts, with what stands before the @.
OTHER_NAMES = (
    ("Ольга Петрова", "olga.petrova"),
    ("Ελένη Παππά", "eleni.pappa"),
    ("山田 美咲", "misaki.yamada"),
    ("李 伟", "wei.li"),
    ("김 지우", "jiwoo.kim"),
    ("ליאור כהן", "lior.cohen"),
    ("ليلى حداد", "layla.haddad"),
    ("สมชาย ใจดี", "somchai.jaidee"),
)
EVENTS = (
    "Midsummer Night Concert",
    "Open Air Jazz Evening",
    "Die Zauberflöte",
    "Così fan tutte",
    "Café Müller: an Evening of Dance",
    "String Quartets by Candlelight",
    "Rock & Roll “Unplugged”",
    "Science Slam <live>",
    "La Bohème",
    "Late Night Stand-up",
    "Märchen für Erwachsene",
    "Choir of the North: Sól",
)
PRICES = (18.0, 24.5, 32.0, 45.0, 65.0, 89.9)
DEVICES = ("Firefox on Windows", "Safari on iPhone", "Chromium on Linux", "Chrome on Android", "Edge on Windows")
PLACES = ("Tallinn, Estonia", "Córdoba, Spain", "Łódź, Poland", "Malmö, Sweden", "São Paulo, Brazil")


@dataclass(frozen=True)
class Call:
    """One call of email_enqueue(); `at` is when the producer makes it, in seconds of the demo."""

    at: float
    job_id: str
    type: str
    recipient_email: str
    recipient_name: str
    data: dict[str, Any]
    due_in_seconds: float | None = None
    expires_in_seconds: float | None = None
    max_retries: int | None = None


@dataclass(frozen=True)
class Plan:
    """All calls, in their order in time, and which job is which special case."""

    calls: list[Call]
    jobs: int
    cancelled: str

    @property
    def repeated_calls(self) -> int:
        """Calls with a job_id that was there before."""
        return len(self.calls) - self.jobs


def make_plan() -> Plan:
    """The demo's jobs."""
    chance = random.Random(2000)
    campaign = [_call(name, n, chance) for name in CAMPAIGNS for n in range(NUMBERS[name])]
    campaign.sort(key=lambda call: call.job_id)
    daily = [_call(name, n, chance) for name in NUMBERS if name not in CAMPAIGNS for n in range(NUMBERS[name])]
    chance.shuffle(daily)
    step = ARRIVING_SECONDS / (len(daily) - RUSH)
    daily = [replace(call, at=max(0.0, (place - RUSH) * step)) for place, call in enumerate(daily)]
    for place in range(SCHEDULED_JOBS):  # all of them from the start: the last is due after ten seconds
        daily[place] = replace(daily[place], due_in_seconds=5.0 + place * 5.0 / SCHEDULED_JOBS)
    _make_special(campaign, daily, chance)
    cancelled = daily[SCHEDULED_JOBS - 1].job_id
    again = chance.sample([call for call in daily if 0 < call.at < ARRIVING_SECONDS - 1], REPEATED_CALLS)
    repeated = [replace(call, at=call.at + 0.5) for call in again]
    calls = sorted([*campaign, *daily, *repeated], key=lambda call: call.at)
    return Plan(calls, len(campaign) + len(daily), cancelled)


def _make_special(campaign: list[Call], daily: list[Call], chance: random.Random) -> None:
    """Turn some of the jobs into those that go wrong, wait, or are too late."""
    for place in chance.sample(range(len(campaign)), GONE_JOBS // 2):
        campaign[place] = _moved(campaign[place], GONE)
    others = range(SCHEDULED_JOBS, len(daily))
    places = iter(chance.sample(others, len(others)))
    for _ in range(GONE_JOBS - GONE_JOBS // 2):
        _change(daily, places, lambda call: _moved(call, GONE))
    for _ in range(BUSY_JOBS):
        _change(daily, places, lambda call: _moved(call, BUSY))
    for _ in range(FULL_JOBS):
        _change(daily, places, lambda call: replace(_moved(call, FULL), max_retries=1))
    _change(daily, places, lambda call: replace(call, data=_without_event(call.data)), "booking-confirmation")
    _change(daily, places, lambda call: replace(call, expires_in_seconds=-60.0), "email-verification")


def _change(
    calls: list[Call], places: Iterator[int], change: Callable[[Call], Call], only_type: str | None = None
) -> None:
    place = next(place for place in places if only_type in (None, calls[place].type))
    calls[place] = change(calls[place])


def _moved(call: Call, domain: str) -> Call:
    """The same job to an address at that domain."""
    return replace(call, recipient_email=call.recipient_email.partition("@")[0] + "@" + domain)


def _without_event(data: dict[str, Any]) -> dict[str, Any]:
    """A producer's mistake: a name that the template needs is missing."""
    return {key: value for key, value in data.items() if key != "eventName"}


def _call(name: str, number: int, chance: random.Random) -> Call:
    full_name, local = chance.choice(OTHER_NAMES) if chance.random() < 0.1 else _latin_name(chance)
    address = f"{local}.{number + 1}@{chance.choice(('example.com', 'example.org', 'example.net'))}"
    data = sample(name)
    if name not in CAMPAIGNS:
        data = _vary(data, chance, local)
    return Call(0.0, f"{name}-{number + 1:04d}", name, address, full_name, data)


def _latin_name(chance: random.Random) -> tuple[str, str]:
    first, last = chance.choice(FIRST_NAMES.split()), chance.choice(LAST_NAMES.split())
    return f"{first} {last}", f"{_ascii(first)}.{_ascii(last)}"


@cache
def sample(name: str) -> dict[str, Any]:
    """The data of a type's sample.json."""
    data: dict[str, Any] = json.loads((TEMPLATES / name / "sample.json").read_text("utf-8"))["data"]
    return data


def _vary(data: dict[str, Any], chance: random.Random, local: str) -> dict[str, Any]:
    """The sample with other numbers, names and days; what the sample lacks is not added."""
    tickets, price = chance.randint(1, 6), chance.choice(PRICES)
    total = round(tickets * (price + 6.0) + 8.0, 2)
    seats = {"name": f"Standard seat, row {chance.randint(1, 30)}", "qty": tickets, "price": price}
    new: dict[str, Any] = {
        "bookingId": f"b-{chance.randint(20_000, 29_999)}",
        "paymentId": f"p-{chance.randint(80_000, 89_999)}",
        "refundId": f"r-{chance.randint(5_000, 5_999)}",
        "eventName": chance.choice(EVENTS),
        "ticketCount": tickets,
        "totalAmount": total,
        "amount": total,
        "refundAmount": total,
        "items": [
            seats,
            {"name": "Printed programme", "qty": tickets, "price": 6.0},
            {"name": "Booking fee", "qty": 1, "price": 8.0},
        ],
        "paymentMethod": f"Card ending in {chance.randint(0, 9999):04d}",
        "username": local,
        "device": chance.choice(DEVICES),
        "location": f"{chance.choice(PLACES)} (estimated from the IP address)",
        "code": f"{chance.randint(0, 999):03d} {chance.randint(0, 999):03d}",
    }
    varied = {key: new.get(key, value) for key, value in data.items()}
    days = timedelta(days=7 * chance.randint(0, 20))
    varied |= {key: _later(value, days) for key, value in data.items() if key.endswith(("At", "Until"))}
    text = json.dumps(varied)
    for key in ("bookingId", "paymentId", "refundId"):
        if key in data:  # the addresses of links carry it too
            text = text.replace(data[key], new[key])
    text = re.sub(r"token=\w+", lambda _: f"token={chance.randbytes(16).hex()}", text)
    result: dict[str, Any] = json.loads(text)
    return result


def _later(moment: str, days: timedelta) -> str:
    return (datetime.fromisoformat(moment) + days).isoformat()


def _ascii(name: str) -> str:
    """What is left of a name in an old-fashioned address."""
    letters = name.lower().replace("ø", "o").replace("ł", "l").replace("ß", "ss").replace("þ", "th").replace("ı", "i")
    plain = unicodedata.normalize("NFKD", letters).encode("ascii", "ignore").decode()
    return "".join(letter for letter in plain if letter.isalnum())
