-- list_rejects: the newest messages that could not become jobs.
SELECT
    id,
    source,
    position,
    error,
    length(raw) AS bytes,
    received_at
FROM email_rejects
ORDER BY id DESC
LIMIT %(most)s
