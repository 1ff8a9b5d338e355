-- bounces_and_complaints: what recipients and their servers said, over time.
SELECT
    $__timeGroupAlias(occurred_at, $__interval),
    event_type::text AS metric,
    count(*) AS events
FROM email_tracking
WHERE event_type IN ('bounced', 'complained', 'unsubscribed') AND $__timeFilter(occurred_at)
GROUP BY 1, 2
ORDER BY 1
