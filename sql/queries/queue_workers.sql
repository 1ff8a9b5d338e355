-- queue_workers: the workers that are connected, and how many batches each has in hand.
SELECT
    substring(application_name FROM '^email-worker [a-z]+ (.*)$') AS worker,
    count(*) FILTER (WHERE application_name LIKE 'email-worker claim %%' AND state <> 'idle') AS batches,
    count(*) AS connections
FROM pg_stat_activity
WHERE
    datname = current_database()
    -- What a worker opens, and no ingestor or command.
    AND application_name ~ '^email-worker (claim|journal|keeper|limits|tasks|watchdog) .'
GROUP BY worker
ORDER BY worker
