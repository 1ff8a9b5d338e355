"""Ingestors are killed again and again while messages come: exactly what is valid becomes a job, all else a reject.

Both storms print what they have seen, with pytest -s.
"""

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from lab.kafka import Broker
from lab.postgres import PostgresServer
from tests.kafka import scene
from tests.kafka.ingestor import Ingestor
from tests.kafka.storm import Act, Storm
from tests.support import Database, eventually

PARTITIONS = 8
SHARES = ("0-2", "3-5", "6-7")


class Crew:
    """Ingestors of which one is killed now and then; its successor starts at once."""

    def __init__(self, road: scene.Road, *shares: str) -> None:
        self._road = road
        self._shares = shares
        self._members = [self._start(share) for share in shares]
        self._guests: list[Ingestor] = []
        self._kills = count()

    def _start(self, share: str) -> Ingestor:
        return self._road.start(KAFKA_PARTITIONS=share)

    def kill_one(self) -> None:
        """SIGKILL for the one whose turn it is."""
        turn = next(self._kills) % len(self._members)
        self._members[turn].kill()
        self._members[turn] = self._start(self._shares[turn])

    def invite(self) -> None:
        """One more joins the group."""
        self._guests.append(self._start(""))

    def see_off(self) -> None:
        """And leaves it in order."""
        self._guests[-1].ask_to_stop()

    def stop(self) -> None:
        """All end in order."""
        everybody = [*self._members, *self._guests]
        for member in everybody:
            # The last one killed may have a successor that has not begun yet, and knows no signal.
            eventually(partial(member.lines, "started"), "it has started")
            member.ask_to_stop()
        for member in everybody:
            assert member.status() == 0, member.log_text()


def test_a_storm_with_fixed_partitions(kafka: Broker, database: Database, tmp_path: Path) -> None:
    """8 partitions, 3 ingestors of which one is killed every second, 100,000 messages."""
    with scene.open_road(kafka, database, tmp_path, PARTITIONS) as road:
        crew = Crew(road, *SHARES)
        storm = Storm(road)
        storm.run(100_000, 5_000, (Act(second, crew.kill_one) for second in count(1)))
        crew.stop()
        print(f"\nfixed partitions: {storm.check()}")


def test_a_storm_in_a_group(
    kafka: Broker, frail_postgres: PostgresServer, frail_database: Database, tmp_path: Path
) -> None:
    """Two minutes of 1,500 messages a second into a group of three, whose members last 6 s without a sign of life.

    One is killed every 20 s, a fourth one comes and goes, and Postgres is stopped once and crashes once.
    """
    with scene.open_road(kafka, frail_database, tmp_path, PARTITIONS) as road:
        crew = Crew(road, "", "", "")
        storm = Storm(road)
        storm.run(180_000, 1_500, _two_minutes(crew, frail_postgres))
        crew.stop()
        print(f"\na group: {storm.check()}")


def _two_minutes(crew: Crew, postgres: PostgresServer) -> Iterator[Act]:
    kills = [Act(second, crew.kill_one) for second in range(10, 120, 20)]
    guests = [act for second in (15, 55, 95) for act in (Act(second, crew.invite), Act(second + 9, crew.see_off))]
    losses = [
        Act(40, lambda: postgres.stop("fast")),
        Act(43, postgres.start),
        Act(80, postgres.kill),
        Act(83, postgres.start),
    ]
    yield from sorted([*kills, *guests, *losses], key=lambda act: act.second)
