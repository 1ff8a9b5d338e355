-- reset_offsets: read a topic, or one partition, from another offset on.
SELECT
    reset_partition,
    was
FROM email_ingest_reset(%(topic)s, %(next_offset)s, %(partition)s)
