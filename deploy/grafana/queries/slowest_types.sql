-- slowest_types: from the moment a mail was due until a provider had it.
SELECT
    type AS "Type",
    count(*) AS "Mails",
    percentile_cont(0.5) WITHIN GROUP (ORDER BY waited) AS "Half within",
    percentile_cont(0.95) WITHIN GROUP (ORDER BY waited) AS "95 % within",
    max(waited) AS "Slowest"
FROM (
    SELECT
        type,
        extract(EPOCH FROM sent_at - greatest(created_at, scheduled_at))::float AS waited
    FROM email_jobs
    WHERE status = 'sent' AND $__timeFilter(sent_at)
) AS mails
GROUP BY 1
ORDER BY 4 DESC
LIMIT 20
