-- What running it needs: pauses, cheap counts, and room for feedback.

CREATE TABLE email_pauses (
    kind text NOT NULL CHECK (kind IN ('type', 'queue', 'provider')),
    name text NOT NULL,
    reason text,
    paused_by text NOT NULL DEFAULT session_user,
    paused_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, name)
);

COMMENT ON TABLE email_pauses IS 'What is not sent now: a type, a queue, or by a provider. Change it with email_pause() and email_resume(); every worker knows within a second.';

-- How many jobs of each queue have which status, without counting millions of rows.
CREATE STATISTICS email_jobs_ends (MCV) ON queue, status FROM email_jobs;

COMMENT ON STATISTICS email_jobs_ends IS 'For the estimates of how many jobs have ended, which the metrics tell.';

-- Events are written in the order of time: what happened today is found without reading the years before.
CREATE INDEX email_tracking_occurred ON email_tracking USING brin (occurred_at);
CREATE INDEX email_tracking_feedback ON email_tracking (occurred_at) WHERE event_type >= 'delivered';

-- Retention: what is purged stays in the books, and its job_id is still known.
ALTER TABLE email_types ADD COLUMN retention_days integer CHECK (retention_days BETWEEN 0 AND 36500);

COMMENT ON COLUMN email_types.retention_days IS 'How long finished jobs of this type are kept; null: RETENTION_DAYS, 0: for ever.';

CREATE TABLE email_purged (
    day date NOT NULL,
    campaign_id uuid,
    type varchar(50) NOT NULL,
    status email_status NOT NULL,
    jobs bigint NOT NULL
);

-- NULL is a value here: the jobs of a day without a campaign are one row.
CREATE UNIQUE INDEX email_purged_once ON email_purged (
    day, type, status, coalesce(campaign_id, '00000000-0000-0000-0000-000000000000')
);

COMMENT ON TABLE email_purged IS 'How many jobs of each day (UTC) were purged; email_books adds them up.';

CREATE TABLE email_job_keys (
    key bytea PRIMARY KEY,
    purged_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX email_job_keys_age ON email_job_keys USING brin (purged_at);

COMMENT ON TABLE email_job_keys IS 'SHA-256 of the job_id of each purged job: the same job arriving again is no new one.';

-- Erasure: an address becomes a hash that only this database can make.
CREATE TABLE email_secret (
    key bytea NOT NULL DEFAULT sha256((gen_random_uuid()::text || gen_random_uuid()::text)::bytea),
    is_the_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_the_only_row)
);

INSERT INTO email_secret DEFAULT VALUES;

COMMENT ON TABLE email_secret IS 'The key by which erased addresses are hashed. Without it nobody can be recognised again: keep it out of exports.';

ALTER TABLE email_catalog ADD COLUMN has_erased boolean NOT NULL DEFAULT false;

COMMENT ON COLUMN email_catalog.has_erased IS 'Whether the list of suppressions holds hashes: only then the claim makes any.';
