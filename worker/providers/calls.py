"""Providers that are called: many mails in one call, each call in a thread, because the SDKs block.

An `Api` knows one service: what a mail is in its words, which mails may share a call, and what an answer means. This
module owns the rest: calls at once, the journal before each, the deadline, what a cancelled call leaves open, and
the search for the mail because of which a service refuses all.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import msgspec
import structlog

from worker.errors import AnswerLost, ComposeError, ProviderUnreachable
from worker.job import TOO_LATE, Failed, Mail, NotSent, Outcome, Refused, Unknown
from worker.providers.base import HandOver, Quota
from worker.providers.window import Window

log = structlog.get_logger(__name__)

# A shutdown may have to wait for it.
QUOTA_SECONDS = 3.0

_CUT_OFF = "the batch's time was up before an answer came"


class Entry(msgspec.Struct, frozen=True):
    """A mail in the service's words. Only entries of one `group` share a call."""

    mail: Mail
    group: Hashable
    payload: Any
    size: int
    recipients: int = 1


# None: the service refused the whole call, and perhaps not because of this mail.
Verdict = Outcome | None


class Api(Protocol):
    """One service."""

    most_bytes: int
    """Of one call."""

    most_recipients: int
    """Of one call, copies included."""

    def entry(self, mail: Mail) -> Entry:
        """A mail in the service's words. Raises ComposeError."""

    def call(self, entries: Sequence[Entry], timeout_seconds: float) -> list[Verdict]:
        """Send these, in a thread; a verdict for each. One entry alone always gets an outcome.

        Raises ProviderUnreachable when nothing was written, and AnswerLost when no answer came.
        """

    def quota(self, timeout_seconds: float) -> Quota | None:
        """What the account allows, asked in a thread; None, if the service cannot be asked.

        Raises ProviderUnreachable and AnswerLost, the latter for an answer that says nothing about it too.
        """

    def close(self) -> None:
        """Let go of the connections."""


