-- read_epochs: whether somebody moved offsets by hand.
SELECT
    partition,
    epoch
FROM ingest_offsets
WHERE topic = %(topic)s AND topic_id = %(topic_id)s
