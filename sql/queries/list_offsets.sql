-- list_offsets: where each Kafka partition is read on.
SELECT
    topic,
    partition,
    next_offset,
    epoch,
    updated_at,
    topic_id
FROM ingest_offsets
ORDER BY topic, partition, updated_at
