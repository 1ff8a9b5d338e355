-- move_offset: put a partition, whose row is locked, to another offset; older epochs may not move it any more.
UPDATE ingest_offsets
SET next_offset = %(next_offset)s, epoch = epoch + 1, updated_at = clock_timestamp()
WHERE topic = %(topic)s AND topic_id = %(topic_id)s AND partition = %(partition)s
RETURNING epoch
