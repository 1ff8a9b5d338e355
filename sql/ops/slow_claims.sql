-- Why claims are slow: an old snapshot, dead rows, or statistics. Only reads.
--   psql … -f sql/ops/slow_claims.sql

-- The oldest transactions: vacuum removes nothing that one of them might still see. A backup or a report, usually.
SELECT
    pid,
    application_name,
    state,
    clock_timestamp() - xact_start AS open_for,
    left(query, 100) AS query
FROM pg_stat_activity
WHERE backend_xmin IS NOT NULL OR backend_xid IS NOT NULL
ORDER BY xact_start
LIMIT 10;

-- Replication slots that hold old rows back, too.
SELECT
    slot_name,
    active,
    age(xmin) AS transactions_behind
FROM pg_replication_slots;

-- How the claim spends its time, where pg_stat_statements is installed: SELECT it there by its first line,
-- which begins with "-- claim_jobs".

-- What a claim would read now. Shared hits far beyond some hundred mean dead rows in the index.
EXPLAIN (ANALYZE, BUFFERS, COSTS OFF)
SELECT seq
FROM email_jobs
WHERE
    status = 'pending'
    AND queue = 'transactional'
    AND priority = 'normal'
    AND next_attempt_at <= statement_timestamp()
ORDER BY next_attempt_at, seq
LIMIT 50;
