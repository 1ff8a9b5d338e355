-- What is in the queue now. Everything here only reads.
--   psql … -f sql/ops/inspect.sql

-- What waits, and how long the oldest has been due.
SELECT
    queue,
    priority,
    type,
    pending,
    due,
    oldest_due
FROM email_queue_depth;

-- What is paused, by whom and why.
SELECT
    kind,
    name,
    reason,
    paused_by,
    paused_at
FROM email_pauses;

-- What became of the jobs of the last week, day by day; purged ones are counted too.
SELECT
    day,
    sum(accepted) AS accepted,
    sum(pending) AS pending,
    sum(sent) AS sent,
    sum(dead) AS dead,
    sum(cancelled) AS cancelled,
    sum(suppressed) AS suppressed,
    sum(expired) AS expired,
    sum(in_doubt) AS in_doubt
FROM email_books
WHERE day > current_date - 7
GROUP BY day
ORDER BY day DESC;

-- Jobs in doubt: handed over when something died, of types that must never be sent twice.
SELECT
    job_id,
    type,
    provider,
    updated_at,
    error_message
FROM email_jobs
WHERE status = 'in_doubt'
ORDER BY updated_at DESC
LIMIT 50;
