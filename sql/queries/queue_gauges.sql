-- queue_gauges: what email_queue_depth and its neighbours tell; a count stops at 100,000 and is an estimate beyond.
WITH level AS (
    SELECT
        q.queue,
        p.priority
    FROM unnest(enum_range(NULL::email_queue)) AS q (queue)
    CROSS JOIN unnest(enum_range(NULL::email_priority)) AS p (priority)
),

waiting AS (
    SELECT
        level.queue,
        sum(pending.jobs)::double precision AS pending,
        bool_or(pending.jobs = 100000) AS is_more,
        sum(due.jobs)::double precision AS due,
        max(due.age) AS oldest
    FROM level
    CROSS JOIN
        LATERAL (
            SELECT count(*) AS jobs
            FROM (
                SELECT 1
                FROM email_jobs AS job
                WHERE job.status = 'pending' AND job.queue = level.queue AND job.priority = level.priority
                LIMIT 100000
            ) AS those
        ) AS pending
    CROSS JOIN
        LATERAL (
            SELECT
                count(*) AS jobs,
                extract(EPOCH FROM clock_timestamp() - min(those.next_attempt_at))::double precision AS age
            FROM (
                SELECT job.next_attempt_at
                FROM email_jobs AS job
                WHERE
                    job.status = 'pending' AND job.queue = level.queue AND job.priority = level.priority
                    AND job.next_attempt_at <= statement_timestamp()
                    AND job.type NOT IN (SELECT pause.name FROM email_pauses AS pause WHERE pause.kind = 'type')
                ORDER BY job.next_attempt_at
                LIMIT 100000
            ) AS those
        ) AS due
    GROUP BY level.queue
),

ended AS (
    SELECT
        stat.most_common_vals[place][1] AS queue,
        stat.most_common_vals[place][2] AS status,
        stat.most_common_freqs[place]
        * (SELECT greatest(reltuples, 0) FROM pg_class WHERE oid = 'email_jobs'::regclass) AS jobs
    FROM pg_stats_ext AS stat
    CROSS JOIN LATERAL generate_subscripts(stat.most_common_vals, 1) AS place
    WHERE stat.statistics_name = 'email_jobs_ends' AND stat.statistics_schemaname = current_schema()
)

SELECT
    'depth' AS gauge,
    queue::text AS first,
    'pending' AS second,
    CASE
        WHEN is_more
            THEN greatest(
                pending,
                pending / sum(pending) OVER ()
                * (SELECT reltuples FROM pg_class WHERE oid = 'email_jobs_due'::regclass)
            )
        ELSE pending
    END AS value
FROM waiting
UNION ALL
SELECT
    'depth',
    queue::text,
    'due',
    due
FROM waiting
UNION ALL
SELECT
    'oldest',
    queue::text,
    '',
    coalesce(oldest, 0)
FROM waiting
UNION ALL
SELECT
    'depth',
    queue,
    status,
    jobs
FROM ended
WHERE status <> 'pending'
UNION ALL
SELECT
    'in_doubt',
    '',
    '',
    count(*)
FROM (SELECT 1 FROM email_jobs WHERE status = 'in_doubt' LIMIT 100000) AS doubts
UNION ALL
SELECT
    'paused',
    kind,
    name,
    1
FROM email_pauses
UNION ALL
SELECT
    'feedback',
    event_type::text,
    '',
    count(*)
FROM email_tracking
WHERE event_type >= 'delivered' AND occurred_at > statement_timestamp() - interval '1 hour'
GROUP BY event_type
