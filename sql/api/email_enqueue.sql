CREATE OR REPLACE FUNCTION email_enqueue(
    job_id text,
    type text,
    recipient_email text,
    data jsonb DEFAULT '{}',
    template text DEFAULT NULL,
    recipient_name text DEFAULT NULL,
    priority email_priority DEFAULT NULL,
    scheduled_at timestamptz DEFAULT NULL,
    expires_at timestamptz DEFAULT NULL,
    max_retries integer DEFAULT NULL,
    locale text DEFAULT NULL,
    subject text DEFAULT NULL,
    content text DEFAULT NULL,
    options jsonb DEFAULT NULL,
    campaign_id uuid DEFAULT NULL
) RETURNS uuid
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    id uuid;
BEGIN
    INSERT INTO email_jobs AS j (
        job_id, type, template, recipient_email, recipient_name, data, priority, scheduled_at, expires_at,
        max_retries, locale, subject, content, options, campaign_id
    ) VALUES (
        $1, $2, coalesce($5, $2), $3, $6, $4, $7, $8, $9, $10, $11, $12, $13, $14, $15
    )
    ON CONFLICT ON CONSTRAINT email_jobs_job_id_key DO NOTHING
    RETURNING j.id INTO id;
    IF NOT FOUND THEN
        SELECT j.id INTO id FROM email_jobs AS j WHERE j.job_id = $1;
    END IF;
    RETURN id;
END $$;

COMMENT ON FUNCTION email_enqueue IS
'Puts a mail into the queue, in your own transaction, and returns its id. The same job_id again changes nothing and returns the first one''s id. The template is that of the type unless named.
SELECT email_enqueue(''order-17-paid'', ''payment-confirmation'', ''ann@example.com'', ''{"amount": 20}'');';
