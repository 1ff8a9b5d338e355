-- mails_by_type: mails that a provider took, by type.
SELECT
    $__timeGroupAlias(t.occurred_at, $__interval),
    j.type AS metric,
    count(*) AS mails
FROM email_tracking AS t
INNER JOIN email_jobs AS j ON t.job_id = j.id
WHERE t.event_type = 'sent' AND $__timeFilter(t.occurred_at)
GROUP BY 1, 2
ORDER BY 1
