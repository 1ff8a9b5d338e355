-- list_dead: the newest dead letters.
SELECT
    job_id,
    type,
    template,
    provider,
    retry_count,
    updated_at,
    error_message
FROM email_jobs
WHERE status = 'dead' AND (%(type)s::text IS NULL OR type = %(type)s) AND updated_at >= %(since)s::timestamptz
ORDER BY updated_at DESC
LIMIT %(most)s
