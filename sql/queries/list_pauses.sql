-- list_pauses: what is not sent now, and why.
SELECT
    kind,
    name,
    reason,
    paused_by,
    paused_at
FROM email_pauses
ORDER BY paused_at
