"""Fixtures: a broker and a Redis of a test's own, and a relay between its database and the broker."""

from collections.abc import Iterator

import pytest

from lab.kafka import Broker, broker
from lab.redis import RedisServer, redis_server
from tests.relay.listener import Listener


def pytest_configure(config: pytest.Config) -> None:
    """`-m 'not long'` leaves out what takes more than half a minute."""
    config.addinivalue_line("markers", "long: takes more than half a minute")


@pytest.fixture
def kafka() -> Iterator[Broker]:
    """Brokers with a topic for this test's events."""
    with broker() as brokers:
        brokers.create_topic(brokers.environment()["KAFKA_TOPIC_EMAIL_EVENTS"], 3)
        yield brokers


@pytest.fixture
def listener(kafka: Broker) -> Iterator[Listener]:
    """Whoever reads the events."""
    with Listener(kafka) as reading:
        yield reading


@pytest.fixture
def redis_beside() -> Iterator[RedisServer]:
    """A Redis of this test's own, or the one that the environment names; nothing of ours is left there."""
    with redis_server() as server:
        yield server
        client = server.client()
        client.delete(server.dead_letters)
        client.close()
