-- work_waits: whether some job has been due for so many seconds, is not paused, and nobody holds it.
-- index: email_jobs_due
SELECT
    exists(
        SELECT 1
        FROM unnest(enum_range(NULL::email_queue)) AS q (queue)
        CROSS JOIN unnest(enum_range(NULL::email_priority)) AS p (priority)
        CROSS JOIN
            LATERAL (
                SELECT 1
                FROM email_jobs AS job
                WHERE
                    job.status = 'pending'
                    AND job.queue = q.queue
                    AND job.priority = p.priority
                    AND job.type NOT IN (SELECT pause.name FROM email_pauses AS pause WHERE pause.kind = 'type')
                    AND job.next_attempt_at < statement_timestamp() - make_interval(secs => %(seconds)s)
                LIMIT 1
                FOR UPDATE SKIP LOCKED
            ) AS due
        WHERE
            NOT EXISTS (
                SELECT 1
                FROM email_pauses AS pause
                WHERE pause.kind = 'queue' AND pause.name = q.queue::text
            )
    )
