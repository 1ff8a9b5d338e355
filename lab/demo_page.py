"""The page that shows the demo's mails: one static file, nothing loaded from anywhere, everything escaped.

A mail's HTML sits in a sandboxed frame, where it can run nothing. Choosing a mail works without any script; the one
small script filters the list, and the page's policy allows that one alone, by its hash.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from lab.demo_account import Account
from lab.demo_style import SCRIPT, STYLE


@dataclass(frozen=True)
class Example:
    """A mail that is shown whole."""

    kind: str
    subject: str
    headers: Sequence[tuple[str, str]]
    html: str
    text: str
    path: str
    size: int


@dataclass(frozen=True)
class Line:
    """A mail in the list of all."""

    path: str
    after: str
    to: str
    subject: str
    kind: str
    note: str


@dataclass(frozen=True)
class Ended:
    """A job that ended without being sent."""

    job_id: str
    kind: str
    status: str
    reason: str


def page(
    account: Account, examples: Sequence[Example], lines: Sequence[Line], ended: Sequence[Ended], made_at: str
) -> str:
    """The whole document."""
    parts = [
        _head(),
        _title(account, made_at),
        _viewer(examples, account),
        _list(lines),
        _endings(ended),
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "".join(parts)


def _head() -> str:
    script = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{script}'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>The demo's mails</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
    )


def _title(account: Account, made_at: str) -> str:
    good = not account.problems
    verdict = "Every job is accounted for." if good else "Not every job is accounted for."
    problems = "".join(f"<li>{escape(problem)}</li>" for problem in account.problems)
    tiles = [_tile(number, status.replace("_", " "), status) for status, number in account.by_status.items()]
    tiles.append(_tile(account.repeated, "arrived twice", "repeated"))
    return (
        f'<header>\n<h1>The demo’s mails</h1>\n<p class="{"good" if good else "bad"}">{verdict} '
        f"<span>{account.accepted:,} jobs, {account.arrived:,} mails, {account.rate:,.0f} a second, "
        f"{escape(account.kill.worker or 'no worker')} killed in the middle. {escape(made_at)}</span></p>\n"
        f'{f"<ul>{problems}</ul>" if problems else ""}<dl class="tiles">{"".join(tiles)}</dl>\n</header>\n'
    )


def _tile(number: int, words: str, name: str) -> str:
    return f'<div class="tile {escape(name)}"><dt>{escape(words)}</dt><dd>{number:,}</dd></div>'


def _viewer(examples: Sequence[Example], account: Account) -> str:
    """A list of types beside the mail that is chosen. Radio buttons choose, so arrow keys do too."""
    rules, choices, mails = [], [], []
    for number, example in enumerate(examples):
        rules.append(f".viewer:has(#t{number}:checked) #m{number}{{display:block}}")
        checked = " checked" if number == 0 else ""
        total = account.by_type[example.kind].total()
        choices.append(
            f'<label><input type="radio" name="type" id="t{number}"{checked}>'
            f"<span>{escape(example.kind)}</span><small>{total:,}</small></label>\n"
        )
        mails.append(_mail(number, example))
    return (
        f"<style>{''.join(rules)}</style>\n<section>\n<h2>One of each type</h2>\n"
        f'<div class="viewer"><fieldset><legend>Type, and jobs of it</legend>\n{"".join(choices)}</fieldset>\n'
        f'<div class="mails">{"".join(mails)}</div></div>\n</section>\n'
    )


def _mail(number: int, mail: Example) -> str:
    fields = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in mail.headers
        if name != "Subject"
    )
    tabs = "".join(
        f'<label><input type="radio" name="v{number}" class="{name}"{" checked" if name == "html" else ""}>'
        f"<span>{words}</span></label>"
        for name, words in (("html", "HTML part"), ("text", "Text part"))
    )
    return (
        f'<article id="m{number}"><h3>{escape(mail.subject)}</h3><dl class="fields">{fields}</dl>\n'
        f'<div class="tabs">{tabs}<a href="{escape(mail.path)}">raw .eml, {mail.size / 1000:.1f} kB</a></div>\n'
        f'<iframe sandbox="" loading="lazy" title="HTML part of {escape(mail.kind)}" '
        f'srcdoc="{escape(mail.html)}"></iframe>\n'
        f"<pre>{escape(mail.text)}</pre></article>\n"
    )


def _list(lines: Sequence[Line]) -> str:
    rows = "".join(
        f"<tr><td>{line.after}<td>{escape(line.to)}"
        f'<td><a href="{escape(line.path)}">{escape(line.subject)}</a>'
        f"{f' <b>{escape(line.note)}</b>' if line.note else ''}<td>{escape(line.kind)}\n"
        for line in lines
    )
    return (
        f'<section>\n<h2>All {len(lines):,} mails, as they arrived</h2>\n<p><input type="search" id="search" '
        'placeholder="Name, address, subject or type" aria-label="Search the mails"> <output id="found"></output></p>\n'
        '<div class="scroll"><table id="mails">'
        "<thead><tr><th>Second<th>To<th>Subject (opens the raw .eml)<th>Type</thead>\n"
        f"<tbody>{rows}</tbody></table></div>\n</section>\n"
    )


def _endings(ended: Iterable[Ended]) -> str:
    rows = "".join(
        f'<tr><td><b class="{escape(job.status.replace(" ", "_"))}">{escape(job.status)}</b>'
        f"<td>{escape(job.job_id)}<td>{escape(job.reason)}\n"
        for job in sorted(ended, key=lambda job: (job.status, job.reason, job.job_id))
    )
    return (
        "<section>\n<h2>Jobs that ended otherwise</h2>\n"
        '<div class="scroll"><table class="endings"><thead><tr><th>End<th>Job<th>Reason</thead>\n'
        f"<tbody>{rows}</tbody></table></div>\n</section>\n"
    )