class CalledProvider:
    """A provider behind an API: `connections` calls at once, of `per_call` mails each at most."""

    def __init__(self, name: str, api: Api, connections: int, per_call: int, answer_seconds: float) -> None:
        self.name = name
        self._api = api
        self._per_call = per_call
        self._answer_seconds = answer_seconds
        self._window = Window(connections)
        self._threads = ThreadPoolExecutor(connections, thread_name_prefix=f"call {name}")
        self._is_closing = False

    async def send(self, mails: Sequence[Mail], hand_over: HandOver) -> None:
        """Send these; see the contract."""
        calls = deque(self._calls(mails, hand_over))
        tasks: dict[asyncio.Task[None], list[Entry]] = {}
        begun: set[int] = set()
        try:
            async with asyncio.timeout_at(hand_over.deadline):
                while calls and hand_over.may_go():
                    await self._window.take(1, is_urgent=hand_over.is_urgent)
                    entries = calls.popleft()
                    call = self._hand_over(entries, hand_over, begun)
                    tasks[asyncio.create_task(call, name=f"call {self.name}")] = entries
                await asyncio.gather(*tasks)
        except TimeoutError:
            pass
        finally:
            for waiting in calls:
                for entry in waiting:
                    hand_over.answer(entry.mail, NotSent(TOO_LATE))
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for entries in tasks.values():
                if id(entries) not in begun:
                    # Cancelled in the turn of the loop in which it was made.
                    self._window.give(1)
                    for entry in entries:
                        hand_over.answer(entry.mail, NotSent(TOO_LATE))

    def _calls(self, mails: Sequence[Mail], hand_over: HandOver) -> Iterator[list[Entry]]:
        """The mails in the service's words, grouped into calls."""
        groups: dict[Hashable, list[Entry]] = {}
        for mail in mails:
            try:
                entry = self._api.entry(mail)
            except ComposeError as error:
                hand_over.answer(mail, Refused(str(error)))
            else:
                groups.setdefault(entry.group, []).append(entry)
        for group in groups.values():
            yield from self._portions(group)

    def _portions(self, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
        portion: list[Entry] = []
        size = recipients = 0
        for entry in entries:
            size, recipients = size + entry.size, recipients + entry.recipients
            is_full = size > self._api.most_bytes or recipients > self._api.most_recipients
            if portion and (is_full or len(portion) == self._per_call):
                yield portion
                portion, size, recipients = [], entry.size, entry.recipients
            portion.append(entry)
        if portion:
            yield portion

    async def _hand_over(self, entries: list[Entry], hand_over: HandOver, begun: set[int]) -> None:
        """Journal and send one call's mails; holds a place in the window."""
        begun.add(id(entries))
        waiting = {entry.mail.job.seq: entry for entry in entries}
        try:
            admitted = {mail.job.seq for mail in await hand_over.admit([entry.mail for entry in entries])}
            waiting = {seq: entry for seq, entry in waiting.items() if seq in admitted}
            todo = [list(waiting.values())] if waiting else []
            while todo and hand_over.may_go():
                tried = todo.pop(0)
                verdicts, is_cut_off = await self._call(tried, hand_over)
                undecided = []
                for entry, verdict in zip(tried, verdicts, strict=True):
                    if verdict is None:
                        undecided.append(entry)
                        continue
                    del waiting[entry.mail.job.seq]
                    hand_over.answer(entry.mail, verdict)
                if is_cut_off:
                    return
                todo += _next_calls(undecided, is_less=len(undecided) < len(tried))
        finally:
            self._window.give(1)
            # Too late, or cancelled, before its call or between two.
            for entry in waiting.values():
                hand_over.answer(entry.mail, NotSent(TOO_LATE))

    async def _call(self, entries: Sequence[Entry], hand_over: HandOver) -> tuple[Sequence[Verdict], bool]:
        """One call; and whether it was cut off, for what a thread does cannot be taken back."""
        if self._is_closing:
            return [NotSent(TOO_LATE)] * len(entries), True
        left = hand_over.deadline - asyncio.get_running_loop().time()
        seconds = max(0.001, min(self._answer_seconds, left))
        is_cut_off = threading.Event()
        call: Future[list[Verdict]] = self._threads.submit(self._in_thread, entries, seconds, is_cut_off)
        try:
            return await asyncio.shield(asyncio.wrap_future(call)), False
        except asyncio.CancelledError:
            is_cut_off.set()
            if call.done() and not call.cancelled():
                return call.result(), True
            # A call that no thread has begun can be taken back.
            outcome: Outcome = NotSent(TOO_LATE) if call.cancel() else Unknown(_CUT_OFF)
            return [outcome] * len(entries), True

    def _in_thread(self, entries: Sequence[Entry], seconds: float, is_cut_off: threading.Event) -> list[Verdict]:
        outcome: Outcome
        if is_cut_off.is_set():
            return [NotSent(TOO_LATE)] * len(entries)
        try:
            return self._api.call(entries, seconds)
        except ProviderUnreachable as error:
            outcome = Failed(str(error), is_providers_fault=True)
        except AnswerLost as error:
            outcome = Unknown(str(error))
        except Exception as error:  # noqa: BLE001  A bug, or an SDK's surprise: the batch must have its answers.
            # The type alone: an SDK's text may hold the request.
            log.warning("a call failed unexpectedly", provider=self.name, error=type(error).__name__)
            outcome = Unknown(f"the call ended with {type(error).__name__}")
        return [outcome] * len(entries)

    async def quota(self) -> Quota | None:
        """See `Api.quota`."""
        # Not in the threads of the calls, which may all be busy.
        return await asyncio.to_thread(self._api.quota, min(self._answer_seconds, QUOTA_SECONDS))

    async def close(self) -> None:
        """Begin nothing more; calls that are out end by themselves, within their time."""
        self._is_closing = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._api.close()


def _next_calls(entries: list[Entry], *, is_less: bool) -> list[list[Entry]]:
    """What is tried next of a call that was refused as a whole: the rest without the guilty ones, or each half."""
    if not entries:
        return []
    if is_less or len(entries) == 1:
        return [entries]
    middle = len(entries) // 2
    return [entries[:middle], entries[middle:]]
