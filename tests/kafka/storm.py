"""A load with repetitions and with what cannot be a job, paced while things happen to those who read it."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psycopg
from confluent_kafka import Producer

from tests.kafka import scene

TICK_SECONDS = 0.1
# A storm that has not ended by then never will.
LONGEST_SECONDS = 400.0
# How far back a repetition may lie: often its first one is still on its way, in another partition.
MEMORY = 300


class Act(NamedTuple):
    """What happens to the readers, and when after the storm's begin."""

    second: float
    do: Callable[[], object]


class Load:
    """Messages into random partitions; of each hundred one is a repetition, and one cannot be a job."""

    def __init__(self, road: scene.Road, producer: Producer) -> None:
        self.jobs: list[str] = []
        self.invalid: list[bytes] = []
        self.ends: Counter[int] = Counter()
        self._road = road
        self._producer = producer
        self._random = random.Random(4)

    def grow(self, total: int) -> None:
        """Produce until there are that many."""
        for number in range(self.ends.total(), total):
            partition = self._random.randrange(self._road.partitions)
            self._producer.produce(self._road.topic, self._message(number), partition=partition)
            self.ends[partition] += 1
        self._producer.poll(0)

    def _message(self, number: int) -> bytes:
        match number % 100:
            case 50:
                return scene.message(self._random.choice(self.jobs[-MEMORY:]))
            case 99:
                self.invalid.append(self._invalid(number))
                return self.invalid[-1]
            case _:
                self.jobs.append(f"job-{number}")
                return scene.message(self.jobs[-1])

    def _invalid(self, number: int) -> bytes:
        """Refused by JSON, by UTF-8, by the books of types, or by the database, in turn."""
        match number // 100 % 4:
            case 0:
                return f"garbage {number}".encode()
            case 1:
                return scene.message(f"bad-{number}", subject="?").replace(b"?", b"\xff")
            case 2:
                return scene.message(f"bad-{number}", type="love-letter")
            case _:
                return scene.message(f"bad-{number}", data={"nul": "\0"})


class Pause:
    """The longest time in which something did not move, although it had something to do."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._moved_at: float | None = None

    def look(self, now: float, moves: bool) -> bool:
        """Note whether it moves."""
        if moves or self._moved_at is None:
            self._moved_at = now
        self.longest = max(self.longest, now - self._moved_at)
        return moves


class Storm:
    """A load, what happens meanwhile, and how far the readers are."""

    def __init__(self, road: scene.Road) -> None:
        self._road = road
        self._producer = road.broker.producer(**{"linger.ms": 20, "log_level": 3})
        self.load = Load(road, self._producer)
        self._read: dict[int, int] = {}
        self._pauses = {partition: Pause() for partition in range(road.partitions)}
        self._pause_of_all = Pause()

    def run(self, total: int, per_second: float, acts: Iterator[Act]) -> None:
        """Until that many messages have been produced, and read."""
        began = time.monotonic()
        act = next(acts, None)
        while self.load.ends.total() < total or not self._all_is_read():
            passed = time.monotonic() - began
            assert passed < LONGEST_SECONDS, f"read: {self._read}, produced: {self.load.ends}"
            self.load.grow(min(total, int(passed * per_second)))
            if act is not None and passed >= act.second:
                act.do()
                act = next(acts, None)
            self._look(time.monotonic())
            time.sleep(TICK_SECONDS)
        assert self._producer.flush(scene.ANSWER_SECONDS) == 0

    def _all_is_read(self) -> bool:
        return all(self._read.get(partition, 0) >= end for partition, end in self.load.ends.items())

    def _look(self, now: float) -> None:
        """How far each partition has been read; one that stands still before its end pauses."""
        try:
            read = self._road.offsets()
        except psycopg.OperationalError:
            self._connect_again()
            return
        moves = False
        for partition, end in self.load.ends.items():
            there = read.get(partition, 0)
            moves |= self._pauses[partition].look(now, there != self._read.get(partition) or there >= end)
        self._pause_of_all.look(now, moves)
        self._read = read

    def _connect_again(self) -> None:
        try:
            self._road.connect_again()
        except psycopg.OperationalError:
            return

    def check(self) -> str:
        """Fail unless exactly what is valid is a job, and exactly what is not is a reject; the figures in words."""
        road, load = self._road, self.load
        for ingestor in road.ingestors:
            assert "Traceback" not in ingestor.log_text(), ingestor.log_text()
        jobs = road.jobs()
        assert len(jobs) == len(load.jobs)
        assert jobs == set(load.jobs)
        rejects = Counter(raw for _, raw, _ in road.rejects())
        assert rejects == Counter(load.invalid)
        assert road.offsets() == load.ends
        assert road.db.execute("SELECT DISTINCT source, status::text FROM email_jobs").fetchall() == [
            ("kafka", "pending")
        ]
        return (
            f"{load.ends.total():,} messages, {len(jobs):,} rows, {rejects.total():,} rejects,"
            f" {len(road.ingestors)} processes; longest pause of all {self._pause_of_all.longest:.1f} s,"
            f" of a partition {max(pause.longest for pause in self._pauses.values()):.1f} s"
        )
