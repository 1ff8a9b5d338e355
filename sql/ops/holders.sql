-- Who holds what: workers, their claims, and what is in a provider's hands. Only reads.
--   psql … -f sql/ops/holders.sql

-- The connections of each process, and how many of its batches are open.
SELECT
    substring(application_name FROM '^email-worker [a-z]+ (.*)$') AS worker,
    count(*) AS connections,
    count(*) FILTER (WHERE application_name LIKE 'email-worker claim %' AND state <> 'idle') AS batches,
    max(clock_timestamp() - xact_start) AS longest
FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'email-worker %'
GROUP BY worker
ORDER BY worker;

-- Mails that were handed over and have no answer yet.
SELECT
    worker,
    provider,
    count(*) AS mails,
    max(age) AS oldest
FROM email_in_flight
GROUP BY worker, provider
ORDER BY oldest DESC;

-- Who waits for whom: nobody should wait for a worker's claim, and a worker for nobody.
SELECT
    waiting.pid,
    waiting.application_name AS who_waits,
    holding.pid AS holder,
    holding.application_name AS for_whom,
    clock_timestamp() - holding.xact_start AS held_since,
    left(waiting.query, 100) AS waiting_query
FROM pg_stat_activity AS waiting
CROSS JOIN LATERAL unnest(pg_blocking_pids(waiting.pid)) AS blocker (pid)
INNER JOIN pg_stat_activity AS holding ON blocker.pid = holding.pid
WHERE waiting.datname = current_database();

-- Who listens for new jobs: one idle slot for each queue in the whole cluster (1 transactional, 2 bulk).
SELECT
    locks.objid AS queue,
    activity.application_name
FROM pg_locks AS locks
INNER JOIN pg_stat_activity AS activity ON locks.pid = activity.pid
WHERE locks.locktype = 'advisory' AND locks.classid = 1162690889 AND locks.mode = 'ExclusiveLock';
