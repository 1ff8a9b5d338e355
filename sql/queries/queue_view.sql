-- queue_view: what waits, by queue and priority. A count stops at 100,000.
SELECT
    level.queue::text,
    level.priority::text,
    waiting.jobs AS pending,
    due.jobs AS due,
    due.age
FROM
    (
        SELECT
            q.queue,
            p.priority
        FROM unnest(enum_range(NULL::email_queue)) AS q (queue)
        CROSS JOIN unnest(enum_range(NULL::email_priority)) AS p (priority)
    ) AS level
CROSS JOIN
    LATERAL (
        SELECT count(*) AS jobs
        FROM (
            SELECT 1
            FROM email_jobs AS job
            WHERE job.status = 'pending' AND job.queue = level.queue AND job.priority = level.priority
            LIMIT 100000
        ) AS those
    ) AS waiting
CROSS JOIN
    LATERAL (
        SELECT
            count(*) AS jobs,
            coalesce(extract(EPOCH FROM clock_timestamp() - min(those.next_attempt_at)), 0)::float AS age
        FROM (
            SELECT job.next_attempt_at
            FROM email_jobs AS job
            WHERE
                job.status = 'pending'
                AND job.queue = level.queue
                AND job.priority = level.priority
                AND job.next_attempt_at <= statement_timestamp()
            ORDER BY job.next_attempt_at
            LIMIT 100000
        ) AS those
    ) AS due
ORDER BY level.queue, level.priority
