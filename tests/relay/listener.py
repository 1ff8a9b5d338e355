"""Reads the topic of events from its beginning, as another service would."""

import json
from collections import defaultdict
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from lab.kafka import Broker
from tests.support import eventually

POLL_SECONDS = 0.2
MOST_AT_ONCE = 1000


class Listener:
    """All events that came so far, in the order of each partition."""

    def __init__(self, brokers: Broker, topic: str = "") -> None:
        self.raw: list[tuple[str, bytes]] = []
        self._brokers = brokers
        self._topic = topic or brokers.environment()["KAFKA_TOPIC_EMAIL_EVENTS"]

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.close()

    def open(self) -> None:
        """Begin at the beginning."""
        config = {
            "bootstrap.servers": self._brokers.servers,
            "group.id": "listener",
            "enable.auto.commit": False,
            # A test that kills the broker knows that it is away.
            "log_level": 2,
        }
        self._consumer = Consumer(config)
        partitions = self._brokers.admin().list_topics(self._topic, 10).topics[self._topic].partitions
        self._consumer.assign([TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in partitions])

    def reopen(self) -> None:
        """The broker was killed and has nothing of before: begin again."""
        self._consumer.close()
        self.open()

    def hear(self) -> int:
        """Read what is there; returns how many events that were."""
        found = self._consumer.consume(MOST_AT_ONCE, POLL_SECONDS)
        for message in found:
            key, content = message.key(), message.value()
            if message.error() is None:
                assert isinstance(key, bytes)
                assert isinstance(content, bytes)
                self.raw.append((key.decode(), content))
        return len(found)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events so far, repetitions too."""
        return [json.loads(content) for _, content in self.raw]

    def ids(self) -> set[str]:
        """The ids of the events so far."""
        return {event["id"] for event in self.events}

    def await_ids(self, wanted: set[str], seconds: float = 60.0) -> None:
        """Wait until each of these came at least once."""

        def all_came() -> bool:
            self.hear()
            return wanted <= self.ids()

        eventually(all_came, f"{len(wanted)} events come", seconds)

    def by_job(self) -> dict[str, list[str]]:
        """The ids of each job's events in the order in which a reader that drops repetitions sees them."""
        seen: dict[str, dict[str, None]] = defaultdict(dict)
        for event in self.events:
            seen[event["jobId"]].setdefault(event["id"])
        return {job_id: list(ids) for job_id, ids in seen.items()}
