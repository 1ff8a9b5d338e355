-- place_partition: where to read a partition on, locked until the end of the transaction; from its beginning if new.
INSERT INTO ingest_offsets AS held (topic, topic_id, partition, next_offset)
VALUES (%(topic)s, %(topic_id)s, %(partition)s, %(beginning)s)
ON CONFLICT (topic, topic_id, partition) DO UPDATE SET partition = held.partition
RETURNING next_offset, epoch
