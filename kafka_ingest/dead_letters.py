"""What was rejected, for those who watch Kafka: the dead letter topic. The rejects in Postgres are the record.

Of a large one only position and reason go there.
"""

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from worker.intake import LARGEST_COPY_BYTES, Rejected
from worker.kafka import client_config, make_client
from worker.settings import Settings

CLOSE_SECONDS = 5.0

log = structlog.get_logger(__name__)


class DeadLetters:
    """The dead letter topic. Connects when there is something to tell."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.email_dead_letter_queue
        self._producer: Producer | None = None

    def tell(self, rejected: Rejected) -> None:
        """Publish a rejected message; never waits."""
        if self._producer is None:
            self._producer = make_client(Producer, client_config(self._settings) | {"enable.idempotence": True})
        value = rejected.raw if len(rejected.raw) <= LARGEST_COPY_BYTES else None
        headers: list[tuple[str, str | bytes | None]] = [
            ("kind", "rejected"),
            ("position", rejected.position),
            ("error", rejected.error),
            ("bytes", str(len(rejected.raw))),
        ]
        try:
            self._producer.produce(self._topic, value=value, headers=headers, on_delivery=_told)
            self._producer.poll(0)
        except (BufferError, KafkaException) as error:
            log.warning("a reject is in email_rejects, but not in the dead letter topic", error=str(error))

    def close(self) -> None:
        """Wait a little for what is on its way."""
        if self._producer is not None and (left := self._producer.flush(CLOSE_SECONDS)):
            log.warning("rejects are in email_rejects, but not in the dead letter topic", count=left)


def _told(error: KafkaError | None, _: Message) -> None:
    if error is not None:
        log.warning("a reject is in email_rejects, but not in the dead letter topic", error=error.str())
