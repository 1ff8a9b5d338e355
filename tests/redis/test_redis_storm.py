"""The storm: two takers, killed in turn while messages pour in, some of them twice and some of them bad."""

import random
from collections.abc import Iterator
from contextlib import ExitStack

from tests.integration.rows import Connection, column, value
from tests.redis.site import Site, message
from tests.support import Worker, eventually

MESSAGES = 50_000
DUPLICATES = 500
# Of which each tenth comes twice.
INVALID = 500
CHUNK = 500
# So many messages wait at most: kills need takers that have something in hand.
MOST_WAITING = 2_000
KILL_EVERY = 5_000


def _messages(chance: random.Random) -> tuple[list[str], set[str], set[str]]:
    """All messages in their order, the job_ids of the valid ones, and the invalid ones."""
    valid = [f"j-{number}" for number in range(MESSAGES - DUPLICATES - INVALID)]
    invalid = [f'{{"id": "bad-{number}", "type": "newsletter"}}' for number in range(INVALID - INVALID // 10)]
    twice = chance.sample(valid, DUPLICATES)
    everything = [*map(message, valid), *map(message, twice), *invalid, *chance.sample(invalid, INVALID // 10)]
    chance.shuffle(everything)
    return everything, set(valid), set(invalid)


def _pour(site: Site, messages: list[str]) -> Iterator[int]:
    """Append the messages, never far ahead of the takers; yields how many came so far."""
    for start in range(0, len(messages), CHUNK):
        eventually(lambda: site.backlog() < MOST_WAITING, "the backlog shrinks", 60)
        site.push(*messages[start : start + CHUNK])
        yield start + CHUNK


def test_a_storm_leaves_exactly_the_valid_jobs_and_the_invalid_messages(site: Site, db: Connection) -> None:
    """Through kills of two takers in turn, rows are the distinct valid ids, and rejects the distinct bad messages."""
    seed = random.randrange(2**32)
    messages, valid, invalid = _messages(random.Random(seed))
    in_hand: list[int] = []
    with ExitStack() as stack:
        takers: list[Worker] = []
        logs: list[str] = []

        def start() -> None:
            takers.append(stack.enter_context(site.taker()))

        def kill_the_elder() -> None:
            # In turn, and in the middle of something.
            elder = takers.pop(0)
            eventually(site.in_hand, "the takers are at work", 60)
            elder.process.kill()
            elder.process.wait()
            in_hand.append(len(site.in_hand()))
            logs.append(elder.log_text())

        start()
        start()
        for poured in _pour(site, messages):
            if poured % KILL_EVERY == 0:
                kill_the_elder()
                start()
        eventually(lambda: site.backlog() == 0 and site.in_hand() == [], "everything is stored", 90)
        logs += [taker.log_text() for taker in takers]
    taken_over = sum(log.count("a taker died") for log in logs)
    numbers = (
        f"seed {seed}: {len(messages)} messages, {len(in_hand)} kills, in hand at the kills {in_hand},"
        f" {taken_over} batches taken over"
    )
    print(f"\n{numbers}")
    stored = column(db, "SELECT job_id FROM email_jobs")
    kept = [bytes(raw).decode() for raw in column(db, "SELECT raw FROM email_rejects")]
    assert len(stored) == len(valid), numbers
    assert set(stored) == valid, numbers
    assert len(kept) == len(invalid), numbers
    assert set(kept) == invalid, numbers
    assert {letter["message"] for letter in site.dead_letters()} == invalid, numbers
    assert site.hidden() == [], numbers
    # Those that wait now may have named a list that is not there yet.
    assert site.redis.keys(f"{site.taken}:*") == [], numbers
    assert value(db, "SELECT count(*) FROM email_jobs WHERE source <> 'redis'") == 0
