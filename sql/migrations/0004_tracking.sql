-- email_tracking: append-only events of a mail's life.
-- Readers that follow it go by (xid, seq) and stop before pg_snapshot_xmin(pg_current_snapshot()):
-- that order has no gaps, and no row needs a second update.

CREATE TABLE email_tracking (
    id uuid NOT NULL DEFAULT gen_random_uuid(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    job_id uuid NOT NULL REFERENCES email_jobs (id),
    event_type email_event NOT NULL,
    provider varchar(50),
    message_id varchar(255),
    event_data jsonb,
    ip_address inet,
    user_agent text,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (xid, seq)
) WITH (
    autovacuum_vacuum_insert_scale_factor = 0.1
);

CREATE INDEX email_tracking_job ON email_tracking (job_id);

COMMENT ON TABLE email_tracking IS 'What happened to each mail, append-only. job_id is email_jobs.id.';
COMMENT ON COLUMN email_tracking.id IS 'The event''s name for other systems, to recognise a repetition.';
COMMENT ON COLUMN email_tracking.xid IS 'The writing transaction: with seq, the order of commits for whoever follows the table.';
