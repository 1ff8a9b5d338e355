"""Kafka as the settings describe it: what every client of ours needs to know, and what a topic is.

confluent_kafka is imported where a client is made, so a worker without Kafka never loads it.
"""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import structlog

from worker.errors import KafkaUnusable, SettingsError
from worker.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import KafkaError
    from confluent_kafka.admin import AdminClient

ANSWER_SECONDS = 5.0
# The client complains many times a second while no broker answers.
COMPLAINT_SECONDS = 10.0

log = structlog.get_logger(__name__)

T = TypeVar("T")


class _Complaints:
    """Logs what a client complains of, each kind once in COMPLAINT_SECONDS."""

    def __init__(self) -> None:
        self._last: dict[int, float] = {}

    def __call__(self, error: "KafkaError") -> None:
        now = time.monotonic()
        if now - self._last.get(error.code(), float("-inf")) >= COMPLAINT_SECONDS:
            self._last[error.code()] = now
            log.warning("Kafka's client complains", error=error.str())


def client_config(settings: Settings) -> dict[str, Any]:
    """What leads to the brokers and lets us in. Raises SettingsError when no brokers are named."""
    if not settings.kafka_bootstrap_servers:
        raise SettingsError(
            "KAFKA_BOOTSTRAP_SERVERS is not set: it must name the brokers, like kafka-1:9092,kafka-2:9092"
        )
    config: dict[str, Any] = {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "client.id": settings.worker_name,
        "security.protocol": settings.kafka_security_protocol,
        "socket.keepalive.enable": True,
        # What it has to say comes by error_cb too; by itself it writes to standard error.
        "log_level": 2,
        "error_cb": _Complaints(),
    }
    if settings.kafka_security_protocol.startswith("SASL"):
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = settings.kafka_sasl_username
        config["sasl.password"] = settings.kafka_sasl_password.reveal()
    if settings.kafka_ssl_ca_location:
        config["ssl.ca.location"] = settings.kafka_ssl_ca_location
    return config


def make_client(make: Callable[[dict[str, Any]], T], config: dict[str, Any]) -> T:
    """A consumer, producer or admin client. Raises SettingsError when the library refuses what it is told."""
    from confluent_kafka import KafkaException

    try:
        return make(config)
    except KafkaException as error:
        raise SettingsError(f"Kafka's client says: {error.args[0].str()}. Check the KAFKA_ settings.") from None


class Described(NamedTuple):
    """A topic as Kafka knows it: one that is deleted and made again has another id."""

    id: str
    partitions: int


def log_ends(settings: Settings, topic: str) -> dict[int, int]:
    """The offset that the next message of each partition will have. Raises KafkaUnusable, SettingsError."""
    from confluent_kafka import Consumer, KafkaException, TopicPartition
    from confluent_kafka.admin import AdminClient

    config = client_config(settings)
    partitions = describe_topic(make_client(AdminClient, config), topic).partitions
    # Of a consumer without a subscription no group hears.
    consumer = make_client(Consumer, config | {"group.id": settings.kafka_group_id})
    try:
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_SECONDS)[1]
            for partition in range(partitions)
        }
    except KafkaException as error:
        raise KafkaUnusable(f"Kafka says nothing of the topic {topic}: {error.args[0].str()}") from None
    finally:
        consumer.close()


def describe_topic(admin: "AdminClient", topic: str) -> Described:
    """What Kafka says of a topic. Raises KafkaUnusable."""
    from confluent_kafka import KafkaException, TopicCollection

    try:
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=ANSWER_SECONDS)[topic].result()
    except KafkaException as error:
        raise KafkaUnusable(f"Kafka says nothing of the topic {topic}: {error.args[0].str()}") from None
    return Described(str(described.topic_id), len(described.partitions))
