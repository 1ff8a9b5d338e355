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

COMMENT ON STATISTICS email_jobs_ends IS 'For the estimates of email_queue_gauges().';

CREATE INDEX email_tracking_feedback ON email_tracking (occurred_at) WHERE event_type >= 'delivered';
