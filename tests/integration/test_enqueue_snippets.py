"""The snippets of docs/enqueue.md, as somebody would copy them: each makes the one job, a second time none."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition

from lab.kafka import broker
from lab.redis import redis_server
from lab.sink_process import Sink
from tests.integration.rows import Connection, insert_job, row, value
from tests.support import Database, eventually, running_worker
from worker.message import JobRow, read_or_error

ROOT = Path(__file__).parent.parent.parent
MODULES = ROOT / ".venv-deploy" / "node_modules"
JOB = "SELECT recipient_email, recipient_name, data ->> 'bookingId', status::text FROM email_jobs"


def snippets(language: str, document: str = "docs/enqueue.md") -> list[str]:
    """The code blocks of a language."""
    text = (ROOT / document).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(command: list[str], folder: Path, **environment: str) -> None:
    """Run a program to its end."""
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def url_of(database: Database) -> str:
    """The database as a URL, which every driver takes."""
    parts = psycopg.conninfo.conninfo_to_dict(database.server.dsn(database.name))
    where = f"host={parts['host']}&port={parts.get('port', 5432)}&user={parts['user']}"
    return f"postgresql:///{database.name}?{where}"


def test_python_in_ones_own_transaction(database: Database, db: Connection, tmp_path: Path) -> None:
    """psycopg."""
    (tmp_path / "enqueue.py").write_text(snippets("python")[0])
    for _ in range(2):
        run([sys.executable, "enqueue.py"], tmp_path, DATABASE_URL=url_of(database))
    assert row(db, JOB) == ("ann@example.com", "Ann", "4711", "pending")


def test_node_in_ones_own_transaction(database: Database, db: Connection, tmp_path: Path) -> None:
    """The npm package pg, where it is."""
    node = shutil.which("node")
    if node is None or not (MODULES / "pg").is_dir():
        pytest.skip("node, or its package pg, is not here; make judges installs it")
    (tmp_path / "enqueue.js").write_text(snippets("javascript")[0])
    parts = psycopg.conninfo.conninfo_to_dict(database.server.dsn(database.name))
    url = f"socket:{parts['host']}?db={database.name}"
    socket = {"PGPORT": str(parts.get("port", 5432)), "PGUSER": str(parts["user"])}
    for _ in range(2):
        run([node, "enqueue.js"], tmp_path, DATABASE_URL=url, NODE_PATH=str(MODULES), **socket)
    assert row(db, JOB) == ("ann@example.com", "Ann", "4711", "pending")


def test_the_function_takes_names_for_everything(db: Connection) -> None:
    """As the document has it."""
    (statement,) = (text for text in snippets("sql") if text.startswith("SELECT"))
    db.execute(statement)
    assert value(db, "SELECT expires_at - scheduled_at = interval '34.5 hours' FROM email_jobs")


def test_kafka_and_redis_get_a_message_that_is_a_job(tmp_path: Path) -> None:
    """What the two programs send is what the intake takes."""
    _, by_kafka, by_redis = snippets("python")
    (tmp_path / "kafka.py").write_text(by_kafka.replace('"email-jobs"', 'os.environ["TOPIC"]'))
    (tmp_path / "redis_.py").write_text(by_redis.replace('"email-jobs"', 'os.environ["LIST"]'))
    with broker() as brokers:
        topic = brokers.environment()["KAFKA_TOPIC_EMAIL_JOBS"]
        brokers.create_topic(topic, 1)
        servers = brokers.environment()["KAFKA_BOOTSTRAP_SERVERS"]
        run([sys.executable, "kafka.py"], tmp_path, KAFKA_BOOTSTRAP_SERVERS=servers, TOPIC=topic)
        by_kafka_message = first_message(servers, topic)
    with redis_server() as server:
        where = {"REDIS_HOST": server.host, "REDIS_PORT": str(server.port), "LIST": server.jobs_list}
        run([sys.executable, "redis_.py"], tmp_path, **where)
        client = server.client()
        by_redis_message = str(client.lpop(server.jobs_list))
        client.delete(server.jobs_list)
        client.close()
    assert by_kafka_message == by_redis_message.encode()
    job = read_or_error(by_kafka_message)
    assert isinstance(job, JobRow)
    assert (job.job_id, job.template) == ("booking-4711-confirmed", "booking-confirmation")


def first_message(servers: str, topic: str) -> bytes:
    """The first message of a topic."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "test", "auto.offset.reset": "earliest"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found = eventually(lambda: consumer.poll(0.5), "it is there")
    consumer.close()
    assert found is not None
    raw = found.value()
    assert isinstance(raw, bytes)
    return raw


def test_the_readmes_own_mail_and_its_jobs_are_sent(database: Database, db: Connection, sink: Sink) -> None:
    """A type and a template as the README makes them, and the jobs of its examples."""
    blocks = snippets("sql", "README.md")
    for beginning in ("INSERT INTO email_types", "INSERT INTO email_jobs"):
        (block,) = (text for text in blocks if text.startswith(beginning))
        db.execute(block.encode())
    db.execute(
        "SELECT email_enqueue('mine', 'seat-upgrade', 'ann@example.com', '{\"eventName\": \"Concert\", \"row\": 3}')"
    )
    with running_worker(database.environment(SMTP_PORT=sink.port)):
        sent = "SELECT array_agg(job_id ORDER BY job_id) FROM email_jobs WHERE status = 'sent'"
        eventually(lambda: value(db, sent) == ["booking-4711-confirmed", "mine"], "both are sent")
    assert value(db, "SELECT count(*) FROM email_jobs WHERE status = 'pending'") == 1


def test_a_producer_needs_few_rights(db: Connection) -> None:
    """Those that the document names, and no more."""
    db.execute("DROP ROLE IF EXISTS email_test_producer")
    db.execute("CREATE ROLE email_test_producer")
    (grants,) = (text for text in snippets("sql") if text.startswith("GRANT"))
    db.execute(grants.replace("TO booking", "TO email_test_producer").encode())
    try:
        db.execute("SET ROLE email_test_producer")
        insert_job(db, "by a producer")
        for _ in range(2):
            db.execute("SELECT email_enqueue('by a producer', 'welcome-email', 'ann@example.com')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("SELECT recipient_email FROM email_jobs")
    finally:
        db.execute("RESET ROLE")
        db.execute("DROP OWNED BY email_test_producer")
        db.execute("DROP ROLE email_test_producer")
    assert value(db, "SELECT count(*) FROM email_jobs") == 1
