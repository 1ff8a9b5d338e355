"""`python -m kafka_ingest`: run an ingestor until SIGTERM or SIGINT."""

from kafka_ingest.ingestor import Ingestor
from worker.ingestor_process import run_process

if __name__ == "__main__":
    run_process("kafka_ingest", lambda settings, stop, signs: Ingestor(settings, stop, signs).run())
