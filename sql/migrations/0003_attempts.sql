-- email_attempts: the journal of hand-overs, and the audit log: one row per try of one job at one provider.
-- Written on its own connection, before any byte of the mail goes out.
-- No foreign key to email_jobs: its check would wait for the claiming transaction, which waits for the send.

CREATE TABLE email_attempts (
    seq bigint NOT NULL,
    attempt integer NOT NULL,
    state email_attempt_state NOT NULL DEFAULT 'sending',
    provider varchar(50),
    reason text,
    answer text,
    message_id varchar(255),
    worker varchar(100) NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz,
    PRIMARY KEY (seq, attempt)
) WITH (
    -- Each row is updated once, on its own page.
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 50000,
    autovacuum_vacuum_cost_delay = 1
);

COMMENT ON TABLE email_attempts IS 'The journal: each try of each job. email_timeline(job_id) shows those of one job.';
COMMENT ON COLUMN email_attempts.seq IS 'email_jobs.seq.';
COMMENT ON COLUMN email_attempts.reason IS 'Why it went to this provider, or why it ended without one.';
COMMENT ON COLUMN email_attempts.answer IS 'The provider''s own words.';

-- Finds recent intents without a cost to the writers.
CREATE INDEX email_attempts_started ON email_attempts USING brin (started_at);
