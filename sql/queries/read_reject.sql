-- read_reject: one reject, whole.
SELECT
    id,
    source,
    position,
    error,
    raw,
    received_at
FROM email_rejects
WHERE id = %(id)s
