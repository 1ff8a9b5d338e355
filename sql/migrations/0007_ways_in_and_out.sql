-- The ways in beside SQL (Kafka, Redis, files), and the way out for events.

ALTER TABLE email_jobs
ADD COLUMN recipient_user_id varchar(100),
ADD COLUMN source varchar(20),
ADD COLUMN extra jsonb;

COMMENT ON COLUMN email_jobs.recipient_user_id IS 'The recipient''s name in the producer''s own books, if the message gave one.';
COMMENT ON COLUMN email_jobs.source IS 'The road that it came by: kafka, redis, redis-stream or file; NULL for SQL.';
COMMENT ON COLUMN email_jobs.extra IS 'Fields of the producer''s message that this version does not know, as they came.';

-- What cannot become a job, whole, for somebody to mend. In one transaction with its source's position.
CREATE TABLE email_rejects (
    id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    source varchar(20) NOT NULL,
    position text NOT NULL,
    raw bytea NOT NULL,
    error text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The same bytes from the same place are one reject, however often a crash brings them back.
CREATE UNIQUE INDEX email_rejects_once ON email_rejects (source, position, sha256(raw));

COMMENT ON TABLE email_rejects IS 'Messages that could not become jobs. email-worker rejects list | show | replay.';
COMMENT ON COLUMN email_rejects.source IS 'kafka, redis, redis-stream or file.';
COMMENT ON COLUMN email_rejects.position IS 'Where it stood there: topic/partition/offset, list, stream entry, file and line.';
COMMENT ON COLUMN email_rejects.raw IS 'The message, byte by byte: convert_from(raw, ''UTF8'') reads it, if it is text.';
COMMENT ON COLUMN email_rejects.error IS 'What is wrong, with the path of the field.';

-- How far each partition has been read. What stands here counts; what Kafka's group knows is for its own tools.
CREATE TABLE ingest_offsets (
    topic varchar(249) NOT NULL,
    topic_id varchar(40) NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    epoch integer NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, topic_id, partition)
);

COMMENT ON TABLE ingest_offsets IS 'Next offset to read of each Kafka partition. email-worker ingest offsets show | reset.';
COMMENT ON COLUMN ingest_offsets.topic_id IS 'Kafka''s own id: a topic that is deleted and made again has another.';
COMMENT ON COLUMN ingest_offsets.epoch IS 'Raised when somebody moves the offset by hand: ingestors that know an older one stop and read it again.';

-- The relay follows email_tracking by (xid, seq). A transaction that is older than what it waited for must not sort
-- before it: so an event's place is not below any transaction that had ended when it was written. Each event of a job
-- is written under the job's row lock, so its place is not below those of its earlier events, and seq breaks ties.
CREATE FUNCTION email_event_place() RETURNS xid8
LANGUAGE sql VOLATILE PARALLEL UNSAFE AS $$
    SELECT greatest(
        pg_current_xact_id(), (pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1)::text::xid8
    )
$$;

COMMENT ON FUNCTION email_event_place() IS 'The place of an event that is written now: email_tracking.xid.
SELECT email_event_place();';

ALTER TABLE email_tracking ALTER COLUMN xid SET DEFAULT email_event_place();

COMMENT ON COLUMN email_tracking.xid IS 'With seq, the order of commits of each job''s events. Whoever follows the table stops before pg_snapshot_xmin(pg_current_snapshot()).';

CREATE TABLE email_relay (
    xid xid8 NOT NULL,
    seq bigint NOT NULL,
    published_at timestamptz,
    holder text,
    held_until timestamptz,
    is_the_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_the_only_row)
);

INSERT INTO email_relay (xid, seq) VALUES ('0', 0);

COMMENT ON TABLE email_relay IS 'One row: the last event of email_tracking that Kafka has, and which relay is active.';
COMMENT ON COLUMN email_relay.held_until IS 'Renewed while the relay works; when it has passed, another one takes over.';
