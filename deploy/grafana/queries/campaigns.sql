-- campaigns: how far each campaign is of which jobs came in the dashboard's range.
SELECT
    campaign_id::text AS "Campaign",
    min(type) AS "Type",
    min(created_at) AS "Began",
    max(sent_at) AS "Last sent",
    count(*) AS "Mails",
    count(*) FILTER (WHERE status <> 'pending')::float / count(*) AS "Done",
    count(*) FILTER (WHERE status = 'sent') AS "Sent",
    count(*) FILTER (WHERE status = 'pending') AS "Pending",
    count(*) FILTER (WHERE status = 'dead') AS "Dead",
    count(*) FILTER (WHERE status = 'suppressed') AS "Suppressed",
    count(*) FILTER (WHERE status IN ('cancelled', 'expired', 'in_doubt')) AS "Other ends"
FROM email_jobs
WHERE campaign_id IN (
    SELECT campaign_id FROM email_jobs WHERE campaign_id IS NOT NULL AND $__timeFilter(created_at)
)
GROUP BY campaign_id
ORDER BY 3 DESC
LIMIT 50
