-- dead_causes: dead letters by what was said about them, the most first.
SELECT
    count(*) AS jobs,
    type,
    provider,
    max(updated_at) AS newest,
    left(coalesce(error_message, ''), 200) AS cause
FROM email_jobs
WHERE status = 'dead' AND (%(type)s::text IS NULL OR type = %(type)s) AND updated_at >= %(since)s::timestamptz
GROUP BY type, provider, cause
ORDER BY jobs DESC, newest DESC
LIMIT %(most)s
