"""Reading: what the consumer is told, and what it brings."""

from typing import Any

import structlog
from confluent_kafka import KafkaError, Message

from worker.errors import KafkaUnusable
from worker.kafka import client_config
from worker.settings import Settings

log = structlog.get_logger(__name__)


def consumer_config(settings: Settings) -> dict[str, Any]:
    """What the consumer is told: offsets are ours, and it fetches ahead within bounds."""
    return client_config(settings) | {
        "group.id": settings.kafka_group_id,
        "session.timeout.ms": int(settings.kafka_session_timeout_seconds * 1000),
        "heartbeat.interval.ms": int(settings.kafka_session_timeout_seconds * 1000 / 4),
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": 65_536,
        "fetch.queue.backoff.ms": 20,
        # Some brokers answer only when this has passed, whatever has come meanwhile.
        "fetch.wait.max.ms": 10,
    }


def is_message(message: Message) -> bool:
    """Whether it is one, and not a complaint. Raises KafkaUnusable when the client can do no more."""
    error = message.error()
    if error is None:
        return True
    if error.code() != KafkaError._PARTITION_EOF:
        log.warning("Kafka's client complains", error=error.str())
    if error.fatal():
        raise KafkaUnusable(f"Kafka: {error.str()}. Start the ingestor again.")
    return False
