-- next_due: seconds until the queue's next job of the future is due, null when there is none.
-- index: email_jobs_due
SELECT extract(EPOCH FROM min(coming.next_attempt_at) - clock_timestamp())::float
FROM unnest(enum_range(NULL::email_priority)) AS level (priority)
CROSS JOIN LATERAL (
    SELECT next_attempt_at
    FROM email_jobs
    WHERE
        status = 'pending'
        AND queue = %(queue)s::email_queue
        AND email_jobs.priority = level.priority
        AND next_attempt_at > statement_timestamp()
    ORDER BY next_attempt_at
    LIMIT 1
) AS coming
