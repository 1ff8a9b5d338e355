-- lock_offsets: how far partitions have been read, locked in their order so that two ingestors never wait in a circle.
SELECT
    partition,
    next_offset,
    epoch
FROM ingest_offsets
WHERE topic = %(topic)s AND topic_id = %(topic_id)s AND partition = any(%(partitions)s::integer[])
ORDER BY partition
FOR UPDATE
