-- email_jobs: the one queue, and the record of what became of each mail.
-- Its triggers are in sql/api/job_triggers.sql. Constraint names are sentences, because they are what a producer reads.

CREATE TABLE email_jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    job_id varchar(100) NOT NULL UNIQUE,
    type varchar(50) NOT NULL,
    template varchar(100) NOT NULL,
    template_version integer,
    locale varchar(35),
    recipient_email varchar(255) NOT NULL,
    recipient_name varchar(100),
    subject varchar(255),
    content text,
    data jsonb,
    options jsonb,
    campaign_id uuid,
    queue email_queue NOT NULL,
    priority email_priority NOT NULL,
    guarantee email_guarantee NOT NULL,
    status email_status NOT NULL DEFAULT 'pending',
    scheduled_at timestamptz,
    expires_at timestamptz,
    next_attempt_at timestamptz NOT NULL,
    attempt_no integer NOT NULL DEFAULT 0,
    retry_count integer NOT NULL DEFAULT 0,
    max_retries integer,
    provider varchar(50),
    message_id varchar(255),
    error_message text,
    processed_at timestamptz,
    sent_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "job_id must be 1 to 100 printable characters"
    CHECK (job_id !~ '[[:cntrl:]]' AND job_id <> ''),
    CONSTRAINT "template must be a name of letters, digits, - and _"
    CHECK (template ~ '^[A-Za-z0-9][A-Za-z0-9_-]*$'),
    CONSTRAINT "locale must be a language tag such as en or pt-BR"
    CHECK (locale ~ '^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$'),
    CONSTRAINT "recipient_email must be one address, like ann@example.com"
    CHECK (
        recipient_email
        ~ '^[^[:space:][:cntrl:]@<>(),;:"\[\]\\]{1,64}@[^[:space:][:cntrl:]@<>(),;:"\[\]\\.]+(\.[^[:space:][:cntrl:]@<>(),;:"\[\]\\.]+)*$'
    ),
    CONSTRAINT "recipient_name must be one line"
    CHECK (recipient_name !~ '[[:cntrl:]]'),
    CONSTRAINT "subject must be one line"
    CHECK (subject !~ '[[:cntrl:]]'),
    CONSTRAINT "content must be under 1 MB"
    CHECK (octet_length(content) <= 1000000),
    CONSTRAINT "data must be a JSON object"
    CHECK (jsonb_typeof(data) = 'object'),
    CONSTRAINT "data must be under 1 MB"
    CHECK (pg_column_size(data) <= 1000000),
    CONSTRAINT "options must be a JSON object"
    CHECK (jsonb_typeof(options) = 'object'),
    CONSTRAINT "options with attachments must be under 25 MB"
    CHECK (pg_column_size(options) <= 25000000),
    CONSTRAINT "scheduled_at must lie between the years 2000 and 2100"
    CHECK (scheduled_at >= '2000-01-01 00:00Z' AND scheduled_at < '2100-01-01 00:00Z'),
    CONSTRAINT "expires_at must lie between the years 2000 and 2100"
    CHECK (expires_at >= '2000-01-01 00:00Z' AND expires_at < '2100-01-01 00:00Z'),
    CONSTRAINT "retry_count must be 0 to 1000"
    CHECK (retry_count BETWEEN 0 AND 1000),
    CONSTRAINT "max_retries must be 0 to 100"
    CHECK (max_retries BETWEEN 0 AND 100)
) WITH (
    -- Room on each page for the version that settling writes.
    fillfactor = 60,
    -- A queue is mostly dead rows: vacuum by count, not by share, and without pauses that let it fall behind.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 1,
    autovacuum_analyze_scale_factor = 0.05
);

-- Stored as long as they are, so that the claim can tell large ones, and leave them behind, by their size.
ALTER TABLE email_jobs ALTER COLUMN options SET STORAGE EXTERNAL;

-- The claim reads this one and nothing else.
CREATE INDEX email_jobs_due ON email_jobs (queue, priority, next_attempt_at, seq) WHERE status = 'pending';

-- What people look at: small, whatever the size of the table.
CREATE INDEX email_jobs_dead ON email_jobs (updated_at) WHERE status = 'dead';
CREATE INDEX email_jobs_in_doubt ON email_jobs (updated_at) WHERE status = 'in_doubt';
CREATE INDEX email_jobs_campaign ON email_jobs (campaign_id) WHERE campaign_id IS NOT NULL;
CREATE INDEX email_jobs_created ON email_jobs USING brin (created_at);

COMMENT ON TABLE email_jobs IS 'The queue and the record: one row per mail. INSERT a row and it is sent; see email_enqueue().';
COMMENT ON COLUMN email_jobs.job_id IS 'The producer''s name for the job, and its idempotency key: the same one twice is one row.';
COMMENT ON COLUMN email_jobs.seq IS 'Arrival number: breaks ties in the claim, and is the key of email_attempts.';
COMMENT ON COLUMN email_jobs.subject IS 'Sent as it is instead of the template''s subject.';
COMMENT ON COLUMN email_jobs.content IS 'HTML sent as it is instead of the template''s.';
COMMENT ON COLUMN email_jobs.options IS 'cc, bcc, reply_to, from, headers, attachments, tags. See the README.';
COMMENT ON COLUMN email_jobs.attempt_no IS 'Highest attempt number settled. Only ever grows: it fences off workers that lost their claim.';
COMMENT ON COLUMN email_jobs.next_attempt_at IS 'When the job is due. Kept by triggers and by the worker: change scheduled_at instead.';
COMMENT ON COLUMN email_jobs.expires_at IS 'After this moment the mail has no sense and ends as expired.';
COMMENT ON COLUMN email_jobs.max_retries IS 'NULL means the type''s, else EMAIL_MAX_RETRIES.';
COMMENT ON COLUMN email_jobs.processed_at IS 'When a worker last settled it, whatever the outcome.';
COMMENT ON COLUMN email_jobs.message_id IS 'Message-ID for SMTP, the provider''s own id elsewhere.';
