-- list_suppressions: who may not be written to, the newest first; of one address, or of all.
SELECT
    address,
    scope,
    reason::text,
    source,
    created_at,
    expires_at
FROM email_suppressions
WHERE %(address)s::text IS NULL OR address = email_normal_address(%(address)s)
ORDER BY created_at DESC, address, scope
LIMIT %(most)s
