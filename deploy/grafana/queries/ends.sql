-- ends: the ends that jobs came to. A job that was requeued may come to more than one.
SELECT
    $__timeGroupAlias(occurred_at, $__interval),
    event_type::text AS metric,
    count(*) AS jobs
FROM email_tracking
WHERE
    event_type IN ('sent', 'dead', 'cancelled', 'suppressed', 'expired', 'in_doubt')
    AND $__timeFilter(occurred_at)
GROUP BY 1, 2
ORDER BY 1
