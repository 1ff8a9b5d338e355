-- How operators look at the roads in, and move where Kafka is read on.

CREATE OR REPLACE FUNCTION email_ingest_reset(
    topic text, next_offset bigint DEFAULT 0, partition integer DEFAULT NULL
) RETURNS TABLE (reset_partition integer, was bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    IF NOT EXISTS (SELECT FROM ingest_offsets AS o WHERE o.topic = $1 AND ($3 IS NULL OR o.partition = $3)) THEN
        RAISE EXCEPTION 'no ingestor has read topic "%"%', $1, coalesce(', partition ' || $3, '')
            USING ERRCODE = 'EM005', HINT = 'SELECT topic, partition FROM ingest_offsets shows what has been read.';
    ELSIF $2 < 0 THEN
        RAISE EXCEPTION 'an offset cannot be negative: %', $2
            USING ERRCODE = 'EM005', HINT = '0 is the beginning; what is outside the log goes to its nearest end.';
    END IF;
    RETURN QUERY
    WITH held AS (
        -- Of a topic that was made again only the newest counts.
        SELECT DISTINCT ON (o.partition) o.topic, o.topic_id, o.partition
        FROM ingest_offsets AS o
        WHERE o.topic = $1 AND ($3 IS NULL OR o.partition = $3)
        ORDER BY o.partition, o.updated_at DESC
    ),
    locked AS (
        SELECT o.topic, o.topic_id, o.partition, o.next_offset
        FROM ingest_offsets AS o
        INNER JOIN held ON o.topic = held.topic AND o.topic_id = held.topic_id AND o.partition = held.partition
        ORDER BY o.partition
        FOR UPDATE OF o
    )
    UPDATE ingest_offsets AS o
    SET next_offset = $2, epoch = o.epoch + 1, updated_at = clock_timestamp()
    FROM locked
    WHERE o.topic = locked.topic AND o.topic_id = locked.topic_id AND o.partition = locked.partition
    RETURNING o.partition, locked.next_offset;
END $$;

COMMENT ON FUNCTION email_ingest_reset(text, bigint, integer) IS
'Lets ingestors read a Kafka topic, or one partition of it, from another offset on, within seconds. job_id makes repetitions harmless. Resetting the group in Kafka has no effect: Postgres counts.
SELECT * FROM email_ingest_reset(''email-jobs'');';
