-- advance_offsets: forward only.
UPDATE ingest_offsets AS held
SET next_offset = read.next_offset, updated_at = clock_timestamp()
FROM unnest(%(partitions)s::integer[], %(next_offsets)s::bigint[]) AS read (partition, next_offset)
WHERE
    held.topic = %(topic)s
    AND held.topic_id = %(topic_id)s
    AND held.partition = read.partition
    AND held.next_offset < read.next_offset
