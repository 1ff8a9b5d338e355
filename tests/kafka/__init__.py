"""Kafka's road in, with real ingestor processes, a real broker and a real Postgres."""
