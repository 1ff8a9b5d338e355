-- show_job: one job, without its content.
SELECT
    job_id,
    status::text,
    type,
    template,
    recipient_email,
    queue::text,
    priority::text,
    guarantee::text,
    source,
    campaign_id::text,
    created_at,
    scheduled_at,
    expires_at,
    next_attempt_at,
    attempt_no,
    retry_count,
    max_retries,
    provider,
    message_id,
    error_message
FROM email_jobs
WHERE job_id = %(job_id)s
