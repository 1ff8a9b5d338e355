"""Kafka's road into the queue: `python -m kafka_ingest` stores the topic's messages as jobs, each once.

Offsets live in Postgres, in the transaction of the rows themselves: `ingest_offsets` is what counts on restart. They
are also committed to Kafka, for its own tools to show the lag.
"""
