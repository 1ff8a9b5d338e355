-- providers: attempts of the journal by provider, and how long its answers took.
SELECT
    provider AS "Provider",
    count(*) AS "Attempts",
    count(*) FILTER (WHERE state = 'accepted')::float / count(*) AS "Accepted",
    count(*) FILTER (WHERE attempt > 1) AS "Retries",
    percentile_cont(0.95) WITHIN GROUP (
        ORDER BY extract(EPOCH FROM finished_at - started_at)::float
    ) AS "95 % within"
FROM email_attempts
WHERE state <> 'not_sent' AND $__timeFilter(started_at)
GROUP BY 1
ORDER BY 2 DESC
