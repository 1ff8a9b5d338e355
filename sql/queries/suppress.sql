-- suppress: nobody writes to these addresses any more; returns for each whether it is new.
SELECT email_suppress(entry.address, entry.reason, entry.scope, entry.source, entry.expires_at)
FROM
    unnest(
        %(addresses)s::text[], %(reasons)s::email_suppression_reason[], %(scopes)s::text[],
        %(sources)s::text[], %(expire_at)s::timestamptz[]
    ) AS entry (address, reason, scope, source, expires_at)
