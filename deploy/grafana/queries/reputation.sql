-- reputation: for each provider, the part of the mails that bounced or that somebody complained of.
SELECT
    coalesce(provider, 'unknown') AS "Provider",
    count(*) FILTER (WHERE event_type = 'sent') AS "Sent",
    count(*) FILTER (WHERE event_type = 'delivered') AS "Delivered",
    count(*) FILTER (WHERE event_type = 'bounced')::float
    / nullif(count(*) FILTER (WHERE event_type = 'sent'), 0) AS "Bounce rate",
    count(*) FILTER (WHERE event_type = 'complained')::float
    / nullif(count(*) FILTER (WHERE event_type = 'sent'), 0) AS "Complaint rate"
FROM email_tracking
WHERE event_type IN ('sent', 'delivered', 'bounced', 'complained') AND $__timeFilter(occurred_at)
GROUP BY 1
ORDER BY 2 DESC
