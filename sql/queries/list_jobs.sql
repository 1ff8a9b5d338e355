-- list_jobs: the newest jobs that fit; null is no condition.
SELECT
    job_id,
    status::text,
    type,
    recipient_email,
    priority::text,
    retry_count,
    provider,
    created_at,
    next_attempt_at,
    error_message
FROM email_jobs
WHERE
    (%(status)s::email_status IS NULL OR status = %(status)s::email_status)
    AND (%(type)s::text IS NULL OR type = %(type)s)
    AND (%(queue)s::email_queue IS NULL OR queue = %(queue)s::email_queue)
    AND (%(campaign)s::uuid IS NULL OR campaign_id = %(campaign)s::uuid)
    AND (%(address)s::text IS NULL OR email_normal_address(recipient_email) = email_normal_address(%(address)s))
    AND created_at >= %(since)s::timestamptz
ORDER BY seq DESC
LIMIT %(most)s
