-- reject_ids: all rejects, oldest first.
SELECT id
FROM email_rejects
ORDER BY id
