-- read_offsets: how far each partition of a topic has been read, and the epoch that tells whether somebody moved it.
SELECT
    partition,
    next_offset,
    epoch
FROM ingest_offsets
WHERE topic = %(topic)s AND topic_id = %(topic_id)s
