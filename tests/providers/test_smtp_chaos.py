"""SMTP: everything at once. A server that misbehaves at random, and books that must balance all the same."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from lab.scripted_smtp import ScriptedServer
from lab.smtp_offer import DEFAULT_EXTENSIONS
from lab.smtp_script import Action, Context, Delay, Drop, DropMid, Garbage, Script, Stall
from tests.providers.hand_over import RecordingHandOver, Tally, assert_books, send
from tests.providers.mails import make_mail, seq_of_address
from tests.providers.services import ONE_BY_ONE, SmtpRig, accepted_of, contents_of
from worker.job import Accepted, Mail, Options, Outcome
from worker.providers.smtp import OPEN_PER_CONNECTION

ODDS = 0.06
CONNECTIONS = 3
TRICKS: tuple[Action, ...] = (
    "421 4.3.2 shutting down",
    "451 4.3.0 later",
    "550 5.7.1 never",
    "250 2.0.0 whatever",
    Drop(),
    Drop(reset=True),
    Garbage(),
    Delay(0.01),
    Delay(0.02, Drop()),
    Stall(),
)


class Mischief:
    """A script whose every step may do something else, and which checks that each mail was journaled before."""

    def __init__(self, seed: int, tally: Tally) -> None:
        self._random = random.Random(seed)
        self._tally = tally

    def script(self) -> Script:
        """The script; the first connection is opened in peace, so that there is something to disturb."""
        steps: dict[str, Any] = dict.fromkeys(("greeting", "ehlo", "helo"), self._opening)
        steps |= dict.fromkeys(("mail", "rcpt", "data", "content", "rset"), self._step)
        return Script(**steps, body=lambda _: DropMid() if self._random.random() < ODDS / 4 else None)

    def _opening(self, context: Context) -> Action:
        return None if context.connection == 1 else self._trick()

    def _step(self, context: Context) -> Action:
        if context.sender:
            self._tally.touched(seq_of_address(context.sender))
        return self._trick()

    def _trick(self) -> Action:
        return self._random.choice(TRICKS) if self._random.random() < ODDS else None


def batch(first: int, count: int) -> list[Mail]:
    """Mails of which every fourth has a copy."""
    return [
        make_mail(
            seq, options=Options(from_address=f"s{seq}@example.org", cc=("c@copy.example",) if seq % 4 == 0 else ())
        )
        for seq in range(first, first + count)
    ]


Stopper = Callable[[RecordingHandOver], None]


def never(_: RecordingHandOver) -> None:
    """The batch runs to its end."""


def midway(hand_over: RecordingHandOver) -> None:
    """The worker is told to stop when a few answers are in."""

    def count(_: int, __: Outcome) -> None:
        hand_over.is_stopped = len(hand_over.outcomes) >= 8

    hand_over.on_answer = count


@pytest.mark.parametrize("stop", [never, midway])
@pytest.mark.parametrize("offer", [DEFAULT_EXTENSIONS, ONE_BY_ONE], ids=["pipelining", "one by one"])
@pytest.mark.parametrize("seed", range(2))
async def test_whatever_the_server_does_the_books_balance(
    rig: SmtpRig, offer: tuple[str, ...], seed: int, stop: Stopper
) -> None:
    """Each mail gets one answer that is true, none arrives twice, and the window is never exceeded."""
    tally = Tally()
    server: ScriptedServer = await rig.server(Mischief(seed, tally).script(), extensions=offer)
    provider = rig.provider(server, connections=CONNECTIONS, answer_seconds=0.2, idle_seconds=0.2, mails=12)
    hand_overs = [RecordingHandOver(tally, seconds=3.0, is_urgent=number == 2) for number in range(3)]
    for hand_over in hand_overs:
        stop(hand_over)
    results = await asyncio.gather(
        *(send(provider, batch(100 * number, 20), hand_over) for number, hand_over in enumerate(hand_overs, 1))
    )
    for outcomes in results:
        assert_books(outcomes, contents_of(server), accepted_of(server))
    assert tally.open == 0
    assert tally.most_open <= OPEN_PER_CONNECTION * CONNECTIONS
    assert Accepted in {type(outcome) for outcomes in results for outcome in outcomes.values()}
