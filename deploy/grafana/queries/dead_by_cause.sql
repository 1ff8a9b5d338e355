-- dead_by_cause: dead letters by type and reason, addresses left out.
SELECT
    type AS "Type",
    cause AS "Cause",
    count(*) AS "Mails",
    max(dead_at) AS "Latest"
FROM email_dead_causes
WHERE $__timeFilter(dead_at)
GROUP BY 1, 2
ORDER BY 3 DESC, 4 DESC
LIMIT 50
