-- What people look at: views over the queue, each with a comment that says how to use it.

DROP VIEW IF EXISTS email_queue_depth, email_dead_letters, email_in_flight, email_books;

CREATE VIEW email_queue_depth AS
SELECT
    queue,
    priority,
    type,
    count(*) AS pending,
    count(*) FILTER (WHERE next_attempt_at <= clock_timestamp()) AS due,
    greatest(clock_timestamp() - min(next_attempt_at), interval '0') AS oldest_due
FROM email_jobs
WHERE status = 'pending'
GROUP BY queue, priority, type
ORDER BY queue, priority, type;

COMMENT ON VIEW email_queue_depth IS
'What waits: pending and due jobs by queue, priority and type, and how long the oldest has been due.
SELECT * FROM email_queue_depth;';

CREATE VIEW email_dead_letters AS
SELECT
    job_id,
    type,
    template,
    error_message,
    retry_count,
    provider,
    created_at,
    updated_at AS dead_since,
    id
FROM email_jobs
WHERE status = 'dead'
ORDER BY updated_at DESC;

COMMENT ON VIEW email_dead_letters IS
'Jobs that were given up, newest first, with the reason. email_requeue(job_id) sends one again.
SELECT error_message, count(*) FROM email_dead_letters GROUP BY 1 ORDER BY 2 DESC;';

CREATE VIEW email_in_flight AS
SELECT
    j.job_id,
    j.type,
    a.attempt,
    a.provider,
    a.worker,
    a.state,
    a.started_at AS since,
    clock_timestamp() - a.started_at AS age
FROM email_attempts AS a
INNER JOIN email_jobs AS j ON a.seq = j.seq
WHERE
    a.started_at > clock_timestamp() - interval '1 day'
    AND a.state IN ('sending', 'unknown')
    AND a.attempt > j.attempt_no
    AND j.status = 'pending'
ORDER BY a.started_at;

COMMENT ON VIEW email_in_flight IS
'Mails in a provider''s hands now, or left there by a worker that died (their age tells), of the last day. There is no processing status: a claim is a row lock, and this is its trace in the journal.
SELECT worker, provider, count(*), max(age) FROM email_in_flight GROUP BY 1, 2;';

CREATE VIEW email_books AS
SELECT
    day,
    campaign_id,
    sum(jobs)::bigint AS accepted,
    coalesce(sum(jobs) FILTER (WHERE status = 'pending'), 0)::bigint AS pending,
    coalesce(sum(jobs) FILTER (WHERE status = 'sent'), 0)::bigint AS sent,
    coalesce(sum(jobs) FILTER (WHERE status = 'dead'), 0)::bigint AS dead,
    coalesce(sum(jobs) FILTER (WHERE status = 'cancelled'), 0)::bigint AS cancelled,
    coalesce(sum(jobs) FILTER (WHERE status = 'suppressed'), 0)::bigint AS suppressed,
    coalesce(sum(jobs) FILTER (WHERE status = 'expired'), 0)::bigint AS expired,
    coalesce(sum(jobs) FILTER (WHERE status = 'in_doubt'), 0)::bigint AS in_doubt
FROM (
    SELECT
        (created_at AT TIME ZONE 'UTC')::date AS day,
        campaign_id,
        status,
        count(*) AS jobs
    FROM email_jobs
    GROUP BY 1, 2, 3
    UNION ALL
    SELECT
        day,
        campaign_id,
        status,
        jobs
    FROM email_purged
) AS counted
GROUP BY day, campaign_id
ORDER BY day DESC, campaign_id;

COMMENT ON VIEW email_books IS
'Every accepted job in exactly one status, by day (UTC) and campaign, purged ones included. email_books_difference() checks them against the events.
SELECT * FROM email_books WHERE day >= current_date - 7;';

-- A job without a status event is pending: arrival itself writes none. Status events of one job are written under its
-- row lock, so their seq is their order; xid is not, for a transaction may be older than what it waited for.
CREATE OR REPLACE FUNCTION email_books_difference(period interval DEFAULT '2 days')
RETURNS TABLE (job_id text, status email_status, by_events email_status)
LANGUAGE sql STABLE AS $$
    SELECT j.job_id, j.status, told.status
    FROM email_jobs AS j
    CROSS JOIN LATERAL (
        SELECT coalesce(
            (
                SELECT
                    CASE
                        WHEN t.event_type IN ('retry_scheduled', 'snoozed', 'requeued') THEN 'pending'::email_status
                        ELSE t.event_type::text::email_status
                    END
                FROM email_tracking AS t
                WHERE t.job_id = j.id AND t.event_type < 'delivered'
                ORDER BY t.seq DESC
                LIMIT 1
            ),
            'pending'
        ) AS status
    ) AS told
    WHERE j.created_at > statement_timestamp() - period AND j.status <> told.status
$$;

COMMENT ON FUNCTION email_books_difference(interval) IS
'Jobs of the last days whose status and latest status event disagree: always none, or something wrote past the rules.
SELECT count(*) FROM email_books_difference();';
