-- queue_workers: the processes that are connected, and how many batches each has in hand.
SELECT
    substring(application_name FROM '^email-worker [a-z]+ (.*)$') AS worker,
    count(*) FILTER (WHERE application_name LIKE 'email-worker claim %%' AND state <> 'idle') AS batches,
    count(*) AS connections
FROM pg_stat_activity
WHERE
    pid <> pg_backend_pid()
    AND datname = current_database() AND application_name LIKE 'email-worker %%' AND application_name ~ '^email-worker [a-z]+ .'
GROUP BY worker
ORDER BY worker
