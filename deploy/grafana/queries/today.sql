-- today: how many mails came to which end since midnight (UTC), whatever the dashboard's range.
SELECT
    count(*) FILTER (WHERE event_type = 'sent') AS "Sent",
    count(*) FILTER (WHERE event_type = 'dead') AS "Dead",
    count(*) FILTER (WHERE event_type = 'suppressed') AS "Suppressed",
    count(*) FILTER (WHERE event_type = 'bounced') AS "Bounced",
    count(*) FILTER (WHERE event_type = 'complained') AS "Complaints",
    count(*) FILTER (WHERE event_type = 'in_doubt') AS "In doubt"
FROM email_tracking
WHERE occurred_at >= date_trunc('day', now(), 'UTC')
